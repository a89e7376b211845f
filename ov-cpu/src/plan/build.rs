//! Binds a program to shapes: infers every node, evaluates what follows from shapes, makes steps, places buffers.

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    io::memory_limit,
    op::{InferContext, InputInfo, OpError, OutputType, random::is_random},
};

use super::{Executable, Known, Plan, Source, Tail, memory::Memory};
use crate::{
    nodes::{BindContext, Bound, BoundInput, BoundOutput, LentInput, Results, evaluate_lent},
    program::{Constant, NodeDesc, ValueId},
};

/// Values of up to this many elements are computed while a plan is made, when they follow from shapes.
const EVALUATED: usize = 4096;

/// An operator that refuses the shapes.
#[derive(Debug, thiserror::Error)]
#[error("{op} {node:?}: {source}")]
pub struct BuildError {
    /// Operator type.
    pub op: String,
    /// Node name.
    pub node: String,
    /// What is wrong.
    pub source: OpError,
}

/// What is known of a value while a plan is made.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) element_type: ElementType,
    pub(super) shape: Shape,
    pub(super) value: Option<Tensor>,
    pub(super) origin: Origin,
}

/// Who makes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody: it is a constant or follows from shapes.
    Held,
    Input(usize),
    Node,
    Earlier(Source),
}

impl Origin {
    /// Where the tensor of a value without bytes is found.
    pub(super) fn holder(self) -> Option<Source> {
        match self {
            Self::Earlier(source) => Some(source),
            Self::Input(index) => Some(Source::Input(index)),
            Self::Held | Self::Node => None,
        }
    }
}

pub(super) fn first(exe: &Executable, inputs: &[(ElementType, Shape)]) -> Result<Plan, BuildError> {
    let mut states = constants(exe)?;
    for (index, (port, (element_type, shape))) in exe.program.inputs.iter().zip(inputs).enumerate()
    {
        states[port.value as usize] = Some(State {
            element_type: *element_type,
            shape: shape.clone(),
            value: None,
            origin: Origin::Input(index),
        });
    }
    let mut plan = build(exe, 0, 0, states)?;
    plan.inputs = inputs.to_vec();
    Ok(plan)
}

/// The plan for what comes after the node that ended stage `stage - 1`.
pub(super) fn next(
    exe: &Executable,
    stage: usize,
    tail: &Tail,
    outputs: &[(ElementType, Shape)],
) -> Result<Plan, BuildError> {
    let mut states = constants(exe)?;
    for (value, known) in &tail.live {
        states[*value as usize] = Some(match known {
            Known::Value(t) => held(t.clone()),
            Known::Memory { element_type, shape, source } => State {
                element_type: *element_type,
                shape: shape.clone(),
                value: None,
                origin: Origin::Earlier(*source),
            },
        });
    }
    for (output, (value, (element_type, shape))) in
        exe.node(tail.node).outputs.iter().zip(outputs).enumerate()
    {
        states[*value as usize] = Some(State {
            element_type: *element_type,
            shape: shape.clone(),
            value: None,
            origin: Origin::Earlier(Source::Tail { stage: stage - 1, output }),
        });
    }
    build(exe, stage, tail.node + 1, states)
}

fn held(value: Tensor) -> State {
    State {
        element_type: value.element_type(),
        shape: value.shape().clone(),
        value: Some(value),
        origin: Origin::Held,
    }
}

fn constants(exe: &Executable) -> Result<Vec<Option<State>>, BuildError> {
    exe.program
        .values
        .iter()
        .map(|v| {
            Ok(match &v.constant {
                Constant::No => None,
                Constant::Held(t) => Some(held(t.clone())),
                Constant::Stored(range) => {
                    let shape = v.shape.to_shape().unwrap_or_default();
                    let tensor = exe.weights.tensor(v.element_type, shape, range).map_err(|e| {
                        BuildError {
                            op: "Constant".to_owned(),
                            node: String::new(),
                            source: e.into(),
                        }
                    })?;
                    Some(held(tensor))
                }
                Constant::Packed => Some(State {
                    element_type: v.element_type,
                    shape: v.shape.to_shape().unwrap_or_default(),
                    value: None,
                    origin: Origin::Held,
                }),
            })
        })
        .collect()
}

