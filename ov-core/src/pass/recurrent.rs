//! Recurrent layers split into the product of all inputs with their weights, which threads share like any other, and
//! the steps, which wait for each other.

use crate::{
    ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        recurrent::{
            Direction, GruCell, GruSequence, LstmCell, LstmSequence, RnnCell, RnnSequence,
        },
        reshape::Reshape,
        transpose::Transpose,
    },
};

use crate::op::fused::{
    matmul::FullyConnected,
    recurrent::{Cell, Recurrence},
};

/// Splits every recurrent layer with constant weights that kernels can run. Gives how many there were.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn split(model: &mut Model) -> Result<usize> {
    let mut count = 0;
    for id in model.topological_order()? {
        if let Some(layer) = Layer::of(model, id) {
            layer.split(model, id)?;
            count += 1;
        }
    }
    model.remove_dead();
    Ok(count)
}

/// A recurrent node: its inputs by their role.
struct Layer {
    op: Recurrence,
    /// Whether it is a cell, whose tensors have neither length nor directions.
    single: bool,
    x: Value,
    hidden: Value,
    cell: Option<Value>,
    lengths: Option<Value>,
    w: Tensor,
    r: Tensor,
    b: Tensor,
    peepholes: Option<Value>,
}

macro_rules! recurrence {
    ($op:expr, $cell:expr, $direction:expr) => {
        Recurrence {
            cell: $cell,
            direction: $direction,
            activations: $op.activations.clone(),
            activations_alpha: $op.activations_alpha.clone(),
            activations_beta: $op.activations_beta.clone(),
            clip: $op.clip,
        }
    };
}

impl Layer {
    /// The layer, when kernels can run it.
    fn of(model: &Model, id: NodeId) -> Option<Self> {
        let node = model.get(id)?;
        let op = node.op();
        let gru = |linear: bool| if linear { Cell::GruLinear } else { Cell::Gru };
        let forward = Direction::Forward;
        let (op, single) = if let Some(op) = op.downcast::<LstmSequence>() {
            if op.input_forget {
                return None;
            }
            (recurrence!(op, Cell::Lstm, op.direction), false)
        } else if let Some(op) = op.downcast::<GruSequence>() {
            (recurrence!(op, gru(op.linear_before_reset), op.direction), false)
        } else if let Some(op) = op.downcast::<RnnSequence>() {
            (recurrence!(op, Cell::Plain, op.direction), false)
        } else if let Some(op) = op.downcast::<LstmCell>() {
            (recurrence!(op, Cell::Lstm, forward), true)
        } else if let Some(op) = op.downcast::<GruCell>() {
            (recurrence!(op, gru(op.linear_before_reset), forward), true)
        } else {
            (recurrence!(op.downcast::<RnnCell>()?, Cell::Plain, forward), true)
        };
        for direction in 0..op.direction.count() {
            op.functions(direction).ok()?;
        }
        let inputs = node.inputs();
        let (states, lengths) = (if op.cell == Cell::Lstm { 2 } else { 1 }, usize::from(!single));
        let first = 1 + states + lengths;
        let weights = |i: usize| -> Option<Tensor> {
            let tensor = model.constant(*inputs.get(first + i)?)?;
            if tensor.element_type() != ElementType::F32 {
                return None;
            }
            let tensor = tensor.to_contiguous();
            let ones = usize::from(single);
            let dims: Vec<usize> =
                [1].into_iter().take(ones).chain(tensor.shape().iter().copied()).collect();
            tensor.reshape(dims).ok()
        };
        let layer = Self {
            single,
            x: inputs[0],
            hidden: *inputs.get(1)?,
            cell: if states == 2 { Some(*inputs.get(2)?) } else { None },
            lengths: if single { None } else { Some(*inputs.get(1 + states)?) },
            w: weights(0)?,
            r: weights(1)?,
            b: weights(2)?,
            peepholes: inputs.get(first + 3).copied(),
            op,
        };
        layer.fits(model).then_some(layer)
    }

