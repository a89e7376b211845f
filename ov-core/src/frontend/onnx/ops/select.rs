//! Where.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::op::select::Select;

fn where_(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    Ok(vec![cx.add(Select {}, &inputs)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Where", 9, where_)];
