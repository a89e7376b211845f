//! Names of values while a graph is converted: nested graphs capture, function bodies do not.

use std::{collections::HashMap, rc::Rc};

use super::proto::AttributeProto;
use crate::{
    error::Result,
    model::{Model, Value},
};

/// Names inside one function body, or inside a graph outside of function bodies.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) values: HashMap<String, Value>,
    /// Attributes of the function call, for `ref_attr_name`.
    pub(super) attributes: Rc<HashMap<String, AttributeProto>>,
    /// Opset version of each domain.
    pub(super) opsets: Rc<HashMap<String, i64>>,
    /// Whether its nodes were written by a converter and not by the file.
    pub(super) composed: bool,
}

/// One graph under construction.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) model: Model,
    /// The innermost scope is last; only it is visible.
    pub(super) scopes: Vec<Scope>,
    /// Values of the surrounding graph that this graph reads, and the parameters that stand for them.
    pub(super) captures: Vec<(Value, Value)>,
}

/// The graphs under construction, outermost first.
#[derive(Debug, Default)]
pub(super) struct Frames(pub(super) Vec<Frame>);

impl Frames {
    pub(super) fn top(&mut self) -> &mut Frame {
        self.0.last_mut().expect("a graph is under construction while nodes are converted")
    }

    pub(super) fn scope(&mut self) -> &mut Scope {
        self.top().scopes.last_mut().expect("a frame has a scope from its creation")
    }

    /// The value called `name`, captured from surrounding graphs when it is theirs.
    pub(super) fn lookup(&mut self, name: &str) -> Result<Option<Value>> {
        self.lookup_at(self.0.len() - 1, name)
    }

    fn lookup_at(&mut self, depth: usize, name: &str) -> Result<Option<Value>> {
        if let Some(value) = self.0[depth].scopes.last().and_then(|s| s.values.get(name)) {
            return Ok(Some(*value));
        }
        // A function body sees its inputs only; the first scope of a nested graph sees the graph around it.
        if depth == 0 || self.0[depth].scopes.len() > 1 {
            return Ok(None);
        }
        let Some(outer) = self.lookup_at(depth - 1, name)? else { return Ok(None) };
        let (below, above) = self.0.split_at_mut(depth);
        let (surrounding, frame) = (&below[depth - 1].model, &mut above[0]);
        let inner = if let Some(op) =
            surrounding.node(outer.node).op_as::<crate::op::core::Constant>()
        {
            frame.model.add_constant(op.clone(), name)
        } else {
            let ty = surrounding.value_type(outer);
            let parameter = frame.model.add_parameter(name, ty.element_type, ty.shape.clone())?;
            frame.captures.push((outer, parameter));
            parameter
        };
        let scope = frame.scopes.last_mut().expect("a frame has a scope from its creation");
        scope.values.insert(name.to_owned(), inner);
        Ok(Some(inner))
    }
}
