//! Logic on truth values and on the bits of integers.
#![allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "one body serves every width")]

use super::{
    InferContext, OpEntry, OpResult, OpRules, OutputType, activation::map, infer_binary, unsupported_type, zip_map,
    zip_test,
};
use crate::tensor::{ElementType, Tensor};

macro_rules! logical {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $f:expr;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {}
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                for index in 0..2 {
                    cx.expect_type(index, "boolean", |t| t == ElementType::Boolean)?;
                }
                infer_binary(cx, |_, _| None)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let f: fn(bool, bool) -> bool = $f;
                Ok(vec![zip_test::<u8>(&inputs[0], &inputs[1], |a, b| f(a != 0, b != 0))?])
            }
        }
    )*};
}

logical! {
    /// Both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/logical/logical-and-1.html>
    LogicalAnd("LogicalAnd", 1) = |a, b| a && b;
    /// Either or both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/logical/logical-or-1.html>
    LogicalOr("LogicalOr", 1) = |a, b| a || b;
    /// Either, not both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/logical/logical-xor-1.html>
    LogicalXor("LogicalXor", 2) = |a, b| a != b;
}

define_op! {
    /// The opposite. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/logical/logical-not-1.html>
    pub struct LogicalNot("LogicalNot", 1) {}
}

impl OpRules for LogicalNot {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "boolean", |t| t == ElementType::Boolean)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let bytes = map::<u8, u8>(&inputs[0], |v| u8::from(v == 0))?;
        Ok(vec![bytes.reinterpret(ElementType::Boolean)?])
    }
}

/// Calls a generic block with `$T` bound to the Rust type of an integer element type (`u8` for `Boolean`).
macro_rules! dispatch_integer {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty {
            ElementType::I8 => { type $T = i8; $body }
            ElementType::I16 => { type $T = i16; $body }
            ElementType::I32 => { type $T = i32; $body }
            ElementType::I64 => { type $T = i64; $body }
            ElementType::Boolean | ElementType::U8 => { type $T = u8; $body }
            ElementType::U16 => { type $T = u16; $body }
            ElementType::U32 => { type $T = u32; $body }
            ElementType::U64 => { type $T = u64; $body }
            other => Err(unsupported_type(other)),
        }
    };
}

fn is_bits(ty: ElementType) -> bool {
    ty.is_integer() || ty == ElementType::Boolean
}

macro_rules! bitwise {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = |$a:ident, $b:ident, $T:ident| $f:expr;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {}
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                for index in 0..2 {
                    cx.expect_type(index, "an integer type or boolean", is_bits)?;
                }
                infer_binary(cx, |_, _| None)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let ty = inputs[0].element_type();
                let result: OpResult<Tensor> = dispatch_integer!(ty, $T =>
                    zip_map::<$T, $T, $T>(&inputs[0], &inputs[1], |$a, $b| $f));
                Ok(vec![result?.reinterpret(ty)?])
            }
        }
    )*};
}

bitwise! {
    /// Bits set in both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-and-13.html>
    BitwiseAnd("BitwiseAnd", 13) = |a, b, T| a & b;
    /// Bits set in either or both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-or-13.html>
    BitwiseOr("BitwiseOr", 13) = |a, b, T| a | b;
    /// Bits set in either, not both. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-xor-13.html>
    BitwiseXor("BitwiseXor", 13) = |a, b, T| a ^ b;
    /// `a 2^b`, bits that fall out are lost; 0 when `b` is not a number of bits of the type.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-left-shift-15.html>
    BitwiseLeftShift("BitwiseLeftShift", 15) = |a, b, T| u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0);
    /// `a / 2^b` rounded down; every bit the sign's when `b` is not a number of bits of the type.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-right-shift-15.html>
    BitwiseRightShift("BitwiseRightShift", 15) =
        |a, b, T| u32::try_from(b).ok().and_then(|b| a.checked_shr(b)).unwrap_or((a >> (T::BITS / 2)) >> (T::BITS / 2));
}

define_op! {
    /// Every bit the other way round; of truth values the opposite.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/bitwise/bitwise-not-13.html>
    pub struct BitwiseNot("BitwiseNot", 13) {}
}

impl OpRules for BitwiseNot {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "an integer type or boolean", is_bits)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let ty = inputs[0].element_type();
        if ty == ElementType::Boolean {
            return LogicalNot {}.evaluate(inputs);
        }
        let result: OpResult<Tensor> = dispatch_integer!(ty, T => map::<T, T>(&inputs[0], |v| !v));
        Ok(vec![result?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<LogicalAnd>(),
    OpEntry::of::<LogicalOr>(),
    OpEntry::of::<LogicalXor>(),
    OpEntry::of::<LogicalNot>(),
    OpEntry::of::<BitwiseAnd>(),
    OpEntry::of::<BitwiseOr>(),
    OpEntry::of::<BitwiseXor>(),
    OpEntry::of::<BitwiseNot>(),
    OpEntry::of::<BitwiseLeftShift>(),
    OpEntry::of::<BitwiseRightShift>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_tables_hold() {
        let t = |v: &[bool]| Tensor::from_bools([v.len()], v).expect("fits");
        let (a, b) = (t(&[false, false, true, true]), t(&[false, true, false, true]));
        for (op, expected) in [
            (&LogicalAnd {} as &dyn crate::op::Op, [0, 0, 0, 1]),
            (&LogicalOr {}, [0, 1, 1, 1]),
            (&LogicalXor {}, [0, 1, 1, 0]),
        ] {
            let got = op.evaluate(&[a.clone(), b.clone()]).expect("valid").remove(0);
            assert_eq!((got.element_type(), got.bytes()), (ElementType::Boolean, &expected[..]));
        }
        assert_eq!(LogicalNot {}.evaluate(&[b]).expect("valid")[0].bytes(), [1, 0, 1, 0]);
    }

    #[test]
    fn bits_combine_and_shift() {
        let t = |v: &[i8]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        let (a, b) = (t(&[12, -8, 1]), t(&[10, 1, 9]));
        for (op, expected) in [
            (&BitwiseAnd {} as &dyn crate::op::Op, [8, 0, 1]),
            (&BitwiseOr {}, [14, -7, 9]),
            (&BitwiseXor {}, [6, -7, 8]),
            (&BitwiseLeftShift {}, [0, -16, 0]),
            (&BitwiseRightShift {}, [0, -4, 0]),
        ] {
            let got = op.evaluate(&[a.clone(), b.clone()]).expect("valid").remove(0);
            assert_eq!(got.as_slice::<i8>().expect("i8"), expected, "{:?}", op.kind());
        }
        assert_eq!(BitwiseNot {}.evaluate(&[a]).expect("valid")[0].as_slice::<i8>().expect("i8"), [-13, 7, -2]);
    }
}
