// Names every wrapper once, so that each compiles on both sides.

template <class T> OV_DEVICE T math(T v) {
  T r = ov_exp(v) + ov_exp2(v) + ov_expm1(v) + ov_log(v) + ov_log2(v) + ov_log1p(v) + ov_sqrt(v) + ov_tanh(v) + ov_erf(v);
  r += ov_sin(v) + ov_cos(v) + ov_tan(v) + ov_asin(v) + ov_acos(v) + ov_atan(v) + ov_sinh(v) + ov_cosh(v);
  r += ov_asinh(v) + ov_acosh(v) + ov_atanh(v) + ov_floor(v) + ov_ceil(v) + ov_trunc(v) + ov_rint(v) + ov_round(v);
  r += ov_fabs(v) + ov_pow(v, r) + ov_fmod(v, r) + ov_atan2(v, r) + ov_copysign(v, r) + ov_fmin(v, r) + ov_fmax(v, r);
  return r + ov_rsqrt(v) + ov_fma(v, v, v) + ov_mul_rn(v, v) + ov_add_rn(v, v);
}

OV_KERNEL_BOUNDS(256, 2) every_wrapper(const float* x, float* y, double* z, int* counters, ov_u64* wide) {
  OV_SHARED(float, s, 64);
  OV_DYNAMIC_SHARED(dynamic);
  ov_prefetch_l2(x);
  ov_grid_wait();
  const unsigned t = ov_thread(), n = ov_threads() + ov_grid_dim_x() * ov_grid_dim_y() * ov_grid_dim_z();
  const unsigned at = ov_global_thread() + ov_block_y() + ov_block_z() + ov_lane() + ov_warp();
  float v = x[at];
  double d = z[at];
  v = math(v) + ov_fast_exp2(v) + ov_fast_divide(v, 3.0f);
  d = math(d);
  v += ov_f32(ov_from_f32<ov_f16>(v)) + ov_f32(ov_from_f32<ov_bf16>(v)) + ov_f32(ov_from_f32<float>(v));
  v += ov_f32(ov_f64_to_f16(d)) + ov_f32(ov_f64_to_bf16(d));
  d += ov_bits_double(ov_double_bits(d) ^ 1);
  ov_copy_16(dynamic + 16 * t, x + 4 * t, 16);
  ov_copy_8(dynamic + 16 * t, x + 2 * t, 8);
  ov_copy_4(s + t % 64, x + t, 4);
  ov_copy_commit();
  ov_copy_wait<0>();
  ov_block_sync();
  unsigned a[4], b4[4];
  ov_load_matrix_4(a, dynamic + 16 * ov_lane());
  ov_load_matrix_4_transposed(b4, dynamic + 16 * ov_lane());
  const unsigned b[2] = {b4[0] ^ ov_storage<ov_f16>::pack(v, v), b4[1] ^ ov_storage<ov_bf16>::pack(v, v)};
  float sums[4] = {v, v, v, v};
  ov_storage<ov_f16>::mma(sums, a, b);
  ov_storage<ov_bf16>::mma(sums, a, b);
  v += sums[0] + sums[1] + sums[2] + sums[3];
  int whole[4] = {1, 2, 3, 4};
  ov_storage<unsigned char>::mma(whole, a, b);
  ov_storage<signed char>::mma(whole, a, b);
  whole[0] += ov_storage<unsigned char>::dot(a[0], b[0], whole[1]) + ov_storage<signed char>::dot(a[0], b[0], whole[2]);
  v += (float)(ov_warp_sum(whole[0]) + whole[3]);
  v = ov_warp_sum(v) + ov_warp_max(v) + ov_shfl(v, 3) + ov_shfl_down(v, 1) + ov_shfl_up(v, 1);
  d += ov_shfl_xor(d, 1);
  ov_warp_sync();
  if (ov_any(v > 0) && ov_all(v > 1) && ov_block_any(v > 2)) v += (float)ov_ballot(v > 3);
  v += (float)ov_atomic_add(counters, 1) + (float)ov_atomic_max(counters + 1, 2) + (float)ov_atomic_min(counters + 2, 3);
  v += (float)ov_atomic_cas(counters + 3, 0, 1) + (float)ov_atomic_exchange((unsigned*)counters + 4, 1u);
  d += (double)ov_atomic_add(wide, (ov_u64)1) + (double)ov_atomic_cas(wide, (ov_u64)1, (ov_u64)2);
  d += (double)ov_atomic_max(wide, (ov_u64)1) + (double)ov_atomic_min((long long*)wide, 1ll) + ov_atomic_add(z, 1.0);
  v += ov_atomic_add(y, 1.0f) + ov_load_uncached(x) + (float)ov_load_uncached(counters);
  ov_fence();
  ov_u32x4 four = ov_load_16(x), more = ov_load_16_stream(x + 4);
  const ov_u32x2 two = ov_load_8(x);
  four.x += more.y + two.x + ov_load_4(x) + n;
  ov_store_16(y + 4 * t, four);
  ov_store_8(y + 2 * t, two);
  ov_store_4(y + t, ov_float_bits(v));
  z[t] = d + ov_min(1, 2) + ov_max(1, 2) + ov_divide_up(3, 2) + ov_infinity() + ov_is_nan(v);
  if (n == 0) ov_trap();
  ov_grid_launch_dependents();
}
