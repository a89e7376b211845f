//! The steps of a recurrent layer, after the products of its inputs have been taken for all of them at once.

use crate::{
    Dimension, PartialShape, Tensor, choice,
    op::{
        InferContext, Op, OpEntry, OpError, OpResult, OpRules, OutputType,
        recurrent::{Direction, GruSequence, LstmSequence, RnnSequence},
    },
};

use super::activation::Activation;

/// Which cell, with the order of its gates in weights and input products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// Gates f, i, c, o. Activations: of f, i and o; of c; of the new cell state.
    Lstm,
    /// Gates z, r, h; the reset gate is applied before the recurrent product.
    /// Activations: of z and r; of h.
    Gru,
    /// As [`Self::Gru`], with the reset gate applied after the recurrent product and its bias
    /// (`linear_before_reset`).
    GruLinear,
    /// One gate, one activation.
    Plain,
}

impl CellKind {
    /// Gates.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru | Self::GruLinear => 3,
            Self::Plain => 1,
        }
    }
}

choice! {
    /// What a step computes.
    pub enum Cell {
        /// `LSTMSequence`
        Lstm = "lstm",
        /// `GRUSequence`
        Gru = "gru",
        /// `GRUSequence` with `linear_before_reset`
        GruLinear = "gru_linear",
        /// `RNNSequence`
        Plain = "plain",
    }
}

impl Cell {
    /// The kernel's cell.
    #[must_use]
    pub fn kind(self) -> CellKind {
        match self {
            Self::Lstm => CellKind::Lstm,
            Self::Gru => CellKind::Gru,
            Self::GruLinear => CellKind::GruLinear,
            Self::Plain => CellKind::Plain,
        }
    }

    /// Functions of one direction.
    #[must_use]
    pub fn functions(self) -> usize {
        match self {
            Self::Lstm => 3,
            Self::Gru | Self::GruLinear => 2,
            Self::Plain => 1,
        }
    }
}

define_op! {
    /// A recurrent layer whose input products are there.
    ///
    /// Inputs: products of the input with its weights `[batch, length, directions * gates * hidden]`, with the biases
    /// added; hidden and cell state `[batch, directions, hidden]` and lengths `[batch]`, each of which may be absent;
    /// recurrent weights `[directions, gates * hidden, hidden]`; and what the cell has besides: peepholes
    /// `[directions, 3 * hidden]` (LSTM, may be absent), the recurrent bias of the hidden gate `[directions, hidden]`
    /// (`gru_linear`). Outputs: `[batch, length, directions, hidden]`, last hidden state `[batch, directions, hidden]`,
    /// for LSTM the last cell state. Gates and functions are in the order of the sequence operators.
    pub struct Recurrence("Recurrence", 0) {
        /// What a step computes.
        cell: Cell = Cell::Lstm,
        /// As in the sequence operators.
        direction: Direction = Direction::Forward,
        /// As in the sequence operators.
        activations: Vec<String> = Vec::new(),
        /// As in the sequence operators.
        activations_alpha: Vec<f64> = Vec::new(),
        /// As in the sequence operators.
        activations_beta: Vec<f64> = Vec::new(),
        /// As in the sequence operators.
        clip: f64 = 0.0,
    }
}

impl Recurrence {
    /// The functions of a direction, for kernels.
    ///
    /// # Errors
    /// When kernels do not have one of them.
    pub fn functions(&self, direction: usize) -> OpResult<[Activation; 3]> {
        let count = self.cell.functions();
        let first = if self.activations.len() > count { direction * count } else { 0 };
        let mut all = [Activation::None; 3];
        for (i, slot) in all.iter_mut().enumerate().take(count) {
            let at = first + i;
            let name = self.activations.get(at).map(String::as_str).unwrap_or_default();
            let given =
                |list: &[f64], default: f64| list.get(at).copied().unwrap_or(default) as f32;
            let alpha = |default| given(&self.activations_alpha, default);
            *slot = match name.to_ascii_lowercase().as_str() {
                "sigmoid" => Activation::Sigmoid,
                "tanh" => Activation::Tanh,
                "relu" => Activation::Relu,
                "leakyrelu" => Activation::LeakyRelu(alpha(0.01)),
                "hardsigmoid" => {
                    Activation::HardSigmoid(alpha(0.2), given(&self.activations_beta, 0.5))
                }
                "elu" => Activation::Elu(alpha(1.0)),
                "softplus" => Activation::Softplus,
                _ => {
                    return Err(OpError::Attribute {
                        name: "activations",
                        got: name.to_owned(),
                        expected: "a function that kernels have".to_owned(),
                    });
                }
            };
        }
        Ok(all)
    }

    /// Products of a direction: gates times the extent of a state.
    fn rows(&self, hidden: Dimension) -> Dimension {
        hidden.value().map_or(Dimension::DYNAMIC, |h| {
            Dimension::fixed(h.saturating_mul(self.cell.kind().gates()))
        })
    }
}

