//! Helpers to match patterns: each answers one question about a value of a model.

use crate::{
    model::{Model, Node, NodeId, Value},
    op::Op,
    tensor::{ElementType, Tensor},
};

/// Questions that rewrites ask of a model.
pub trait Pattern {
    /// The node that makes `value`.
    fn producer(&self, value: Value) -> &Node;

    /// The operator that makes `value`, if it is a `T` and `value` its first output.
    fn as_op<T: Op>(&self, value: Value) -> Option<&T>;

    /// The inputs of the operator that makes `value`, if it is a `T` and `value` its first output.
    fn inputs_of<T: Op>(&self, value: Value) -> Option<&[Value]>;

    /// The only input of the `T` that makes `value`.
    fn unary<T: Op>(&self, value: Value) -> Option<Value>;

    /// The two inputs of the `T` that makes `value`.
    fn binary<T: Op>(&self, value: Value) -> Option<(Value, Value)>;

    /// The value of a constant of one element.
    fn scalar(&self, value: Value) -> Option<f64>;

    /// Whether `value` is a constant of one element close to `expected` (see [`close`]).
    fn is_scalar(&self, value: Value, expected: f64) -> bool;

    /// The other operand and the scalar of a commutative `T` with one constant operand of one element, which does not
    /// broaden the other operand's shape.
    fn with_scalar<T: Op>(&self, value: Value) -> Option<(Value, f64)>;

    /// Like [`Pattern::with_scalar`], for a scalar in the second place only.
    fn then_scalar<T: Op>(&self, value: Value) -> Option<(Value, f64)>;

    /// The operands of a commutative `T` in such an order that `first` holds for the first.
    fn commutative<T: Op>(
        &self,
        value: Value,
        first: impl Fn(Value) -> bool,
    ) -> Option<(Value, Value)>;

    /// The other operand of a commutative `T`, one of whose operands is `one`.
    fn other_operand<T: Op>(&self, value: Value, one: Value) -> Option<Value>;

    /// The operand that is not constant and the constant one of a commutative `T`.
    fn with_constant<T: Op>(&self, value: Value) -> Option<(Value, &Tensor)>;

    /// The operand that is not constant of a commutative `T` whose other one is a constant that leaves its shape as it
    /// is.
    fn with_narrow_constant<T: Op>(&self, value: Value) -> Option<(Value, &Tensor)>;

    /// Whether every value is read once and not given out, so that its producer can go.
    fn single_use(&self, values: &[Value]) -> bool;

    /// Whether two values certainly have the same shape.
    fn same_shape(&self, a: Value, b: Value) -> bool;

    /// Whether `small` certainly broadcasts to the shape of `large` and leaves it as it is.
    fn broadcasts_into(&self, small: Value, large: Value) -> bool;

    /// The rank of a value, if known.
    fn rank(&self, value: Value) -> Option<usize>;

    /// The constant's elements, if it is of an integer type.
    fn i64s(&self, value: Value) -> Option<Vec<i64>>;

    /// The nodes that read `value` with the operator `T`.
    fn users_of<T: Op>(&self, value: Value) -> Vec<NodeId>;
}

impl Pattern for Model {
    fn producer(&self, value: Value) -> &Node {
        self.node(value.node)
    }

    fn as_op<T: Op>(&self, value: Value) -> Option<&T> {
        (value.output == 0).then(|| self.node(value.node).op_as::<T>())?
    }

    fn inputs_of<T: Op>(&self, value: Value) -> Option<&[Value]> {
        let node = self.node(value.node);
        (value.output == 0 && node.op().is::<T>()).then(|| node.inputs())
    }

    fn unary<T: Op>(&self, value: Value) -> Option<Value> {
        match self.inputs_of::<T>(value)? {
            [x] => Some(*x),
            _ => None,
        }
    }

    fn binary<T: Op>(&self, value: Value) -> Option<(Value, Value)> {
        match self.inputs_of::<T>(value)? {
            [a, b] => Some((*a, *b)),
            _ => None,
        }
    }

    fn scalar(&self, value: Value) -> Option<f64> {
        let tensor = self.constant(value)?;
        (tensor.len() == 1).then(|| tensor.element_as_f64(0))?
    }

    fn is_scalar(&self, value: Value, expected: f64) -> bool {
        self.scalar(value).is_some_and(|v| close(v, expected))
    }

