// Few rows times constant weights: y[m][n] = finish(x[m][k] w[n][k]). SHARE warps per column of the result, each weight
// read once, 16 bytes at a time; ROWS is m rounded up to a power of two.

typedef OV_T T;
constexpr int ROWS = OV_ROWS, SHARE = OV_SHARE, WARPS = OV_THREADS / 32, VECTOR = 16 / (int)sizeof(T);

struct Gemv {
  int m, n, k, row;
  ov_finish finish;
};

struct Chunk {
  float v[VECTOR];
};

template <class S> OV_DEVICE Chunk widen(ov_u32x4 bits) {
  Chunk c;
  const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
  OV_UNROLL
  for (int i = 0; i < VECTOR; ++i) {
    if constexpr (sizeof(S) == 2) {
      const S half = {(unsigned short)(words[i / 2] >> i % 2 * 16)};
      c.v[i] = ov_f32(half);
    } else {
      c.v[i] = ov_bits_float(words[i]);
    }
  }
  return c;
}

OV_KERNEL_BOUNDS(OV_THREADS, 2) gemv(const T* x, const T* w, T* y, const float* bias, const T* residual, Gemv g) {
  OV_SHARED(float, parts, WARPS * ROWS);
  const int warp = (int)ov_warp(), part = warp % SHARE, lane = (int)ov_lane();
  const int column = (int)ov_block_x() * (WARPS / SHARE) + warp / SHARE;
  const bool inside = column < g.n;
  const T* weights = w + (long long)(inside ? column : 0) * g.row;
  const int first = (part * 32 + lane) * VECTOR;
  constexpr int STEP = 32 * SHARE * VECTOR;
  // Weights need not wait for the kernel before.
  ov_u32x4 next = {0, 0, 0, 0};
  if (inside && first < g.k) next = ov_load_16_stream(weights + first);
  ov_grid_wait();
  float sums[ROWS];
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) sums[r] = 0.0f;
  const bool whole = g.k % VECTOR == 0;
  for (int k = first; inside && k < g.k; k += STEP) {
    const Chunk c = widen<T>(next);
    if (k + STEP < g.k) next = ov_load_16_stream(weights + k + STEP);
    OV_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      if (r >= g.m) continue;
      const T* from = x + (long long)r * g.k + k;
      if (whole) {
        const Chunk v = widen<T>(ov_load_16(from));
        OV_UNROLL
        for (int i = 0; i < VECTOR; ++i) sums[r] += c.v[i] * v.v[i];
      } else {
        OV_UNROLL
        for (int i = 0; i < VECTOR; ++i)
          if (k + i < g.k) sums[r] += c.v[i] * ov_f32(from[i]);
      }
    }
  }
  ov_grid_launch_dependents();
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) sums[r] = ov_warp_sum(sums[r]);
  if constexpr (SHARE > 1) {
    if (lane == 0) {
      OV_UNROLL
      for (int r = 0; r < ROWS; ++r) parts[warp * ROWS + r] = sums[r];
    }
    ov_block_sync();
    if (part == 0) {
      OV_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        OV_UNROLL
        for (int other = 1; other < SHARE; ++other) sums[r] += parts[(warp + other) * ROWS + r];
      }
    }
  }
  if (part != 0 || !inside) return;
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    if (lane != r || r >= g.m) continue;
    const long long at = (long long)r * g.n + column;
    y[at] = ov_from_f32<T>(ov_finished<OV_ACTIVATION>(sums[r], bias, column, residual, at, g.finish));
  }
}