    /// Whether shapes and types are those of the specification, as far as splitting relies on them.
    fn fits(&self, model: &Model) -> bool {
        let rank = if self.single { 2 } else { 3 };
        let float = |v: Value| model.element_type(v) == ElementType::F32;
        let given = |v: Value| !model.constant(v).is_some_and(Tensor::is_absent);
        let states = [Some(self.hidden), self.cell].into_iter().flatten().filter(|v| given(*v));
        let states_fit =
            states.into_iter().all(|v| float(v) && model.shape(v).rank() == Some(rank));
        let directions = self.op.direction.count();
        let gates = self.op.cell.kind().gates();
        let hidden = self.r.shape().last().copied().unwrap_or(0);
        let biases = gates + usize::from(self.op.cell == Cell::GruLinear);
        float(self.x)
            && model.shape(self.x).rank() == Some(rank)
            && states_fit
            && hidden > 0
            && self.r.shape()[..] == [directions, gates * hidden, hidden]
            && self.w.rank() == 3
            && self.w.shape()[..2] == [directions, gates * hidden]
            && self.b.shape()[..] == [directions, biases * hidden]
            && self.peepholes.is_none_or(|p| float(p) || !given(p))
    }

    fn split(&self, model: &mut Model, id: NodeId) -> Result<()> {
        let name = model.node(id).name().to_owned();
        let (directions, rows) = (self.r.shape()[0], self.r.shape()[1]);
        let (width, hidden) = (directions * rows, self.r.shape()[2]);
        let x = self.with_axis(model, self.x, &name)?;
        let w =
            model.add_constant(self.w.reshape([width, self.w.shape()[2]])?, format!("{name}/W"));
        let (bias, recurrent) = self.biases()?;
        let bias = model.add_constant(bias, format!("{name}/B"));
        // Not a MatMul: it would take over a transposition of the input, which the layout may make free.
        let op = FullyConnected { transpose_b: true, ..FullyConnected::default() };
        let products = model.add(op, &[x, w, bias], format!("{name}/input"))?;
        let absent = model.add_constant(Tensor::absent(), "");
        let mut inputs = vec![products, self.with_axis(model, self.hidden, &name)?];
        inputs.push(match self.cell {
            Some(cell) => self.with_axis(model, cell, &name)?,
            None => absent,
        });
        inputs.push(self.lengths.unwrap_or(absent));
        inputs.push(model.add_constant(self.r.clone(), format!("{name}/R")));
        match (recurrent, self.peepholes) {
            (Some(bias), _) => inputs.push(model.add_constant(bias, format!("{name}/B"))),
            (None, Some(peepholes)) => inputs.push(peepholes),
            (None, None) => {}
        }
        let new = model.add_node(Box::new(self.op.clone()), &inputs, name.clone())?;
        let states = if self.op.cell == Cell::Lstm { 2 } else { 1 };
        if self.single {
            let target = model.add_constant(Tensor::from_i64s(&[-1, hidden as i64]), "");
            for output in 0..states {
                let state = Value { node: new, output: output + 1 };
                let flat = model.add(Reshape::default(), &[state, target], name.as_str())?;
                model.replace(Value { node: id, output }, flat);
            }
            return Ok(());
        }
        let order = model.add_constant(Tensor::from_i64s(&[0, 2, 1, 3]), "");
        let y = model.add(Transpose {}, &[new.into(), order], name)?;
        model.replace(id.into(), y);
        for output in 1..=states {
            model.replace(Value { node: id, output }, Value { node: new, output });
        }
        Ok(())
    }

    /// `[batch, n]` of a cell as `[batch, 1, n]`; everything else as it is.
    fn with_axis(&self, model: &mut Model, value: Value, name: &str) -> Result<Value> {
        if !self.single || model.constant(value).is_some_and(Tensor::is_absent) {
            return Ok(value);
        }
        let extent = model.shape(value).dim(1).value().and_then(|n| i64::try_from(n).ok());
        let target = match extent {
            Some(n) if n > 0 => [-1, 1, n],
            _ => [0, 1, -1],
        };
        let target = model.add_constant(Tensor::from_i64s(&target), "");
        model.add(Reshape { special_zero: true, ..Reshape::default() }, &[value, target], name)
    }

