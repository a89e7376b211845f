// Convolutions of bytes whose outputs depend on one channel each: see depthwise.cuh. Filters are less their zero points.

typedef OV_T T;
typedef OV_Y Y;

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
  const Outputs o = outputs_of(d);
  if (o.inside && o.row == 0) ov_prefetch_l2(w + o.first);
  ov_grid_wait();
  if (o.inside) {
    const int zero = ov_zero_of(x_zero);
    int sums[VECTOR];
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) sums[e] = 0;
    each_tap(x, w, d, o, [&](const T* image, const short* filters) {
      int a[VECTOR], b[VECTOR];
      load_several(a, image);
      load_several(b, filters);
      OV_UNROLL
      for (int e = 0; e < VECTOR; ++e) sums[e] += (a[e] - zero) * b[e];
    });
    const ov_target<Y> target(y_scale, y_zero);
    const ov_scale scales(scale, d.scale_step, factor);
    const long long to = (long long)o.row * d.outputs + o.first;
    Y run[VECTOR];
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) {
      run[e] = target.of(
          ov_scaled<OV_ACTIVATION>(sums[e], scales, bias, o.first + e, residual, to + e, d.finish));
    }
    ov_store_run(y, to, run, VECTOR);
  }
  ov_grid_launch_dependents();
}
