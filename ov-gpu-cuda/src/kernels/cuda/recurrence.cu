// The steps of a recurrent layer after the products of its inputs: a block per sequence and direction, a thread per element
// of the state. Recurrent weights are [direction][k][gate][element]. CELL 0: LSTM, 1: GRU, 2: GRU with the reset gate
// after the product, 3: plain.

constexpr int CELL = OV_CELL, GATES = CELL == 0 ? 4 : CELL == 3 ? 1 : 3;

struct Recurrence {
  int length, directions, hidden;
  // A bit per direction that goes backwards.
  int backwards;
  // Whether lengths have 8 bytes.
  int wide_lengths;
  float clip;
  // Functions of each direction and their parameters.
  int function[2][3];
  float p[2][3], q[2][3];
};

OV_DEVICE float applied(const Recurrence& g, int direction, int i, float v) {
  if (g.clip > 0.0f) v = ov_clamped(v, -g.clip, g.clip);
  return ov_activate(g.function[direction][i], v, g.p[direction][i], g.q[direction][i]);
}

// Products of a state with `count` gates from `first` on, for element u.
template <int first, int count>
OV_DEVICE void multiply(float (&sums)[count], const float* state, const float* w, int hidden, int u) {
  OV_UNROLL
  for (int i = 0; i < count; ++i) sums[i] = 0.0f;
  for (int k = 0; k < hidden; ++k) {
    const float s = state[k];
    const float* row = w + (long long)k * GATES * hidden + first * hidden + u;
    OV_UNROLL
    for (int i = 0; i < count; ++i) sums[i] += s * row[i * hidden];
  }
}

OV_KERNEL_BOUNDS(256, 1) recurrence(const float* x, const float* hidden0, const float* cell0, const void* lengths, const float* w,
                               const float* extra, float* y, float* last_hidden, float* last_cell, Recurrence g) {
  OV_DYNAMIC_SHARED(memory);
  const int n = g.hidden, d = (int)ov_block_x() % g.directions, batch = (int)ov_block_x() / g.directions;
  float *state = (float*)memory, *next = state + n, *cell = next + n, *kept = cell + n;
  w += (long long)d * GATES * n * n;
  if (extra) extra += (long long)d * n * (CELL == 0 ? 3 : 1);
  const long long here = ((long long)batch * g.directions + d) * n;
  ov_grid_wait();
  int length = g.length;
  if (lengths) {
    const long long given = g.wide_lengths ? ((const long long*)lengths)[batch] : ((const int*)lengths)[batch];
    length = given < 0 ? 0 : given < g.length ? (int)given : g.length;
  }
  for (int u = (int)ov_thread_x(); u < n; u += (int)ov_block_dim_x()) {
    state[u] = hidden0 ? hidden0[here + u] : 0.0f;
    cell[u] = CELL == 0 && cell0 ? cell0[here + u] : 0.0f;
  }
  ov_block_sync();
  for (int step = 0; step < length; ++step) {
    const int t = g.backwards >> d & 1 ? length - 1 - step : step;
    const long long row = ((long long)batch * g.length + t) * g.directions + d;
    const float* products = x + row * GATES * n;
    for (int u = (int)ov_thread_x(); u < n; u += (int)ov_block_dim_x()) {
      float v = 0.0f;
      if constexpr (CELL == 0) {
        float sums[4];
        multiply<0, 4>(sums, state, w, n, u);
        OV_UNROLL
        for (int i = 0; i < 4; ++i) sums[i] += products[i * n + u];
        const float c = cell[u];
        const float forget = applied(g, d, 0, sums[0] + (extra ? extra[u] * c : 0.0f));
        const float input = applied(g, d, 0, sums[1] + (extra ? extra[n + u] * c : 0.0f));
        const float now = forget * c + input * applied(g, d, 1, sums[2]);
        const float output = applied(g, d, 0, sums[3] + (extra ? extra[2 * n + u] * now : 0.0f));
        cell[u] = now;
        v = output * ov_activate(g.function[d][2], now, g.p[d][2], g.q[d][2]);
      } else if constexpr (CELL == 1) {
        float sums[2];
        multiply<0, 2>(sums, state, w, n, u);
        kept[u] = applied(g, d, 0, sums[1] + products[n + u]) * state[u];
        v = applied(g, d, 0, sums[0] + products[u]);
      } else if constexpr (CELL == 2) {
        float sums[3];
        multiply<0, 3>(sums, state, w, n, u);
        const float update = applied(g, d, 0, sums[0] + products[u]);
        const float reset = applied(g, d, 0, sums[1] + products[n + u]);
        const float candidate = products[2 * n + u] + reset * (sums[2] + (extra ? extra[u] : 0.0f));
        v = (1.0f - update) * applied(g, d, 1, candidate) + update * state[u];
      } else {
        float sums[1];
        multiply<0, 1>(sums, state, w, n, u);
        v = applied(g, d, 0, sums[0] + products[u]);
      }
      next[u] = v;
      if constexpr (CELL != 1) y[row * n + u] = v;
    }
    ov_block_sync();
    if constexpr (CELL == 1) {
      // Here next still holds the update gate.
      for (int u = (int)ov_thread_x(); u < n; u += (int)ov_block_dim_x()) {
        float sums[1];
        multiply<2, 1>(sums, kept, w, n, u);
        const float update = next[u];
        const float v = (1.0f - update) * applied(g, d, 1, sums[0] + products[2 * n + u]) + update * state[u];
        next[u] = v;
        y[row * n + u] = v;
      }
      ov_block_sync();
    }
    float* const old = state;
    state = next;
    next = old;
  }
  ov_grid_launch_dependents();
  for (int u = (int)ov_thread_x(); u < n; u += (int)ov_block_dim_x()) {
    for (int t = length; t < g.length; ++t) y[(((long long)batch * g.length + t) * g.directions + d) * n + u] = 0.0f;
    last_hidden[here + u] = state[u];
    if constexpr (CELL == 0) last_cell[here + u] = cell[u];
  }
}
