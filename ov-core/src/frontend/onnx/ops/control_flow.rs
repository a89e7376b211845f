//! If, Loop and Scan.

use super::{super::NodeContext, super::proto::{GraphProto, TypeKind}, ConvertResult, OnnxOp};
use crate::{
    frontend::onnx::ConvertError,
    model::{Model, Value},
    op::{
        OpError, OpResult, OutputType,
        control_flow::{If, Loop, TensorIterator, widen},
        normalize_axis,
    },
    tensor::{ElementType, PartialShape, Tensor},
};

fn invalid(detail: String) -> ConvertError {
    OpError::Invalid(detail).into()
}

/// Positions of `values` in `inputs`, which grows by those that are not there yet.
fn map_inputs(values: &[Value], inputs: &mut Vec<Value>) -> Vec<i64> {
    values
        .iter()
        .map(|v| {
            let at = inputs.iter().skip(1).position(|i| i == v).map_or(inputs.len(), |i| i + 1);
            if at == inputs.len() {
                inputs.push(*v);
            }
            at as i64
        })
        .collect()
}

fn if_else(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?];
    let (then_graph, else_graph) = (cx.graph("then_branch")?, cx.graph("else_branch")?);
    let (then_body, then_captures) = cx.convert_body(&then_graph, &[])?;
    let (else_body, else_captures) = cx.convert_body(&else_graph, &[])?;
    let then_inputs = map_inputs(&then_captures, &mut inputs);
    let else_inputs = map_inputs(&else_captures, &mut inputs);
    let count = then_body.outputs().len() as i64;
    if else_body.outputs().len() as i64 != count {
        return Err(invalid(format!(
            "the branches give {count} and {} outputs",
            else_body.outputs().len()
        )));
    }
    let outputs: Vec<i64> = (0..count).collect();
    let op = If {
        then_body,
        else_body,
        then_inputs,
        else_inputs,
        then_outputs: outputs.clone(),
        else_outputs: outputs,
    };
    cx.add_multi(op, &inputs)
}

/// Conversions of a body until the types of carried values settle.
const ATTEMPTS: usize = 4;
/// From this depth of graphs on carried values start with unknown shapes, so that the work does not grow exponentially.
const EXACT_DEPTH: usize = 4;

/// Converts a body; carried values of unknown shape do not get the shape that the body declares, which holds for one
/// iteration at best. Where an operator cannot do without it, the declaration is believed after all.
fn convert_undeclared(
    cx: &mut NodeContext<'_, '_>,
    graph: &GraphProto,
    types: &[(ElementType, PartialShape)],
    carried: &[(usize, usize)],
) -> Result<(Model, Vec<Value>), ConvertError> {
    let declared = |parameter: &usize| {
        let kind = graph.input[*parameter].r#type.as_ref().and_then(|t| t.value.as_ref());
        types[*parameter].1.rank().is_none()
            && matches!(kind, Some(TypeKind::Tensor(t)) if t.shape.is_some())
    };
    let unknown: Vec<usize> = carried.iter().map(|c| c.0).filter(declared).collect();
    if unknown.is_empty() {
        return cx.convert_body(graph, types);
    }
    let mut open = graph.clone();
    for parameter in unknown {
        let kind = open.input[parameter].r#type.as_mut().and_then(|t| t.value.as_mut());
        if let Some(TypeKind::Tensor(t)) = kind {
            t.shape = None;
        }
    }
    match cx.convert_body(&open, types) {
        Err(_) if cx.graph_depth() <= EXACT_DEPTH => cx.convert_body(graph, types),
        converted => converted,
    }
}

/// Converts a body with carried values: `carried` of `types` are (parameter, output) pairs. Their types are widened until
/// what an iteration gives fits what the next one takes.
fn convert_carrying_body(
    cx: &mut NodeContext<'_, '_>,
    graph: &GraphProto,
    mut types: Vec<(ElementType, PartialShape)>,
    carried: &[(usize, usize)],
) -> Result<(Model, Vec<Value>), ConvertError> {
    if graph.input.len() != types.len() {
        return Err(invalid(format!(
            "the body has {} inputs, the operator gives {}",
            graph.input.len(),
            types.len()
        )));
    }
    if cx.graph_depth() > EXACT_DEPTH {
        for (parameter, _) in carried {
            types[*parameter].1 = PartialShape::dynamic();
        }
    }
    for attempt in 1.. {
        let (body, captures) = convert_undeclared(cx, graph, &types, carried)?;
        let mut settled = true;
        for (parameter, result) in carried {
            let next = body.outputs().get(*result).ok_or_else(|| {
                invalid(format!("the body gives {} outputs, too few", body.outputs().len()))
            })?;
            let now = &body.node(body.parameters()[*parameter]).outputs()[0];
            let mut wider: OutputType = widen(now, body.value_type(next.value));
            if wider.shape != now.shape || wider.element_type != now.element_type {
                settled = false;
                if attempt + 1 >= ATTEMPTS {
                    wider.shape = PartialShape::dynamic();
                }
                types[*parameter] = (wider.element_type, wider.shape);
            }
        }
        if settled || attempt >= ATTEMPTS {
            return Ok((body, captures));
        }
    }
    unreachable!("the loop returns after a bounded number of attempts")
}

