//! Operators and models as bytes, through their attribute visitors: for programs that run operators by reference.

use super::{Decoder, Encoder, format::failed};
use crate::{
    error::Result,
    model::{Model, NodeId, Value, Variable},
    op::{self, Attribute, AttributeVisitor, Op, OpError, OpResult},
    tensor::{ElementType, Shape, Tensor},
};

/// Bodies within bodies.
const MAX_DEPTH: usize = 32;

impl Encoder {
    /// Writes an operator: name, opset and attributes.
    ///
    /// # Errors
    /// None for operators made with [`define_op!`](crate::define_op).
    pub fn op(&mut self, op: &dyn Op) -> Result<()> {
        self.text(op.kind().name);
        self.u32(op.kind().opset);
        let writer = &mut Writer { to: self, bodies: Bodies::Here };
        op.clone_box().visit_attributes(writer).map_err(|e| encoding(op, e))
    }

    /// Writes the attributes of an operator but not the bodies that are programs of their own (those of
    /// [`control_flow::bodies`](crate::op::control_flow::bodies)), for [`Decoder::attributes`].
    ///
    /// # Errors
    /// None for operators made with [`define_op!`](crate::define_op).
    pub fn attributes(&mut self, op: &dyn Op) -> Result<()> {
        let apart = !op::control_flow::bodies(op).is_empty();
        let bodies = if apart { Bodies::Elsewhere } else { Bodies::Here };
        let writer = &mut Writer { to: self, bodies };
        op.clone_box().visit_attributes(writer).map_err(|e| encoding(op, e))
    }

    /// Writes a tensor, a sequence or a map.
    pub fn tensor(&mut self, tensor: &Tensor) {
        self.element_type(tensor.element_type());
        self.sizes(tensor.shape());
        if let Ok(texts) = tensor.as_strings() {
            self.list(texts.iter(), |e, t| e.text(t));
        } else if let Ok(items) = tensor.as_sequence() {
            self.list(items.iter(), Self::tensor);
        } else if let Ok((keys, values)) = tensor.as_map() {
            self.tensor(keys);
            self.tensor(values);
        } else {
            let tensor = tensor.to_contiguous();
            self.size(tensor.bytes().len());
            self.raw(tensor.bytes());
        }
    }

    /// Writes the variables of a model.
    pub fn variables(&mut self, variables: &[Variable]) {
        self.list(variables.iter(), |e, v| {
            e.text(&v.name);
            e.element_type(v.element_type);
            e.partial_shape(&v.shape);
            e.bool(v.has_initial);
        });
    }

    /// Writes a model. Weights go inline, so this suits bodies and small models.
    ///
    /// # Errors
    /// When the model has a cycle.
    pub fn model(&mut self, model: &Model) -> Result<()> {
        let order = model.topological_order()?;
        let mut position = std::collections::HashMap::new();
        self.text(model.name());
        // Parameters first, in their order, so that reading them back keeps it.
        let others = order.iter().filter(|id| !model.parameters().contains(id));
        let ids: Vec<NodeId> = model.parameters().iter().chain(others).copied().collect();
        self.size(model.parameters().len());
        self.size(ids.len());
        for (i, id) in ids.into_iter().enumerate() {
            let node = model.node(id);
            self.text(node.name());
            self.op(node.op())?;
            self.list(node.inputs().iter(), |e, v| {
                e.size(position.get(&v.node).copied().unwrap_or(usize::MAX));
                e.u32(v.output);
            });
            position.insert(id, i);
        }
        self.list(model.outputs().iter(), |e, o| {
            e.text(&o.name);
            e.size(position.get(&o.value.node).copied().unwrap_or(usize::MAX));
            e.u32(o.value.output);
        });
        self.variables(model.variables());
        Ok(())
    }
}

