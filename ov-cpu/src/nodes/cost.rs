//! Rough times of work on one thread, for deciding what to share and what to hand out in chunks.
//!
//! The constants are of one current core with AVX-512; the decisions they feed only need the order of magnitude.

/// Multiply-adds in registers.
const FLOPS_PER_NS: f64 = 100.0;
/// Bytes that a kernel streams from and to the outer caches.
const BYTES_PER_NS: f64 = 25.0;
/// Calling a step.
const CALL_NS: f64 = 50.0;

/// Time of arithmetic and traffic that overlap.
pub(crate) fn ns(flops: f64, bytes: f64) -> f64 {
    CALL_NS + (flops / FLOPS_PER_NS).max(bytes / BYTES_PER_NS)
}

/// Time of streaming `elements` of 4 bytes through a function of `work` operations each.
pub(crate) fn element_wise(elements: usize, work: f64) -> f64 {
    let n = elements as f64;
    ns(n * work, n * 8.0)
}
