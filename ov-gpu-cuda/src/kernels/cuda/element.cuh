// Elements: how values lie in memory, what they are computed in, and conversions between types.

struct alignas(16) ov_16_bytes {
  unsigned long long low, high;
};

template <class T> struct ov_compute_of { typedef T type; };
template <> struct ov_compute_of<ov_f16> { typedef float type; };
template <> struct ov_compute_of<ov_bf16> { typedef float type; };
template <class T> using ov_compute = typename ov_compute_of<T>::type;

template <class T> struct ov_traits {
  static constexpr bool is_float = false;
  static constexpr bool is_signed = (T)-1 < (T)1;
};
template <> struct ov_traits<float> { static constexpr bool is_float = true, is_signed = true; };
template <> struct ov_traits<double> { static constexpr bool is_float = true, is_signed = true; };

template <class T> struct ov_unsigned_of { typedef T type; };
template <> struct ov_unsigned_of<signed char> { typedef unsigned char type; };
template <> struct ov_unsigned_of<short> { typedef unsigned short type; };
template <> struct ov_unsigned_of<int> { typedef unsigned int type; };
template <> struct ov_unsigned_of<long long> { typedef unsigned long long type; };
template <class T> using ov_unsigned = typename ov_unsigned_of<T>::type;

template <class T> OV_DEVICE T ov_load(T v) { return v; }
OV_DEVICE float ov_load(ov_f16 v) { return ov_f16_to_f32(v); }
OV_DEVICE float ov_load(ov_bf16 v) { return ov_bf16_to_f32(v); }

template <class T> OV_DEVICE void ov_store(T* to, T v) { *to = v; }
OV_DEVICE void ov_store(ov_f16* to, float v) { *to = ov_f32_to_f16(v); }
OV_DEVICE void ov_store(ov_bf16* to, float v) { *to = ov_f32_to_bf16(v); }

// A double as i64: truncated, saturated, 0 for NaN.
OV_DEVICE long long ov_to_i64(double v) {
  if (!(v == v)) return 0;
  if (v >= 9223372036854775808.0) return 0x7fffffffffffffffLL;
  if (v <= -9223372036854775808.0) return -0x7fffffffffffffffLL - 1;
  return (long long)v;
}

OV_DEVICE unsigned long long ov_to_u64(double v) {
  if (v < 0) return (unsigned long long)ov_to_i64(v);
  if (!(v == v)) return 0;
  if (v >= 18446744073709551616.0) return 0xffffffffffffffffULL;
  return (unsigned long long)v;
}

template <class To, class From, bool to_float, bool from_float> struct ov_converter {
  // Integers wrap.
  OV_DEVICE static To of(From v) { return (To)v; }
};
template <class To, class From> struct ov_converter<To, From, false, true> {
  OV_DEVICE static To of(From v) { return (To)ov_to_i64((double)v); }
};
template <class From> struct ov_converter<unsigned long long, From, false, true> {
  OV_DEVICE static unsigned long long of(From v) { return ov_to_u64((double)v); }
};
template <class To, class From> struct ov_converter<To, From, true, false> {
  // 64-bit integers go through double, as everywhere.
  OV_DEVICE static To of(From v) { return (To)(double)v; }
};
template <class To> struct ov_converter<To, To, true, true> {
  OV_DEVICE static To of(To v) { return v; }
};

// A number in another type: integers wrap, floats truncate towards zero into 64 bits, then wrap.
template <class To, class From> OV_DEVICE To ov_convert(From v) {
  return ov_converter<To, From, ov_traits<To>::is_float, ov_traits<From>::is_float>::of(v);
}

// Several neighbouring elements, read and written at once.
template <class T, int V> struct alignas(sizeof(T) * V) ov_lanes {
  T lane[V];
};

// V elements from `from`, or V times its first one.
template <class T, int V> OV_DEVICE ov_lanes<T, V> ov_load_lanes(const T* from, bool step) {
  if (step) return *(const ov_lanes<T, V>*)from;
  ov_lanes<T, V> result;
  const T value = *from;
  for (int k = 0; k < V; ++k) result.lane[k] = value;
  return result;
}

template <class T, int V> OV_DEVICE void ov_store_lanes(T* to, const ov_lanes<T, V>& v) {
  *(ov_lanes<T, V>*)to = v;
}
