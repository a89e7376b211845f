// A driver library over host memory: devices, contexts, streams with a thread each, events, pinned memory, modules that
// the host compiler built, and graphs. It refuses what a driver refuses, and fails when it is told to.

#include "fake_cuda.h"

#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

namespace fake {

// Never destroyed: threads of streams wait on them when the process ends.
std::mutex& mutex = *new std::mutex;
std::condition_variable& changed = *new std::condition_variable;
Context* const contexts = new Context[MAX_DEVICES];
std::map<std::string, long long>& knobs = *new std::map<std::string, long long>{
    {"devices", 2},      {"memory", 1ll << 30}, {"init", 0},       {"driver_version", 13000}, {"capability", 90},
    {"processors", 132}, {"fail_allocation", 0}, {"fail_launch", 0}, {"fail_code", 700},        {"fail_device", -1},
    {"delay_us", 0},     {"seed", 0},            {"deferred", 0},   {"fail_module", 0},
};
std::map<std::string, long long>& counters = *new std::map<std::string, long long>;
std::string& message = *new std::string;
bool started = false;
std::map<unsigned long long, Block>& blocks = *new std::map<unsigned long long, Block>;
std::map<unsigned long long, unsigned long>& pinned = *new std::map<unsigned long long, unsigned long>;
thread_local Context* current = nullptr;

long long knob(const char* name) {
  std::lock_guard<std::mutex> lock(mutex);
  return knobs[name];
}
void count(const char* name, long long by) {
  std::lock_guard<std::mutex> lock(mutex);
  counters[name] += by;
}

// From the environment, once: OV_FAKE_CUDA_DEVICES=4.
struct Environment {
  Environment() {
    for (auto& [name, value] : knobs) {
      std::string variable = "OV_FAKE_CUDA_";
      for (char c : name) variable += (char)(c >= 'a' && c <= 'z' ? c - 32 : c);
      if (const char* text = getenv(variable.c_str())) value = atoll(text);
    }
  }
} environment;

void fault(Context* context, unsigned code, const char* text) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!context->sticky) {
    context->sticky = code;
    message = text;
  }
  changed.notify_all();
}

unsigned ready(Context** context) {
  if (!started) return NOT_INITIALIZED;
  if (!current) return INVALID_CONTEXT;
  *context = current;
  std::lock_guard<std::mutex> lock(mutex);
  return current->sticky;
}

bool in_device_memory(Context* context, unsigned long long at, unsigned long len) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return false;
  auto& [start, block] = *--next;
  return block.context == context && at + len <= start + block.len;
}

Stream* stream_of(Context* context, void* handle) { return handle ? (Stream*)handle : &context->main; }

void work(Stream* s) {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    changed.wait(lock, [s] { return s->closing || !s->tasks.empty(); });
    if (s->tasks.empty()) return;
    auto task = std::move(s->tasks.front());
    s->tasks.pop_front();
    const long long delay = knobs["delay_us"];
    const bool lost = s->context->sticky != 0;
    lock.unlock();
    if (delay) usleep((useconds_t)delay);
    // After a fault nothing is carried out any more.
    if (!lost) task();
    lock.lock();
    ++s->done;
    changed.notify_all();
  }
}

void enqueue(Stream* s, std::function<void()> task) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!s->thread.joinable()) s->thread = std::thread(work, s);
  s->tasks.push_back(std::move(task));
  ++s->submitted;
  changed.notify_all();
}

