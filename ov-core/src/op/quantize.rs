//! Quantization to small types and back.

use super::{
    BroadcastPlan, InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    convert::{Narrowing, convert_tensor, decode_table, pack, to_f64},
    normalize_axis, present, unsupported_type,
};
use crate::{
    choice, dispatch_float, dispatch_numeric,
    tensor::{ElementType, PartialShape, Shape, Tensor},
};

/// How scales and zero points run through the data.
fn parameter_index(
    data: &Shape,
    parameter: &Shape,
    axis: i64,
    block_size: i64,
) -> OpResult<impl Fn(usize) -> usize + use<>> {
    let wrong = || OpError::Input {
        index: 1,
        got: format!("shape {parameter}"),
        expected: format!("one element, one per element of the axis, or one per block, for data {data}"),
    };
    // Per element: block · (extent of the axis in blocks) · inner, as (inner, extent, block, blocks).
    let (inner, extent, block, blocks) = if parameter.elements() == 1 && block_size == 0 {
        (usize::MAX, 1, 1, 1)
    } else {
        let axis = normalize_axis(axis, data.rank())?;
        let inner: usize = data[axis + 1..].iter().product();
        if block_size == 0 {
            if parameter.rank() != 1 || parameter[0] != data[axis] {
                return Err(wrong());
            }
            // One per element of the axis: the same for every outer index.
            return Ok(Walk { inner: inner.max(1), extent: data[axis].max(1), block: 1, blocks: 0 }.index());
        }
        let block = usize::try_from(block_size).ok().filter(|b| *b > 0).ok_or_else(|| OpError::Attribute {
            name: "block_size",
            got: block_size.to_string(),
            expected: "at least 0".to_owned(),
        })?;
        let blocks = data[axis].div_ceil(block);
        let mut expected = data.clone();
        expected.dims_mut()[axis] = blocks;
        if *parameter != expected {
            return Err(wrong());
        }
        (inner.max(1), data[axis].max(1), block, blocks)
    };
    Ok(Walk { inner, extent, block, blocks }.index())
}

/// Extents for the index of a scale: elements inside the axis, along it, per block, and blocks along it (0: the scales
/// have no further axes).
#[derive(Clone, Copy)]
struct Walk {
    inner: usize,
    extent: usize,
    block: usize,
    blocks: usize,
}

impl Walk {
    fn index(self) -> impl Fn(usize) -> usize {
        move |i| {
            let Self { inner, extent, block, blocks } = self;
            if inner == usize::MAX {
                return 0;
            }
            let along = i / inner % extent;
            if blocks == 0 {
                return along;
            }
            (i / inner / extent * blocks + along / block) * inner + i % inner
        }
    }
}

/// Rounds to the precision of a floating-point type.
fn round_to(v: f64, ty: ElementType) -> f64 {
    match ty {
        ElementType::F32 => f64::from(v as f32),
        ElementType::F16 => half::f16::from_f64(v).to_f64(),
        ElementType::Bf16 => half::bf16::from_f64(v).to_f64(),
        _ => v,
    }
}

/// Least and greatest value of an integer type.
fn integer_range(ty: ElementType) -> Option<(f64, f64)> {
    let bits = i32::try_from(ty.bits()).ok()?;
    if ty.is_unsigned_integer() {
        Some((0.0, 2f64.powi(bits) - 1.0))
    } else if ty.is_signed_integer() {
        Some((-2f64.powi(bits - 1), 2f64.powi(bits - 1) - 1.0))
    } else {
        None
    }
}

/// Integers from values that lie in range, or floats of 8 and 4 bits.
fn narrow(shape: Shape, values: &[f64], to: ElementType, narrowing: Narrowing) -> OpResult<Tensor> {
    let wide = Tensor::from_f64s::<f64>(shape.clone(), values)?;
    if to.is_sub_byte() && to.is_integer() {
        let codes: Vec<u8> = values.iter().map(|v| *v as i64 as u8).collect();
        return pack(shape, to, &codes);
    }
    convert_tensor(&wide, to, narrowing)
}

