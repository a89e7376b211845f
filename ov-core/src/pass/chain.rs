//! Neighbouring element-wise operators become one [`ElementWise`].

use std::collections::{HashMap, HashSet};

use crate::{
    Model, PartialShape,
    error::Result,
    model::{Node, NodeId, Value},
    op::fused::element_wise::ElementWise,
};

/// Most values that one operator reads.
const MAX_INPUTS: usize = 8;

/// Most operators in one.
const MAX_NODES: usize = 32;

/// Puts together what `takes` accepts, where nothing else reads the values in between and all of them have one shape.
/// `takes` accepts nodes of one output whose inputs broadcast to it as in numpy. Gives the number of operators made.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn fuse_element_wise(
    model: &mut Model,
    takes: &dyn Fn(&Model, &Node) -> bool,
) -> Result<usize> {
    let order = model.topological_order()?;
    let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let accepted: HashSet<NodeId> = order
        .iter()
        .copied()
        .filter(|id| {
            let node = model.node(*id);
            node.outputs().len() == 1 && !node.inputs().is_empty() && takes(model, node)
        })
        .collect();
    let mut taken: HashSet<NodeId> = HashSet::new();
    let mut made = 0;
    for root in order.iter().rev() {
        if !accepted.contains(root) || taken.contains(root) {
            continue;
        }
        let mut group = group(model, *root, &accepted, &taken);
        taken.extend(&group);
        if group.len() > 1 {
            group.sort_by_key(|id| place[id]);
            replace(model, *root, &group)?;
            made += 1;
        }
    }
    model.remove_dead();
    Ok(made)
}

/// Whether two shapes are known to be the same.
fn same(a: &PartialShape, b: &PartialShape) -> bool {
    match (a.dims(), b.dims()) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(*b)),
        _ => false,
    }
}

/// The values that a group reads and does not compute.
fn inputs(model: &Model, group: &[NodeId]) -> Vec<Value> {
    let mut inputs: Vec<Value> = Vec::new();
    for value in group.iter().flat_map(|id| model.node(*id).inputs()) {
        if !group.contains(&value.node) && !inputs.contains(value) {
            inputs.push(*value);
        }
    }
    inputs
}

/// `root` and the operators before it that only it, or others of them, read.
fn group(
    model: &Model,
    root: NodeId,
    accepted: &HashSet<NodeId>,
    taken: &HashSet<NodeId>,
) -> Vec<NodeId> {
    let mut group = vec![root];
    if inputs(model, &group).len() > MAX_INPUTS {
        return group;
    }
    let shape = model.shape(root.into());
    while group.len() < MAX_NODES {
        let next = inputs(model, &group).into_iter().find(|value| {
            let joins = accepted.contains(&value.node)
                && !taken.contains(&value.node)
                && !model.is_output(*value)
                && same(model.shape(*value), shape)
                && model.uses(*value).all(|(user, _)| group.contains(&user));
            let grown = [&group[..], &[value.node]].concat();
            joins && inputs(model, &grown).len() <= MAX_INPUTS
        });
        match next {
            Some(value) => group.push(value.node),
            None => break,
        }
    }
    group
}

/// One operator in place of `root`; `group` is in topological order.
fn replace(model: &mut Model, root: NodeId, group: &[NodeId]) -> Result<()> {
    let read = inputs(model, group);
    let mut body = Model::new(model.node(root).name());
    let mut inside: HashMap<Value, Value> = HashMap::new();
    for (i, value) in read.iter().enumerate() {
        let ty = model.value_type(*value).clone();
        inside.insert(*value, body.add_parameter(format!("x{i}"), ty.element_type, ty.shape)?);
    }
    for id in group {
        let node = model.node(*id);
        let arguments: Vec<Value> = node.inputs().iter().map(|v| inside[v]).collect();
        let copy = body.add_node(node.op().clone_box(), &arguments, node.name())?;
        inside.insert((*id).into(), copy.into());
    }
    body.add_output("y", inside[&root.into()]);
    let name = model.node(root).name().to_owned();
    let new = model.add(ElementWise { body }, &read, name)?;
    model.replace(root.into(), new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ElementType, Tensor,
        op::{
            activation::{Relu, Sigmoid},
            arithmetic::{Add, Multiply},
            softmax::SoftMax,
        },
        reference,
    };

    fn takes(_: &Model, node: &Node) -> bool {
        !node.op().is::<SoftMax>() && !node.op().is::<crate::op::core::Parameter>()
    }

    /// `softmax(relu(x + b)) · sigmoid(x + c) · that sigmoid`, with the sum `x + c` given out if asked.
    fn model(shown: bool) -> Model {
        let mut m = Model::new("m");
        let x = m.add_parameter("x", ElementType::F32, [2, 3]).expect("valid");
        let b = m.add_parameter("b", ElementType::F32, [3]).expect("valid");
        let c = m.add_parameter("c", ElementType::F32, [1]).expect("valid");
        let sum = m.add(Add {}, &[x, b], "sum").expect("valid");
        let relu = m.add(Relu {}, &[sum], "relu").expect("valid");
        let soft = m.add(SoftMax { axis: 1 }, &[relu], "soft").expect("valid");
        let other = m.add(Add {}, &[x, c], "other").expect("valid");
        let gate = m.add(Sigmoid {}, &[other], "gate").expect("valid");
        let square = m.add(Multiply {}, &[gate, gate], "square").expect("valid");
        let y = m.add(Multiply {}, &[soft, square], "y").expect("valid");
        m.add_output("y", y);
        if shown {
            m.add_output("other", other);
        }
        m
    }

    fn values(shape: &[usize], from: f32) -> Tensor {
        let len = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..len).map(|i| from + i as f32 * 0.4).collect();
        Tensor::from_vec(shape, values).expect("fits")
    }

    #[test]
    fn chains_become_one_operator_each_and_compute_the_same() {
        for shown in [false, true] {
            let plain = model(shown);
            let mut fused = plain.clone();
            assert_eq!(fuse_element_wise(&mut fused, &takes).expect("valid"), 2);
            let count =
                |name: &str| fused.nodes().filter(|(_, n)| n.op().kind().name == name).count();
            assert_eq!((count("ElementWise"), count("SoftMax")), (2, 1));
            assert_eq!(count("Add"), usize::from(shown), "a value that is given out stays");
            let inputs = [values(&[2, 3], -1.0), values(&[3], 0.3), values(&[1], -0.2)];
            let run = |m: &Model| reference::evaluate(m, &inputs).expect("evaluates");
            assert_eq!(run(&plain), run(&fused));
        }
    }

    #[test]
    fn values_of_another_shape_or_with_other_readers_stay_apart() {
        let mut m = Model::new("m");
        let x = m.add_parameter("x", ElementType::F32, [3]).expect("valid");
        let z = m.add_parameter("z", ElementType::F32, [2, 3]).expect("valid");
        let small = m.add(Relu {}, &[x], "small").expect("valid");
        let wide = m.add(Add {}, &[small, z], "wide").expect("valid");
        let soft = m.add(SoftMax { axis: 1 }, &[wide], "soft").expect("valid");
        let y = m.add(Multiply {}, &[soft, wide], "y").expect("valid");
        m.add_output("y", y);
        assert_eq!(fuse_element_wise(&mut m, &takes).expect("valid"), 0);
    }
}
