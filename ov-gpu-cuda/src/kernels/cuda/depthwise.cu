// Convolutions whose outputs depend on one channel each, channels last: a thread per output place and VECTOR channels.
// Filters are [tap][output], rows of whole 16 bytes.

typedef OV_T T;
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
  int unused_too;
};

struct Several {
  float v[VECTOR];
};

template <class S> OV_DEVICE Several load_several(const S* from) {
  Several r;
  if constexpr (VECTOR == 1) {
    r.v[0] = ov_f32(*from);
  } else {
    const ov_u32x4 bits = ov_load_16(from);
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    OV_UNROLL
    for (int i = 0; i < VECTOR; ++i) {
      if constexpr (sizeof(S) == 2) {
        const S half = {(unsigned short)(words[i / 2] >> i % 2 * 16)};
        r.v[i] = ov_f32(half);
      } else {
        r.v[i] = ov_bits_float(words[i]);
      }
    }
  }
  return r;
}

template <class S> OV_DEVICE void store_several(S* to, const Several& r) {
  if constexpr (VECTOR == 1) {
    *to = ov_from_f32<S>(r.v[0]);
  } else {
    unsigned words[4];
    OV_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(S) == 2) {
        words[i] = ov_storage<S>::pack(r.v[2 * i], r.v[2 * i + 1]);
      } else {
        words[i] = ov_float_bits(r.v[i]);
      }
    }
    ov_store_16(to, {words[0], words[1], words[2], words[3]});
  }
}

OV_KERNEL_BOUNDS(128, 4) depthwise(const T* x, const T* w, T* y, const float* bias, const T* residual, Depthwise d) {
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
    Several sums;
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) sums.v[e] = 0.0f;
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
          const Several a = load_several(image + at_z * d.at[0] + at_y * d.at[1] + at_x * d.at[2]);
          const Several b = load_several(w + (long long)((z * OV_TAPS_Y + v) * OV_TAPS_X + u) * d.row + output);
          OV_UNROLL
          for (int e = 0; e < VECTOR; ++e) sums.v[e] += a.v[e] * b.v[e];
        }
      }
    }
    const long long to = (long long)row * d.outputs + output;
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) {
      sums.v[e] = ov_finished<OV_ACTIVATION>(sums.v[e], bias, output + e, residual, to + e, d.finish);
    }
    store_several(y + to, sums);
  }
  ov_grid_launch_dependents();
}
