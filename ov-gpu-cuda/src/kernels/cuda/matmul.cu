// Products of any numbers, a thread per element of the result; integers wrap.

typedef OV_T T;

template <class V> struct Sum {
  typedef unsigned long long type;
};
template <> struct Sum<double> {
  typedef double type;
};

struct Matmul {
  int m, n, k, count;
  // From row to row and from column to column, in elements.
  long long a_row, a_column, b_row, b_column;
  // Extents of the batch, the last axis fastest, and from one product to the next along each of its axes.
  int batch[4];
  long long a_batch[4], b_batch[4];
};

OV_KERNEL_BOUNDS(128, 4) matmul(const T* a, const T* b, T* y, Matmul p) {
  const int i = (int)ov_global_thread();
  ov_grid_wait();
  if (i < p.count) {
    const int line = i / p.n, column = i - line * p.n;
    int batch = line / p.m;
    const int row = line - batch * p.m;
    OV_UNROLL
    for (int axis = 3; axis >= 0; --axis) {
      const int next = batch / p.batch[axis], at = batch - next * p.batch[axis];
      a += at * p.a_batch[axis];
      b += at * p.b_batch[axis];
      batch = next;
    }
    typedef Sum<T>::type S;
    S sum = 0;
    for (int k = 0; k < p.k; ++k) {
      sum += (S)a[row * p.a_row + k * p.a_column] * (S)b[k * p.b_row + column * p.b_column];
    }
    y[i] = (T)sum;
  }
  ov_grid_launch_dependents();
}
