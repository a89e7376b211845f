// Memory of the fake driver: of devices, from the heap of the host, and pinned; copies and fills in streams.

#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"

namespace fake {

std::map<unsigned long long, Block>& blocks = *new std::map<unsigned long long, Block>;
// Memory that was freed, until it is given out again: start and length.
std::map<unsigned long long, unsigned long>& freed = *new std::map<unsigned long long, unsigned long>;
std::map<unsigned long long, unsigned long>& pinned = *new std::map<unsigned long long, unsigned long>;

bool in_device_memory(Context* context, unsigned long long at, unsigned long len) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return false;
  auto& [start, block] = *--next;
  return block.context == context && at + len <= start + block.len;
}

bool was_freed(unsigned long long at) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = freed.upper_bound(at);
  if (next == freed.begin()) return false;
  --next;
  return at < next->first + next->second;
}

}  // namespace fake

using namespace fake;

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
  const auto start = (unsigned long long)p;
  for (auto at = freed.begin(); at != freed.end();) {
    const bool apart = at->first + at->second <= start || start + len <= at->first;
    at = apart ? std::next(at) : freed.erase(at);
  }
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
  freed[at] = found->second.len;
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
