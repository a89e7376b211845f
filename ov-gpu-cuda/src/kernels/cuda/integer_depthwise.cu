// Convolutions of bytes whose outputs depend on one channel each, channels last: a thread per output place and VECTOR
// channels. Filters, less their zero points, are [tap][output], rows of whole 16 bytes.

typedef OV_T T;
typedef OV_Y Y;
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
  int scale_step;
};

// N words, in the widest loads that their number allows.
template <int N> OV_DEVICE void load_words(unsigned (&words)[N], const void* from) {
  if constexpr (N % 4 == 0) {
    OV_UNROLL
    for (int i = 0; i < N; i += 4) {
      const ov_u32x4 v = ov_load_16((const unsigned*)from + i);
      words[i] = v.x, words[i + 1] = v.y, words[i + 2] = v.z, words[i + 3] = v.w;
    }
  } else if constexpr (N == 2) {
    const ov_u32x2 v = ov_load_8(from);
    words[0] = v.x, words[1] = v.y;
  } else {
    words[0] = ov_load_4(from);
  }
}

// VECTOR neighbours.
template <class E> OV_DEVICE void load_several(int (&v)[VECTOR], const E* from) {
  if constexpr (VECTOR == 1) {
    v[0] = (int)*from;
  } else {
    constexpr int EACH = 4 / (int)sizeof(E), BITS = 32 / EACH;
    unsigned words[VECTOR / EACH];
    load_words(words, from);
    OV_UNROLL
    for (int i = 0; i < VECTOR; ++i) v[i] = (int)(E)(words[i / EACH] >> i % EACH * BITS);
  }
}

OV_KERNEL_BOUNDS(128, 4) integer_depthwise(const T* x, const short* w, Y* y, const float* bias, const float* residual,
                                           const T* x_zero, const float* scale, const float* factor, const float* y_scale,
                                           const Y* y_zero, Depthwise d) {
  const int chunks = d.outputs / VECTOR, i = (int)ov_global_thread();
  const int row = i / chunks, output = (i - row * chunks) * VECTOR;
  const bool inside = row < d.rows;
  if (inside && row == 0) ov_prefetch_l2(w + output);
  ov_grid_wait();
  if (inside) {
    int from[3], rest = row;
    OV_UNROLL
    for (int axis = 2; axis >= 0; --axis) {
      const int next = rest / d.out[axis];
      from[axis] = (rest - next * d.out[axis]) * d.stride[axis] - d.pad[axis];
      rest = next;
    }
    const T* image = x + rest * d.image + output / d.multiplier;
    const int zero = ov_zero_of(x_zero);
    int sums[VECTOR];
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) sums[e] = 0;
    for (int z = 0; z < OV_TAPS_Z; ++z) {
      const int at_z = from[0] + z * d.dilation[0];
      if (at_z < 0 || at_z >= d.in[0]) continue;
      for (int v = 0; v < OV_TAPS_Y; ++v) {
        const int at_y = from[1] + v * d.dilation[1];
        if (at_y < 0 || at_y >= d.in[1]) continue;
        OV_UNROLL
        for (int u = 0; u < OV_TAPS_X; ++u) {
          const int at_x = from[2] + u * d.dilation[2];
          if (at_x < 0 || at_x >= d.in[2]) continue;
          int a[VECTOR], b[VECTOR];
          load_several(a, image + at_z * d.at[0] + at_y * d.at[1] + at_x * d.at[2]);
          load_several(b, w + (long long)((z * OV_TAPS_Y + v) * OV_TAPS_X + u) * d.row + output);
          OV_UNROLL
          for (int e = 0; e < VECTOR; ++e) sums[e] += (a[e] - zero) * b[e];
        }
      }
    }
    const ov_target<Y> target(y_scale, y_zero);
    const ov_scale scales(scale, d.scale_step, factor);
    const long long to = (long long)row * d.outputs + output;
    Y run[VECTOR];
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) {
      run[e] = target.of(
          ov_scaled<OV_ACTIVATION>(sums[e], scales, bias, output + e, residual, to + e, d.finish));
    }
    ov_store_run(y, to, run, VECTOR);
  }
  ov_grid_launch_dependents();
}
