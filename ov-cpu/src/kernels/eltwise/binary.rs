//! Broadcast operations on two inputs, and select on three.
#![allow(unsafe_code, reason = "each call writes its own part of a shared output")]

use std::fmt::Debug;
use std::ops::Range;

use crate::kernels::eltwise::broadcast::BroadcastPlan;
use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// Arithmetic on two f32 tensors. NaN in either operand gives NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    /// `a` to the power `b`.
    Pow,
    /// `(a - b)^2`
    SquaredDifference,
    /// `a` if it is not negative, else `a * b`.
    PRelu,
    /// `a - b * floor(a / b)`: the sign of the divisor.
    FloorMod,
    /// C's `fmod`: the sign of the dividend.
    Mod,
}

/// Arithmetic on two integer tensors, wrapping on overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum IntBinaryOp {
    Add,
    Sub,
    Mul,
    Min,
    Max,
    /// Truncating division; division by zero gives zero.
    Div,
    /// Flooring division; division by zero gives zero.
    FloorDiv,
    /// Remainder with the sign of the dividend; by zero gives zero.
    Mod,
    /// Remainder with the sign of the divisor; by zero gives zero.
    FloorMod,
}

/// Comparisons that give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Logic on bytes, where any value but 0 is true; gives 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum LogicOp {
    And,
    Or,
    Xor,
}

/// Element types with integer arithmetic here.
pub trait Number: Copy + PartialOrd + Debug + Send + Sync + 'static {
    /// Applies `op`.
    fn apply(op: IntBinaryOp, a: Self, b: Self) -> Self;
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Number for $t {
            #[inline(always)]
            fn apply(op: IntBinaryOp, a: Self, b: Self) -> Self {
                match op {
                    IntBinaryOp::Add => a.wrapping_add(b),
                    IntBinaryOp::Sub => a.wrapping_sub(b),
                    IntBinaryOp::Mul => a.wrapping_mul(b),
                    IntBinaryOp::Min => a.min(b),
                    IntBinaryOp::Max => a.max(b),
                    IntBinaryOp::Div if b == 0 => 0,
                    IntBinaryOp::Div => a.wrapping_div(b),
                    IntBinaryOp::FloorDiv if b == 0 => 0,
                    IntBinaryOp::FloorDiv => {
                        let q = a.wrapping_div(b);
                        let r = a.wrapping_rem(b);
                        if r != 0 && (r < 0) != (b < 0) { q - 1 } else { q }
                    }
                    IntBinaryOp::Mod if b == 0 => 0,
                    IntBinaryOp::Mod => a.wrapping_rem(b),
                    IntBinaryOp::FloorMod if b == 0 => 0,
                    IntBinaryOp::FloorMod => {
                        let r = a.wrapping_rem(b);
                        if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
                    }
                }
            }
        }
    )*};
}
number!(i8, i16, i32, i64);

#[inline(always)]
fn walk<A: Copy, B: Copy, R>(
    plan: &BroadcastPlan<2>,
    a: &[A],
    b: &[B],
    out: &Out<'_, R>,
    range: Range<usize>,
    f: impl Fn(A, B) -> R + Copy,
) {
    let [sa, sb] = plan.inner_strides();
    plan.for_each_run(range, |run| {
        let [ia, ib] = run.input;
        // SAFETY: runs of different items are disjoint, and only this one is alive here.
        let y = unsafe { out.slice(run.out..run.out + run.len) };
        match (sa, sb) {
            (0, 0) => {
                let (u, v) = (a[ia], b[ib]);
                y.iter_mut().for_each(|y| *y = f(u, v));
            }
            (0, _) => {
                let u = a[ia];
                y.iter_mut().zip(&b[ib..ib + run.len]).for_each(|(y, v)| *y = f(u, *v));
            }
            (_, 0) => {
                let v = b[ib];
                y.iter_mut().zip(&a[ia..ia + run.len]).for_each(|(y, u)| *y = f(*u, v));
            }
            _ => {
                let (a, b) = (&a[ia..ia + run.len], &b[ib..ib + run.len]);
                y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (u, v))| *y = f(*u, *v));
            }
        }
    });
}