unsigned finish(Stream* s) {
  std::unique_lock<std::mutex> lock(mutex);
  const unsigned long until = s->submitted;
  changed.wait(lock, [s, until] { return s->done >= until; });
  return s->context->sticky;
}

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run_kernel(Context* context, const Launch& l) {
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
  for (const auto& a : l.arguments) arguments.push_back((void*)a.data());
  request.kernel = l.function->kernel;
  memcpy(request.grid, l.grid, sizeof l.grid);
  memcpy(request.block, l.block, sizeof l.block);
  request.shared = l.shared;
  request.arguments = arguments.data();
  char text[512];
  if (l.function->module->launch(&request, text, sizeof text)) {
    const std::string whole = l.function->name + ": " + text;
    fprintf(stderr, "fake CUDA driver: %s\n", whole.c_str());
    fault(context, LAUNCH_FAILED, whole.c_str());
  }
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

#define EXPORT extern "C" __attribute__((visibility("default"))) unsigned
#define READY                          \
  Context* context = nullptr;          \
  if (unsigned r = ready(&context)) return r

extern "C" __attribute__((visibility("default"))) void fake_cuda_set(const char* name, long long value) {
  std::lock_guard<std::mutex> lock(mutex);
  knobs[name] = value;
}
// Counts of what was done: launches, graph_launches, allocations, bytes, pinned, modules.
extern "C" __attribute__((visibility("default"))) long long fake_cuda_get(const char* name) {
  std::lock_guard<std::mutex> lock(mutex);
  return counters[name];
}
extern "C" __attribute__((visibility("default"))) void fake_cuda_message(char* text, unsigned long capacity) {
  std::lock_guard<std::mutex> lock(mutex);
  snprintf(text, capacity, "%s", message.c_str());
}

EXPORT cuInit(unsigned flags) {
  if (flags) return INVALID_VALUE;
  if (const unsigned code = (unsigned)knob("init")) return code;
  const long long n = knob("devices");
  if (n <= 0) return NO_DEVICE;
  std::lock_guard<std::mutex> lock(mutex);
  for (int i = 0; i < MAX_DEVICES; ++i) {
    contexts[i].device = i;
    contexts[i].main.context = &contexts[i];
  }
  started = true;
  return 0;
}
EXPORT cuDriverGetVersion(int* version) {
  *version = (int)knob("driver_version");
  return 0;
}
static unsigned no_device(int device) {
  if (!started) return NOT_INITIALIZED;
  return device < 0 || device >= knob("devices") || device >= MAX_DEVICES ? INVALID_DEVICE : 0;
}
EXPORT cuDeviceGetCount(int* n) {
  if (!started) return NOT_INITIALIZED;
  *n = (int)knob("devices");
  return 0;
}
EXPORT cuDeviceGet(int* device, int ordinal) {
  if (unsigned r = no_device(ordinal)) return r;
  *device = ordinal;
  return 0;
}
EXPORT cuDeviceGetName(char* name, int len, int device) {
  if (unsigned r = no_device(device)) return r;
  snprintf(name, (unsigned long)len, "Fake GPU %d", device);
  return 0;
}
EXPORT cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  if (unsigned r = no_device(device)) return r;
  for (int i = 0; i < 16; ++i) uuid[i] = (unsigned char)(i * 16 + device);
  return 0;
}
EXPORT cuDeviceGetPCIBusId(char* id, int len, int device) {
  if (unsigned r = no_device(device)) return r;
  snprintf(id, (unsigned long)len, "0000:%02x:00.0", device + 1);
  return 0;
}
EXPORT cuDeviceTotalMem_v2(unsigned long* bytes, int device) {
  if (unsigned r = no_device(device)) return r;
  *bytes = (unsigned long)knob("memory");
  return 0;
}
EXPORT cuDeviceGetAttribute(int* value, unsigned attribute, int device) {
  if (unsigned r = no_device(device)) return r;
  switch (attribute) {
    case 1: *value = 1024; break;          // threads per block
    case 2: case 3: *value = 1024; break;  // block dimensions
    case 4: *value = 64; break;
    case 5: *value = 0x7fffffff; break;  // grid dimensions
    case 6: case 7: *value = 65535; break;
    case 8: *value = 48 << 10; break;  // shared memory per block
    case 10: *value = 32; break;       // lanes of a warp
    case 12: *value = 65536; break;    // registers per block
    case 13: *value = 1980000; break;  // kHz
    case 16: *value = (int)knob("processors"); break;
    case 33: *value = device + 1; break;  // PCI bus
    case 36: *value = 2619000; break;     // memory clock in kHz
    case 37: *value = 5120; break;        // width of its bus in bits
    case 38: *value = 50 << 20; break;    // second cache
    case 39: *value = 2048; break;        // threads per multiprocessor
    case 41: *value = 1; break;           // unified addresses
    case 75: *value = (int)knob("capability") / 10; break;
    case 76: *value = (int)knob("capability") % 10; break;
    case 78: *value = 1; break;  // stream priorities
    case 81: *value = 228 << 10; break;
    case 97: *value = 227 << 10; break;  // shared memory per block on request
    case 106: *value = 32; break;        // blocks per multiprocessor
    default: *value = 0;
  }
  return 0;
}
EXPORT cuDeviceCanAccessPeer(int* can, int device, int peer) {
  if (unsigned r = no_device(device)) return r;
  if (unsigned r = no_device(peer)) return r;
  *can = device != peer;
  return 0;
}
EXPORT cuDevicePrimaryCtxRetain(void** out, int device) {
  if (unsigned r = no_device(device)) return r;
  std::lock_guard<std::mutex> lock(mutex);
  if (contexts[device].sticky) return contexts[device].sticky;
  ++contexts[device].users;
  ++counters["contexts"];
  *out = &contexts[device];
  return 0;
}
EXPORT cuDevicePrimaryCtxRelease_v2(int device) {
  if (unsigned r = no_device(device)) return r;
  std::lock_guard<std::mutex> lock(mutex);
  if (!contexts[device].users) return INVALID_CONTEXT;
  --contexts[device].users;
  --counters["contexts"];
  return 0;
}
EXPORT cuCtxSetCurrent(void* context) {
  if (!started) return NOT_INITIALIZED;
  current = (Context*)context;
  return 0;
}
EXPORT cuCtxGetCurrent(void** context) {
  if (!started) return NOT_INITIALIZED;
  *context = current;
  return 0;
}
EXPORT cuCtxGetDevice(int* device) {
  READY;
  *device = context->device;
  return 0;
}
EXPORT cuCtxSynchronize() {
  READY;
  unsigned result = finish(&context->main);
  std::vector<Stream*> streams;
  {
    std::lock_guard<std::mutex> lock(mutex);
    streams = context->streams;
  }
  for (Stream* s : streams) result |= finish(s);
  return result;
}
EXPORT cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  READY;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return 0;
}
EXPORT cuCtxEnablePeerAccess(void* peer, unsigned flags) {
  READY;
  if (flags || !peer || peer == context) return INVALID_VALUE;
  std::lock_guard<std::mutex> lock(mutex);
  return context->peers.insert(peer).second ? 0 : PEER_ACCESS_ALREADY_ENABLED;
}