    fn with_scalar<T: Op>(&self, value: Value) -> Option<(Value, f64)> {
        self.then_scalar::<T>(value).or_else(|| {
            let (a, b) = self.binary::<T>(value)?;
            let scalar = self.scalar(a)?;
            (self.rank(a)? <= self.rank(b)?).then_some((b, scalar))
        })
    }

    fn then_scalar<T: Op>(&self, value: Value) -> Option<(Value, f64)> {
        let (a, b) = self.binary::<T>(value)?;
        let scalar = self.scalar(b)?;
        (self.rank(b)? <= self.rank(a)?).then_some((a, scalar))
    }

    fn commutative<T: Op>(
        &self,
        value: Value,
        first: impl Fn(Value) -> bool,
    ) -> Option<(Value, Value)> {
        let (a, b) = self.binary::<T>(value)?;
        if first(a) {
            Some((a, b))
        } else if first(b) {
            Some((b, a))
        } else {
            None
        }
    }

    fn other_operand<T: Op>(&self, value: Value, one: Value) -> Option<Value> {
        self.commutative::<T>(value, |v| v == one).map(|(_, other)| other)
    }

    fn with_constant<T: Op>(&self, value: Value) -> Option<(Value, &Tensor)> {
        let (a, b) = self.binary::<T>(value)?;
        match (self.constant(a), self.constant(b)) {
            (None, Some(c)) => Some((a, c)),
            (Some(c), None) => Some((b, c)),
            _ => None,
        }
    }

    fn with_narrow_constant<T: Op>(&self, value: Value) -> Option<(Value, &Tensor)> {
        let (x, tensor) = self.with_constant::<T>(value)?;
        let constant = self.other_operand::<T>(value, x)?;
        self.broadcasts_into(constant, x).then_some((x, tensor))
    }

    fn single_use(&self, values: &[Value]) -> bool {
        values.iter().all(|v| self.has_single_use(*v))
    }

    fn same_shape(&self, a: Value, b: Value) -> bool {
        match (self.shape(a).dims(), self.shape(b).dims()) {
            _ if a == b => true,
            (Some(x), Some(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.same(*y)),
            _ => false,
        }
    }

    fn broadcasts_into(&self, small: Value, large: Value) -> bool {
        let (Some(small), Some(large)) = (self.shape(small).dims(), self.shape(large).dims())
        else {
            return false;
        };
        small.len() <= large.len()
            && small
                .iter()
                .rev()
                .zip(large.iter().rev())
                .all(|(s, l)| s.value() == Some(1) || s.same(*l))
    }

    fn rank(&self, value: Value) -> Option<usize> {
        self.shape(value).rank()
    }

    fn i64s(&self, value: Value) -> Option<Vec<i64>> {
        let tensor = self.constant(value)?;
        matches!(tensor.element_type(), t if t.is_integer()).then(|| tensor.to_i64_vec().ok())?
    }

    fn users_of<T: Op>(&self, value: Value) -> Vec<NodeId> {
        self.uses(value).map(|(id, _)| id).filter(|id| self.node(*id).op().is::<T>()).collect()
    }
}

/// Whether `a` is `b` up to the precision that exporters write constants with: 1e-3 relative, which covers half
/// precision (2^-10) and constants shortened to four digits.
#[must_use]
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-3 * b.abs()
}

/// The value that every element of the constant has.
pub(super) fn uniform(tensor: &Tensor) -> Option<f64> {
    if tensor.is_empty() || tensor.len() > UNIFORM_LIMIT {
        return None;
    }
    let values = tensor.to_f64_vec().ok()?;
    values.iter().all(|v| *v == values[0]).then_some(values[0])
}

/// Elements up to which a constant is searched for a common value.
const UNIFORM_LIMIT: usize = 1 << 14;

/// Two constants combined by an element-wise operator of two operands, computed in `f64`, in the first one's type.
pub(super) fn combine(a: &Tensor, b: &Tensor, op: &dyn Op) -> Option<Tensor> {
    let operands = [a.cast(ElementType::F64).ok()?, b.cast(ElementType::F64).ok()?];
    op.evaluate(&operands).ok()?.pop()?.cast(a.element_type()).ok()
}

/// A constant of one value, of the element type and rank given.
pub(super) fn splat(element_type: ElementType, rank: usize, value: f64) -> Option<Tensor> {
    Tensor::from_vec(vec![1usize; rank], vec![value]).ok()?.cast(element_type).ok()
}
