// Products of matrices, y = finish(a b): tiles of BM × BN per block, slices of BK through shared memory in STAGES buffers.
// The k of a product may be shared by several blocks; the last of them to end adds what the others left. With OV_CONV, a
// is the image of a convolution: a row per output place, a column per filter tap and channel (implicit GEMM); with 2, of a
// transposed one, where taps fall between the places of the input unless the step divides their distance.
//
// Storage T. A_TURNED: a is [k][m], else [m][k]. B_TURNED: b is [n][k], else [k][n]. A_VECTOR and B_VECTOR: elements per
// copy, 16 bytes of them or 1. f16 and bf16 use tensor cores, f32 multiplies in f32.
//
// With OV_INTEGER, T is of bytes, b of signed ones and [n][k], and sums are exact: integer.cuh says what becomes of them.
// With OV_SHIFTED, what was taken from the weights of a column so that they fit counts times the sum of the row.

typedef OV_T T;
#if OV_INTEGER
typedef signed char W;
typedef OV_Y Y;
typedef int Sum;
typedef float Residual;
#else
typedef T W, Y, Residual;
typedef float Sum;
#define OV_SHIFTED 0
#endif
constexpr int BM = OV_BM, BN = OV_BN, BK = OV_BK, STAGES = OV_STAGES, WARPS_M = OV_WARPS_M, WARPS_N = OV_WARPS_N;
constexpr bool A_TURNED = OV_A_TURNED, B_TURNED = OV_B_TURNED, B_CONSTANT = OV_B_CONSTANT;
constexpr int A_VECTOR = OV_A_VECTOR, B_VECTOR = OV_B_VECTOR;
constexpr int THREADS = 32 * WARPS_M * WARPS_N, PAD = 16 / (int)sizeof(T);
constexpr bool TENSOR = sizeof(T) <= 2, BYTES = sizeof(T) == 1;
static_assert(!BYTES || (!A_TURNED && B_TURNED), "bytes lie along k");

constexpr int A_LD = (A_TURNED ? BM : BK) + PAD, B_LD = (B_TURNED ? BK : BN) + PAD;
constexpr int A_TILE = (A_TURNED ? BK : BM) * A_LD, B_TILE = (B_TURNED ? BN : BK) * B_LD;

// A warp's part of the tile on tensor cores; a thread's part without them.
constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, FRAGMENTS_M = TENSOR ? WM / 16 : 1, FRAGMENTS_N = TENSOR ? WN / 16 : 1;
constexpr int ACROSS = 16, DOWN = THREADS / ACROSS, TM = TENSOR ? 1 : BM / DOWN, TN = TENSOR ? 1 : BN / ACROSS;
constexpr int SUMS = TENSOR ? WM / 16 * (WN / 8) * 4 : TM * TN;

struct Product {
  int m, n, k;
  // Slices of k per block, and blocks that share a tile.
  int slices, shares;
  // From the bias of one product to the next, in elements.
  int bias_batch;
  // From row to row, and from one result to the next, in elements.
  long long a_row, b_row, y_row, y_batch;
  // Extents of the batch, the last axis fastest, and from one product to the next along each of its axes.
  int batch[4];
  long long a_batch[4], b_batch[4];
  ov_finish finish;
  // From the scale of a column to the next: 0 where all have one.
  int scale_step;
};

#if OV_CONV
struct Image {
  // Input, output, filter; the steps between filter taps and between windows, and the padding before: depth, height, width.
  int in[3], out[3], kernel[3], dilation[3], stride[3], pad[3];
  int channels, unused;
  // From one image, channel, place to the next, in elements.
  long long image, channel, at[3];
};
#endif

template <int vector, class E> OV_DEVICE void copy_some(E* to, const E* from, const E* any, int left) {
  const int some = left < 0 ? 0 : left < vector ? left : vector;
  if constexpr (vector * sizeof(E) == 16) {
    ov_copy_16(to, some ? from : any, some * (unsigned)sizeof(E));
  } else if constexpr (vector * sizeof(E) == 8) {
    ov_copy_8(to, some ? from : any, some * (unsigned)sizeof(E));
  } else if constexpr (vector * sizeof(E) == 4) {
    ov_copy_4(to, some ? from : any, some * (unsigned)sizeof(E));
  } else {
    static_assert(vector == 1, "copies of 4, 8 or 16 bytes, or of one element");
    *to = some ? *from : E();
  }
}

