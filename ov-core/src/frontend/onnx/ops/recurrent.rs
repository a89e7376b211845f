//! LSTM, GRU and RNN, and their quantized forms.

use super::{
    super::{Attr, ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    op_ensure,
    dispatch_float,
    model::Value,
    op::{
        Choice, OpError, OpResult,
        recurrent::{Direction, GruSequence, LstmSequence, QuantizedLstmSequence, RnnSequence},
    },
    tensor::{Element, Tensor, TensorBuffer},
};

/// For each gate of OpenVINO's order forget, input, cell, output, its place in ONNX's input, output, forget, cell.
const LSTM_GATES: &[usize] = &[2, 0, 3, 1];
/// Likewise for peepholes: forget, input, output from input, output, forget.
const LSTM_PEEPHOLES: &[usize] = &[2, 0, 1];

/// Names of functions with their number of parameters and the default of each.
const FUNCTIONS: &[(&str, &[f32])] = &[
    ("sigmoid", &[]),
    ("tanh", &[]),
    ("relu", &[]),
    ("softsign", &[]),
    ("softplus", &[]),
    ("leakyrelu", &[0.01]),
    ("thresholdedrelu", &[1.0]),
    ("elu", &[1.0]),
    ("affine", &[1.0, 0.0]),
    ("scaledtanh", &[1.0, 1.0]),
    ("hardsigmoid", &[0.2, 0.5]),
];

/// Attributes that the three operators share.
struct Common {
    direction: Direction,
    hidden_size: i64,
    clip: f64,
    activations: Vec<String>,
    alpha: Vec<f64>,
    beta: Vec<f64>,
    batch_first: bool,
}

fn common(cx: &NodeContext<'_, '_>, defaults: &[&str]) -> Result<Common, ConvertError> {
    let mut direction = Direction::Forward;
    let text = cx.str("direction", "forward")?;
    if !direction.set_text(text) {
        return Err(OpError::Attribute {
            name: "direction",
            got: text.to_owned(),
            expected: direction.options().join(", "),
        }
        .into());
    }
    let count = defaults.len() * direction.count();
    let names = match cx.optional_strs("activations")? {
        Some(names) if !names.is_empty() => names,
        _ => (0..count).map(|i| defaults[i % defaults.len()].to_owned()).collect(),
    };
    let mut alphas = cx.optional_f32s("activation_alpha")?.unwrap_or_default().into_iter();
    let mut betas = cx.optional_f32s("activation_beta")?.unwrap_or_default().into_iter();
    let (mut activations, mut alpha, mut beta) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let name = name.to_ascii_lowercase();
        let found = FUNCTIONS.iter().find(|(n, _)| *n == name);
        let (_, parameters) = found.ok_or_else(|| OpError::Attribute {
            name: "activations",
            got: name.clone(),
            expected: FUNCTIONS.iter().map(|f| f.0).collect::<Vec<_>>().join(", "),
        })?;
        let take = |i: usize, given: &mut dyn Iterator<Item = f32>| {
            parameters.get(i).map_or(0.0, |d| f64::from(given.next().unwrap_or(*d)))
        };
        alpha.push(take(0, &mut alphas));
        beta.push(take(1, &mut betas));
        activations.push(name);
    }
    let hidden_size = match cx.optional_i64("hidden_size")? {
        Some(n) => n,
        None => {
            let r = cx.input(2)?;
            cx.shape(r).dim(2).value().map_or(0, |n| n as i64)
        }
    };
    Ok(Common {
        direction,
        hidden_size,
        clip: f64::from(cx.f32("clip", 0.0)?),
        activations,
        alpha,
        beta,
        batch_first: cx.bool("layout", false)?,
    })
}

