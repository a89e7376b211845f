//! Consistency of a model.

use super::Model;
use crate::error::{ModelError, Result};

impl Model {
    /// Checks that there are parameters and outputs for every variable, of its type.
    ///
    /// # Errors
    /// [`ModelError::Graph`].
    pub fn verify_variables(&self) -> Result<()> {
        let hidden: usize = self.variables.iter().map(super::Variable::parameters).sum();
        let inputs = self.parameters.len().checked_sub(hidden);
        let outputs = self.outputs.len().checked_sub(self.variables.len());
        let sound = inputs.zip(outputs).is_some_and(|(mut input, output)| {
            self.variables.iter().zip(&self.outputs[output..]).all(|(variable, output)| {
                let parameter = self.parameters[input];
                input += variable.parameters();
                self.node(parameter).element_type(0) == variable.element_type
                    && self.element_type(output.value) == variable.element_type
            })
        });
        if sound {
            return Ok(());
        }
        let detail = "the last parameters and outputs are not those of its variables".to_owned();
        Err(ModelError::Graph { model: self.name.clone(), detail }.into())
    }

    /// Checks that inputs exist, that the lists of uses mirror them, that there is no cycle, and that inferring every
    /// type again gives what the nodes hold.
    ///
    /// # Errors
    /// [`ModelError::Graph`], [`ModelError::Cycle`] or [`ModelError::Op`].
    pub fn verify(&self) -> Result<()> {
        let graph = |detail: String| ModelError::Graph { model: self.name.clone(), detail };
        for (id, node) in self.nodes() {
            for (i, value) in node.inputs.iter().enumerate() {
                let producer = self
                    .get(value.node)
                    .filter(|p| (value.output as usize) < p.outputs.len())
                    .ok_or_else(|| {
                        graph(format!("input {i} of {:?} reads missing value {value}", node.name))
                    })?;
                if !producer.users.contains(&(id, i as u32)) {
                    return Err(graph(format!(
                        "{:?} does not know its use by {:?}",
                        producer.name, node.name
                    ))
                    .into());
                }
            }
            for (user, input) in &node.users {
                let reads = self.get(*user).and_then(|u| u.inputs.get(*input as usize));
                if reads.is_none_or(|v| v.node != id) {
                    return Err(
                        graph(format!("{:?} lists a use that does not exist", node.name)).into()
                    );
                }
            }
        }
        self.verify_variables()?;
        for output in &self.outputs {
            if self.get(output.value.node).is_none() {
                return Err(graph(format!(
                    "output {:?} reads missing value {}",
                    output.name, output.value
                ))
                .into());
            }
        }
        for id in self.topological_order()? {
            let node = self.node(id);
            if node.constant().is_some() {
                continue;
            }
            let inferred = self.infer_types(node.op(), &node.inputs, &node.name)?;
            for (i, (held, now)) in node.outputs.iter().zip(&inferred).enumerate() {
                if held.element_type != now.element_type
                    || held.shape.intersect(&now.shape).is_none()
                {
                    return Err(graph(format!(
                        "output {i} of {:?} holds {}{}, inferred {}{}",
                        node.name, held.element_type, held.shape, now.element_type, now.shape
                    ))
                    .into());
                }
            }
        }
        Ok(())
    }
}
