// Padding: each output place shows a place of the input, found axis by axis, or a value. T is an opaque type.

typedef OV_ELEMENT T;

enum { CONSTANT, EDGE, REFLECT, SYMMETRIC, WRAP };

struct Pad {
  unsigned count, rank;
  ov_divisor places[OV_MAX_RANK];
  int extents[OV_MAX_RANK], begins[OV_MAX_RANK], strides[OV_MAX_RANK];
};

OV_DEVICE int modulo(int a, int n) {
  const int r = a % n;
  return r < 0 ? r + n : r;
}

// The place that stands for place `at` of an axis of `n`; -1: none.
OV_DEVICE int shown(int at, int n) {
  if (at >= 0 && at < n) return at;
  switch (OV_MODE) {
    case EDGE: return at < 0 ? 0 : n - 1;
    case REFLECT: {
      if (n == 1) return 0;
      const int r = modulo(at, 2 * (n - 1));
      return ov_min(r, 2 * (n - 1) - r);
    }
    case SYMMETRIC: {
      const int r = modulo(at, 2 * n);
      return ov_min(r, 2 * n - 1 - r);
    }
    case WRAP: return modulo(at, n);
    default: return -1;
  }
}

// `filled`: whether there is a value at `value`; else padding is 0.
OV_KERNEL pad(const T* x, const T* value, T* y, Pad p, int filled) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < p.count) {
    unsigned rest = i;
    int from = 0;
    bool inside = true;
    for (int axis = (int)p.rank - 1; axis >= 0; --axis) {
      const int at = shown((int)ov_innermost(p.places[axis], rest) - p.begins[axis], p.extents[axis]);
      inside = inside && at >= 0;
      from += at * p.strides[axis];
    }
    T result = {};
    if (inside) {
      result = x[from];
    } else if (filled) {
      result = *value;
    }
    y[i] = result;
  }
}
