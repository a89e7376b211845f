//! Questions asked of one value each.
#![allow(unsafe_code, reason = "the parts of an output that several threads write")]

use std::ops::Range;

use crate::kernels::out::Out;

/// What is asked of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// Is it not a number?
    Nan,
    /// Is it finite?
    Finite,
    /// Is it an infinity of one of these signs?
    Infinite {
        /// Below zero.
        negative: bool,
        /// Above zero.
        positive: bool,
    },
}

/// `out[i] = f(x[i])` for the elements `range`.
fn map<T: Copy>(x: &[T], out: &Out<'_, u8>, range: Range<usize>, f: impl Fn(T) -> bool) {
    // SAFETY: the elements of a range are one thread's.
    let to = unsafe { out.slice(range.clone()) };
    for (to, x) in to.iter_mut().zip(&x[range]) {
        *to = u8::from(f(*x));
    }
}

/// Answers about the elements `range` of `x`, 1 for yes.
///
/// # Panics
/// If the range does not lie in both slices.
pub fn predicate_f32(p: Predicate, x: &[f32], out: &Out<'_, u8>, range: Range<usize>) {
    match p {
        Predicate::Nan => map(x, out, range, f32::is_nan),
        Predicate::Finite => map(x, out, range, f32::is_finite),
        Predicate::Infinite { negative, positive } => map(x, out, range, |x| {
            (negative && x == f32::NEG_INFINITY) || (positive && x == f32::INFINITY)
        }),
    }
}

/// The opposite of the truth values `range` of `x`.
///
/// # Panics
/// If the range does not lie in both slices.
pub fn logical_not(x: &[u8], out: &Out<'_, u8>, range: Range<usize>) {
    map(x, out, range, |x| x == 0);
}
