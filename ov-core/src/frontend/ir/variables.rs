//! `ReadValue` and `Assign` of opsets 3 and 6 become the variables of the model.
//! <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/read-value-6.html>
//! <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/assign-6.html>

use std::collections::HashMap;

use super::{Source, graph::Layer};
use crate::{
    error::Result,
    model::{Model, Value},
    op::parse_partial_shape,
    tensor::{ElementType, PartialShape},
};

/// The variables of a graph while it is read.
#[derive(Default)]
pub(super) struct Variables {
    /// Per variable, its name and what a read of it gives.
    read: Vec<(String, Value)>,
    /// Per name, the value that is assigned and the layer that does it.
    assigned: HashMap<String, (Value, String)>,
}

impl Variables {
    /// Takes a layer in and gives the value of its output.
    pub(super) fn layer(
        &mut self,
        source: &Source<'_>,
        layer: &Layer<'_>,
        argument: Option<Value>,
        model: &mut Model,
    ) -> Result<Value> {
        let text = |key| layer.data.and_then(|d| d.attribute(key));
        let wrong =
            |detail: String| source.malformed(format!("{} {:?}: {detail}", layer.kind, layer.name));
        let name = text("variable_id").filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| wrong("it has no variable_id".to_owned()))?.to_owned();
        if layer.kind == "Assign" {
            let value = argument.ok_or_else(|| wrong("it has no input".to_owned()))?;
            let before = self.assigned.insert(name.clone(), (value, layer.name.to_owned()));
            if let Some((_, before)) = before {
                return Err(wrong(format!("{before:?} assigns variable {name:?} too")));
            }
            return Ok(value);
        }
        if self.read.iter().any(|(n, _)| *n == name) {
            return Err(wrong(format!("variable {name:?} is read by two layers")));
        }
        let known = argument.map(|v| model.value_type(v).clone());
        let element_type = match text("variable_type") {
            None | Some("dynamic" | "undefined") => known.as_ref().map(|k| k.element_type),
            Some(t) => Some(t.parse::<ElementType>().map_err(|e| wrong(e.to_string()))?),
        };
        let element_type = element_type
            .filter(|t| t.bits() > 0)
            .ok_or_else(|| wrong("expected a variable_type of numbers, or an input".to_owned()))?;
        let shape = match text("variable_shape") {
            Some(t) => {
                parse_partial_shape("variable_shape", t).map_err(|e| wrong(e.to_string()))?
            }
            None => known.map_or_else(PartialShape::dynamic, |k| k.shape),
        };
        let value = model.add_variable(&name, element_type, shape, argument)?;
        self.read.push((name, value));
        Ok(value)
    }

    /// Gives out what the variables are after an inference: what is assigned, or what was read.
    pub(super) fn finish(mut self, source: &Source<'_>, model: &mut Model) -> Result<()> {
        for (index, (name, read)) in self.read.into_iter().enumerate() {
            let value = self.assigned.remove(&name).map_or(read, |(value, _)| value);
            model.add_variable_output(index, value)?;
        }
        if let Some((name, (_, layer))) = self.assigned.into_iter().min_by(|a, b| a.0.cmp(&b.0)) {
            return Err(source.malformed(format!(
                "Assign {layer:?} sets variable {name:?}, which no ReadValue reads"
            )));
        }
        Ok(())
    }
}
