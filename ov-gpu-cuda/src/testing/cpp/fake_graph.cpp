// Graphs of the fake driver: nodes with their dependencies, run one by one in an order that the dependencies allow.

#include <string.h>

#include "fake_cuda.h"

namespace fake {

enum Kind : unsigned { KERNEL = 0, COPY = 1, SET = 2, EMPTY = 5, RECORD = 7 };

// As the driver's header lays them out.
struct KernelParams {
  Function* function;
  unsigned grid[3], block[3], shared;
  void** arguments;
  void** extra;
  void* kernel;
  void* context;
};
struct Copy3d {
  unsigned long from_x, from_y, from_z, from_lod;
  unsigned from_type;
  const void* from_host;
  unsigned long long from_device;
  void *from_array, *reserved0;
  unsigned long from_pitch, from_height;
  unsigned long to_x, to_y, to_z, to_lod;
  unsigned to_type;
  void* to_host;
  unsigned long long to_device;
  void *to_array, *reserved1;
  unsigned long to_pitch, to_height;
  unsigned long width, height, depth;
};
struct SetParams {
  unsigned long long at;
  unsigned long pitch;
  unsigned value, element_size;
  unsigned long width, height;
};
struct EdgeData {
  unsigned char from_port, to_port, type, reserved[5];
};
struct NodeParams {
  unsigned type;
  int reserved0[3];
  union {
    long long reserved1[29];
    KernelParams kernel;
    struct {
      int flags, reserved;
      void* context;
      Copy3d params;
    } copy;
    SetParams set;
    Event* event;
  };
  long long reserved2;
};

// What a node does.
struct Work {
  Kind kind = EMPTY;
  Launch launch;
  Copy3d copy = {};
  SetParams set = {};
  Event* event = nullptr;
};
struct Node {
  Work work;
  std::vector<Node*> after;
  // Whether it may start before the node before it has ended.
  bool early = false;
};
struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
};
struct Exec {
  Context* context;
  std::vector<Node*> order;
  std::map<Node*, Work> work;
  // Nodes that start early, by what they wait for.
  std::map<Node*, Node*> early;
  unsigned launches = 0;
};

static unsigned check_copy(Context* context, const Copy3d& c) {
  if (c.height != 1 || c.depth != 1 || c.from_y || c.to_y || c.from_z || c.to_z) return INVALID_VALUE;
  const auto side = [&](unsigned type, const void* host, unsigned long long device, unsigned long x) -> unsigned {
    if (type == 1) return host ? 0 : INVALID_VALUE;
    return type == 2 && in_device_memory(context, device + x, c.width) ? 0 : INVALID_VALUE;
  };
  if (unsigned r = side(c.from_type, c.from_host, c.from_device, c.from_x)) return r;
  return side(c.to_type, c.to_host, c.to_device, c.to_x);
}

static unsigned add(Graph* graph, Node* const* after, unsigned long count, Work work, void** out) {
  if (!graph) return INVALID_HANDLE;
  auto node = std::make_unique<Node>();
  node->work = std::move(work);
  for (unsigned long i = 0; i < count; ++i) {
    bool known = false;
    for (auto& n : graph->nodes) known |= n.get() == after[i];
    if (!known) return INVALID_VALUE;
    node->after.push_back(after[i]);
  }
  graph->nodes.push_back(std::move(node));
  *out = graph->nodes.back().get();
  return 0;
}

static unsigned kernel_work(const KernelParams& p, Work* work) {
  if (p.extra) return INVALID_VALUE;
  work->kind = KERNEL;
  return make_launch(&work->launch, p.function, p.grid, p.block, p.shared, p.arguments);
}

static void carry_out(Context* context, const Work& w) {
  switch (w.kind) {
    case KERNEL: run_kernel(context, w.launch); break;
    case COPY: {
      const Copy3d& c = w.copy;
      if (check_copy(context, c)) return fault(context, ILLEGAL_ADDRESS, "a copy from or to freed memory");
      count(c.from_type == 1 ? "host_to_device" : c.to_type == 1 ? "device_to_host" : "within_device", (long long)c.width);
      const char* from = (c.from_type == 1 ? (const char*)c.from_host : (const char*)c.from_device) + c.from_x;
      memmove((c.to_type == 1 ? (char*)c.to_host : (char*)c.to_device) + c.to_x, from, c.width);
      break;
    }
    case SET:
      for (unsigned long y = 0; y < w.set.height; ++y)
        for (unsigned long x = 0; x < w.set.width; ++x)
          memcpy((char*)w.set.at + y * w.set.pitch + x * w.set.element_size, &w.set.value, w.set.element_size);
      break;
    case EMPTY: break;
    case RECORD: {
      std::lock_guard<std::mutex> lock(mutex);
      w.event->done = w.event->recorded;
      w.event->at = now();
      changed.notify_all();
      break;
    }
  }
}

