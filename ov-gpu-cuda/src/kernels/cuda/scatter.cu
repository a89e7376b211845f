// Writing by index. T is the storage type (or the unit that is moved when updates replace), J the type of indices, C what
// T is combined in. The output already holds the data. Indices outside write nothing.
//
// Updates that write the same slots stand in one lane, in order; a lane is one thread. Updates of different lanes never
// meet. Slots are counted in blocks of the data.

typedef OV_ELEMENT T;
typedef OV_INDEX J;
typedef OV_COMPUTE C;

struct Scatter {
  // Lanes, and updates of a lane.
  unsigned lanes, updates;
  // Units of a block; lanes that a block of updates takes apart.
  ov_divisor block;
  // Elements along the axis (or 0: tuples), and slots between neighbours on it.
  unsigned extent, stride;
  // Updates apart, and slots apart, of neighbouring lanes: walk operands 0 and 1.
  ov_walk<2> lane;
  unsigned update_stride;
  unsigned depth, extents[OV_MAX_RANK], strides[OV_MAX_RANK];
};

// The slot of update `u` of lane `l` (of a block), and the place of the update among the updates; -1 outside.
OV_DEVICE long long slot(const Scatter& s, const J* indices, unsigned l, unsigned u, long long* update) {
  if (s.depth > 0 || s.extent == 0) {
    *update = u;
    long long at = 0;
    for (unsigned d = 0; d < s.depth; ++d) {
      long long index = (long long)indices[(long long)u * s.depth + d];
      if (!ov_wrap(index, s.extents[d])) return -1;
      at += index * s.strides[d];
    }
    return at;
  }
  int at[2];
  s.lane.locate(l, at);
  *update = at[0] + (long long)u * s.update_stride;
  long long index = (long long)indices[OV_SHARED_INDICES ? u : *update];
  return ov_wrap(index, s.extent) ? at[1] + index * s.stride : -1;
}

OV_DEVICE T combined(T old, T update) {
  T result;
  const C a = ov_load(old), b = ov_load(update);
  ov_store(&result, (ov_compute<T>)(OV_COMBINE));
  return result;
}

// One thread per lane and unit of a block. With counts: how often each place has been written; the first write replaces
// where it is 0.
OV_KERNEL scatter_lanes(const J* indices, const T* updates, T* out, int* counts, Scatter s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  unsigned lane = ov_global_thread();
  if (lane < s.lanes * s.block.value) {
    const unsigned unit = ov_innermost(s.block, lane);
    for (unsigned u = 0; u < s.updates; ++u) {
      long long update;
      const long long at = slot(s, indices, lane, u, &update);
      if (at < 0) continue;
      const long long place = at * s.block.value + unit;
      const T value = updates[update * s.block.value + unit];
      if (OV_COUNTED) {
        out[place] = counts[place]++ == 0 ? value : combined(out[place], value);
      } else {
        out[place] = combined(out[place], value);
      }
    }
  }
}

OV_KERNEL scatter_fill(int* to, unsigned count, int value) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < count) to[i] = value;
}

// The last update of each slot, counted from 1.
OV_KERNEL scatter_mark(const J* indices, int* last, Scatter s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < s.lanes * s.updates) {
    long long update;
    const unsigned lane = i / s.updates, u = i - lane * s.updates;
    const long long at = slot(s, indices, lane, u, &update);
    if (at >= 0) ov_atomic_max(last + at, (int)u + 1);
  }
}

OV_KERNEL scatter_last(const J* indices, const T* updates, T* out, const int* last, Scatter s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  unsigned i = ov_global_thread();
  if (i < s.lanes * s.updates * s.block.value) {
    const unsigned unit = ov_innermost(s.block, i);
    long long update;
    const unsigned lane = i / s.updates, u = i - lane * s.updates;
    const long long at = slot(s, indices, lane, u, &update);
    if (at >= 0 && last[at] == (int)u + 1) out[at * s.block.value + unit] = updates[update * s.block.value + unit];
  }
}

OV_DEVICE float divided(float sum, int count) { return sum / (float)count; }
OV_DEVICE double divided(double sum, int count) { return sum / (double)count; }
template <class V> OV_DEVICE V divided(V sum, int count) { return (V)((long long)sum / count); }

// Sums to means.
OV_KERNEL scatter_divide(T* out, const int* counts, unsigned count) {
  ov_grid_wait();
  ov_grid_launch_dependents();
#if OV_COUNTED
  const unsigned i = ov_global_thread();
  if (i < count && counts[i] > 1) ov_store(out + i, divided(ov_load(out[i]), counts[i]));
#endif
}