/// Blocks along an axis in another order: block `i` of the result is block `order[i]`.
fn reorder_constant(tensor: &Tensor, axis: usize, order: &[usize]) -> OpResult<Tensor> {
    let (tensor, shape) = (tensor.to_contiguous(), tensor.shape().clone());
    op_ensure!(
        shape.rank() > axis && shape[axis].is_multiple_of(order.len()),
        "weights have shape {shape}, expected {} blocks along axis {axis}",
        order.len()
    );
    let from = tensor.unaligned_bytes();
    let parts = shape[..axis].iter().product::<usize>().saturating_mul(order.len());
    let block = from.len().checked_div(parts).unwrap_or(0);
    if block == 0 {
        return Ok(tensor);
    }
    let mut reordered = Tensor::zeros(tensor.element_type(), shape)?;
    let all = block * order.len();
    let rows = reordered.bytes_mut()?.chunks_exact_mut(all);
    for (from, to) in from.chunks_exact(all).zip(rows) {
        for (source, to) in order.iter().zip(to.chunks_exact_mut(block)) {
            to.copy_from_slice(&from[source * block..][..block]);
        }
    }
    Ok(reordered)
}

fn reorder(cx: &mut NodeContext<'_, '_>, value: Value, order: &[usize]) -> Result<Value, ConvertError> {
    if let Some(tensor) = cx.constant_value(value) {
        let reordered = reorder_constant(&tensor, 1, order)?;
        return Ok(cx.constant(reordered));
    }
    let n = order.len();
    let attributes = [("axis", Attr::Int(1)), ("num_outputs", Attr::Int(n as i64))];
    let parts = cx.compose_multi("Split", &[value], &attributes, n)?;
    let parts: Vec<Value> = order.iter().map(|i| parts[*i]).collect();
    cx.compose("Concat", &parts, &[("axis", Attr::Int(1))])
}

/// Units of a layer whose bias is made here: more would need weights of terabytes.
const MOST_HIDDEN: usize = 1 << 20;

/// The bias: the sum of both halves of ONNX's `[directions, 2 gates hidden]`, except that the last gate's stay apart for
/// the linear-before-reset form of GRU. Zeros when it is left out.
fn bias(
    cx: &mut NodeContext<'_, '_>,
    gates: usize,
    common: &Common,
    keep_last_apart: bool,
) -> Result<Value, ConvertError> {
    let Some(b) = cx.optional_input(3) else {
        let hidden = usize::try_from(common.hidden_size).unwrap_or(0);
        if hidden > MOST_HIDDEN {
            return Err(OpError::Attribute {
                name: "hidden_size",
                got: hidden.to_string(),
                expected: format!("at most {MOST_HIDDEN}"),
            }
            .into());
        }
        let x = cx.input(0)?;
        let parts = gates + usize::from(keep_last_apart);
        let zeros = Tensor::zeros(cx.element_type(x), [common.direction.count(), parts * hidden])?;
        return Ok(cx.constant(zeros));
    };
    if let Some(tensor) = cx.constant_value(b) {
        fn typed<T: Element>(b: &Tensor, gates: usize, apart: bool) -> OpResult<Tensor>
        where
            Vec<T>: TensorBuffer,
        {
            let b = b.to_contiguous();
            op_ensure!(
                b.rank() == 2 && b.shape()[1].is_multiple_of(2 * gates),
                "B has shape {}, expected [directions, {} hidden]",
                b.shape(),
                2 * gates
            );
            let hidden = b.shape()[1] / (2 * gates);
            let mut sums = Vec::new();
            for row in b.as_slice::<T>()?.chunks_exact((2 * gates * hidden).max(1)) {
                let (w, r) = row.split_at(gates * hidden);
                let joined = if apart { (gates - 1) * hidden } else { gates * hidden };
                sums.extend((0..joined).map(|i| T::from_f64(w[i].to_f64() + r[i].to_f64())));
                sums.extend_from_slice(&w[joined..]);
                if apart {
                    sums.extend_from_slice(&r[joined..]);
                }
            }
            let parts = gates + usize::from(apart);
            Ok(Tensor::from_vec([b.shape()[0], parts * hidden], sums)?)
        }
        let ty = tensor.element_type();
        let sum = dispatch_float!(ty, T => typed::<T>(&tensor, gates, keep_last_apart), else {
            Err(OpError::Unsupported(format!("a bias of type {ty}")))
        })?;
        return Ok(cx.constant(sum));
    }
    let attributes = [("axis", Attr::Int(1)), ("num_outputs", Attr::Int(2 * gates as i64))];
    let parts = cx.compose_multi("Split", &[b], &attributes, 2 * gates)?;
    let mut sums = Vec::new();
    for gate in 0..gates {
        if keep_last_apart && gate + 1 == gates {
            sums.extend([parts[gate], parts[gates + gate]]);
        } else {
            sums.push(cx.compose("Add", &[parts[gate], parts[gates + gate]], &[])?);
        }
    }
    cx.compose("Concat", &sums, &[("axis", Attr::Int(1))])
}