// The column of b that row r of its tile holds. The sums of bytes that a thread has in a row then are side by side.
OV_DEVICE int column_in(int r) {
  if constexpr (BYTES) return r / WN * WN + r % 8 / 2 * (WN / 4) + r % WN / 8 * 2 + r % 2;
  return r;
}

// ROWS × COLUMNS of a matrix whose columns lie side by side; zeros beyond `rows` and `columns`.
template <int ROWS, int COLUMNS, int vector, bool of_b, class E>
OV_DEVICE void copy_tile(E* shared, const E* from, long long row, int rows, int columns) {
  constexpr int CHUNKS = COLUMNS / vector;
  OV_UNROLL
  for (int i = (int)ov_thread_x(); i < ROWS * CHUNKS; i += THREADS) {
    const int r = i / CHUNKS, c = i % CHUNKS * vector;
    const int source = of_b && B_TURNED ? column_in(r) : r;
    copy_some<vector>(shared + r * (COLUMNS + PAD) + c, from + source * row + c, from, source < rows ? columns - c : 0);
  }
}

OV_DEVICE void load_b(W* shared, const W* b, const Product& p, int column, int k) {
  if constexpr (B_TURNED) {
    copy_tile<BN, BK, B_VECTOR, true>(shared, b + column * p.b_row + k, p.b_row, p.n - column, p.k - k);
  } else {
    copy_tile<BK, BN, B_VECTOR, true>(shared, b + k * p.b_row + column, p.b_row, p.k - k, p.n - column);
  }
}

#if OV_CONV
// Where the window of a row of the tile begins; the image is negative beyond the last row.
struct Place {
  int image, at[3];
};

// Beside the image there is `zero`.
OV_DEVICE void load_image(T* shared, const T* a, const Product& p, const Image& g, const Place* places, int k, int zero) {
  constexpr int CHUNKS = BK / A_VECTOR, STEP = THREADS / CHUNKS;
  static_assert(THREADS % CHUNKS == 0, "a thread stays in its columns");
  const int c = (int)ov_thread_x() % CHUNKS * A_VECTOR, column = k + c;
  const int tap = column / g.channels, channel = column - tap * g.channels;
  const int down = tap / g.kernel[2], x = tap - down * g.kernel[2];
  const int z = down / g.kernel[1], y = down - z * g.kernel[1];
  constexpr int SIGN = OV_CONV == 2 ? -1 : 1;
  const int shift[3] = {SIGN * z * g.dilation[0], SIGN * y * g.dilation[1], SIGN * x * g.dilation[2]};
  OV_UNROLL
  for (int r = (int)ov_thread_x() / CHUNKS; r < BM; r += STEP) {
    const Place place = places[r];
    bool inside = place.image >= 0 && column < p.k;
    long long from = place.image * g.image + channel * g.channel;
    OV_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      int at = place.at[axis] + shift[axis];
      if (OV_CONV == 2) {
        inside = inside && at % g.stride[axis] == 0;
        at /= g.stride[axis];
      }
      inside = inside && at >= 0 && at < g.in[axis];
      from += at * g.at[axis];
    }
    T* const to = shared + r * A_LD + c;
#if OV_INTEGER
    if (!inside && zero && column < p.k) {
      T fill[A_VECTOR];
      OV_UNROLL
      for (int e = 0; e < A_VECTOR; ++e) fill[e] = (T)zero;
      ov_store_run(to, 0, fill, A_VECTOR);
      continue;
    }
#endif
    copy_some<A_VECTOR>(to, a + from, a, inside ? A_VECTOR : 0);
  }
}
#endif

OV_DEVICE void load_a(T* shared, const T* a, const Product& p, int row, int k) {
  if constexpr (A_TURNED) {
    copy_tile<BK, BM, A_VECTOR, false>(shared, a + k * p.a_row + row, p.a_row, p.k - k, p.m - row);
  } else {
    copy_tile<BM, BK, A_VECTOR, false>(shared, a + row * p.a_row + k, p.a_row, p.m - row, p.k - k);
  }
}

