// Functions applied to results of products, by their numbers in blobs (ov-core, op/fused/activation.rs). NaN stays NaN.

OV_DEVICE float ov_clamped(float v, float low, float high) { return v < low ? low : v > high ? high : v; }
OV_DEVICE float ov_sigmoid(float v) { return 1.0f / (1.0f + ov_exp(-v)); }
OV_DEVICE float ov_softplus(float v) { return (v > 0.0f || v != v ? v : 0.0f) + ov_log1p(ov_exp(-ov_fabs(v))); }
OV_DEVICE float ov_hard_swish(float v) { return v * ov_clamped(v * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f); }

OV_DEVICE float ov_activate(int id, float v, float p, float q) {
  switch (id) {
    case 1: return v < 0.0f ? 0.0f : v;
    case 2: return ov_clamped(v, p, q);
    case 3: return v < 0.0f ? v * p : v;
    case 4: return v * ov_sigmoid(v);
    case 5: return v * ov_sigmoid(v * p);
    case 6: return ov_hard_swish(v);
    case 7: return ov_clamped(p * v + q, 0.0f, 1.0f);
    case 8: return ov_sigmoid(v);
    case 9: return ov_tanh(v);
    case 10: return 0.5f * v * (1.0f + ov_erf(v * 0.70710678f));
    case 11: return 0.5f * v * (1.0f + ov_tanh(0.79788456f * (v + 0.044715f * v * v * v)));
    case 12: return v < 0.0f ? p * ov_expm1(v) : v;
    case 13: return v * ov_tanh(ov_softplus(v));
    case 14: return ov_softplus(v);
    case 15: return p * (v < 0.0f ? 0.0f : v) + q;
    case 16: return p * ov_hard_swish(v) + q;
    default: return v;
  }
}

// What follows a product: bias, residual and activation. Absent ones are null.
struct ov_finish {
  float p, q;
  int residual_after;
};
template <int activation, class T>
OV_DEVICE float ov_finished(float v, const float* bias, long long column, const T* residual, long long at, const ov_finish& f) {
  if (bias) v += bias[column];
  if (residual && !f.residual_after) v += ov_f32(residual[at]);
  v = ov_activate(activation, v, f.p, f.q);
  if (residual && f.residual_after) v += ov_f32(residual[at]);
  return v;
}
