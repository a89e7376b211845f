//! The steps of recurrent layers.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{Op, OpAttributes, OpError, OpResult, recurrent::Direction},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights, cost,
};
use crate::{
    kernels::rnn::{
        Lengths, Rnn, SequenceStrides, States, pack_recurrent, packed_len, rnn_f32, rnn_shared_f32,
    },
    ops::recurrent::{Cell, Recurrence},
    simd::{Isa, activation::Activation},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "recurrence_f32", ops: &[Recurrence::KIND], select, bind }];

/// Recurrent weights from which it pays that threads share a step: reading them takes longer than a barrier.
const WORTH_SPLITTING: f64 = 32.0 * 1024.0;

/// Inputs by their place.
const CELL: usize = 2;
const LENGTHS: usize = 3;
const WEIGHTS: usize = 4;
const EXTRA: usize = 5;

fn op(op: &dyn Op) -> &Recurrence {
    op.downcast().expect("the table lists these kernels for this operator only")
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let op = op(view.op);
    let optional = [1, CELL, LENGTHS, EXTRA];
    view.expect_f32(&optional)?;
    for i in optional {
        let Some(input) = view.inputs.get(i) else { continue };
        let fits = match input.element_type {
            ElementType::I32 | ElementType::I64 => i == LENGTHS,
            ElementType::F32 => i != LENGTHS,
            _ => false,
        };
        if !fits && !input.constant.is_some_and(ov_core::Tensor::is_absent) {
            return Err(format!("input {i} is {}", input.element_type).into());
        }
    }
    for direction in 0..op.direction.count() {
        op.functions(direction).map_err(|e| e.to_string())?;
    }
    let r = view.constant(WEIGHTS)?.to_contiguous();
    let (directions, hidden, kind) = (r.shape()[0], r.shape()[2], op.cell.kind());
    let one = packed_len(kind, hidden);
    let pack = Pack::f32s(directions * one, move |out| {
        let data: &[f32] = r.as_slice().expect("checked to be f32");
        let rows = kind.gates() * hidden * hidden;
        for d in 0..directions {
            pack_recurrent(kind, hidden, &data[d * rows..][..rows], &mut out[d * one..][..one]);
        }
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![WEIGHTS] })
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = op(cx.op);
    let (x, r) = (cx.inputs[0].shape, cx.inputs[WEIGHTS].shape);
    let given = |i: usize| {
        cx.inputs.get(i).is_some_and(|b| !b.value.is_some_and(ov_core::Tensor::is_absent))
    };
    let (batch, steps, directions, hidden) = (x[0], x[1], r[0], r[2]);
    let gates = op.cell.kind().gates();
    let expect = |i: usize, elements: usize| {
        if given(i) && cx.inputs[i].shape.elements() != elements {
            return Err(OpError::Input {
                index: i,
                got: cx.inputs[i].shape.to_string(),
                expected: format!("{elements} elements"),
            });
        }
        Ok(())
    };
    let state = batch * directions * hidden;
    expect(0, batch * steps * directions * gates * hidden)?;
    expect(1, state)?;
    expect(CELL, state)?;
    expect(LENGTHS, batch)?;
    let extra = match op.cell {
        Cell::Lstm => 3 * hidden,
        Cell::GruLinear => hidden,
        Cell::Gru | Cell::Plain => 0,
    };
    expect(EXTRA, directions * extra)?;
    if op.cell == Cell::GruLinear && !given(EXTRA) {
        return Err(OpError::Invalid("the recurrent bias is missing".to_owned()));
    }
    let lengths = match (given(LENGTHS), cx.inputs[LENGTHS].element_type) {
        (false, _) => LengthsOf::None,
        (true, ElementType::I32) => LengthsOf::I32,
        (true, _) => LengthsOf::I64,
    };
    let activations = (0..directions).map(|d| op.functions(d)).collect::<OpResult<Vec<_>>>()?;
    let passes = (batch.div_ceil(4) * steps * directions) as f64;
    let weights = (gates * hidden * hidden) as f64;
    let units = (steps * batch * directions * gates * hidden) as f64;
    Bound::step(RecurrenceStep {
        isa: cx.isa,
        cell: op.cell,
        hidden,
        steps,
        batch,
        reverse: match op.direction {
            Direction::Forward => &[false],
            Direction::Reverse => &[true],
            Direction::Bidirectional => &[false, true],
        },
        activations,
        clip: if op.clip > 0.0 { op.clip as f32 } else { f32::INFINITY },
        first_hidden: given(1),
        first_cell: given(CELL),
        lengths,
        extra: given(EXTRA),
        weights: cx.packed_f32(0)?,
        threads: if weights >= WORTH_SPLITTING { cx.threads } else { 1 },
        cost: cost::ns(2.0 * weights * passes * batch.min(4) as f64, 4.0 * weights * passes)
            + units,
    })
}

#[derive(Clone, Copy, Debug)]
enum LengthsOf {
    None,
    I32,
    I64,
}

