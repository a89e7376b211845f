// Runs of slices written into caches. T is the unit that is moved, J the type of indices. The output already holds the cache;
// what would lie outside of it is not written.

typedef OV_ELEMENT T;
typedef OV_INDEX J;

struct Cache {
  unsigned count;
  // Units of a slice, slices of an update, runs of a batch.
  ov_divisor block, updates, runs;
  unsigned extent;
};

OV_KERNEL cache_write(const T* update, const J* begins, T* out, Cache c) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < c.count) {
    unsigned rest = i;
    const unsigned unit = ov_innermost(c.block, rest), slice = ov_innermost(c.updates, rest);
    const unsigned batch = c.runs.divide(rest);
    long long at = OV_BEGINS ? (long long)begins[batch] : 0;
    if (at >= 0) {
      at += slice;
      if (OV_CIRCULAR) at %= c.extent;
      if (at < (long long)c.extent) out[((long long)rest * c.extent + at) * c.block.value + unit] = update[i];
    }
  }
}