fn type_of(cx: &NodeContext<'_, '_>, value: Value) -> (ElementType, PartialShape) {
    (cx.element_type(value), cx.shape(value))
}

fn pairs(list: impl IntoIterator<Item = (usize, usize)>) -> Vec<i64> {
    list.into_iter().flat_map(|(a, b)| [a as i64, b as i64]).collect()
}

/// The trip count, where a negative one means no limit: in ONNX it means no iteration, and a missing one no limit.
fn trip_count(cx: &mut NodeContext<'_, '_>) -> Result<Value, ConvertError> {
    let Some(count) = cx.optional_input(0) else {
        return Ok(cx.constant(Tensor::scalar(-1i64)));
    };
    match cx.constant_value(count).and_then(|t| t.element_as_i64(0)) {
        Some(known) if known >= 0 => Ok(count),
        Some(_) => Ok(cx.constant(Tensor::scalar(0i64))),
        None => {
            let zero = cx.scalar_like(0.0, count)?;
            cx.compose("Max", &[count, zero], &[])
        }
    }
}

fn loop_(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let graph = cx.graph("body")?;
    let trip_count = trip_count(cx)?;
    let has_condition = cx.optional_input(1).is_some();
    let condition = match cx.optional_input(1) {
        Some(v) => v,
        None => cx.constant(Tensor::from_bools([], &[true])?),
    };
    let mut inputs = vec![trip_count, condition];
    for i in 2..cx.input_count() {
        let value = match cx.optional_input(i) {
            Some(v) => v,
            None => cx.constant(Tensor::absent()),
        };
        inputs.push(value);
    }
    let carried = inputs.len() - 2;
    let mut types: Vec<_> = inputs.iter().map(|v| type_of(cx, *v)).collect();
    types[0] = (ElementType::I64, [].into());
    types[1] = (ElementType::Boolean, cx.shape(condition));
    let carries: Vec<_> = (0..=carried).map(|i| (i + 1, i)).collect();
    let (body, captures) = convert_carrying_body(cx, &graph, types, &carries)?;
    let (first_capture, first_scan) = (inputs.len(), carried + 1);
    inputs.extend(captures);
    let op = Loop {
        merged_inputs: (0..=carried as i64).flat_map(|i| [i + 1, i + 1, i]).collect(),
        invariant_inputs: pairs((first_capture..inputs.len()).map(|i| (i, i))),
        body_outputs: pairs((0..carried).map(|i| (i, i + 1))),
        concat_outputs: (first_scan..body.outputs().len())
            .flat_map(|i| [i as i64 - 1, i as i64, 0, 0, -1, 1, 0])
            .collect(),
        current_iteration: 0,
        condition_output: if has_condition { 0 } else { -1 },
        body,
        ..Loop::default()
    };
    cx.add_multi(op, &inputs)
}

/// Entry `i` of an optional list attribute of axes or directions.
fn entry(list: &[i64], i: usize) -> i64 {
    list.get(i).copied().unwrap_or(0)
}

/// The shape without an axis.
fn without_axis(shape: &PartialShape, axis: i64) -> OpResult<PartialShape> {
    let Some(dims) = shape.dims() else { return Ok(PartialShape::dynamic()) };
    let mut dims = dims.to_vec();
    dims.remove(normalize_axis(axis, dims.len())?);
    Ok(PartialShape::new(&dims))
}

/// Start, end, stride and part size of a cut or stack in a direction (0 forward, 1 backward).
fn direction(value: i64) -> OpResult<[i64; 4]> {
    match value {
        0 => Ok([0, -1, 1, 0]),
        1 => Ok([-1, 0, -1, 0]),
        _ => Err(OpError::Attribute {
            name: "directions",
            got: value.to_string(),
            expected: "0 or 1".to_owned(),
        }),
    }
}

/// What the attributes of both forms of Scan say.
struct ScanAttributes {
    states: usize,
    scans: usize,
    input_axes: Vec<i64>,
    input_directions: Vec<i64>,
    output_axes: Vec<i64>,
    output_directions: Vec<i64>,
}