impl OpRules for Recurrence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=6)?;
        cx.expect_rank(0, 3..=3)?;
        cx.expect_rank(4, 3..=3)?;
        let (x, r) = (cx.shape(0), cx.shape(4));
        let (hidden, directions) = (r.dim(2), self.direction.count());
        let expected =
            PartialShape::new(&[Dimension::fixed(directions), self.rows(hidden), hidden]);
        if expected.intersect(&r).is_none() {
            return Err(OpError::Input {
                index: 4,
                got: r.to_string(),
                expected: expected.to_string(),
            });
        }
        let width = hidden.value().map_or(Dimension::DYNAMIC, |h| {
            Dimension::fixed(h.saturating_mul(self.cell.kind().gates() * directions))
        });
        if width.intersect(x.dim(2)).is_none() {
            return Err(OpError::Input {
                index: 0,
                got: x.to_string(),
                expected: format!("rows of {width}"),
            });
        }
        let directions = Dimension::fixed(directions);
        let state = PartialShape::new(&[x.dim(0), directions, hidden]);
        for i in [1, 2] {
            if cx.is_present(i) && cx.shape(i).intersect(&state).is_none() {
                return Err(OpError::Input {
                    index: i,
                    got: cx.shape(i).to_string(),
                    expected: state.to_string(),
                });
            }
        }
        let ty = cx.element_type(0);
        let y = PartialShape::new(&[x.dim(0), x.dim(1), directions, hidden]);
        let mut types = vec![OutputType::new(ty, y)];
        let states = if self.cell == Cell::Lstm { 2 } else { 1 };
        types.resize(1 + states, OutputType::new(ty, state));
        Ok(types)
    }

    /// Runs the sequence operator on the products as its input, with weights that pick each direction's.
    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let absent = Tensor::absent();
        let input = |i: usize| inputs.get(i).unwrap_or(&absent);
        let (x, r) = (input(0), input(4));
        if x.rank() != 3 || r.rank() != 3 {
            return Err(OpError::Invalid(format!(
                "inputs have shapes {} and {}",
                x.shape(),
                r.shape()
            )));
        }
        let (directions, rows, hidden) = (r.shape()[0], r.shape()[1], r.shape()[2]);
        let width = directions * rows;
        let mut picks = vec![0f32; width * width];
        picks.iter_mut().step_by(width + 1).for_each(|v| *v = 1.0);
        let picks = Tensor::from_vec([directions, rows, width], picks)?;
        let zeros = |n: usize| Tensor::zeros(x.element_type(), [directions, n]);
        let mut arguments = vec![x.clone(), input(1).clone()];
        let (activations, alpha, beta) = (
            self.activations.clone(),
            self.activations_alpha.clone(),
            self.activations_beta.clone(),
        );
        let (clip, direction) = (self.clip, self.direction);
        let op: Box<dyn Op> = match self.cell {
            Cell::Lstm => {
                arguments.push(input(2).clone());
                Box::new(LstmSequence {
                    activations,
                    activations_alpha: alpha,
                    activations_beta: beta,
                    clip,
                    direction,
                    ..LstmSequence::default()
                })
            }
            Cell::Gru | Cell::GruLinear => Box::new(GruSequence {
                activations,
                activations_alpha: alpha,
                activations_beta: beta,
                clip,
                direction,
                linear_before_reset: self.cell == Cell::GruLinear,
                ..GruSequence::default()
            }),
            Cell::Plain => Box::new(RnnSequence {
                activations,
                activations_alpha: alpha,
                activations_beta: beta,
                clip,
                direction,
                ..RnnSequence::default()
            }),
        };
        arguments.extend([input(3).clone(), picks, r.clone()]);
        if self.cell == Cell::GruLinear {
            let recurrent = input(5).to_contiguous();
            let mut bias = vec![0f32; directions * (rows + hidden)];
            let parts = bias.chunks_exact_mut((rows + hidden).max(1));
            for (row, given) in parts.zip(recurrent.as_slice::<f32>()?.chunks_exact(hidden.max(1)))
            {
                row[rows..].copy_from_slice(given);
            }
            arguments.push(Tensor::from_vec([directions, rows + hidden], bias)?);
        } else {
            arguments.push(zeros(rows)?);
        }
        if self.cell == Cell::Lstm && !input(5).is_absent() {
            arguments.push(input(5).clone());
        }
        let mut outputs = op.evaluate(&arguments)?;
        let y = outputs[0].to_contiguous();
        let s = y.shape().strides();
        let (b, d, l, h) = (y.shape()[0], y.shape()[1], y.shape()[2], y.shape()[3]);
        outputs[0] = y.with_strides([b, l, d, h], &[s[0], s[2], s[1], s[3]])?.to_contiguous();
        Ok(outputs)
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<Recurrence>()];
