//! Order of execution.

use super::{Model, NodeId};
use crate::error::{ModelError, Result};

impl Model {
    /// Every node, producers before consumers; nodes that are ready together keep the order of addition.
    ///
    /// # Errors
    /// [`ModelError::Cycle`].
    pub fn topological_order(&self) -> Result<Vec<NodeId>> {
        const NEW: u8 = 0;
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![NEW; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut stack: Vec<(NodeId, usize)> = Vec::new();
        for (root, _) in self.nodes() {
            if state[root.index()] != NEW {
                continue;
            }
            state[root.index()] = OPEN;
            stack.push((root, 0));
            while let Some((id, next)) = stack.pop() {
                let Some(value) = self.node(id).inputs.get(next) else {
                    state[id.index()] = DONE;
                    order.push(id);
                    continue;
                };
                stack.push((id, next + 1));
                match state[value.node.index()] {
                    NEW => {
                        state[value.node.index()] = OPEN;
                        stack.push((value.node, 0));
                    }
                    OPEN => {
                        let path = stack
                            .iter()
                            .skip_while(|(n, _)| *n != value.node)
                            .map(|(n, _)| self.node(*n).name().to_owned())
                            .collect::<Vec<_>>()
                            .join(" -> ");
                        return Err(ModelError::Cycle { model: self.name.clone(), path }.into());
                    }
                    _ => {}
                }
            }
        }
        Ok(order)
    }
}