EXPORT cuMemAlloc_v2(unsigned long long* at, unsigned long len) {
  READY;
  if (!len) return INVALID_VALUE;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const long long number = ++counters["allocation_calls"];
    if (knobs["fail_allocation"] && number >= knobs["fail_allocation"]) return OUT_OF_MEMORY;
    if (context->used + len > (unsigned long)knobs["memory"]) return OUT_OF_MEMORY;
  }
  void* p = aligned_alloc(512, (len + 511) / 512 * 512);
  if (!p) return OUT_OF_MEMORY;
  // No numbers in any floating-point type: what was never written shows.
  memset(p, 0xff, (len + 511) / 512 * 512);
  std::lock_guard<std::mutex> lock(mutex);
  blocks[(unsigned long long)p] = {context, len};
  context->used += len;
  ++counters["allocations"];
  counters["bytes"] += (long long)len;
  *at = (unsigned long long)p;
  return 0;
}
EXPORT cuMemFree_v2(unsigned long long at) {
  READY;
  if (!at) return 0;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = blocks.find(at);
  if (found == blocks.end() || found->second.context != context) return INVALID_VALUE;
  context->used -= found->second.len;
  --counters["allocations"];
  counters["bytes"] -= (long long)found->second.len;
  blocks.erase(found);
  free((void*)at);
  return 0;
}
EXPORT cuMemGetInfo_v2(unsigned long* free_bytes, unsigned long* total) {
  READY;
  std::lock_guard<std::mutex> lock(mutex);
  *total = (unsigned long)knobs["memory"];
  *free_bytes = *total - context->used;
  return 0;
}
EXPORT cuMemHostAlloc(void** out, unsigned long len, unsigned) {
  READY;
  if (!len) return INVALID_VALUE;
  void* p = aligned_alloc(4096, (len + 4095) / 4096 * 4096);
  if (!p) return OUT_OF_MEMORY;
  std::lock_guard<std::mutex> lock(mutex);
  pinned[(unsigned long long)p] = len;
  ++counters["pinned"];
  *out = p;
  return 0;
}
EXPORT cuMemAllocHost_v2(void** out, unsigned long len) { return cuMemHostAlloc(out, len, 0); }
EXPORT cuMemHostGetDevicePointer_v2(unsigned long long* device, void* host, unsigned) {
  READY;
  std::lock_guard<std::mutex> lock(mutex);
  if (!pinned.count((unsigned long long)host)) return INVALID_VALUE;
  *device = (unsigned long long)host;
  return 0;
}
EXPORT cuMemFreeHost(void* p) {
  READY;
  std::lock_guard<std::mutex> lock(mutex);
  if (!pinned.erase((unsigned long long)p)) return INVALID_VALUE;
  --counters["pinned"];
  free(p);
  return 0;
}
EXPORT cuMemHostRegister_v2(void*, unsigned long, unsigned) {
  READY;
  return 0;
}
EXPORT cuMemHostUnregister(void*) {
  READY;
  return 0;
}