fn build(
    exe: &Executable,
    stage: usize,
    start: usize,
    mut states: Vec<Option<State>>,
) -> Result<Plan, BuildError> {
    let mut end = exe.program.nodes.len();
    let mut computed = Vec::new();
    for (index, node) in exe.program.nodes.iter().enumerate().skip(start) {
        let context = |source: OpError| BuildError {
            op: node.op.kind().to_string(),
            node: node.name.clone(),
            source,
        };
        match infer(exe, index, node, &states).map_err(context)? {
            Inferred::Dynamic => {
                end = index;
                break;
            }
            Inferred::Values(values) => {
                for (value, tensor) in node.outputs.iter().zip(values) {
                    states[*value as usize] = Some(held(tensor));
                }
            }
            Inferred::Types(types) => {
                computed.push(index);
                for (value, (element_type, shape)) in node.outputs.iter().zip(types) {
                    states[*value as usize] =
                        Some(State { element_type, shape, value: None, origin: Origin::Node });
                }
            }
        }
    }
    let wanted = wanted_later(exe, end);
    let needed = needed_nodes(exe, &computed, &wanted);
    let mut memory = Memory::new(exe, &states);
    for &index in &needed {
        let node = exe.node(index);
        let bound = bind(exe, node, &states).map_err(|source| BuildError {
            op: node.op.kind().to_string(),
            node: node.name.clone(),
            source,
        })?;
        memory.add(index, node, bound);
    }
    // An output is given by the stage in which its value is first known.
    let is_new = |value: ValueId| {
        stage == 0 || exe.program.nodes[start - 1..end].iter().any(|n| n.outputs.contains(&value))
    };
    let given: Vec<(usize, ValueId)> = exe
        .program
        .outputs
        .iter()
        .enumerate()
        .filter(|(_, p)| states[p.value as usize].is_some() && is_new(p.value))
        .map(|(i, p)| (i, p.value))
        .collect();
    let mut plan = memory.finish(&given, &wanted);
    if end < exe.program.nodes.len() {
        let known = |value: ValueId| plan_known(&plan, stage, value, &states);
        let node = exe.node(end);
        let inputs = node.inputs.iter().map(|v| known(*v)).collect();
        let live = wanted
            .iter()
            .enumerate()
            .filter(|(v, wanted)| {
                **wanted
                    && states[*v].is_some()
                    && matches!(exe.program.values[*v].constant, Constant::No)
            })
            .map(|(v, _)| (v as ValueId, known(v as ValueId)))
            .collect();
        plan.0.tail = Some(Tail { node: end, inputs, live, next: std::sync::Mutex::default() });
    }
    Ok(plan.0)
}

type Placed = (Plan, Vec<Option<u32>>);

fn plan_known(plan: &Placed, stage: usize, value: ValueId, states: &[Option<State>]) -> Known {
    let state =
        states[value as usize].as_ref().expect("a program reads no value before it is made");
    if let Some(v) = &state.value {
        return Known::Value(v.clone());
    }
    let source = match state.origin {
        Origin::Earlier(source) => source,
        Origin::Input(index) if state.element_type.bits() == 0 => Source::Input(index),
        _ => Source::Slot {
            stage,
            slot: plan.1[value as usize].expect("a value that later nodes read has a slot"),
        },
    };
    Known::Memory { element_type: state.element_type, shape: state.shape.clone(), source }
}

/// Values that nodes from `end` on read.
fn wanted_later(exe: &Executable, end: usize) -> Vec<bool> {
    let mut wanted = vec![false; exe.program.values.len()];
    for node in &exe.program.nodes[end..] {
        for v in &node.inputs {
            wanted[*v as usize] = true;
        }
    }
    wanted
}

/// Nodes among `computed` whose results somebody reads at run time.
fn needed_nodes(exe: &Executable, computed: &[usize], wanted: &[bool]) -> Vec<usize> {
    let mut read: Vec<bool> = wanted.to_vec();
    for p in &exe.program.outputs {
        read[p.value as usize] = true;
    }
    let mut needed: Vec<usize> = computed
        .iter()
        .rev()
        .copied()
        .filter(|index| {
            let node = exe.node(*index);
            let used = node.outputs.iter().any(|v| read[*v as usize]);
            if used {
                for v in &node.inputs {
                    read[*v as usize] = true;
                }
            }
            used
        })
        .collect();
    needed.reverse();
    needed
}

enum Inferred {
    /// The shapes of the results are only known once the node has run.
    Dynamic,
    /// The results follow from shapes.
    Values(Vec<Tensor>),
    /// Static types.
    Types(Vec<(ElementType, Shape)>),
}

