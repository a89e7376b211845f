//! Conversion between element types.

mod small_float;
mod text;

pub use small_float::{Narrowing, ScaleRounding, decode_table, encode};

use super::{InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, unsupported_type};
use crate::tensor::{ElementType, Tensor, read_packed, write_packed};

/// Every element as `f64`, whatever the element type.
///
/// # Errors
/// For texts and complex types.
pub fn to_f64(tensor: &Tensor) -> OpResult<Vec<f64>> {
    let ty = tensor.element_type();
    let Some(table) = decode_table(ty) else { return tensor.to_f64_vec().map_err(OpError::from) };
    let t = tensor.to_contiguous();
    let bytes = t.bytes();
    Ok(if ty.is_sub_byte() {
        (0..t.len()).map(|i| table[usize::from(read_packed(bytes, ty.bits(), i))]).collect()
    } else {
        bytes.iter().map(|b| table[usize::from(*b)]).collect()
    })
}

fn is_native(ty: ElementType) -> bool {
    ty == ElementType::Boolean
        || matches!(ty, ElementType::F64 | ElementType::F32 | ElementType::F16 | ElementType::Bf16)
        || (ty.is_integer() && ty.bits() >= 8)
}

/// The tensor converted to another element type; the same memory when it has that type.
///
/// Integers wrap, floats truncate towards zero into integers and round to nearest even into floats, any non-zero value
/// is true. `narrowing` says what happens to values that a float of 8 or 4 bits cannot hold.
///
/// # Errors
/// [`OpError::Unsupported`] for complex types, [`OpError::Invalid`] for texts that are no number.
pub fn convert_tensor(tensor: &Tensor, to: ElementType, narrowing: Narrowing) -> OpResult<Tensor> {
    let from = tensor.element_type();
    let shape = tensor.shape().clone();
    match (from, to) {
        _ if from == to => Ok(tensor.clone()),
        (ElementType::String, _) => convert_tensor(&text::from_texts(tensor, to)?, to, narrowing),
        (_, ElementType::String) => {
            let source = if decode_table(from).is_some() {
                Tensor::from_vec(shape.clone(), to_f64(tensor)?.into_iter().map(|v| v as f32).collect())?
            } else {
                tensor.clone()
            };
            Ok(Tensor::from_strings(shape, text::to_texts(&source)?)?)
        }
        _ if is_native(from) && is_native(to) => Ok(tensor.cast(to)?),
        _ if decode_table(to).is_some() => {
            let codes: Vec<u8> =
                to_f64(tensor)?.into_iter().filter_map(|v| encode(v, to, narrowing)).collect();
            pack(shape, to, &codes)
        }
        _ if to.is_integer() && to.is_sub_byte() => {
            let values: Vec<i64> = if from.is_float() {
                to_f64(tensor)?.into_iter().map(|v| v as i64).collect()
            } else {
                tensor.to_i64_vec()?
            };
            let codes: Vec<u8> = values.into_iter().map(|v| v as u8).collect();
            pack(shape, to, &codes)
        }
        _ if is_native(to) && decode_table(from).is_some() => {
            Ok(Tensor::from_vec(shape, to_f64(tensor)?)?.cast(to)?)
        }
        _ if is_native(to) && from.is_integer() => Ok(Tensor::from_vec(shape, tensor.to_i64_vec()?)?.cast(to)?),
        _ => Err(OpError::Unsupported(format!("conversion from {from} to {to}"))),
    }
}

/// A tensor of a type of at most 8 bits from one code per element.
///
/// # Errors
/// When there are not as many codes as the shape has elements.
pub fn pack(shape: crate::Shape, ty: ElementType, codes: &[u8]) -> OpResult<Tensor> {
    if !ty.is_sub_byte() {
        return Ok(Tensor::from_bytes(ty, shape, codes)?);
    }
    let mut bytes = vec![0; ty.byte_len(codes.len()).unwrap_or(0)];
    for (i, code) in codes.iter().enumerate() {
        write_packed(&mut bytes, ty.bits(), i, *code);
    }
    Ok(Tensor::from_bytes(ty, shape, &bytes)?)
}

fn infer_conversion(cx: &InferContext<'_>, to: ElementType) -> OpResult<Vec<OutputType>> {
    let integers = |t: ElementType| t.is_integer() && t.bits() >= 32;
    let dims = cx.dims(0).filter(|_| integers(to) && integers(cx.element_type(0)));
    Ok(vec![OutputType::new(to, cx.shape(0)).with_dims(dims)])
}

define_op! {
    /// Converts elements as [`convert_tensor`] does; what an 8-bit float cannot hold becomes infinity or NaN.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/type/convert-1.html>
    pub struct Convert("Convert", 1) {
        /// Element type of the output.
        destination_type: ElementType = ElementType::F32,
    }
}

impl OpRules for Convert {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        infer_conversion(cx, self.destination_type)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![convert_tensor(&inputs[0].to_contiguous(), self.destination_type, OVERFLOWING)?])
    }
}