#[inline(always)]
fn binary_body<S: Simd>(
    _: S,
    op: BinaryOp,
    plan: &BroadcastPlan<2>,
    a: &[f32],
    b: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    match op {
        BinaryOp::Add => walk(plan, a, b, out, range, |a, b| a + b),
        BinaryOp::Sub => walk(plan, a, b, out, range, |a, b| a - b),
        BinaryOp::Mul => walk(plan, a, b, out, range, |a, b| a * b),
        BinaryOp::Div => walk(plan, a, b, out, range, |a, b| a / b),
        BinaryOp::Max => {
            walk(plan, a, b, out, range, |a, b| if a > b || a.is_nan() { a } else { b });
        }
        BinaryOp::Min => {
            walk(plan, a, b, out, range, |a, b| if a < b || a.is_nan() { a } else { b });
        }
        BinaryOp::Pow => walk(plan, a, b, out, range, f32::powf),
        BinaryOp::SquaredDifference => walk(plan, a, b, out, range, |a, b| (a - b) * (a - b)),
        BinaryOp::PRelu => walk(plan, a, b, out, range, |a, b| if a < 0.0 { a * b } else { a }),
        BinaryOp::FloorMod => walk(plan, a, b, out, range, floor_remainder),
        BinaryOp::Mod => walk(plan, a, b, out, range, |a, b| a % b),
    }
}

/// The remainder with the sign of the divisor, zeros too.
pub(super) fn floor_remainder(a: f32, b: f32) -> f32 {
    let r = a % b;
    if r == 0.0 {
        r.copysign(b)
    } else if (r < 0.0) != (b < 0.0) {
        r + b
    } else {
        r
    }
}

#[inline(always)]
fn int_body<S: Simd, T: Number>(
    _: S,
    op: IntBinaryOp,
    plan: &BroadcastPlan<2>,
    a: &[T],
    b: &[T],
    out: &Out<'_, T>,
    range: Range<usize>,
) {
    macro_rules! arm {
        ($($op:ident),*) => {
            match op { $(IntBinaryOp::$op => {
                walk(plan, a, b, out, range, |a, b| T::apply(IntBinaryOp::$op, a, b));
            })* }
        };
    }
    arm!(Add, Sub, Mul, Min, Max, Div, FloorDiv, Mod, FloorMod);
}

#[inline(always)]
fn compare_body<S: Simd, T: Copy + PartialOrd>(
    _: S,
    op: CompareOp,
    plan: &BroadcastPlan<2>,
    a: &[T],
    b: &[T],
    out: &Out<'_, u8>,
    range: Range<usize>,
) {
    match op {
        CompareOp::Equal => walk(plan, a, b, out, range, |a, b| u8::from(a == b)),
        CompareOp::NotEqual => walk(plan, a, b, out, range, |a, b| u8::from(a != b)),
        CompareOp::Less => walk(plan, a, b, out, range, |a, b| u8::from(a < b)),
        CompareOp::LessEqual => walk(plan, a, b, out, range, |a, b| u8::from(a <= b)),
        CompareOp::Greater => walk(plan, a, b, out, range, |a, b| u8::from(a > b)),
        CompareOp::GreaterEqual => walk(plan, a, b, out, range, |a, b| u8::from(a >= b)),
    }
}

#[inline(always)]
fn logic_body<S: Simd>(
    _: S,
    op: LogicOp,
    plan: &BroadcastPlan<2>,
    a: &[u8],
    b: &[u8],
    out: &Out<'_, u8>,
    range: Range<usize>,
) {
    match op {
        LogicOp::And => walk(plan, a, b, out, range, |a, b| u8::from((a != 0) & (b != 0))),
        LogicOp::Or => walk(plan, a, b, out, range, |a, b| u8::from((a | b) != 0)),
        LogicOp::Xor => walk(plan, a, b, out, range, |a, b| u8::from((a != 0) != (b != 0))),
    }
}

#[inline(always)]
fn select_body<S: Simd, T: Copy>(
    _: S,
    plan: &BroadcastPlan<3>,
    cond: &[u8],
    a: &[T],
    b: &[T],
    out: &Out<'_, T>,
    range: Range<usize>,
) {
    let [sc, sa, sb] = plan.inner_strides();
    plan.for_each_run(range, |run| {
        let [ic, ia, ib] = run.input;
        // SAFETY: runs of different items are disjoint, and only this one is alive here.
        let y = unsafe { out.slice(run.out..run.out + run.len) };
        if sc == 0 {
            let (x, i, s) = if cond[ic] == 0 { (b, ib, sb) } else { (a, ia, sa) };
            if s == 0 {
                y.fill(x[i]);
            } else {
                y.copy_from_slice(&x[i..i + run.len]);
            }
            return;
        }
        let c = &cond[ic..ic + run.len];
        match (sa, sb) {
            (0, 0) => {
                let (u, v) = (a[ia], b[ib]);
                y.iter_mut().zip(c).for_each(|(y, c)| *y = if *c == 0 { v } else { u });
            }
            (0, _) => {
                let (u, b) = (a[ia], &b[ib..ib + run.len]);
                y.iter_mut()
                    .zip(c.iter().zip(b))
                    .for_each(|(y, (c, v))| *y = if *c == 0 { *v } else { u });
            }
            (_, 0) => {
                let (a, v) = (&a[ia..ia + run.len], b[ib]);
                y.iter_mut()
                    .zip(c.iter().zip(a))
                    .for_each(|(y, (c, u))| *y = if *c == 0 { v } else { *u });
            }
            _ => {
                let (a, b) = (&a[ia..ia + run.len], &b[ib..ib + run.len]);
                y.iter_mut()
                    .zip(c.iter().zip(a.iter().zip(b)))
                    .for_each(|(y, (c, (u, v)))| *y = if *c == 0 { *v } else { *u });
            }
        }
    });
}

