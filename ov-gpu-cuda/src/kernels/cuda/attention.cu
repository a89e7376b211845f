// y = softmax(softcap(q kᵀ scale) + mask) v without storing scores: KEYS keys at a time, with the maximum and the sum so far
// (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao, "FlashAttention-2", 2023). A block has
// QUERIES rows: queries, of all heads that share the keys. The keys of a row may be shared by several blocks; the last of them
// to end adds what the others left.
//
// Storage T. MASK: whether there is a mask, of type M: bytes, of which 0 hides a key, or numbers that are added. E and EV:
// elements of a key and of a value, with zeros up to what the tiles need. f16 and bf16 use tensor cores, f32 multiplies in f32.

typedef OV_T T;
typedef OV_M M;
typedef OV_LENGTH Length;
typedef OV_OFFSET Offset;
constexpr int E = OV_E, EV = OV_EV, KEYS = OV_KEYS, STAGES = OV_STAGES, WARPS = OV_WARPS, THREADS = 32 * WARPS;
constexpr int K_VECTOR = OV_K_VECTOR, V_VECTOR = OV_V_VECTOR, PAD = 16 / (int)sizeof(T);
constexpr bool MASK = OV_MASK, SOFTCAP = OV_SOFTCAP, TENSOR = sizeof(T) == 2;
// Rows of a warp; lanes that share a row. A thread has two rows.
constexpr int ROWS = TENSOR ? 16 : 8, SHARING = TENSOR ? 4 : 8, QUERIES = ROWS * WARPS;
constexpr int K_LD = E + PAD, V_LD = EV + PAD, P_LD = KEYS + 4, K_TILE = KEYS * K_LD, V_TILE = KEYS * V_LD;
constexpr int SCORES = 2 * KEYS / SHARING, SUMS = 2 * EV / SHARING;
static_assert(KEYS % 16 == 0 && E % (TENSOR ? 16 : 4) == 0 && EV % (TENSOR ? 16 : 32) == 0, "whole fragments");

struct Attention {
  // Rows of a problem, queries among them (the rest are other heads), keys, elements of a key and of a value, keys that the
  // mask has.
  int rows, queries, keys, e, ev, masked_keys;
  // Whether a query sees no keys after its own; keys before and after its own that it sees, or -1.
  int causal, left, right;
  // Whether a score of 0 without a value takes part.
  int smooth;
  float scale, softcap;
  // Blocks of rows, parts of a value, blocks that share the keys; problems of a sample.
  int tiles, parts, shares, per_sample;
  // From sample to sample in lengths and offsets: 0 or 1.
  int length_step, offset_step;
  // Extents of the batch, the last axis fastest, and from one problem to the next along its axes, in elements.
  int batch[4];
  long long q_batch[4], k_batch[4], v_batch[4], mask_batch[4];
  // From head to head among those that share keys, from query to query, from key to key.
  long long mask_head, mask_row, mask_column;
};

// What a row sees: keys from `first` up to `last`.
struct Seen {
  int first, last;
};

OV_DEVICE Seen seen_from(const Attention& p, int position, int keys) {
  Seen seen = {0, keys - 1};
  if (p.causal) seen.last = ov_min(seen.last, position);
  if (p.right >= 0) seen.last = ov_min(seen.last, position + p.right);
  if (p.left >= 0) seen.first = ov_max(0, position - p.left);
  return seen;
}

// A score with its mask.
OV_DEVICE float masked(float score, unsigned char m) { return m ? score : -ov_infinity(); }
template <class N> OV_DEVICE float masked(float score, N m) { return score + ov_f32(m); }

OV_DEVICE float exponential(float v) { return TENSOR ? ov_fast_exp2(v * 1.44269504f) : ov_exp(v); }

// Over the lanes that share a row.
OV_DEVICE float shared_max(float v) {
  OV_UNROLL
  for (int mask = 1; mask < SHARING; mask *= 2) v = ov_fmax(v, ov_shfl_xor(v, mask));
  return v;
}
OV_DEVICE float shared_sum(float v) {
  OV_UNROLL
  for (int mask = 1; mask < SHARING; mask *= 2) v += ov_shfl_xor(v, mask);
  return v;
}

