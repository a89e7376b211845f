//! What the body of a control-flow operator sees unchanged becomes visible to the passes that work on the body.

use rustc_hash::FxHashMap;

use super::{ConstantFolding, Pass};
use crate::{
    error::Result,
    model::{Model, NodeId, Value},
    op::{
        Op,
        control_flow::{If, Loop, LoopPorts, TensorIterator},
        random::is_random,
    },
    tensor::Tensor,
};

/// Constants move into the bodies that read them, a value that a loop carries without changing it is no longer carried,
/// and what every iteration would compute alike is computed before the loop.
///
/// Exporters hand weights to a loop as carried values: only inside the body, as constants, are they folded and packed
/// once instead of in every iteration.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyInvariants;

impl Pass for BodyInvariants {
    fn name(&self) -> &'static str {
        "invariants of bodies"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let mut changes = 0;
        let ids: Vec<NodeId> = model
            .nodes()
            .filter(|(_, node)| WITH_BODIES[..3].contains(&node.op().kind().name))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            changes += visit(model, id)?;
        }
        Ok(changes)
    }
}

/// Operators with bodies, those that this pass treats first.
const WITH_BODIES: &[&str] = &["If", "Loop", "TensorIterator", "SequenceMap"];

fn visit(model: &mut Model, id: NodeId) -> Result<usize> {
    let node = model.node(id);
    let (mut inputs, name) = (node.inputs().to_vec(), node.name().to_owned());
    let constants: Vec<Option<Tensor>> =
        inputs.iter().map(|v| model.constant(*v).filter(|t| !t.is_absent()).cloned()).collect();
    let outputs = node.outputs().len() as u32;
    let (mut settled, mut hoisted) = (Vec::new(), 0);
    // The two iterating operators share their ports, not their type.
    macro_rules! loosened {
        ($op:ident) => {{
            let mut op = $op.clone();
            let Ok(mut ports) = op.ports() else { return Ok(0) };
            settled = settle(&op.body, &mut ports);
            let bound = bind(&mut op.body, &ports.invariant, &constants)?;
            hoisted = hoist(model, &mut op.body, &mut ports, &mut inputs)?;
            op.set_ports(&ports);
            (Box::new(op), bound)
        }};
    }
    let (op, bound): (Box<dyn Op>, usize) = if let Some(op) = node.op_as::<If>() {
        let mut op = op.clone();
        let reads = |ports: &[i64]| -> Vec<(usize, usize)> {
            (0..).zip(ports).filter_map(|(p, i)| Some((usize::try_from(*i).ok()?, p))).collect()
        };
        let (then_reads, else_reads) = (reads(&op.then_inputs), reads(&op.else_inputs));
        let bound = bind(&mut op.then_body, &then_reads, &constants)?
            + bind(&mut op.else_body, &else_reads, &constants)?;
        (Box::new(op), bound)
    } else if let Some(op) = node.op_as::<Loop>() {
        loosened!(op)
    } else if let Some(op) = node.op_as::<TensorIterator>() {
        loosened!(op)
    } else {
        return Ok(0);
    };
    // An operator that is not valid any more stays as it was.
    let changes = bound + settled.len() + hoisted;
    if changes == 0 || model.infer_types(&*op, &inputs, &name).is_err() {
        return Ok(0);
    }
    let new = model.add_node(op, &inputs, name)?;
    let mut next = 0;
    for output in 0..outputs {
        let old = Value { node: id, output };
        if let Some((_, input)) = settled.iter().find(|(o, _)| *o == output as usize) {
            model.replace(old, inputs[*input]);
        } else {
            model.replace(old, Value { node: new, output: next });
            next += 1;
        }
    }
    model.remove_unused(id);
    Ok(changes)
}

/// Turns carried values that the body gives back as they came into values that stay. Gives the outputs that gave them,
/// each with the input that it comes from, and takes them out of the operator.
fn settle(body: &Model, ports: &mut LoopPorts) -> Vec<(usize, usize)> {
    let (same, carried): (Vec<_>, Vec<_>) = ports.merged.iter().partition(|port| {
        let parameter = body.parameters().get(port.parameter);
        let result = body.outputs().get(port.result);
        parameter.zip(result).is_some_and(|(p, r)| r.value == Value::from(*p))
    });
    ports.merged = carried;
    ports.invariant.extend(same.iter().map(|p| (p.input, p.parameter)));
    let mut settled = Vec::new();
    ports.last.retain(|(output, result)| {
        let port = same.iter().find(|p| p.result == *result);
        settled.extend(port.map(|p| (*output, p.input)));
        port.is_none()
    });
    let renumber = |output: &mut usize| {
        *output -= settled.iter().filter(|(gone, _)| *gone < *output).count();
    };
    ports.last.iter_mut().for_each(|(output, _)| renumber(output));
    ports.concat.iter_mut().for_each(|port| renumber(&mut port.output));
    settled
}