instantiate! {
    /// `out = op(a, b)` for the output elements `range` of `plan` (shapes of `a`, `b`).
    ///
    /// # Panics
    /// If a slice is shorter than the plan's shape.
    pub fn binary_f32(
        op: BinaryOp, plan: &BroadcastPlan<2>, a: &[f32], b: &[f32], out: &Out<'_, f32>,
        range: Range<usize>,
    ) = binary_body;

    /// `out = op(a, b)` on integers for the output elements `range` of `plan`.
    ///
    /// # Panics
    /// If a slice is shorter than the plan's shape.
    pub fn binary_int<T: Number>(
        op: IntBinaryOp, plan: &BroadcastPlan<2>, a: &[T], b: &[T], out: &Out<'_, T>,
        range: Range<usize>,
    ) = int_body;

    /// `out = op(a, b)` as 1 or 0 for the output elements `range` of `plan`.
    ///
    /// # Panics
    /// If a slice is shorter than the plan's shape.
    pub fn compare<T: Element>(
        op: CompareOp, plan: &BroadcastPlan<2>, a: &[T], b: &[T], out: &Out<'_, u8>,
        range: Range<usize>,
    ) = compare_body;

    /// `out = op(a, b)` on booleans for the output elements `range` of `plan`.
    ///
    /// # Panics
    /// If a slice is shorter than the plan's shape.
    pub fn logic(
        op: LogicOp, plan: &BroadcastPlan<2>, a: &[u8], b: &[u8], out: &Out<'_, u8>,
        range: Range<usize>,
    ) = logic_body;

    /// `out = a` where `cond` is not 0, else `b`, for the output elements `range` of `plan`
    /// (shapes of `cond`, `a`, `b`).
    ///
    /// # Panics
    /// If a slice is shorter than the plan's shape.
    pub fn select<T: Copy>(
        plan: &BroadcastPlan<3>, cond: &[u8], a: &[T], b: &[T], out: &Out<'_, T>,
        range: Range<usize>,
    ) = select_body;
}

