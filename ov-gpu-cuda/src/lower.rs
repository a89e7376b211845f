//! Lowering: a model becomes a program with kernels chosen and weights packed.

use ov_core::{
    ElementType, Model, Tensor,
    error::Result,
    model::{Node, NodeId},
    op::{
        control_flow,
        core::{Constant as ConstantOp, Parameter},
    },
    pass::{self, ConvertPrecision, Pass, chain, fuse, integer, layout, recurrent},
    plugin::NodeSupport,
    program::{Lowering, Selected, build},
};

use crate::{
    kernels::{Choice, Gpu, InputDesc, KERNELS, Pack, Reject, Selecting, is_fusible, moves_bytes},
    precision,
    program::{Program, Runner, Weights},
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
    if !options.round {
        integer::spell_out(&mut model)?;
    }
    pass::simplify(&mut model)?;
    integer::sink(&mut model, &moves_bytes)?;
    let integers = integer::products(&mut model)?;
    let split = recurrent::split(&mut model)? > 0;
    if integers || split {
        pass::simplify(&mut model)?;
    }
    let mut model = layout::channels_last(&model)?;
    fuse::fuse(&mut model)?;
    integer::fuse(&mut model)?;
    integer::factors(&mut model)?;
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
    build(model, &CudaLowering(options), weights)
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

struct CudaLowering<'a>(&'a Options);

impl Lowering for CudaLowering<'_> {
    type Kernel = Runner;

    fn select(&self, model: &Model, id: NodeId) -> Result<Selected<Runner>> {
        let node = model.node(id);
        let (kernel, choice, reason) = select(node, &describe(model, node), self.0);
        tracing::debug!(op = %node.op().kind(), name = node.name(), ?kernel, reason, "kernel chosen");
        Ok(Selected {
            kernel,
            params: choice.params,
            packed: choice.packed.into_iter().map(|Pack { len, fill }| (len, fill)).collect(),
            consumed: choice.consumed,
        })
    }

    fn body(&self, body: &Model, weights: &mut Weights) -> Result<Program> {
        lower(&prepare(body, self.0)?, self.0, weights)
    }
}
