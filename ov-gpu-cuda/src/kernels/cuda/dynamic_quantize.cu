// Quantization of f32 to u8 by the range of the data, which 0 always belongs to.

struct Range {
  float low, high;
  OV_DEVICE static Range none() { return {0, 0}; }
  OV_DEVICE static Range merge(Range a, Range b) { return {ov_fmin(a.low, b.low), ov_fmax(a.high, b.high)}; }
};

// One block per `size` elements, whose range it writes.
OV_KERNEL block_ranges(const float* x, Range* ranges, unsigned count, unsigned size) {
  OV_SHARED(Range, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned first = ov_min(ov_block_x() * size, count), end = ov_min(first + size, count);
  Range r = Range::none();
  for (unsigned i = first + ov_thread_x(); i < end; i += ov_block_dim_x()) r = Range::merge(r, {x[i], x[i]});
  r = ov_merge_block(r, shared);
  if (ov_thread_x() == 0) ranges[ov_block_x()] = r;
}

// Every block finds the range of all ranges again.
OV_KERNEL quantize_by_ranges(const float* x, const Range* ranges, unsigned char* y, float* scale, unsigned char* zero,
                             unsigned count, unsigned blocks) {
  OV_SHARED(Range, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  Range r = Range::none();
  for (unsigned i = ov_thread_x(); i < blocks; i += ov_block_dim_x()) r = Range::merge(r, ranges[i]);
  r = ov_merge_block(r, shared);
  const float step = (r.high - r.low) / 255.0f;
  float from = step == 0 ? 0 : -r.low / step;
  from = ov_rint(from < 0 ? 0 : from > 255 ? 255 : from);
  for (unsigned i = ov_global_thread(); i < count; i += ov_grid_dim_x() * ov_block_dim_x()) {
    const float quotient = step == 0 ? 0 : x[i] / step;
    const float v = ov_rint(quotient) + from;
    y[i] = (unsigned char)(v > 0 ? (v < 255 ? v : 255) : 0);
  }
  if (ov_block_x() == 0 && ov_thread_x() == 0) {
    *scale = step;
    *zero = (unsigned char)from;
  }
}