/// Element types that can be compared.
pub trait Element: Copy + PartialOrd {}
impl<T: Copy + PartialOrd> Element for T {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::values(n, seed)
    }

    const SHAPES: [(&[usize], &[usize]); 8] = [
        (&[37], &[37]),
        (&[5, 19], &[19]),
        (&[5, 19], &[5, 1]),
        (&[1], &[3, 33]),
        (&[3, 33], &[]),
        (&[2, 1, 17], &[3, 1]),
        (&[0, 4], &[4]),
        (&[2, 1, 1, 21], &[2, 3, 4, 21]),
    ];

    #[test]
    fn binary_matches_reference() {
        type Reference = fn(f64, f64) -> f64;
        let ops: [(BinaryOp, Reference); 11] = [
            (BinaryOp::Add, |a, b| a + b),
            (BinaryOp::Sub, |a, b| a - b),
            (BinaryOp::Mul, |a, b| a * b),
            (BinaryOp::Div, |a, b| a / b),
            (BinaryOp::Max, f64::max),
            (BinaryOp::Min, f64::min),
            (BinaryOp::Pow, f64::powf),
            (BinaryOp::SquaredDifference, |a, b| (a - b) * (a - b)),
            (BinaryOp::PRelu, |a, b| if a < 0.0 { a * b } else { a }),
            (BinaryOp::FloorMod, |a, b| a - b * (a / b).floor()),
            (BinaryOp::Mod, |a, b| a % b),
        ];
        for isa in Isa::available() {
            for (sa, sb) in SHAPES {
                let plan = BroadcastPlan::new([sa, sb]).expect("fits");
                for (op, f) in ops {
                    let [na, nb] = plan.input_len();
                    let (mut a, b) = (values(na, 1), values(nb, 2));
                    if op == BinaryOp::Pow {
                        a.iter_mut().for_each(|x| *x = x.abs());
                    }
                    let mut y = vec![f32::NAN; plan.len()];
                    let split = plan.len() / 3;
                    let out = Out::new(&mut y);
                    binary_f32(isa, op, &plan, &a, &b, &out, 0..split);
                    binary_f32(isa, op, &plan, &a, &b, &out, split..plan.len());
                    let s = plan.inner_strides();
                    plan.for_each_run(0..plan.len(), |run| {
                        for k in 0..run.len {
                            let u = a[run.input[0] + k * s[0]];
                            let v = b[run.input[1] + k * s[1]];
                            let e = f(f64::from(u), f64::from(v));
                            let d = (f64::from(y[run.out + k]) - e).abs();
                            assert!(
                                d <= 1e-5 * (1.0 + e.abs()),
                                "{isa} {op:?} {sa:?} {sb:?} {u} {v}"
                            );
                        }
                    });
                }
            }
        }
    }

    #[test]
    fn max_and_min_keep_nan() {
        let plan = BroadcastPlan::new([&[2][..], &[2][..]]).expect("fits");
        for isa in Isa::available() {
            for op in [BinaryOp::Max, BinaryOp::Min] {
                let mut y = [0.0; 2];
                let (a, b) = ([f32::NAN, 1.0], [1.0, f32::NAN]);
                binary_f32(isa, op, &plan, &a, &b, &Out::new(&mut y), 0..2);
                assert!(y[0].is_nan() && y[1].is_nan(), "{isa} {op:?} {y:?}");
            }
        }
    }

    #[test]
    fn integers_compare_logic_select() {
        let plan = BroadcastPlan::new([&[3, 5][..], &[5][..]]).expect("fits");
        let a: Vec<i64> = (0..15).map(|i| i * 7 % 11 - 5).collect();
        let b: Vec<i64> = vec![3, -2, 0, i64::MAX, -4];
        for isa in Isa::available() {
            for op in
                [IntBinaryOp::Add, IntBinaryOp::FloorDiv, IntBinaryOp::FloorMod, IntBinaryOp::Mul]
            {
                let mut y = vec![0; 15];
                binary_int(isa, op, &plan, &a, &b, &Out::new(&mut y), 0..15);
                for i in 0..15 {
                    let (u, v) = (i128::from(a[i]), i128::from(b[i % 5]));
                    let e = match op {
                        IntBinaryOp::Add => u + v,
                        IntBinaryOp::Mul => u * v,
                        _ if v == 0 => 0,
                        IntBinaryOp::FloorDiv => (u as f64 / v as f64).floor() as i128,
                        _ => u - v * (u as f64 / v as f64).floor() as i128,
                    };
                    assert_eq!(y[i], e as i64, "{isa} {op:?} {u} {v}");
                }
            }
            let mut y = vec![9; 15];
            compare(isa, CompareOp::Less, &plan, &a, &b, &Out::new(&mut y), 0..15);
            for i in 0..15 {
                assert_eq!(y[i], u8::from(a[i] < b[i % 5]), "{isa}");
            }
            let mut z = vec![9; 15];
            let not = [0u8, 1, 2, 0, 255];
            logic(isa, LogicOp::Xor, &plan, &y, &not, &Out::new(&mut z), 0..15);
            for i in 0..15 {
                assert_eq!(z[i], u8::from((y[i] != 0) != (not[i % 5] != 0)), "{isa}");
            }
            for (sc, sa, sb) in [
                (&[15][..], &[15][..], &[15][..]),
                (&[15], &[], &[15]),
                (&[15], &[15], &[]),
                (&[], &[15], &[]),
                (&[15], &[], &[]),
            ] {
                let plan = BroadcastPlan::new([sc, sa, sb]).expect("fits");
                let len = plan.len();
                let mut s = vec![0i64; len];
                let b15: Vec<i64> = a.iter().map(|x| x * 100).collect();
                select(isa, &plan, &y, &a, &b15, &Out::new(&mut s), 0..len);
                for i in 0..len {
                    let pick = |x: &[i64], s: &[usize]| if s.is_empty() { x[0] } else { x[i] };
                    let c = if sc.is_empty() { y[0] } else { y[i] };
                    let e = if c == 0 { pick(&b15, sb) } else { pick(&a, sa) };
                    assert_eq!(s[i], e, "{isa} {sc:?} {sa:?} {sb:?}");
                }
            }
        }
    }
}
