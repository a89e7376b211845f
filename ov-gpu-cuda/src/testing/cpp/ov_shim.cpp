// Runs kernels on the processor: a fiber per thread, one block at a time. Barriers and warp operations are places where
// fibers wait for one another; when all of them wait, or the lanes of a warp wait at different operations, the launch ends
// with an error that says who waits where.

#include "ov_shim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace {

constexpr unsigned long STACK = 128 << 10;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned long SHARED = 256 << 10;
constexpr unsigned long GUARD = 256;
constexpr unsigned long long CANARY = 0x5bd1e9955bd1e995;

// Where a fiber, or the launch itself, goes on.
#if defined(__x86_64__)
typedef void* Place;
extern "C" void ov_shim_switch(Place* from, Place to);
asm(R"(
.text
.globl ov_shim_switch
.hidden ov_shim_switch
.type ov_shim_switch, @function
ov_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ov_shim_switch, .-ov_shim_switch
)");
inline void go(Place& from, Place& to) { ov_shim_switch(&from, to); }
inline void prepare(Place& place, char* stack, void (*entry)()) {
  void** top = (void**)(stack + STACK);
  // A return address above the entry keeps the stack aligned as the ABI wants it.
  top[-1] = nullptr;
  top[-2] = (void*)entry;
  place = top - 8;
}
#else
typedef ucontext_t Place;
inline void go(Place& from, Place& to) { swapcontext(&from, &to); }
inline void prepare(Place& place, char* stack, void (*entry)()) {
  getcontext(&place);
  place.uc_stack.ss_sp = stack;
  place.uc_stack.ss_size = STACK;
  place.uc_link = nullptr;
  makecontext(&place, entry, 0);
}
#endif

struct Copy {
  void* to;
  const void* from;
  unsigned size, valid, group;
};

struct Warp {
  void (*all)(void* const*);
  const char* what;
  void* lanes[32];
  unsigned size, arrived, returned, first;
};

struct Thread {
  OvShimThread where;
  Place place;
  Warp* warp;
  unsigned index, lane, groups;
  const char* waits;
  bool returned, grid_waited;
  std::vector<Copy> copies;
};

struct Site {
  const void* site;
  void* memory;
};

struct Machine {
  char* stacks = nullptr;
  char* shared = nullptr;
  std::vector<Thread> threads{MAX_THREADS};
  Warp warps[MAX_THREADS / 32];
  std::vector<unsigned> ready;
  unsigned ready_first = 0, ready_count = 0;
  const OvShimLaunch* launch = nullptr;
  unsigned count = 0, returned = 0, at_barrier = 0, any = 0, any_result = 0;
  bool hook_called = false;
  std::vector<Site> sites;
  unsigned long shared_used = 0;
  unsigned long long random = 0;
  Place main;
  bool failed = false;
  char message[512];
  // For launches that a hook of this one makes.
  Machine* inner = nullptr;

  ~Machine() {
    delete inner;
    if (stacks) munmap(stacks, STACK * MAX_THREADS);
    if (shared) munmap(shared, SHARED + GUARD);
  }

  bool allocate() {
    if (shared) return true;
    void* a = mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void* b = mmap(nullptr, SHARED + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a == MAP_FAILED || b == MAP_FAILED) return false;
    stacks = (char*)a;
    shared = (char*)b;
    ready.resize(MAX_THREADS);
    return true;
  }

  unsigned long long draw() {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random;
  }

  void push(unsigned thread) {
    ready[(ready_first + ready_count++) % MAX_THREADS] = thread;
  }
  unsigned pop() {
    if (launch->seed) {
      unsigned& chosen = ready[(ready_first + draw() % ready_count) % MAX_THREADS];
      unsigned& first = ready[ready_first];
      const unsigned t = chosen;
      chosen = first;
      first = t;
    }
    const unsigned t = ready[ready_first];
    ready_first = (ready_first + 1) % MAX_THREADS;
    --ready_count;
    return t;
  }
};

