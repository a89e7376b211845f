//! Einstein summation, and determinants.

use std::collections::BTreeMap;

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, arithmetic::Number,
    movement::checked_len, unsupported_type,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, ElementType, PartialShape, Tensor, TensorBuffer},
};

/// A label of an axis: a letter, or a place under the ellipsis, counted from its last axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// An axis under the ellipsis; the last one is 0.
    Under(usize),
    /// A letter.
    Letter(char),
}

/// An equation for operands of known rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// Labels of the axes of each operand.
    pub operands: Vec<Vec<Label>>,
    /// Labels of the axes of the result.
    pub result: Vec<Label>,
}

fn wrong(equation: &str, expected: impl Into<String>) -> OpError {
    OpError::Attribute { name: "equation", got: equation.to_owned(), expected: expected.into() }
}

/// The labels of one term; `under` is how many axes the ellipsis covers.
fn term(equation: &str, text: &str, under: usize) -> OpResult<Vec<Label>> {
    let ellipsis = || (0..under).rev().map(Label::Under);
    let letters = |text: &str| {
        text.chars()
            .map(|c| {
                let letter = c.is_ascii_alphabetic().then_some(Label::Letter(c));
                letter.ok_or_else(|| wrong(equation, format!("letters, not {c:?}")))
            })
            .collect::<OpResult<Vec<Label>>>()
    };
    match text.split_once("...") {
        Some((before, after)) => {
            Ok(letters(before)?.into_iter().chain(ellipsis()).chain(letters(after)?).collect())
        }
        None => letters(text),
    }
}

impl Equation {
    /// The equation for operands of these ranks.
    ///
    /// # Errors
    /// When it is not well formed or does not fit the ranks.
    pub fn parse(equation: &str, ranks: &[usize]) -> OpResult<Self> {
        let compact: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match compact.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (compact.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong(equation, format!("a term for each of {} operands", ranks.len())));
        }
        let mut operands = Vec::with_capacity(terms.len());
        let mut widest = 0;
        for (text, rank) in terms.iter().zip(ranks) {
            let named = text.chars().filter(|c| *c != '.').count();
            let under = rank.checked_sub(named).filter(|u| *u == 0 || text.contains("..."));
            let under = under.ok_or_else(|| wrong(equation, format!("{rank} axes in {text:?}")))?;
            operands.push(term(equation, text, under)?);
            widest = widest.max(under);
        }
        let result = match right {
            Some(text) => term(equation, text, widest)?,
            None => {
                let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
                operands.iter().flatten().for_each(|l| *counts.entry(*l).or_default() += 1);
                let once = counts.iter().filter(|(l, n)| **n == 1 && matches!(l, Label::Letter(_)));
                (0..widest).rev().map(Label::Under).chain(once.map(|(l, _)| *l)).collect()
            }
        };
        for (i, label) in result.iter().enumerate() {
            if result[..i].contains(label) || !operands.iter().any(|o| o.contains(label)) {
                return Err(wrong(equation, "labels of the operands in the result, each once"));
            }
        }
        Ok(Self { operands, result })
    }

    /// Labels that are summed over, in the order of their first appearance.
    fn summed(&self) -> Vec<Label> {
        let mut summed: Vec<Label> = Vec::new();
        for label in self.operands.iter().flatten() {
            if !self.result.contains(label) && !summed.contains(label) {
                summed.push(*label);
            }
        }
        summed
    }
}

define_op! {
    /// Sums of products over the axes that an equation names alike, as numpy's `einsum`; axes of extent 1 broadcast.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/matrix/einsum-7.html>
    pub struct Einsum("Einsum", 7) {
        /// For example `bij,bjk->bik`.
        equation: String = String::new(),
    }
}

/// The extents of all labels.
fn extents(equation: &Equation, inputs: &[Tensor]) -> OpResult<BTreeMap<Label, usize>> {
    let mut extents: BTreeMap<Label, usize> = BTreeMap::new();
    for (labels, input) in equation.operands.iter().zip(inputs) {
        for (label, extent) in labels.iter().zip(input.shape().iter()) {
            let known = extents.entry(*label).or_insert(*extent);
            if *known == 1 {
                *known = *extent;
            }
            op_ensure!(*extent == *known || *extent == 1, "extents {known} and {extent} of {label:?} differ");
        }
    }
    Ok(extents)
}

/// Positions of a walk over `axes`, each with an offset per operand.
struct Walk<'a> {
    axes: &'a [(usize, Vec<usize>)],
    at: Vec<usize>,
}

impl Walk<'_> {
    /// Goes on by one; `offsets` follow.
    fn step(&mut self, offsets: &mut [usize]) {
        for (at, (extent, strides)) in self.at.iter_mut().zip(self.axes).rev() {
            *at += 1;
            offsets.iter_mut().zip(strides).for_each(|(o, s)| *o += s);
            if *at < *extent {
                return;
            }
            *at = 0;
            offsets.iter_mut().zip(strides).for_each(|(o, s)| *o -= s * extent);
        }
    }
}