template <class S> OV_DEVICE void store_two(S* to, float v, float w) {
  if constexpr (sizeof(S) == 2) ov_store_4(to, ov_storage<S>::pack(v, w));
}

// Row and column in the tile of a thread's sum.
OV_DEVICE int row_of(int sum) {
  if constexpr (TENSOR) {
    const int warp = (int)ov_warp() / WARPS_N, lane = (int)ov_lane();
    return warp * WM + sum / (WN / 8 * 4) * 16 + lane / 4 + sum / 2 % 2 * 8;
  }
  return (int)ov_thread_x() / ACROSS + sum / TN * DOWN;
}
OV_DEVICE int column_of(int sum) {
  if constexpr (TENSOR) {
    const int warp = (int)ov_warp() % WARPS_N, lane = (int)ov_lane();
    return warp * WN + column_in(sum / 4 % (WN / 8) * 8 + lane % 4 * 2 + sum % 2);
  }
  return (int)ov_thread_x() % ACROSS + sum % TN * ACROSS;
}

// `rows`: sums of bytes of a, of the rows that the sums of a thread are in.
template <class S, class R> OV_DEVICE void multiply(Sum (&sums)[SUMS], int (&rows)[2 * FRAGMENTS_M], const S* a, const R* b) {
  if constexpr (sizeof(S) <= 2) {
    const int lane = (int)ov_lane(), part = lane / 8, line = lane % 8;
    const int row = (int)ov_warp() / WARPS_N * WM, column = (int)ov_warp() % WARPS_N * WN;
    OV_UNROLL
    for (int k = 0; k < BK; k += 2 * PAD) {
      unsigned left[FRAGMENTS_M][4], right[FRAGMENTS_N][4];
      OV_UNROLL
      for (int i = 0; i < WM / 16; ++i) {
        if constexpr (A_TURNED) {
          ov_load_matrix_4_transposed(left[i], a + (k + line + part / 2 * 8) * A_LD + row + i * 16 + part % 2 * 8);
        } else {
          ov_load_matrix_4(left[i], a + (row + i * 16 + line + part % 2 * 8) * A_LD + k + part / 2 * PAD);
        }
      }
      OV_UNROLL
      for (int j = 0; j < WN / 16; ++j) {
        if constexpr (B_TURNED) {
          ov_load_matrix_4(right[j], b + (column + j * 16 + line + part / 2 * 8) * B_LD + k + part % 2 * PAD);
        } else {
          ov_load_matrix_4_transposed(right[j], b + (k + line + part % 2 * 8) * B_LD + column + j * 16 + part / 2 * 8);
        }
      }
      OV_UNROLL
      for (int i = 0; i < WM / 16; ++i) {
        OV_UNROLL
        for (int j = 0; j < WN / 8; ++j) {
          const unsigned two[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
          Sum(&d)[4] = *(Sum(*)[4])(sums + (i * (WN / 8) + j) * 4);
          ov_storage<S>::mma(d, left[i], two);
        }
#if OV_SHIFTED
        OV_UNROLL
        for (int part = 0; part < 4; ++part)
          rows[2 * i + part % 2] = ov_storage<S>::dot(left[i][part], 0x01010101u, rows[2 * i + part % 2]);
#endif
      }
    }
  } else {
    const int row = (int)ov_thread_x() / ACROSS, column = (int)ov_thread_x() % ACROSS;
    OV_UNROLL
    for (int k = 0; k < BK; k += 4) {
      float left[TM][4], right[TN][4];
      OV_UNROLL
      for (int i = 0; i < TM; ++i) {
        OV_UNROLL
        for (int e = 0; e < 4; ++e) {
          left[i][e] = A_TURNED ? a[(k + e) * A_LD + row + i * DOWN] : a[(row + i * DOWN) * A_LD + k + e];
        }
      }
      OV_UNROLL
      for (int j = 0; j < TN; ++j) {
        OV_UNROLL
        for (int e = 0; e < 4; ++e) {
          right[j][e] = B_TURNED ? b[(column + j * ACROSS) * B_LD + k + e] : b[(k + e) * B_LD + column + j * ACROSS];
        }
      }
      OV_UNROLL
      for (int e = 0; e < 4; ++e) {
        OV_UNROLL
        for (int i = 0; i < TM; ++i) {
          OV_UNROLL
          for (int j = 0; j < TN; ++j) sums[i * TN + j] += left[i][e] * right[j][e];
        }
      }
    }
  }
}

// Sums of all blocks that share the tile, in the order of their parts of k; false unless this block is the last to come.
OV_DEVICE bool gather(Sum (&sums)[SUMS], Sum* parts, int* counters, const Product& p) {
  const long long tile = (long long)ov_block_z() * ov_grid_dim_x() + ov_block_x();
  Sum* mine = parts + (tile * p.shares + ov_block_y()) * (SUMS * THREADS) + ov_thread_x();
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) mine[i * THREADS] = sums[i];
  if (!ov_last_to_come(counters + tile, p.shares)) return false;
  const Sum* all = parts + tile * p.shares * (SUMS * THREADS) + ov_thread_x();
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) sums[i] = 0;
  for (int share = 0; share < p.shares; ++share) {
    OV_UNROLL
    for (int i = 0; i < SUMS; ++i) sums[i] += ov_load_uncached(all + (share * SUMS + i) * THREADS);
  }
  return true;
}

