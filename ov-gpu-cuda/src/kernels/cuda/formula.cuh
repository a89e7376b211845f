// Functions of single elements, in float, double or an integer type.

template <class T> OV_DEVICE T f_wrap_add(T a, T b) { return (T)((ov_unsigned<T>)a + (ov_unsigned<T>)b); }
OV_DEVICE float f_wrap_add(float a, float b) { return a + b; }
OV_DEVICE double f_wrap_add(double a, double b) { return a + b; }
template <class T> OV_DEVICE T f_wrap_sub(T a, T b) { return (T)((ov_unsigned<T>)a - (ov_unsigned<T>)b); }
OV_DEVICE float f_wrap_sub(float a, float b) { return a - b; }
OV_DEVICE double f_wrap_sub(double a, double b) { return a - b; }
template <class T> OV_DEVICE T f_wrap_mul(T a, T b) {
  // Through 64 bits: products of 16-bit operands would overflow int.
  return (T)((unsigned long long)a * (unsigned long long)b);
}
OV_DEVICE float f_wrap_mul(float a, float b) { return a * b; }
OV_DEVICE double f_wrap_mul(double a, double b) { return a * b; }

template <class T> OV_DEVICE T f_add(T a, T b) { return f_wrap_add(a, b); }
template <class T> OV_DEVICE T f_subtract(T a, T b) { return f_wrap_sub(a, b); }
template <class T> OV_DEVICE T f_multiply(T a, T b) { return f_wrap_mul(a, b); }
template <class T> OV_DEVICE T f_negative(T a) { return f_wrap_sub((T)0, a); }
OV_DEVICE float f_negative(float a) { return -a; }
OV_DEVICE double f_negative(double a) { return -a; }
template <class T> OV_DEVICE T f_squared_difference(T a, T b) {
  const T d = f_wrap_sub(a, b);
  return f_wrap_mul(d, d);
}
// NaN when either is.
template <class T> OV_DEVICE T f_maximum(T a, T b) { return a != a || a > b ? a : b; }
template <class T> OV_DEVICE T f_minimum(T a, T b) { return a != a || a < b ? a : b; }
template <class T> OV_DEVICE T f_relu(T a) { return a < (T)0 ? (T)0 : a; }
template <class T> OV_DEVICE T f_abs(T a) { return a < (T)0 ? f_negative(a) : a; }
OV_DEVICE float f_abs(float a) { return ov_fabs(a); }
OV_DEVICE double f_abs(double a) { return ov_fabs(a); }
template <class T> OV_DEVICE T f_sign(T a) { return a > (T)0 ? (T)1 : a < (T)0 ? (T)-1 : a; }
template <class T> OV_DEVICE T f_prelu(T a, T slope) { return a < (T)0 ? f_wrap_mul(a, slope) : a; }
template <class T> OV_DEVICE T f_clamp(T a, T low, T high) {
  a = a < low ? low : a;
  return a > high ? high : a;
}

// Quotients and remainders; what has no quotient gives 0.
template <class T> OV_DEVICE T f_integer_quotient(T a, T b) {
  if (b == (T)0) return 0;
  if (ov_traits<T>::is_signed && b == (T)-1) return f_negative(a);
  return (T)(a / b);
}
template <class T> OV_DEVICE T f_remainder(T a, T b) {
  if (b == (T)0 || (ov_traits<T>::is_signed && b == (T)-1)) return 0;
  return (T)(a % b);
}
template <class T> OV_DEVICE T f_divide(T a, T b) { return f_integer_quotient(a, b); }
OV_DEVICE float f_divide(float a, float b) { return a / b; }
OV_DEVICE double f_divide(double a, double b) { return a / b; }
template <class T> OV_DEVICE T f_floor_divide(T a, T b) {
  const T q = f_integer_quotient(a, b), r = f_remainder(a, b);
  return r != (T)0 && (r < (T)0) != (b < (T)0) ? (T)(q - 1) : q;
}
OV_DEVICE float f_floor_divide(float a, float b) { return a / b; }
OV_DEVICE double f_floor_divide(double a, double b) { return a / b; }
template <class T> OV_DEVICE T f_mod(T a, T b) { return f_remainder(a, b); }
OV_DEVICE float f_mod(float a, float b) { return ov_fmod(a, b); }
OV_DEVICE double f_mod(double a, double b) { return ov_fmod(a, b); }
template <class T> OV_DEVICE T f_float_floor_mod(T a, T b) {
  const T r = ov_fmod(a, b);
  if (r == (T)0) return ov_copysign((T)0, b);
  return (r < (T)0) != (b < (T)0) ? r + b : r;
}
template <class T> OV_DEVICE T f_floor_mod(T a, T b) {
  const T r = f_remainder(a, b);
  return r != (T)0 && (r < (T)0) != (b < (T)0) ? f_wrap_add(r, b) : r;
}
OV_DEVICE float f_floor_mod(float a, float b) { return f_float_floor_mod(a, b); }
OV_DEVICE double f_floor_mod(double a, double b) { return f_float_floor_mod(a, b); }

