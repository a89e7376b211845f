// Modules of the fake driver: shared objects that the host compiler built, their kernels, and launches of these.

#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_cuda.h"

namespace fake {

static void call(void* before) { (*(const std::function<void()>*)before)(); }

void run_kernel(Context* context, const Launch& l, const std::function<void()>& before) {
  long long number, fail, code, device;
  OvShimLaunch request = {};
  {
    std::lock_guard<std::mutex> lock(mutex);
    number = ++counters["launches"];
    fail = knobs["fail_launch"], code = knobs["fail_code"], device = knobs["fail_device"];
    request.seed = (unsigned long long)knobs["seed"];
    request.deferred = (unsigned)knobs["deferred"];
  }
  if (fail && number >= fail && (device < 0 || device == context->device)) {
    fault(context, (unsigned)code, "told to fail");
    return;
  }
  std::vector<void*> arguments;
  for (const auto& a : l.arguments) {
    arguments.push_back((void*)a.data());
    if (a.size() == 1 && was_freed(a[0])) return fault(context, ILLEGAL_ADDRESS, (l.function->name + ": freed memory").c_str());
  }
  request.kernel = l.function->kernel;
  memcpy(request.grid, l.grid, sizeof l.grid);
  memcpy(request.block, l.block, sizeof l.block);
  request.shared = l.shared;
  // Static and dynamic memory together, until the kernel is allowed more.
  const unsigned allowed = (48u << 10) + l.function->dynamic_shared;
  request.allowed_shared = allowed < 227u << 10 ? allowed : 227u << 10;
  bool waited = !before;
  const std::function<void()> hook = [&] {
    waited = true;
    before();
  };
  if (before) {
    request.on_grid_wait = call;
    request.context = (void*)&hook;
  }
  request.arguments = arguments.data();
  char text[512];
  if (l.function->module->launch(&request, text, sizeof text)) {
    const std::string whole = l.function->name + ": " + text;
    fprintf(stderr, "fake CUDA driver: %s\n", whole.c_str());
    fault(context, LAUNCH_FAILED, whole.c_str());
  }
  if (!waited) before();
}

unsigned make_launch(Launch* l, Function* f, const unsigned* grid, const unsigned* block, unsigned shared, void** arguments) {
  if (!f || !f->kernel) return INVALID_HANDLE;
  const unsigned long long threads = (unsigned long long)block[0] * block[1] * block[2];
  if (!threads || threads > f->kernel->max_threads || !grid[0] || !grid[1] || !grid[2]) return INVALID_VALUE;
  if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535 || block[2] > 64) return INVALID_VALUE;
  if (shared > (f->dynamic_shared > 48u << 10 ? f->dynamic_shared : 48u << 10)) return INVALID_VALUE;
  if (f->kernel->arguments && !arguments) return INVALID_VALUE;
  l->function = f;
  memcpy(l->grid, grid, sizeof l->grid);
  memcpy(l->block, block, sizeof l->block);
  l->shared = shared;
  l->arguments.clear();
  for (unsigned i = 0; i < f->kernel->arguments; ++i) {
    std::vector<unsigned long long> bytes((f->kernel->sizes[i] + 7) / 8);
    memcpy(bytes.data(), arguments[i], f->kernel->sizes[i]);
    l->arguments.push_back(std::move(bytes));
  }
  return 0;
}

// The length of an object file, from its headers: the driver is not told it. 0 when it is none for this machine.
unsigned long object_len(const void* image, unsigned* refused) {
  const auto* h = (const Elf64_Ehdr*)image;
  *refused = INVALID_IMAGE;
  if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0) {
    if (memcmp(image, "//", 2) == 0 || memcmp(image, ".version", 8) == 0) *refused = INVALID_PTX;
    return 0;
  }
#if defined(__x86_64__)
  const unsigned machine = EM_X86_64;
#else
  const unsigned machine = EM_AARCH64;
#endif
  if (h->e_machine != machine) {
    *refused = NO_BINARY_FOR_GPU;
    return 0;
  }
  unsigned long end = h->e_shoff + (unsigned long)h->e_shentsize * h->e_shnum;
  const auto* sections = (const Elf64_Shdr*)((const char*)image + h->e_shoff);
  for (unsigned i = 0; i < h->e_shnum; ++i) {
    const unsigned long last = sections[i].sh_offset + (sections[i].sh_type == SHT_NOBITS ? 0 : sections[i].sh_size);
    if (last > end) end = last;
  }
  return end;
}