// COUNT × COLUMNS of a matrix with rows of `row` elements, of which `columns` are there; zeros beyond them and `rows`.
template <int COUNT, int COLUMNS, int vector>
OV_DEVICE void copy_rows(T* shared, const T* from, long long row, int rows, int columns) {
  constexpr int CHUNKS = COLUMNS / vector;
  for (int i = (int)ov_thread_x(); i < COUNT * CHUNKS; i += THREADS) {
    const int r = i / CHUNKS, c = i % CHUNKS * vector;
    const int left = r < rows ? columns - c : 0, some = left < 0 ? 0 : left < vector ? left : vector;
    const T* at = some ? from + r * row + c : from;
    T* to = shared + r * (COLUMNS + PAD) + c;
    if constexpr (vector * sizeof(T) == 16) {
      ov_copy_16(to, at, some * (unsigned)sizeof(T));
    } else if constexpr (sizeof(T) == 4) {
      ov_copy_4(to, at, some * 4u);
    } else {
      *to = some ? *at : T();
    }
  }
}

// Which of a thread's two rows a score or a sum is of; its key or column.
template <int COUNT> OV_DEVICE constexpr int row_of(int i) { return TENSOR ? i / 2 % 2 : i / (COUNT / 2); }
OV_DEVICE int key_of(int i) {
  const int lane = (int)ov_lane();
  return TENSOR ? i / 4 * 8 + lane % 4 * 2 + i % 2 : i % (SCORES / 2) * 8 + lane % 8;
}
OV_DEVICE int column_of(int i) {
  const int lane = (int)ov_lane(), x = i % (SUMS / 2);
  return TENSOR ? i / 4 * 8 + lane % 4 * 2 + i % 2 : x / 4 * 32 + lane % 8 * 4 + x % 4;
}
// The row within the warp.
OV_DEVICE int warp_row(int r) { return TENSOR ? (int)ov_lane() / 4 + r * 8 : (int)ov_lane() / 8 * 2 + r; }

template <class S> OV_DEVICE void store_two(S* to, float a, float b) {
  if constexpr (sizeof(S) == 2) {
    ov_store_4(to, ov_storage<S>::pack(a, b));
  } else {
    ov_store_8(to, ov_u32x2{ov_float_bits(a), ov_float_bits(b)});
  }
}

struct Four {
  float v[4];
};
OV_DEVICE Four load_four(const float* from) {
  const ov_u32x4 v = ov_load_16(from);
  return {{ov_bits_float(v.x), ov_bits_float(v.y), ov_bits_float(v.z), ov_bits_float(v.w)}};
}

// scores += q kᵀ
template <class S> OV_DEVICE void multiply_keys(float (&scores)[SCORES], const S* query, const S* key) {
  if constexpr (sizeof(S) == 2) {
    const int lane = (int)ov_lane(), part = lane / 8, line = lane % 8;
    const S* const left_at = query + ((int)ov_warp() * 16 + line + part % 2 * 8) * K_LD + part / 2 * 8;
    const S* const right_at = key + (line + part / 2 * 8) * K_LD + part % 2 * 8;
    // Unrolled whole, long rows spill.
    constexpr int STEPS = E / 16, UNROLLED = 4;
    OV_NO_UNROLL
    for (int begin = 0; begin < STEPS; begin += UNROLLED) {
      OV_UNROLL
      for (int step = 0; step < UNROLLED; ++step) {
        if (STEPS % UNROLLED != 0 && begin + step >= STEPS) break;
        const int k = (begin + step) * 16;
        unsigned left[4], right[4];
        ov_load_matrix_4(left, left_at + k);
        OV_UNROLL
        for (int j = 0; j < KEYS / 16; ++j) {
          ov_load_matrix_4(right, right_at + j * 16 * K_LD + k);
          OV_UNROLL
          for (int half = 0; half < 2; ++half) {
            const unsigned two[2] = {right[half * 2], right[half * 2 + 1]};
            float(&d)[4] = *(float(*)[4])(scores + (j * 2 + half) * 4);
            ov_storage<S>::mma(d, left, two);
          }
        }
      }
    }
  } else {
    const float* const left_at = query + ((int)ov_warp() * ROWS + warp_row(0)) * K_LD;
    const float* const right_at = key + (int)ov_lane() % 8 * K_LD;
    OV_NO_UNROLL
    for (int k = 0; k < E; k += 4) {
      const Four a = load_four(left_at + k), b = load_four(left_at + K_LD + k);
      OV_UNROLL
      for (int j = 0; j < KEYS / 8; ++j) {
        const Four x = load_four(right_at + j * 8 * K_LD + k);
        OV_UNROLL
        for (int c = 0; c < 4; ++c) {
          scores[j] += a.v[c] * x.v[c];
          scores[SCORES / 2 + j] += b.v[c] * x.v[c];
        }
      }
    }
  }
}

