//! LSTM, GRU and simple RNN over sequences and for one step.

mod evaluate;

use evaluate::{Cell, Projection, Sequences, run};

use super::{InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, present};
use crate::{
    choice,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// The order in which a sequence is read.
    pub enum Direction {
        /// First to last.
        Forward = "forward",
        /// Last to first.
        Reverse = "reverse",
        /// Both, each with weights of its own.
        Bidirectional = "bidirectional",
    }
}

impl Direction {
    /// Number of weight sets: 2 for bidirectional, else 1.
    #[must_use]
    pub fn count(self) -> usize {
        if self == Self::Bidirectional { 2 } else { 1 }
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

define_op! {
    /// LSTM over sequences. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/lstm-sequence-5.html>
    ///
    /// Inputs: `X [batch, length, input]`, hidden and cell state `[batch, directions, hidden]` (absent: zeros), lengths
    /// `[batch]` (absent: all), `W [directions, 4 hidden, input]`, `R [directions, 4 hidden, hidden]`,
    /// `B [directions, 4 hidden]` with gates in the order forget, input, cell, output, and optionally peepholes
    /// `[directions, 3 hidden]` in the order forget, input, output. Outputs: `Y [batch, directions, length, hidden]`,
    /// last hidden and cell state.
    pub struct LstmSequence("LSTMSequence", 5) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// Functions f (gates), g (cell) and h (hidden); six when both directions differ.
        activations: Vec<String> = names(&["sigmoid", "tanh", "tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the functions to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
        /// Order of reading.
        direction: Direction = Direction::Forward,
        /// Whether the forget gate is one minus the input gate.
        input_forget: bool = false,
    }
}

define_op! {
    /// GRU over sequences. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/gru-sequence-5.html>
    ///
    /// Inputs: `X [batch, length, input]`, hidden state `[batch, directions, hidden]` (absent: zeros), lengths `[batch]`
    /// (absent: all), `W [directions, 3 hidden, input]`, `R [directions, 3 hidden, hidden]`, `B [directions, 3 hidden]`
    /// with gates in the order update, reset, hidden; with `linear_before_reset` `B` has a fourth part, the recurrent
    /// bias of the hidden gate. Outputs: `Y [batch, directions, length, hidden]`, last hidden state.
    pub struct GruSequence("GRUSequence", 5) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// Functions f (gates) and g (hidden); four when both directions differ.
        activations: Vec<String> = names(&["sigmoid", "tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the functions to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
        /// Order of reading.
        direction: Direction = Direction::Forward,
        /// Whether the recurrent product of the hidden gate is taken before the reset gate multiplies it.
        linear_before_reset: bool = false,
    }
}

define_op! {
    /// Simple RNN over sequences. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/rnn-sequence-5.html>
    ///
    /// Inputs and outputs as [`GruSequence`], with one gate.
    pub struct RnnSequence("RNNSequence", 5) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// The function; two when both directions differ.
        activations: Vec<String> = names(&["tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the function to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
        /// Order of reading.
        direction: Direction = Direction::Forward,
    }
}

define_op! {
    /// One step of an LSTM. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/lstm-cell-4.html>
    ///
    /// Inputs: `X [batch, input]`, hidden and cell state `[batch, hidden]`, `W [4 hidden, input]`,
    /// `R [4 hidden, hidden]`, `B [4 hidden]`. Outputs: hidden and cell state.
    pub struct LstmCell("LSTMCell", 4) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// Functions f, g and h.
        activations: Vec<String> = names(&["sigmoid", "tanh", "tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the functions to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
    }
}

define_op! {
    /// One step of a GRU. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/gru-cell-3.html>
    ///
    /// Inputs: `X [batch, input]`, hidden state `[batch, hidden]`, `W [3 hidden, input]`, `R [3 hidden, hidden]`, `B` as
    /// in [`GruSequence`] without directions. Output: hidden state.
    pub struct GruCell("GRUCell", 3) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// Functions f and g.
        activations: Vec<String> = names(&["sigmoid", "tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the functions to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
        /// As in [`GruSequence`].
        linear_before_reset: bool = false,
    }
}

define_op! {
    /// One step of a simple RNN. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/rnn-cell-1.html>
    ///
    /// Inputs: `X [batch, input]`, hidden state `[batch, hidden]`, `W [hidden, input]`, `R [hidden, hidden]`,
    /// `B [hidden]`. Output: hidden state.
    pub struct RnnCell("RNNCell", 1) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// The function.
        activations: Vec<String> = names(&["tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the function to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
    }
}

define_op! {
    /// [`LstmSequence`] with 8-bit weights: `X` as a whole and the hidden state of each step are quantized to `u8` by
    /// their range, and products are taken in integers.
    /// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeLSTM>
    ///
    /// Inputs 0 to 7 as [`LstmSequence`] (input 7, peepholes, may be absent), but `W [directions, input, 4 hidden]` and
    /// `R [directions, hidden, 4 hidden]` of `i8` or `u8`; inputs 8 to 11: scale and zero point of `W`, scale and zero
    /// point of `R`, each `[directions]` or `[directions, 4 hidden]`.
    pub struct QuantizedLstmSequence("DynamicQuantizeLSTMSequence", 0) {
        /// Extent of a state.
        hidden_size: i64 = 0,
        /// As in [`LstmSequence`].
        activations: Vec<String> = names(&["sigmoid", "tanh", "tanh"]),
        /// First parameter of each function, as far as given.
        activations_alpha: Vec<f64> = Vec::new(),
        /// Second parameter of each function, as far as given.
        activations_beta: Vec<f64> = Vec::new(),
        /// Limits the arguments of the functions to `[-clip, clip]`; 0 does not.
        clip: f64 = 0.0,
        /// Order of reading.
        direction: Direction = Direction::Forward,
        /// Whether the forget gate is one minus the input gate.
        input_forget: bool = false,
    }
}

/// Types of `Y` and `states` states of a sequence operator whose weights `R` are input `r`, with the extent of a state
/// along `axis`.
fn infer_sequence(
    cx: &InferContext<'_>,
    direction: Direction,
    hidden_size: i64,
    states: usize,
    (r, axis): (usize, usize),
) -> OpResult<Vec<OutputType>> {
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    cx.expect_rank(0, 3..=3)?;
    cx.expect_rank(r, 3..=3)?;
    let (x, h) = (cx.shape(0), cx.shape(1));
    let state_is_known = cx.is_present(1) && h.rank() == Some(3);
    let batch = if state_is_known { x.dim(0).intersect(h.dim(0)) } else { Some(x.dim(0)) };
    let batch = batch.ok_or_else(|| OpError::Input {
        index: 1,
        got: format!("shape {h}"),
        expected: format!("the batch of {x}"),
    })?;
    let hidden = match usize::try_from(hidden_size) {
        Ok(n) if n > 0 => Dimension::fixed(n),
        _ => cx.shape(r).dim(axis),
    };
    let directions = Dimension::fixed(direction.count());
    let ty = cx.element_type(0);
    let y = PartialShape::new(&[batch, directions, x.dim(1), hidden]);
    let state = PartialShape::new(&[batch, directions, hidden]);
    let mut types = vec![OutputType::new(ty, y)];
    types.resize(1 + states, OutputType::new(ty, state));
    Ok(types)
}

/// Types of the states that a cell gives.
fn infer_cell(cx: &InferContext<'_>, states: usize) -> OpResult<Vec<OutputType>> {
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    for i in 0..=states {
        cx.expect_rank(i, 2..=2)?;
    }
    let h = cx.shape(1);
    let batch = cx.shape(0).dim(0).intersect(h.dim(0)).ok_or_else(|| OpError::Input {
        index: 1,
        got: format!("shape {h}"),
        expected: format!("the batch of {}", cx.shape(0)),
    })?;
    let state = OutputType::new(cx.element_type(0), PartialShape::new(&[batch, h.dim(1)]));
    Ok(vec![state; states])
}

/// Adds the axes of length and directions that cells do not have; gives the inputs in the order of the sequence form.
fn cell_as_sequence(inputs: &[Tensor], states: usize) -> OpResult<Vec<Tensor>> {
    let with_axis = |i: usize, axis: usize| -> OpResult<Tensor> {
        let tensor = inputs.get(i).ok_or_else(|| OpError::InputCount {
            got: inputs.len(),
            expected: format!("at least {}", i + 1),
        })?;
        let mut dims = tensor.shape().to_vec();
        op_ensure!(axis <= dims.len(), "input {i} has rank {}, too small", dims.len());
        dims.insert(axis, 1);
        Ok(tensor.reshape(dims)?)
    };
    let mut all = vec![with_axis(0, 1)?];
    for state in 1..=states {
        all.push(with_axis(state, 1)?);
    }
    all.push(Tensor::absent());
    for weight in states + 1..states + 4 {
        all.push(with_axis(weight, 0)?);
    }
    Ok(all)
}

/// The states of a sequence's outputs without the axis of directions.
fn states_of_cell(outputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
    outputs[1..]
        .iter()
        .map(|t| Ok(t.reshape([t.shape()[0], t.shape()[2]])?))
        .collect()
}

macro_rules! activation_lists {
    ($self:ident) => {
        (&$self.activations, &$self.activations_alpha, &$self.activations_beta)
    };
}

impl OpRules for LstmSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(7..=8)?;
        infer_sequence(cx, self.direction, self.hidden_size, 2, (5, 2))
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let sequences = Sequences::new(inputs, self.direction, 2, (self.hidden_size, 2))?;
        let cell = Cell::lstm(self.input_forget, self.clip, activation_lists!(self))?;
        let (w, r) = (Projection::floats(&inputs[4])?, Projection::floats(&inputs[5])?);
        run(&sequences, &cell, &w, &r, &inputs[6], present(inputs, 7))
    }
}

impl OpRules for QuantizedLstmSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(12..=12)?;
        infer_sequence(cx, self.direction, self.hidden_size, 2, (5, 1))
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() == 12, "has {} inputs, expected 12", inputs.len());
        let sequences = Sequences::new(inputs, self.direction, 2, (self.hidden_size, 1))?;
        let cell = Cell::lstm(self.input_forget, self.clip, activation_lists!(self))?;
        let w = Projection::quantized(&inputs[4], &inputs[8], &inputs[9])?;
        let r = Projection::quantized(&inputs[5], &inputs[10], &inputs[11])?;
        run(&sequences, &cell, &w, &r, &inputs[6], present(inputs, 7))
    }
}

impl OpRules for GruSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(6..=6)?;
        infer_sequence(cx, self.direction, self.hidden_size, 1, (4, 2))
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let sequences = Sequences::new(inputs, self.direction, 1, (self.hidden_size, 2))?;
        let cell = Cell::gru(self.linear_before_reset, self.clip, activation_lists!(self))?;
        let (w, r) = (Projection::floats(&inputs[3])?, Projection::floats(&inputs[4])?);
        run(&sequences, &cell, &w, &r, &inputs[5], None)
    }
}

impl OpRules for RnnSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(6..=6)?;
        infer_sequence(cx, self.direction, self.hidden_size, 1, (4, 2))
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let sequences = Sequences::new(inputs, self.direction, 1, (self.hidden_size, 2))?;
        let cell = Cell::rnn(self.clip, activation_lists!(self))?;
        let (w, r) = (Projection::floats(&inputs[3])?, Projection::floats(&inputs[4])?);
        run(&sequences, &cell, &w, &r, &inputs[5], None)
    }
}

