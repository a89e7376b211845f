// Wrappers that every kernel is written with, on top of what differs between a GPU (ov_ptx.cuh) and the processor
// (testing/cpp/ov_host.h). One text for NVRTC and g++.

OV_MATH_1(exp)
OV_MATH_1(exp2)
OV_MATH_1(expm1)
OV_MATH_1(log)
OV_MATH_1(log2)
OV_MATH_1(log1p)
OV_MATH_1(sqrt)
OV_MATH_1(tanh)
OV_MATH_1(erf)
OV_MATH_1(sin)
OV_MATH_1(cos)
OV_MATH_1(tan)
OV_MATH_1(asin)
OV_MATH_1(acos)
OV_MATH_1(atan)
OV_MATH_1(sinh)
OV_MATH_1(cosh)
OV_MATH_1(asinh)
OV_MATH_1(acosh)
OV_MATH_1(atanh)
OV_MATH_1(floor)
OV_MATH_1(ceil)
OV_MATH_1(trunc)
// To the nearest integer: rint halves to even, round halves away from zero.
OV_MATH_1(rint)
OV_MATH_1(round)
OV_MATH_1(fabs)
OV_MATH_2(pow)
OV_MATH_2(fmod)
OV_MATH_2(atan2)
OV_MATH_2(copysign)
// The other operand when one is NaN.
OV_MATH_2(fmin)
OV_MATH_2(fmax)

struct ov_f16 {
  unsigned short bits;
};
struct ov_bf16 {
  unsigned short bits;
};

OV_DEVICE float ov_f16_to_f32(ov_f16 v) { return ov_f16_bits_to_f32(v.bits); }
OV_DEVICE float ov_bf16_to_f32(ov_bf16 v) { return ov_bits_float((unsigned)v.bits << 16); }
OV_DEVICE ov_f16 ov_f32_to_f16(float v) { return {ov_f32_to_f16_bits(v)}; }
OV_DEVICE ov_bf16 ov_f32_to_bf16(float v) { return {ov_f32_to_bf16_bits(v)}; }

// Rounded to odd, so that rounding again to a shorter type is as if done once (Boldo and Melquiond, "When double rounding
// is odd", 2005).
OV_DEVICE float ov_f64_to_f32_odd(double v) {
  const float f = ov_f64_to_f32_toward_zero(v);
  return (double)f == v || v != v ? f : ov_bits_float(ov_float_bits(f) | 1);
}
OV_DEVICE ov_f16 ov_f64_to_f16(double v) { return ov_f32_to_f16(ov_f64_to_f32_odd(v)); }
OV_DEVICE ov_bf16 ov_f64_to_bf16(double v) { return ov_f32_to_bf16(ov_f64_to_f32_odd(v)); }

// Storage types computed in f32: f32, f16, bf16.
OV_DEVICE float ov_f32(float v) { return v; }
OV_DEVICE float ov_f32(ov_f16 v) { return ov_f16_to_f32(v); }
OV_DEVICE float ov_f32(ov_bf16 v) { return ov_bf16_to_f32(v); }
template <class T> struct ov_storage;
template <> struct ov_storage<float> {
  OV_DEVICE static float of(float v) { return v; }
};
template <> struct ov_storage<ov_f16> {
  OV_DEVICE static ov_f16 of(float v) { return ov_f32_to_f16(v); }
  OV_DEVICE static unsigned pack(float low, float high) { return ov_pack_f16(low, high); }
  OV_DEVICE static void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ov_mma_f16(d, a, b); }
};
template <> struct ov_storage<ov_bf16> {
  OV_DEVICE static ov_bf16 of(float v) { return ov_f32_to_bf16(v); }
  OV_DEVICE static unsigned pack(float low, float high) { return ov_pack_bf16(low, high); }
  OV_DEVICE static void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ov_mma_bf16(d, a, b); }
};
// Bytes, which signed ones are multiplied with in i32.
template <> struct ov_storage<unsigned char> {
  OV_DEVICE static void mma(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ov_mma_u8_i8(d, a, b); }
  OV_DEVICE static int dot(unsigned a, unsigned b, int c) { return ov_dot_u8_i8(a, b, c); }
};
template <> struct ov_storage<signed char> {
  OV_DEVICE static void mma(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ov_mma_i8_i8(d, a, b); }
  OV_DEVICE static int dot(unsigned a, unsigned b, int c) { return ov_dot_i8_i8(a, b, c); }
};
template <class T> OV_DEVICE T ov_from_f32(float v) { return ov_storage<T>::of(v); }

// Number of the thread in its block; blocks are filled along x first. Threads per block; number of the thread in a grid
// along x.
OV_DEVICE unsigned ov_thread() {
  return (ov_thread_z() * ov_block_dim_y() + ov_thread_y()) * ov_block_dim_x() + ov_thread_x();
}
OV_DEVICE unsigned ov_threads() { return ov_block_dim_x() * ov_block_dim_y() * ov_block_dim_z(); }
OV_DEVICE unsigned ov_global_thread() { return ov_block_x() * ov_block_dim_x() + ov_thread_x(); }
OV_DEVICE unsigned ov_lane() { return ov_thread() % 32; }
OV_DEVICE unsigned ov_warp() { return ov_thread() / 32; }

OV_DEVICE bool ov_is_nan(float v) { return v != v; }
OV_DEVICE bool ov_is_nan(double v) { return v != v; }
template <class T> OV_DEVICE T ov_min(T a, T b) { return b < a ? b : a; }
template <class T> OV_DEVICE T ov_max(T a, T b) { return a < b ? b : a; }
OV_DEVICE int ov_divide_up(int a, int b) { return (a + b - 1) / b; }
OV_DEVICE float ov_infinity() { return ov_bits_float(0x7f800000u); }

// Over the lanes of a full warp, the same in each.
template <class T> OV_DEVICE T ov_warp_sum(T v) {
  OV_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) v += ov_shfl_xor(v, mask);
  return v;
}
OV_DEVICE float ov_warp_max(float v) {
  OV_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) v = ov_fmax(v, ov_shfl_xor(v, mask));
  return v;
}

// Whether this block is the last of `shares` that write parts of one result; what the others wrote before is then there
// for `ov_load_uncached`. The counter is left zero. For all threads of the block.
OV_DEVICE bool ov_last_to_come(int* counter, int shares) {
  OV_SHARED(int, last, 1);
  ov_fence();
  ov_block_sync();
  if (ov_thread_x() == 0) {
    *last = ov_atomic_add(counter, 1) == shares - 1;
    if (*last) *counter = 0;
  }
  ov_block_sync();
  if (*last) ov_fence();
  return *last;
}
