// Normalization by the mean and the deviation of groups of elements: one block per group; the elements of small groups
// stay in registers.

typedef OV_X X;
typedef OV_S S;
typedef OV_B B;
typedef OV_Y Y;
typedef OV_M M;
typedef OV_V V;

// Operands: x and y, scale, bias.
struct Extents {
  ov_walk<3> kept, reduced;
};

// What the sum of squares becomes.
OV_DEVICE V inverse(int mode, V squares, V count, V epsilon) {
  switch (mode) {
    case 0: return (V)1 / ov_sqrt(squares / count + epsilon);
    case 1: return (V)1 / (ov_sqrt(squares / count) + epsilon);
    case 2: return (V)1 / ov_sqrt(squares + epsilon);
    case 3: return (V)1 / ov_sqrt(f_maximum(squares, epsilon));
    default: return (V)1;
  }
}

struct Group {
  const X* x;
  Y* y;
  const S* scale;
  const B* bias;
  V mean, inverse;

  OV_DEVICE void store(const int* at, V v) const {
    V result = (v - mean) * inverse;
    if (OV_SCALED) result *= (V)ov_load(scale[at[1]]);
    if (OV_BIASED) result += (V)ov_load(bias[at[2]]);
    ov_store(y + at[0], ov_convert<ov_compute<Y>>(result));
  }
};

OV_DEVICE V total(V v, Sum<V>* shared) { return ov_merge_block(Sum<V>{v}, shared).v; }

OV_DEVICE Group group(const X* x, Y* y, const S* scale, const B* bias, const Extents& e) {
  int at[3];
  e.kept.locate(ov_block_x(), at);
  return {x + at[0], y + at[0], scale + at[1], bias + at[2], (V)0, (V)1};
}

OV_DEVICE void keep(const Group& g, M* means, M* inverses) {
  if (OV_STATISTICS && ov_thread_x() == 0) {
    ov_store(means + ov_block_x(), ov_convert<ov_compute<M>>(g.mean));
    ov_store(inverses + ov_block_x(), ov_convert<ov_compute<M>>(g.inverse));
  }
}

