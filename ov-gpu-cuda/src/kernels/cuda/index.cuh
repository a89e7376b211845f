// Indices that count from the end when negative.

// Whether the index is inside; then it counts from the front.
OV_DEVICE bool ov_wrap(long long& index, unsigned extent) {
  if (index < 0) index += extent;
  return index >= 0 && index < (long long)extent;
}

// Remainder and quotient: the innermost coordinate, and what is left in `index`.
OV_DEVICE unsigned ov_innermost(const ov_divisor& d, unsigned& index) {
  const unsigned q = d.divide(index), r = index - q * d.value;
  index = q;
  return r;
}
