//! Narrow storage: products and what follows them hold `f16` or `bf16`, with conversions where that begins and ends.

use std::collections::HashMap;

use ov_core::{
    ElementType, Model,
    error::Result,
    model::Value,
    op::{
        convert::Convert,
        core::{Constant, Parameter},
    },
};

/// Operators with which narrow storage begins: they read much and are the reason for it.
const PRODUCTS: &[&str] = &[
    "FusedConvolution",
    "FusedConvolutionTransposed",
    "FullyConnected",
    "MatMul",
    "ScaledDotProductAttention",
];

/// Operators that go on with it when an input is narrow already. Their kernels compute in `f32` in between; what needs
/// the range or the digits of its inputs (exponentials outside of softmax, indices, coordinates, sums along an axis that
/// is kept, sorting) is not among them.
const FOLLOWERS: &[&str] = &[
    "Abs",
    "Add",
    "AdaptiveAvgPool",
    "BatchNormInference",
    "Broadcast",
    "Clamp",
    "Concat",
    "DepthToSpace",
    "Divide",
    "Elu",
    "Gelu",
    "GroupNormalization",
    "HSigmoid",
    "HSwish",
    "HardSigmoid",
    "Interpolate",
    "LogSoftmax",
    "MVN",
    "Maximum",
    "Minimum",
    "Mish",
    "Multiply",
    "Negative",
    "NormalizeL2",
    "PRelu",
    "Pad",
    "PoolLast",
    "RMS",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Select",
    "ShuffleChannels",
    "Sigmoid",
    "Slice",
    "SoftMax",
    "SoftPlus",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "StridedSlice",
    "Subtract",
    "Swish",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "VariadicSplit",
];

/// The model with products, and what follows them, over values of type `narrow`. Types of inputs, outputs and variables
/// stay.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub(crate) fn narrow(model: &Model, narrow: ElementType) -> Result<Model> {
    let mut pass =
        Narrowing { old: model, new: Model::new(model.name()), narrow, forms: HashMap::new() };
    for id in model.parameters() {
        let node = model.node(*id);
        let value = pass.new.add_parameter(node.name(), node.element_type(0), node.shape(0))?;
        pass.forms.insert((*id).into(), Forms { made: value, other: None });
    }
    for id in model.topological_order()? {
        let node = model.node(id);
        if node.op().is::<Parameter>() {
            continue;
        }
        if let Some(constant) = node.op_as::<Constant>() {
            let value = pass.new.add_constant(constant.clone(), node.name());
            pass.forms.insert(id.into(), Forms { made: value, other: None });
            continue;
        }
        let name = node.op().kind().name;
        let any_narrow = node.inputs().iter().any(|v| pass.is_narrow(*v));
        let wanted = PRODUCTS.contains(&name) || any_narrow && FOLLOWERS.contains(&name);
        let inputs =
            node.inputs().iter().map(|v| pass.form(*v, wanted)).collect::<Result<Vec<_>>>()?;
        let new = pass.new.add_node(node.op().clone_box(), &inputs, node.name())?;
        for output in 0..node.outputs().len() as u32 {
            let made = Value { node: new, output };
            pass.forms.insert(Value { node: id, output }, Forms { made, other: None });
        }
    }
    for output in model.outputs() {
        let value = pass.form(output.value, false)?;
        pass.new.add_output(&output.name, value);
    }
    let mut new = pass.new;
    new.remove_dead();
    Ok(new)
}

/// An old value in the new model: as it is made, and converted once somebody asks for it.
#[derive(Clone, Copy, Debug)]
struct Forms {
    made: Value,
    other: Option<Value>,
}

struct Narrowing<'m> {
    old: &'m Model,
    new: Model,
    narrow: ElementType,
    forms: HashMap<Value, Forms>,
}

impl Narrowing<'_> {
    fn is_narrow(&self, old: Value) -> bool {
        self.forms.get(&old).is_some_and(|f| {
            self.new.element_type(f.made) == self.narrow
                && self.old.element_type(old) == ElementType::F32
        })
    }

    /// An old value, narrow or as it was; values that are not `f32` have one form only.
    fn form(&mut self, old: Value, narrow: bool) -> Result<Value> {
        let forms = self.forms[&old];
        let float = self.old.element_type(old) == ElementType::F32;
        if !float || self.is_narrow(old) == narrow {
            return Ok(forms.made);
        }
        if let Some(other) = forms.other {
            return Ok(other);
        }
        let name = format!("{}/precision", self.old.node(old.node).name());
        let ty = if narrow { self.narrow } else { ElementType::F32 };
        let other = match self.old.constant(old) {
            Some(tensor) => self.new.add_constant(tensor.cast(ty)?, name),
            None => self.new.add(Convert { destination_type: ty }, &[forms.made], name)?,
        };
        if let Some(forms) = self.forms.get_mut(&old) {
            forms.other = Some(other);
        }
        Ok(other)
    }
}
