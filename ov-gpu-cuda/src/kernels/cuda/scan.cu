// Running sums and products along an axis. X is the storage type, A what is accumulated in.

typedef OV_X X;
typedef OV_A A;

struct Scan {
  // First element of every line.
  ov_walk<1> lines;
  unsigned extent;
  int stride, exclusive, reverse;
};

OV_DEVICE A joined(A a, A b) { return OV_JOIN(a, b); }

OV_DEVICE long long place(const Scan& s, int line, unsigned i) {
  return line + (long long)(s.reverse ? s.extent - 1 - i : i) * s.stride;
}

// One thread per line.
OV_KERNEL scan_lines(const X* x, X* y, Scan s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < s.lines.count) {
    int line;
    s.lines.locate(i, &line);
    A total = (A)OV_INITIAL;
    for (unsigned k = 0; k < s.extent; ++k) {
      const long long at = place(s, line, k);
      const A next = joined(total, (A)ov_load(x[at]));
      ov_store(y + at, (ov_compute<X>)(s.exclusive ? total : next));
      total = next;
    }
  }
}

// One block of 256 threads per line, which goes along it in tiles (Hillis and Steele, "Data parallel algorithms", 1986).
OV_KERNEL scan_long(const X* x, X* y, Scan s) {
  OV_SHARED(A, sums, 256);
  ov_grid_wait();
  ov_grid_launch_dependents();
  int line;
  s.lines.locate(ov_block_x(), &line);
  const unsigned t = ov_thread_x();
  A carry = (A)OV_INITIAL;
  for (unsigned tile = 0; tile < s.extent; tile += 256) {
    const bool inside = tile + t < s.extent;
    const long long at = place(s, line, inside ? tile + t : 0);
    A sum = inside ? (A)ov_load(x[at]) : (A)OV_INITIAL;
    for (unsigned by = 1; by < 256; by *= 2) {
      sums[t] = sum;
      ov_block_sync();
      if (t >= by) sum = joined(sums[t - by], sum);
      ov_block_sync();
    }
    sums[t] = sum;
    ov_block_sync();
    const A result = s.exclusive ? (t > 0 ? joined(carry, sums[t - 1]) : carry) : joined(carry, sum);
    if (inside) ov_store(y + at, (ov_compute<X>)result);
    carry = joined(carry, sums[255]);
    ov_block_sync();
  }
}
