//! The content of a model as bytes: the same for equal models, whatever the order in which nodes were added.

use super::Model;
use crate::{
    cache::DigestSink,
    error::{ModelError, Result},
    op::{Attribute, AttributeVisitor, OpResult},
};

impl Model {
    /// Feeds everything that decides what the model computes, and the names of inputs, outputs and nodes, to a sink.
    ///
    /// # Errors
    /// [`ModelError::Cycle`].
    pub fn digest(&self, sink: &mut dyn DigestSink) -> Result<()> {
        let order = self.topological_order()?;
        let mut position = vec![0u64; self.nodes.len()];
        for (i, id) in order.iter().enumerate() {
            position[id.index()] = i as u64;
        }
        sink.field("model", self.name.as_bytes());
        for id in &order {
            let node = self.node(*id);
            let kind = node.op().kind();
            sink.field("op", kind.name.as_bytes());
            sink.field("opset", &kind.opset.to_le_bytes());
            sink.field("name", node.name().as_bytes());
            for value in node.inputs() {
                sink.field("input", &position[value.node.index()].to_le_bytes());
                sink.field("output", &value.output.to_le_bytes());
            }
            node.op().clone_box().visit_attributes(&mut Writer(sink)).map_err(|source| {
                ModelError::Op { op: kind.to_string(), node: node.name().to_owned(), source }
            })?;
        }
        for id in &self.parameters {
            sink.field("parameter", &position[id.index()].to_le_bytes());
        }
        for output in &self.outputs {
            sink.field("result", &position[output.value.node.index()].to_le_bytes());
            sink.field("of", &output.value.output.to_le_bytes());
            sink.field("name", output.name.as_bytes());
        }
        for variable in &self.variables {
            sink.field("variable", variable.name.as_bytes());
            sink.field("initial", &[u8::from(variable.has_initial)]);
        }
        Ok(())
    }
}

struct Writer<'a>(&'a mut dyn DigestSink);

impl AttributeVisitor for Writer<'_> {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        let sink = &mut *self.0;
        match attribute {
            Attribute::Bool(v) => sink.field(name, &[u8::from(*v)]),
            Attribute::I64(v) => sink.field(name, &v.to_le_bytes()),
            Attribute::F64(v) => sink.field(name, &v.to_le_bytes()),
            Attribute::I64s(v) => {
                sink.field(name, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
            }
            Attribute::F64s(v) => {
                sink.field(name, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
            }
            Attribute::String(v) => sink.field(name, v.as_bytes()),
            Attribute::Strings(v) => {
                sink.field(name, &(v.len() as u64).to_le_bytes());
                v.iter().for_each(|v| sink.field("", v.as_bytes()));
            }
            Attribute::ElementType(v) => sink.field(name, v.name().as_bytes()),
            Attribute::PartialShape(v) => sink.field(name, v.to_string().as_bytes()),
            Attribute::Choice(v) => sink.field(name, v.text().as_bytes()),
            Attribute::Tensor(v) => {
                sink.field(name, v.element_type().name().as_bytes());
                sink.field("shape", v.shape().to_string().as_bytes());
                match v.as_strings() {
                    Ok(texts) => texts.iter().for_each(|t| sink.field("", t.as_bytes())),
                    Err(_) => sink.field("", v.to_contiguous().unaligned_bytes()),
                }
            }
            Attribute::Body(v) => {
                sink.field(name, b"body");
                v.digest(sink).map_err(|e| crate::op::OpError::Invalid(e.to_string()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ElementType, Tensor, cache::BytesSink, op::activation::Elu};

    fn digest(alpha: f64, value: f32, name: &str) -> Vec<u8> {
        let mut m = Model::new("m");
        let c = m.add_constant(Tensor::scalar(value), "c");
        let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
        for input in [c, x] {
            let y = m.add(Elu { alpha }, &[input], name).expect("valid");
            m.add_output("y", y);
        }
        let mut sink = BytesSink::default();
        m.digest(&mut sink).expect("acyclic");
        sink.0
    }

    #[test]
    fn equal_models_are_equal_and_any_change_shows() {
        let same = digest(1.0, 2.0, "n");
        assert_eq!(digest(1.0, 2.0, "n"), same);
        for other in [digest(1.5, 2.0, "n"), digest(1.0, 2.5, "n"), digest(1.0, 2.0, "k")] {
            assert_ne!(other, same);
        }
    }
}
