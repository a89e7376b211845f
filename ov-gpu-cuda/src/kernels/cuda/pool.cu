// Pooling over up to three axes, planar or channels last. X is the storage type, V the type that is computed in, I that of
// the indices.

typedef OV_X X;
typedef OV_V V;
typedef OV_I I;

struct Axis {
  int input, kernel, stride, dilation, begin, end;
  // Of the axis in the input.
  int step;
};

struct Pool {
  unsigned count, channels_last;
  // Of the output: channels (groups of OV_LANES when channels last), and the axes, outermost first.
  ov_divisor channels, places[3];
  Axis axes[3];
  int input_image, input_channel;
  // Indices are counted within so many elements.
  unsigned counted;
  float power;
};

// Templates, as integers have no powers.
template <class T> struct Largest {
  T v;
  int at;
  OV_DEVICE static Largest none() { return {ov_least((T)0), -1}; }
  OV_DEVICE void add(T x, int place, const Pool&) {
    if (at < 0 || x > v || (x != x && v == v)) *this = {x, place};
  }
  OV_DEVICE T result(const Pool&, int, int) const { return v; }
};

template <class T> struct Average {
  T v;
  static constexpr int at = -1;
  OV_DEVICE static Average none() { return {(T)0}; }
  OV_DEVICE void add(T x, int, const Pool&) { v += x; }
  OV_DEVICE T result(const Pool&, int inside, int) const { return inside ? v / (T)inside : (T)0; }
};

template <class T> struct AverageWithPad {
  T v;
  static constexpr int at = -1;
  OV_DEVICE static AverageWithPad none() { return {(T)0}; }
  OV_DEVICE void add(T x, int, const Pool&) { v += x; }
  OV_DEVICE T result(const Pool&, int, int padded) const { return padded ? v / (T)padded : (T)0; }
};

template <class T> struct Power {
  T v;
  static constexpr int at = -1;
  OV_DEVICE static Power none() { return {(T)0}; }
  OV_DEVICE void add(T x, int, const Pool& p) { v += ov_pow(ov_fabs(x), (T)p.power); }
  OV_DEVICE T result(const Pool& p, int, int) const { return ov_pow(v, (T)1 / (T)p.power); }
};

typedef OV_FUNCTION<V> F;


// Kernel elements from `first` up to `last` inside the input, with the input place of element 0, and how many are inside the
// input or its padding.
struct Span {
  int first, last, start, padded;
};
OV_DEVICE Span span(const Axis& a, int output) {
  const int start = output * a.stride - a.begin;
  int first = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
  int last = a.input > start ? (a.input - start + a.dilation - 1) / a.dilation : 0;
  first = ov_min(first, a.kernel);
  last = ov_max(ov_min(last, a.kernel), first);
  const int room = a.input + a.end - start;
  const int padded = room > 0 ? ov_min((room + a.dilation - 1) / a.dilation, a.kernel) : 0;
  return {first, last, start, padded};
}

template <int N> OV_DEVICE void pool(const X* x, X* y, I* indices, const Pool& p) {
  const unsigned i = ov_global_thread();
  if (i >= p.count) return;
  unsigned rest = i;
  unsigned channel = p.channels_last ? ov_innermost(p.channels, rest) : 0;
  int place[3];
  for (int a = 2; a >= 0; --a) place[a] = (int)ov_innermost(p.places[a], rest);
  if (!p.channels_last) channel = ov_innermost(p.channels, rest);
  const int base = (int)rest * p.input_image + (int)channel * N * p.input_channel;
  Span s[3];
  int inside = 1, padded = 1;
  for (int a = 0; a < 3; ++a) {
    s[a] = span(p.axes[a], place[a]);
    inside *= s[a].last - s[a].first;
    padded *= s[a].padded;
  }
  F f[N];
  for (int n = 0; n < N; ++n) f[n] = F::none();
  for (int u = s[0].first; u < s[0].last; ++u) {
    const int at0 = base + (s[0].start + u * p.axes[0].dilation) * p.axes[0].step;
    for (int v = s[1].first; v < s[1].last; ++v) {
      const int at1 = at0 + (s[1].start + v * p.axes[1].dilation) * p.axes[1].step;
      for (int w = s[2].first; w < s[2].last; ++w) {
        const int at = at1 + (s[2].start + w * p.axes[2].dilation) * p.axes[2].step;
        const ov_lanes<X, N> values = ov_load_lanes<X, N>(x + at, true);
        for (int n = 0; n < N; ++n) f[n].add((V)ov_load(values.lane[n]), at + n, p);
      }
    }
  }
  ov_lanes<X, N> result;
  for (int n = 0; n < N; ++n) {
    ov_store(&result.lane[n], ov_convert<ov_compute<X>>(f[n].result(p, inside, padded)));
  }
  ov_store_lanes(y + (long long)i * N, result);
  if (OV_INDICES) indices[i] = (I)((unsigned)(f[0].at < 0 ? base : f[0].at) % p.counted);
}

OV_KERNEL pool_single(const X* x, X* y, I* indices, Pool p) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  pool<1>(x, y, indices, p);
}

// Groups of OV_LANES neighbouring channels.
OV_KERNEL pool_lanes(const X* x, X* y, I* indices, Pool p) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  pool<OV_LANES>(x, y, indices, p);
}
