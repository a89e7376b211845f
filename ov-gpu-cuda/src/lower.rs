//! Lowering: a model becomes a program with kernels chosen and weights packed.

use std::collections::HashMap;

use ov_core::{
    ElementType, Model, Tensor,
    error::Result,
    model::{Node, NodeId, Value},
    op::{
        Op, control_flow,
        core::{Constant as ConstantOp, Parameter},
    },
    pass::{self, ConvertPrecision, Pass, chain, fuse, layout, recurrent},
    plugin::NodeSupport,
};

use crate::{
    kernels::{Choice, Gpu, InputDesc, KERNELS, Pack, Reject, Selecting, is_fusible},
    precision,
    program::{Constant, NodeDesc, Port, Program, Runner, ValueDesc, ValueId, Weights},
};

/// What lowering decides by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The GPU that kernels are chosen for.
    pub(crate) gpu: Gpu,
    /// Type in which products and what follows them are stored: `f32`, `f16` or `bf16`. Sums are `f32` in any case.
    pub(crate) precision: ElementType,
    /// Whether results of a type narrower than f32 in the model are rounded to it one by one.
    pub(crate) round: bool,
}

/// The model after every pass of this device, ready to be lowered.
///
/// # Errors
/// When a pass finds the model to be invalid.
pub(crate) fn prepare(model: &Model, options: &Options) -> Result<Model> {
    let mut model = model.clone();
    ConvertPrecision { round: options.round }.run(&mut model)?;
    pass::simplify(&mut model)?;
    if recurrent::split(&mut model)? > 0 {
        pass::simplify(&mut model)?;
    }
    let mut model = layout::channels_last(&model)?;
    fuse::fuse(&mut model)?;
    if options.precision != ElementType::F32 {
        model = precision::narrow(&model, options.precision)?;
    }
    chain::fuse_element_wise(&mut model, &is_fusible)?;
    Ok(model)
}

/// Lowers a model that [`prepare`] gave, reserving its constants and packed weights in `weights`.
///
/// # Errors
/// When the model has a cycle or a body is not valid.
pub(crate) fn lower(model: &Model, options: &Options, weights: &mut Weights) -> Result<Program> {
    Lowering { model, options, weights, ids: HashMap::new(), program: Program::default() }.run()
}

/// Per node of a model that [`prepare`] gave, the kernels that would run it, or why the host does.
///
/// # Errors
/// When the model has a cycle.
pub(crate) fn query(model: &Model, options: &Options) -> Result<Vec<NodeSupport>> {
    Ok(model
        .topological_order()?
        .into_iter()
        .map(|id| (id, model.node(id)))
        .filter(|(_, node)| !is_source(node))
        .map(|(id, node)| {
            let inputs = describe(model, node);
            let (runner, _, reason) = select(node, &inputs, options);
            let kernel = match runner {
                Runner::Kernel(kernel) => kernel.name.to_owned(),
                Runner::Host => format!("{} ({reason})", crate::program::HOST),
            };
            NodeSupport {
                node: id,
                name: node.name().to_owned(),
                op: node.op().kind().to_string(),
                kernel: Ok(kernel),
            }
        })
        .collect())
}

fn is_source(node: &Node) -> bool {
    node.op().is::<Parameter>() || node.op().is::<ConstantOp>()
}

/// The inputs of a node as kernels see them.
fn describe<'m>(model: &'m Model, node: &Node) -> Vec<InputDesc<'m>> {
    node.inputs()
        .iter()
        .map(|v| {
            let ty = model.value_type(*v);
            InputDesc {
                element_type: ty.element_type,
                shape: &ty.shape,
                constant: model.constant(*v),
            }
        })
        .collect()
}