// Powers of integers wrap; with negative exponents they truncate.
template <class T> OV_DEVICE T f_power(T base, T exponent) {
  if (exponent < (T)0) {
    if (base == (T)1) return 1;
    if (ov_traits<T>::is_signed && base == (T)-1) return (exponent & 1) ? base : (T)1;
    return 0;
  }
  T result = 1;
  while (exponent > (T)0) {
    if (exponent & 1) result = f_wrap_mul(result, base);
    base = f_wrap_mul(base, base);
    exponent = (T)(exponent >> 1);
  }
  return result;
}
OV_DEVICE float f_power(float a, float b) { return ov_pow(a, b); }
OV_DEVICE double f_power(double a, double b) { return ov_pow(a, b); }

template <class T> OV_DEVICE T f_and(T a, T b) { return (T)(a & b); }
template <class T> OV_DEVICE T f_or(T a, T b) { return (T)(a | b); }
template <class T> OV_DEVICE T f_xor(T a, T b) { return (T)(a ^ b); }
template <class T> OV_DEVICE T f_not(T a) { return (T)~a; }
// Shifts by what is no number of bits of the type lose every bit, or leave the sign's.
template <class T> OV_DEVICE T f_shift_left(T a, T b) {
  if (b < (T)0 || (unsigned long long)b >= sizeof(T) * 8) return 0;
  return (T)((unsigned long long)a << (int)b);
}
template <class T> OV_DEVICE T f_shift_right(T a, T b) {
  if (b < (T)0 || (unsigned long long)b >= sizeof(T) * 8) return a < (T)0 ? (T)-1 : (T)0;
  return (T)(a >> (int)b);
}

template <class T> OV_DEVICE bool f_is_nan(T a) { return a != a; }
template <class T> OV_DEVICE bool f_is_finite(T a) { return a - a == (T)0; }
template <class T> OV_DEVICE bool f_is_inf(T a, bool negative, bool positive) {
  return a == a && !f_is_finite(a) && (a < (T)0 ? negative : positive);
}

template <class T> OV_DEVICE T f_exp(T a) { return ov_exp(a); }
template <class T> OV_DEVICE T f_expm1(T a) { return ov_expm1(a); }
template <class T> OV_DEVICE T f_log(T a) { return ov_log(a); }
template <class T> OV_DEVICE T f_sqrt(T a) { return ov_sqrt(a); }
template <class T> OV_DEVICE T f_floor(T a) { return ov_floor(a); }
template <class T> OV_DEVICE T f_ceil(T a) { return ov_ceil(a); }
template <class T> OV_DEVICE T f_sin(T a) { return ov_sin(a); }
template <class T> OV_DEVICE T f_cos(T a) { return ov_cos(a); }
template <class T> OV_DEVICE T f_tan(T a) { return ov_tan(a); }
template <class T> OV_DEVICE T f_asin(T a) { return ov_asin(a); }
template <class T> OV_DEVICE T f_acos(T a) { return ov_acos(a); }
template <class T> OV_DEVICE T f_atan(T a) { return ov_atan(a); }
template <class T> OV_DEVICE T f_sinh(T a) { return ov_sinh(a); }
template <class T> OV_DEVICE T f_cosh(T a) { return ov_cosh(a); }
template <class T> OV_DEVICE T f_tanh(T a) { return ov_tanh(a); }
template <class T> OV_DEVICE T f_asinh(T a) { return ov_asinh(a); }
template <class T> OV_DEVICE T f_acosh(T a) { return ov_acosh(a); }
template <class T> OV_DEVICE T f_atanh(T a) { return ov_atanh(a); }
template <class T> OV_DEVICE T f_erf(T a) { return ov_erf(a); }
template <class T> OV_DEVICE T f_round_even(T a) { return ov_rint(a); }
template <class T> OV_DEVICE T f_round_away(T a) { return ov_round(a); }

