// Walks of several operands over one index space of at most 2^31 - 1 elements.

// A divisor as a multiplier and a shift: exact for dividends below 2^31.
struct ov_divisor {
  unsigned value, multiplier, shift;
  OV_DEVICE unsigned divide(unsigned n) const {
    return ((unsigned)(((unsigned long long)n * multiplier) >> 32) + n) >> shift;
  }
};

constexpr int OV_MAX_RANK = 8;

template <int OPERANDS> struct ov_walk {
  unsigned count, rank;
  ov_divisor dims[OV_MAX_RANK];
  int strides[OPERANDS][OV_MAX_RANK];

  // Offset of element `index` in each operand.
  OV_DEVICE void locate(unsigned index, int* at) const {
    for (int i = 0; i < OPERANDS; ++i) at[i] = 0;
    for (int axis = (int)rank - 1; axis > 0; --axis) {
      const unsigned next = dims[axis].divide(index);
      const int here = (int)(index - next * dims[axis].value);
      for (int i = 0; i < OPERANDS; ++i) at[i] += here * strides[i][axis];
      index = next;
    }
    for (int i = 0; i < OPERANDS; ++i) at[i] += (int)index * strides[i][0];
  }

  OV_DEVICE bool step(int operand) const { return strides[operand][rank - 1] != 0; }
};