#[derive(Debug)]
struct RecurrenceStep {
    isa: Isa,
    cell: Cell,
    hidden: usize,
    steps: usize,
    batch: usize,
    reverse: &'static [bool],
    activations: Vec<[Activation; 3]>,
    clip: f32,
    first_hidden: bool,
    first_cell: bool,
    lengths: LengthsOf,
    /// Whether there are peepholes or a recurrent bias.
    extra: bool,
    weights: Weights,
    /// Threads that may share a step.
    threads: usize,
    cost: f64,
}

impl RecurrenceStep {
    /// Threads that each compute some units of every step; 1 when sequences or directions are shared out instead.
    fn sharing(&self) -> usize {
        let whole =
            self.batch == 1 && self.reverse.len() == 1 && matches!(self.lengths, LengthsOf::None);
        let units = self.hidden.is_multiple_of(16) && self.cell != Cell::Gru;
        if whole && units { self.threads.min(self.hidden / 16) } else { 1 }
    }

    fn layer<'a>(&'a self, io: &Io<'a>) -> Rnn<'a> {
        let directions = self.reverse.len();
        let row = self.cell.kind().gates() * self.hidden;
        let extra = self.extra.then(|| io.input::<f32>(EXTRA));
        Rnn {
            kind: self.cell.kind(),
            hidden: self.hidden,
            steps: self.steps,
            batch: self.batch,
            reverse: self.reverse,
            activations: &self.activations,
            clip: self.clip,
            lengths: match self.lengths {
                LengthsOf::None => None,
                LengthsOf::I32 => Some(Lengths::I32(io.input(LENGTHS))),
                LengthsOf::I64 => Some(Lengths::I64(io.input(LENGTHS))),
            },
            packed: self.weights.get(),
            recurrent_bias: extra.filter(|_| self.cell == Cell::GruLinear),
            peepholes: extra.filter(|_| self.cell == Cell::Lstm),
            x: SequenceStrides {
                step: directions * row,
                batch: self.steps * directions * row,
                direction: row,
            },
            y: SequenceStrides {
                step: directions * self.hidden,
                batch: self.steps * directions * self.hidden,
                direction: self.hidden,
            },
        }
    }
}

impl Step for RecurrenceStep {
    fn items(&self) -> usize {
        if self.waits() {
            return self.threads;
        }
        self.reverse.len() * self.batch.div_ceil(4)
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn waits(&self) -> bool {
        self.threads > 1 && self.sharing() == self.threads
    }

    fn scratch_len(&self) -> usize {
        4 * Rnn::scratch_len_of(self.hidden)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let layer = self.layer(io);
        if let Some(lengths) = layer.lengths {
            for sequence in 0..self.batch {
                let length = lengths.get(sequence);
                if usize::try_from(length).is_ok_and(|l| l <= self.steps) {
                    continue;
                }
                return Err(OpError::Invalid(format!(
                    "length {length} of a sequence of {}",
                    self.steps
                )));
            }
        }
        let lstm = self.cell == Cell::Lstm;
        let (y, hidden) = (io.output::<f32>(0), io.output::<f32>(1));
        let cell = lstm.then(|| io.output::<f32>(2));
        let states = States {
            first_hidden: self.first_hidden.then(|| io.input(1)),
            first_cell: self.first_cell.then(|| io.input(CELL)),
            last_hidden: Some(&hidden),
            last_cell: cell.as_ref(),
        };
        let scratch = bytemuck::cast_slice_mut(scratch);
        if self.waits() {
            let all = self.threads;
            let units = layer.units(range.start, all).start..layer.units(range.end - 1, all).end;
            let wait = || io.wait();
            // A thread that was told to stop leaves it to the one that failed to say why.
            let _ =
                rnn_shared_f32(self.isa, &layer, io.input(0), &states, &y, scratch, units, &wait);
            return Ok(());
        }
        rnn_f32(self.isa, &layer, io.input(0), &states, Some(&y), scratch, range);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Shape, Tensor,
        model::Value,
        op::recurrent::{GruSequence, LstmCell, LstmSequence, RnnSequence},
    };

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    /// Extents: batch, length, input, hidden.
    type Case = [usize; 4];

    fn scaled(shape: &[usize], seed: u32, hidden: usize) -> Tensor {
        let scale = 0.5 / (hidden as f32).sqrt();
        let values = noise(shape, seed);
        let values = values.as_slice::<f32>().expect("f32").iter().map(|v| v * scale).collect();
        Tensor::from_vec(shape, values).expect("fits")
    }

    fn sequence(
        op: impl Op,
        [b, l, i, h]: Case,
        gates: usize,
        biases: usize,
        d: usize,
        lengths: Option<Tensor>,
        peepholes: bool,
    ) {
        let what = format!("{} [{b}, {l}, {i}] hidden {h}", op.kind());
        let lstm = gates == 4;
        let mut m = Model::new("recurrent");
        let mut given = vec![noise(&[b, l, i], 1), noise(&[b, d, h], 2)];
        let mut inputs =
            vec![parameter(&mut m, "x", &[b, l, i]), parameter(&mut m, "h", &[b, d, h])];
        if lstm {
            inputs.push(parameter(&mut m, "c", &[b, d, h]));
            given.push(noise(&[b, d, h], 3));
        }
        inputs.push(match lengths {
            Some(lengths) => {
                let ty = lengths.element_type();
                given.push(lengths);
                m.add_parameter("lengths", ty, Shape::new(&[b])).expect("valid")
            }
            None => m.add_constant(Tensor::absent(), ""),
        });
        inputs.push(m.add_constant(scaled(&[d, gates * h, i], 4, i.max(1)), "w"));
        inputs.push(m.add_constant(scaled(&[d, gates * h, h], 5, h), "r"));
        inputs.push(m.add_constant(noise(&[d, biases * h], 6), "b"));
        if peepholes {
            inputs.push(m.add_constant(noise(&[d, 3 * h], 7), "p"));
        }
        let node = m.add_node(Box::new(op), &inputs, "recurrent").expect("valid");
        for output in 0..if lstm { 3 } else { 2 } {
            m.add_output(format!("y{output}"), Value { node, output });
        }
        check(&what, &m, &given, "recurrence_f32", 2e-5);
    }

    const CASES: &[Case] =
        &[[1, 1, 1, 1], [1, 7, 5, 20], [2, 3, 33, 16], [5, 4, 8, 33], [1, 3, 4, 130], [3, 0, 2, 4]];

    #[test]
    fn threads_share_the_steps_of_a_large_layer() {
        for direction in [Direction::Forward, Direction::Reverse] {
            let case = [1, 6, 3, 112];
            let op = LstmSequence { direction, clip: 0.9, ..LstmSequence::default() };
            sequence(op, case, 4, 4, 1, None, true);
            let op = GruSequence { direction, linear_before_reset: true, ..GruSequence::default() };
            sequence(op, case, 3, 4, 1, None, false);
            let op = RnnSequence { direction, ..RnnSequence::default() };
            sequence(op, [1, 3, 2, 192], 1, 1, 1, None, false);
            sequence(LstmSequence::default(), [1, 0, 3, 112], 4, 4, 1, None, false);
        }
    }

    #[test]
    fn lstm_gives_what_the_reference_gives() {
        for (k, case) in CASES.iter().enumerate() {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
                let d = direction.count();
                let lengths: Vec<i64> =
                    (0..case[0]).map(|b| (b * 2 % (case[1] + 1)) as i64).collect();
                let lengths = Tensor::from_vec([case[0]], lengths).expect("fits");
                let lengths = match k % 3 {
                    0 => None,
                    1 => Some(lengths),
                    _ => Some(lengths.cast(ElementType::I32).expect("fits")),
                };
                let clip = if k == 3 { 0.7 } else { 0.0 };
                let op = LstmSequence { direction, clip, ..LstmSequence::default() };
                sequence(op, *case, 4, 4, d, lengths, k % 2 == 1);
            }
        }
    }