// Groups of at most 8 elements per thread.
OV_KERNEL group_small(const X* x, const S* scale, const B* bias, Y* y, M* means, M* inverses, Extents e, int mode,
                      V epsilon) {
  OV_SHARED(Sum<V>, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  Group g = group(x, y, scale, bias, e);
  const V count = (V)e.reduced.count;
  V values[8];
  V sum = 0;
  OV_UNROLL
  for (int k = 0; k < 8; ++k) {
    const unsigned r = ov_thread_x() + k * ov_block_dim_x();
    if (r < e.reduced.count) {
      int at[3];
      e.reduced.locate(r, at);
      values[k] = (V)ov_load(g.x[at[0]]);
      sum += values[k];
    }
  }
  if (OV_CENTRED) g.mean = total(sum, shared) / count;
  sum = 0;
  OV_UNROLL
  for (int k = 0; k < 8; ++k) {
    if (ov_thread_x() + k * ov_block_dim_x() < e.reduced.count) {
      const V d = values[k] - g.mean;
      sum += d * d;
    }
  }
  g.inverse = inverse(mode, total(sum, shared), count, epsilon);
  OV_UNROLL
  for (int k = 0; k < 8; ++k) {
    const unsigned r = ov_thread_x() + k * ov_block_dim_x();
    if (r < e.reduced.count) {
      int at[3];
      e.reduced.locate(r, at);
      g.store(at, values[k]);
    }
  }
  keep(g, means, inverses);
}

OV_KERNEL group_large(const X* x, const S* scale, const B* bias, Y* y, M* means, M* inverses, Extents e, int mode,
                      V epsilon) {
  OV_SHARED(Sum<V>, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  Group g = group(x, y, scale, bias, e);
  const V count = (V)e.reduced.count;
  V sum = 0;
  int at[3];
  if (OV_CENTRED) {
    for (unsigned r = ov_thread_x(); r < e.reduced.count; r += ov_block_dim_x()) {
      e.reduced.locate(r, at);
      sum += (V)ov_load(g.x[at[0]]);
    }
    g.mean = total(sum, shared) / count;
  }
  sum = 0;
  for (unsigned r = ov_thread_x(); r < e.reduced.count; r += ov_block_dim_x()) {
    e.reduced.locate(r, at);
    const V d = (V)ov_load(g.x[at[0]]) - g.mean;
    sum += d * d;
  }
  g.inverse = inverse(mode, total(sum, shared), count, epsilon);
  for (unsigned r = ov_thread_x(); r < e.reduced.count; r += ov_block_dim_x()) {
    e.reduced.locate(r, at);
    g.store(at, (V)ov_load(g.x[at[0]]));
  }
  keep(g, means, inverses);
}

// Count, mean and sum of squared differences to it of some elements (Chan, Golub and LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances", 1979); without centring the mean stays 0.
struct Moments {
  V n, mean, squares;
  OV_DEVICE static Moments merge(Moments a, Moments b) {
    const V n = a.n + b.n, d = b.mean - a.mean;
    if (n == (V)0) return a;
    const V share = b.n / n;
    return {n, a.mean + d * share, a.squares + b.squares + d * d * a.n * share};
  }
};

// Groups that are dense rows of whole vectors, as scale and bias are: at most OV_CHUNKS vectors per thread.
OV_KERNEL group_rows(const X* x, const S* scale, const B* bias, Y* y, M* means, M* inverses, Extents e, int mode,
                     V epsilon) {
  OV_SHARED(Moments, shared, 32);
  ov_grid_wait();
  ov_grid_launch_dependents();
  Group g = group(x, y, scale, bias, e);
  const unsigned vectors = e.reduced.count / OV_LANES;
  ov_lanes<X, OV_LANES> values[OV_CHUNKS];
  Moments m = {(V)0, (V)0, (V)0};
  OV_UNROLL
  for (int c = 0; c < OV_CHUNKS; ++c) {
    const unsigned k = ov_thread_x() + c * ov_block_dim_x();
    if (k < vectors) values[c] = ov_load_lanes<X, OV_LANES>(g.x + k * OV_LANES, true);
  }
  OV_UNROLL
  for (int c = 0; c < OV_CHUNKS; ++c) {
    if (ov_thread_x() + c * ov_block_dim_x() < vectors) {
      Moments part = {(V)OV_LANES, (V)0, (V)0};
      if (OV_CENTRED) {
        OV_UNROLL
        for (int l = 0; l < OV_LANES; ++l) part.mean += (V)ov_load(values[c].lane[l]);
        part.mean /= (V)OV_LANES;
      }
      OV_UNROLL
      for (int l = 0; l < OV_LANES; ++l) {
        const V d = (V)ov_load(values[c].lane[l]) - part.mean;
        part.squares += d * d;
      }
      m = Moments::merge(m, part);
    }
  }
  m = ov_merge_block(m, shared);
  g.mean = m.mean;
  g.inverse = inverse(mode, m.squares, m.n, epsilon);
  OV_UNROLL
  for (int c = 0; c < OV_CHUNKS; ++c) {
    const unsigned k = ov_thread_x() + c * ov_block_dim_x();
    if (k < vectors) {
      ov_lanes<S, OV_LANES> scales;
      ov_lanes<B, OV_LANES> biases;
      ov_lanes<Y, OV_LANES> result;
      if (OV_SCALED) scales = ov_load_lanes<S, OV_LANES>(g.scale + k * OV_LANES, true);
      if (OV_BIASED) biases = ov_load_lanes<B, OV_LANES>(g.bias + k * OV_LANES, true);
      OV_UNROLL
      for (int l = 0; l < OV_LANES; ++l) {
        V v = ((V)ov_load(values[c].lane[l]) - g.mean) * g.inverse;
        if (OV_SCALED) v *= (V)ov_load(scales.lane[l]);
        if (OV_BIASED) v += (V)ov_load(biases.lane[l]);
        ov_store(&result.lane[l], ov_convert<ov_compute<Y>>(v));
      }
      ov_store_lanes(g.y + k * OV_LANES, result);
    }
  }
  keep(g, means, inverses);
}
