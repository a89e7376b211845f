// The best elements along an axis, in order: by value, equal ones by place; NaN is above every number. X is the storage
// type, V the type that is compared in, I that of the indices.

typedef OV_X X;
typedef OV_V V;
typedef OV_I I;

struct TopK {
  // Lines: walk operands 0 and 1 are the input and the output.
  ov_walk<2> lines;
  unsigned extent, k;
  // Between neighbours of a line.
  int from_stride, to_stride;
};

struct Entry {
  V v;
  unsigned at;
};

OV_DEVICE bool above(V a, V b) { return a > b || (a != a && b == b); }

// Whether `a` comes before `b`; places from 0xffffffff on are beyond the line.
OV_DEVICE bool before(Entry a, Entry b) {
  if (a.at == 0xffffffffu || b.at == 0xffffffffu) return a.at < b.at;
  if (OV_LARGEST ? above(a.v, b.v) : above(b.v, a.v)) return true;
  if (OV_LARGEST ? above(b.v, a.v) : above(a.v, b.v)) return false;
  return a.at < b.at;
}

// One block per line of at most OV_SORTED elements, a power of two: a bitonic sort in shared memory (Batcher, "Sorting
// networks and their applications", 1968).
OV_KERNEL topk_sort(const X* x, X* y, I* indices, TopK t) {
  OV_SHARED(Entry, entries, OV_SORTED);
  ov_grid_wait();
  ov_grid_launch_dependents();
  int line[2];
  t.lines.locate(ov_block_x(), line);
  for (unsigned i = ov_thread_x(); i < OV_SORTED; i += ov_block_dim_x()) {
    entries[i].at = 0xffffffffu;
    if (i < t.extent) entries[i] = {(V)ov_load(x[line[0] + (long long)i * t.from_stride]), i};
  }
  ov_block_sync();
  for (unsigned run = 2; run <= OV_SORTED; run *= 2) {
    for (unsigned step = run / 2; step > 0; step /= 2) {
      for (unsigned i = ov_thread_x(); i < OV_SORTED / 2; i += ov_block_dim_x()) {
        const unsigned low = 2 * i - (i & (step - 1)), high = low + step;
        const Entry a = entries[low], b = entries[high];
        if (before(b, a) == ((low & run) == 0)) {
          entries[low] = b;
          entries[high] = a;
        }
      }
      ov_block_sync();
    }
  }
#if OV_BY_INDEX
  // The first k, in order of their places: each counts those that stand before it.
  for (unsigned i = ov_thread_x(); i < t.k; i += ov_block_dim_x()) {
    unsigned rank = 0;
    for (unsigned j = 0; j < t.k; ++j) rank += entries[j].at < entries[i].at;
    const long long to = line[1] + (long long)rank * t.to_stride;
    ov_store(y + to, (ov_compute<X>)entries[i].v);
    indices[to] = (I)entries[i].at;
  }
#else
  for (unsigned i = ov_thread_x(); i < t.k; i += ov_block_dim_x()) {
    const long long to = line[1] + (long long)i * t.to_stride;
    ov_store(y + to, (ov_compute<X>)entries[i].v);
    indices[to] = (I)entries[i].at;
  }
#endif
}

// The first of several entries, over the block.
struct First {
  Entry e;
  OV_DEVICE static First none() { return {{ov_least((V)0), 0xffffffffu}}; }
  OV_DEVICE static First merge(First a, First b) { return before(b.e, a.e) ? b : a; }
};

// One block per line of any length: k times the first entry behind the one before.
OV_KERNEL topk_select(const X* x, X* y, I* indices, TopK t) {
  OV_SHARED(First, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  int line[2];
  t.lines.locate(ov_block_x(), line);
  Entry last = {(V)0, 0xffffffffu};
  for (unsigned k = 0; k < t.k; ++k) {
    First first = First::none();
    for (unsigned i = ov_thread_x(); i < t.extent; i += ov_block_dim_x()) {
      const Entry e = {(V)ov_load(x[line[0] + (long long)i * t.from_stride]), i};
      if (k > 0 && !before(last, e)) continue;
      if (before(e, first.e)) first.e = e;
    }
    last = ov_merge_block(first, shared).e;
    if (ov_thread_x() == 0) {
      const long long to = line[1] + (long long)k * t.to_stride;
      ov_store(y + to, (ov_compute<X>)last.v);
      indices[to] = (I)last.at;
    }
  }
}
