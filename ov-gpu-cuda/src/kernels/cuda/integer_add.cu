// Sums of two tensors of bytes, quantized: VECTOR elements per thread.

typedef OV_A A;
typedef OV_B B;
typedef OV_Y Y;
constexpr int VECTOR = 16;

struct Add {
  unsigned count;
  float p, q;
};

// What a byte stands for.
struct Real {
  float scale, zero;
  OV_DEVICE float of(int v) const { return ov_mul_rn((float)v - zero, scale); }
};

OV_KERNEL integer_add(const A* a, const float* a_scale, const A* a_zero, const B* b, const float* b_scale, const B* b_zero,
                      const float* y_scale, const Y* y_zero, Y* y, Add n) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned first = ov_global_thread() * VECTOR;
  if (first < n.count) {
    const int count = (int)ov_min(n.count - first, (unsigned)VECTOR);
    A left[VECTOR];
    B right[VECTOR];
    ov_load_run(left, a + first, count);
    ov_load_run(right, b + first, count);
    const Real of_a = {*a_scale, (float)*a_zero}, of_b = {*b_scale, (float)*b_zero};
    const float step = *y_scale, zero = (float)*y_zero;
    Y run[VECTOR];
    OV_UNROLL
    for (int e = 0; e < VECTOR; ++e) {
      const float sum = ov_add_rn(of_a.of(left[e]), of_b.of(right[e]));
      run[e] = ov_stepped<Y>(ov_rint(ov_activate(OV_ACTIVATION, sum, n.p, n.q) / step), zero);
    }
    ov_store_run(y, first, run, count);
  }
}