define_op! {
    /// [`Convert`] to a float of 8 bits with a choice of what happens to values that it cannot hold.
    /// <https://onnx.ai/onnx/operators/onnx__Cast.html>
    pub struct ConvertNarrow("ConvertNarrow", 0) {
        /// Element type of the output.
        destination_type: ElementType = ElementType::F8E4M3,
        /// See [`Narrowing::saturate`].
        saturate: bool = true,
        /// See [`Narrowing::scale_rounding`].
        round_mode: ScaleRounding = ScaleRounding::Up,
    }
}

impl OpRules for ConvertNarrow {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        infer_conversion(cx, self.destination_type)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let narrowing = Narrowing { saturate: self.saturate, scale_rounding: self.round_mode };
        Ok(vec![convert_tensor(&inputs[0].to_contiguous(), self.destination_type, narrowing)?])
    }
}

define_op! {
    /// Converts elements to the element type of the second input.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/type/convert-like-1.html>
    pub struct ConvertLike("ConvertLike", 1) {}
}

impl OpRules for ConvertLike {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        infer_conversion(cx, cx.element_type(1))
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![convert_tensor(&inputs[0].to_contiguous(), inputs[1].element_type(), OVERFLOWING)?])
    }
}

define_op! {
    /// The same bits under another element type of the same width. <https://onnx.ai/onnx/operators/onnx__BitCast.html>
    pub struct BitCast("BitCast", 0) {
        /// Element type of the output.
        destination_type: ElementType = ElementType::U32,
    }
}

impl OpRules for BitCast {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        let bits = self.destination_type.bits();
        cx.expect_type(0, &format!("a type of {bits} bits"), |t| t.bits() == bits && bits > 0)?;
        Ok(vec![OutputType::new(self.destination_type, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let from = inputs[0].element_type();
        if from == ElementType::String {
            return Err(unsupported_type(from));
        }
        let mut t = inputs[0].to_contiguous();
        if self.destination_type == ElementType::Boolean {
            let bits: Vec<bool> = t.bytes().iter().map(|b| *b != 0).collect();
            t = Tensor::from_bools(t.shape().clone(), &bits)?;
        }
        Ok(vec![t.reinterpret(self.destination_type)?])
    }
}

/// How OpenVINO's conversions narrow.
const OVERFLOWING: Narrowing = Narrowing { saturate: false, scale_rounding: ScaleRounding::Up };

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Convert>(),
    OpEntry::of::<ConvertLike>(),
    OpEntry::of::<ConvertNarrow>(),
    OpEntry::of::<BitCast>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_survive_a_trip_through_every_type_that_holds_them() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0];
        let source = Tensor::from_f64s::<f32>([6], &values).expect("fits");
        for to in ElementType::all() {
            let holds = !matches!(
                to,
                ElementType::Dynamic
                    | ElementType::Boolean
                    | ElementType::I2
                    | ElementType::U1
                    | ElementType::U2
                    | ElementType::Nf4
                    | ElementType::F8E8M0
                    | ElementType::Complex64
                    | ElementType::Complex128
            ) && (to.bits() > 0 || to == ElementType::String);
            let converted = convert_tensor(&source, to, Narrowing::default());
            if !holds {
                continue;
            }
            let converted = converted.expect("every other type converts");
            assert_eq!((converted.element_type(), converted.shape()), (to, source.shape()));
            let back = convert_tensor(&converted, ElementType::F32, Narrowing::default()).expect("back");
            assert_eq!(back, source, "{to}");
            let wide = convert_tensor(&converted, ElementType::I64, Narrowing::default()).expect("integers");
            assert_eq!(wide.to_f64_vec().expect("i64"), values, "{to}");
        }
        assert!(convert_tensor(&source, ElementType::Complex64, Narrowing::default()).is_err());
    }

    #[test]
    fn narrow_integers_wrap() {
        let source = Tensor::from_vec([5], vec![-9i32, -1, 7, 8, 17]).expect("fits");
        for (to, expected) in [(ElementType::I4, [7., -1., 7., -8., 1.]), (ElementType::U4, [7., 15., 7., 8., 1.])] {
            let t = Convert { destination_type: to }.evaluate(std::slice::from_ref(&source)).expect("valid");
            assert_eq!(to_f64(&t[0]).expect("numeric"), expected);
        }
    }

    #[test]
    fn conversions_to_small_floats_overflow() {
        let source = Tensor::from_vec([2], vec![1e6f32, -1e6]).expect("fits");
        let to = ElementType::F8E5M2;
        let t = Convert { destination_type: to }.evaluate(std::slice::from_ref(&source)).expect("valid");
        assert_eq!(to_f64(&t[0]).expect("numeric"), [f64::INFINITY, f64::NEG_INFINITY]);
        let narrow = ConvertNarrow { destination_type: to, saturate: true, ..ConvertNarrow::default() };
        let t = narrow.evaluate(&[source]).expect("valid");
        assert_eq!(to_f64(&t[0]).expect("numeric"), [57344.0, -57344.0]);
    }

    #[test]
    fn bits_are_read_as_another_type() {
        let t = Tensor::from_vec([2], vec![1f32, -0.]).expect("fits");
        let got = BitCast { destination_type: ElementType::U32 }.evaluate(std::slice::from_ref(&t)).expect("valid");
        assert_eq!(got[0].as_slice::<u32>().expect("u32"), [0x3F80_0000, 0x8000_0000]);
        assert!(BitCast { destination_type: ElementType::U64 }.evaluate(&[t]).is_err());
    }
}
