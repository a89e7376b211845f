// Floats of 8 bits, as numbers and as codes.

// Sign, exponent and mantissa; codes (without sign) of the greatest number, infinity and NaN, -1 where there is none; whether
// the only zero is positive and the code of the other one is NaN.
template <int EXPONENT, int MANTISSA, int BIAS, int GREATEST, int INFINITE, int NAN_CODE, bool SINGLE_ZERO>
struct ov_small_float {
  static constexpr int SIGN = 1 << (EXPONENT + MANTISSA);

  OV_DEVICE static double power(int e) { return ov_bits_double((unsigned long long)(e + 1023) << 52); }

  OV_DEVICE static double decode(unsigned char code) {
    const int magnitude = code & (SIGN - 1);
    const double nan = ov_bits_double(0x7ff8000000000000ULL), infinity = ov_bits_double(0x7ff0000000000000ULL);
    if (SINGLE_ZERO && code == SIGN) return nan;
    double v;
    if (magnitude > GREATEST) {
      v = magnitude == INFINITE ? infinity : nan;
    } else {
      const int exponent = magnitude >> MANTISSA, fraction = magnitude & ((1 << MANTISSA) - 1);
      const int whole = exponent > 0 ? fraction + (1 << MANTISSA) : fraction;
      v = (double)whole * power((exponent > 0 ? exponent : 1) - BIAS - MANTISSA);
    }
    return code & SIGN ? -v : v;
  }

  // The nearest, halves to even codes. Without `saturate`, what is too large becomes infinity or NaN.
  OV_DEVICE static unsigned char encode(double v, bool saturate) {
    const unsigned long long bits = ov_double_bits(v);
    const int sign = bits >> 63 ? SIGN : 0;
    const int nan = SINGLE_ZERO ? SIGN : NAN_CODE | sign;
    if (v != v) return (unsigned char)nan;
    int e = (int)(bits >> 52 & 0x7ff) - 1023;
    if (e < 1 - BIAS) e = 1 - BIAS;
    int code = GREATEST + 1;
    if (e <= GREATEST) {
      const double steps = ov_rint(ov_fabs(v) * power(MANTISSA - e));
      code = ((e + BIAS - 1) << MANTISSA) + (int)steps;
    }
    if (code > GREATEST) {
      if (saturate) return (unsigned char)(GREATEST | sign);
      return (unsigned char)(INFINITE >= 0 ? INFINITE | sign : nan);
    }
    return (unsigned char)(code == 0 && SINGLE_ZERO ? 0 : code | sign);
  }
};

// Powers of two.
struct ov_scale_float {
  enum { UP, NEAREST, DOWN };

  OV_DEVICE static double decode(unsigned char code) {
    if (code == 255) return ov_bits_double(0x7ff8000000000000ULL);
    return ov_bits_double((unsigned long long)((int)code - 127 + 1023) << 52);
  }

  OV_DEVICE static unsigned char encode(double v, bool saturate, int rounding = UP) {
    const unsigned long long bits = ov_double_bits(ov_fabs(v)), mantissa = bits & 0xfffffffffffffULL;
    if (v != v) return 255;
    const int exponent = (int)(bits >> 52);
    if (exponent == 0x7ff) return saturate ? 254 : 255;
    const bool up = rounding == UP ? mantissa != 0 : rounding == NEAREST && mantissa >= 0x8000000000000ULL;
    const int code = exponent - 1023 + (int)up + 127;
    if (v == 0 || code < 0) return saturate ? 0 : 255;
    return code > 254 ? (saturate ? 254 : 255) : (unsigned char)code;
  }
};