fn infer(
    exe: &Executable,
    index: usize,
    node: &NodeDesc,
    states: &[Option<State>],
) -> Result<Inferred, OpError> {
    if !exe.bodies[index].is_empty() {
        return Ok(Inferred::Dynamic);
    }
    let inputs: Vec<&State> = node
        .inputs
        .iter()
        .map(|v| states[*v as usize].as_ref().expect("a program reads no value before it is made"))
        .collect();
    // Values without bytes never pass through the arena: their nodes run on tensors, between stages.
    if inputs.iter().any(|s| s.element_type.bits() == 0 && s.value.is_none()) {
        return Ok(Inferred::Dynamic);
    }
    let shapes: Vec<PartialShape> = inputs.iter().map(|s| PartialShape::from(&s.shape)).collect();
    let infos: Vec<InputInfo<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|(s, shape)| InputInfo {
            element_type: s.element_type,
            shape,
            value: s.value.as_ref(),
            dims: None,
        })
        .collect();
    let types = node.op.infer(&InferContext { inputs: &infos })?;
    if types.len() < node.outputs.len() {
        return Err(OpError::Invalid(format!(
            "has {} outputs, expected {}",
            types.len(),
            node.outputs.len()
        )));
    }
    let Some(resolved) = types
        .iter()
        .map(|t| Some((t.element_type, t.shape.to_shape()?)))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(Inferred::Dynamic);
    };
    if let Some(values) = types.iter().map(known_value).collect::<Option<Vec<_>>>() {
        return Ok(Inferred::Values(values));
    }
    let small = resolved.iter().all(|(_, s)| s.elements() <= EVALUATED)
        && inputs.iter().all(|s| s.shape.elements() <= EVALUATED);
    let pure = !is_random(node.op.kind()) && !inputs.is_empty();
    if pure && small && inputs.iter().all(|s| s.value.is_some()) {
        let arguments: Vec<_> = inputs
            .iter()
            .filter_map(|s| Some((s.element_type, &s.shape, LentInput::Held(s.value.as_ref()?))))
            .collect();
        return Ok(Inferred::Values(evaluate_lent(&*node.op, &arguments, Results::Planned)?));
    }
    if resolved.iter().any(|(ty, _)| ty.bits() == 0) {
        return Ok(Inferred::Dynamic);
    }
    for (ty, shape) in &resolved {
        let bytes = shape.checked_len().and_then(|n| ty.byte_len(n));
        if bytes.is_none_or(|b| b > memory_limit()) {
            return Err(OpError::Invalid(format!(
                "the output {ty}{shape} needs more than the {} bytes of memory that there are",
                memory_limit()
            )));
        }
    }
    Ok(Inferred::Types(resolved))
}

/// The value of a small integer output whose every element inference knows.
fn known_value(ty: &OutputType) -> Option<Tensor> {
    let dims = ty.dims.as_ref()?;
    let values = dims
        .iter()
        .map(|d| d.value().and_then(|v| i64::try_from(v).ok()))
        .collect::<Option<Vec<_>>>()?;
    let shape = ty.shape.to_shape().filter(|s| s.elements() == values.len())?;
    Tensor::from_vec(shape, values).ok()?.cast(ty.element_type).ok()
}

fn bind(exe: &Executable, node: &NodeDesc, states: &[Option<State>]) -> Result<Bound, OpError> {
    let state = |v: &ValueId| states[*v as usize].as_ref().expect("needed nodes were inferred");
    let inputs: Vec<BoundInput<'_>> = node
        .inputs
        .iter()
        .map(state)
        .map(|s| BoundInput {
            element_type: s.element_type,
            shape: &s.shape,
            value: s.value.as_ref(),
        })
        .collect();
    let outputs: Vec<BoundOutput<'_>> = node
        .outputs
        .iter()
        .map(state)
        .map(|s| BoundOutput { element_type: s.element_type, shape: &s.shape })
        .collect();
    let packed = node
        .packed
        .iter()
        .map(|range| exe.weights.tensor(ElementType::U8, [range.len()], range))
        .collect::<Result<Vec<_>, _>>()?;
    let cx = BindContext {
        op: &*node.op,
        inputs: &inputs,
        outputs: &outputs,
        params: &node.params,
        packed: &packed,
        isa: exe.target.isa,
        threads: exe.target.threads,
    };
    (node.kernel.bind)(&cx)
}