// Of this thread. On the heap: thread-local memory of a library that is loaded late is scarce.
struct Owner {
  Machine* machine = nullptr;
  ~Owner() { delete machine; }
};
thread_local Owner owner;
__thread Machine* of_this_thread __attribute__((tls_model("initial-exec")));

inline Machine& machine() { return *of_this_thread; }

inline Thread* current() { return (Thread*)ov_shim_thread; }

void fail_launch(const char* format, ...) __attribute__((format(printf, 1, 2), noreturn));
void fail_launch(const char* format, ...) {
  Machine& m = machine();
  char text[400];
  va_list rest;
  va_start(rest, format);
  vsnprintf(text, sizeof text, format, rest);
  va_end(rest);
  const OvShimThread& w = current()->where;
  snprintf(m.message, sizeof m.message, "%s (block %u,%u,%u thread %u,%u,%u)", text, w.block[0], w.block[1], w.block[2],
           w.thread[0], w.thread[1], w.thread[2]);
  m.failed = true;
  Place lost;
  go(lost, m.main);
  __builtin_unreachable();
}

// Nobody can go on: says who waits where.
void deadlock() {
  Machine& m = machine();
  const char* first = nullptr;
  const char* second = nullptr;
  unsigned at_first = 0, at_second = 0;
  for (unsigned i = 0; i < m.count; ++i) {
    const Thread& t = m.threads[i];
    if (t.returned) continue;
    if (!first) first = t.waits;
    if (t.waits == first) {
      ++at_first;
    } else {
      if (!second) second = t.waits;
      at_second += t.waits == second;
    }
  }
  if (second) {
    fail_launch("no thread can go on: %u wait at %s, %u at %s, %u have returned", at_first, first, at_second, second,
                m.returned);
  }
  fail_launch("no thread can go on: %u wait at %s, %u have returned", at_first, first ? first : "nothing", m.returned);
}

// Leaves the current fiber for one that can go on.
void leave() {
  Machine& m = machine();
  Thread* me = current();
  if (m.ready_count == 0) {
    if (m.returned != m.count) deadlock();
    go(me->place, m.main);
    return;
  }
  Thread& next = m.threads[m.pop()];
  if (&next == me) return;
  ov_shim_thread = &next.where;
  go(me->place, next.place);
}

// Lets the others that waited here go on, and the current one before or after them.
void all_came(unsigned first, unsigned count) {
  Machine& m = machine();
  const unsigned mine = current()->index;
  for (unsigned i = first; i < first + count; ++i) {
    m.threads[i].waits = nullptr;
    if (i != mine) m.push(i);
  }
  if (m.launch->seed && m.draw() % 2) {
    m.push(mine);
    leave();
  }
}

void entry() {
  Machine& m = machine();
  m.launch->kernel->run(m.launch->arguments);
  Thread* me = current();
  if (!me->grid_waited) fail_launch("a thread never came to ov_grid_wait");
  me->returned = true;
  me->copies.clear();
  ++me->warp->returned;
  ++m.returned;
  if (me->warp->arrived) fail_launch("a lane returned while %u of its warp wait at %s", me->warp->arrived, me->warp->what);
  if (m.at_barrier) fail_launch("a thread returned while %u wait at the block barrier", m.at_barrier);
  leave();
  __builtin_unreachable();
}

void start_block(const unsigned (&block)[3]) {
  Machine& m = machine();
  const OvShimLaunch& l = *m.launch;
  m.returned = m.at_barrier = m.any = 0;
  m.ready_first = m.ready_count = 0;
  m.sites.clear();
  m.shared_used = (l.shared + 127ul) / 128 * 128;
  // Not a number in every floating-point type, so that what was not written shows.
  memset(m.shared, 0xff, m.shared_used);
  for (unsigned i = 0; i < m.count; ++i) {
    Thread& t = m.threads[i];
    const unsigned x = i % l.block[0], y = i / l.block[0] % l.block[1], z = i / l.block[0] / l.block[1];
    t.where = {{x, y, z}, {block[0], block[1], block[2]}, {l.block[0], l.block[1], l.block[2]}, {l.grid[0], l.grid[1], l.grid[2]}};
    t.index = i;
    t.lane = i % 32;
    t.warp = &m.warps[i / 32];
    t.groups = 0;
    t.waits = nullptr;
    t.returned = t.grid_waited = false;
    t.copies.clear();
    char* stack = m.stacks + STACK * i;
    memcpy(stack, &CANARY, sizeof CANARY);
    prepare(t.place, stack, entry);
    m.push(i);
  }
  for (unsigned w = 0; w * 32 < m.count; ++w) {
    Warp& warp = m.warps[w];
    warp.size = m.count - w * 32 < 32 ? m.count - w * 32 : 32;
    warp.arrived = warp.returned = 0;
    warp.first = w * 32;
  }
}

