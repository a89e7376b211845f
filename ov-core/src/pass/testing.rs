//! Helpers of the rewrites' tests: small models, before and after, compared on random input.

use super::{PassManager, Rewrite, RewritePass};
use crate::{
    model::{Model, Value},
    op::Op,
    reference,
    tensor::{ElementType, PartialShape, Shape, Tensor},
};

/// Numbers between -2 and 2 from a fixed generator (xorshift64*), so that a failure repeats.
pub(crate) fn random(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let data: Vec<f32> = (0..shape.elements())
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
            bits as f32 / (1u64 << 22) as f32 - 2.0
        })
        .collect();
    Tensor::from_vec(shape, data).expect("as many numbers as the shape has elements")
}

/// Applies the table to a copy of the model, checks that the outputs stay the same on random input, and returns the
/// copy. Dimensions that are not known are taken as 3.
pub(crate) fn rewritten(model: &Model, table: &'static [Rewrite]) -> Model {
    let mut after = model.clone();
    PassManager::new().with(RewritePass::new("test", table)).run(&mut after).expect("valid");
    after.remove_dead();
    after.verify().expect("consistent");
    assert_same_outputs(model, &after);
    after
}

/// Checks that two models with the same inputs give the same outputs, to 1e-5 relative and absolute: the rewrites
/// reorder sums of a few dozen numbers of magnitude 1 in single precision.
pub(crate) fn assert_same_outputs(before: &Model, after: &Model) {
    let inputs: Vec<Tensor> = before
        .parameters()
        .iter()
        .zip(1..)
        .map(|(id, seed)| {
            let node = before.node(*id);
            let dims = node.shape(0);
            let dims: Vec<usize> =
                dims.dims().expect("known rank").iter().map(|d| d.value().unwrap_or(3)).collect();
            let values = random(dims, seed);
            match node.element_type(0) {
                ElementType::F32 => values,
                other => values.cast(other).expect("a native type"),
            }
        })
        .collect();
    assert_same_on(before, after, &inputs);
}

/// An `f32` input of `model`.
pub(crate) fn parameter(model: &mut Model, name: &str, shape: &[usize]) -> Value {
    model.add_parameter(name, ElementType::F32, Shape::new(shape)).expect("valid")
}

/// [`assert_same_outputs`] on these inputs.
#[track_caller]
pub(crate) fn assert_same_on(before: &Model, after: &Model, inputs: &[Tensor]) {
    let expected = reference::evaluate(before, inputs).expect("evaluates");
    let got = reference::evaluate(after, inputs).expect("evaluates");
    for (expected, got) in expected.iter().zip(&got) {
        assert_eq!(
            (expected.element_type(), expected.shape()),
            (got.element_type(), got.shape()),
            "{after}"
        );
        let (a, b) = (expected.to_f64_vec().expect("numbers"), got.to_f64_vec().expect("numbers"));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!(
                (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-5 + 1e-5 * a.abs(),
                "element {i}: {a} before, {b} after\n{after}"
            );
        }
    }
}

/// Builds small models; nodes are named by their number.
pub(crate) struct Build {
    model: Model,
}

impl Build {
    /// An empty model.
    pub(crate) fn new() -> Self {
        Self { model: Model::new("test") }
    }

    fn name(&self) -> String {
        format!("n{}", self.model.slots())
    }

    /// A parameter of `f32`.
    pub(crate) fn input(&mut self, shape: impl Into<PartialShape>) -> Value {
        let name = self.name();
        self.model.add_parameter(name, ElementType::F32, shape).expect("valid")
    }

    /// An operator of one output, or the first of several.
    pub(crate) fn add(&mut self, op: impl Op, inputs: &[Value]) -> Value {
        let name = self.name();
        self.model.add(op, inputs, name).expect("valid")
    }

    /// An operator of one output, or the first of several.
    pub(crate) fn add_boxed(&mut self, op: Box<dyn Op>, inputs: &[Value]) -> Value {
        let name = self.name();
        self.model.add_node(op, inputs, name).expect("valid").into()
    }

    /// A constant.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> Value {
        let name = self.name();
        self.model.add_constant(tensor, name)
    }

    /// A constant of rank 0 of `f32`.
    pub(crate) fn scalar(&mut self, value: f64) -> Value {
        self.constant(Tensor::scalar(value as f32))
    }

    /// Random weights.
    pub(crate) fn weights(&mut self, shape: impl Into<Shape>) -> Value {
        let seed = self.model.slots() as u64 + 100;
        self.constant(random(shape, seed))
    }

    /// A constant of rank 1 of `i64`.
    pub(crate) fn i64s(&mut self, values: &[i64]) -> Value {
        self.constant(Tensor::from_i64s(values))
    }

    /// Gives a value out besides the last one.
    pub(crate) fn give(&mut self, value: Value) {
        let name = format!("y{}", self.model.outputs().len());
        self.model.add_output(name, value);
    }

    /// The model with its last output.
    pub(crate) fn output(mut self, value: Value) -> Model {
        self.model.add_output("y", value);
        self.model
    }
}

/// Random numbers between 0.5 and 2.5, for variances and divisors.
pub(crate) fn positive(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let tensor = random(shape, seed);
    let data = tensor.as_slice::<f32>().expect("f32").iter().map(|v| v.abs() + 0.5).collect();
    Tensor::from_vec::<f32>(tensor.shape().clone(), data).expect("as many as before")
}
