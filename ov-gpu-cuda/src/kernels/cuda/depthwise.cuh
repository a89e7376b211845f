// Where the outputs of depthwise convolutions read, channels last: a thread per output place and VECTOR channels.
// Filters are [tap][output], rows of whole 16 bytes.

constexpr int VECTOR = OV_VECTOR;

struct Depthwise {
  // Depth, height, width: see product.cu.
  int in[3], out[3], kernel[3], dilation[3], stride[3], pad[3];
  int channels, unused;
  long long image, channel, at[3];
  int rows, outputs;
  // Outputs per channel, and elements from tap to tap of the filters.
  int multiplier, row;
  ov_finish finish;
  // 1 where sums of bytes have a scale per output.
  int scale_step;
};

// The outputs of this thread: the first, and its place.
struct Outputs {
  unsigned row;
  int first;
  bool inside;
};

OV_DEVICE Outputs outputs_of(const Depthwise& d) {
  const unsigned chunks = d.outputs / VECTOR, i = ov_global_thread(), row = i / chunks;
  return {row, (int)(i - row * chunks) * VECTOR, row < (unsigned)d.rows};
}

// Calls `f` with the elements and the filters of every tap inside the image.
template <class X, class W, class F> OV_DEVICE void each_tap(const X* x, const W* w, const Depthwise& d, const Outputs& o, const F& f) {
  int from[3], rest = (int)o.row;
  OV_UNROLL
  for (int axis = 2; axis >= 0; --axis) {
    const int next = rest / d.out[axis];
    from[axis] = (rest - next * d.out[axis]) * d.stride[axis] - d.pad[axis];
    rest = next;
  }
  const X* image = x + rest * d.image + o.first / d.multiplier;
  for (int z = 0; z < OV_TAPS_Z; ++z) {
    const int at_z = from[0] + z * d.dilation[0];
    if (at_z < 0 || at_z >= d.in[0]) continue;
    OV_UNROLL
    for (int v = 0; v < OV_TAPS_Y; ++v) {
      const int at_y = from[1] + v * d.dilation[1];
      if (at_y < 0 || at_y >= d.in[1]) continue;
      OV_UNROLL
      for (int u = 0; u < OV_TAPS_X; ++u) {
        const int at_x = from[2] + u * d.dilation[2];
        if (at_x < 0 || at_x >= d.in[2]) continue;
        f(image + at_z * d.at[0] + at_y * d.at[1] + at_x * d.at[2],
          w + (long long)((z * OV_TAPS_Y + v) * OV_TAPS_X + u) * d.row + o.first);
      }
    }
  }
}