impl Decoder<'_> {
    /// Reads an operator.
    ///
    /// # Errors
    /// When there is none of that name and opset, or the bytes are damaged.
    pub fn op(&mut self) -> Result<Box<dyn Op>> {
        self.op_within(MAX_DEPTH)
    }

    fn op_within(&mut self, depth: usize) -> Result<Box<dyn Op>> {
        let (name, opset) = (self.text()?.to_owned(), self.u32()?);
        let entry =
            op::all().find(|e| e.kind.name == name && e.kind.opset == opset).ok_or_else(|| {
                failed("operator", "a known one", format_args!("{name} of opset {opset}"))
            })?;
        let mut op = (entry.create)();
        op.visit_attributes(&mut Reader { from: self, depth, bodies: None })
            .map_err(|e| failed("decoding an operator", format_args!("attributes of {name}"), e))?;
        Ok(op)
    }

    /// Reads the attributes that [`Encoder::attributes`] wrote into `op`, and gives it `bodies`, in order.
    ///
    /// # Errors
    /// When the bytes are damaged or the operator has more bodies.
    pub fn attributes(&mut self, op: &mut dyn Op, bodies: Vec<Model>) -> Result<()> {
        let kind = op.kind();
        let apart = !op::control_flow::bodies(op).is_empty();
        let bodies = apart.then(|| bodies.into_iter());
        op.visit_attributes(&mut Reader { from: self, depth: MAX_DEPTH, bodies })
            .map_err(|e| failed("decoding an operator", format_args!("attributes of {kind}"), e))
    }

    /// Reads a tensor, a sequence or a map.
    ///
    /// # Errors
    /// When its bytes do not fit its shape.
    pub fn tensor(&mut self) -> Result<Tensor> {
        self.tensor_within(MAX_DEPTH)
    }

    /// A tensor whose items may hold items themselves, `depth` times.
    fn tensor_within(&mut self, depth: usize) -> Result<Tensor> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(failed("depth of items", format_args!("at most {MAX_DEPTH}"), "more"));
        };
        let element_type = self.element_type()?;
        let shape: Shape = self.sizes()?.into();
        match element_type {
            ElementType::String => {
                let texts = self.list(|d| d.text().map(str::to_owned))?;
                return Ok(Tensor::from_strings(shape, texts)?);
            }
            ElementType::Sequence => {
                return Ok(Tensor::from_sequence(self.list(|d| d.tensor_within(depth))?));
            }
            ElementType::Map => {
                let (keys, values) = (self.tensor_within(depth)?, self.tensor_within(depth)?);
                return Ok(Tensor::from_map(keys, values)?);
            }
            _ => {}
        }
        let len = self.size()?;
        let bytes = self.bytes(len)?;
        if element_type.bits() == 0 {
            return Ok(Tensor::absent());
        }
        Ok(Tensor::from_bytes(element_type, shape, bytes)?)
    }

    /// Reads what [`Encoder::variables`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn variables(&mut self) -> Result<Vec<Variable>> {
        self.list(|d| {
            Ok(Variable {
                name: d.text()?.to_owned(),
                element_type: d.element_type()?,
                shape: d.partial_shape()?,
                has_initial: d.bool()?,
            })
        })
    }

    /// Reads a model; every type is inferred again.
    ///
    /// # Errors
    /// When the bytes are damaged or an operator refuses its inputs.
    pub fn model(&mut self) -> Result<Model> {
        self.model_within(MAX_DEPTH)
    }

    fn model_within(&mut self, depth: usize) -> Result<Model> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(failed("depth of bodies", format_args!("at most {MAX_DEPTH}"), "more"));
        };
        let mut model = Model::new(self.text()?);
        let (parameters, count) = (self.size()?, self.size()?);
        let mut ids: Vec<NodeId> = Vec::new();
        for i in 0..count {
            let name = self.text()?.to_owned();
            let op = self.op_within(depth)?;
            let inputs = self.list(|d| d.value(&ids))?;
            if i < parameters {
                let p: &op::core::Parameter =
                    op.downcast().ok_or_else(|| failed("parameter", "Parameter", op.kind()))?;
                ids.push(model.add_parameter(name, p.element_type, p.shape.clone())?.node);
            } else if let Some(c) = op.downcast::<op::core::Constant>() {
                ids.push(model.add_constant(c.clone(), name).node);
            } else {
                ids.push(model.add_node(op, &inputs, name)?);
            }
        }
        for (name, value) in self.list(|d| Ok((d.text()?.to_owned(), d.value(&ids)?)))? {
            let outputs = model.node(value.node).outputs().len();
            if value.output as usize >= outputs {
                return Err(failed("output", format_args!("less than {outputs}"), value.output));
            }
            model.add_output(name, value);
        }
        model.set_variables(self.variables()?);
        model.verify_variables()?;
        Ok(model)
    }

    fn value(&mut self, ids: &[NodeId]) -> Result<Value> {
        let (node, output) = (self.size()?, self.u32()?);
        let node = ids.get(node).copied();
        let node = node.ok_or_else(|| failed("value", "an earlier node", "another"))?;
        Ok(Value { node, output })
    }
}

fn op_error(e: impl std::fmt::Display) -> OpError {
    OpError::Invalid(e.to_string())
}

fn encoding(op: &dyn Op, error: OpError) -> crate::Error {
    failed("encoding an operator", format_args!("attributes of {}", op.kind()), error)
}

/// Where the bodies of an operator go.
#[derive(Clone, Copy)]
enum Bodies {
    /// Among the attributes.
    Here,
    /// Whoever writes the operator takes care of them.
    Elsewhere,
}

struct Writer<'e> {
    to: &'e mut Encoder,
    bodies: Bodies,
}