#if OV_INTEGER
// What becomes of sums of bytes; `column_sums`: of the weights.
struct Bytes {
  const T* x_zero;
  const int* column_sums;
  const float *scale, *factor, *y_scale;
  const Y* y_zero;
};

OV_DEVICE void unshift(Sum (&sums)[SUMS], int (&rows)[2 * FRAGMENTS_M], const int* shifts, int left) {
  OV_UNROLL
  for (int i = 0; i < 2 * FRAGMENTS_M; ++i) {
    rows[i] += ov_shfl_xor(rows[i], 1);
    rows[i] += ov_shfl_xor(rows[i], 2);
  }
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) {
    const int c = column_of(i);
    if (c < left) sums[i] += shifts[c] * rows[i / (WN / 8 * 4) * 2 + i / 2 % 2];
  }
}

OV_DEVICE void store_bytes(const Sum (&sums)[SUMS], const Bytes& q, Y* y, const float* bias, const float* residual,
                           long long y_at, int row, int column, const Product& p) {
  constexpr int RUN = WN / 4;
  const ov_target<Y> target(q.y_scale, q.y_zero);
  const ov_scale scales(q.scale, p.scale_step, q.factor);
  const int zero = ov_zero_of(q.x_zero);
  OV_UNROLL
  for (int i = 0; i < 2 * FRAGMENTS_M; ++i) {
    const int first = i / 2 * (WN / 8 * 4) + i % 2 * 2;
    const int r = row + row_of(first), c = column + column_of(first);
    if (r >= p.m || c >= p.n) continue;
    const long long at = y_at + r * p.y_row + c;
    Y run[RUN];
    OV_UNROLL
    for (int e = 0; e < RUN; ++e) {
      if (c + e >= p.n) continue;
      const int sum = sums[first + e / 2 * 4 + e % 2] - zero * q.column_sums[c + e];
      run[e] = target.of(ov_scaled<OV_ACTIVATION>(sum, scales, bias, c + e, residual, at + e, p.finish));
    }
    ov_store_run(y, at, run, p.n - c);
  }
}
#endif

