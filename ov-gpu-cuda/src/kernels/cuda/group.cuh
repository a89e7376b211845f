// Reductions over the threads of a warp or a block, of accumulators that merge.

// A value of any type from the lane whose number differs in the bits of `mask`.
template <class A> OV_DEVICE A ov_exchange(A v, int mask) {
  union { A value; unsigned words[(sizeof(A) + 3) / 4]; } here = {}, there = {};
  here.value = v;
  for (unsigned i = 0; i < sizeof(here.words) / 4; ++i) there.words[i] = ov_shfl_xor(here.words[i], mask);
  return there.value;
}

// The merged accumulators of a warp, in every lane.
template <class A> OV_DEVICE A ov_merge_warp(A a) {
  for (int mask = 16; mask > 0; mask /= 2) a = A::merge(a, ov_exchange(a, mask));
  return a;
}

// The merged accumulators of a block of whole warps, in every thread. `shared` holds 32 accumulators.
template <class A> OV_DEVICE A ov_merge_block(A a, A* shared) {
  a = ov_merge_warp(a);
  const unsigned warps = ov_block_dim_x() / 32, warp = ov_thread_x() / 32;
  if (warps == 1) return a;
  ov_block_sync();
  if (ov_thread_x() % 32 == 0) shared[warp] = a;
  ov_block_sync();
  a = shared[0];
  for (unsigned w = 1; w < warps; ++w) a = A::merge(a, shared[w]);
  return a;
}