impl OpRules for LstmCell {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(6..=6)?;
        infer_cell(cx, 2)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let op = LstmSequence {
            hidden_size: self.hidden_size,
            activations: self.activations.clone(),
            activations_alpha: self.activations_alpha.clone(),
            activations_beta: self.activations_beta.clone(),
            clip: self.clip,
            ..LstmSequence::default()
        };
        states_of_cell(&op.evaluate(&cell_as_sequence(inputs, 2)?)?)
    }
}

impl OpRules for GruCell {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        infer_cell(cx, 1)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let op = GruSequence {
            hidden_size: self.hidden_size,
            activations: self.activations.clone(),
            activations_alpha: self.activations_alpha.clone(),
            activations_beta: self.activations_beta.clone(),
            clip: self.clip,
            linear_before_reset: self.linear_before_reset,
            ..GruSequence::default()
        };
        states_of_cell(&op.evaluate(&cell_as_sequence(inputs, 1)?)?)
    }
}

impl OpRules for RnnCell {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        infer_cell(cx, 1)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let op = RnnSequence {
            hidden_size: self.hidden_size,
            activations: self.activations.clone(),
            activations_alpha: self.activations_alpha.clone(),
            activations_beta: self.activations_beta.clone(),
            clip: self.clip,
            ..RnnSequence::default()
        };
        states_of_cell(&op.evaluate(&cell_as_sequence(inputs, 1)?)?)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<LstmSequence>(),
    OpEntry::of::<GruSequence>(),
    OpEntry::of::<RnnSequence>(),
    OpEntry::of::<LstmCell>(),
    OpEntry::of::<GruCell>(),
    OpEntry::of::<RnnCell>(),
    OpEntry::of::<QuantizedLstmSequence>(),
];

#[cfg(test)]
mod tests;
