// What the parts of the fake driver share.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ov_shim.h"

namespace fake {

constexpr int MAX_DEVICES = 16;

// Codes of the driver.
enum : unsigned {
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  INVALID_PTX = 218,
  OPERATING_SYSTEM = 304,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  PEER_ACCESS_ALREADY_ENABLED = 704,
  LAUNCH_FAILED = 719,
  GRAPH_EXEC_UPDATE_FAILURE = 910,
};

inline const char* error_name(unsigned code) {
  switch (code) {
    case 0: return "CUDA_SUCCESS";
    case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
    case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case NOT_INITIALIZED: return "CUDA_ERROR_NOT_INITIALIZED";
    case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
    case INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    case INVALID_IMAGE: return "CUDA_ERROR_INVALID_IMAGE";
    case INVALID_CONTEXT: return "CUDA_ERROR_INVALID_CONTEXT";
    case NO_BINARY_FOR_GPU: return "CUDA_ERROR_NO_BINARY_FOR_GPU";
    case INVALID_PTX: return "CUDA_ERROR_INVALID_PTX";
    case OPERATING_SYSTEM: return "CUDA_ERROR_OPERATING_SYSTEM";
    case INVALID_HANDLE: return "CUDA_ERROR_INVALID_HANDLE";
    case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
    case NOT_READY: return "CUDA_ERROR_NOT_READY";
    case ILLEGAL_ADDRESS: return "CUDA_ERROR_ILLEGAL_ADDRESS";
    case PEER_ACCESS_ALREADY_ENABLED: return "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED";
    case LAUNCH_FAILED: return "CUDA_ERROR_LAUNCH_FAILED";
    case GRAPH_EXEC_UPDATE_FAILURE: return "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE";
  }
  return nullptr;
}

struct Context;

// Work in order, on a thread of its own that starts with the first task.
struct Stream {
  Context* context = nullptr;
  int priority = 0;
  std::deque<std::function<void()>> tasks;
  std::thread thread;
  unsigned long submitted = 0, done = 0;
  bool closing = false;
};

struct Context {
  int device = 0;
  unsigned users = 0;
  // The code that every call returns after a fault.
  unsigned sticky = 0;
  unsigned long used = 0;
  Stream main;
  std::vector<Stream*> streams;
  std::set<void*> peers;
};

struct Block {
  Context* context;
  unsigned long len;
};

struct Event {
  Context* context = nullptr;
  unsigned long recorded = 0, done = 0;
  double at = 0;
};

struct Function;
struct Module {
  Context* context = nullptr;
  void* handle = nullptr;
  int (*launch)(const OvShimLaunch*, char*, unsigned long) = nullptr;
  std::vector<std::unique_ptr<Function>> functions;
};
struct Function {
  std::string name;
  Module* module;
  const OvShimKernel* kernel;
  unsigned dynamic_shared;
};

struct Launch {
  Function* function = nullptr;
  unsigned grid[3] = {}, block[3] = {}, shared = 0;
  std::vector<std::vector<unsigned long long>> arguments;
};

struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  void* stream;
  void* attributes;
  unsigned attribute_count;
};

extern std::mutex& mutex;
extern std::condition_variable& changed;
extern std::map<std::string, long long>& counters;
extern std::map<std::string, long long>& knobs;
extern thread_local Context* current;
long long knob(const char* name);
void count(const char* name, long long by);
unsigned ready(Context** context);
unsigned finish(Stream* s);
bool was_freed(unsigned long long at);
bool in_device_memory(Context* context, unsigned long long at, unsigned long len);
Stream* stream_of(Context* context, void* handle);
void enqueue(Stream* s, std::function<void()> task);
// `before` is what the kernel has to wait for, if it starts early.
void run_kernel(Context* context, const Launch& l, const std::function<void()>& before = {});
void fault(Context* context, unsigned code, const char* text);
unsigned make_launch(Launch* l, Function* f, const unsigned* grid, const unsigned* block, unsigned shared, void** arguments);
double now();

}  // namespace fake

#define EXPORT extern "C" __attribute__((visibility("default"))) unsigned
#define READY                          \
  Context* context = nullptr;          \
  if (unsigned r = ready(&context)) return r
