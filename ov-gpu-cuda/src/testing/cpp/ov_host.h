// The processor's side of the wrappers; ov_ptx.cuh says what each does. Modules include ov_shim.h before it.

#define OV_DEVICE inline __attribute__((always_inline))
#define OV_CONSTANT static const
#define OV_KERNEL static void
#define OV_KERNEL_BOUNDS(threads, blocks) static void
#define OV_SHARED(type, name, count) \
  static char name##_site;           \
  type* const name = (type*)ov_shim_shared(&name##_site, sizeof(type) * (count))
#define OV_DYNAMIC_SHARED(name) unsigned char* const name = (unsigned char*)ov_shim_dynamic_shared()
#define OV_UNROLL
#define OV_NO_UNROLL

typedef unsigned long long ov_u64;

OV_DEVICE unsigned ov_thread_x() { return ov_shim_thread->thread[0]; }
OV_DEVICE unsigned ov_thread_y() { return ov_shim_thread->thread[1]; }
OV_DEVICE unsigned ov_thread_z() { return ov_shim_thread->thread[2]; }
OV_DEVICE unsigned ov_block_x() { return ov_shim_thread->block[0]; }
OV_DEVICE unsigned ov_block_y() { return ov_shim_thread->block[1]; }
OV_DEVICE unsigned ov_block_z() { return ov_shim_thread->block[2]; }
OV_DEVICE unsigned ov_block_dim_x() { return ov_shim_thread->block_dim[0]; }
OV_DEVICE unsigned ov_block_dim_y() { return ov_shim_thread->block_dim[1]; }
OV_DEVICE unsigned ov_block_dim_z() { return ov_shim_thread->block_dim[2]; }
OV_DEVICE unsigned ov_grid_dim_x() { return ov_shim_thread->grid_dim[0]; }
OV_DEVICE unsigned ov_grid_dim_y() { return ov_shim_thread->grid_dim[1]; }
OV_DEVICE unsigned ov_grid_dim_z() { return ov_shim_thread->grid_dim[2]; }

template <class To, class From> OV_DEVICE To ov_shim_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
OV_DEVICE unsigned ov_float_bits(float v) { return ov_shim_bits<unsigned>(v); }
OV_DEVICE float ov_bits_float(unsigned v) { return ov_shim_bits<float>(v); }
OV_DEVICE ov_u64 ov_double_bits(double v) { return ov_shim_bits<ov_u64>(v); }
OV_DEVICE double ov_bits_double(ov_u64 v) { return ov_shim_bits<double>(v); }

OV_DEVICE unsigned short ov_f32_to_f16_bits(float v) { return ov_shim_f32_to_f16(v); }
OV_DEVICE float ov_f16_bits_to_f32(unsigned short v) { return ov_shim_f16_to_f32(v); }
OV_DEVICE unsigned short ov_f32_to_bf16_bits(float v) {
  const unsigned bits = ov_float_bits(v);
  if (v != v) return 0x7fff;
  return (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
OV_DEVICE unsigned ov_pack_f16(float low, float high) {
  return ov_f32_to_f16_bits(low) | (unsigned)ov_f32_to_f16_bits(high) << 16;
}
OV_DEVICE unsigned ov_pack_bf16(float low, float high) {
  return ov_f32_to_bf16_bits(low) | (unsigned)ov_f32_to_bf16_bits(high) << 16;
}
OV_DEVICE float ov_f64_to_f32_toward_zero(double v) {
  const float f = (float)v;
  // One step back where rounding went away from zero.
  return __builtin_fabs((double)f) > __builtin_fabs(v) ? ov_bits_float(ov_float_bits(f) - 1) : f;
}

#define OV_MATH_1(name)                                             \
  OV_DEVICE float ov_##name(float v) { return __builtin_##name##f(v); } \
  OV_DEVICE double ov_##name(double v) { return __builtin_##name(v); }
#define OV_MATH_2(name)                                                           \
  OV_DEVICE float ov_##name(float a, float b) { return __builtin_##name##f(a, b); } \
  OV_DEVICE double ov_##name(double a, double b) { return __builtin_##name(a, b); }
OV_DEVICE float ov_rsqrt(float v) { return 1.0f / __builtin_sqrtf(v); }
OV_DEVICE double ov_rsqrt(double v) { return 1.0 / __builtin_sqrt(v); }
OV_DEVICE float ov_fma(float a, float b, float c) { return (float)((double)a * b + c); }
OV_DEVICE double ov_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
OV_DEVICE float ov_mul_rn(float a, float b) { return a * b; }
OV_DEVICE float ov_add_rn(float a, float b) { return a + b; }
OV_DEVICE double ov_mul_rn(double a, double b) { return a * b; }
OV_DEVICE double ov_add_rn(double a, double b) { return a + b; }
OV_DEVICE float ov_fast_exp2(float v) { return __builtin_exp2f(v); }
OV_DEVICE float ov_fast_divide(float a, float b) { return a / b; }

OV_DEVICE void ov_block_sync() { ov_shim_block_sync(); }
OV_DEVICE bool ov_block_any(bool v) { return ov_shim_block_any(v); }
OV_DEVICE void ov_fence() {}
OV_DEVICE void ov_trap() { ov_shim_fail("the kernel trapped"); }

// A value of each lane, and where each takes its result from.
struct OvShimLane {
  ov_u64 value, result;
  int from;
};
inline void ov_shim_nothing(void* const*) {}
inline void ov_shim_shuffle(void* const* lanes) {
  for (int i = 0; i < 32; ++i) {
    OvShimLane* lane = (OvShimLane*)lanes[i];
    lane->result = ((OvShimLane*)lanes[lane->from])->value;
  }
}
inline void ov_shim_vote(void* const* lanes) {
  ov_u64 bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (((OvShimLane*)lanes[i])->value & 1) << i;
  for (int i = 0; i < 32; ++i) ((OvShimLane*)lanes[i])->result = bits;
}
OV_DEVICE int ov_shim_lane() {
  const OvShimThread* t = ov_shim_thread;
  return (int)(((t->thread[2] * t->block_dim[1] + t->thread[1]) * t->block_dim[0] + t->thread[0]) % 32);
}
template <class T> OV_DEVICE T ov_shim_shuffled(T v, int from, const char* what) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take 4 or 8 bytes");
  OvShimLane lane = {0, 0, from};
  __builtin_memcpy(&lane.value, &v, sizeof v);
  ov_shim_warp(ov_shim_shuffle, &lane, what);
  __builtin_memcpy(&v, &lane.result, sizeof v);
  return v;
}
OV_DEVICE void ov_warp_sync() { ov_shim_warp(ov_shim_nothing, nullptr, "ov_warp_sync"); }
template <class T> OV_DEVICE T ov_shfl(T v, int lane) { return ov_shim_shuffled(v, lane & 31, "ov_shfl"); }
template <class T> OV_DEVICE T ov_shfl_xor(T v, int mask) {
  return ov_shim_shuffled(v, (ov_shim_lane() ^ mask) & 31, "ov_shfl_xor");
}
template <class T> OV_DEVICE T ov_shfl_down(T v, unsigned by) {
  const int lane = ov_shim_lane(), from = lane + (int)by;
  return ov_shim_shuffled(v, from < 32 ? from : lane, "ov_shfl_down");
}
template <class T> OV_DEVICE T ov_shfl_up(T v, unsigned by) {
  const int lane = ov_shim_lane(), from = lane - (int)by;
  return ov_shim_shuffled(v, from >= 0 ? from : lane, "ov_shfl_up");
}
OV_DEVICE unsigned ov_ballot(bool v) {
  OvShimLane lane = {v, 0, 0};
  ov_shim_warp(ov_shim_vote, &lane, "a vote");
  return (unsigned)lane.result;
}
OV_DEVICE bool ov_any(bool v) { return ov_ballot(v) != 0; }
OV_DEVICE bool ov_all(bool v) { return ov_ballot(v) == 0xffffffffu; }

// Modules of several devices may run at once, so these are atomic here too.
template <class T, class F> OV_DEVICE T ov_shim_atomic(T* at, F next) {
  if ((unsigned long)at % sizeof(T)) ov_shim_misaligned(at, sizeof(T));
  T old, fresh;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do fresh = next(old);
  while (!__atomic_compare_exchange(at, &old, &fresh, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return old;
}
template <class T> OV_DEVICE T ov_atomic_add(T* at, T v) { return ov_shim_atomic(at, [=](T old) { return (T)(old + v); }); }
template <class T> OV_DEVICE T ov_atomic_max(T* at, T v) { return ov_shim_atomic(at, [=](T old) { return old < v ? v : old; }); }
template <class T> OV_DEVICE T ov_atomic_min(T* at, T v) { return ov_shim_atomic(at, [=](T old) { return v < old ? v : old; }); }
template <class T> OV_DEVICE T ov_atomic_cas(T* at, T expected, T v) {
  return ov_shim_atomic(at, [=](T old) { return old == expected ? v : old; });
}
OV_DEVICE unsigned ov_atomic_exchange(unsigned* at, unsigned v) { return ov_shim_atomic(at, [=](unsigned) { return v; }); }

struct alignas(16) ov_u32x4 {
  unsigned x, y, z, w;
};
struct alignas(8) ov_u32x2 {
  unsigned x, y;
};
template <class V> OV_DEVICE V ov_shim_load(const void* from) {
  if ((unsigned long)from % sizeof(V)) ov_shim_misaligned(from, sizeof(V));
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V> OV_DEVICE void ov_shim_store(void* to, V v) {
  if ((unsigned long)to % sizeof(V)) ov_shim_misaligned(to, sizeof(V));
  __builtin_memcpy(to, &v, sizeof v);
}
OV_DEVICE ov_u32x4 ov_load_16(const void* from) { return ov_shim_load<ov_u32x4>(from); }
OV_DEVICE ov_u32x2 ov_load_8(const void* from) { return ov_shim_load<ov_u32x2>(from); }
OV_DEVICE unsigned ov_load_4(const void* from) { return ov_shim_load<unsigned>(from); }
OV_DEVICE void ov_store_16(void* to, ov_u32x4 v) { ov_shim_store(to, v); }
OV_DEVICE void ov_store_8(void* to, ov_u32x2 v) { ov_shim_store(to, v); }
OV_DEVICE void ov_store_4(void* to, unsigned v) { ov_shim_store(to, v); }
OV_DEVICE ov_u32x4 ov_load_16_stream(const void* from) { return ov_load_16(from); }
OV_DEVICE float ov_load_uncached(const float* from) { return *from; }
OV_DEVICE int ov_load_uncached(const int* from) { return *from; }
OV_DEVICE void ov_prefetch_l2(const void*) {}

OV_DEVICE void ov_copy_16(void* shared, const void* global, unsigned valid) { ov_shim_copy(shared, global, 16, valid); }
OV_DEVICE void ov_copy_8(void* shared, const void* global, unsigned valid) { ov_shim_copy(shared, global, 8, valid); }
OV_DEVICE void ov_copy_4(void* shared, const void* global, unsigned valid) { ov_shim_copy(shared, global, 4, valid); }
OV_DEVICE void ov_copy_commit() { ov_shim_copy_commit(); }
template <int pending> OV_DEVICE void ov_copy_wait() { ov_shim_copy_wait(pending); }

OV_DEVICE void ov_load_matrix_4(unsigned (&r)[4], const void* row) {
  OvShimMatrix mine = {r, row};
  ov_shim_warp(ov_shim_load_matrix, &mine, "ov_load_matrix_4");
}
OV_DEVICE void ov_load_matrix_4_transposed(unsigned (&r)[4], const void* row) {
  OvShimMatrix mine = {r, row};
  ov_shim_warp(ov_shim_load_matrix_transposed, &mine, "ov_load_matrix_4_transposed");
}
OV_DEVICE void ov_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  OvShimMma mine = {d, a, b};
  ov_shim_warp(ov_shim_mma_f16, &mine, "ov_mma_f16");
}
OV_DEVICE void ov_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  OvShimMma mine = {d, a, b};
  ov_shim_warp(ov_shim_mma_bf16, &mine, "ov_mma_bf16");
}
OV_DEVICE void ov_mma_u8_i8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  OvShimByteMma mine = {d, a, b};
  ov_shim_warp(ov_shim_mma_u8_i8, &mine, "ov_mma_u8_i8");
}
OV_DEVICE void ov_mma_i8_i8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  OvShimByteMma mine = {d, a, b};
  ov_shim_warp(ov_shim_mma_i8_i8, &mine, "ov_mma_i8_i8");
}
template <class A> OV_DEVICE int ov_shim_dot(unsigned a, unsigned b, int c) {
  for (int i = 0; i < 4; ++i) c += (int)(A)(a >> 8 * i) * (signed char)(b >> 8 * i);
  return c;
}
OV_DEVICE int ov_dot_u8_i8(unsigned a, unsigned b, int c) { return ov_shim_dot<unsigned char>(a, b, c); }
OV_DEVICE int ov_dot_i8_i8(unsigned a, unsigned b, int c) { return ov_shim_dot<signed char>(a, b, c); }

OV_DEVICE void ov_grid_wait() { ov_shim_grid_wait(); }
OV_DEVICE void ov_grid_launch_dependents() {}

// The entry that a kernel is found by; the compiler appends one per kernel of the text.
template <int... i> struct ov_shim_indices {};
template <auto kernel> struct ov_shim_entry;
template <class... A, void (*kernel)(A...)> struct ov_shim_entry<kernel> {
  static constexpr unsigned sizes[] = {sizeof(A)..., 0};
  static constexpr unsigned count = sizeof...(A);
  template <int... i> static void call(void** arguments, ov_shim_indices<i...>) { kernel(*(A*)arguments[i]...); }
  static void run(void** arguments) { call(arguments, ov_shim_indices<__integer_pack(sizeof...(A))...>()); }
};
#define OV_SHIM_EXPORT(name, threads)                                      \
  extern "C" __attribute__((visibility("default"))) const OvShimKernel ov_kernel_##name; \
  const OvShimKernel ov_kernel_##name = {ov_shim_entry<name>::run, ov_shim_entry<name>::sizes, ov_shim_entry<name>::count, threads};
