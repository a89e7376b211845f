// y = softmax(q kᵀ scale + mask) v without storing scores: a block per 16 queries, a warp per 4 of them, 32 keys at a time
// with the maximum and the sum so far (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
//
// Storage T. MASK: whether there is one, of type M: bytes, of which 0 hides a key, or numbers that are added. CHUNKS: values per key in units of 32.

typedef OV_T T;
typedef OV_M M;
constexpr int ROWS = 4, WARPS = 4, QUERIES = ROWS * WARPS, KEYS = 32, THREADS = 32 * WARPS, CHUNKS = OV_CHUNKS;
constexpr bool MASK = OV_MASK;

struct Attention {
  // Queries, keys, elements of a key and of a value; keys that the mask has.
  int queries, keys, e, ev;
  int masked_keys, causal;
  float scale;
  int tiles;
  // Extents of the batch, the last axis fastest, and from one problem to the next along its axes, in elements.
  int batch[4];
  long long q_batch[4], k_batch[4], v_batch[4], mask_batch[4];
  long long mask_row, mask_column;
};

// A score with its mask, and whether the key is seen.
OV_DEVICE bool masked(float&, unsigned char m) { return m != 0; }
template <class N> OV_DEVICE bool masked(float& score, N m) {
  score += ov_f32(m);
  return true;
}

OV_KERNEL_BOUNDS(128, 2) attention(const T* q, const T* k, const T* v, const M* mask, T* y, Attention p) {
  OV_DYNAMIC_SHARED(memory);
  // Rows of keys begin in different banks.
  const int key_row = p.e + 4 / (int)sizeof(T);
  float* const query = (float*)memory;
  float* const weights = query + QUERIES * p.e;
  T* const key = (T*)(weights + QUERIES * KEYS);
  T* const value = key + KEYS * key_row;
  const int t = (int)ov_thread_x(), lane = (int)ov_lane(), warp = (int)ov_warp();
  int batch = (int)ov_block_x() / p.tiles;
  const int first = ((int)ov_block_x() - batch * p.tiles) * QUERIES;
  y += ((long long)batch * p.queries + first) * p.ev;
  OV_UNROLL
  for (int axis = 3; axis >= 0; --axis) {
    const int next = batch / p.batch[axis], at = batch - next * p.batch[axis];
    q += at * p.q_batch[axis];
    k += at * p.k_batch[axis];
    v += at * p.v_batch[axis];
    if (MASK) mask += at * p.mask_batch[axis];
    batch = next;
  }
  q += (long long)first * p.e;
  ov_grid_wait();
  const int rows = ov_min(QUERIES, p.queries - first);
  for (int i = t; i < QUERIES * p.e; i += THREADS) query[i] = i < rows * p.e ? ov_f32(q[i]) * p.scale : 0.0f;

  float highest[ROWS], total[ROWS], sums[ROWS][CHUNKS];
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    highest[r] = -ov_infinity();
    total[r] = 0.0f;
    OV_UNROLL
    for (int c = 0; c < CHUNKS; ++c) sums[r][c] = 0.0f;
  }
  // Keys behind the last query's own are hidden from all of them.
  const int end = p.causal ? ov_min(p.keys, first + rows) : p.keys;
  for (int start = 0; start < end; start += KEYS) {
    const int some = ov_min(KEYS, p.keys - start);
    ov_block_sync();
    for (int i = t; i < KEYS * p.e; i += THREADS) {
      const int j = i / p.e;
      key[j * key_row + i - j * p.e] = j < some ? k[(long long)start * p.e + i] : T();
    }
    for (int i = t; i < KEYS * p.ev; i += THREADS) value[i] = i < some * p.ev ? v[(long long)start * p.ev + i] : T();
    ov_block_sync();
    float score[ROWS];
    OV_UNROLL
    for (int r = 0; r < ROWS; ++r) score[r] = 0.0f;
    const T* mine = key + lane * key_row;
    for (int e = 0; e < p.e; ++e) {
      const float x = ov_f32(mine[e]);
      OV_UNROLL
      for (int r = 0; r < ROWS; ++r) score[r] += query[(warp * ROWS + r) * p.e + e] * x;
    }
    const int j = start + lane;
    OV_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const int i = first + warp * ROWS + r;
      bool seen = j < p.keys && i < p.queries && (!p.causal || j <= i);
      if constexpr (MASK) {
        seen = seen && j < p.masked_keys;
        if (seen) seen = masked(score[r], mask[i * p.mask_row + j * p.mask_column]);
      }
      const float s = seen ? score[r] : -ov_infinity();
      const float now = ov_fmax(highest[r], ov_warp_max(s));
      const bool none = now == -ov_infinity();
      const float keep = none ? 1.0f : ov_exp(highest[r] - now);
      // NaN is not hidden.
      const float weight = s == -ov_infinity() ? 0.0f : ov_exp(s - (none ? 0.0f : now));
      highest[r] = now;
      total[r] = total[r] * keep + ov_warp_sum(weight);
      weights[(warp * ROWS + r) * KEYS + lane] = weight;
      OV_UNROLL
      for (int c = 0; c < CHUNKS; ++c) sums[r][c] *= keep;
    }
    ov_warp_sync();
    for (int other = 0; other < some; ++other) {
      OV_UNROLL
      for (int c = 0; c < CHUNKS; ++c) {
        const int column = c * 32 + lane;
        const float x = column < p.ev ? ov_f32(value[other * p.ev + column]) : 0.0f;
        OV_UNROLL
        for (int r = 0; r < ROWS; ++r) {
          const float weight = weights[(warp * ROWS + r) * KEYS + other];
          // What is hidden takes no part, whatever it is.
          sums[r][c] += weight == 0.0f ? 0.0f : weight * x;
        }
      }
    }
  }
  ov_grid_launch_dependents();
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    const int row = warp * ROWS + r;
    if (row >= rows) continue;
    const float by = total[r] == 0.0f ? 0.0f : 1.0f / total[r];
    OV_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      const int column = c * 32 + lane;
      if (column < p.ev) y[(long long)row * p.ev + column] = ov_from_f32<T>(sums[r][c] * by);
    }
  }
}
