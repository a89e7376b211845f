// Reading by index. T is the unit that is moved, J the type of indices. Indices outside give zeros.

typedef OV_ELEMENT T;
typedef OV_INDEX J;

struct Slices {
  unsigned count;
  // Units of a slice, indices of a batch, places before the axis in a batch.
  ov_divisor block, picks, outer;
  unsigned extent;
};

// out[batch, outer, pick, …] = data[batch, outer, indices[batch, pick], …]
OV_KERNEL gather_slices(const T* data, const J* indices, T* out, Slices s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < s.count) {
    unsigned rest = i;
    const unsigned at = ov_innermost(s.block, rest), pick = ov_innermost(s.picks, rest);
    const unsigned batch = s.outer.divide(rest);
    long long index = (long long)indices[batch * s.picks.value + pick];
    T value = {};
    if (ov_wrap(index, s.extent)) value = data[((long long)rest * s.extent + index) * s.block.value + at];
    out[i] = value;
  }
}

// Walk operand 0 is the data, with stride 0 along the axis.
OV_KERNEL gather_elements(const T* data, const J* indices, T* out, ov_walk<1> w, unsigned extent, int stride) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < w.count) {
    int at;
    w.locate(i, &at);
    long long index = (long long)indices[i];
    T value = {};
    if (ov_wrap(index, extent)) value = data[at + index * stride];
    out[i] = value;
  }
}

struct Tuples {
  unsigned count, depth;
  // Units of a slice, tuples of a batch.
  ov_divisor block, tuples;
  // Slices of a batch, then extent and stride (in slices) per index of a tuple.
  unsigned batch, extents[OV_MAX_RANK], strides[OV_MAX_RANK];
};

OV_KERNEL gather_tuples(const T* data, const J* indices, T* out, Tuples t) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < t.count) {
    unsigned rest = i;
    const unsigned at = ov_innermost(t.block, rest);
    long long slice = (long long)t.tuples.divide(rest) * t.batch;
    bool inside = true;
    for (unsigned d = 0; d < t.depth; ++d) {
      long long index = (long long)indices[(long long)rest * t.depth + d];
      inside = ov_wrap(index, t.extents[d]) && inside;
      slice += index * t.strides[d];
    }
    T value = {};
    if (inside) value = data[slice * t.block.value + at];
    out[i] = value;
  }
}

// Walk operand 0 is the data, whose first `lengths[batch]` places along the sequence axis are reversed.
struct Sequences {
  ov_walk<1> walk;
  // Elements behind the axis of the sequence, and of the batch, and their extents.
  ov_divisor sequence_inner, sequence, batch_inner, batch;
};
OV_KERNEL reverse_sequences(const T* data, const J* lengths, T* out, Sequences s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < s.walk.count) {
    unsigned b = s.batch_inner.divide(i), q = s.sequence_inner.divide(i);
    b = ov_innermost(s.batch, b);
    const long long at = ov_innermost(s.sequence, q);
    const long long length = (long long)lengths[b];
    const bool moves = at < length && length <= (long long)s.sequence.value;
    out[i] = data[moves ? i + (length - 1 - 2 * at) * s.sequence_inner.value : i];
  }
}
