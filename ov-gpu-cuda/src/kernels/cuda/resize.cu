// Interpolation. A first launch computes, in double, which elements each place of a resized axis is made of and their
// weights; a second one reads them. X is the storage type, V the type that is computed in.

typedef OV_X X;
typedef OV_V V;

enum {
  HALF_PIXEL,
  PYTORCH_HALF_PIXEL,
  ASYMMETRIC,
  TF_HALF_PIXEL,
  ALIGN_CORNERS,
  ALIGN_CORNERS_SCALED,
  HALF_PIXEL_SYMMETRIC,
  CROP
};
enum { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL, SIMPLE };
enum { NEAREST, LINEAR, CUBIC };

// One axis: `taps` at most for each place; tables begin at these places of the counts and of the taps.
struct Axis {
  double scale, start, end;
  int input, output, taps, counts_at, taps_at, unused;
};

struct Filter {
  double coefficient;
  int coordinates, rounding, kind;
  // Whether a shrinking axis is filtered over all that it merges; whether elements outside have no weight.
  int squeezed, dropped, unused;
};

OV_DEVICE double coordinate(const Filter& f, const Axis& a, double x, bool* inside) {
  const double n = a.input, m = a.output, real = ov_mul_rn(n, a.scale);
  const double half_pixel = (x + 0.5) / a.scale - 0.5;
  *inside = true;
  switch (f.coordinates) {
    case HALF_PIXEL: return half_pixel;
    case PYTORCH_HALF_PIXEL: return a.output > 1 ? half_pixel : 0.0;
    case ASYMMETRIC: return x / a.scale;
    case TF_HALF_PIXEL: return (x + 0.5) / a.scale;
    case ALIGN_CORNERS: return a.output > 1 ? x * (n - 1) / (m - 1) : 0.0;
    case ALIGN_CORNERS_SCALED: return real != 1.0 ? x * (n - 1) / (real - 1) : 0.0;
    case HALF_PIXEL_SYMMETRIC: return ov_add_rn(ov_mul_rn(n / 2, 1 - m / real), half_pixel);
    default: {
      const double at = a.output > 1
                            ? ov_add_rn(ov_mul_rn(a.start, n - 1), x * (a.end - a.start) * (n - 1) / (m - 1))
                            : 0.5 * (a.start + a.end) * (n - 1);
      *inside = at >= 0 && at <= n - 1;
      return at;
    }
  }
}

OV_DEVICE double rounded(const Filter& f, const Axis& a, double x) {
  switch (f.rounding) {
    case PREFER_FLOOR: return ov_ceil(x - 0.5);
    case PREFER_CEIL: return ov_floor(x + 0.5);
    case FLOOR: return ov_floor(x);
    case CEIL: return ov_ceil(x);
    default: return a.scale < 1 ? ov_ceil(x) : ov_floor(x);
  }
}

OV_DEVICE double cubic(double d, double a) {
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

OV_DEVICE int clamped(double v, int last) { return v > 0 ? (v < last ? (int)v : last) : 0; }

struct Axes {
  Axis axis[OV_AXES];
};

// One thread per place of an axis; blocks (x, axis).
OV_KERNEL resize_table(int* counts, int* indices, V* weights, Axes axes, Filter f) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const Axis a = axes.axis[ov_block_y()];
  const int x = (int)ov_global_thread();
  if (x < a.output) {
    bool inside;
    const double at = coordinate(f, a, x, &inside);
    int* index = indices + a.taps_at + (long long)x * a.taps;
    V* weight = weights + a.taps_at + (long long)x * a.taps;
    int count = 0;
    const int last = a.input - 1;
    if (f.kind == NEAREST) {
      if (inside) {
        index[0] = clamped(rounded(f, a, at), last);
        weight[0] = 1;
        count = 1;
      }
    } else if (inside && at - at == 0) {
      const double squeeze = f.squeezed && a.scale < 1 ? a.scale : 1.0;
      const double reach = (f.kind == CUBIC ? 2.0 : 1.0) / squeeze;
      double low = ov_floor(at - reach), high = ov_ceil(at + reach);
      if (f.dropped) {
        low = low > 0 ? low : 0;
        high = high < last ? high : last;
      }
      double sum = 0;
      for (int pass = 0; pass < 2; ++pass) {
        count = 0;
        for (double i = low; i <= high && count < a.taps; i += 1) {
          const double d = ov_fabs(i - at) * squeeze;
          const double w = f.kind == CUBIC ? cubic(d, f.coefficient) : d < 1 ? 1 - d : 0;
          if (w == 0) continue;
          if (pass == 0) {
            sum += w;
          } else {
            index[count] = clamped(i, last);
            weight[count] = (V)(sum != 0 ? w / sum : w);
          }
          ++count;
        }
      }
    }
    counts[a.counts_at + x] = count;
  }
}

struct Resize {
  unsigned count, rank;
  ov_divisor places[OV_MAX_RANK];
  // Of every dimension in the input, and which resized axis it is (-1: none).
  int strides[OV_MAX_RANK], axis[OV_MAX_RANK];
};

struct Taps {
  const int* index;
  const V* weight;
  int count, stride;
};

// The weighted sum over the axes from A on.
template <int A> struct Sum {
  OV_DEVICE static V of(const X* x, const Taps* taps) {
    V sum = 0;
    const Taps& t = taps[A];
    for (int k = 0; k < t.count; ++k) {
      sum += t.weight[k] * Sum<A + 1>::of(x + (long long)t.index[k] * t.stride, taps);
    }
    return sum;
  }
};
template <> struct Sum<OV_AXES> {
  OV_DEVICE static V of(const X* x, const Taps*) { return (V)ov_load(*x); }
};

OV_KERNEL resize(const X* x, X* y, const int* counts, const int* indices, const V* weights, Axes axes, Resize r,
                 double outside) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < r.count) {
    unsigned rest = i;
    long long at = 0;
    Taps taps[OV_AXES];
    bool inside = true;
    for (int d = (int)r.rank - 1; d >= 0; --d) {
      const unsigned here = ov_innermost(r.places[d], rest);
      if (r.axis[d] < 0) {
        at += (long long)here * r.strides[d];
      } else {
        const Axis& a = axes.axis[r.axis[d]];
        const long long first = a.taps_at + (long long)here * a.taps;
        taps[r.axis[d]] = {indices + first, weights + first, counts[a.counts_at + here], r.strides[d]};
        inside = inside && counts[a.counts_at + here] > 0;
      }
    }
    if (!inside) {
      ov_store(y + i, ov_convert<ov_compute<X>>(outside));
    } else if (OV_NEAREST) {
      for (int a = 0; a < OV_AXES; ++a) at += (long long)taps[a].index[0] * taps[a].stride;
      y[i] = x[at];
    } else {
      ov_store(y + i, ov_convert<ov_compute<X>>(Sum<0>::of(x + at, taps)));
    }
  }
}
