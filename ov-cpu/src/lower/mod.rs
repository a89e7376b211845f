//! Lowering: a model becomes a program with kernels chosen and weights packed.

pub(crate) mod integer;
pub(crate) mod integer_fuse;

use std::collections::HashMap;

use ov_core::{
    Model, Tensor,
    error::{CompileError, Result},
    model::{Node, NodeId, Value},
    op::{
        Op,
        core::{Constant as ConstantOp, Parameter},
    },
    plugin::NodeSupport,
};

use crate::{
    nodes::{self, InputDesc, NodeView, Pack},
    program::{Constant, NodeDesc, Port, Program, ValueDesc, ValueId, Weights},
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
    Lowering {
        weights_fit_cache: weights_fit_cache(model),
        model,
        options,
        weights,
        ids: HashMap::new(),
        program: Program::default(),
    }
    .run()
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

struct Lowering<'a> {
    weights_fit_cache: bool,
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
            let node = self.model.node(id);
            if node.op().is::<Parameter>() || node.op().is::<ConstantOp>() {
                continue;
            }
            self.lower_node(id)?;
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

    /// The id of a value; constants are stored on first use. `packed` is for constants that only a kernel's packed
    /// form is needed of.
    fn value(&mut self, value: Value, packed: bool) -> ValueId {
        let Some(tensor) = self.model.constant(value) else {
            return self.ids[&value];
        };
        if packed {
            let desc = ValueDesc {
                element_type: tensor.element_type(),
                shape: tensor.shape().into(),
                constant: Constant::Packed,
            };
            return self.push(desc);
        }
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        let constant = self.store(tensor.clone());
        let desc = ValueDesc {
            element_type: tensor.element_type(),
            shape: tensor.shape().into(),
            constant,
        };
        let id = self.push(desc);
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
        let sources: Vec<Tensor> =
            choice.consumed.iter().filter_map(|i| inputs.get(*i)?.constant).cloned().collect();
        let packed = choice
            .packed
            .into_iter()
            .map(|Pack { len, fill }| {
                let sources = sources.clone();
                self.weights.reserve(len, move |bytes| {
                    fill(bytes);
                    // What is packed is not read again: pages of a mapped file need not add to the peak of memory.
                    sources.iter().for_each(|t| ov_core::io::release(t.unaligned_bytes()));
                })
            })
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
            kernel,
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
        crate::control_flow::bodies(op)
            .into_iter()
            .map(|body| {
                lower(&crate::compile::prepare(body, *self.options)?, self.options, self.weights)
            })
            .collect()
    }
}