// sums += weights v; `room` is the warp's.
template <class S> OV_DEVICE void multiply_values(float (&sums)[SUMS], const float (&weights)[SCORES], const S* value, float* room) {
  if constexpr (sizeof(S) == 2) {
    const int lane = (int)ov_lane(), part = lane / 8, line = lane % 8;
    const S* const right_at = value + (line + part % 2 * 8) * V_LD + part / 2 * 8;
    OV_UNROLL
    for (int k = 0; k < KEYS / 16; ++k) {
      unsigned left[4], right[4];
      OV_UNROLL
      for (int i = 0; i < 4; ++i) left[i] = ov_storage<S>::pack(weights[k * 8 + i * 2], weights[k * 8 + i * 2 + 1]);
      OV_UNROLL
      for (int j = 0; j < EV / 16; ++j) {
        ov_load_matrix_4_transposed(right, right_at + k * 16 * V_LD + j * 16);
        OV_UNROLL
        for (int half = 0; half < 2; ++half) {
          const unsigned two[2] = {right[half * 2], right[half * 2 + 1]};
          float(&d)[4] = *(float(*)[4])(sums + (j * 2 + half) * 4);
          ov_storage<S>::mma(d, left, two);
        }
      }
    }
  } else {
    OV_UNROLL
    for (int i = 0; i < SCORES; ++i) room[warp_row(row_of<SCORES>(i)) * P_LD + key_of(i)] = weights[i];
    ov_warp_sync();
    const float* const left_at = room + warp_row(0) * P_LD;
    const float* const right_at = value + (int)ov_lane() % 8 * 4;
    OV_NO_UNROLL
    for (int k = 0; k < KEYS; k += 4) {
      const Four a = load_four(left_at + k), b = load_four(left_at + P_LD + k);
      OV_UNROLL
      for (int x = 0; x < 4; ++x) {
        OV_UNROLL
        for (int j = 0; j < EV / 32; ++j) {
          const Four y = load_four(right_at + (k + x) * V_LD + j * 32);
          OV_UNROLL
          for (int c = 0; c < 4; ++c) {
            sums[j * 4 + c] += a.v[x] * y.v[c];
            sums[SUMS / 2 + j * 4 + c] += b.v[x] * y.v[c];
          }
        }
      }
    }
  }
}

// What the blocks that share the keys have found, in their order; false unless this block is the last to come.
OV_DEVICE bool gather(float (&sums)[SUMS], float (&highest)[2], float (&total)[2], float* parts, int* counters, const Attention& p) {
  constexpr int COUNT = SUMS + 4;
  const long long tile = ov_block_x();
  float* mine = parts + (tile * p.shares + ov_block_y()) * (COUNT * THREADS) + ov_thread_x();
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) mine[i * THREADS] = sums[i];
  OV_UNROLL
  for (int r = 0; r < 2; ++r) {
    mine[(SUMS + r) * THREADS] = highest[r];
    mine[(SUMS + 2 + r) * THREADS] = total[r];
  }
  if (!ov_last_to_come(counters + tile, p.shares)) return false;
  const float* all = parts + tile * p.shares * (COUNT * THREADS) + ov_thread_x();
  OV_UNROLL
  for (int r = 0; r < 2; ++r) {
    highest[r] = -ov_infinity();
    total[r] = 0.0f;
    for (int share = 0; share < p.shares; ++share) {
      highest[r] = ov_fmax(highest[r], ov_load_uncached(all + (share * COUNT + SUMS + r) * THREADS));
    }
  }
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) sums[i] = 0.0f;
  OV_NO_UNROLL
  for (int share = 0; share < p.shares; ++share) {
    const float* here = all + share * COUNT * THREADS;
    float keep[2];
    OV_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float high = ov_load_uncached(here + (SUMS + r) * THREADS);
      keep[r] = high == -ov_infinity() ? 0.0f : exponential(high - highest[r]);
      total[r] += keep[r] * ov_load_uncached(here + (SUMS + 2 + r) * THREADS);
    }
    OV_UNROLL
    for (int i = 0; i < SUMS; ++i) sums[i] += keep[row_of<SUMS>(i)] * ov_load_uncached(here + i * THREADS);
  }
  return true;
}

