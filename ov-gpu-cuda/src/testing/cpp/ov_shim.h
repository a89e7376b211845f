// What kernels that are built for the processor, the library that runs them and the driver of tests say to one another.
#pragma once

#pragma GCC visibility push(default)
extern "C" {

// Where a thread is; the library keeps its own state behind it.
struct OvShimThread {
  unsigned thread[3], block[3], block_dim[3], grid_dim[3];
};

// A kernel as a module exports it, under the name `ov_kernel_NAME`.
struct OvShimKernel {
  void (*run)(void** arguments);
  const unsigned* sizes;  // of the arguments in bytes
  unsigned arguments;
  unsigned max_threads;
};

struct OvShimLaunch {
  const OvShimKernel* kernel;
  unsigned grid[3], block[3];
  unsigned shared;
  void** arguments;
  // 0: threads in order; otherwise threads and blocks in an order drawn from it.
  unsigned long long seed;
  // Whether copies to shared memory happen when they are waited for, else when they are begun.
  unsigned deferred;
  // Bytes of shared memory that a block may have in all.
  unsigned allowed_shared;
  // Called once, when a thread first comes to ov_grid_wait.
  void (*on_grid_wait)(void*);
  void* context;
};

// Runs every block. 0, or 1 with what went wrong in `message`.
int ov_shim_launch(const OvShimLaunch* launch, char* message, unsigned long capacity);

extern __thread OvShimThread* ov_shim_thread __attribute__((tls_model("initial-exec")));
// Runs `all` once every lane of the warp has come, with what each gave.
void ov_shim_warp(void (*all)(void* const* lanes), void* mine, const char* what);
void ov_shim_block_sync();
int ov_shim_block_any(int v);
void* ov_shim_shared(const void* site, unsigned long bytes);
void* ov_shim_dynamic_shared();
void ov_shim_copy(void* to, const void* from, unsigned size, unsigned valid);
void ov_shim_copy_commit();
void ov_shim_copy_wait(unsigned pending);
void ov_shim_grid_wait();
void ov_shim_fail(const char* message) __attribute__((noreturn));
void ov_shim_misaligned(const void* address, unsigned bytes) __attribute__((noreturn));

// Operations of a whole warp; `lanes` are what the functions in ov_host.h pass.
void ov_shim_load_matrix(void* const* lanes);
void ov_shim_load_matrix_transposed(void* const* lanes);
void ov_shim_mma_f16(void* const* lanes);
void ov_shim_mma_bf16(void* const* lanes);
void ov_shim_mma_u8_i8(void* const* lanes);
void ov_shim_mma_i8_i8(void* const* lanes);

struct OvShimMatrix {
  unsigned* result;
  const void* row;
};
struct OvShimMma {
  float* d;
  const unsigned *a, *b;
};
struct OvShimByteMma {
  int* d;
  const unsigned *a, *b;
};

unsigned short ov_shim_f32_to_f16(float v);
float ov_shim_f16_to_f32(unsigned short v);
}
#pragma GCC visibility pop
