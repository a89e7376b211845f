//! Local rewrites: a pattern at a node, the conditions under which it holds, and the nodes that take its place.

use std::{collections::VecDeque, fmt};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Pass;
use crate::{
    error::{Error, Result},
    model::{Model, NodeId, Value},
    op::{Op, core::Constant},
    tensor::{ElementType, Tensor},
};

/// Why a rewrite did not apply.
#[derive(Debug)]
pub enum NoMatch {
    /// The node is not the end of the pattern.
    Pattern,
    /// The pattern is there, but rewriting it would change nothing.
    NoEffect,
    /// The pattern is there, but a condition does not hold.
    CheckFailed(&'static str),
    /// An operator refused the new inputs.
    Refused(Box<Error>),
}

impl fmt::Display for NoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern => f.write_str("no match"),
            Self::NoEffect => f.write_str("no effect"),
            Self::CheckFailed(reason) => f.write_str(reason),
            Self::Refused(e) => write!(f, "{e}"),
        }
    }
}

impl From<Error> for NoMatch {
    fn from(e: Error) -> Self {
        Self::Refused(Box::new(e))
    }
}

impl From<crate::tensor::TensorError> for NoMatch {
    fn from(e: crate::tensor::TensorError) -> Self {
        Self::Refused(Box::new(e.into()))
    }
}

impl NoMatch {
    /// [`NoMatch::CheckFailed`] unless the condition holds.
    ///
    /// # Errors
    /// The reason.
    pub fn unless(condition: bool, reason: &'static str) -> Result<(), Self> {
        if condition { Ok(()) } else { Err(Self::CheckFailed(reason)) }
    }
}

/// Which values take the place of which.
#[derive(Clone, Debug, Default)]
pub struct Patch(SmallVec<[(Value, Value); 1]>);

impl Patch {
    /// Every reader of `old` reads `new` instead.
    #[must_use]
    pub fn replace(old: impl Into<Value>, new: impl Into<Value>) -> Self {
        Self(SmallVec::from_elem((old.into(), new.into()), 1))
    }

    /// Adds a pair to the patch.
    #[must_use]
    pub fn and(mut self, old: impl Into<Value>, new: impl Into<Value>) -> Self {
        self.0.push((old.into(), new.into()));
        self
    }
}

/// One line of a table of rewrites.
#[derive(Clone, Copy)]
pub struct Rewrite {
    /// Name, for statistics and logs.
    pub name: &'static str,
    /// Type names of the operators at which `apply` is tried: the last ones of the pattern.
    pub roots: &'static [&'static str],
    /// Looks for the pattern that ends at the node, adds new nodes and returns what they replace. Nodes that are added
    /// before a check fails do no harm: nothing reads them, and they are removed.
    pub apply: fn(&mut Rewriter<'_>, NodeId) -> Result<Patch, NoMatch>,
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Lets a rewrite read a model and add nodes to it; only the driver replaces values.
#[derive(Debug)]
pub struct Rewriter<'a> {
    model: &'a mut Model,
    added: Vec<NodeId>,
}

impl Rewriter<'_> {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.model
    }

    /// Adds an operator, named after `like`.
    ///
    /// # Errors
    /// [`NoMatch::Refused`] when the operator refuses its inputs.
    pub fn add(&mut self, op: impl Op, inputs: &[Value], like: NodeId) -> Result<Value, NoMatch> {
        self.add_boxed(Box::new(op), inputs, like).map(Value::from)
    }

    /// Adds an operator, named after `like`.
    ///
    /// # Errors
    /// [`NoMatch::Refused`] when the operator refuses its inputs.
    pub fn add_boxed(
        &mut self,
        op: Box<dyn Op>,
        inputs: &[Value],
        like: NodeId,
    ) -> Result<NodeId, NoMatch> {
        let name = self.model.node(like).name().to_owned();
        self.add_named(op, inputs, &name)
    }

    /// Adds an operator under a name of its own.
    ///
    /// # Errors
    /// [`NoMatch::Refused`] when the operator refuses its inputs.
    pub fn add_named(
        &mut self,
        op: Box<dyn Op>,
        inputs: &[Value],
        name: &str,
    ) -> Result<NodeId, NoMatch> {
        let id = self.model.add_node(op, inputs, name)?;
        self.added.push(id);
        Ok(id)
    }

    /// Adds a constant, named after `like`.
    pub fn constant(&mut self, value: impl Into<Constant>, like: NodeId) -> Value {
        let name = self.model.node(like).name().to_owned();
        let value = self.model.add_constant(value, name);
        self.added.push(value.node);
        value
    }

    /// Adds a rank-1 constant of `i64`.
    pub fn i64s(&mut self, values: &[i64], like: NodeId) -> Value {
        self.constant(Tensor::from_i64s(values), like)
    }
}

