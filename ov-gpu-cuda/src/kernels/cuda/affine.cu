// Positions under affine maps. X is the storage type.

typedef OV_X X;

struct Affine {
  unsigned count, axes;
  // Of the image, outermost axis first; axes that are not there come first and have one place.
  ov_divisor places[3];
};

OV_DEVICE double position(unsigned i, unsigned extent) {
  if (extent <= 1) return 0;
  return OV_CORNERS ? 2.0 * i / (extent - 1) - 1.0 : (2.0 * i + 1.0) / extent - 1.0;
}

// One thread per place, which has one number per axis, the last axis of the image first.
OV_KERNEL affine_grid(const X* maps, X* y, Affine a) {
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned i = ov_global_thread();
  if (i < a.count) {
    unsigned rest = i;
    double at[3];
    for (int k = 2; k >= 0; --k) at[2 - k] = position(ov_innermost(a.places[k], rest), a.places[k].value);
    const X* map = maps + (long long)rest * a.axes * (a.axes + 1);
    for (unsigned row = 0; row < a.axes; ++row) {
      double sum = 0;
      for (unsigned k = 0; k < a.axes; ++k) sum += (double)ov_load(map[row * (a.axes + 1) + k]) * at[k];
      sum += (double)ov_load(map[row * (a.axes + 1) + a.axes]);
      ov_store(y + (long long)i * a.axes + row, (ov_compute<X>)sum);
    }
  }
}
