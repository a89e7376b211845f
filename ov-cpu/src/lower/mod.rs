//! Lowering: a model becomes a program with kernels chosen and weights packed.

pub(crate) mod dynamic_quantize;

use ov_core::{
    Model, Tensor,
    error::{CompileError, Result},
    model::{Node, NodeId},
    op::core::{Constant as ConstantOp, Parameter},
    plugin::NodeSupport,
    program::{Lowering, Selected, build},
};

use crate::{
    nodes::{self, InputDesc, KernelEntry, NodeView, Pack},
    program::{Program, Weights},
    simd::Isa,
};

/// What lowering decides by.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Instruction set that kernels are chosen for.
    pub isa: Isa,
    /// Whether products may be computed in bf16 where [`Isa::has_bf16`].
    pub bf16: bool,
    /// Whether results of a type narrower than f32 are rounded to it one by one.
    pub round: bool,
}

/// Lowers a model whose device passes have run, reserving its constants and packed weights in `weights`.
///
/// # Errors
/// [`CompileError::NoKernel`] when no kernel takes a node.
pub fn lower(model: &Model, options: &Options, weights: &mut Weights) -> Result<Program> {
    let lowering = CpuLowering { options, weights_fit_cache: weights_fit_cache(model) };
    build(model, &lowering, weights)
}

/// Per node of a model whose device passes have run, the kernel that would run it, or why none would.
///
/// # Errors
/// When the model has a cycle.
pub fn query(model: &Model, options: &Options) -> Result<Vec<NodeSupport>> {
    let weights_fit_cache = weights_fit_cache(model);
    Ok(model
        .topological_order()?
        .into_iter()
        .map(|id| (id, model.node(id)))
        .filter(|(_, node)| !node.op().is::<Parameter>() && !node.op().is::<ConstantOp>())
        .map(|(id, node)| {
            let inputs = describe(model, node);
            let view = NodeView {
                op: node.op(),
                inputs: &inputs,
                outputs: node.outputs(),
                isa: options.isa,
                bf16: options.bf16,
                weights_fit_cache,
            };
            NodeSupport {
                node: id,
                name: node.name().to_owned(),
                op: node.op().kind().to_string(),
                kernel: nodes::select(&view).map(|(kernel, _)| kernel.name.to_owned()),
            }
        })
        .collect())
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

/// Bytes of weights that are taken to stay in the last-level cache.
const CACHE_BYTES: usize = 24 << 20;

fn weights_fit_cache(model: &Model) -> bool {
    model.nodes().filter_map(|(_, n)| n.constant()).map(Tensor::byte_len).sum::<usize>()
        <= CACHE_BYTES
}

struct CpuLowering<'a> {
    options: &'a Options,
    weights_fit_cache: bool,
}

impl Lowering for CpuLowering<'_> {
    type Kernel = &'static KernelEntry;

    fn select(&self, model: &Model, id: NodeId) -> Result<Selected<Self::Kernel>> {
        let node = model.node(id);
        let inputs = describe(model, node);
        let view = NodeView {
            op: node.op(),
            inputs: &inputs,
            outputs: node.outputs(),
            isa: self.options.isa,
            bf16: self.options.bf16,
            weights_fit_cache: self.weights_fit_cache,
        };
        let (kernel, choice) = nodes::select(&view).map_err(|reasons| CompileError::NoKernel {
            device: "CPU".to_owned(),
            op: node.op().kind().to_string(),
            node: node.name().to_owned(),
            reasons,
        })?;
        Ok(Selected {
            kernel,
            params: choice.params,
            packed: choice.packed.into_iter().map(|Pack { len, fill }| (len, fill)).collect(),
            consumed: choice.consumed,
        })
    }

    fn body(&self, body: &Model, weights: &mut Weights) -> Result<Program> {
        lower(&crate::compile::prepare(body, *self.options)?, self.options, weights)
    }
}
