//! Tests of the framework: folding, joining, dead code, order and rest.

use super::*;
use crate::{
    op::activation::{Elu, Relu},
    tensor::{ElementType, Tensor},
};

fn f32s(values: &[f32]) -> Tensor {
    Tensor::from_vec([values.len()], values.to_vec()).expect("fits")
}

#[test]
fn constants_fold_and_dead_nodes_go() {
    let mut m = Model::new("m");
    let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let c = m.add_constant(f32s(&[-1.0, 2.0]), "c");
    let folded = m.add(Relu {}, &[c], "folded").expect("valid");
    m.add(Relu {}, &[x], "dead").expect("valid");
    m.add_output("y", folded);
    let stats = simplify(&mut m).expect("valid");
    assert_eq!(m.constant(m.outputs()[0].value), Some(&f32s(&[0.0, 2.0])));
    assert_eq!(m.len(), 2, "{m}");
    assert_eq!((stats.nodes_before, stats.nodes_after), (4, 2));
    assert_eq!(simplify(&mut m).expect("valid").changes(), 0);
}

#[test]
fn large_results_are_not_folded() {
    let mut m = Model::new("m");
    let c = m.add_constant(f32s(&[0.0; 64]), "c");
    let y = m.add(Relu {}, &[c], "y").expect("valid");
    m.add_output("y", y);
    assert_eq!(ConstantFolding { limit: 255 }.run(&mut m).expect("valid"), 0);
    assert_eq!(ConstantFolding { limit: 256 }.run(&mut m).expect("valid"), 1);
}

#[test]
fn equal_nodes_are_joined_and_different_ones_are_not() {
    let mut m = Model::new("m");
    let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
    for (alpha, name) in [(1.0, "a"), (1.0, "b"), (2.0, "c")] {
        let v = m.add(Elu { alpha }, &[x], name).expect("valid");
        let v = m.add(Relu {}, &[v], name).expect("valid");
        m.add_output(name, v);
    }
    assert_eq!(CommonSubexpressions.run(&mut m).expect("valid"), 2);
    m.verify().expect("consistent");
    let outputs: Vec<_> = m.outputs().iter().map(|o| o.value).collect();
    assert_eq!(outputs[0], outputs[1]);
    assert_ne!(outputs[0], outputs[2]);
}

#[test]
fn equal_constants_are_joined_by_their_bytes() {
    let mut m = Model::new("m");
    let large = vec![1.0f32; 4096];
    let mut other = large.clone();
    other[2000] = 2.0;
    let constants = [f32s(&large), f32s(&large), f32s(&other), f32s(&[0.0]), f32s(&[-0.0])];
    for c in constants {
        let v = m.add_constant(c, "c");
        m.add_output("c", v);
    }
    assert_eq!(CommonSubexpressions.run(&mut m).expect("valid"), 1);
}

fn drop_relu_of_relu(cx: &mut Rewriter<'_>, root: crate::model::NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let inner = m.node(root).inputs()[0];
    m.unary::<Relu>(inner).ok_or(NoMatch::Pattern)?;
    Ok(Patch::replace(root, inner))
}

type Result<T, E> = std::result::Result<T, E>;

#[test]
fn rewrites_run_until_none_applies() {
    const TABLE: &[Rewrite] =
        &[Rewrite { name: "relu of relu", roots: &["ReLU"], apply: drop_relu_of_relu }];
    let mut m = Model::new("m");
    let mut v = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
    for _ in 0..50 {
        v = m.add(Relu {}, &[v], "r").expect("valid");
    }
    m.add_output("y", v);
    let pass = RewritePass::new("test", TABLE);
    assert_eq!(pass.run(&mut m).expect("valid"), 49);
    m.verify().expect("consistent");
    assert_eq!(m.len(), 2);
    assert_eq!(pass.run(&mut m).expect("valid"), 0);
}

fn never_rests(cx: &mut Rewriter<'_>, root: crate::model::NodeId) -> Result<Patch, NoMatch> {
    let x = cx.model().node(root).inputs()[0];
    let v = cx.add(Relu {}, &[x], root)?;
    Ok(Patch::replace(root, v))
}

#[test]
fn rewrites_that_never_rest_are_stopped() {
    const TABLE: &[Rewrite] = &[Rewrite { name: "again", roots: &["ReLU"], apply: never_rests }];
    let mut m = Model::new("m");
    let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let v = m.add(Relu {}, &[x], "r").expect("valid");
    m.add_output("y", v);
    assert!(RewritePass::new("test", TABLE).run(&mut m).expect("valid") > 1);
    m.verify().expect("consistent");
}
