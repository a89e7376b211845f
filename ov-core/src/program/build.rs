//! From a model whose device passes have run to the program of a device.

use std::{collections::HashMap, fmt};

use super::{Constant, Kernel, NodeDesc, Port, Program, ValueDesc, ValueId, Weights};
use crate::{
    Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        control_flow,
        core::{Constant as ConstantOp, Parameter},
    },
};

/// Writes packed weights into zeroed memory.
pub type Fill = Box<dyn FnOnce(&mut [u8]) + Send>;

/// The kernel of a node and what it keeps of the node.
pub struct Selected<K> {
    /// The kernel.
    pub kernel: K,
    /// Numbers for the binding.
    pub params: Vec<i64>,
    /// Packed weights: their bytes, and what writes them.
    pub packed: Vec<(usize, Fill)>,
    /// Inputs whose constants are needed in packed form only.
    pub consumed: Vec<usize>,
}

impl<K: fmt::Debug> fmt::Debug for Selected<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selected")
            .field("kernel", &self.kernel)
            .field("params", &self.params)
            .field("packed", &self.packed.iter().map(|(len, _)| *len).collect::<Vec<_>>())
            .field("consumed", &self.consumed)
            .finish()
    }
}

/// What a device decides when a program is built.
pub trait Lowering {
    /// What the device writes about how it runs a node.
    type Kernel: Kernel;

    /// The kernel of a node.
    ///
    /// # Errors
    /// When nothing runs the node.
    fn select(&self, model: &Model, node: NodeId) -> Result<Selected<Self::Kernel>>;

    /// The program of a body of control flow, after this device's passes.
    ///
    /// # Errors
    /// As [`build`].
    fn body(&self, body: &Model, weights: &mut Weights) -> Result<Program<Self::Kernel>>;
}

/// Builds the program of a model, reserving its constants and packed weights in `weights`.
///
/// # Errors
/// Those of the lowering, and when the model has a cycle.
pub fn build<L: Lowering>(
    model: &Model,
    lowering: &L,
    weights: &mut Weights,
) -> Result<Program<L::Kernel>> {
    Builder { model, lowering, weights, ids: HashMap::new(), program: Program::default() }.run()
}

struct Builder<'a, L: Lowering> {
    model: &'a Model,
    lowering: &'a L,
    weights: &'a mut Weights,
    ids: HashMap<Value, ValueId>,
    program: Program<L::Kernel>,
}

impl<L: Lowering> Builder<'_, L> {
    fn run(mut self) -> Result<Program<L::Kernel>> {
        self.model.name().clone_into(&mut self.program.name);
        for id in self.model.parameters() {
            let value = self.define((*id).into());
            self.program.inputs.push(Port { name: self.model.node(*id).name().to_owned(), value });
        }
        for id in self.model.topological_order()? {
            let node = self.model.node(id);
            if !node.op().is::<Parameter>() && !node.op().is::<ConstantOp>() {
                self.node(id)?;
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

    /// The id of a value; constants are stored on first use. `packed` is for constants of which only a kernel's packed
    /// form is needed.
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
            crate::io::release(tensor.unaligned_bytes());
        }))
    }

    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.model.node(id);
        let Selected { kernel, params, packed, consumed } = self.lowering.select(self.model, id)?;
        let constant = |i: &usize| self.model.constant(*node.inputs().get(*i)?).cloned();
        let sources: Vec<Tensor> = consumed.iter().filter_map(constant).collect();
        let packed = packed
            .into_iter()
            .map(|(len, fill)| {
                let sources = sources.clone();
                self.weights.reserve(len, move |bytes| {
                    fill(bytes);
                    // What is packed is not read again: pages of a mapped file need not add to the peak of memory.
                    sources.iter().for_each(|t| crate::io::release(t.unaligned_bytes()));
                })
            })
            .collect();
        let inputs = node
            .inputs()
            .iter()
            .enumerate()
            .map(|(i, v)| self.value(*v, consumed.contains(&i)))
            .collect();
        let bodies = control_flow::bodies(node.op())
            .into_iter()
            .map(|body| self.lowering.body(body, self.weights))
            .collect::<Result<_>>()?;
        let outputs = (0..node.outputs().len() as u32)
            .map(|output| self.define(Value { node: id, output }))
            .collect();
        self.program.nodes.push(NodeDesc {
            op: node.op().clone_box(),
            kernel,
            name: node.name().to_owned(),
            inputs,
            outputs,
            params,
            packed,
            bodies,
        });
        Ok(())
    }
}