void check_block(const OvShimLaunch& l) {
  Machine& m = machine();
  for (unsigned i = 0; i < m.count && !m.failed; ++i) {
    if (memcmp(m.stacks + STACK * i, &CANARY, sizeof CANARY)) {
      snprintf(m.message, sizeof m.message, "the stack of thread %u is full: %lu bytes", i, STACK);
      m.failed = true;
    }
  }
  for (unsigned long i = l.shared; i < (l.shared + 127ul) / 128 * 128 && !m.failed; ++i) {
    if ((unsigned char)m.shared[i] != 0xff) {
      snprintf(m.message, sizeof m.message, "byte %lu of %u bytes of shared memory was written", i, l.shared);
      m.failed = true;
    }
  }
}

float bf16(unsigned short v) {
  const unsigned bits = (unsigned)v << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

template <class Convert> void multiply(void* const* lanes, Convert convert) {
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const OvShimMma& mine = *(OvShimMma*)lanes[lane];
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const int shift = half * 16;
      for (int k = 0; k < 2; ++k) {
        a[g][8 * k + 2 * t + half] = convert((unsigned short)(mine.a[2 * k] >> shift));
        a[g + 8][8 * k + 2 * t + half] = convert((unsigned short)(mine.a[2 * k + 1] >> shift));
        b[8 * k + 2 * t + half][g] = convert((unsigned short)(mine.b[k] >> shift));
      }
      d[g][2 * t + half] = mine.d[half];
      d[g + 8][2 * t + half] = mine.d[2 + half];
    }
  }
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < 32; ++lane) {
    float* out = ((OvShimMma*)lanes[lane])->d;
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      out[half] = d[g][2 * t + half];
      out[2 + half] = d[g + 8][2 * t + half];
    }
  }
}

template <class A> void multiply_bytes(void* const* lanes) {
  int a[16][32], b[32][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const OvShimByteMma& mine = *(OvShimByteMma*)lanes[lane];
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int byte = 0; byte < 4; ++byte) {
        const int k = 16 * half + 4 * t + byte, shift = 8 * byte;
        a[g][k] = (A)(mine.a[2 * half] >> shift);
        a[g + 8][k] = (A)(mine.a[2 * half + 1] >> shift);
        b[k][g] = (signed char)(mine.b[half] >> shift);
      }
      d[g][2 * t + half] = mine.d[half];
      d[g + 8][2 * t + half] = mine.d[2 + half];
    }
  }
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 32; ++k)
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < 32; ++lane) {
    int* out = ((OvShimByteMma*)lanes[lane])->d;
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      out[half] = d[g][2 * t + half];
      out[2 + half] = d[g + 8][2 * t + half];
    }
  }
}

void load_matrix(void* const* lanes, bool transposed) {
  unsigned short m[4][8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const void* row = ((OvShimMatrix*)lanes[lane])->row;
    if ((unsigned long)row % 16) ov_shim_misaligned(row, 16);
    memcpy(m[lane / 8][lane % 8], row, 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int r = lane / 4, c = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      const unsigned low = transposed ? m[i][c][r] : m[i][r][c], high = transposed ? m[i][c + 1][r] : m[i][r][c + 1];
      ((OvShimMatrix*)lanes[lane])->result[i] = low | high << 16;
    }
  }
}

}  // namespace

__thread OvShimThread* ov_shim_thread;

void ov_shim_fail(const char* message) { fail_launch("%s", message); }
void ov_shim_misaligned(const void* address, unsigned bytes) {
  fail_launch("an access of %u bytes at an address that is %lu above a multiple of it", bytes, (unsigned long)address % bytes);
}

