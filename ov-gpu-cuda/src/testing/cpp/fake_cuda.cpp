// A driver library over host memory: devices, contexts, streams with a thread each and events; fake_memory.cpp has the
// memory, fake_module.cpp the modules that the host compiler built and their launches, fake_graph.cpp the graphs. It refuses what a driver refuses, and fails when it is told to.

#include "fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

}  // namespace fake

using namespace fake;

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