// Pageable host memory is read before the call returns, as a driver does; pinned memory when its turn comes.
static bool is_pinned(const void* at, unsigned long len) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = pinned.upper_bound((unsigned long long)at);
  if (next == pinned.begin()) return false;
  --next;
  return (unsigned long long)at + len <= next->first + next->second;
}
EXPORT cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, unsigned long len, void* stream) {
  READY;
  if (len && !in_device_memory(context, to, len)) return INVALID_VALUE;
  count("host_to_device", (long long)len);
  if (is_pinned(from, len)) {
    enqueue(stream_of(context, stream), [=] { memcpy((void*)to, from, len); });
  } else {
    std::vector<char> copy((const char*)from, (const char*)from + len);
    enqueue(stream_of(context, stream), [to, copy = std::move(copy)] { memcpy((void*)to, copy.data(), copy.size()); });
  }
  return 0;
}
EXPORT cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, unsigned long len, void* stream) {
  READY;
  if (len && !in_device_memory(context, from, len)) return INVALID_VALUE;
  count("device_to_host", (long long)len);
  enqueue(stream_of(context, stream), [=] { memcpy(to, (const void*)from, len); });
  return is_pinned(to, len) ? 0 : finish(stream_of(context, stream));
}
EXPORT cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, unsigned long len, void* stream) {
  READY;
  if (len && (!in_device_memory(context, to, len) || !in_device_memory(context, from, len))) return INVALID_VALUE;
  enqueue(stream_of(context, stream), [=] { memmove((void*)to, (const void*)from, len); });
  return 0;
}
EXPORT cuMemcpyPeerAsync(unsigned long long to, void* to_context, unsigned long long from, void* from_context, unsigned long len,
                         void* stream) {
  READY;
  if (!in_device_memory((Context*)to_context, to, len) || !in_device_memory((Context*)from_context, from, len)) return INVALID_VALUE;
  count("peer", (long long)len);
  enqueue(stream_of(context, stream), [=] { memcpy((void*)to, (const void*)from, len); });
  return 0;
}
EXPORT cuMemcpyHtoD_v2(unsigned long long to, const void* from, unsigned long len) {
  if (unsigned r = cuMemcpyHtoDAsync_v2(to, from, len, nullptr)) return r;
  return finish(&current->main);
}
EXPORT cuMemcpyDtoH_v2(void* to, unsigned long long from, unsigned long len) {
  if (unsigned r = cuMemcpyDtoHAsync_v2(to, from, len, nullptr)) return r;
  return finish(&current->main);
}
EXPORT cuMemsetD8Async(unsigned long long at, unsigned char v, unsigned long len, void* stream) {
  READY;
  if (len && !in_device_memory(context, at, len)) return INVALID_VALUE;
  enqueue(stream_of(context, stream), [=] { memset((void*)at, v, len); });
  return 0;
}
EXPORT cuMemsetD32Async(unsigned long long at, unsigned v, unsigned long n, void* stream) {
  READY;
  if (n && !in_device_memory(context, at, 4 * n)) return INVALID_VALUE;
  enqueue(stream_of(context, stream), [=] {
    for (unsigned long i = 0; i < n; ++i) ((unsigned*)at)[i] = v;
  });
  return 0;
}

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