template <class T> OV_DEVICE T f_sigmoid(T a) { return (T)1 / ((T)1 + ov_exp(-a)); }
template <class T> OV_DEVICE T f_softplus(T a) {
  return a != a ? a : (a > (T)0 ? a : (T)0) + ov_log1p(ov_exp(-ov_fabs(a)));
}
template <class T> OV_DEVICE T f_mish(T a) { return a * ov_tanh(f_softplus(a)); }
template <class T> OV_DEVICE T f_softsign(T a) { return a / ((T)1 + ov_fabs(a)); }
template <class T> OV_DEVICE T f_hswish(T a) { return a * f_clamp(a + (T)3, (T)0, (T)6) / (T)6; }
template <class T> OV_DEVICE T f_hsigmoid(T a) { return f_clamp(a + (T)3, (T)0, (T)6) / (T)6; }
template <class T> OV_DEVICE T f_hard_sigmoid(T a, T alpha, T beta) {
  return f_clamp(alpha * a + beta, (T)0, (T)1);
}
template <class T> OV_DEVICE T f_selu(T a, T alpha, T lambda) {
  return lambda * (a > (T)0 ? a : alpha * ov_expm1(a));
}
template <class T> OV_DEVICE T f_gelu_erf(T a) {
  return (T)0.5 * a * ((T)1 + ov_erf(a * (T)0.70710678118654752440));
}
template <class T> OV_DEVICE T f_gelu_tanh(T a) {
  return (T)0.5 * a * ((T)1 + ov_tanh((T)0.79788456080286535588 * (a + (T)0.044715 * a * a * a)));
}

template <class T> OV_DEVICE T f_batch_norm(T a, T gamma, T beta, T mean, T variance, T epsilon) {
  return (a - mean) * (gamma / ov_sqrt(variance + epsilon)) + beta;
}

template <class T> OV_DEVICE T f_fake_quantize(T a, T low, T high, T out_low, T out_high, T steps) {
  if (a <= f_minimum(low, high)) return out_low;
  if (a > f_maximum(low, high)) return out_high;
  return ov_rint((a - low) / (high - low) * steps) / steps * (out_high - out_low) + out_low;
}

// A value rounded to the precision of P.
template <class P> OV_DEVICE float f_rounded(float v) {
  P p;
  ov_store(&p, v);
  return ov_load(p);
}
template <class P, class X, class S> OV_DEVICE float f_quotient(X x, S scale) {
  return f_rounded<P>(f_rounded<P>((float)x) / f_rounded<P>((float)scale));
}
template <class P, class X, class S, class Z>
OV_DEVICE long long f_quantize(X x, S scale, Z zero, double low, double high) {
  const double value = ov_rint((double)f_quotient<P>(x, scale)) + (double)zero;
  return ov_to_i64(value < low ? low : value > high ? high : value);
}
// The same for integers of at most 16 bits, which floats hold: what a sum rounds lies beyond them.
template <class P, class X, class S, class Z> OV_DEVICE int f_quantize_short(X x, S scale, Z zero, float low, float high) {
  const float value = ov_rint(f_quotient<P>(x, scale)) + (float)zero;
  return value != value ? 0 : (int)(value < low ? low : value > high ? high : value);
}

// The values that no value is below or above; infinities for floats. The argument names the type.
template <class T> OV_DEVICE T ov_least(T) {
  return ov_traits<T>::is_signed ? (T)(1ULL << (sizeof(T) * 8 - 1)) : (T)0;
}
template <class T> OV_DEVICE T ov_greatest(T) { return (T)~(unsigned long long)ov_least((T)0); }
OV_DEVICE float ov_least(float) { return -ov_bits_float(0x7f800000u); }
OV_DEVICE double ov_least(double) { return -(double)ov_bits_float(0x7f800000u); }
OV_DEVICE float ov_greatest(float) { return ov_bits_float(0x7f800000u); }
OV_DEVICE double ov_greatest(double) { return ov_bits_float(0x7f800000u); }
