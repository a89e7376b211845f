//! `Gradient`: the graph between its inputs and `y` is differentiated backwards while the model is converted.

use std::collections::{HashMap, HashSet};

use super::{
    super::super::{ConvertError, NodeContext},
    ConvertResult,
};
use crate::{
    model::{Node, NodeId, Value},
    op::{
        OpError,
        matmul::MatMul,
        reduction::{ReduceMean, ReduceSum},
    },
};

type Computed = Result<Value, ConvertError>;
/// A part of the adjoint of each input, where there is one.
type Parts = Result<Vec<Option<Value>>, ConvertError>;

/// The value called `name` in the graph around the node.
fn named(cx: &mut NodeContext<'_, '_>, name: &str) -> Computed {
    let found = cx.converter.frames.lookup(name)?;
    found.ok_or_else(|| OpError::Invalid(format!("there is no value {name:?} to differentiate")).into())
}

/// Nodes between `from` and `y` in order of execution: those that depend on `from`, stopping there.
fn between(cx: &mut NodeContext<'_, '_>, from: &[Value], y: Value) -> Result<Vec<NodeId>, ConvertError> {
    let model = cx.model();
    let mut needed = HashSet::new();
    let mut open = vec![y];
    while let Some(value) = open.pop() {
        if !from.contains(&value) && needed.insert(value.node) {
            open.extend_from_slice(model.node(value.node).inputs());
        }
    }
    let mut dependent: HashSet<NodeId> = HashSet::new();
    let depends = |value: &Value, dependent: &HashSet<NodeId>| {
        from.contains(value) || dependent.contains(&value.node)
    };
    let mut path = Vec::new();
    for id in model.topological_order()? {
        let touched = model.node(id).inputs().iter().any(|v| depends(v, &dependent));
        if needed.contains(&id) && touched {
            dependent.insert(id);
            path.push(id);
        }
    }
    Ok(path)
}

/// The path computed anew with other values in place of `from`: the new `y`.
fn substituted(
    cx: &mut NodeContext<'_, '_>,
    from: &[Value],
    to: &[Value],
    y: Value,
) -> Computed {
    let mut map: HashMap<Value, Value> = from.iter().copied().zip(to.iter().copied()).collect();
    for id in between(cx, from, y)? {
        let model = cx.model();
        let node = model.node(id).clone();
        let inputs: Vec<Value> =
            node.inputs().iter().map(|v| map.get(v).copied().unwrap_or(*v)).collect();
        let copy = model.add_node(node.op().clone_box(), &inputs, node.name())?;
        for output in 0..node.outputs().len() as u32 {
            map.entry(Value { node: id, output }).or_insert(Value { node: copy, output });
        }
    }
    Ok(map.get(&y).copied().unwrap_or(y))
}

/// The context with what a rule of differentiation needs.
struct Rules<'r, 'a, 'c> {
    cx: &'r mut NodeContext<'a, 'c>,
}