impl Einsum {
    fn equation(&self, inputs: &[Tensor]) -> OpResult<Equation> {
        let ranks: Vec<usize> = inputs.iter().map(Tensor::rank).collect();
        Equation::parse(&self.equation, &ranks)
    }

    fn contract<T: Number>(&self, inputs: &[Tensor]) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let equation = self.equation(inputs)?;
        let extents = extents(&equation, inputs)?;
        let axes = |labels: &[Label]| -> Vec<(usize, Vec<usize>)> {
            let stride = |label: &Label, (operand, input): (&Vec<Label>, &Tensor)| -> usize {
                let places = operand.iter().zip(input.shape().iter().zip(input.shape().strides()));
                places.filter(|(l, (e, _))| *l == label && **e != 1).map(|(_, (_, s))| s).sum()
            };
            let all = |l: &Label| equation.operands.iter().zip(inputs).map(|o| stride(l, o)).collect();
            labels.iter().map(|l| (extents[l], all(l))).collect()
        };
        let (outer, inner) = (axes(&equation.result), axes(&equation.summed()));
        let shape: Vec<usize> = outer.iter().map(|(e, _)| *e).collect();
        let (len, terms) = (checked_len(&shape)?, inner.iter().map(|(e, _)| *e).product::<usize>());
        let data: Vec<&[T]> = inputs.iter().map(|t| t.as_slice::<T>()).collect::<Result<_, _>>()?;
        let mut offsets = vec![0usize; inputs.len()];
        let mut walk = Walk { at: vec![0; outer.len()], axes: &outer };
        let mut out = Vec::with_capacity(len);
        for _ in 0..len {
            let mut at = offsets.clone();
            let mut sum = Walk { at: vec![0; inner.len()], axes: &inner };
            if T::TYPE.is_float() {
                let mut total = 0.0;
                for _ in 0..terms {
                    total += data.iter().zip(&at).map(|(d, i)| d[*i].to_f64()).product::<f64>();
                    sum.step(&mut at);
                }
                out.push(T::from_f64(total));
            } else {
                let mut total = T::ZERO;
                for _ in 0..terms {
                    let product = data.iter().zip(&at).fold(T::ONE, |p, (d, i)| p.times(d[*i]));
                    total = total.plus(product);
                    sum.step(&mut at);
                }
                out.push(total);
            }
            walk.step(&mut offsets);
        }
        Ok(Tensor::from_vec(shape.as_slice(), out)?)
    }
}