/// An optional input with batch first: ONNX puts length or directions first unless `layout` is 1.
fn batch_first(
    cx: &mut NodeContext<'_, '_>,
    index: usize,
    common: &Common,
) -> Result<Value, ConvertError> {
    match cx.optional_input(index) {
        None => Ok(cx.constant(Tensor::absent())),
        Some(v) if common.batch_first => Ok(v),
        Some(v) => cx.transpose(v, &[1, 0, 2]),
    }
}

fn or_absent(cx: &mut NodeContext<'_, '_>, index: usize) -> Value {
    cx.optional_input(index).unwrap_or_else(|| cx.constant(Tensor::absent()))
}

/// The outputs in ONNX's layouts; those that nobody reads stay as they are.
fn outputs(cx: &mut NodeContext<'_, '_>, common: &Common, values: &[Value]) -> ConvertResult {
    let order: &[i64] = if common.batch_first { &[0, 2, 1, 3] } else { &[2, 1, 0, 3] };
    let mut given = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let wanted = cx.wants_output(i);
        given.push(match i {
            0 if wanted => cx.transpose(*value, order)?,
            1.. if wanted && !common.batch_first => cx.transpose(*value, &[1, 0, 2])?,
            _ => *value,
        });
    }
    Ok(given)
}

fn lstm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let common = common(cx, &["Sigmoid", "Tanh", "Tanh"])?;
    let (w, r) = (cx.input(1)?, cx.input(2)?);
    let b = bias(cx, 4, &common, false)?;
    let mut inputs = vec![
        batch_first(cx, 0, &common)?,
        batch_first(cx, 5, &common)?,
        batch_first(cx, 6, &common)?,
        or_absent(cx, 4),
        reorder(cx, w, LSTM_GATES)?,
        reorder(cx, r, LSTM_GATES)?,
        reorder(cx, b, LSTM_GATES)?,
    ];
    if let Some(p) = cx.optional_input(7) {
        inputs.push(reorder(cx, p, LSTM_PEEPHOLES)?);
    }
    let op = LstmSequence {
        hidden_size: common.hidden_size,
        activations: common.activations.clone(),
        activations_alpha: common.alpha.clone(),
        activations_beta: common.beta.clone(),
        clip: common.clip,
        direction: common.direction,
        input_forget: cx.bool("input_forget", false)?,
    };
    let values = cx.add_multi(op, &inputs)?;
    outputs(cx, &common, &values)
}

fn gru(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let common = common(cx, &["Sigmoid", "Tanh"])?;
    let linear_before_reset = cx.bool("linear_before_reset", false)?;
    let inputs = [
        batch_first(cx, 0, &common)?,
        batch_first(cx, 5, &common)?,
        or_absent(cx, 4),
        cx.input(1)?,
        cx.input(2)?,
        bias(cx, 3, &common, linear_before_reset)?,
    ];
    let op = GruSequence {
        hidden_size: common.hidden_size,
        activations: common.activations.clone(),
        activations_alpha: common.alpha.clone(),
        activations_beta: common.beta.clone(),
        clip: common.clip,
        direction: common.direction,
        linear_before_reset,
    };
    let values = cx.add_multi(op, &inputs)?;
    outputs(cx, &common, &values)
}