impl ScanAttributes {
    fn read(cx: &NodeContext<'_, '_>, inputs: usize, directions: &'static str) -> OpResult<Self> {
        let list = |name| cx.i64s(name, &[]).map_err(|_| OpError::Invalid(format!("attribute {name} is not a list")));
        let scans = cx.attribute("num_scan_inputs").map_or(0, |a| a.i);
        let scans = usize::try_from(scans).ok().filter(|s| (1..=inputs).contains(s));
        let scans = scans.ok_or_else(|| OpError::Attribute {
            name: "num_scan_inputs",
            got: cx.attribute("num_scan_inputs").map_or(0, |a| a.i).to_string(),
            expected: format!("1 to {inputs}"),
        })?;
        Ok(Self {
            states: inputs - scans,
            scans,
            input_axes: list("scan_input_axes")?,
            input_directions: list(directions)?,
            output_axes: list("scan_output_axes")?,
            output_directions: list("scan_output_directions")?,
        })
    }

    /// The scan over a body with parameters and inputs in the order states, scanned inputs, captured values.
    fn iterator(&self, body: Model) -> OpResult<TensorIterator> {
        let (states, inputs) = (self.states as i64, self.states + self.scans);
        let mut op = TensorIterator {
            merged_inputs: (0..states).flat_map(|i| [i; 3]).collect(),
            invariant_inputs: pairs((inputs..body.parameters().len()).map(|i| (i, i))),
            body_outputs: (0..states).flat_map(|i| [i; 2]).collect(),
            ..TensorIterator::default()
        };
        for i in 0..self.scans {
            let at = states + i as i64;
            op.sliced_inputs.extend([at, at, entry(&self.input_axes, i)]);
            op.sliced_inputs.extend(direction(entry(&self.input_directions, i))?);
        }
        for i in 0..body.outputs().len().saturating_sub(self.states) {
            let at = states + i as i64;
            op.concat_outputs.extend([at, at, entry(&self.output_axes, i)]);
            op.concat_outputs.extend(direction(entry(&self.output_directions, i))?);
        }
        op.body = body;
        Ok(op)
    }
}

fn scan(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let graph = cx.graph("body")?;
    let mut inputs = cx.all_inputs();
    let attributes = ScanAttributes::read(cx, inputs.len(), "scan_input_directions")?;
    let mut types: Vec<_> = inputs.iter().map(|v| type_of(cx, *v)).collect();
    for i in 0..attributes.scans {
        let shape = &mut types[attributes.states + i].1;
        *shape = without_axis(shape, entry(&attributes.input_axes, i))?;
    }
    let carries: Vec<_> = (0..attributes.states).map(|i| (i, i)).collect();
    let (body, captures) = convert_carrying_body(cx, &graph, types, &carries)?;
    inputs.extend(captures);
    cx.add_multi(attributes.iterator(body)?, &inputs)
}

/// The batched form of opset 8: one scan per sample, stacked.
fn scan_8(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let graph = cx.graph("body")?;
    if cx.optional_input(0).is_some() {
        return Err(OpError::Unsupported("Scan 8 with sequence_lens".to_owned()).into());
    }
    let mut inputs = (1..cx.input_count()).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let attributes = ScanAttributes::read(cx, inputs.len(), "directions")?;
    let mut sample_types = Vec::new();
    for value in &inputs {
        let (ty, shape) = type_of(cx, *value);
        sample_types.push((ty, without_axis(&shape, 0)?));
    }
    let mut types = sample_types.clone();
    for (_, shape) in &mut types[attributes.states..] {
        *shape = without_axis(shape, 0)?;
    }
    let carries: Vec<_> = (0..attributes.states).map(|i| (i, i)).collect();
    let (body, captures) = convert_carrying_body(cx, &graph, types, &carries)?;
    let own = inputs.len();
    sample_types.extend(captures.iter().map(|v| type_of(cx, *v)));
    inputs.extend(captures);
    let mut sample = Model::new(format!("{} of one sample", graph.name));
    let parameters = sample_types
        .into_iter()
        .enumerate()
        .map(|(i, (ty, shape))| sample.add_parameter(format!("input{i}"), ty, shape))
        .collect::<Result<Vec<_>, _>>()?;
    let node = sample.add_node(Box::new(attributes.iterator(body)?), &parameters, cx.name())?;
    let count = sample.node(node).outputs().len();
    for output in 0..count {
        sample.add_output(format!("output{output}"), Value { node, output: output as u32 });
    }
    let per_sample = |i: usize| [i as i64, i as i64, 0, 0, -1, 1, 0];
    let op = TensorIterator {
        sliced_inputs: (0..own).flat_map(per_sample).collect(),
        invariant_inputs: pairs((own..inputs.len()).map(|i| (i, i))),
        concat_outputs: (0..count).flat_map(per_sample).collect(),
        body: sample,
        ..TensorIterator::default()
    };
    cx.add_multi(op, &inputs)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] =
    &[("", "If", 1, if_else), ("", "Loop", 1, loop_), ("", "Scan", 8, scan_8), ("", "Scan", 9, scan)];
