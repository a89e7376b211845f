//! The layout pass: spatial tensors become channels-last, and only what cannot be turned keeps the planar order.
//!
//! One pass in order of execution builds a new model. Every value of the old one may exist in the new one as it was
//! (plain), channels-last, or both; the missing form is made on first demand by a Transpose (a Reshape where no element
//! moves). Convolutions and pools read and give channels-last; operators that do not care follow their inputs, with
//! their axes turned; between sequences of tokens and images nothing moves; everything else reads plain.

mod quantized;
mod rules;
mod tokens;
mod transposed;

use std::collections::HashMap;

use crate::{
    Model, PartialShape, Shape, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{Op, core::Parameter, reshape::Reshape, transpose::Transpose},
};

use crate::op::fused::layout::{permute, to_last, to_planar};

/// Turns a model channels-last.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn channels_last(model: &Model) -> Result<Model> {
    let mut layout = Layout { old: model, new: Model::new(model.name()), forms: HashMap::new() };
    for id in model.parameters() {
        let node = model.node(*id);
        let value = layout.new.add_parameter(node.name(), node.element_type(0), node.shape(0))?;
        layout.forms.insert((*id).into(), Forms { plain: Some(value), last: None });
    }
    for id in model.topological_order()? {
        let node = model.node(id);
        if !node.op().is::<Parameter>() && node.constant().is_none() {
            layout.node(id)?;
        }
    }
    for output in model.outputs() {
        let value = layout.plain(output.value)?;
        layout.new.add_output(&output.name, value);
    }
    let mut new = layout.new;
    new.remove_dead();
    Ok(new)
}

/// The forms of one old value in the new model.
#[derive(Clone, Copy, Debug, Default)]
struct Forms {
    plain: Option<Value>,
    last: Option<Value>,
}

struct Layout<'m> {
    old: &'m Model,
    new: Model,
    forms: HashMap<Value, Forms>,
}

impl Layout<'_> {
    fn node(&mut self, id: NodeId) -> Result<()> {
        if rules::apply(self, id)? {
            return Ok(());
        }
        self.keep(id)
    }

    /// Copies a node with plain inputs.
    fn keep(&mut self, id: NodeId) -> Result<()> {
        let node = self.old.node(id);
        let inputs = node.inputs().iter().map(|v| self.plain(*v)).collect::<Result<Vec<_>>>()?;
        let new = self.new.add_node(node.op().clone_box(), &inputs, node.name())?;
        for output in 0..node.outputs().len() as u32 {
            self.forms.entry(Value { node: id, output }).or_default().plain =
                Some(Value { node: new, output });
        }
        Ok(())
    }

    /// Adds a node whose outputs are the channels-last forms of node `id`'s.
    fn give_last(&mut self, id: NodeId, op: Box<dyn Op>, inputs: &[Value]) -> Result<()> {
        let name = self.old.node(id).name().to_owned();
        let new = self.new.add_node(op, inputs, name)?;
        for output in 0..self.new.node(new).outputs().len() as u32 {
            self.forms.entry(Value { node: id, output }).or_default().last =
                Some(Value { node: new, output });
        }
        Ok(())
    }

    /// Adds a node whose first output is the plain form of node `id`'s.
    fn give_plain(&mut self, id: NodeId, op: Box<dyn Op>, inputs: &[Value]) -> Result<()> {
        let name = self.old.node(id).name().to_owned();
        let new = self.new.add_node(op, inputs, name)?;
        self.forms.entry(id.into()).or_default().plain = Some(new.into());
        Ok(())
    }

    /// Whether the value is there channels-last, and not plain as well.
    fn is_last(&self, value: Value) -> bool {
        self.forms.get(&value).is_some_and(|f| f.last.is_some() && f.plain.is_none())
    }

    /// Whether the value is there channels-last.
    fn has_last(&self, value: Value) -> bool {
        self.forms.get(&value).is_some_and(|f| f.last.is_some())
    }

    fn shape(&self, value: Value) -> &PartialShape {
        self.old.shape(value)
    }

    /// The value as it was.
    fn plain(&mut self, value: Value) -> Result<Value> {
        let forms = self.forms.get(&value).copied().unwrap_or_default();
        if let Some(plain) = forms.plain {
            return Ok(plain);
        }
        let plain =
            match (forms.last, self.old.node(value.node).op_as::<crate::op::core::Constant>()) {
                (_, Some(constant)) => {
                    let name = self.old.node(value.node).name().to_owned();
                    self.new.add_constant(constant.clone(), name)
                }
                (Some(last), None) => self.turn(last, to_planar)?,
                (None, None) => unreachable!("a value is read before its node was visited"),
            };
        self.forms.entry(value).or_default().plain = Some(plain);
        Ok(plain)
    }

    /// The value channels-last; its rank must be known.
    fn last(&mut self, value: Value) -> Result<Value> {
        let forms = self.forms.get(&value).copied().unwrap_or_default();
        if let Some(last) = forms.last {
            return Ok(last);
        }
        let last = match self.old.constant(value) {
            Some(tensor) if tensor.element_type().bits() >= 8 => {
                let tensor = permute(tensor, &to_last(tensor.rank()))?.to_contiguous();
                self.new.add_constant(tensor, self.old.node(value.node).name().to_owned())
            }
            _ => {
                let plain = self.plain(value)?;
                self.turn(plain, to_last)?
            }
        };
        self.forms.entry(value).or_default().last = Some(last);
        Ok(last)
    }

    /// A constant in the new model.
    fn constant(&mut self, tensor: Tensor) -> Value {
        self.new.add_constant(tensor, "")
    }

    /// A new value with its axes in another order.
    fn turn(&mut self, value: Value, axes: impl Fn(usize) -> Vec<usize>) -> Result<Value> {
        let shape = self.new.shape(value).clone();
        let Some(rank) = shape.rank().filter(|r| *r > 2) else { return Ok(value) };
        self.transpose(value, &axes(rank))
    }

    /// Transposes a new value; a Reshape where no element moves.
    fn transpose(&mut self, value: Value, axes: &[usize]) -> Result<Value> {
        if axes.iter().copied().eq(0..axes.len()) {
            return Ok(value);
        }
        let name = format!("{}/layout", self.new.node(value.node).name());
        let shape = self.new.shape(value).clone();
        if let Some(target) = free_reshape(&shape, axes) {
            let target = self.constant(Tensor::from_i64s(&target));
            return self.new.add(
                Reshape { special_zero: true, ..Reshape::default() },
                &[value, target],
                name,
            );
        }
        let order =
            self.constant(Tensor::from_i64s(&axes.iter().map(|a| *a as i64).collect::<Vec<_>>()));
        self.new.add(Transpose {}, &[value, order], name)
    }
}

/// The target of a Reshape (0 copies the extent) that does what a Transpose would, if only axes of extent 1 move.
fn free_reshape(shape: &PartialShape, axes: &[usize]) -> Option<Vec<i64>> {
    let dims = shape.dims()?;
    let moved: Vec<usize> = axes.iter().copied().filter(|a| dims[*a].value() != Some(1)).collect();
    if !moved.is_sorted() {
        return None;
    }
    axes.iter()
        .enumerate()
        .map(|(i, a)| match dims[*a].value() {
            Some(extent) => i64::try_from(extent).ok().filter(|e| *e > 0),
            None if i == *a => Some(0),
            None => None,
        })
        .collect()
}

/// A shape with ones in front, of rank `rank`.
fn padded_rank(shape: &Shape, rank: usize) -> Shape {
    std::iter::repeat_n(1, rank - shape.rank()).chain(shape.iter().copied()).collect()
}