/// Moves nodes that read only what stays in every iteration out of the body, and lets it read their results instead.
fn hoist(
    model: &mut Model,
    body: &mut Model,
    ports: &mut LoopPorts,
    inputs: &mut Vec<Value>,
) -> Result<usize> {
    // Values of the body that exist before the loop, as values of the model.
    let mut outside: FxHashMap<Value, Value> = FxHashMap::default();
    for (input, parameter) in &ports.invariant {
        let parameter = body.parameters().get(*parameter).copied();
        if let Some((parameter, input)) = parameter.zip(inputs.get(*input)) {
            outside.insert(parameter.into(), *input);
        }
    }
    let mut moved = Vec::new();
    for id in body.topological_order()? {
        let node = body.node(id);
        let kind = node.op().kind();
        let stays = node.inputs().is_empty()
            || WITH_BODIES.contains(&kind.name)
            || is_random(kind)
            || !node.inputs().iter().any(|v| outside.contains_key(v))
            || !node
                .inputs()
                .iter()
                .all(|v| outside.contains_key(v) || body.constant(*v).is_some());
        if stays {
            continue;
        }
        let arguments = node.inputs().iter().map(|v| match (outside.get(v), body.constant(*v)) {
            (None, Some(constant)) => {
                model.add_constant(constant.clone(), body.node(v.node).name().to_owned())
            }
            (value, _) => value.copied().unwrap_or(*v),
        });
        let arguments: Vec<Value> = arguments.collect();
        let Ok(new) = model.add_node(node.op().clone_box(), &arguments, node.name()) else {
            continue;
        };
        for output in 0..node.outputs().len() as u32 {
            outside.insert(Value { node: id, output }, Value { node: new, output });
        }
        moved.push(id);
    }
    for id in &moved {
        for output in 0..body.node(*id).outputs().len() as u32 {
            let value = Value { node: *id, output };
            let read = body.uses(value).any(|(user, _)| !moved.contains(&user));
            if !read && !body.is_output(value) {
                continue;
            }
            let ty = body.value_type(value).clone();
            let name = body.node(*id).name().to_owned();
            let parameter = body.add_parameter(name, ty.element_type, ty.shape)?;
            body.replace(value, parameter);
            ports.invariant.push((inputs.len(), body.parameters().len() - 1));
            inputs.push(outside[&value]);
        }
    }
    body.remove_dead();
    Ok(moved.len())
}

