//! Convolution and matrix product of 8-bit integers with constant weights, with what follows them fused.

use crate::{
    ElementType, PartialShape, Tensor,
    op::{
        InferContext, InputInfo, Op, OpEntry, OpError, OpResult, OpRules, OutputType,
        convolution::Convolution, matmul::MatMul, present, window::AutoPad,
    },
};

use super::{
    activation,
    common::{Convolving, convolving, has_activation},
    layout::{permute, permute_shape, to_last, to_planar},
};
use super::activation::Activation;

/// The inputs that both operators have.
///
/// x and w are `i8` or `u8`. [`OUTPUT_SCALE`](Self::OUTPUT_SCALE) and [`OUTPUT_ZERO`](Self::OUTPUT_ZERO) are there when
/// the output is not `f32`; others may be absent where that is said.
#[derive(Clone, Copy, Debug)]
pub struct Port;

impl Port {
    /// The data.
    pub const X: usize = 0;
    /// The weights, a constant.
    pub const W: usize = 1;
    /// Zero point of x, one element of its type, or absent.
    pub const X_ZERO: usize = 2;
    /// Zero point of w, a constant of its type: absent, one element, or one per output channel.
    pub const W_ZERO: usize = 3;
    /// What sums are multiplied by: one `f32`, or one per output channel.
    pub const SCALE: usize = 4;
    /// One `f32` per output channel, constant, or absent.
    pub const BIAS: usize = 5;
    /// An `f32` tensor of the output's shape, or absent.
    pub const RESIDUAL: usize = 6;
    /// Size of a step of the output, one `f32`.
    pub const OUTPUT_SCALE: usize = 7;
    /// Zero point of the output, one element of its type.
    pub const OUTPUT_ZERO: usize = 8;
    /// What the scale is multiplied by first, one `f32`, or absent; only where a device asks for it
    /// ([`factors`](crate::pass::integer::factors)).
    pub const FACTOR: usize = 9;
}

define_op! {
    /// `act(conv(x - x_zero, w - w_zero) scale + bias + residual)` or `act(… + bias) + residual`, quantized unless the
    /// output is `f32`; see [`Port`] for the inputs.
    ///
    /// x is `[n, c, …]`, w `[o, c / groups, k…]`, the output `[n, o, …]`; `[n, …, c]` and `[n, …, o]` when `last`.
    pub struct IntegerConvolution("IntegerConvolution", 0) {
        /// As in `Convolution`.
        strides: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        dilations: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        pads_begin: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        pads_end: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        auto_pad: AutoPad = AutoPad::Explicit,
        /// Groups of channels.
        groups: i64 = 1,
        /// Whether the output is channels-last, and x too unless it is `planar`.
        last: bool = false,
        /// Whether x is planar although the output is channels-last.
        planar: bool = false,
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
        /// Whether the residual is added after the activation.
        residual_after: bool = false,
        /// `f32`, `u8` or `i8`.
        output_type: ElementType = ElementType::F32,
    }
}

has_activation!(IntegerConvolution);
convolving!(IntegerConvolution);

impl IntegerConvolution {
    fn x_is_last(&self) -> bool {
        self.last && !self.planar
    }
}