impl Rules<'_, '_, '_> {
    fn op(&mut self, name: &str, inputs: &[Value]) -> Computed {
        self.cx.compose(name, inputs, &[])
    }

    fn number(&mut self, value: f64, like: Value) -> Computed {
        self.cx.scalar_like(value, like)
    }

    fn scaled(&mut self, factor: f64, value: Value) -> Computed {
        let factor = self.number(factor, value)?;
        self.op("Mul", &[factor, value])
    }

    fn shape_of(&mut self, value: Value) -> Computed {
        self.op("Shape", &[value])
    }

    fn reshaped_like(&mut self, value: Value, like: Value) -> Computed {
        let shape = self.shape_of(like)?;
        self.op("Reshape", &[value, shape])
    }

    fn filled(&mut self, value: f64, like: Value) -> Computed {
        let (value, shape) = (self.number(value, like)?, self.shape_of(like)?);
        self.op("Expand", &[value, shape])
    }

    /// `g` where the condition holds, else 0.
    fn where_holds(&mut self, condition: Value, g: Value) -> Computed {
        let zero = self.number(0.0, g)?;
        self.op("Where", &[condition, g, zero])
    }

    /// `g` summed over the axes that `like` was broadcast along.
    fn unbroadcast(&mut self, g: Value, like: Value) -> Computed {
        let (wide, narrow) = (self.cx.shape(g), self.cx.shape(like));
        let (Some(wide), Some(narrow)) = (wide.dims(), narrow.dims()) else {
            return Err(OpError::Unsupported("differentiation of values of unknown rank".to_owned()).into());
        };
        let lead = wide.len().saturating_sub(narrow.len());
        let mut axes: Vec<i64> = (0..lead as i64).collect();
        for (i, (w, n)) in wide[lead..].iter().zip(narrow).enumerate() {
            if n.value() == Some(1) && w.value() != Some(1) {
                axes.push((lead + i) as i64);
            } else if n.value() != w.value() && n.admits(1) {
                let text = "differentiation of a broadcast whose extents are not known";
                return Err(OpError::Unsupported(text.to_owned()).into());
            }
        }
        if axes.is_empty() {
            return Ok(g);
        }
        let axes = self.cx.i64s_constant(&axes);
        let sum = self.op("ReduceSum", &[g, axes])?;
        self.reshaped_like(sum, like)
    }

    fn swapped(&mut self, value: Value) -> Computed {
        let rank = self.cx.rank(value)? as i64;
        let mut order: Vec<i64> = (0..rank).collect();
        order.swap(rank as usize - 2, rank as usize - 1);
        self.cx.transpose(value, &order)
    }

    fn matmul(&mut self, op: &MatMul, a: Value, b: Value, g: Value) -> Result<[Value; 2], ConvertError> {
        let (a_vector, b_vector) = (self.cx.rank(a)? == 1, self.cx.rank(b)? == 1);
        // Vectors as matrices of one row or column, and the operands as [m, k] and [k, n].
        let mut g = g;
        if b_vector {
            let axis = self.cx.i64s_constant(&[-1]);
            g = self.op("Unsqueeze", &[g, axis])?;
        }
        if a_vector {
            let axis = self.cx.i64s_constant(&[-2]);
            g = self.op("Unsqueeze", &[g, axis])?;
        }
        let (transpose_a, transpose_b) = (op.transpose_a && !a_vector, op.transpose_b && !b_vector);
        let left = if a_vector { self.cx.reshape(a, &[1, -1])? } else { a };
        let right = if b_vector { self.cx.reshape(b, &[-1, 1])? } else { b };
        let plain_left = if transpose_a { self.swapped(left)? } else { left };
        let plain_right = if transpose_b { self.swapped(right)? } else { right };
        let (turned_left, turned_right) = (self.swapped(plain_left)?, self.swapped(plain_right)?);
        let mut da = self.op("MatMul", &[g, turned_right])?;
        let mut db = self.op("MatMul", &[turned_left, g])?;
        if transpose_a {
            da = self.swapped(da)?;
        }
        if transpose_b {
            db = self.swapped(db)?;
        }
        let (da, db) = (self.unbroadcast(da, left)?, self.unbroadcast(db, right)?);
        Ok([self.reshaped_like(da, a)?, self.reshaped_like(db, b)?])
    }

    /// `g` of a reduction's result, spread over its input.
    fn spread(&mut self, node: &Node, keep_dims: bool, g: Value) -> Computed {
        let x = node.inputs()[0];
        let mut g = g;
        if !keep_dims {
            let rank = self.cx.rank(x)?;
            let axes = self.cx.constant_value(node.inputs()[1]);
            let axes = axes.ok_or_else(|| OpError::Unsupported("axes computed at run time".to_owned()))?;
            let axes = crate::op::normalize_axes(&axes.to_i64_vec()?, rank)?;
            let axes = self.cx.i64s_constant(&axes.iter().map(|a| *a as i64).collect::<Vec<_>>());
            g = self.op("Unsqueeze", &[g, axes])?;
        }
        let shape = self.shape_of(x)?;
        self.op("Expand", &[g, shape])
    }

    /// What the adjoint `g` of output 0 adds to those of the inputs; nothing for inputs that it does not depend on
    /// smoothly.
    fn back(&mut self, node: &Node, y: Value, g: Value) -> Parts {
        let x = node.inputs().to_vec();
        let broadcast = |this: &mut Self, a: Option<Value>, b: Option<Value>| -> Parts {
            let a = a.map(|v| this.unbroadcast(v, x[0])).transpose()?;
            Ok(vec![a, b.map(|v| this.unbroadcast(v, x[1])).transpose()?])
        };
        let one = |value: Value| -> Parts { Ok(vec![Some(value)]) };
        match node.op().kind().name {
            "Identity" => one(g),
            "Add" => broadcast(self, Some(g), Some(g)),
            "Subtract" => {
                let negative = self.op("Neg", &[g])?;
                broadcast(self, Some(g), Some(negative))
            }
            "Multiply" => {
                let (a, b) = (self.op("Mul", &[g, x[1]])?, self.op("Mul", &[g, x[0]])?);
                broadcast(self, Some(a), Some(b))
            }
            "Divide" => {
                let a = self.op("Div", &[g, x[1]])?;
                let b = self.op("Mul", &[a, y])?;
                let b = self.op("Neg", &[b])?;
                broadcast(self, Some(a), Some(b))
            }
            "Power" => {
                let lower = self.scaled_power(x[0], x[1])?;
                let a = self.op("Mul", &[g, lower])?;
                if self.cx.constant_value(x[1]).is_some() {
                    return broadcast(self, Some(a), None);
                }
                let log = self.op("Log", &[x[0]])?;
                let b = self.op("Mul", &[y, log])?;
                let b = self.op("Mul", &[g, b])?;
                broadcast(self, Some(a), Some(b))
            }
            "Maximum" | "Minimum" => {
                let first_wins = if node.op().kind().name == "Maximum" { "GreaterOrEqual" } else { "LessOrEqual" };
                let first = self.op(first_wins, &[x[0], x[1]])?;
                let second = self.op("Not", &[first])?;
                let (a, b) = (self.where_holds(first, g)?, self.where_holds(second, g)?);
                broadcast(self, Some(a), Some(b))
            }
            "Select" => {
                let other = self.op("Not", &[x[0]])?;
                let (a, b) = (self.where_holds(x[0], g)?, self.where_holds(other, g)?);
                Ok(vec![None, Some(self.unbroadcast(a, x[1])?), Some(self.unbroadcast(b, x[2])?)])
            }
            "PReLU" => {
                let zero = self.number(0.0, x[0])?;
                let negative = self.op("Less", &[x[0], zero])?;
                let sloped = self.op("Mul", &[g, x[1]])?;
                let a = self.op("Where", &[negative, sloped, g])?;
                let b = self.op("Mul", &[g, x[0]])?;
                let b = self.where_holds(negative, b)?;
                broadcast(self, Some(a), Some(b))
            }
            "MatMul" => {
                let op = node.op_as::<MatMul>().cloned().unwrap_or_default();
                Ok(self.matmul(&op, x[0], x[1], g)?.map(Some).to_vec())
            }
            "ReduceSum" => {
                let keep = node.op_as::<ReduceSum>().is_some_and(|op| op.keep_dims);
                Ok(vec![Some(self.spread(node, keep, g)?), None])
            }
            "ReduceMean" => {
                let keep = node.op_as::<ReduceMean>().is_some_and(|op| op.keep_dims);
                let (all, kept) = (self.op("Size", &[x[0]])?, self.op("Size", &[y])?);
                let count = self.op("Div", &[all, kept])?;
                let count = self.op("CastLike", &[count, g])?;
                let g = self.op("Div", &[g, count])?;
                Ok(vec![Some(self.spread(node, keep, g)?), None])
            }
            "Reshape" | "Squeeze" | "Unsqueeze" => one(self.reshaped_like(g, x[0])?),
            "Broadcast" => one(self.unbroadcast(g, x[0])?),
            "Convert" | "ConvertLike" => one(self.op("CastLike", &[g, x[0]])?),
            "Transpose" => {
                let rank = self.cx.rank(x[0])?;
                let order = self.cx.constant_value(x[1]).map(|t| t.to_i64_vec()).transpose()?;
                let order = order.ok_or_else(|| OpError::Unsupported("an order computed at run time".to_owned()))?;
                let order = if order.is_empty() { (0..rank as i64).rev().collect() } else { order };
                let mut back = vec![0; rank];
                for (i, axis) in order.iter().enumerate() {
                    back[crate::op::normalize_axis(*axis, rank)?] = i as i64;
                }
                one(self.cx.transpose(g, &back)?)
            }
            _ => Ok(vec![Some(self.elementwise(node, x[0], y, g)?)]),
        }
    }

    /// `b · a ^ (b - 1)`.
    fn scaled_power(&mut self, a: Value, b: Value) -> Computed {
        let one = self.number(1.0, b)?;
        let less = self.op("Sub", &[b, one])?;
        let power = self.op("Pow", &[a, less])?;
        let factor = self.op("CastLike", &[b, a])?;
        self.op("Mul", &[factor, power])
    }

    /// `one + sign · v²`.
    fn around_square(&mut self, one: f64, sign: f64, v: Value) -> Computed {
        let square = self.op("Mul", &[v, v])?;
        let square = self.scaled(sign, square)?;
        let one = self.number(one, v)?;
        self.op("Add", &[one, square])
    }

    /// Operators of one input.
    fn elementwise(&mut self, node: &Node, x: Value, y: Value, g: Value) -> Computed {
        // The derivative to multiply by, or to divide by.
        let (factor, divides) = match node.op().kind().name {
            "Negative" => return self.op("Neg", &[g]),
            "Exp" => (y, false),
            "Log" => (x, true),
            "Sqrt" => (self.scaled(2.0, y)?, true),
            "Sigmoid" => {
                let square = self.op("Mul", &[y, y])?;
                (self.op("Sub", &[y, square])?, false)
            }
            "Tanh" => (self.around_square(1.0, -1.0, y)?, false),
            "Sin" => (self.op("Cos", &[x])?, false),
            "Cos" => {
                let sin = self.op("Sin", &[x])?;
                (self.op("Neg", &[sin])?, false)
            }
            "Tan" => (self.around_square(1.0, 1.0, y)?, false),
            "Sinh" => (self.op("Cosh", &[x])?, false),
            "Cosh" => (self.op("Sinh", &[x])?, false),
            "Atan" => (self.around_square(1.0, 1.0, x)?, true),
            "Asin" => {
                let square = self.around_square(1.0, -1.0, x)?;
                (self.op("Sqrt", &[square])?, true)
            }
            "Acos" => {
                let square = self.around_square(1.0, -1.0, x)?;
                let root = self.op("Sqrt", &[square])?;
                (self.op("Neg", &[root])?, true)
            }
            "Abs" => (self.op("Sign", &[x])?, false),
            "SoftPlus" => (self.op("Sigmoid", &[x])?, false),
            "SoftSign" => {
                let size = self.op("Abs", &[x])?;
                let one = self.number(1.0, x)?;
                let size = self.op("Add", &[one, size])?;
                (self.op("Mul", &[size, size])?, true)
            }
            "Erf" => {
                let bell = self.around_square(0.0, -1.0, x)?;
                let bell = self.op("Exp", &[bell])?;
                (self.scaled(std::f64::consts::FRAC_2_SQRT_PI, bell)?, false)
            }
            "ReLU" => {
                let zero = self.number(0.0, x)?;
                let positive = self.op("Greater", &[x, zero])?;
                return self.where_holds(positive, g);
            }
            "Floor" | "Ceiling" | "Round" | "Sign" => return self.filled(0.0, x),
            "SoftMax" | "LogSoftmax" => {
                let axis = axis_of(node)?;
                let log = node.op().kind().name == "LogSoftmax";
                let weighted = if log { g } else { self.op("Mul", &[g, y])? };
                let axes = self.cx.i64s_constant(&[axis]);
                let sum = self.op("ReduceSum", &[weighted, axes])?;
                if log {
                    let likely = self.op("Exp", &[y])?;
                    let part = self.op("Mul", &[likely, sum])?;
                    return self.op("Sub", &[g, part]);
                }
                let rest = self.op("Sub", &[g, sum])?;
                return self.op("Mul", &[y, rest]);
            }
            other => {
                let what = format!("the derivative of {other} (node {:?})", node.name());
                return Err(OpError::Unsupported(what).into());
            }
        };
        self.op(if divides { "Div" } else { "Mul" }, &[g, factor])
    }
}