// An order that the dependencies allow, the last possible node first when `reverse`; empty for a cycle.
static std::vector<Node*> sorted(const Graph& graph, bool reverse) {
  std::vector<Node*> order;
  std::set<Node*> done;
  while (order.size() < graph.nodes.size()) {
    Node* next = nullptr;
    for (auto& n : graph.nodes) {
      bool can = !done.count(n.get());
      for (Node* a : n->after) can &= done.count(a) != 0;
      if (!can) continue;
      next = n.get();
      if (!reverse) break;
    }
    if (!next) return {};
    done.insert(next);
    order.push_back(next);
  }
  return order;
}

}  // namespace fake

using namespace fake;

EXPORT cuGraphCreate(void** out, unsigned) {
  READY;
  count("graphs", 1);
  *out = new Graph;
  return 0;
}
EXPORT cuGraphDestroy(void* graph) {
  READY;
  count("graphs", -1);
  delete (Graph*)graph;
  return 0;
}
EXPORT cuGraphAddKernelNode_v2(void** out, Graph* graph, Node* const* after, unsigned long count, const KernelParams* params) {
  READY;
  Work work;
  if (unsigned r = kernel_work(*params, &work)) return r;
  return add(graph, after, count, std::move(work), out);
}
EXPORT cuGraphAddMemcpyNode(void** out, Graph* graph, Node* const* after, unsigned long count, const Copy3d* params, void*) {
  READY;
  if (unsigned r = check_copy(context, *params)) return r;
  Work work;
  work.kind = COPY;
  work.copy = *params;
  return add(graph, after, count, std::move(work), out);
}
EXPORT cuGraphAddMemsetNode(void** out, Graph* graph, Node* const* after, unsigned long count, const SetParams* params, void*) {
  READY;
  Work work;
  work.kind = SET;
  work.set = *params;
  const unsigned long len = params->height > 1 ? params->pitch * params->height : params->width * params->element_size;
  if (!in_device_memory(context, params->at, len)) return INVALID_VALUE;
  return add(graph, after, count, std::move(work), out);
}
EXPORT cuGraphAddEmptyNode(void** out, Graph* graph, Node* const* after, unsigned long count) {
  READY;
  return add(graph, after, count, {}, out);
}
EXPORT cuGraphAddEventRecordNode(void** out, Graph* graph, Node* const* after, unsigned long count, void* event) {
  READY;
  Work work;
  work.kind = RECORD;
  work.event = (Event*)event;
  return add(graph, after, count, std::move(work), out);
}
static unsigned check_edge(const Node* from, const Node* to, const EdgeData* data) {
  if (!data || (!data->from_port && !data->to_port && !data->type)) return 0;
  // Programmatic edges join kernels.
  const bool kernels = from->work.kind == KERNEL && to->work.kind == KERNEL;
  const bool port = data->from_port == 1 || data->from_port == 2;
  return data->type == 1 && data->to_port == 0 && port && kernels ? 0 : INVALID_VALUE;
}
EXPORT cuGraphAddDependencies_v2(Graph* graph, Node* const* from, Node* const* to, const EdgeData* data, unsigned long count) {
  READY;
  for (unsigned long i = 0; i < count; ++i) {
    if (unsigned r = check_edge(from[i], to[i], data ? data + i : nullptr)) return r;
    for (Node* a : to[i]->after)
      if (a == from[i]) return INVALID_VALUE;
    to[i]->after.push_back(from[i]);
    if (data && data[i].type == 1) {
      to[i]->early = true;
      fake::count("programmatic_edges", 1);
    }
  }
  return graph ? 0 : INVALID_HANDLE;
}
EXPORT cuGraphAddNode_v2(void** out, Graph* graph, Node* const* after, const EdgeData* data, unsigned long count, NodeParams* p) {
  READY;
  unsigned r = 0;
  switch (p->type) {
    case KERNEL: r = cuGraphAddKernelNode_v2(out, graph, after, count, &p->kernel); break;
    case COPY: r = cuGraphAddMemcpyNode(out, graph, after, count, &p->copy.params, nullptr); break;
    case SET: r = cuGraphAddMemsetNode(out, graph, after, count, &p->set, nullptr); break;
    case EMPTY: r = cuGraphAddEmptyNode(out, graph, after, count); break;
    case RECORD: r = cuGraphAddEventRecordNode(out, graph, after, count, p->event); break;
    default: return INVALID_VALUE;
  }
  for (unsigned long i = 0; i < count && !r; ++i) {
    r = check_edge(after[i], (Node*)*out, data ? data + i : nullptr);
    if (!r && data && data[i].type == 1) {
      ((Node*)*out)->early = true;
      fake::count("programmatic_edges", 1);
    }
  }
  return r;
}
EXPORT cuGraphInstantiateWithFlags(void** out, Graph* graph, unsigned long long) {
  READY;
  if (!graph) return INVALID_HANDLE;
  auto exec = std::make_unique<Exec>();
  exec->context = context;
  exec->order = sorted(*graph, knob("seed") % 2 != 0);
  if (exec->order.size() != graph->nodes.size()) return INVALID_VALUE;
  for (auto& n : graph->nodes) {
    exec->work[n.get()] = n->work;
    if (n->early && n->after.size() == 1) exec->early[n.get()] = n->after[0];
  }
  count("graph_execs", 1);
  *out = exec.release();
  return 0;
}
EXPORT cuGraphUpload(void* exec, void*) {
  READY;
  return exec ? 0 : INVALID_HANDLE;
}
EXPORT cuGraphLaunch(void* handle, void* stream) {
  READY;
  auto* exec = (Exec*)handle;
  if (!exec || exec->context != context) return INVALID_HANDLE;
  count("graph_launches", 1);
  {
    std::lock_guard<std::mutex> lock(mutex);
    counters["launch_priority"] = stream_of(context, stream)->priority;
  }
  std::vector<Work> works;
  // Whether the work starts before the one before it, which it waits for itself: every second one that may, the others at
  // the next launch.
  std::vector<bool> early;
  bool turn = exec->launches++ % 2;
  for (unsigned long i = 0; i < exec->order.size(); ++i) {
    Node* n = exec->order[i];
    works.push_back(exec->work[n]);
    const auto found = exec->early.find(n);
    const bool may = found != exec->early.end() && found->second == exec->order[i - 1] && !early.back();
    early.push_back(may && turn);
    turn = turn != may;
    if (works.back().kind == RECORD) {
      std::lock_guard<std::mutex> lock(mutex);
      ++works.back().event->recorded;
    }
  }
  enqueue(stream_of(context, stream), [context, works = std::move(works), early = std::move(early)] {
    for (unsigned long i = 0; i < works.size(); ++i) {
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (context->sticky) return;
      }
      if (i + 1 < works.size() && early[i + 1]) {
        const Work& before = works[i];
        fake::count("early_launches", 1);
        run_kernel(context, works[++i].launch, [&] { carry_out(context, before); });
      } else {
        carry_out(context, works[i]);
      }
    }
  });
  return 0;
}
static unsigned update(void* handle, Node* node, Work work) {
  auto* exec = (Exec*)handle;
  if (!exec) return INVALID_HANDLE;
  auto found = exec->work.find(node);
  if (found == exec->work.end() || found->second.kind != work.kind) return INVALID_VALUE;
  found->second = std::move(work);
  return 0;
}
EXPORT cuGraphExecKernelNodeSetParams_v2(void* exec, Node* node, const KernelParams* params) {
  READY;
  Work work;
  if (unsigned r = kernel_work(*params, &work)) return r;
  return update(exec, node, std::move(work));
}
EXPORT cuGraphExecMemcpyNodeSetParams(void* exec, Node* node, const Copy3d* params, void*) {
  READY;
  if (unsigned r = check_copy(context, *params)) return r;
  Work work;
  work.kind = COPY;
  work.copy = *params;
  return update(exec, node, std::move(work));
}
EXPORT cuGraphExecMemsetNodeSetParams(void* exec, Node* node, const SetParams* params, void*) {
  READY;
  Work work;
  work.kind = SET;
  work.set = *params;
  return update(exec, node, std::move(work));
}
EXPORT cuGraphExecDestroy(void* exec) {
  READY;
  if (!exec) return INVALID_HANDLE;
  count("graph_execs", -1);
  delete (Exec*)exec;
  return 0;
}
