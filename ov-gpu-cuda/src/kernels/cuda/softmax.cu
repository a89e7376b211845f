// Softmax and its kin: one block per line; the elements of short lines stay in registers.

typedef OV_X X;
typedef OV_V V;

// The first greatest element and its place.
struct Best {
  V v;
  unsigned at;
  OV_DEVICE static Best none() { return {ov_least((V)0), 0xffffffffu}; }
  OV_DEVICE static Best merge(Best a, Best b) { return b.v > a.v || (b.v == a.v && b.at < a.at) ? b : a; }
};

// NaN next to infinities, which have no exponentials relative to one another.
template <class A> OV_DEVICE auto total(const A& a) { return a.sum + (a.largest - a.largest); }

// Templates, as integers have no exponentials.
template <class T> struct Softmax {
  typedef LogSumExp<T> A;
  OV_DEVICE static void add(A& a, T x, unsigned) { a.add(x); }
  OV_DEVICE static T result(A a, T x, unsigned) { return ov_exp(x - a.largest) / total(a); }
};

template <class T> struct LogSoftmax {
  typedef LogSumExp<T> A;
  OV_DEVICE static void add(A& a, T x, unsigned) { a.add(x); }
  OV_DEVICE static T result(A a, T x, unsigned) { return x - a.largest - ov_log(total(a)); }
};

template <class T> struct Hardmax {
  typedef Best A;
  OV_DEVICE static void add(A& a, T x, unsigned at) { a = A::merge(a, {x, at}); }
  OV_DEVICE static T result(A a, T, unsigned at) { return (T)(a.at == at); }
};

typedef OV_FUNCTION<V> F;
typedef F::A A;

struct Extents {
  ov_walk<1> kept, reduced;
};

// Lines of at most 8 elements per thread.
OV_KERNEL line_short(const X* x, X* y, Extents e) {
  OV_SHARED(A, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  int line;
  e.kept.locate(ov_block_x(), &line);
  V values[8];
  A a = A::none();
  OV_UNROLL
  for (int k = 0; k < 8; ++k) {
    const unsigned r = ov_thread_x() + k * ov_block_dim_x();
    if (r < e.reduced.count) {
      int at;
      e.reduced.locate(r, &at);
      values[k] = ov_load(x[line + at]);
      F::add(a, values[k], r);
    }
  }
  a = ov_merge_block(a, shared);
  OV_UNROLL
  for (int k = 0; k < 8; ++k) {
    const unsigned r = ov_thread_x() + k * ov_block_dim_x();
    if (r < e.reduced.count) {
      int at;
      e.reduced.locate(r, &at);
      ov_store(y + line + at, F::result(a, values[k], r));
    }
  }
}

OV_KERNEL line_long(const X* x, X* y, Extents e) {
  OV_SHARED(A, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  int line;
  e.kept.locate(ov_block_x(), &line);
  A a = A::none();
  for (unsigned r = ov_thread_x(); r < e.reduced.count; r += ov_block_dim_x()) {
    int at;
    e.reduced.locate(r, &at);
    F::add(a, ov_load(x[line + at]), r);
  }
  a = ov_merge_block(a, shared);
  for (unsigned r = ov_thread_x(); r < e.reduced.count; r += ov_block_dim_x()) {
    int at;
    e.reduced.locate(r, &at);
    ov_store(y + line + at, F::result(a, (V)ov_load(x[line + at]), r));
  }
}
