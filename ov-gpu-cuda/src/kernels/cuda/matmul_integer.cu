// Products of bytes that are both computed, less their zero points, in i32: tiles of 64 × 64 per block, 4 × 4 sums per
// thread, slices of 32 through shared memory, where four of k lie in a word. Bytes of b are signed there: unsigned ones, and
// their zero points, less 128.

typedef OV_A A;
typedef OV_B B;
constexpr int TILE = 64, SLICE = 32, WORDS = SLICE / 4, LD = WORDS + 1, SIDE = 16, EACH = TILE / SIDE, THREADS = SIDE * SIDE;
constexpr int FLIP = (B)-1 < (B)1 ? 0 : 128;

struct Matmul {
  int m, n, k;
  // From the zero point of a row of a, of a column of b, to the next; from one matrix of zero points to the next.
  int a_zero, b_zero, a_zeros, b_zeros;
  // Extents of the batch, the last axis fastest.
  int batch[4];
  int unused;
  // From one product to the next along each axis, in matrices.
  long long a_batch[4], b_batch[4];
};

// Four neighbours, zeros from `left` on.
OV_DEVICE unsigned load_four(const void* at, int left, bool aligned) {
  if (left <= 0) return 0;
  if (aligned && left >= 4) return ov_load_4(at);
  unsigned word = 0;
  OV_UNROLL
  for (int i = 0; i < 4; ++i)
    if (i < left) word |= (unsigned)((const unsigned char*)at)[i] << 8 * i;
  return word;
}

OV_KERNEL_BOUNDS(256, 2) matmul_integer(const A* a, const B* b, const A* a_zero, const B* b_zero, int* y, Matmul p) {
  OV_SHARED(unsigned, rows, TILE * LD);
  OV_SHARED(unsigned, columns, TILE * LD);
  ov_grid_wait();
  ov_grid_launch_dependents();
  const int tiles = ov_divide_up(p.n, TILE), t = (int)ov_thread_x();
  const int row = (int)ov_block_x() / tiles * TILE, column = (int)ov_block_x() % tiles * TILE;
  long long of_a = 0, of_b = 0;
  int rest = (int)ov_block_z();
  OV_UNROLL
  for (int axis = 3; axis >= 0; --axis) {
    const int next = rest / p.batch[axis], at = rest - next * p.batch[axis];
    of_a += at * p.a_batch[axis];
    of_b += at * p.b_batch[axis];
    rest = next;
  }
  a += of_a * p.m * p.k;
  b += of_b * p.k * p.n;
  const bool a_aligned = p.k % 4 == 0, b_aligned = p.n % 4 == 0;
  const int x = t % SIDE, v = t / SIDE;
  int sums[EACH][EACH] = {}, of_row[EACH] = {}, of_column[EACH] = {};
  for (int k = 0; k < p.k; k += SLICE) {
    OV_UNROLL
    for (int i = t; i < TILE * WORDS; i += THREADS) {
      const int r = i / WORDS, w = i % WORDS;
      const int left = row + r < p.m ? p.k - k - 4 * w : 0;
      rows[r * LD + w] = load_four(a + (long long)(left > 0 ? row + r : 0) * p.k + (left > 0 ? k + 4 * w : 0), left, a_aligned);
    }
    if (t < TILE / 4 * WORDS) {
      // 4 × 4 bytes, turned.
      const int c = t % (TILE / 4) * 4, w = t / (TILE / 4);
      unsigned lines[4];
      OV_UNROLL
      for (int i = 0; i < 4; ++i) {
        const bool there = k + 4 * w + i < p.k && column + c < p.n;
        const B* from = there ? b + (long long)(k + 4 * w + i) * p.n + column + c : b;
        lines[i] = there ? load_four(from, p.n - column - c, b_aligned) ^ (FLIP ? 0x80808080u : 0u) : 0;
      }
      OV_UNROLL
      for (int e = 0; e < 4; ++e) {
        unsigned word = 0;
        OV_UNROLL
        for (int i = 0; i < 4; ++i) word |= (lines[i] >> 8 * e & 255) << 8 * i;
        columns[(c + e) * LD + w] = word;
      }
    }
    ov_block_sync();
    OV_UNROLL
    for (int w = 0; w < WORDS; ++w) {
      unsigned left[EACH], right[EACH];
      OV_UNROLL
      for (int i = 0; i < EACH; ++i) {
        left[i] = rows[(v + i * SIDE) * LD + w];
        right[i] = columns[(x + i * SIDE) * LD + w];
        of_row[i] = ov_storage<A>::dot(left[i], 0x01010101u, of_row[i]);
        of_column[i] = ov_dot_i8_i8(0x01010101u, right[i], of_column[i]);
      }
      OV_UNROLL
      for (int i = 0; i < EACH; ++i) {
        OV_UNROLL
        for (int j = 0; j < EACH; ++j) sums[i][j] = ov_storage<A>::dot(left[i], right[j], sums[i][j]);
      }
    }
    ov_block_sync();
  }
  y += (long long)ov_block_z() * p.m * p.n;
  OV_UNROLL
  for (int i = 0; i < EACH; ++i) {
    const int r = row + v + i * SIDE;
    if (r >= p.m) continue;
    const int za = a_zero ? (int)a_zero[of_a * p.a_zeros + r * p.a_zero] : 0;
    OV_UNROLL
    for (int j = 0; j < EACH; ++j) {
      const int c = column + x + j * SIDE;
      if (c >= p.n) continue;
      const int zb = (b_zero ? (int)b_zero[of_b * p.b_zeros + c * p.b_zero] : 0) - FLIP;
      y[(long long)r * p.n + c] = sums[i][j] - zb * of_row[i] - za * of_column[j] + p.k * za * zb;
    }
  }
}