    #[test]
    fn gru_and_plain_give_what_the_reference_gives() {
        for case in CASES {
            for direction in [Direction::Forward, Direction::Bidirectional] {
                let d = direction.count();
                for linear_before_reset in [false, true] {
                    let op =
                        GruSequence { direction, linear_before_reset, ..GruSequence::default() };
                    let biases = if linear_before_reset { 4 } else { 3 };
                    sequence(op, *case, 3, biases, d, None, false);
                }
                let op = RnnSequence { direction, ..RnnSequence::default() };
                sequence(op, *case, 1, 1, d, None, false);
            }
        }
    }

    #[test]
    fn functions_per_direction_are_kept_apart() {
        let names = ["relu", "tanh", "hardsigmoid", "elu"].map(str::to_owned);
        let op = GruSequence {
            direction: Direction::Bidirectional,
            activations: names.to_vec(),
            activations_alpha: vec![0.0, 0.0, 0.3, 0.5],
            activations_beta: vec![0.0, 0.0, 0.4, 0.0],
            ..GruSequence::default()
        };
        sequence(op, [2, 3, 4, 17], 3, 3, 2, None, false);
    }

    #[test]
    fn a_cell_gives_what_the_reference_gives() {
        for (b, i, h) in [(1, 3, 5), (3, 8, 16), (2, 1, 33)] {
            let mut m = Model::new("cell");
            let mut inputs = vec![
                parameter(&mut m, "x", &[b, i]),
                parameter(&mut m, "h", &[b, h]),
                parameter(&mut m, "c", &[b, h]),
            ];
            inputs.push(m.add_constant(scaled(&[4 * h, i], 1, i), "w"));
            inputs.push(m.add_constant(scaled(&[4 * h, h], 2, h), "r"));
            inputs.push(m.add_constant(noise(&[4 * h], 3), "b"));
            let node = m.add_node(Box::new(LstmCell::default()), &inputs, "cell").expect("valid");
            for output in 0..2 {
                m.add_output(format!("y{output}"), Value { node, output });
            }
            let given = [noise(&[b, i], 4), noise(&[b, h], 5), noise(&[b, h], 6)];
            check("a cell", &m, &given, "recurrence_f32", 2e-5);
        }
    }
}
