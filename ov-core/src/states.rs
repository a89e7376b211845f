//! The variables of one request: what its hidden inputs hold.

use crate::{
    error::{InferError, Result},
    model::Variable,
    tensor::Tensor,
};

/// The variables of a request, whose device keeps one tensor per hidden input of the model (see [`crate::model::Variable`])
/// in a slice and gets one per hidden output.
///
/// A device with [`Variable`]s runs an inference on its inputs followed by the hidden ones, and then calls
/// [`States::advance`].
#[derive(Debug)]
pub struct States {
    variables: Vec<Variable>,
    /// What the hidden inputs hold at the beginning.
    initial: Vec<Tensor>,
    /// The flag that the value of the inference before is read.
    read: Tensor,
}

impl States {
    /// The variables of a model.
    ///
    /// # Errors
    /// [`InferError::Tensor`] when there is no memory for an initial value.
    pub fn new(variables: Vec<Variable>) -> Result<Self> {
        let mut initial = Vec::with_capacity(2 * variables.len());
        for variable in &variables {
            let least: Vec<usize> = match variable.shape.dims() {
                Some(dims) => dims.iter().map(|d| d.min()).collect(),
                None => vec![0],
            };
            initial.push(Tensor::zeros(variable.element_type, least).map_err(InferError::Tensor)?);
            if variable.has_initial {
                initial.push(Tensor::from_bools([1], &[true]).map_err(InferError::Tensor)?);
            }
        }
        let read = Tensor::from_bools([0], &[]).map_err(InferError::Tensor)?;
        Ok(Self { variables, initial, read })
    }

    /// What the hidden inputs hold at the beginning: zeros, and for variables with an initial value the flag that the
    /// model computes it.
    #[must_use]
    pub fn initial(&self) -> &[Tensor] {
        &self.initial
    }

    /// Number of hidden outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there are no variables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// The value of a variable; zeros before the first inference, also where the model computes an initial value.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`].
    pub fn value(&self, hidden: &[Tensor], name: &str) -> Result<Tensor> {
        Ok(hidden[self.find(name)?.0].clone())
    }

    /// Sets a variable to a copy of `value`.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`]; [`InferError::Mismatch`] when the tensor does not fit.
    pub fn set(&self, hidden: &mut [Tensor], name: &str, value: &Tensor) -> Result<()> {
        let (at, variable) = self.find(name)?;
        let fits =
            value.element_type() == variable.element_type && variable.shape.admits(value.shape());
        if !fits {
            return Err(InferError::Mismatch {
                direction: "state",
                port: variable.name.clone(),
                expected: format!("{}{}", variable.element_type, variable.shape),
                got: format!("{}{}", value.element_type(), value.shape()),
            }
            .into());
        }
        hidden[at] = value.to_owned_tensor();
        if variable.has_initial {
            hidden[at + 1] = self.read.clone();
        }
        Ok(())
    }

    /// Lets every variable start again.
    pub fn reset(&self, hidden: &mut [Tensor]) {
        hidden.clone_from_slice(&self.initial);
    }

    /// After an inference: what the hidden outputs gave becomes what the hidden inputs hold, and the memory of these
    /// is what the next inference may write to.
    pub fn advance(&self, hidden: &mut [Tensor], outputs: &mut [Tensor]) {
        let mut at = 0;
        for (variable, output) in self.variables.iter().zip(outputs) {
            std::mem::swap(&mut hidden[at], output);
            if variable.has_initial {
                hidden[at + 1] = self.read.clone();
            }
            at += variable.parameters();
        }
    }

    /// The place of a variable's value among the hidden inputs.
    fn find(&self, name: &str) -> Result<(usize, &Variable)> {
        let mut at = 0;
        for variable in &self.variables {
            if variable.name == name {
                return Ok((at, variable));
            }
            at += variable.parameters();
        }
        let names: Vec<&str> = self.variables.iter().map(|v| v.name.as_str()).collect();
        let known = if names.is_empty() { "no states".to_owned() } else { names.join(", ") };
        Err(InferError::NoSuchPort { direction: "state", port: format!("{name:?}"), known }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Dimension, ElementType, PartialShape};

    #[test]
    fn values_are_set_advance_and_start_again() {
        let shape = PartialShape::new(&[Dimension::DYNAMIC, Dimension::fixed(2)]);
        let variable = |name: &str, has_initial| Variable {
            name: name.to_owned(),
            element_type: ElementType::F32,
            shape: shape.clone(),
            has_initial,
        };
        let states = States::new(vec![variable("a", true), variable("b", false)]).expect("small");
        let mut hidden = states.initial().to_vec();
        assert_eq!(
            hidden.iter().map(|t| t.shape().to_vec()).collect::<Vec<_>>(),
            [vec![0, 2], vec![1], vec![0, 2]]
        );
        let one = Tensor::from_vec([1, 2], vec![1.0f32, 2.0]).expect("fits");
        states.set(&mut hidden, "a", &one).expect("fits");
        assert_eq!((states.value(&hidden, "a").expect("there"), hidden[1].len()), (one.clone(), 0));
        states.reset(&mut hidden);
        assert_eq!(hidden[1].len(), 1);
        let mut outputs = vec![one.clone(), one.clone()];
        states.advance(&mut hidden, &mut outputs);
        assert_eq!(states.value(&hidden, "b").expect("there"), one);
        assert_eq!(hidden[1].len(), 0);
        assert!(states.value(&hidden, "c").is_err_and(|e| e.to_string().contains("a, b")));
        let wide = Tensor::from_vec([2], vec![1.0f32, 2.0]).expect("fits");
        assert!(states.set(&mut hidden, "a", &wide).is_err());
    }
}