define_op! {
    /// `saturate(round(x / scale) + zero point)`, halves to even; inputs x, scale and optionally the zero point, which
    /// gives the output its type. Scales are one, one per element of `axis`, or one per block of `block_size` along it.
    /// <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>
    pub struct QuantizeLinear("QuantizeLinear", 0) {
        /// The axis that scales run along.
        axis: i64 = 1,
        /// Elements of the axis per scale; 0 when there are no blocks.
        block_size: i64 = 0,
        /// Element type of the output when there is no zero point.
        output_type: ElementType = ElementType::U8,
        /// Element type whose precision the quotient has; `Dynamic` for that of the scale.
        precision: ElementType = ElementType::Dynamic,
        /// Whether values out of range of an 8-bit float become its greatest finite value.
        saturate: bool = true,
    }
}

impl OpRules for QuantizeLinear {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        let ty = if cx.len() > 2 && cx.is_present(2) { cx.element_type(2) } else { self.output_type };
        check_parameters(cx, self.axis, self.block_size)?;
        Ok(vec![OutputType::new(ty, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let (mut values, scales) = (to_f64(&inputs[0])?, to_f64(&inputs[1])?);
        let zero_point = present(inputs, 2);
        let to = zero_point.map_or(self.output_type, Tensor::element_type);
        let zeros = zero_point.map(to_f64).transpose()?;
        let index = parameter_index(&shape, inputs[1].shape(), self.axis, self.block_size)?;
        if let Some(z) = &zeros {
            crate::op_ensure!(z.len() == scales.len(), "{} zero points for {} scales", z.len(), scales.len());
        }
        let precision =
            if self.precision == ElementType::Dynamic { inputs[1].element_type() } else { self.precision };
        let range = integer_range(to);
        for (i, v) in values.iter_mut().enumerate() {
            let p = index(i);
            let quotient = round_to(round_to(*v, precision) / round_to(scales[p], precision), precision);
            let zero = zeros.as_ref().map_or(0.0, |z| z[p]);
            *v = match range {
                Some((min, max)) => (quotient.round_ties_even() + zero).clamp(min, max),
                None => quotient + zero,
            };
        }
        let narrowing = Narrowing { saturate: self.saturate, ..Narrowing::default() };
        Ok(vec![narrow(shape, &values, to, narrowing)?])
    }
}

/// Checks what is known of the shape of scales.
fn check_parameters(cx: &InferContext<'_>, axis: i64, block_size: i64) -> OpResult<()> {
    if let (Some(data), Some(scale)) = (cx.shape(0).to_shape(), cx.shape(1).to_shape()) {
        drop(parameter_index(&data, &scale, axis, block_size)?);
    }
    Ok(())
}

define_op! {
    /// `(x - zero point) scale`; inputs x, scale and optionally the zero point. Scales as for [`QuantizeLinear`].
    /// <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>
    pub struct DequantizeLinear("DequantizeLinear", 0) {
        /// The axis that scales run along.
        axis: i64 = 1,
        /// Elements of the axis per scale; 0 when there are no blocks.
        block_size: i64 = 0,
        /// Element type of the output; `Dynamic` for that of the scale.
        output_type: ElementType = ElementType::Dynamic,
    }
}

impl OpRules for DequantizeLinear {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        check_parameters(cx, self.axis, self.block_size)?;
        let ty = if self.output_type == ElementType::Dynamic { cx.element_type(1) } else { self.output_type };
        Ok(vec![OutputType::new(ty, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let (mut values, scales) = (to_f64(&inputs[0])?, to_f64(&inputs[1])?);
        let zeros = present(inputs, 2).map(to_f64).transpose()?;
        let index = parameter_index(&shape, inputs[1].shape(), self.axis, self.block_size)?;
        if let Some(z) = &zeros {
            crate::op_ensure!(z.len() == scales.len(), "{} zero points for {} scales", z.len(), scales.len());
        }
        for (i, v) in values.iter_mut().enumerate() {
            let p = index(i);
            *v = (*v - zeros.as_ref().map_or(0.0, |z| z[p])) * scales[p];
        }
        let ty =
            if self.output_type == ElementType::Dynamic { inputs[1].element_type() } else { self.output_type };
        dispatch_float!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

define_op! {
    /// Quantization of `f32` to `u8` by the range of the data, which 0 always belongs to; outputs the data, the scale and
    /// the zero point. <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>
    pub struct DynamicQuantizeLinear("DynamicQuantizeLinear", 0) {}
}

impl OpRules for DynamicQuantizeLinear {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "f32", |t| t == ElementType::F32)?;
        let scalar = PartialShape::from([]);
        Ok(vec![
            OutputType::new(ElementType::U8, cx.shape(0)),
            OutputType::new(ElementType::F32, scalar.clone()),
            OutputType::new(ElementType::U8, scalar),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = inputs[0].to_contiguous();
        let data = x.as_slice::<f32>()?;
        let (min, max) = data.iter().fold((0f32, 0f32), |(a, b), v| (a.min(*v), b.max(*v)));
        let scale = (max - min) / 255.0;
        let (zero_point, inverse) = if scale == 0.0 {
            (0.0, 0.0)
        } else {
            ((-min / scale).clamp(0.0, 255.0).round_ties_even(), 1.0)
        };
        let quantize = |v: &f32| {
            let quotient = if inverse == 0.0 { 0.0 } else { v / scale };
            (quotient.round_ties_even() + zero_point).clamp(0.0, 255.0) as u8
        };
        let y: Vec<u8> = data.iter().map(quantize).collect();
        Ok(vec![
            Tensor::from_vec(x.shape().clone(), y)?,
            Tensor::scalar(scale),
            Tensor::scalar(zero_point as u8),
        ])
    }
}

define_op! {
    /// Rounds values to `levels` steps of an output range; inputs x, input low, input high, output low, output high, which
    /// broadcast to x.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/quantization/fake-quantize-1.html>
    pub struct FakeQuantize("FakeQuantize", 1) {
        /// Number of steps, at least 2.
        levels: i64 = 256,
    }
}

impl OpRules for FakeQuantize {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        if self.levels < 2 {
            return Err(OpError::Attribute {
                name: "levels",
                got: self.levels.to_string(),
                expected: "at least 2".to_owned(),
            });
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let limits = inputs[1..5].iter().map(to_f64).collect::<OpResult<Vec<_>>>()?;
        let plan = BroadcastPlan::new([
            &shape,
            inputs[1].shape(),
            inputs[2].shape(),
            inputs[3].shape(),
            inputs[4].shape(),
        ])?;
        crate::op_ensure!(plan.shape == shape, "the limits do not broadcast to data {shape}");
        let mut values = to_f64(&inputs[0])?;
        let steps = (self.levels - 1) as f64;
        plan.for_each_run(|offsets, strides, n| {
            for k in 0..n {
                let limit = |j: usize| limits[j - 1][offsets[j] + strides[j] * k];
                let v = &mut values[offsets[0] + strides[0] * k];
                let (low, high, out_low, out_high) = (limit(1), limit(2), limit(3), limit(4));
                *v = if *v <= low.min(high) {
                    out_low
                } else if *v > low.max(high) {
                    out_high
                } else {
                    ((*v - low) / (high - low) * steps).round_ties_even() / steps * (out_high - out_low) + out_low
                };
            }
        });
        let ty = inputs[0].element_type();
        dispatch_numeric!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

choice! {
    /// The 8-bit float that [`FakeConvert`] rounds to.
    pub enum FakeConvertType {
        /// `F8E4M3`.
        F8E4M3 = "f8e4m3",
        /// `F8E5M2`.
        F8E5M2 = "f8e5m2",
    }
}

define_op! {
    /// Rounds `x scale - shift` to a float of 8 bits, and gives it back as `(y + shift) / scale`; inputs x, scale and
    /// optionally shift, which broadcast to x.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/quantization/fake-convert-13.html>
    pub struct FakeConvert("FakeConvert", 13) {
        /// The float of 8 bits.
        destination_type: FakeConvertType = FakeConvertType::F8E4M3,
    }
}

impl OpRules for FakeConvert {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let zero = Tensor::scalar(0f32);
        let shift = inputs.get(2).unwrap_or(&zero);
        let plan = BroadcastPlan::new([&shape, inputs[1].shape(), shift.shape()])?;
        crate::op_ensure!(plan.shape == shape, "scale and shift do not broadcast to data {shape}");
        let (mut values, scale, shift) = (to_f64(&inputs[0])?, to_f64(&inputs[1])?, to_f64(shift)?);
        let to = match self.destination_type {
            FakeConvertType::F8E4M3 => ElementType::F8E4M3,
            FakeConvertType::F8E5M2 => ElementType::F8E5M2,
        };
        let table = decode_table(to).unwrap_or_default();
        plan.for_each_run(|[i, a, b], [s, t, u], n| {
            for k in 0..n {
                let (scale, shift) = (scale[a + t * k], shift[b + u * k]);
                let v = &mut values[i + s * k];
                let code = super::convert::encode(*v * scale - shift, to, Narrowing::default()).unwrap_or(0);
                *v = (table[usize::from(code)] + shift) / scale;
            }
        });
        let ty = inputs[0].element_type();
        dispatch_float!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<QuantizeLinear>(),
    OpEntry::of::<DequantizeLinear>(),
    OpEntry::of::<DynamicQuantizeLinear>(),
    OpEntry::of::<FakeQuantize>(),
    OpEntry::of::<FakeConvert>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn scales_apply_to_all_to_an_axis_or_to_blocks() {
        let x = f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
        for (scale, axis, block_size, expected) in [
            (Tensor::scalar(2f32), 1, 0, [0., 1., 2., 2., 2., 3.]),
            (f32s(&[2], &[1., 2.]), 0, 0, [1., 2., 3., 2., 2., 3.]),
            (f32s(&[3], &[1., 2., 3.]), -1, 0, [1., 1., 1., 4., 2., 2.]),
            (f32s(&[2, 2], &[1., 3., 2., 6.]), 1, 2, [1., 2., 1., 2., 2., 1.]),
            (f32s(&[1, 3], &[1., 2., 3.]), 0, 2, [1., 1., 1., 4., 2., 2.]),
        ] {
            for output_type in [ElementType::U8, ElementType::I8, ElementType::I4, ElementType::I16] {
                let op = QuantizeLinear { axis, block_size, output_type, ..QuantizeLinear::default() };
                let got = op.evaluate(&[x.clone(), scale.clone()]).expect("valid").remove(0);
                assert_eq!(got.element_type(), output_type);
                assert_eq!(to_f64(&got).expect("numeric"), expected, "{scale:?} {axis} {block_size}");
                let back = DequantizeLinear { axis, block_size, ..DequantizeLinear::default() };
                let back = back.evaluate(&[got, scale.clone()]).expect("valid").remove(0);
                for (b, x) in back.to_f64_vec().expect("f32").iter().zip(x.to_f64_vec().expect("f32")) {
                    assert!((b - x).abs() <= 3.0);
                }
            }
        }
        assert!(QuantizeLinear::default().evaluate(&[x.clone(), f32s(&[2], &[1., 1.])]).is_err());
        let blocks = QuantizeLinear { block_size: -2, ..QuantizeLinear::default() };
        assert!(blocks.evaluate(&[x, f32s(&[2, 2], &[1.; 4])]).is_err());
    }

    #[test]
    fn values_saturate_around_the_zero_point() {
        let x = f32s(&[4], &[-300., -1., 1., 300.]);
        let zero = Tensor::scalar(128u8);
        let got = QuantizeLinear::default().evaluate(&[x, Tensor::scalar(1f32), zero]).expect("valid");
        assert_eq!(got[0].as_slice::<u8>().expect("u8"), [0, 127, 129, 255]);
    }

    #[test]
    fn ranges_are_found() {
        let got = DynamicQuantizeLinear {}.evaluate(&[f32s(&[3], &[0., 2., -3.])]).expect("valid");
        assert_eq!(got[0].as_slice::<u8>().expect("u8"), [153, 255, 0]);
        assert!((got[1].as_slice::<f32>().expect("f32")[0] - 5. / 255.).abs() < 1e-7);
        assert_eq!(got[2].as_slice::<u8>().expect("u8"), [153]);
        let got = DynamicQuantizeLinear {}.evaluate(&[f32s(&[2], &[0., 0.])]).expect("valid");
        assert_eq!(got[0].as_slice::<u8>().expect("u8"), [0, 0]);
    }

    #[test]
    fn steps_are_counted_over_the_range() {
        let s = |v: f32| Tensor::scalar(v);
        let x = f32s(&[5], &[-1., 0.2, 0.4, 0.9, 7.]);
        let op = FakeQuantize { levels: 3 };
        let got = op.evaluate(&[x.clone(), s(0.), s(1.), s(10.), s(20.)]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [10., 10., 15., 20., 20.]);
        let got = FakeConvert::default().evaluate(&[x, s(1.)]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-1., 0.203_125, 0.406_25, 0.875, 7.]);
    }
}
