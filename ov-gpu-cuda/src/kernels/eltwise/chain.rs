//! Several element-wise operators as one formula.

use std::collections::HashMap;

use ov_core::{
    ElementType, Model,
    model::{Node, Value},
    op::{
        Op,
        activation::PRelu,
        convert::{BitCast, Convert, ConvertLike, ConvertNarrow},
        fused::element_wise::ElementWise,
        normalization::{BatchNormInference, BatchNormInference1},
        quantize::{DequantizeLinear, FakeConvert, QuantizeLinear},
    },
};

use super::{
    super::{
        Reject,
        element::{storage_type, unsupported},
    },
    formula::{Formula, formula},
    small::codec,
};

/// Whether a node may be one of several in one kernel: its inputs broadcast as in numpy, and it computes in the types that
/// its values have.
pub(crate) fn is_fusible(model: &Model, node: &Node) -> bool {
    let op = node.op();
    let apart = op.is::<PRelu>()
        || op.is::<BitCast>()
        || op.is::<ConvertLike>()
        || op.is::<BatchNormInference>()
        || op.is::<BatchNormInference1>()
        || !per_tensor(model, node)
        || op.is::<FakeConvert>()
        || op.is::<ElementWise>();
    let types: Vec<ElementType> = node.inputs().iter().map(|v| model.element_type(*v)).collect();
    let output = node.element_type(0);
    let native = |ty: ElementType| storage_type(ty).is_some();
    !apart
        && native(output)
        && types.iter().copied().all(native)
        && node.inputs().iter().all(|v| {
            // Parameters of activations are of one element, whatever their rank.
            let (rank, most) = (model.shape(*v).rank(), node.shape(0).rank());
            rank.zip(most).is_some_and(|(rank, most)| rank <= most)
        })
        && matches!(formula(op, &types, output), Some(Ok(_)))
}

/// Whether a quantization, or what undoes one, has one size of steps; other operators have no steps.
fn per_tensor(model: &Model, node: &Node) -> bool {
    let op = node.op();
    let blocks = op
        .downcast::<QuantizeLinear>()
        .map(|op| op.block_size)
        .or_else(|| op.downcast::<DequantizeLinear>().map(|op| op.block_size));
    let one = |v: &Value| model.shape(*v).to_shape().is_some_and(|s| s.elements() == 1);
    blocks.is_none_or(|size| size == 0 && node.inputs()[1..].iter().all(one))
}

/// The formula of a body whose parameters are of these types.
pub(super) fn fused(op: &ElementWise) -> Result<Formula, Reject> {
    let body = &op.body;
    let mut names: HashMap<Value, String> = HashMap::new();
    let mut inputs = Vec::new();
    for (i, id) in body.parameters().iter().enumerate() {
        names.insert((*id).into(), format!("x{i}"));
        let ty = body.node(*id).element_type(0);
        inputs.push(storage_type(ty).ok_or_else(|| unsupported(ty))?);
    }
    let (mut statements, mut constants) = (String::new(), Vec::new());
    let order = body.topological_order().map_err(|e| Reject::from(e.to_string()))?;
    for (i, id) in order.into_iter().filter(|id| !body.parameters().contains(id)).enumerate() {
        let node = body.node(id);
        let types: Vec<ElementType> = node.inputs().iter().map(|v| body.element_type(*v)).collect();
        let output = node.element_type(0);
        let step = formula(node.op(), &types, output)
            .ok_or_else(|| Reject::from(format!("{} is not element-wise", node.op().kind())))??;
        let operands: Option<Vec<&str>> =
            node.inputs().iter().map(|v| names.get(v).map(String::as_str)).collect();
        let operands = operands.ok_or("the body reads what it does not compute")?;
        let code = renamed(&step.code, &operands, constants.len());
        let code = if rounds(node.op()) { rounded(output, code) } else { code };
        let ty = storage_type(output).ok_or_else(|| unsupported(output))?;
        statements.push_str(&format!("const ov_compute<{ty}> v{i} = {code};\n  "));
        names.insert(id.into(), format!("v{i}"));
        constants.extend(step.constants);
    }
    let result = body.outputs().first().ok_or("the body has no output")?;
    let ty = body.element_type(result.value);
    Ok(Formula {
        statements,
        code: names.get(&result.value).cloned().ok_or("the body gives what it does not compute")?,
        constants,
        inputs,
        output: storage_type(ty).ok_or_else(|| unsupported(ty))?,
    })
}

/// Whether results of a half type are rounded to it even when they stay in registers: that is what conversions are for.
fn rounds(op: &dyn Op) -> bool {
    op.is::<Convert>() || op.is::<ConvertNarrow>()
}

fn rounded(ty: ElementType, code: String) -> String {
    let half = matches!(ty, ElementType::F16 | ElementType::Bf16) && codec(ty).is_none();
    match storage_type(ty).filter(|_| half) {
        Some(storage) => format!("f_rounded<{storage}>({code})"),
        None => code,
    }
}

/// `code` with operands in place of `x0`, `x1`, … and constants counted from `first` on.
fn renamed(code: &str, operands: &[&str], first: usize) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut result = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(is_word) {
        let (before, word) = rest.split_at(start);
        result.push_str(before);
        let (word, after) = word.split_at(word.find(|c| !is_word(c)).unwrap_or(word.len()));
        let number = |prefix: char| word.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
        match (number('x').and_then(|i| operands.get(i)), number('c')) {
            (Some(operand), _) => result.push_str(operand),
            (None, Some(i)) => result.push_str(&format!("c{}", first + i)),
            (None, None) => result.push_str(word),
        }
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn whole_words_are_renamed() {
        let code = "x0 < 0 ? c0 * f_exp1(x0) : 0x0f + max0(x10, x1) - c1";
        let expected = "v3 < 0 ? c2 * f_exp1(v3) : 0x0f + max0(x10, x7) - c3";
        assert_eq!(renamed(code, &["v3", "x7"], 2), expected);
    }
}
