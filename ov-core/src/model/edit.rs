//! Edits that keep uses and types consistent.

use smallvec::SmallVec;

use super::{Model, NodeId, Value};
use crate::{
    error::Result,
    op::{Op, core::Parameter},
    tensor::{ElementType, PartialShape},
};

impl Model {
    /// Renames the model.
    pub fn set_name(&mut self, name: impl Into<String>) {
        self.name = name.into();
    }

    /// Renames a node.
    pub fn set_node_name(&mut self, id: NodeId, name: impl Into<String>) {
        self.node_mut(id).name = name.into();
    }

    /// Lets every consumer of `old`, and every model output, read `new` instead. Types downstream are not inferred
    /// again: call [`Model::infer_all`] if `new` has another type.
    pub fn replace(&mut self, old: Value, new: Value) {
        if old == new {
            return;
        }
        let (moved, kept): (SmallVec<[_; 2]>, SmallVec<[_; 2]>) = self
            .node(old.node)
            .users
            .iter()
            .copied()
            .partition(|(user, input)| self.node(*user).inputs[*input as usize] == old);
        self.node_mut(old.node).users = kept;
        for (user, input) in &moved {
            self.node_mut(*user).inputs[*input as usize] = new;
        }
        self.node_mut(new.node).users.extend(moved);
        for output in &mut self.outputs {
            if output.value == old {
                output.value = new;
            }
        }
    }

    /// Lets one input of a node read another value.
    pub fn set_input(&mut self, id: NodeId, input: usize, value: Value) {
        let old = self.node(id).inputs[input];
        self.node_mut(old.node).users.retain(|u| *u != (id, input as u32));
        self.node_mut(id).inputs[input] = value;
        self.node_mut(value.node).users.push((id, input as u32));
    }

    /// Replaces a node's operator and infers its outputs again.
    ///
    /// # Errors
    /// When the operator refuses the inputs.
    pub fn set_op(&mut self, id: NodeId, op: Box<dyn Op>) -> Result<()> {
        let node = self.node(id);
        let outputs = self.infer_types(&*op, &node.inputs, &node.name)?;
        let node = self.node_mut(id);
        node.op = op;
        node.outputs = outputs.into();
        Ok(())
    }

    /// Lets output `index` of the model give out another value.
    pub fn set_output(&mut self, index: usize, value: Value) {
        self.outputs[index].value = value;
    }

    /// Removes the node when nothing reads it, then in turn the nodes that only it read; parameters stay.
    pub fn remove_unused(&mut self, id: NodeId) {
        let mut stack: SmallVec<[NodeId; 8]> = SmallVec::from_elem(id, 1);
        while let Some(id) = stack.pop() {
            let unused =
                self.get(id).is_some_and(|n| n.users.is_empty() && !n.op.is::<Parameter>())
                    && !self.outputs.iter().any(|o| o.value.node == id);
            let Some(node) = unused.then(|| self.nodes[id.index()].take()).flatten() else {
                continue;
            };
            for (value, index) in node.inputs.iter().zip(0..) {
                self.node_mut(value.node).users.retain(|u| *u != (id, index));
                stack.push(value.node);
            }
        }
    }

    /// Length of a table that is indexed with [`NodeId::index`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// Removes every node that no output depends on; parameters stay.
    pub fn remove_dead(&mut self) -> usize {
        let mut alive = vec![false; self.nodes.len()];
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|o| o.value.node).collect();
        stack.extend(&self.parameters);
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut alive[id.index()], true) {
                stack.extend(self.node(id).inputs.iter().map(|v| v.node));
            }
        }
        let mut removed = 0;
        for (i, slot) in self.nodes.iter_mut().enumerate() {
            if !alive[i] && slot.take().is_some() {
                removed += 1;
            }
        }
        if removed > 0 {
            for node in self.nodes.iter_mut().flatten() {
                node.users.retain(|(user, _)| alive[user.index()]);
            }
        }
        removed
    }

    /// Infers every type again, in order of execution.
    ///
    /// # Errors
    /// When an operator refuses its inputs.
    pub fn infer_all(&mut self) -> Result<()> {
        for id in self.topological_order()? {
            let node = self.node(id);
            if node.constant().is_none() {
                let outputs = self.infer_types(node.op(), &node.inputs, &node.name)?;
                self.node_mut(id).outputs = outputs.into();
            }
        }
        Ok(())
    }

    /// Gives input `index` another shape (and, unless `Dynamic`, element type) and infers every type again.
    ///
    /// # Errors
    /// When an operator refuses the new types.
    pub fn reshape_input(
        &mut self,
        index: usize,
        element_type: ElementType,
        shape: impl Into<PartialShape>,
    ) -> Result<()> {
        let id = self.parameters[index];
        let old = self.node(id).element_type(0);
        let element_type = if element_type == ElementType::Dynamic { old } else { element_type };
        self.set_op(id, Box::new(Parameter { element_type, shape: shape.into() }))?;
        self.infer_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::activation::{Elu, Relu};

    #[test]
    fn replace_moves_uses_and_outputs() {
        let mut m = Model::new("m");
        let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
        let a = m.add(Relu {}, &[x], "a").expect("valid");
        let b = m.add(Elu::default(), &[a], "b").expect("valid");
        m.add_output("a", a);
        m.add_output("b", b);
        m.replace(a, x);
        assert_eq!(m.outputs()[0].value, x);
        assert_eq!(m.uses(x).collect::<Vec<_>>(), [(a.node, 0), (b.node, 0)]);
        assert_eq!(m.remove_dead(), 1);
        assert!(m.get(a.node).is_none());
        assert_eq!(m.uses(x).collect::<Vec<_>>(), [(b.node, 0)]);
        m.verify().expect("consistent");
    }

    #[test]
    fn reshaping_an_input_reaches_the_outputs() {
        let mut m = Model::new("m");
        let x =
            m.add_parameter("x", ElementType::F32, PartialShape::dynamic_rank(2)).expect("valid");
        let a = m.add(Relu {}, &[x], "a").expect("valid");
        m.add_output("a", a);
        assert!(m.is_dynamic());
        m.reshape_input(0, ElementType::Dynamic, [3, 4]).expect("valid");
        assert_eq!(m.output_shape(0).to_string(), "[3,4]");
    }
}
