// What differs between a GPU and the processor, for the GPU: builtins of NVRTC and inline PTX, without any header.
// testing/cpp/ov_host.h says the same for the processor; ov_dev.cuh holds what both share.

#define OV_DEVICE __device__ __forceinline__
#define OV_CONSTANT __constant__ const
// A kernel: `OV_KERNEL name(arguments) { … }` at the start of a line, of at most 1024 threads per block. With BOUNDS: at
// most so many threads, and so many blocks per multiprocessor as the registers must allow.
#define OV_KERNEL extern "C" __global__ void __launch_bounds__(1024, 1)
#define OV_KERNEL_BOUNDS(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
// An array in shared memory, one per block; not initialised.
#define OV_SHARED(type, name, count) __shared__ __align__(16) type name[count]
// The shared memory that the launch asks for, as bytes.
#define OV_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define OV_UNROLL _Pragma("unroll")
#define OV_NO_UNROLL _Pragma("unroll 1")

typedef unsigned long long ov_u64;

OV_DEVICE unsigned ov_thread_x() { return threadIdx.x; }
OV_DEVICE unsigned ov_thread_y() { return threadIdx.y; }
OV_DEVICE unsigned ov_thread_z() { return threadIdx.z; }
OV_DEVICE unsigned ov_block_x() { return blockIdx.x; }
OV_DEVICE unsigned ov_block_y() { return blockIdx.y; }
OV_DEVICE unsigned ov_block_z() { return blockIdx.z; }
OV_DEVICE unsigned ov_block_dim_x() { return blockDim.x; }
OV_DEVICE unsigned ov_block_dim_y() { return blockDim.y; }
OV_DEVICE unsigned ov_block_dim_z() { return blockDim.z; }
OV_DEVICE unsigned ov_grid_dim_x() { return gridDim.x; }
OV_DEVICE unsigned ov_grid_dim_y() { return gridDim.y; }
OV_DEVICE unsigned ov_grid_dim_z() { return gridDim.z; }

OV_DEVICE unsigned ov_float_bits(float v) { return __float_as_uint(v); }
OV_DEVICE float ov_bits_float(unsigned v) { return __uint_as_float(v); }
OV_DEVICE ov_u64 ov_double_bits(double v) { return (ov_u64)__double_as_longlong(v); }
OV_DEVICE double ov_bits_double(ov_u64 v) { return __longlong_as_double((long long)v); }

OV_DEVICE unsigned short ov_f32_to_f16_bits(float v) {
  unsigned short r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}
OV_DEVICE float ov_f16_bits_to_f32(unsigned short v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
  return r;
}
OV_DEVICE unsigned short ov_f32_to_bf16_bits(float v) {
  unsigned short r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}
