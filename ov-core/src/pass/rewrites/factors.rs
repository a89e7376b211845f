//! Products written in any order: a tree of multiplications and divisions by scalars as one scale and its factors.

use smallvec::SmallVec;

use super::super::pattern::Pattern;
use crate::{
    model::{Model, Value},
    op::arithmetic::{Divide, Multiply, Power},
};

/// `scale * terms[0] * terms[1] * …`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Product {
    /// Product of the scalar constants.
    pub(super) scale: f64,
    /// The other factors, in the order of reading.
    pub(super) terms: SmallVec<[Value; 4]>,
}

impl Product {
    /// Takes the product that ends at `value` apart. Inner products that something else reads stay whole.
    pub(super) fn of(model: &Model, value: Value) -> Self {
        let mut product = Self { scale: 1.0, terms: SmallVec::new() };
        product.collect(model, value, 0);
        product
    }

    fn collect(&mut self, model: &Model, value: Value, depth: usize) {
        if depth == 0 || (depth <= MAX_DEPTH && model.has_single_use(value)) {
            if let Some((x, scalar)) = model.with_scalar::<Multiply>(value) {
                self.scale *= scalar;
                return self.collect(model, x, depth + 1);
            }
            if let Some((x, scalar)) = model.then_scalar::<Divide>(value)
                && model.element_type(value).is_float()
            {
                self.scale /= scalar;
                return self.collect(model, x, depth + 1);
            }
            if let Some((a, b)) = model.binary::<Multiply>(value) {
                self.collect(model, a, depth + 1);
                return self.collect(model, b, depth + 1);
            }
        }
        self.terms.push(value);
    }

    /// The two factors, if there are two and the scale is close to `scale`.
    pub(super) fn pair(&self, scale: f64) -> Option<(Value, Value)> {
        match self.terms.as_slice() {
            [a, b] if super::super::close(self.scale, scale) => Some((*a, *b)),
            _ => None,
        }
    }

    /// The exponent, if every factor is `x` or a power of it.
    pub(super) fn power_of(&self, model: &Model, x: Value) -> Option<f64> {
        self.terms
            .iter()
            .map(|term| {
                if *term == x {
                    return Some(1.0);
                }
                let (base, exponent) = model.then_scalar::<Power>(*term)?;
                (base == x).then_some(exponent)
            })
            .sum()
    }
}

/// Multiplications inside each other that are looked through.
const MAX_DEPTH: usize = 6;
