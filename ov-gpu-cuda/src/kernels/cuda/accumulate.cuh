// What reductions keep of the elements seen so far: a value to begin with, one more element, two parts together, the
// result of `count` elements. V is the type that elements are computed in.

template <class V> struct Sum {
  V v;
  OV_DEVICE static Sum none() { return {(V)0}; }
  OV_DEVICE void add(V x) { v = f_add(v, x); }
  OV_DEVICE static Sum merge(Sum a, Sum b) { return {f_add(a.v, b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct Mean {
  V v;
  OV_DEVICE static Mean none() { return {(V)0}; }
  OV_DEVICE void add(V x) { v += x; }
  OV_DEVICE static Mean merge(Mean a, Mean b) { return {a.v + b.v}; }
  // Of no elements: NaN for floats, 0 for integers.
  OV_DEVICE V result(unsigned count) const { return f_mean(v, count); }
  OV_DEVICE static float f_mean(float v, unsigned count) { return v / (float)count; }
  OV_DEVICE static double f_mean(double v, unsigned count) { return v / (double)count; }
  OV_DEVICE static long long f_mean(long long v, unsigned count) { return v / (long long)(count ? count : 1); }
};

template <class V> struct Prod {
  V v;
  OV_DEVICE static Prod none() { return {(V)1}; }
  OV_DEVICE void add(V x) { v = f_multiply(v, x); }
  OV_DEVICE static Prod merge(Prod a, Prod b) { return {f_multiply(a.v, b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct Max {
  V v;
  OV_DEVICE static Max none() { return {ov_least((V)0)}; }
  OV_DEVICE void add(V x) { v = f_maximum(v, x); }
  OV_DEVICE static Max merge(Max a, Max b) { return {f_maximum(a.v, b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct Min {
  V v;
  OV_DEVICE static Min none() { return {ov_greatest((V)0)}; }
  OV_DEVICE void add(V x) { v = f_minimum(v, x); }
  OV_DEVICE static Min merge(Min a, Min b) { return {f_minimum(a.v, b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct L1 {
  V v;
  OV_DEVICE static L1 none() { return {(V)0}; }
  OV_DEVICE void add(V x) { v = f_add(v, f_abs(x)); }
  OV_DEVICE static L1 merge(L1 a, L1 b) { return {f_add(a.v, b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct L2 {
  V v;
  OV_DEVICE static L2 none() { return {(V)0}; }
  OV_DEVICE void add(V x) { v += x * x; }
  OV_DEVICE static L2 merge(L2 a, L2 b) { return {a.v + b.v}; }
  OV_DEVICE V result(unsigned) const { return ov_sqrt(v); }
};

// The sum of exponentials relative to the greatest element (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018).
template <class V> struct LogSumExp {
  V largest, sum;
  OV_DEVICE static LogSumExp none() { return {ov_least((V)0), (V)0}; }
  OV_DEVICE void add(V x) { *this = merge(*this, {x, (V)1}); }
  OV_DEVICE static LogSumExp merge(LogSumExp a, LogSumExp b) {
    const V largest = a.largest > b.largest ? a.largest : b.largest == b.largest ? b.largest : a.largest;
    return {largest, a.scaled(largest) + b.scaled(largest)};
  }
  // The sum relative to another greatest element; infinities of one sign cancel.
  OV_DEVICE V scaled(V to) const {
    if (sum == (V)0) return sum;
    return largest == to ? sum : sum * ov_exp(largest - to);
  }
  OV_DEVICE V result(unsigned) const { return ov_log(sum) + largest; }
};

template <class V> struct All {
  V v;
  OV_DEVICE static All none() { return {(V)1}; }
  OV_DEVICE void add(V x) { v = v && x; }
  OV_DEVICE static All merge(All a, All b) { return {(V)(a.v && b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};

template <class V> struct Any {
  V v;
  OV_DEVICE static Any none() { return {(V)0}; }
  OV_DEVICE void add(V x) { v = v || x; }
  OV_DEVICE static Any merge(Any a, Any b) { return {(V)(a.v || b.v)}; }
  OV_DEVICE V result(unsigned) const { return v; }
};
