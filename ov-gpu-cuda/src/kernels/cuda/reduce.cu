// Reductions over any axes. X and Y are the storage types of input and output, V the type that is computed in, and A the
// accumulator of V.

typedef OV_X X;
typedef OV_Y Y;
typedef OV_V V;
typedef OV_A<V> A;

// Offsets of the kept places, and of the elements that each of them reduces.
struct Extents {
  ov_walk<1> kept, reduced;
};

OV_DEVICE V element(const X* x) { return ov_convert<V>(ov_load(*x)); }

OV_DEVICE void finish(Y* y, A a, unsigned count) { ov_store(y, ov_convert<ov_compute<Y>>(a.result(count))); }

// The elements `first`, `first + step`, … below `end` of the place at `x`.
OV_DEVICE A part(const X* x, const Extents& e, unsigned first, unsigned end, unsigned step) {
  A a = A::none();
  for (unsigned r = first; r < end; r += step) {
    int at;
    e.reduced.locate(r, &at);
    a.add(element(x + at));
  }
  return a;
}

// One warp per kept place.
OV_KERNEL reduce_warp(const X* x, Y* y, Extents e) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned place = ov_global_thread() / 32;
  if (place < e.kept.count) {
    int at;
    e.kept.locate(place, &at);
    const A a = ov_merge_warp(part(x + at, e, ov_lane(), e.reduced.count, 32));
    if (ov_lane() == 0) finish(y + place, a, e.reduced.count);
  }
}

// Blocks (x, y): place x, share y of its elements. With one share the result, else accumulators for reduce_shares.
OV_KERNEL reduce_block(const X* x, Y* y, A* shares, Extents e, unsigned share) {
  OV_SHARED(A, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned place = ov_block_x(), first = ov_block_y() * share;
  const unsigned end = first + share < e.reduced.count ? first + share : e.reduced.count;
  int at;
  e.kept.locate(place, &at);
  const A a = ov_merge_block(part(x + at, e, first + ov_thread_x(), end, ov_block_dim_x()), shared);
  if (ov_thread_x() == 0) {
    if (ov_grid_dim_y() == 1) {
      finish(y + place, a, e.reduced.count);
    } else {
      shares[place * ov_grid_dim_y() + ov_block_y()] = a;
    }
  }
}

// One warp per kept place: its shares together.
OV_KERNEL reduce_shares(const A* shares, Y* y, unsigned places, unsigned count, unsigned reduced) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned place = ov_global_thread() / 32;
  if (place < places) {
    A a = A::none();
    for (unsigned s = ov_lane(); s < count; s += 32) a = A::merge(a, shares[place * count + s]);
    a = ov_merge_warp(a);
    if (ov_lane() == 0) finish(y + place, a, reduced);
  }
}

// Blocks of 32 × 8 threads: 32 neighbouring places, whose elements the 8 rows of threads share.
OV_KERNEL reduce_columns(const X* x, Y* y, Extents e) {
  OV_SHARED(A, shared, 32 * 8);
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned place = ov_block_x() * 32 + ov_thread_x();
  A a = A::none();
  if (place < e.kept.count) {
    int at;
    e.kept.locate(place, &at);
    a = part(x + at, e, ov_thread_y(), e.reduced.count, 8);
  }
  shared[ov_thread_y() * 32 + ov_thread_x()] = a;
  ov_block_sync();
  if (ov_thread_y() == 0 && place < e.kept.count) {
    for (int k = 1; k < 8; ++k) a = A::merge(a, shared[k * 32 + ov_thread_x()]);
    finish(y + place, a, e.reduced.count);
  }
}