impl AttributeVisitor for Writer<'_> {
    fn visit(&mut self, _: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        let e = &mut *self.to;
        match attribute {
            Attribute::Bool(v) => e.bool(*v),
            Attribute::I64(v) => e.i64(*v),
            Attribute::F64(v) => e.f64(*v),
            Attribute::I64s(v) => e.list(v.iter(), |e, v| e.i64(*v)),
            Attribute::F64s(v) => e.list(v.iter(), |e, v| e.f64(*v)),
            Attribute::String(v) => e.text(v),
            Attribute::Strings(v) => e.list(v.iter(), |e, v| e.text(v)),
            Attribute::ElementType(v) => e.element_type(*v),
            Attribute::PartialShape(v) => e.partial_shape(v),
            Attribute::Tensor(v) => e.tensor(v),
            Attribute::Body(v) => match self.bodies {
                Bodies::Here => e.model(v).map_err(op_error)?,
                Bodies::Elsewhere => {}
            },
            Attribute::Choice(v) => e.text(v.text()),
        }
        Ok(())
    }
}

struct Reader<'d, 'a> {
    from: &'d mut Decoder<'a>,
    depth: usize,
    /// Bodies that are not among the attributes.
    bodies: Option<std::vec::IntoIter<Model>>,
}

impl Reader<'_, '_> {
    fn read(&mut self, name: &'static str, attribute: Attribute<'_>) -> Result<()> {
        let d = &mut *self.from;
        match attribute {
            Attribute::Bool(v) => *v = d.bool()?,
            Attribute::I64(v) => *v = d.i64()?,
            Attribute::F64(v) => *v = d.f64()?,
            Attribute::I64s(v) => *v = d.list(Decoder::i64)?,
            Attribute::F64s(v) => *v = d.list(Decoder::f64)?,
            Attribute::String(v) => d.text()?.clone_into(v),
            Attribute::Strings(v) => *v = d.list(|d| d.text().map(str::to_owned))?,
            Attribute::ElementType(v) => *v = d.element_type()?,
            Attribute::PartialShape(v) => *v = d.partial_shape()?,
            Attribute::Tensor(v) => *v = d.tensor()?,
            Attribute::Body(v) => match &mut self.bodies {
                None => *v = d.model_within(self.depth)?,
                Some(bodies) => match bodies.next() {
                    Some(body) => *v = body,
                    None => return d.fail("a body"),
                },
            },
            Attribute::Choice(v) => {
                let text = d.text()?;
                if !v.set_text(text) {
                    return Err(failed(name, v.options().join(", "), text));
                }
            }
        }
        Ok(())
    }
}

impl AttributeVisitor for Reader<'_, '_> {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        self.read(name, attribute).map_err(op_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::BytesSink, op::activation::Elu};

    #[test]
    fn every_operator_comes_back_with_its_attributes() {
        for entry in op::all() {
            let op = (entry.create)();
            let mut e = Encoder::new();
            e.op(&*op).expect("visits");
            let bytes = e.into_bytes();
            let mut d = Decoder::new(&bytes);
            let back = d.op().unwrap_or_else(|e| panic!("{}: {e}", entry.kind));
            d.end().expect("all read");
            assert_eq!(back.kind(), entry.kind);
            assert_eq!(back.attributes_text(), op.attributes_text(), "{}", entry.kind);
        }
    }

    #[test]
    fn sequences_and_maps_come_back() {
        let item = Tensor::from_vec([2], vec![1.0f32, 2.0]).expect("fits");
        let keys = Tensor::from_i64s(&[3, 4]);
        let map = Tensor::from_map(keys, item.clone()).expect("as many keys as values");
        let sequence = Tensor::from_sequence(vec![item.clone(), map]);
        let mut e = Encoder::new();
        e.tensor(&sequence);
        let bytes = e.into_bytes();
        let back = Decoder::new(&bytes).tensor().expect("whole");
        let items = back.as_sequence().expect("a sequence");
        assert_eq!(items[0].bytes(), item.bytes());
        assert_eq!(items[1].as_map().expect("a map").1.bytes(), item.bytes());
        for len in 0..bytes.len() {
            assert!(Decoder::new(&bytes[..len]).tensor().is_err(), "cut to {len}");
        }
    }

    #[test]
    fn models_come_back_and_cuts_are_refused() {
        let mut m = Model::new("m");
        let c = m.add_constant(Tensor::from_vec([2], vec![1.0f32, 2.0]).expect("fits"), "c");
        let unused = m.add_parameter("b", ElementType::I64, [1]).expect("valid");
        let x = m.add_parameter("a", ElementType::F32, [2]).expect("valid");
        let y = m.add(Elu { alpha: 0.25 }, &[x], "y").expect("valid");
        for (name, value) in [("y", y), ("c", c), ("b", unused)] {
            m.add_output(name, value);
        }
        let mut e = Encoder::new();
        e.model(&m).expect("acyclic");
        let bytes = e.into_bytes();
        let back = Decoder::new(&bytes).model().expect("whole");
        back.verify().expect("consistent");
        let digest = |m: &Model| {
            let mut sink = BytesSink::default();
            m.digest(&mut sink).expect("acyclic");
            sink.0.len()
        };
        assert_eq!(digest(&back), digest(&m));
        assert_eq!((back.input_name(0), back.input_name(1)), ("b", "a"));
        for len in 0..bytes.len() {
            assert!(Decoder::new(&bytes[..len]).model().is_err(), "cut to {len}");
        }
    }
}
