//! Cast, `CastLike` and `BitCast`.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp};
use crate::{
    model::Value,
    op::{
        Choice as _, OpError,
        convert::{BitCast, Convert, ConvertLike, ConvertNarrow, ScaleRounding},
    },
    tensor::ElementType,
};

fn target(cx: &NodeContext<'_, '_>) -> Result<ElementType, ConvertError> {
    cx.optional_element_type("to")?.filter(|t| *t != ElementType::Dynamic).ok_or_else(|| {
        OpError::Attribute { name: "to", got: "missing".to_owned(), expected: "a data type".to_owned() }.into()
    })
}

fn cast_to(cx: &mut NodeContext<'_, '_>, x: Value, to: ElementType) -> Result<Value, ConvertError> {
    let saturate = cx.bool("saturate", true)?;
    let mut round_mode = ScaleRounding::default();
    let text = cx.str("round_mode", "up")?.to_owned();
    if !round_mode.set_text(&text) {
        return Err(OpError::Attribute {
            name: "round_mode",
            got: text,
            expected: "up, down or nearest".to_owned(),
        }
        .into());
    }
    if to.is_float() && to.bits() == 8 && (saturate || round_mode != ScaleRounding::Up) {
        return cx.add(ConvertNarrow { destination_type: to, saturate, round_mode }, &[x]);
    }
    cx.add(Convert { destination_type: to }, &[x])
}

fn cast(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, to) = (cx.input(0)?, target(cx)?);
    Ok(vec![cast_to(cx, x, to)?])
}

fn cast_like(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, like) = (cx.input(0)?, cx.input(1)?);
    let to = cx.element_type(like);
    Ok(vec![if to == ElementType::Dynamic { cx.add(ConvertLike {}, &[x, like])? } else { cast_to(cx, x, to)? }])
}

fn bit_cast(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, destination_type) = (cx.input(0)?, target(cx)?);
    Ok(vec![cx.add(BitCast { destination_type }, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] =
    &[("", "Cast", 6, cast), ("", "CastLike", 15, cast_like), ("", "BitCast", 26, bit_cast)];