    /// The bias of the products, and what stays for the steps.
    fn biases(&self) -> Result<(Tensor, Option<Tensor>)> {
        let (directions, rows, hidden) = (self.r.shape()[0], self.r.shape()[1], self.r.shape()[2]);
        if self.op.cell != Cell::GruLinear {
            return Ok((self.b.reshape([directions * rows])?, None));
        }
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        for row in self.b.as_slice::<f32>()?.chunks_exact(rows + hidden) {
            outer.extend_from_slice(&row[..rows]);
            inner.extend_from_slice(&row[rows..]);
        }
        let inner = Tensor::from_vec([directions, hidden], inner)?;
        Ok((Tensor::from_vec([directions * rows], outer)?, Some(inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Shape,
        pass::testing::{assert_same_on, parameter, random},
    };

    fn constant(model: &mut Model, shape: &[usize], seed: u64) -> Value {
        model.add_constant(random(Shape::new(shape), seed), "w")
    }

    #[track_caller]
    fn equal(model: &Model, inputs: &[Tensor], splits: usize) {
        let mut after = model.clone();
        assert_eq!(split(&mut after).expect("valid"), splits, "{after}");
        after.verify().expect("valid");
        assert_same_on(model, &after, inputs);
    }

    fn lstm(direction: Direction, op: LstmSequence, splits: usize) {
        let (b, l, i, h, d) = (2, 3, 4, 5, direction.count());
        let mut m = Model::new("lstm");
        let x = parameter(&mut m, "x", &[b, l, i]);
        let h0 = parameter(&mut m, "h", &[b, d, h]);
        let c0 = m.add_constant(Tensor::absent(), "");
        let lengths = m.add_parameter("n", ElementType::I32, Shape::new(&[b])).expect("valid");
        let w = constant(&mut m, &[d, 4 * h, i], 1);
        let r = constant(&mut m, &[d, 4 * h, h], 2);
        let bias = constant(&mut m, &[d, 4 * h], 3);
        let p = constant(&mut m, &[d, 3 * h], 4);
        let op = LstmSequence { direction, ..op };
        let node = m.add_node(Box::new(op), &[x, h0, c0, lengths, w, r, bias, p], "lstm");
        let node = node.expect("valid");
        for output in 0..3 {
            m.add_output(format!("y{output}"), Value { node, output });
        }
        let lengths = Tensor::from_vec([b], vec![3i32, 2]).expect("fits");
        equal(&m, &[random([b, l, i], 5), random([b, d, h], 6), lengths], splits);
    }

    #[test]
    fn a_split_lstm_gives_what_the_whole_gives() {
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            lstm(direction, LstmSequence::default(), 1);
            lstm(direction, LstmSequence { clip: 0.5, ..LstmSequence::default() }, 1);
        }
        lstm(Direction::Forward, LstmSequence { input_forget: true, ..LstmSequence::default() }, 0);
        let activations = ["sigmoid", "softsign", "tanh"].map(str::to_owned).to_vec();
        lstm(Direction::Forward, LstmSequence { activations, ..LstmSequence::default() }, 0);
    }

    #[test]
    fn split_cells_give_what_the_whole_gives() {
        let (b, i, h) = (3, 4, 5);
        for linear_before_reset in [false, true] {
            let mut m = Model::new("gru");
            let x = parameter(&mut m, "x", &[b, i]);
            let h0 = parameter(&mut m, "h", &[b, h]);
            let w = constant(&mut m, &[3 * h, i], 1);
            let r = constant(&mut m, &[3 * h, h], 2);
            let biases = if linear_before_reset { 4 } else { 3 };
            let bias = constant(&mut m, &[biases * h], 3);
            let op = GruCell { linear_before_reset, ..GruCell::default() };
            let y = m.add(op, &[x, h0, w, r, bias], "gru").expect("valid");
            m.add_output("y", y);
            equal(&m, &[random([b, i], 4), random([b, h], 5)], 1);
        }
    }
}