fn axis_of(node: &Node) -> Result<i64, ConvertError> {
    use crate::op::softmax::{LogSoftmax, SoftMax, SoftMax1};
    let axis = node
        .op_as::<SoftMax>()
        .map(|o| o.axis)
        .or_else(|| node.op_as::<SoftMax1>().map(|o| o.axis))
        .or_else(|| node.op_as::<LogSoftmax>().map(|o| o.axis));
    axis.ok_or_else(|| OpError::Invalid("the operator has no axis".to_owned()).into())
}

pub(super) fn gradient(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let xs = cx.optional_strs("xs")?.unwrap_or_default();
    let zs = cx.optional_strs("zs")?.unwrap_or_default();
    let y = cx.str("y", "")?.to_owned();
    let mut y = named(cx, &y)?;
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for (i, name) in xs.iter().chain(&zs).enumerate() {
        from.push(named(cx, name)?);
        to.push(cx.input(i)?);
    }
    if from != to {
        y = substituted(cx, &from, &to, y)?;
    }
    let wanted = to[..xs.len()].to_vec();
    let path = between(cx, &wanted, y)?;
    let on_path: HashSet<NodeId> = path.iter().copied().collect();
    let mut rules = Rules { cx };
    let mut adjoints: HashMap<Value, Value> = HashMap::new();
    adjoints.insert(y, rules.filled(1.0, y)?);
    for id in path.iter().rev() {
        let node = rules.cx.model().node(*id).clone();
        let output = Value::from(*id);
        let mut others = (1..node.outputs().len() as u32).map(|output| Value { node: *id, output });
        if others.any(|v| adjoints.contains_key(&v)) {
            let what = format!("the derivative of an output of {} other than the first", node.op().kind());
            return Err(OpError::Unsupported(what).into());
        }
        let Some(g) = adjoints.get(&output).copied() else { continue };
        for (input, part) in node.inputs().iter().zip(rules.back(&node, output, g)?) {
            let matters = wanted.contains(input) || on_path.contains(&input.node);
            let (Some(part), true) = (part, matters) else { continue };
            let sum = match adjoints.get(input) {
                Some(so_far) => rules.op("Add", &[*so_far, part])?,
                None => part,
            };
            adjoints.insert(*input, sum);
        }
    }
    wanted
        .iter()
        .map(|x| match adjoints.get(x) {
            Some(g) => Ok(*g),
            None => rules.filled(0.0, *x),
        })
        .collect()
}
