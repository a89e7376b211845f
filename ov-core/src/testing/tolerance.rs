//! Comparison of tensors within a tolerance.

use std::fmt;

use crate::tensor::{ElementType, Tensor};

/// How two tensors differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where the largest excess is, row-major.
    pub index: usize,
    /// The value there.
    pub got: f64,
    /// The value expected there.
    pub expected: f64,
    /// Number of elements outside the tolerance.
    pub outside: usize,
    /// What else is wrong (type or shape), empty when only values differ.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.detail.is_empty() {
            return f.write_str(&self.detail);
        }
        write!(
            f,
            "{} elements outside the tolerance, worst at {}: got {}, expected {}",
            self.outside, self.index, self.got, self.expected
        )
    }
}

/// The tensor, or the real and imaginary parts of a complex one side by side.
fn numbers(t: &Tensor) -> Result<Tensor, crate::tensor::TensorError> {
    let part = match t.element_type() {
        ElementType::Complex64 => ElementType::F32,
        ElementType::Complex128 => ElementType::F64,
        _ => return Ok(t.clone()),
    };
    Tensor::from_bytes(part, [t.len(), 2], t.to_contiguous().bytes())
}

/// Checks type, shape and `|got - expected| <= atol + rtol |expected|`; NaN equals NaN, infinities must agree.
///
/// # Errors
/// The difference.
pub fn compare(got: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Result<(), Difference> {
    let wrong =
        |detail: String| Difference { index: 0, got: 0.0, expected: 0.0, outside: 0, detail };
    if got.element_type() != expected.element_type() || got.shape() != expected.shape() {
        return Err(wrong(format!(
            "got {}{}, expected {}{}",
            got.element_type(),
            got.shape(),
            expected.element_type(),
            expected.shape()
        )));
    }
    if let (Ok(a), Ok(b)) = (got.as_sequence(), expected.as_sequence()) {
        return a.iter().zip(b).enumerate().try_for_each(|(i, (a, b))| {
            compare(a, b, rtol, atol).map_err(|d| wrong(format!("item {i}: {d}")))
        });
    }
    if let (Ok(a), Ok(b)) = (got.as_map(), expected.as_map()) {
        compare(a.0, b.0, 0.0, 0.0).map_err(|d| wrong(format!("keys: {d}")))?;
        return compare(a.1, b.1, rtol, atol).map_err(|d| wrong(format!("values: {d}")));
    }
    if got.is_absent() {
        return Ok(());
    }
    if let (Ok(a), Ok(b)) = (got.as_strings(), expected.as_strings()) {
        return match a.iter().zip(b).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(i) => Err(wrong(format!("text {i} is {:?}, expected {:?}", a[i], b[i]))),
        };
    }
    let values = |t: &Tensor| {
        let parts = numbers(t).map_err(|e| wrong(e.to_string()))?;
        crate::op::convert::to_f64(&parts).map_err(|e| wrong(e.to_string()))
    };
    let (a, b) = (values(got)?, values(expected)?);
    let mut worst: Option<Difference> = None;
    let mut worst_excess = 0.0;
    let mut outside = 0;
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        if (a.is_nan() && b.is_nan()) || a == b {
            continue;
        }
        let excess = (a - b).abs() - (atol + rtol * b.abs());
        if excess.is_nan() || excess > 0.0 || a.is_infinite() != b.is_infinite() {
            outside += 1;
            let excess = if excess.is_nan() { f64::INFINITY } else { excess };
            if worst.is_none() || excess > worst_excess {
                worst_excess = excess;
                worst = Some(Difference {
                    index: i,
                    got: *a,
                    expected: *b,
                    outside: 0,
                    detail: String::new(),
                });
            }
        }
    }
    match worst {
        None => Ok(()),
        Some(w) => Err(Difference { outside, ..w }),
    }
}