void ov_shim_warp(void (*all)(void* const*), void* mine, const char* what) {
  Thread* me = current();
  Warp& w = *me->warp;
  if (w.size != 32) fail_launch("%s in a warp of %u lanes", what, w.size);
  if (w.returned) fail_launch("%s after %u lanes of the warp have returned", what, w.returned);
  if (w.arrived == 0) {
    w.all = all;
    w.what = what;
  } else if (w.all != all) {
    fail_launch("lanes of a warp diverge: one is at %s, others at %s", what, w.what);
  }
  w.lanes[me->lane] = mine;
  if (++w.arrived == 32) {
    w.arrived = 0;
    all(w.lanes);
    all_came(w.first, 32);
  } else {
    me->waits = what;
    leave();
  }
}

void ov_shim_block_sync() { ov_shim_block_any(0); }

int ov_shim_block_any(int v) {
  Machine& m = machine();
  if (m.returned) fail_launch("the block barrier after %u threads have returned", m.returned);
  m.any |= v != 0;
  if (++m.at_barrier == m.count) {
    m.at_barrier = 0;
    m.any_result = m.any;
    m.any = 0;
    const int result = m.any_result;
    all_came(0, m.count);
    return result;
  }
  current()->waits = "the block barrier";
  leave();
  return m.any_result;
}

void* ov_shim_shared(const void* site, unsigned long bytes) {
  Machine& m = machine();
  for (const Site& s : m.sites)
    if (s.site == site) return s.memory;
  if (m.shared_used + bytes > SHARED || m.shared_used + bytes > m.launch->allowed_shared) {
    fail_launch("%lu bytes of shared memory, where %u are allowed", m.shared_used + bytes, m.launch->allowed_shared);
  }
  char* memory = m.shared + m.shared_used;
  m.shared_used += (bytes + 15) / 16 * 16;
  memset(memory, 0xff, bytes);
  m.sites.push_back({site, memory});
  return memory;
}
void* ov_shim_dynamic_shared() { return machine().shared; }

void ov_shim_copy(void* to, const void* from, unsigned size, unsigned valid) {
  if ((unsigned long)to % size) ov_shim_misaligned(to, size);
  if (valid > size) fail_launch("a copy of %u bytes with %u valid ones", size, valid);
  if (valid && (unsigned long)from % size) ov_shim_misaligned(from, size);
  Machine& m = machine();
  if ((char*)to < m.shared || (char*)to + size > m.shared + m.shared_used) fail_launch("a copy to memory that is not shared");
  if (m.launch->deferred) {
    current()->copies.push_back({to, from, size, valid, current()->groups});
    return;
  }
  memcpy(to, from, valid);
  memset((char*)to + valid, 0, size - valid);
}
void ov_shim_copy_commit() { ++current()->groups; }
void ov_shim_copy_wait(unsigned pending) {
  Thread* me = current();
  size_t done = 0;
  while (done < me->copies.size() && me->copies[done].group + pending < me->groups) {
    const Copy& c = me->copies[done++];
    memcpy(c.to, c.from, c.valid);
    memset((char*)c.to + c.valid, 0, c.size - c.valid);
  }
  me->copies.erase(me->copies.begin(), me->copies.begin() + (long)done);
}

void ov_shim_grid_wait() {
  Machine& m = machine();
  current()->grid_waited = true;
  if (m.launch->on_grid_wait && !m.hook_called) {
    m.hook_called = true;
    m.launch->on_grid_wait(m.launch->context);
  }
}

void ov_shim_load_matrix(void* const* lanes) { load_matrix(lanes, false); }
void ov_shim_load_matrix_transposed(void* const* lanes) { load_matrix(lanes, true); }
void ov_shim_mma_f16(void* const* lanes) { multiply(lanes, ov_shim_f16_to_f32); }
void ov_shim_mma_bf16(void* const* lanes) { multiply(lanes, bf16); }
void ov_shim_mma_u8_i8(void* const* lanes) { multiply_bytes<unsigned char>(lanes); }
void ov_shim_mma_i8_i8(void* const* lanes) { multiply_bytes<signed char>(lanes); }