OV_KERNEL_BOUNDS(OV_THREADS, 1) product(const T* a, const W* b, Y* y, const float* bias, const Residual* residual, Sum* parts, int* counters,
#if OV_INTEGER
                                   const T* x_zero, const int* column_sums, const int* shifts, const float* scale, const float* factor,
                                   const float* y_scale, const Y* y_zero,
#endif
#if OV_CONV
                                   Image g,
#endif
                                   Product p) {
  OV_DYNAMIC_SHARED(memory);
  T* const tiles = (T*)memory;
  const int columns = ov_divide_up(p.n, BN);
  const int row = (int)ov_block_x() / columns * BM, column = (int)ov_block_x() % columns * BN;
  int batch = (int)ov_block_z();
  long long y_at = batch * p.y_batch;
  const long long first_column = (long long)batch * p.bias_batch;
  if (bias) bias += first_column;
  OV_UNROLL
  for (int axis = 3; axis >= 0; --axis) {
    const int next = batch / p.batch[axis], at = batch - next * p.batch[axis];
    a += at * p.a_batch[axis];
    b += at * p.b_batch[axis];
    batch = next;
  }
  const int first = (int)ov_block_y() * p.slices, slices = ov_divide_up(p.k, BK);
  const int count = ov_max(0, ov_min(p.slices, slices - first));

#if OV_CONV
  OV_SHARED(Place, places, BM);
  for (int r = (int)ov_thread_x(); r < BM; r += THREADS) {
    Place place = {-1, {0, 0, 0}};
    int rest = row + r;
    if (rest < p.m) {
      OV_UNROLL
      for (int axis = 2; axis >= 0; --axis) {
        const int next = rest / g.out[axis];
        const int at = rest - next * g.out[axis];
        place.at[axis] = OV_CONV == 2 ? at + g.pad[axis] : at * g.stride[axis] - g.pad[axis];
        rest = next;
      }
      place.image = rest;
    }
    places[r] = place;
  }
  ov_block_sync();
#endif
  int zero = 0;
  const auto fetch_a = [&](int slice) {
    T* to = tiles + slice % STAGES * (A_TILE + B_TILE);
#if OV_CONV
    load_image(to, a, p, g, places, (first + slice) * BK, zero);
#else
    load_a(to, a, p, row, (first + slice) * BK);
#endif
  };
  const auto fetch_b = [&](int slice) { load_b((W*)(tiles + slice % STAGES * (A_TILE + B_TILE) + A_TILE), b, p, column, (first + slice) * BK); };

  // Weights need not wait for the kernel before.
  if (B_CONSTANT) {
    OV_UNROLL
    for (int s = 0; s < STAGES - 1; ++s)
      if (s < count) fetch_b(s);
  }
  ov_grid_wait();
#if OV_INTEGER && OV_CONV
  zero = ov_zero_of(x_zero);
#endif
  OV_UNROLL
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < count) {
      fetch_a(s);
      if (!B_CONSTANT) fetch_b(s);
    }
    ov_copy_commit();
  }
  Sum sums[SUMS];
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) sums[i] = 0;
  int rows[2 * FRAGMENTS_M] = {};
  OV_NO_UNROLL
  for (int slice = 0; slice < count; ++slice) {
    ov_copy_wait<STAGES - 2>();
    ov_block_sync();
    const int next = slice + STAGES - 1;
    if (next < count) {
      fetch_a(next);
      fetch_b(next);
    }
    ov_copy_commit();
    const T* here = tiles + slice % STAGES * (A_TILE + B_TILE);
    multiply(sums, rows, here, (const W*)(here + A_TILE));
  }
  ov_grid_launch_dependents();
#if OV_SHIFTED
  unshift(sums, rows, shifts + first_column + column, p.n - column);
#endif
  if (p.shares > 1 && !gather(sums, parts, counters, p)) return;

#if OV_INTEGER
  const Bytes q = {x_zero, column_sums + first_column, scale + first_column * p.scale_step, factor, y_scale, y_zero};
  store_bytes(sums, q, y, bias, residual, y_at, row, column, p);
#else
  OV_UNROLL
  for (int i = 0; i < SUMS; i += TENSOR ? 2 : 1) {
    const int r = row + row_of(i), c = column + column_of(i);
    if (r >= p.m || c >= p.n) continue;
    const long long at = y_at + r * p.y_row + c;
    const float v = ov_finished<OV_ACTIVATION>(sums[i], bias, c, residual, at, p.finish);
    if constexpr (TENSOR) {
      const bool both = c + 1 < p.n;
      const float w = both ? ov_finished<OV_ACTIVATION>(sums[i + 1], bias, c + 1, residual, at + 1, p.finish) : 0.0f;
      if (both && at % 2 == 0) {
        store_two(y + at, v, w);
      } else {
        y[at] = ov_from_f32<T>(v);
        if (both) y[at + 1] = ov_from_f32<T>(w);
      }
    } else {
      y[at] = ov_from_f32<T>(v);
    }
  }
#endif
}
