// Few rows of bytes times constant weights: y[m][n] = finish(x[m][k] w[n][k]). SHARE warps per column of the result, each
// weight read once, 16 at a time; ROWS is m rounded up to a power of two. With OV_SHIFTED, what was taken from the weights
// of a column so that they fit counts times the sum of the row.

typedef OV_T T;
typedef OV_Y Y;
constexpr int ROWS = OV_ROWS, SHARE = OV_SHARE, WARPS = OV_THREADS / 32, VECTOR = 16, SUMS = OV_SHIFTED ? 2 * ROWS : ROWS;

struct Gemv {
  int m, n, k, row;
  ov_finish finish;
  int scale_step;
};

// 16 elements of a row, zeros beyond `left`.
OV_DEVICE ov_u32x4 load_row(const T* from, int left, bool aligned) {
  if (aligned) return ov_load_16(from);
  unsigned words[4] = {0, 0, 0, 0};
  OV_UNROLL
  for (int i = 0; i < VECTOR; ++i)
    if (i < left) words[i / 4] |= (unsigned)(unsigned char)from[i] << i % 4 * 8;
  return {words[0], words[1], words[2], words[3]};
}

OV_DEVICE int dot(ov_u32x4 a, ov_u32x4 b, int sum) {
  sum = ov_storage<T>::dot(a.x, b.x, sum);
  sum = ov_storage<T>::dot(a.y, b.y, sum);
  sum = ov_storage<T>::dot(a.z, b.z, sum);
  return ov_storage<T>::dot(a.w, b.w, sum);
}

OV_KERNEL_BOUNDS(OV_THREADS, 2) integer_gemv(const T* x, const signed char* w, Y* y, const float* bias, const float* residual,
                                             const T* x_zero, const int* columns, const int* shifts, const float* scale,
                                             const float* factor, const float* y_scale, const Y* y_zero, Gemv g) {
  OV_SHARED(int, parts, WARPS * SUMS);
  const int warp = (int)ov_warp(), part = warp % SHARE, lane = (int)ov_lane();
  const int column = (int)ov_block_x() * (WARPS / SHARE) + warp / SHARE;
  const bool inside = column < g.n;
  const signed char* weights = w + (long long)(inside ? column : 0) * g.row;
  const int first = (part * 32 + lane) * VECTOR;
  constexpr int STEP = 32 * SHARE * VECTOR;
  // Weights need not wait for the kernel before.
  ov_u32x4 next = {0, 0, 0, 0};
  if (inside && first < g.k) next = ov_load_16_stream(weights + first);
  ov_grid_wait();
  int sums[SUMS];
  OV_UNROLL
  for (int r = 0; r < SUMS; ++r) sums[r] = 0;
  const bool whole = g.k % VECTOR == 0;
  for (int k = first; inside && k < g.k; k += STEP) {
    const ov_u32x4 c = next;
    if (k + STEP < g.k) next = ov_load_16_stream(weights + k + STEP);
    OV_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      if (r >= g.m) continue;
      const ov_u32x4 v = load_row(x + (long long)r * g.k + k, g.k - k, whole);
      sums[r] = dot(v, c, sums[r]);
      if constexpr (SUMS > ROWS) {
        constexpr unsigned ONES = 0x01010101u;
        sums[ROWS + r] = dot(v, {ONES, ONES, ONES, ONES}, sums[ROWS + r]);
      }
    }
  }
  ov_grid_launch_dependents();
  OV_UNROLL
  for (int r = 0; r < SUMS; ++r) sums[r] = ov_warp_sum(sums[r]);
  if constexpr (SHARE > 1) {
    if (lane == 0) {
      OV_UNROLL
      for (int r = 0; r < SUMS; ++r) parts[warp * SUMS + r] = sums[r];
    }
    ov_block_sync();
    if (part == 0) {
      OV_UNROLL
      for (int r = 0; r < SUMS; ++r) {
        OV_UNROLL
        for (int other = 1; other < SHARE; ++other) sums[r] += parts[(warp + other) * SUMS + r];
      }
    }
  }
  if (part != 0 || !inside) return;
  const ov_target<Y> target(y_scale, y_zero);
  const ov_scale scales(scale, g.scale_step, factor);
  const int zero = ov_zero_of(x_zero) * columns[column];
  OV_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    if (lane != r || r >= g.m) continue;
    int sum = sums[r] - zero;
    if constexpr (SUMS > ROWS) sum += shifts[column] * sums[ROWS + r];
    const long long at = (long long)r * g.n + column;
    y[at] = target.of(ov_scaled<OV_ACTIVATION>(sum, scales, bias, column, residual, at, g.finish));
  }
}