/// Applies a table of rewrites at every node, in order of execution, until none applies.
#[derive(Debug)]
pub struct RewritePass {
    name: &'static str,
    rewrites: &'static [Rewrite],
    by_root: FxHashMap<&'static str, SmallVec<[u16; 8]>>,
}

impl RewritePass {
    /// A pass over `rewrites`, which are tried in order at every node.
    #[must_use]
    pub fn new(name: &'static str, rewrites: &'static [Rewrite]) -> Self {
        let mut by_root: FxHashMap<_, SmallVec<[u16; 8]>> = FxHashMap::default();
        for (i, rewrite) in rewrites.iter().enumerate() {
            for root in rewrite.roots {
                by_root.entry(*root).or_default().push(i as u16);
            }
        }
        Self { name, rewrites, by_root }
    }

    /// Tries the rewrites at one node; returns the nodes that are worth another look.
    fn visit(&self, model: &mut Model, id: NodeId) -> Option<Vec<NodeId>> {
        let candidates = self.by_root.get(model.node(id).op().kind().name)?;
        for index in candidates {
            let rewrite = &self.rewrites[usize::from(*index)];
            let mut rewriter = Rewriter { model: &mut *model, added: Vec::new() };
            let outcome = (rewrite.apply)(&mut rewriter, id);
            let added = rewriter.added;
            match outcome.and_then(|patch| commit(model, &patch)) {
                Ok(mut touched) => {
                    touched.extend(added);
                    tracing::debug!(
                        rewrite = rewrite.name,
                        node = model.get(id).map(crate::model::Node::name)
                    );
                    return Some(touched);
                }
                Err(reason) => {
                    for new in added.into_iter().rev() {
                        model.remove_unused(new);
                    }
                    if !matches!(reason, NoMatch::Pattern) {
                        tracing::trace!(rewrite = rewrite.name, node = model.node(id).name(), %reason);
                    }
                }
            }
        }
        None
    }
}

impl Pass for RewritePass {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let mut queue: VecDeque<NodeId> = model
            .topological_order()?
            .into_iter()
            .filter(|id| self.by_root.contains_key(model.node(*id).op().kind().name))
            .collect();
        let limit = model.len() * APPLICATIONS_PER_NODE + 64;
        let mut queued = vec![false; model.slots()];
        for id in &queue {
            queued[id.index()] = true;
        }
        let mut changes = 0;
        while let Some(id) = queue.pop_front() {
            queued[id.index()] = false;
            if model.get(id).is_none() {
                continue;
            }
            let Some(touched) = self.visit(model, id) else { continue };
            changes += 1;
            if changes > limit {
                tracing::warn!(pass = self.name, changes, "rewrites do not come to rest");
                break;
            }
            queued.resize(model.slots(), false);
            for id in touched.into_iter().chain([id]) {
                if model.get(id).is_some() && !std::mem::replace(&mut queued[id.index()], true) {
                    queue.push_back(id);
                }
            }
        }
        if changes > 0 {
            model.infer_all()?;
        }
        Ok(changes)
    }
}

/// Replaces values, removes what became unused, and returns the nodes around the change.
fn commit(model: &mut Model, patch: &Patch) -> Result<Vec<NodeId>, NoMatch> {
    if patch.0.is_empty() || patch.0.iter().any(|(old, new)| old == new) {
        return Err(NoMatch::NoEffect);
    }
    for (old, new) in &patch.0 {
        let (old, new) = (model.value_type(*old), model.value_type(*new));
        let same = old.element_type == new.element_type || old.element_type == ElementType::Dynamic;
        NoMatch::unless(same, "the element type would change")?;
        NoMatch::unless(old.shape.intersect(&new.shape).is_some(), "the shape would change")?;
    }
    let mut touched = Vec::new();
    for (old, new) in &patch.0 {
        touched.extend(model.uses(*old).map(|(user, _)| user));
        model.replace(*old, *new);
    }
    for (old, new) in &patch.0 {
        touched.push(new.node);
        touched.extend(model.uses(*new).map(|(user, _)| user));
        model.remove_unused(old.node);
    }
    let producers: Vec<NodeId> = patch
        .0
        .iter()
        .flat_map(|(_, new)| model.node(new.node).inputs().iter().map(|v| v.node))
        .collect();
    touched.extend(producers);
    Ok(touched)
}

/// Bound on applications, so that two rewrites that undo each other cannot run for ever.
const APPLICATIONS_PER_NODE: usize = 16;
