//! Joins nodes that compute the same value.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;

use super::Pass;
use crate::{
    error::Result,
    model::{Model, Node, NodeId, Value},
    op::{Attribute, AttributeVisitor, Op, OpResult, core::Parameter, random::is_random},
    tensor::{ElementType, Tensor},
};

/// Joins nodes of the same operator, attributes and inputs, and constants of the same type, shape and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommonSubexpressions;

impl Pass for CommonSubexpressions {
    fn name(&self) -> &'static str {
        "common subexpressions"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let mut seen: FxHashMap<u64, SmallVec<[NodeId; 1]>> = FxHashMap::default();
        let mut changes = 0;
        for id in model.topological_order()? {
            let node = model.node(id);
            let Some(hash) = hash_node(node) else { continue };
            let twins = seen.entry(hash).or_default();
            match twins.iter().copied().find(|twin| equal(node, model.node(*twin))) {
                Some(twin) => {
                    for output in 0..node.outputs().len() as u32 {
                        model.replace(Value { node: id, output }, Value { node: twin, output });
                    }
                    model.remove_unused(id);
                    changes += 1;
                }
                None => twins.push(id),
            }
        }
        Ok(changes)
    }
}

/// A hash of what the node computes; `None` when two such nodes need not give the same.
fn hash_node(node: &Node) -> Option<u64> {
    let mut hasher = FxHasher::default();
    let kind = node.op().kind();
    if let Some(tensor) = node.constant() {
        if tensor.element_type() == ElementType::Sequence {
            return None;
        }
        hash_tensor(tensor, &mut hasher);
        return Some(hasher.finish());
    }
    if node.op().is::<Parameter>() || is_random(kind) {
        return None;
    }
    kind.hash(&mut hasher);
    node.inputs().hash(&mut hasher);
    Some(hasher.finish())
}

/// Type, shape, and a sample of the bytes: candidates are compared in full, so large weights are read only when they
/// are likely twins.
fn hash_tensor(tensor: &Tensor, hasher: &mut impl Hasher) {
    tensor.element_type().hash(hasher);
    tensor.shape().hash(hasher);
    if let Ok(texts) = tensor.as_strings() {
        texts.hash(hasher);
        return;
    }
    let bytes = tensor.unaligned_bytes();
    if bytes.len() <= 2 * SAMPLE {
        hasher.write(bytes);
    } else {
        hasher.write(&bytes[..SAMPLE]);
        hasher.write(&bytes[bytes.len() - SAMPLE..]);
    }
}

fn equal(a: &Node, b: &Node) -> bool {
    match (a.constant(), b.constant()) {
        (Some(x), Some(y)) => {
            let shared = x.element_type() == y.element_type()
                && x.shape() == y.shape()
                && x.as_ptr() == y.as_ptr()
                && x.strides() == y.strides();
            shared || x == y
        }
        (None, None) => {
            a.op().kind() == b.op().kind()
                && a.inputs() == b.inputs()
                && a.outputs().len() == b.outputs().len()
                && same_attributes(a.op(), b.op())
        }
        _ => false,
    }
}

/// Whether two operators of one kind have equal attributes. Bodies and tensors are never taken as equal.
pub(super) fn same_attributes(a: &dyn Op, b: &dyn Op) -> bool {
    let (Some(a), Some(b)) = (exact_attributes(a), exact_attributes(b)) else { return false };
    a == b
}

fn exact_attributes(op: &dyn Op) -> Option<String> {
    let mut writer = ExactWriter { text: String::new(), comparable: true };
    op.clone_box().visit_attributes(&mut writer).ok()?;
    writer.comparable.then_some(writer.text)
}

/// Writes every attribute in full.
struct ExactWriter {
    text: String,
    comparable: bool,
}

impl ExactWriter {
    fn push(&mut self, value: impl fmt::Debug) {
        use fmt::Write;
        self.comparable &= write!(self.text, "{value:?};").is_ok();
    }
}

impl AttributeVisitor for ExactWriter {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        self.push(name);
        match attribute {
            Attribute::Bool(v) => self.push(v),
            Attribute::I64(v) => self.push(v),
            Attribute::F64(v) => self.push(v.to_bits()),
            Attribute::I64s(v) => self.push(v),
            Attribute::F64s(v) => v.iter().for_each(|v| self.push(v.to_bits())),
            Attribute::String(v) => self.push(v),
            Attribute::Strings(v) => self.push(v),
            Attribute::ElementType(v) => self.push(v),
            Attribute::PartialShape(v) => self.push(v),
            Attribute::Choice(v) => self.push(v.text()),
            Attribute::Tensor(_) | Attribute::Body(_) => self.comparable = false,
        }
        Ok(())
    }
}

/// Bytes hashed at either end of a tensor.
const SAMPLE: usize = 512;