unsigned short ov_shim_f32_to_f16(float v) {
  unsigned bits;
  memcpy(&bits, &v, sizeof bits);
  const unsigned sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return 0x7fff;
  if (bits >= 0x477ff000) return (unsigned short)(sign | 0x7c00);
  if (bits < 0x38800000) {
    // Below the normal numbers a unit is 2^-24: adding 0.5 leaves, in the lowest bits, how many there are, rounded.
    float magnitude, shifted;
    memcpy(&magnitude, &bits, sizeof bits);
    shifted = magnitude + 0.5f;
    memcpy(&bits, &shifted, sizeof bits);
    return (unsigned short)(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return (unsigned short)(sign | ((bits - 0x38000000) >> 13));
}

float ov_shim_f16_to_f32(unsigned short v) {
  // The bits as a float are too small by 2^112, also for numbers below the normal ones.
  unsigned bits = (v & 0x7fffu) << 13;
  float f;
  memcpy(&f, &bits, sizeof f);
  f *= 0x1p112f;
  memcpy(&bits, &f, sizeof f);
  if ((v & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= (v & 0x8000u) << 16;
  memcpy(&f, &bits, sizeof f);
  return f;
}

int ov_shim_launch(const OvShimLaunch* launch, char* message, unsigned long capacity) {
  if (!of_this_thread) of_this_thread = owner.machine = new Machine;
  if (machine().launch) {
    // From the hook of another launch, on the stack of one of its fibers.
    Machine* const outer = of_this_thread;
    OvShimThread* const thread = ov_shim_thread;
    if (!outer->inner) outer->inner = new Machine;
    of_this_thread = outer->inner;
    const int result = ov_shim_launch(launch, message, capacity);
    of_this_thread = outer;
    ov_shim_thread = thread;
    return result;
  }
  Machine& m = machine();
  const OvShimLaunch& l = *launch;
  const unsigned long long threads = (unsigned long long)l.block[0] * l.block[1] * l.block[2];
  const unsigned long long blocks = (unsigned long long)l.grid[0] * l.grid[1] * l.grid[2];
  const char* refused = nullptr;
  if (threads == 0 || threads > MAX_THREADS || threads > l.kernel->max_threads) refused = "as many threads per block";
  if (blocks == 0 || l.grid[0] > 0x7fffffffu || l.grid[1] > 65535 || l.grid[2] > 65535) refused = "as many blocks";
  if (l.shared > 227 << 10) refused = "as much shared memory";
  if (!m.allocate()) refused = "stacks";
  if (refused) {
    snprintf(message, capacity, "the launch cannot have %s: grid %u,%u,%u block %u,%u,%u shared %u", refused, l.grid[0],
             l.grid[1], l.grid[2], l.block[0], l.block[1], l.block[2], l.shared);
    return 1;
  }
  m.launch = launch;
  m.count = (unsigned)threads;
  m.failed = m.hook_called = false;
  m.random = l.seed * 0x9e3779b97f4a7c15ull | 1;
  // An odd number of steps from one block to the next visits a power of two of places, of which those that exist count.
  unsigned long long places = 1;
  while (places < blocks) places *= 2;
  const unsigned long long step = l.seed ? m.draw() | 1 : 1, first = l.seed ? m.draw() : 0;
  for (unsigned long long i = 0; i < places && !m.failed; ++i) {
    const unsigned long long at = (first + i * step) & (places - 1);
    if (at >= blocks) continue;
    const unsigned block[3] = {(unsigned)(at % l.grid[0]), (unsigned)(at / l.grid[0] % l.grid[1]),
                               (unsigned)(at / l.grid[0] / l.grid[1])};
    start_block(block);
    Thread& first_thread = m.threads[m.pop()];
    ov_shim_thread = &first_thread.where;
    go(m.main, first_thread.place);
    check_block(l);
  }
  m.launch = nullptr;
  if (m.failed) snprintf(message, capacity, "%s", m.message);
  return m.failed;
}