fn rnn(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let common = common(cx, &["Tanh"])?;
    let inputs = [
        batch_first(cx, 0, &common)?,
        batch_first(cx, 5, &common)?,
        or_absent(cx, 4),
        cx.input(1)?,
        cx.input(2)?,
        bias(cx, 1, &common, false)?,
    ];
    let op = RnnSequence {
        hidden_size: common.hidden_size,
        activations: common.activations.clone(),
        activations_alpha: common.alpha.clone(),
        activations_beta: common.beta.clone(),
        clip: common.clip,
        direction: common.direction,
    };
    let values = cx.add_multi(op, &inputs)?;
    outputs(cx, &common, &values)
}

/// The constant behind an input.
fn constant(cx: &NodeContext<'_, '_>, index: usize) -> Result<Tensor, ConvertError> {
    let value = cx.input(index)?;
    cx.constant_value(value).ok_or_else(|| {
        OpError::Input {
            index,
            got: "a value computed at run time".to_owned(),
            expected: "a constant".to_owned(),
        }
        .into()
    })
}

/// 8-bit weights `[directions, columns, gates]` with their gates in the operator's order.
fn byte_gates(weights: &Tensor) -> OpResult<Tensor> {
    let (ty, shape) = (weights.element_type(), weights.shape());
    op_ensure!(
        ty.bits() == 8 && weights.rank() == 3,
        "weights are {ty}{shape}, expected 8-bit of rank 3"
    );
    reorder_constant(weights, 2, LSTM_GATES)
}

/// Scales or zero points, with gates reordered when there is one per row.
fn per_gate(cx: &NodeContext<'_, '_>, index: usize) -> Result<Tensor, ConvertError> {
    if cx.optional_input(index).is_none() {
        return Ok(Tensor::absent());
    }
    let tensor = constant(cx, index)?;
    let per_row = tensor.rank() == 2 && tensor.shape()[1] > 1;
    Ok(if per_row { reorder_constant(&tensor, 1, LSTM_GATES)? } else { tensor })
}

fn dynamic_quantize_lstm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut common = common(cx, &["Sigmoid", "Tanh", "Tanh"])?;
    let (w, r) = (constant(cx, 1)?, constant(cx, 2)?);
    let (w, r) = (byte_gates(&w)?, byte_gates(&r)?);
    common.hidden_size = r.shape()[1] as i64;
    let b = bias(cx, 4, &common, false)?;
    let peepholes = match cx.optional_input(7) {
        Some(p) => reorder(cx, p, LSTM_PEEPHOLES)?,
        None => cx.constant(Tensor::absent()),
    };
    let mut inputs = vec![
        batch_first(cx, 0, &common)?,
        batch_first(cx, 5, &common)?,
        batch_first(cx, 6, &common)?,
        or_absent(cx, 4),
        cx.constant(w),
        cx.constant(r),
        reorder(cx, b, LSTM_GATES)?,
        peepholes,
    ];
    for index in 8..12 {
        let tensor = per_gate(cx, index)?;
        inputs.push(cx.constant(tensor));
    }
    let op = QuantizedLstmSequence {
        hidden_size: common.hidden_size,
        activations: common.activations.clone(),
        activations_alpha: common.alpha.clone(),
        activations_beta: common.beta.clone(),
        clip: common.clip,
        direction: common.direction,
        input_forget: cx.bool("input_forget", false)?,
    };
    let values = cx.add_multi(op, &inputs)?;
    outputs(cx, &common, &values)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "LSTM", 7, lstm),
    ("", "GRU", 7, gru),
    ("", "RNN", 7, rnn),
    ("com.microsoft", "DynamicQuantizeLSTM", 1, dynamic_quantize_lstm),
];
