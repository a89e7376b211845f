// Local response normalization. X is the storage type, V the type that is computed in.

typedef OV_X X;
typedef OV_V V;

struct Response {
  unsigned count, axes;
  // Per axis that responses are shared along: elements behind it, and its extent.
  ov_divisor inner[OV_MAX_RANK], extent[OV_MAX_RANK];
  // Neighbours before and after.
  int before, after;
  float scale, beta, bias;
};

OV_KERNEL lrn(const X* x, X* y, Response r) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < r.count) {
    int low[OV_MAX_RANK], high[OV_MAX_RANK], at[OV_MAX_RANK];
    long long offset = i;
    for (unsigned a = 0; a < r.axes; ++a) {
      unsigned rest = r.inner[a].divide(i);
      const int here = (int)ov_innermost(r.extent[a], rest), last = (int)r.extent[a].value - 1;
      low[a] = -ov_min(r.before, here);
      high[a] = ov_min(r.after, last - here);
      at[a] = low[a];
      offset += (long long)at[a] * r.inner[a].value;
    }
    V sum = 0;
    while (true) {
      const V v = (V)ov_load(x[offset]);
      sum += v * v;
      unsigned a = 0;
      for (; a < r.axes; ++a) {
        if (at[a] < high[a]) {
          ++at[a];
          offset += r.inner[a].value;
          break;
        }
        offset -= (long long)(at[a] - low[a]) * r.inner[a].value;
        at[a] = low[a];
      }
      if (a == r.axes) break;
    }
    const V base = (V)r.bias + (V)r.scale * sum;
    ov_store(y + i, (ov_compute<X>)((V)ov_load(x[i]) / ov_pow(base, (V)r.beta)));
  }
}
