// Convolutions whose outputs depend on one channel each: see depthwise.cuh.

typedef OV_T T;

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
  const Outputs o = outputs_of(d);
  if (o.inside && o.row == 0) ov_prefetch_l2(w + o.first);
  ov_grid_wait();
  if (o.inside) {
    Several sums;
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) sums.v[e] = 0.0f;
    each_tap(x, w, d, o, [&](const T* image, const T* filters) {
      const Several a = load_several(image), b = load_several(filters);
      OV_UNROLL
      for (int e = 0; e < VECTOR; ++e) sums.v[e] += a.v[e] * b.v[e];
    });
    const long long to = (long long)o.row * d.outputs + o.first;
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) {
      sums.v[e] = ov_finished<OV_ACTIVATION>(sums.v[e], bias, o.first + e, residual, to + e, d.finish);
    }
    store_several(y + to, sums);
  }
  ov_grid_launch_dependents();
}