/// The first family that takes a node with what it keeps, or the host with the reasons of those that do not.
fn select(node: &Node, inputs: &[InputDesc<'_>], options: &Options) -> (Runner, Choice, String) {
    let op = node.op();
    if !control_flow::bodies(op).is_empty() {
        return (Runner::Host, Choice::default(), "its bodies run one after the other".to_owned());
    }
    let on_host = inputs.iter().enumerate().find_map(|(i, input)| {
        let marker = input.constant.is_some_and(Tensor::is_absent);
        let stored = marker || is_stored(input.element_type);
        (!stored).then(|| format!("input {i} is {}", input.element_type))
    });
    let output = node.outputs().iter().find(|o| !is_stored(o.element_type));
    if let Some(reason) = on_host.or_else(|| output.map(|o| format!("gives {}", o.element_type))) {
        return (Runner::Host, Choice::default(), reason);
    }
    let narrow = |ty: ElementType| matches!(ty, ElementType::F16 | ElementType::Bf16);
    if options.round
        && ROUNDING_WITHIN.contains(&op.kind().name)
        && node.outputs().iter().any(|o| narrow(o.element_type))
    {
        let reason = "is rounded within, as EXECUTION_MODE_HINT=ACCURACY asks for".to_owned();
        return (Runner::Host, Choice::default(), reason);
    }
    let selecting = Selecting {
        op,
        inputs,
        outputs: node.outputs(),
        gpu: options.gpu,
        specified: options.round,
    };
    let mut reasons = Vec::new();
    for kernel in KERNELS {
        match (kernel.select)(&selecting) {
            None => {}
            Some(Ok(choice)) => return (Runner::Kernel(kernel), choice, String::new()),
            Some(Err(Reject(reason))) => reasons.push(format!("{}: {reason}", kernel.name)),
        }
    }
    if reasons.is_empty() {
        reasons.push("no kernels for the operator".to_owned());
    }
    (Runner::Host, Choice::default(), reasons.join("; "))
}

/// Operators whose specification rounds narrow types within them, where kernels compute in `f32`.
const ROUNDING_WITHIN: &[&str] = &["Attention", "LinearAttention", "LogSoftmax", "SoftMax"];

/// Whether values of a type may lie in the memory of a GPU: bytes each, and more than none.
pub(crate) fn is_stored(ty: ElementType) -> bool {
    ty.bits() >= 8
}

struct Lowering<'a> {
    model: &'a Model,
    options: &'a Options,
    weights: &'a mut Weights,
    ids: HashMap<Value, ValueId>,
    program: Program,
}

impl Lowering<'_> {
    fn run(mut self) -> Result<Program> {
        self.model.name().clone_into(&mut self.program.name);
        for id in self.model.parameters() {
            let value = self.define((*id).into());
            self.program.inputs.push(Port { name: self.model.node(*id).name().to_owned(), value });
        }
        for id in self.model.topological_order()? {
            if !is_source(self.model.node(id)) {
                self.lower_node(id)?;
            }
        }
        for output in self.model.outputs() {
            let value = self.value(output.value, false);
            self.program.outputs.push(Port { name: output.name.clone(), value });
        }
        Ok(self.program)
    }

    fn define(&mut self, value: Value) -> ValueId {
        let ty = self.model.value_type(value);
        let id = self.push(ValueDesc {
            element_type: ty.element_type,
            shape: ty.shape.clone(),
            constant: Constant::No,
        });
        self.ids.insert(value, id);
        id
    }

    fn push(&mut self, desc: ValueDesc) -> ValueId {
        self.program.values.push(desc);
        self.program.values.len() as ValueId - 1
    }

    /// The id of a value; constants are stored on first use. `packed` is for constants of which only the packed form is
    /// needed.
    fn value(&mut self, value: Value, packed: bool) -> ValueId {
        let Some(tensor) = self.model.constant(value) else {
            return self.ids[&value];
        };
        let desc = |constant| ValueDesc {
            element_type: tensor.element_type(),
            shape: tensor.shape().into(),
            constant,
        };
        if packed {
            return self.push(desc(Constant::Packed));
        }
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        let constant = self.store(tensor.clone());
        let id = self.push(desc(constant));
        self.ids.insert(value, id);
        id
    }

    fn store(&mut self, tensor: Tensor) -> Constant {
        if tensor.element_type().bits() == 0 {
            return Constant::Held(tensor);
        }
        let tensor = tensor.to_contiguous();
        Constant::Stored(self.weights.reserve(tensor.byte_len(), move |bytes| {
            bytes.copy_from_slice(tensor.unaligned_bytes());
            ov_core::io::release(tensor.unaligned_bytes());
        }))
    }

    fn lower_node(&mut self, id: NodeId) -> Result<()> {
        let node = self.model.node(id);
        let inputs = describe(self.model, node);
        let (runner, choice, reason) = select(node, &inputs, self.options);
        tracing::debug!(op = %node.op().kind(), name = node.name(), ?runner, reason, "kernel chosen");
        let packed = choice
            .packed
            .into_iter()
            .map(|Pack { len, fill }| self.weights.reserve(len, fill))
            .collect();
        let inputs = node
            .inputs()
            .iter()
            .enumerate()
            .map(|(i, v)| self.value(*v, choice.consumed.contains(&i)))
            .collect();
        let bodies = self.bodies(node.op())?;
        let outputs = (0..node.outputs().len() as u32)
            .map(|output| self.define(Value { node: id, output }))
            .collect();
        self.program.nodes.push(NodeDesc {
            op: node.op().clone_box(),
            kernel: runner,
            name: node.name().to_owned(),
            inputs,
            outputs,
            params: choice.params,
            packed,
            bodies,
        });
        Ok(())
    }

    fn bodies(&mut self, op: &dyn Op) -> Result<Vec<Program>> {
        control_flow::bodies(op)
            .into_iter()
            .map(|body| lower(&prepare(body, self.options)?, self.options, self.weights))
            .collect()
    }
}
