// Tensors made of little. T is the storage type, J that of indices.

typedef OV_ELEMENT T;
typedef OV_INDEX J;

OV_KERNEL range_integers(T* y, unsigned count, long long start, long long step) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < count) {
    const long long v = (long long)((unsigned long long)start + (unsigned long long)i * (unsigned long long)step);
    ov_store(y + i, ov_convert<ov_compute<T>>(v));
  }
}

OV_KERNEL range_reals(T* y, unsigned count, double start, double step) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  // Product and sum are rounded on their own.
  if (i < count) ov_store(y + i, ov_convert<ov_compute<T>>(ov_add_rn(start, ov_mul_rn((double)i, step))));
}

struct Matrices {
  unsigned count;
  ov_divisor columns, rows;
  long long diagonal;
};

OV_KERNEL eye(T* y, Matrices m) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < m.count) {
    unsigned rest = i;
    const long long column = ov_innermost(m.columns, rest), row = ov_innermost(m.rows, rest);
    ov_store(y + i, (ov_compute<T>)(column - row == m.diagonal));
  }
}

OV_KERNEL triangle(const T* x, T* y, Matrices m, int upper) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < m.count) {
    unsigned rest = i;
    const long long column = ov_innermost(m.columns, rest), row = ov_innermost(m.rows, rest);
    T value = {};
    if (upper ? column - row >= m.diagonal : column - row <= m.diagonal) value = x[i];
    y[i] = value;
  }
}

struct OneHot {
  unsigned count;
  ov_divisor inner, depth;
  int from_end;
};

OV_KERNEL one_hot(const J* indices, const T* on, const T* off, T* y, OneHot o) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < o.count) {
    unsigned rest = i;
    const unsigned inner = ov_innermost(o.inner, rest), at = ov_innermost(o.depth, rest);
    long long index = (long long)indices[rest * o.inner.value + inner];
    if (o.from_end && index < 0) index += o.depth.value;
    y[i] = index == (long long)at ? *on : *off;
  }
}