// Two values in one register, `low` in the lower half.
OV_DEVICE unsigned ov_pack_f16(float low, float high) {
  unsigned r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
OV_DEVICE unsigned ov_pack_bf16(float low, float high) {
  unsigned r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
// Rounded toward zero.
OV_DEVICE float ov_f64_to_f32_toward_zero(double v) { return __double2float_rz(v); }

#define OV_MATH_1(name)                                       \
  OV_DEVICE float ov_##name(float v) { return ::name##f(v); } \
  OV_DEVICE double ov_##name(double v) { return ::name(v); }
#define OV_MATH_2(name)                                                   \
  OV_DEVICE float ov_##name(float a, float b) { return ::name##f(a, b); } \
  OV_DEVICE double ov_##name(double a, double b) { return ::name(a, b); }
OV_DEVICE float ov_rsqrt(float v) { return ::rsqrtf(v); }
OV_DEVICE double ov_rsqrt(double v) { return ::rsqrt(v); }
OV_DEVICE float ov_fma(float a, float b, float c) { return ::fmaf(a, b, c); }
OV_DEVICE double ov_fma(double a, double b, double c) { return ::fma(a, b, c); }
// Product and sum each rounded on its own.
OV_DEVICE float ov_mul_rn(float a, float b) { return __fmul_rn(a, b); }
OV_DEVICE float ov_add_rn(float a, float b) { return __fadd_rn(a, b); }
OV_DEVICE double ov_mul_rn(double a, double b) { return __dmul_rn(a, b); }
OV_DEVICE double ov_add_rn(double a, double b) { return __dadd_rn(a, b); }
// Approximations with a relative error of about 2^-22.
OV_DEVICE float ov_fast_exp2(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
OV_DEVICE float ov_fast_divide(float a, float b) { return __fdividef(a, b); }

// Barrier of the block: every thread of it must come here.
OV_DEVICE void ov_block_sync() { __syncthreads(); }
OV_DEVICE bool ov_block_any(bool v) { return __syncthreads_or(v); }
// Barrier of the warp.
OV_DEVICE void ov_warp_sync() { __syncwarp(); }
// Writes before it are seen by the whole GPU before writes after it.
OV_DEVICE void ov_fence() { __threadfence(); }
// Ends the program with an error.
OV_DEVICE void ov_trap() { __trap(); }

// Warp operations: every lane of a full warp takes part. T has 4 or 8 bytes.
template <class T> OV_DEVICE T ov_shfl(T v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
template <class T> OV_DEVICE T ov_shfl_xor(T v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
template <class T> OV_DEVICE T ov_shfl_down(T v, unsigned by) { return __shfl_down_sync(0xffffffffu, v, by); }
template <class T> OV_DEVICE T ov_shfl_up(T v, unsigned by) { return __shfl_up_sync(0xffffffffu, v, by); }
OV_DEVICE unsigned ov_ballot(bool v) { return __ballot_sync(0xffffffffu, v); }
OV_DEVICE bool ov_any(bool v) { return __any_sync(0xffffffffu, v); }
OV_DEVICE bool ov_all(bool v) { return __all_sync(0xffffffffu, v); }

// Atomics give the value before.
OV_DEVICE int ov_atomic_add(int* at, int v) { return atomicAdd(at, v); }
OV_DEVICE unsigned ov_atomic_add(unsigned* at, unsigned v) { return atomicAdd(at, v); }
OV_DEVICE ov_u64 ov_atomic_add(ov_u64* at, ov_u64 v) { return atomicAdd(at, v); }
OV_DEVICE long long ov_atomic_add(long long* at, long long v) { return (long long)atomicAdd((ov_u64*)at, (ov_u64)v); }
OV_DEVICE float ov_atomic_add(float* at, float v) { return atomicAdd(at, v); }
OV_DEVICE double ov_atomic_add(double* at, double v) { return atomicAdd(at, v); }
OV_DEVICE int ov_atomic_max(int* at, int v) { return atomicMax(at, v); }
OV_DEVICE unsigned ov_atomic_max(unsigned* at, unsigned v) { return atomicMax(at, v); }
OV_DEVICE long long ov_atomic_max(long long* at, long long v) { return atomicMax(at, v); }
OV_DEVICE ov_u64 ov_atomic_max(ov_u64* at, ov_u64 v) { return atomicMax(at, v); }
OV_DEVICE int ov_atomic_min(int* at, int v) { return atomicMin(at, v); }
OV_DEVICE unsigned ov_atomic_min(unsigned* at, unsigned v) { return atomicMin(at, v); }
OV_DEVICE long long ov_atomic_min(long long* at, long long v) { return atomicMin(at, v); }
OV_DEVICE ov_u64 ov_atomic_min(ov_u64* at, ov_u64 v) { return atomicMin(at, v); }
OV_DEVICE int ov_atomic_cas(int* at, int expected, int v) { return atomicCAS(at, expected, v); }
OV_DEVICE unsigned ov_atomic_cas(unsigned* at, unsigned expected, unsigned v) { return atomicCAS(at, expected, v); }
OV_DEVICE ov_u64 ov_atomic_cas(ov_u64* at, ov_u64 expected, ov_u64 v) { return atomicCAS(at, expected, v); }
OV_DEVICE unsigned ov_atomic_exchange(unsigned* at, unsigned v) { return atomicExch(at, v); }

// 16, 8 and 4 bytes at addresses that are multiples of their size.
struct __align__(16) ov_u32x4 {
  unsigned x, y, z, w;
};
struct __align__(8) ov_u32x2 {
  unsigned x, y;
};
OV_DEVICE ov_u32x4 ov_load_16(const void* from) { return *(const ov_u32x4*)from; }
OV_DEVICE ov_u32x2 ov_load_8(const void* from) { return *(const ov_u32x2*)from; }
OV_DEVICE unsigned ov_load_4(const void* from) { return *(const unsigned*)from; }
OV_DEVICE void ov_store_16(void* to, ov_u32x4 v) { *(ov_u32x4*)to = v; }
OV_DEVICE void ov_store_8(void* to, ov_u32x2 v) { *(ov_u32x2*)to = v; }
OV_DEVICE void ov_store_4(void* to, unsigned v) { *(unsigned*)to = v; }
// 16 bytes that no launch writes while this kernel runs (weights), read once: not kept in the first cache.
OV_DEVICE ov_u32x4 ov_load_16_stream(const void* from) {
  ov_u32x4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "l"(from));
  return r;
}
// Values that other blocks wrote since this kernel began: not from the first cache.
OV_DEVICE float ov_load_uncached(const float* from) { return __ldcg(from); }
OV_DEVICE int ov_load_uncached(const int* from) { return __ldcg(from); }
OV_DEVICE void ov_prefetch_l2(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// Copies to shared memory that go on in the background. Of the bytes, `valid` are read and the rest becomes zero.
OV_DEVICE unsigned ov_shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
OV_DEVICE void ov_copy_16(void* shared, const void* global, unsigned valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ov_shared_address(shared)), "l"(global), "r"(valid)
               : "memory");
}
OV_DEVICE void ov_copy_8(void* shared, const void* global, unsigned valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(ov_shared_address(shared)), "l"(global), "r"(valid)
               : "memory");
}
OV_DEVICE void ov_copy_4(void* shared, const void* global, unsigned valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(ov_shared_address(shared)), "l"(global), "r"(valid)
               : "memory");
}
OV_DEVICE void ov_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of this thread's latest groups are under way.
template <int pending> OV_DEVICE void ov_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

// Matrices of 8 × 8 16-bit elements from shared memory: lane i gives the address of row i % 8 of matrix i / 8 and gets, of
// each matrix, elements 2 (lane % 4) and the next of row lane / 4; transposed: of that column.
OV_DEVICE void ov_load_matrix_4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(ov_shared_address(row))
               : "memory");
}
OV_DEVICE void ov_load_matrix_4_transposed(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(ov_shared_address(row))
               : "memory");
}

