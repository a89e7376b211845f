// What follows sums of products of bytes: zero points, scales, what ov_finished does, quantization. Product and sum are
// rounded each on its own.

// A whole number of steps from the zero point as a byte.
template <class Y> OV_DEVICE Y ov_stepped(float steps, float zero) {
  constexpr float LOW = (Y)-1 < (Y)1 ? -128.0f : 0.0f, HIGH = LOW + 255.0f;
  const float v = ov_add_rn(steps, zero);
  return ov_is_nan(v) ? (Y)0 : (Y)(int)(v < LOW ? LOW : v > HIGH ? HIGH : v);
}

// The type of the result, and how a number becomes one of it: as it is, or the nearest step, halves to even.
template <class Y> struct ov_target {
  float inverse, zero;
  OV_DEVICE ov_target(const float* scale, const Y* zero) : inverse(1.0f / *scale), zero((float)*zero) {}
  OV_DEVICE Y of(float v) const { return ov_stepped<Y>(ov_rint(ov_mul_rn(v, inverse)), zero); }
};
template <> struct ov_target<float> {
  OV_DEVICE ov_target(const float*, const float*) {}
  OV_DEVICE float of(float v) const { return v; }
};

// What sums of a column are multiplied by: a scale for all, or one per column, times one factor.
struct ov_scale {
  const float* scale;
  int step;
  float factor;
  OV_DEVICE ov_scale(const float* scale, int step, const float* factor)
      : scale(scale), step(step), factor(factor ? *factor : 1.0f) {}
  OV_DEVICE float of(long long column) const { return ov_mul_rn(scale[column * step], factor); }
};

// The number that a sum of products stands for, with what follows it.
template <int activation>
OV_DEVICE float ov_scaled(int sum, const ov_scale& scale, const float* bias, long long column, const float* residual,
                          long long at, const ov_finish& finish) {
  const float v = ov_mul_rn((float)sum, scale.of(column));
  return ov_finished<activation>(v, bias, column, residual, at, finish);
}

// The zero point of x, 0 without one.
template <class X> OV_DEVICE int ov_zero_of(const X* zero) { return zero ? (int)*zero : 0; }

// N neighbouring bytes of which `count` are there; they lie at a multiple of N.
template <int N, class X> OV_DEVICE void ov_load_run(X (&v)[N], const X* from, int count) {
  static_assert(N == 16 && sizeof(X) == 1, "16 bytes");
  if (count >= N) {
    const ov_u32x4 all = ov_load_16(from);
    const unsigned words[4] = {all.x, all.y, all.z, all.w};
    OV_UNROLL
    for (int e = 0; e < N; ++e) v[e] = (X)(words[e / 4] >> e % 4 * 8);
  } else {
    OV_UNROLL
    for (int e = 0; e < N; ++e) v[e] = e < count ? from[e] : (X)0;
  }
}

// N neighbouring elements, in one store where they are all there and lie at a multiple of their size.
template <int N, class Y> OV_DEVICE void ov_store_run(Y* to, long long at, const Y (&v)[N], int count) {
  constexpr int WORDS = N * (int)sizeof(Y) / 4;
  static_assert(WORDS % 4 == 0 || WORDS < 3, "stores of 4, 8 or 16 bytes");
  if (WORDS > 0 && count >= N && at % N == 0) {
    unsigned words[WORDS ? WORDS : 1];
    OV_UNROLL
    for (int w = 0; w < WORDS; ++w) {
      if constexpr (sizeof(Y) == 4) {
        words[w] = ov_float_bits(v[w]);
      } else {
        words[w] = 0;
        OV_UNROLL
        for (int b = 0; b < 4; ++b) words[w] |= (unsigned)(unsigned char)v[4 * w + b] << 8 * b;
      }
    }
    if constexpr (WORDS == 1) {
      ov_store_4(to + at, words[0]);
    } else if constexpr (WORDS == 2) {
      ov_store_8(to + at, {words[0], words[1]});
    } else {
      OV_UNROLL
      for (int w = 0; w < WORDS; w += 4) ov_store_16(to + at + w, {words[w], words[w + 1], words[w + 2], words[w + 3]});
    }
  } else {
    OV_UNROLL
    for (int e = 0; e < N; ++e)
      if (e < count) to[at + e] = v[e];
  }
}
