//! An If with a constant condition becomes the nodes of the body that runs.

use rustc_hash::FxHashMap;

use super::super::{NoMatch, Patch, Rewrite, Rewriter};
use crate::{
    model::{NodeId, Value},
    op::control_flow::{If, condition},
};

pub(super) const REWRITE: Rewrite = Rewrite { name: "constant condition", roots: &["If"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let node = cx.model().node(root);
    let op = node.op_as::<If>().ok_or(NoMatch::Pattern)?;
    let first = *node.inputs().first().ok_or(NoMatch::Pattern)?;
    let tensor = cx.model().constant(first).ok_or(NoMatch::Pattern)?;
    let runs = condition(tensor).map_err(|_| NoMatch::CheckFailed("the condition has no value"))?;
    let (body, from, to) = op.branch(runs);
    let (body, to, arguments) = (body.clone(), to.to_vec(), node.inputs().to_vec());
    let broken = NoMatch::CheckFailed("a port does not exist");
    let mut values: FxHashMap<Value, Value> = FxHashMap::default();
    for (parameter, input) in body.parameters().iter().zip(from.to_vec()) {
        let input = usize::try_from(input).ok().and_then(|i| arguments.get(i));
        let Some(input) = input else { return Err(broken) };
        values.insert((*parameter).into(), *input);
    }
    for id in body.topological_order()? {
        if body.parameters().contains(&id) {
            continue;
        }
        let node = body.node(id);
        let inputs: Option<Vec<Value>> =
            node.inputs().iter().map(|v| values.get(v).copied()).collect();
        let Some(inputs) = inputs else { return Err(broken) };
        let new = cx.add_named(node.op().clone_box(), &inputs, node.name())?;
        for output in 0..node.outputs().len() as u32 {
            values.insert(Value { node: id, output }, Value { node: new, output });
        }
    }
    let mut patch = Patch::default();
    for (output, result) in (0..).zip(to) {
        let result = usize::try_from(result).ok().and_then(|r| body.outputs().get(r));
        let Some(new) = result.and_then(|r| values.get(&r.value)) else { return Err(broken) };
        patch = patch.and(Value { node: root, output }, *new);
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::{
        model::Model,
        op::activation::{Negative, Relu},
        tensor::{ElementType, Tensor},
    };

    const TABLE: &[Rewrite] = &[REWRITE];

    fn body(negate: bool) -> Model {
        let mut m = Model::new("body");
        let x = m.add_parameter("x", ElementType::F32, [2, 3]).expect("valid");
        let y = if negate {
            m.add(Negative {}, &[x], "negated").expect("valid")
        } else {
            m.add(Relu {}, &[x], "rectified").expect("valid")
        };
        m.add_output("y", y);
        m
    }

    fn choice() -> If {
        If {
            then_body: body(true),
            else_body: body(false),
            then_inputs: vec![1],
            else_inputs: vec![1],
            then_outputs: vec![0],
            else_outputs: vec![0],
        }
    }

    #[test]
    fn the_body_that_runs_is_inlined() {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let condition = b.constant(Tensor::from_bools([], &[false]).expect("fits"));
        let y = b.add(choice(), &[condition, x]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3]} : f32[2,3] "n0"
              %3 = ReLU(%0) : f32[2,3] "rectified"
              return %3 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(y), TABLE).to_string());
    }

    #[test]
    fn a_condition_from_outside_stays() {
        let mut m = Model::new("test");
        let c = m.add_parameter("c", ElementType::Boolean, []).expect("valid");
        let x = m.add_parameter("x", ElementType::F32, [2, 3]).expect("valid");
        let y = m.add(choice(), &[c, x], "y").expect("valid");
        m.add_output("y", y);
        assert!(rewritten(&m, TABLE).to_string().contains("If("));
    }
}
