// Sampling of images at given positions. X is the storage type of the image, G that of the positions.

typedef OV_X X;
typedef OV_G G;
// Positions are computed in the precision of the grid, half floats in float.
typedef ov_compute<G> P;

enum { BILINEAR, BICUBIC, NEAREST };
enum { ZEROS, BORDER, REFLECTION };

struct Sample {
  unsigned count;
  // Positions of an image, and channels.
  ov_divisor places, channels;
  // Of the image, outermost axis first.
  int extents[3];
};

OV_DEVICE double reflected(double place, int extent) {
  const double edge = OV_CORNERS ? 0.0 : -0.5, low = edge, high = extent - 1.0 - edge, range = high - low;
  if (range <= 0) return 0;
  double far = ov_fmod(place - low, 2 * range);
  if (far < 0) far += 2 * range;
  return low + (far > range ? 2 * range - far : far);
}

// The pixel that stands for pixel `index`; -1: none.
OV_DEVICE int pixel(double index, int extent) {
  const double last = extent - 1.0;
  if (OV_PADDING == ZEROS && (index < 0 || index > last)) return -1;
  if (OV_PADDING == REFLECTION) index = reflected(index, extent);
  return (int)(index < 0 ? 0 : index > last ? last : index);
}

struct Taps {
  int count, index[4];
  double weight[4];
  OV_DEVICE void add(double at, double w, int extent) {
    const int i = pixel(at, extent);
    if (i < 0) return;
    index[count] = i;
    weight[count++] = w;
  }
};

OV_DEVICE Taps taps(P position, int extent) {
  const P d = (P)extent;
  const P from_start = ov_add_rn(position, (P)1);
  double place = OV_CORNERS ? (double)ov_mul_rn(from_start / (P)2, d - (P)1)
                            : (double)(ov_add_rn(ov_mul_rn(from_start, d), (P)-1) / (P)2);
  // Further outside than any filter reaches.
  if (!(place - place == 0)) place = -4;
  const double edge = OV_CORNERS ? 0.0 : -0.5;
  if (OV_MODE == NEAREST) place = ov_rint(place);
  if (place < edge || place > extent - 1.0 - edge) {
    if (OV_PADDING == BORDER && OV_MODE != BICUBIC) {
      place = place < 0 ? 0 : place > extent - 1.0 ? extent - 1.0 : place;
    } else if (OV_PADDING == REFLECTION) {
      place = reflected(place, extent);
    }
  }
  Taps t;
  t.count = 0;
  if (OV_MODE == NEAREST) {
    t.add(place, 1, extent);
    return t;
  }
  const double first = ov_floor(place), f = place - first, g = 1 - f;
  if (OV_MODE == BILINEAR) {
    t.add(first, g, extent);
    t.add(first + 1, f, extent);
  } else {
    t.add(first - 1, ((-0.75 * (f + 1) + 3.75) * (f + 1) - 6) * (f + 1) + 3, extent);
    t.add(first, (1.25 * f - 2.25) * f * f + 1, extent);
    t.add(first + 1, (1.25 * g - 2.25) * g * g + 1, extent);
    t.add(first + 2, ((-0.75 * (g + 1) + 3.75) * (g + 1) - 6) * (g + 1) + 3, extent);
  }
  return t;
}

template <int A> struct Sum {
  OV_DEVICE static double of(const X* x, const Sample& s, const Taps* t) {
    double sum = 0;
    for (int k = 0; k < t[A].count; ++k) {
      long long at = t[A].index[k];
      for (int a = A + 1; a < OV_AXES; ++a) at *= s.extents[a];
      sum += t[A].weight[k] * Sum<A + 1>::of(x + at, s, t);
    }
    return sum;
  }
};
template <> struct Sum<OV_AXES> {
  OV_DEVICE static double of(const X* x, const Sample&, const Taps*) { return (double)ov_load(*x); }
};

OV_KERNEL grid_sample(const X* x, const G* grid, X* y, Sample s) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < s.count) {
    const unsigned plane = s.places.divide(i), place = i - plane * s.places.value;
    const unsigned image = s.channels.divide(plane);
    const G* at = grid + ((long long)image * s.places.value + place) * OV_AXES;
    long long size = 1;
    Taps t[OV_AXES];
    // The last axis of the image comes first in the grid.
    for (int a = 0; a < OV_AXES; ++a) {
      t[a] = taps(ov_load(at[OV_AXES - 1 - a]), s.extents[a]);
      size *= s.extents[a];
    }
    ov_store(y + i, ov_convert<ov_compute<X>>(Sum<0>::of(x + plane * size, s, t)));
  }
}
