// Copies of elements of one size that are not looked at.

typedef OV_ELEMENT T;

// One thread per element: walk operand 0 is the input, 1 the output.
OV_KERNEL copy_strided(const T* from, T* to, ov_walk<2> walk, long long from_offset, long long to_offset) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < walk.count) {
    int at[2];
    walk.locate(i, at);
    to[to_offset + at[1]] = from[from_offset + at[0]];
  }
}

struct Tiles {
  ov_divisor across, down;
  unsigned rows, columns;
  // Of a column in the input, and of a row in the output.
  int from_column, to_row;
};

// One block per tile of 32 × 32: rows are neighbours in the input, columns in the output.
OV_KERNEL copy_transposed(const T* from, T* to, ov_walk<2> outer, Tiles tiles, long long from_offset,
                          long long to_offset) {
  OV_SHARED(T, tile, 32 * 33);
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned across = tiles.across.divide(ov_block_x());
  const unsigned column = (ov_block_x() - across * tiles.across.value) * 32;
  const unsigned down = tiles.down.divide(across);
  const unsigned row = (across - down * tiles.down.value) * 32;
  int at[2];
  outer.locate(down, at);
  const T* source = from + from_offset + at[0];
  T* target = to + to_offset + at[1];
  for (unsigned k = ov_thread_y(); k < 32; k += 8) {
    const unsigned r = row + ov_thread_x(), c = column + k;
    if (r < tiles.rows && c < tiles.columns) tile[k * 33 + ov_thread_x()] = source[r + (long long)c * tiles.from_column];
  }
  ov_block_sync();
  for (unsigned k = ov_thread_y(); k < 32; k += 8) {
    const unsigned r = row + k, c = column + ov_thread_x();
    if (r < tiles.rows && c < tiles.columns) target[(long long)r * tiles.to_row + c] = tile[ov_thread_x() * 33 + k];
  }
}

// Rows of a part of a tensor: units of a row, units from row to row, and the first one, on both sides.
struct Part {
  unsigned count;
  ov_divisor run;
  int from_row, to_row, from_first, to_first;
};

struct Parts {
  Part part[8];
};

// Blocks (x, part).
OV_KERNEL copy_parts(const T* f0, const T* f1, const T* f2, const T* f3, const T* f4, const T* f5, const T* f6, const T* f7,
                     T* t0, T* t1, T* t2, T* t3, T* t4, T* t5, T* t6, T* t7, Parts parts) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned k = ov_block_y(), i = ov_global_thread();
  const Part& p = parts.part[k];
  if (i < p.count) {
    const T* from = k < 4 ? (k < 2 ? (k == 0 ? f0 : f1) : (k == 2 ? f2 : f3))
                          : (k < 6 ? (k == 4 ? f4 : f5) : (k == 6 ? f6 : f7));
    T* to = k < 4 ? (k < 2 ? (k == 0 ? t0 : t1) : (k == 2 ? t2 : t3))
                  : (k < 6 ? (k == 4 ? t4 : t5) : (k == 6 ? t6 : t7));
    const unsigned row = p.run.divide(i), at = i - row * p.run.value;
    to[p.to_first + (long long)row * p.to_row + at] = from[p.from_first + (long long)row * p.from_row + at];
  }
}