EXPORT cuStreamCreateWithPriority(void** out, unsigned, int priority) {
  READY;
  auto* s = new Stream;
  s->context = context;
  s->priority = priority < -5 ? -5 : priority > 0 ? 0 : priority;
  std::lock_guard<std::mutex> lock(mutex);
  context->streams.push_back(s);
  *out = s;
  return 0;
}
EXPORT cuStreamCreate(void** out, unsigned flags) { return cuStreamCreateWithPriority(out, flags, 0); }
EXPORT cuStreamGetPriority(void* stream, int* priority) {
  READY;
  *priority = stream_of(context, stream)->priority;
  return 0;
}
EXPORT cuStreamSynchronize(void* stream) {
  READY;
  return finish(stream_of(context, stream));
}
EXPORT cuStreamQuery(void* stream) {
  READY;
  Stream* s = stream_of(context, stream);
  std::lock_guard<std::mutex> lock(mutex);
  return s->done < s->submitted ? NOT_READY : context->sticky;
}
EXPORT cuStreamWaitEvent(void* stream, void* event, unsigned) {
  READY;
  auto* e = (Event*)event;
  unsigned long until;
  {
    std::lock_guard<std::mutex> lock(mutex);
    until = e->recorded;
  }
  enqueue(stream_of(context, stream), [e, until] {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [=] { return e->done >= until; });
  });
  return 0;
}
EXPORT cuStreamDestroy_v2(void* stream) {
  READY;
  auto* s = (Stream*)stream;
  if (!s) return INVALID_HANDLE;
  finish(s);
  {
    std::lock_guard<std::mutex> lock(mutex);
    s->closing = true;
    auto& all = context->streams;
    for (auto at = all.begin(); at != all.end(); ++at) {
      if (*at == s) {
        all.erase(at);
        break;
      }
    }
    changed.notify_all();
  }
  if (s->thread.joinable()) s->thread.join();
  delete s;
  return 0;
}

static void record(Event* e, unsigned long number) {
  std::lock_guard<std::mutex> lock(mutex);
  e->done = number;
  e->at = now();
  changed.notify_all();
}
EXPORT cuEventCreate(void** out, unsigned) {
  READY;
  auto* e = new Event;
  e->context = context;
  *out = e;
  return 0;
}
EXPORT cuEventRecord(void* event, void* stream) {
  READY;
  auto* e = (Event*)event;
  if (!e) return INVALID_HANDLE;
  unsigned long number;
  {
    std::lock_guard<std::mutex> lock(mutex);
    number = ++e->recorded;
  }
  enqueue(stream_of(context, stream), [e, number] { record(e, number); });
  return 0;
}
EXPORT cuEventQuery(void* event) {
  READY;
  auto* e = (Event*)event;
  std::lock_guard<std::mutex> lock(mutex);
  return e->done < e->recorded ? NOT_READY : context->sticky;
}
EXPORT cuEventSynchronize(void* event) {
  READY;
  auto* e = (Event*)event;
  std::unique_lock<std::mutex> lock(mutex);
  const unsigned long until = e->recorded;
  changed.wait(lock, [=] { return e->done >= until || e->context->sticky; });
  return e->context->sticky;
}
EXPORT cuEventElapsedTime(float* ms, void* start, void* end) {
  READY;
  auto *a = (Event*)start, *b = (Event*)end;
  std::lock_guard<std::mutex> lock(mutex);
  if (!a->recorded || !b->recorded) return INVALID_HANDLE;
  if (a->done < a->recorded || b->done < b->recorded) return NOT_READY;
  *ms = (float)(b->at - a->at);
  return 0;
}
EXPORT cuEventElapsedTime_v2(float* ms, void* start, void* end) { return cuEventElapsedTime(ms, start, end); }
EXPORT cuEventDestroy_v2(void* event) {
  READY;
  if (!event) return INVALID_HANDLE;
  delete (Event*)event;
  return 0;
}

EXPORT cuGetErrorName(unsigned code, const char** text) {
  *text = error_name(code);
  return *text ? 0 : INVALID_VALUE;
}
EXPORT cuGetErrorString(unsigned code, const char** text) {
  *text = error_name(code);
  return *text ? 0 : INVALID_VALUE;
}