unsigned load_module(Context* context, void** out, const void* image) {
  if (!image) return INVALID_VALUE;
  if (knob("fail_module")) return (unsigned)knob("fail_module");
  unsigned refused = 0;
  const unsigned long len = object_len(image, &refused);
  if (!len) return refused;
  const int file = memfd_create("ov-kernels", MFD_CLOEXEC);
  if (file < 0) return OPERATING_SYSTEM;
  for (unsigned long at = 0; at < len;) {
    const long wrote = write(file, (const char*)image + at, len - at);
    if (wrote <= 0) {
      close(file);
      return OPERATING_SYSTEM;
    }
    at += (unsigned long)wrote;
  }
  // The loader takes a name that it knows for the object that it knows, and every copy of this library is in one process:
  // each file gets a spelling of its own, by its inode.
  struct stat about;
  if (fstat(file, &about)) return close(file), OPERATING_SYSTEM;
  std::string path = "/proc/self";
  for (unsigned long n = about.st_ino; n; n >>= 1) path += n & 1 ? "/." : "//.";
  path += "/fd/" + std::to_string(file);
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) fprintf(stderr, "fake CUDA driver: %s\n", dlerror());
  close(file);
  if (!handle) return INVALID_IMAGE;
  auto* module = new Module;
  module->context = context;
  module->handle = handle;
  module->launch = (int (*)(const OvShimLaunch*, char*, unsigned long))dlsym(handle, "ov_shim_launch");
  if (!module->launch) return INVALID_IMAGE;
  count("modules", 1);
  *out = module;
  return 0;
}

}  // namespace fake

using namespace fake;

EXPORT cuModuleLoadData(void** module, const void* image) {
  READY;
  return load_module(context, module, image);
}
EXPORT cuModuleLoadDataEx(void** module, const void* image, unsigned, void*, void**) { return cuModuleLoadData(module, image); }
EXPORT cuModuleUnload(void* handle) {
  READY;
  auto* module = (Module*)handle;
  if (!module || module->context != context) return INVALID_HANDLE;
  dlclose(module->handle);
  count("modules", -1);
  delete module;
  return 0;
}
EXPORT cuModuleGetFunction(void** out, void* handle, const char* name) {
  READY;
  auto* module = (Module*)handle;
  if (!module || module->context != context) return INVALID_HANDLE;
  const auto* kernel = (const OvShimKernel*)dlsym(module->handle, (std::string("ov_kernel_") + name).c_str());
  if (!kernel) return NOT_FOUND;
  std::lock_guard<std::mutex> lock(mutex);
  for (auto& f : module->functions) {
    if (f->name == name) {
      *out = f.get();
      return 0;
    }
  }
  module->functions.push_back(std::make_unique<Function>(Function{name, module, kernel, 0}));
  *out = module->functions.back().get();
  return 0;
}
EXPORT cuFuncGetAttribute(int* value, unsigned attribute, void* function) {
  READY;
  auto* f = (Function*)function;
  *value = attribute == 0 ? (int)f->kernel->max_threads : attribute == 8 ? (int)f->dynamic_shared : 0;
  return 0;
}
EXPORT cuFuncGetParamInfo(void* function, unsigned long index, unsigned long* offset, unsigned long* size) {
  READY;
  const OvShimKernel* k = ((Function*)function)->kernel;
  if (index >= k->arguments) return INVALID_VALUE;
  *offset = 0;
  for (unsigned long i = 0; i <= index; ++i) {
    const unsigned long alignment = k->sizes[i] % 8 == 0 ? 8 : 4;
    *offset = (*offset + alignment - 1) / alignment * alignment + (i < index ? k->sizes[i] : 0);
  }
  if (size) *size = k->sizes[index];
  return 0;
}
EXPORT cuFuncSetAttribute(void* function, unsigned attribute, int value) {
  READY;
  if (!function || value < 0) return INVALID_VALUE;
  if (attribute == 8) {
    if (value > 227 << 10) return INVALID_VALUE;
    ((Function*)function)->dynamic_shared = (unsigned)value;
  }
  return 0;
}
EXPORT cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      void* stream, void** arguments, void** extra) {
  READY;
  if (extra) return INVALID_VALUE;
  const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  Launch l;
  if (unsigned r = make_launch(&l, (Function*)function, grid, block, shared, arguments)) return r;
  if (l.function->module->context != context) return INVALID_HANDLE;
  enqueue(stream_of(context, stream), [context, l] { run_kernel(context, l); });
  return 0;
}
EXPORT cuLaunchKernelEx(const LaunchConfig* c, void* function, void** arguments, void** extra) {
  return cuLaunchKernel(function, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2], c->shared, c->stream,
                        arguments, extra);
}