impl OpRules for IntegerConvolution {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        check(cx, self.output_type)?;
        let (x, w) = (cx.input(Port::X)?, cx.input(Port::W)?);
        let Some(rank) = x.shape.rank() else {
            return Ok(vec![OutputType::new(self.output_type, PartialShape::dynamic())]);
        };
        let planar = if self.x_is_last() {
            permute_shape(x.shape, &to_planar(rank))
        } else {
            x.shape.clone()
        };
        let (op, filters) = self.plain(w.shape)?;
        let infos = [
            InputInfo { shape: &planar, value: None, dims: None, element_type: ElementType::I32 },
            InputInfo { shape: &filters, value: None, dims: None, element_type: ElementType::I32 },
        ];
        let types = op.infer(&InferContext { inputs: &infos })?;
        let shape = types.first().map_or_else(PartialShape::dynamic, |t| t.shape.clone());
        let shape = if self.last { permute_shape(&shape, &to_last(rank)) } else { shape };
        Ok(vec![OutputType::new(self.output_type, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let rank = inputs[Port::X].rank();
        let x = centred(inputs, Port::X, Port::X_ZERO, 1)?;
        let x = if self.x_is_last() { permute(&x, &to_planar(rank))?.to_contiguous() } else { x };
        let w = &inputs[Port::W];
        let per_output = w.len() / w.shape().first().copied().unwrap_or(1).max(1);
        let w = centred(inputs, Port::W, Port::W_ZERO, per_output)?;
        let (op, filters) = self.plain(&w.shape().into())?;
        let w = w.reshape(filters.to_shape().unwrap_or_default())?;
        let sums = op.evaluate(&[x, w])?;
        let sums = permute(&sums[0], &to_last(rank))?.to_contiguous();
        let finish = (self.activation()?, self.residual_after);
        let y = finished(&sums, inputs, finish, self.output_type)?;
        Ok(vec![if self.last { y } else { permute(&y, &to_planar(rank))?.to_contiguous() }])
    }
}

define_op! {
    /// `act((x - x_zero) (w - w_zero) scale + bias + residual)` or `act(… + bias) + residual`, quantized unless the
    /// output is `f32`; see [`Port`] for the inputs.
    ///
    /// x is `[…, k]`, w `[k, n]` (`[n, k]` when `transpose_b`), the output `[…, n]`.
    pub struct IntegerProduct("IntegerProduct", 0) {
        /// Whether w is `[n, k]`.
        transpose_b: bool = false,
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
        /// Whether the residual is added after the activation.
        residual_after: bool = false,
        /// `f32`, `u8` or `i8`.
        output_type: ElementType = ElementType::F32,
    }
}

has_activation!(IntegerProduct);

impl IntegerProduct {
    fn product(&self) -> MatMul {
        MatMul { transpose_a: false, transpose_b: self.transpose_b }
    }
}

impl OpRules for IntegerProduct {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        check(cx, self.output_type)?;
        let (x, w) = (cx.input(Port::X)?, cx.input(Port::W)?);
        let infos = [
            InputInfo { value: None, dims: None, element_type: ElementType::I32, ..x },
            InputInfo { value: None, dims: None, element_type: ElementType::I32, ..w },
        ];
        let types = Op::infer(&self.product(), &InferContext { inputs: &infos })?;
        let shape = types.first().map_or_else(PartialShape::dynamic, |t| t.shape.clone());
        Ok(vec![OutputType::new(self.output_type, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = centred(inputs, Port::X, Port::X_ZERO, 1)?;
        let run =
            if self.transpose_b { inputs[Port::W].shape().last().copied().unwrap_or(1) } else { 1 };
        let w = centred(inputs, Port::W, Port::W_ZERO, run)?;
        let sums = Op::evaluate(&self.product(), &[x, w])?;
        let finish = (self.activation()?, self.residual_after);
        Ok(vec![finished(&sums[0], inputs, finish, self.output_type)?])
    }
}

/// Checks the inputs that both operators have.
fn check(cx: &InferContext<'_>, output_type: ElementType) -> OpResult<()> {
    let bytes = |t: ElementType| matches!(t, ElementType::I8 | ElementType::U8);
    let count =
        if output_type == ElementType::F32 { Port::SCALE + 1 } else { Port::OUTPUT_ZERO + 1 };
    cx.expect_inputs(count..=Port::FACTOR + 1)?;
    for (index, zero) in [(Port::X, Port::X_ZERO), (Port::W, Port::W_ZERO)] {
        cx.expect_type(index, "i8 or u8", bytes)?;
        if cx.is_present(zero) {
            let ty = cx.element_type(index);
            cx.expect_type(zero, "the type of what it belongs to", |t| t == ty)?;
        }
    }
    if !bytes(output_type) && output_type != ElementType::F32 {
        return Err(OpError::Attribute {
            name: "output_type",
            got: output_type.to_string(),
            expected: "f32, i8 or u8".to_owned(),
        });
    }
    if bytes(output_type) {
        cx.expect_type(Port::OUTPUT_ZERO, "the type of the output", |t| t == output_type)?;
        cx.expect_type(Port::OUTPUT_SCALE, "f32", |t| t == ElementType::F32)?;
    }
    if cx.is_present(Port::FACTOR) {
        cx.expect_type(Port::FACTOR, "f32", |t| t == ElementType::F32)?;
    }
    cx.expect_type(Port::SCALE, "f32", |t| t == ElementType::F32)
}

/// Input `index` less its zero point, in `i32`; zero points change every `run` elements.
fn centred(inputs: &[Tensor], index: usize, zero: usize, run: usize) -> OpResult<Tensor> {
    let t = &inputs[index];
    let zeros = present(inputs, zero).map(Tensor::to_i64_vec).transpose()?.unwrap_or_default();
    let values = t.to_i64_vec()?;
    let values = values.iter().enumerate().map(|(i, v)| {
        let zero = match zeros.len() {
            0 => 0,
            n => zeros[i / run.max(1) % n],
        };
        (v - zero) as i32
    });
    Ok(Tensor::from_vec(t.shape().clone(), values.collect())?)
}

/// What follows the sums, whose last axis is that of the output channels.
fn finished(
    sums: &Tensor,
    inputs: &[Tensor],
    (activation, residual_after): (Activation, bool),
    output_type: ElementType,
) -> OpResult<Tensor> {
    let list = |port: usize| -> OpResult<Vec<f64>> {
        Ok(present(inputs, port).map(Tensor::to_f64_vec).transpose()?.unwrap_or_default())
    };
    let (scale, bias, residual) = (list(Port::SCALE)?, list(Port::BIAS)?, list(Port::RESIDUAL)?);
    let factor = list(Port::FACTOR)?.first().map_or(1.0, |f| *f as f32);
    let scale: Vec<f64> = scale.iter().map(|s| f64::from(*s as f32 * factor)).collect();
    let sums_list = sums.to_i64_vec()?;
    let n = sums.shape().last().copied().unwrap_or(1).max(1);
    let pick = |v: &[f64], i: usize| match v.len() {
        0 => 0.0,
        1 => v[0],
        len => v[i % n % len],
    };
    let values = sums_list.iter().enumerate().map(|(i, sum)| {
        let x = f64::from(*sum as f32) * pick(&scale, i) + pick(&bias, i);
        let r = residual.get(i).copied().unwrap_or(0.0);
        if residual_after {
            activation::exact(activation, x) + r
        } else {
            activation::exact(activation, x + r)
        }
    });
    let shape = sums.shape().clone();
    if output_type == ElementType::F32 {
        return Ok(Tensor::from_vec(shape, values.map(|v| v as f32).collect())?);
    }
    let (step, zero) = (list(Port::OUTPUT_SCALE)?, list(Port::OUTPUT_ZERO)?);
    let (step, zero) = (pick(&step, 0) as f32, pick(&zero, 0) as f32);
    let quantized = values.map(|v| (v as f32 * (1.0 / step)).round_ties_even() + zero);
    Ok(if output_type == ElementType::I8 {
        Tensor::from_vec(shape, quantized.map(|v| v.clamp(-128.0, 127.0) as i8).collect())?
    } else {
        Tensor::from_vec(shape, quantized.map(|v| v.clamp(0.0, 255.0) as u8).collect())?
    })
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] =
    &[OpEntry::of::<IntegerConvolution>(), OpEntry::of::<IntegerProduct>()];