OV_KERNEL_BOUNDS(OV_THREADS, 1) attention(const T* q, const T* k, const T* v, const M* mask, const Length* lengths, const Offset* offsets, T* y, float* parts, int* counters, Attention p) {
  OV_DYNAMIC_SHARED(memory);
  T* const query = (T*)memory;
  T* const tiles = query + QUERIES * K_LD;
  float* const room = (float*)(tiles + STAGES * (K_TILE + V_TILE)) + (int)ov_warp() * ROWS * P_LD;
  int rest = (int)ov_block_x();
  const int first = rest % p.tiles * QUERIES;
  rest /= p.tiles;
  const int part = rest % p.parts, problem = rest / p.parts;
  rest = problem;
  y += ((long long)problem * p.rows + first) * p.ev + part * EV;
  OV_UNROLL
  for (int axis = 3; axis >= 0; --axis) {
    const int next = rest / p.batch[axis], at = rest - next * p.batch[axis];
    q += at * p.q_batch[axis];
    k += at * p.k_batch[axis];
    v += at * p.v_batch[axis];
    if (MASK) mask += at * p.mask_batch[axis];
    rest = next;
  }
  q += (long long)first * p.e;
  v += part * EV;
  ov_grid_wait();

  // Keys that are there; the position of the first query.
  const int sample = problem / p.per_sample;
  constexpr long long MOST = 1 << 28;
  int keys = p.keys, before = 0;
  if (lengths) {
    const long long length = ov_max(-MOST, ov_min(MOST, (long long)lengths[sample * p.length_step]));
    keys = (int)ov_max(0ll, ov_min((long long)p.keys, length));
    before = (int)length - p.queries;
  }
  if (offsets) before = (int)ov_max(-MOST, ov_min(MOST, (long long)offsets[sample * p.offset_step]));
  if (MASK) keys = ov_min(keys, p.masked_keys);
  // Keys that some row of the block sees, and those that all see.
  const int rows = ov_min(QUERIES, p.rows - first), final_row = first + rows - 1;
  const bool one_head = first / p.queries == final_row / p.queries;
  const int lowest = one_head ? first % p.queries : 0, greatest = one_head ? final_row % p.queries : p.queries - 1;
  const Seen low = seen_from(p, before + lowest, keys), high = seen_from(p, before + greatest, keys);
  const int begin = low.first / KEYS, end = ov_divide_up(ov_max(0, high.last + 1), KEYS);
  const int slices = ov_divide_up(ov_max(0, end - begin), p.shares);
  const int start = begin + (int)ov_block_y() * slices, count = ov_max(0, ov_min(slices, end - start));

  Seen seen[2];
  const M* mask_at[2] = {mask, mask};
  OV_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int row = first + (int)ov_warp() * ROWS + warp_row(r), head = row / p.queries, i = row - head * p.queries;
    seen[r] = row < p.rows ? seen_from(p, before + i, keys) : Seen{0, -1};
    if (MASK) mask_at[r] += head * p.mask_head + i * p.mask_row;
  }
  const auto fetch = [&](int slice) {
    T* const to = tiles + slice % STAGES * (K_TILE + V_TILE);
    const int at = (start + slice) * KEYS;
    copy_rows<KEYS, E, K_VECTOR>(to, k + (long long)at * p.e, p.e, keys - at, p.e);
    copy_rows<KEYS, EV, V_VECTOR>(to + K_TILE, v + (long long)at * p.ev, p.ev, keys - at, p.ev - part * EV);
  };
  copy_rows<QUERIES, E, K_VECTOR>(query, q, p.e, rows, p.e);
  if (count > 0) fetch(0);
  ov_copy_commit();

  float highest[2] = {-ov_infinity(), -ov_infinity()}, total[2] = {0.0f, 0.0f}, sums[SUMS];
  OV_UNROLL
  for (int i = 0; i < SUMS; ++i) sums[i] = 0.0f;
  OV_NO_UNROLL
  for (int slice = 0; slice < count; ++slice) {
    if constexpr (STAGES == 2) {
      if (slice + 1 < count) fetch(slice + 1);
      ov_copy_commit();
    }
    ov_copy_wait<STAGES - 1>();
    ov_block_sync();
    const T* const here = tiles + slice % STAGES * (K_TILE + V_TILE);
    float scores[SCORES];
    OV_UNROLL
    for (int i = 0; i < SCORES; ++i) scores[i] = 0.0f;
    multiply_keys(scores, query, here);
    const int at = (start + slice) * KEYS;
    // Whether some row of the block does not see some key.
    const bool some = at < high.first || at + KEYS - 1 > low.last;
    float now[2] = {highest[0], highest[1]};
    OV_UNROLL
    for (int i = 0; i < SCORES; ++i) {
      const int r = row_of<SCORES>(i), key = at + key_of(i);
      float score = scores[i] * p.scale;
      if constexpr (SOFTCAP) score = p.softcap * ov_tanh(score / p.softcap);
      if (MASK || some) {
        const bool sees = key >= seen[r].first && key <= seen[r].last;
        if constexpr (MASK) {
          if (sees) score = masked(score, mask_at[r][key * p.mask_column]);
        }
        if (!sees) score = -ov_infinity();
      }
      scores[i] = score;
      now[r] = ov_fmax(now[r], score);
    }
    float keep[2], base[2];
    OV_UNROLL
    for (int r = 0; r < 2; ++r) {
      now[r] = shared_max(now[r]);
      base[r] = now[r] == -ov_infinity() ? 0.0f : now[r];
      keep[r] = exponential(highest[r] - base[r]);
      highest[r] = now[r];
      total[r] *= keep[r];
    }
    OV_UNROLL
    for (int i = 0; i < SCORES; ++i) {
      const int r = row_of<SCORES>(i);
      scores[i] = exponential(scores[i] - base[r]);
      total[r] += scores[i];
    }
    OV_UNROLL
    for (int i = 0; i < SUMS; ++i) sums[i] *= keep[row_of<SUMS>(i)];
    multiply_values(sums, scores, here + K_TILE, room);
    ov_block_sync();
    if constexpr (STAGES == 1) {
      if (slice + 1 < count) fetch(slice + 1);
      ov_copy_commit();
    }
  }
  ov_copy_wait<0>();
  ov_grid_launch_dependents();
  if (p.shares > 1 && !gather(sums, highest, total, parts, counters, p)) return;

  OV_UNROLL
  for (int r = 0; r < 2; ++r) {
    total[r] = shared_sum(total[r]);
    float by = 1.0f;
    if (p.smooth) {
      const float top = ov_fmax(highest[r], 0.0f);
      by = highest[r] == -ov_infinity() ? 0.0f : exponential(highest[r] - top);
      total[r] = total[r] * by + exponential(-top);
    }
    total[r] = total[r] == 0.0f ? 0.0f : by / total[r];
  }
  OV_UNROLL
  for (int i = 0; i < SUMS; i += 2) {
    const int r = row_of<SUMS>(i), row = (int)ov_warp() * ROWS + warp_row(r), column = column_of(i);
    if (row >= rows || column >= p.ev - part * EV) continue;
    const long long at = (long long)row * p.ev + column;
    const float a = sums[i] * total[r], b = sums[i + 1] * total[r];
    if (p.ev % 2 == 0) {
      store_two(y + at, a, b);
    } else {
      y[at] = ov_from_f32<T>(a);
      if (column + 1 < p.ev - part * EV) y[at + 1] = ov_from_f32<T>(b);
    }
  }
}
