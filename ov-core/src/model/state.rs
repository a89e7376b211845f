//! Variables that live from one inference to the next, as hidden inputs and outputs of a model.
//!
//! OpenVINO spells a variable as two operators, `ReadValue` and `Assign`
//! (<https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-request/stateful-models.html>). Here it is
//! a parameter after the model's inputs, which holds the value before the inference, and an output after the model's
//! outputs, which gives the value after it. A variable with an initial value has a second parameter, whose length says
//! which of the two a [`ReadState`] reads: 1 for the initial value, 0 for the one of the inference before.

use super::{Model, NodeId, Value};
use crate::{
    error::{ModelError, Result},
    op::state::ReadState,
    tensor::{Dimension, ElementType, PartialShape},
};

/// A variable of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name (`variable_id`).
    pub name: String,
    /// Element type of its value.
    pub element_type: ElementType,
    /// Shape that its value fits.
    pub shape: PartialShape,
    /// Whether the model computes an initial value; otherwise it starts as zeros, with extents that are open 0.
    pub has_initial: bool,
}

impl Variable {
    /// Number of parameters that stand for it.
    #[must_use]
    pub fn parameters(&self) -> usize {
        1 + usize::from(self.has_initial)
    }
}

impl Model {
    /// The variables, in the order of their hidden parameters and outputs.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Parameters that a user gives: all but those of variables.
    #[must_use]
    pub fn inputs(&self) -> &[NodeId] {
        let hidden: usize = self.variables.iter().map(Variable::parameters).sum();
        &self.parameters[..self.parameters.len().saturating_sub(hidden)]
    }

    /// Outputs that a user takes: all but those of variables.
    #[must_use]
    pub fn results(&self) -> &[super::ModelOutput] {
        &self.outputs[..self.outputs.len().saturating_sub(self.variables.len())]
    }

    /// Adds the parameters of a variable and gives the value that a read of it has. After the inputs; its output
    /// follows with [`Model::add_variable_output`], after all other outputs and in the same order.
    ///
    /// # Errors
    /// [`ModelError::Op`] when the initial value has another type or a shape that the variable does not take.
    pub fn add_variable(
        &mut self,
        name: &str,
        element_type: ElementType,
        shape: PartialShape,
        initial: Option<Value>,
    ) -> Result<Value> {
        let state = self.add_parameter(name, element_type, shape.clone())?;
        let value = match initial {
            None => state,
            Some(initial) => {
                let open = PartialShape::new(&[Dimension::bounded(0, Some(1))]);
                let fresh =
                    self.add_parameter(format!("{name}/fresh"), ElementType::Boolean, open)?;
                self.add(ReadState {}, &[initial, state, fresh], name)?
            }
        };
        let has_initial = initial.is_some();
        self.variables.push(Variable { name: name.to_owned(), element_type, shape, has_initial });
        Ok(value)
    }

    /// Gives out the value that variable `name` has after the inference.
    ///
    /// # Errors
    /// [`ModelError::Graph`] when the value has another type or a shape that the variable does not take.
    pub fn add_variable_output(&mut self, variable: usize, value: Value) -> Result<()> {
        let Variable { name, element_type, shape, .. } = &self.variables[variable];
        let ty = self.value_type(value);
        if ty.element_type != *element_type || ty.shape.intersect(shape).is_none() {
            return Err(ModelError::Graph {
                model: self.name.clone(),
                detail: format!(
                    "variable {name:?} is {element_type}{shape}, it is assigned {}{}",
                    ty.element_type, ty.shape
                ),
            }
            .into());
        }
        let name = name.clone();
        self.add_output(name, value);
        Ok(())
    }

    /// Declares the last parameters and outputs to be those of variables, as another model has them.
    pub fn set_variables(&mut self, variables: Vec<Variable>) {
        self.variables = variables;
    }
}