impl OpRules for Einsum {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let ty = cx.common_type(0..cx.len())?;
        let ranks: Option<Vec<usize>> = (0..cx.len()).map(|i| cx.shape(i).rank()).collect();
        let Some(ranks) = ranks else { return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]) };
        let equation = Equation::parse(&self.equation, &ranks)?;
        let mut extents: BTreeMap<Label, Dimension> = BTreeMap::new();
        for (index, labels) in equation.operands.iter().enumerate() {
            for (axis, label) in labels.iter().enumerate() {
                let extent = cx.shape(index).dim(axis);
                let known = extents.entry(*label).or_insert(extent);
                *known = match (known.value(), extent.value()) {
                    (Some(1), _) => extent,
                    (_, Some(1)) => *known,
                    (Some(a), Some(b)) if a != b => {
                        return Err(OpError::Invalid(format!("extents {a} and {b} of {label:?} differ")));
                    }
                    (Some(_), _) => *known,
                    (_, Some(_)) => extent,
                    _ if known.same(extent) => *known,
                    _ => Dimension::DYNAMIC,
                };
            }
        }
        let shape = equation.result.iter().map(|l| extents[l]).collect::<PartialShape>();
        Ok(vec![OutputType::new(ty, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(!inputs.is_empty(), "has no operands");
        let inputs: Vec<Tensor> = inputs.iter().map(Tensor::to_contiguous).collect();
        let ty = inputs[0].element_type();
        let out = dispatch_numeric!(ty, T => self.contract::<T>(&inputs)?,
            else return Err(unsupported_type(ty)));
        Ok(vec![out])
    }
}

define_op! {
    /// Determinants of the matrices in the last two axes.
    /// <https://onnx.ai/onnx/operators/onnx__Det.html>
    pub struct Det("Det", 0) {}
}

/// The determinant of an `n` by `n` matrix, which is overwritten: Gaussian elimination with partial pivoting.
fn determinant(a: &mut [f64], n: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..n {
        let size = |row: usize| a[row * n + column].abs();
        let pivot = (column..n).fold(column, |best, row| if size(row) > size(best) { row } else { best });
        if a[pivot * n + column] == 0.0 {
            return 0.0;
        }
        if pivot != column {
            (0..n).for_each(|i| a.swap(pivot * n + i, column * n + i));
            product = -product;
        }
        let head = a[column * n + column];
        product *= head;
        for row in column + 1..n {
            let factor = a[row * n + column] / head;
            for i in column..n {
                a[row * n + i] -= factor * a[column * n + i];
            }
        }
    }
    product
}

impl OpRules for Det {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 2..=usize::MAX)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let shape = cx.shape(0);
        let Some(dims) = shape.dims() else {
            return Ok(vec![OutputType::new(cx.element_type(0), PartialShape::dynamic())]);
        };
        let (batch, matrix) = dims.split_at(dims.len() - 2);
        op_ensure!(matrix[0].intersect(matrix[1]).is_some(), "matrices of {shape} are not square");
        Ok(vec![OutputType::new(cx.element_type(0), PartialShape::new(batch))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        op_ensure!(
            shape.rank() >= 2 && shape[shape.rank() - 1] == shape[shape.rank() - 2],
            "matrices of {shape} are not square"
        );
        let (batch, n) = (&shape[..shape.rank() - 2], shape[shape.rank() - 1]);
        let count = batch.iter().product::<usize>();
        let mut values = inputs[0].to_f64_vec()?;
        let found: Vec<f64> =
            (0..count).map(|i| determinant(&mut values[i * n * n..(i + 1) * n * n], n)).collect();
        let ty = inputs[0].element_type();
        let out = dispatch_float!(ty, T => Tensor::from_f64s::<T>(batch, &found)?,
            else return Err(unsupported_type(ty)));
        Ok(vec![out])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Einsum>(), OpEntry::of::<Det>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>() as i64;
        Tensor::from_i64s(&(1..=n).collect::<Vec<_>>()).reshape(shape).expect("fits")
    }

    fn einsum(equation: &str, inputs: &[Tensor]) -> OpResult<Tensor> {
        let op = Einsum { equation: equation.to_owned() };
        Ok(op.evaluate(inputs)?.remove(0))
    }

    #[test]
    fn equations_mean_what_they_mean_in_numpy() {
        let (a, b) = (counted(&[2, 3]), counted(&[3, 2]));
        let got = |e: &str, i: &[Tensor]| einsum(e, i).expect("valid").to_i64_vec().expect("i64");
        assert_eq!(got("ij,jk->ik", &[a.clone(), b.clone()]), [22, 28, 49, 64]);
        assert_eq!(got("ij,jk", &[a.clone(), b.clone()]), [22, 28, 49, 64]);
        assert_eq!(got("i j -> j i", std::slice::from_ref(&a)), [1, 4, 2, 5, 3, 6]);
        assert_eq!(got("ba", std::slice::from_ref(&a)), [1, 4, 2, 5, 3, 6]);
        assert_eq!(got("ij->", std::slice::from_ref(&a)), [21]);
        assert_eq!(got("ii->i", &[counted(&[3, 3])]), [1, 5, 9]);
        assert_eq!(got("...ii->...", &[counted(&[2, 2, 2])]), [5, 13]);
        assert_eq!(got("...j,...j->...", &[a.clone(), counted(&[3])]), [14, 32]);
        assert_eq!(got(",ij->ij", &[counted(&[]), a.clone()]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(got("i,j,k->ijk", &[counted(&[2]), counted(&[1]), counted(&[2])]), [1, 2, 2, 4]);
        assert_eq!(got("ij,ij->i", &[a.clone(), counted(&[2, 1])]), [6, 30]);
        assert_eq!(got("ij->i", &[counted(&[2, 0])]), [0, 0]);
        for bad in ["ij", "ij,jk->il", "i,jk->ik", "ij,jk->ii", "i1,jk->k", "ij,jk,kl->il"] {
            assert!(bad == "ij" || einsum(bad, &[a.clone(), b.clone()]).is_err(), "{bad}");
        }
        assert!(einsum("ij,jk->ik", &[a.clone(), a]).is_err());
    }

    #[test]
    fn determinants_of_small_matrices_are_exact() {
        let x = Tensor::from_vec([3, 2, 2], vec![1f32, 2., 3., 4., 0., 1., 1., 0., 1., 2., 2., 4.]).expect("fits");
        let got = Det {}.evaluate(&[x]).expect("valid").remove(0);
        assert_eq!(got.as_slice::<f32>().expect("f32"), [-2., -1., 0.]);
        let none = Tensor::from_vec([0, 0], Vec::<f32>::new()).expect("fits");
        assert_eq!(Det {}.evaluate(&[none]).expect("valid")[0].as_slice::<f32>().expect("f32"), [1.]);
        assert!(Det {}.evaluate(&[Tensor::from_vec([1, 2], vec![1f32, 2.]).expect("fits")]).is_err());
    }
}