/// Lets the body read constants itself. `reads` are pairs of an input and the parameter that reads it.
fn bind(body: &mut Model, reads: &[(usize, usize)], constants: &[Option<Tensor>]) -> Result<usize> {
    let mut changes = 0;
    for (input, parameter) in reads {
        let constant = constants.get(*input).cloned().flatten();
        let Some((constant, parameter)) = constant.zip(body.parameters().get(*parameter).copied())
        else {
            continue;
        };
        let value = Value::from(parameter);
        if body.uses(value).next().is_none() && !body.is_output(value) {
            continue;
        }
        let name = body.node(parameter).name().to_owned();
        let new = body.add_constant(constant, name);
        body.replace(value, new);
        changes += 1;
    }
    if changes > 0 {
        body.infer_all()?;
        ConstantFolding::default().run(body)?;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        op::{
            arithmetic::{Add, Multiply},
            matmul::MatMul,
        },
        pass::testing::{assert_same_outputs, random},
        tensor::ElementType,
    };

    /// Carries `x`, and `w` and a bias unchanged; gives out all three.
    fn looped(trips: i64) -> Model {
        let mut body = Model::new("body");
        let x = body.add_parameter("x", ElementType::F32, [2, 3]).expect("valid");
        let w = body.add_parameter("w", ElementType::F32, [3, 3]).expect("valid");
        let b = body.add_parameter("b", ElementType::F32, [3]).expect("valid");
        let y = body.add(MatMul::default(), &[x, w], "product").expect("valid");
        let y = body.add(Add::default(), &[y, b], "sum").expect("valid");
        for (name, value) in [("y", y), ("w", w), ("b", b)] {
            body.add_output(name, value);
        }
        let mut m = Model::new("m");
        let count = m.add_constant(Tensor::from_i64s(&[trips]), "count");
        let go_on = m.add_constant(Tensor::from_bools([1], &[true]).expect("fits"), "go on");
        let x = m.add_parameter("x", ElementType::F32, [2, 3]).expect("valid");
        let w = m.add_constant(random([3, 3], 5), "w");
        let b = m.add_parameter("b", ElementType::F32, [3]).expect("valid");
        let op = Loop {
            body,
            merged_inputs: vec![2, 0, 0, 3, 1, 1, 4, 2, 2],
            body_outputs: vec![0, 0, 1, 1, 2, 2],
            ..Loop::default()
        };
        let node = m.add_node(Box::new(op), &[count, go_on, x, w, b], "loop").expect("valid");
        for output in 0..3 {
            m.add_output(format!("y{output}"), Value { node, output });
        }
        m
    }

    #[test]
    fn what_is_carried_unchanged_is_not_carried() {
        for trips in [0, 1, 4] {
            let before = looped(trips);
            let mut after = before.clone();
            assert_eq!(BodyInvariants.run(&mut after).expect("valid"), 3);
            after.verify().expect("consistent");
            assert_same_outputs(&before, &after);
            let (_, node) = after.nodes().find(|(_, n)| n.op().is::<Loop>()).expect("there");
            let op = node.op_as::<Loop>().expect("a loop");
            assert_eq!(op.merged_inputs, [2, 0, 0]);
            assert_eq!(op.invariant_inputs, [3, 1, 4, 2]);
            assert_eq!(op.body.nodes().filter(|(_, n)| n.constant().is_some()).count(), 1);
            assert!(after.constant(after.outputs()[1].value).is_some());
            assert_eq!(BodyInvariants.run(&mut after).expect("valid"), 0);
        }
    }

    #[test]
    fn what_every_iteration_computes_alike_is_computed_once() {
        let mut before = looped(3);
        let (id, node) = before.nodes().find(|(_, n)| n.op().is::<Loop>()).expect("there");
        let mut op = node.op_as::<Loop>().expect("a loop").clone();
        let body = &mut op.body;
        let [x, w, b] = [0, 1, 2].map(|i| Value::from(body.parameters()[i]));
        let one = body.add_constant(random([3, 3], 8), "one");
        let scaled = body.add(Multiply::default(), &[w, one], "scaled").expect("valid");
        let added = body.add(Add::default(), &[scaled, b], "added").expect("valid");
        let y = body.add(MatMul::default(), &[x, added], "y").expect("valid");
        body.set_output(0, y);
        before.set_op(id, Box::new(op)).expect("valid");
        let mut after = before.clone();
        crate::pass::simplify(&mut after).expect("valid");
        after.verify().expect("consistent");
        assert_same_outputs(&before, &after);
        let (_, node) = after.nodes().find(|(_, n)| n.op().is::<Loop>()).expect("there");
        let body = &node.op_as::<Loop>().expect("a loop").body;
        assert!(body.nodes().all(|(_, n)| !n.op().is::<Add>()), "{body}");
        assert!(after.nodes().any(|(_, n)| n.op().is::<Add>()), "{after}");
    }

    #[test]
    fn constants_move_into_both_branches() {
        let branch = |op: Box<dyn Op>| {
            let mut body = Model::new("branch");
            let x = body.add_parameter("x", ElementType::F32, [2]).expect("valid");
            let w = body.add_parameter("w", ElementType::F32, [2]).expect("valid");
            let y = body.add_node(op, &[x, w], "y").expect("valid");
            body.add_output("y", y.into());
            body
        };
        let mut m = Model::new("m");
        let condition = m.add_parameter("c", ElementType::Boolean, []).expect("valid");
        let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
        let w = m.add_constant(random([2], 3), "w");
        let op = If {
            then_body: branch(Box::<Add>::default()),
            else_body: branch(Box::<Multiply>::default()),
            then_inputs: vec![1, 2],
            else_inputs: vec![1, 2],
            then_outputs: vec![0],
            else_outputs: vec![0],
        };
        let y = m.add(op, &[condition, x, w], "if").expect("valid");
        m.add_output("y", y);
        let mut after = m.clone();
        assert_eq!(BodyInvariants.run(&mut after).expect("valid"), 2);
        after.verify().expect("consistent");
        for condition in [false, true] {
            let inputs = [Tensor::from_bools([], &[condition]).expect("fits"), random([2], 9)];
            let run = |m: &Model| crate::reference::evaluate(m, &inputs).expect("evaluates");
            assert_eq!(run(&m), run(&after));
        }
    }
}