// d += a b, a of 16 × 16 and b of 16 × 8 elements, sums in f32. With g = lane / 4 and t = lane % 4, pairs of k in a register:
// a = rows g and g + 8 at k = 2t, then the same at k = 2t + 8; b = k = 2t and 2t + 8 of column g; d = columns 2t and 2t + 1
// of row g, then of row g + 8.
OV_DEVICE void ov_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
OV_DEVICE void ov_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same for bytes, a of 16 × 32 and b of 32 × 8, sums in i32: four of k in a register, a = rows g and g + 8 at k = 4t, then
// the same at k = 4t + 16; b = k = 4t and 4t + 16 of column g; d as above. b is signed, a what the name says first.
OV_DEVICE void ov_mma_u8_i8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
OV_DEVICE void ov_mma_i8_i8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c plus the products of the four bytes of a and of b, the lowest first.
OV_DEVICE int ov_dot_u8_i8(unsigned a, unsigned b, int c) {
  int d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
OV_DEVICE int ov_dot_i8_i8(unsigned a, unsigned b, int c) {
  int d;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// Programmatic dependent launch, from Hopper on: nothing that an earlier kernel writes may be read, and nothing that one
// reads may be written, before ov_grid_wait. ov_grid_launch_dependents lets the next kernel begin its own prologue.
OV_DEVICE void ov_grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
OV_DEVICE void ov_grid_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
