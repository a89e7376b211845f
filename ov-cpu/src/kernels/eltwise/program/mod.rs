//! Fused element-wise programs: a chain of operations over tiles that stay in the first-level
//! cache, one pass over memory for the whole chain.

mod run;

use std::ops::Range;

use crate::kernels::eltwise::binary::BinaryOp;
use crate::kernels::eltwise::broadcast::{BroadcastError, BroadcastPlan};
use crate::kernels::eltwise::unary::UnaryOp;
use crate::kernels::out::Out;
use crate::simd::Isa;

/// Elements of a tile.
pub const TILE: usize = 512;

/// Most inputs of a program.
pub const MAX_INPUTS: usize = 8;

/// Most instructions of a program.
pub const MAX_INSTRUCTIONS: usize = 256;

/// A value of a program: first its inputs, then its constants, then its instructions' results.
pub type Value = u16;

/// One operation of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instruction {
    /// `op(x)`
    Unary(UnaryOp, Value),
    /// `op(a, b)`
    Binary(BinaryOp, Value, Value),
}

impl Instruction {
    /// The values that it reads.
    pub fn operands(&self) -> impl Iterator<Item = Value> + use<> {
        let (operands, n) = match *self {
            Self::Unary(_, x) => ([x, 0], 1),
            Self::Binary(_, a, b) => ([a, b], 2),
        };
        operands.into_iter().take(n)
    }
}

/// Why a program is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Too many inputs, constants or instructions, or none of the latter.
    #[error(
        "expected at most {MAX_INPUTS} inputs and 1 to {MAX_INSTRUCTIONS} instructions and constants, found {inputs} inputs, {constants} constants and {instructions} instructions"
    )]
    Size {
        /// Inputs.
        inputs: usize,
        /// Constants.
        constants: usize,
        /// Instructions.
        instructions: usize,
    },
    /// An instruction reads a value that is not computed before it.
    #[error("instruction {at} reads value {value}, which is not computed before it")]
    Order {
        /// Position of the instruction.
        at: usize,
        /// The value.
        value: Value,
    },
    /// An output is not the result of an instruction, or there is none.
    #[error("expected at least one output, each the result of an instruction, found {0:?}")]
    Outputs(Vec<Value>),
}

/// A checked program in single-assignment form.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    inputs: usize,
    constants: Vec<f32>,
    instructions: Vec<Instruction>,
    outputs: Vec<Value>,
}

impl Program {
    /// Checks a program; `outputs` are values of instructions.
    ///
    /// # Errors
    /// If it is too large or reads values before they are computed.
    pub fn new(
        inputs: usize,
        constants: Vec<f32>,
        instructions: Vec<Instruction>,
        outputs: Vec<Value>,
    ) -> Result<Self, ProgramError> {
        let count = 1..=MAX_INSTRUCTIONS;
        if inputs > MAX_INPUTS
            || constants.len() > MAX_INSTRUCTIONS
            || !count.contains(&instructions.len())
        {
            return Err(ProgramError::Size {
                inputs,
                constants: constants.len(),
                instructions: instructions.len(),
            });
        }
        let first = inputs + constants.len();
        for (at, i) in instructions.iter().enumerate() {
            if let Some(value) = i.operands().find(|v| usize::from(*v) >= first + at) {
                return Err(ProgramError::Order { at, value });
            }
        }
        let results = first..first + instructions.len();
        if outputs.is_empty() || !outputs.iter().all(|v| results.contains(&usize::from(*v))) {
            return Err(ProgramError::Outputs(outputs));
        }
        Ok(Self { inputs, constants, instructions, outputs })
    }

    /// Inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Constants.
    #[must_use]
    pub fn constants(&self) -> &[f32] {
        &self.constants
    }

    /// Instructions in order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Values that are stored.
    #[must_use]
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    fn first_result(&self) -> usize {
        self.inputs + self.constants.len()
    }
}

/// Where an input's elements are.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// In memory that the outputs do not overlap.
    Slice(&'a [f32]),
    /// In the buffer of this output, which is overwritten; the input has the full shape.
    Output(usize),
}

/// Where a value lives while a tile is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the input's memory, at the tile.
    Direct(u8),
    /// In the scratch tile of this number.
    Slot(u16),
    /// In the memory of this output.
    Output(u8),
}

/// How an input gets into its scratch tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Once per call: a constant, a scalar, or a vector that repeats within every tile.
    Once,
    /// For every tile.
    Tile,
}

/// A program bound to shapes.
#[derive(Clone, Debug)]
pub struct ProgramPlan {
    program: Program,
    shape: BroadcastPlan<MAX_INPUTS>,
    places: Vec<Place>,
    staged: Vec<(u16, u16, Stage)>,
    /// (output, slot): copied when the tile is done.
    copied: Vec<(u8, u16)>,
    slots: usize,
    /// Elements of a tile, and tiles of a row where rows are longer than a tile.
    tile: usize,
    per_row: usize,
    items: usize,
}

impl ProgramPlan {
    /// Binds `program` to the shapes of its inputs, broadcast with numpy rules.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    ///
    /// # Panics
    /// If the number of shapes is not that of the inputs.
    pub fn new(program: &Program, shapes: &[&[usize]]) -> Result<Self, BroadcastError> {
        assert_eq!(shapes.len(), program.inputs, "one shape per input");
        let mut all: [&[usize]; MAX_INPUTS] = [&[]; MAX_INPUTS];
        all[..shapes.len()].copy_from_slice(shapes);
        let shape = BroadcastPlan::new(all)?;
        let inner = shape.inner();
        let rows = shape.len().checked_div(inner).unwrap_or(0);
        let wide = inner > TILE || shape.dims().len() == 1;
        let tile = if wide { TILE } else { TILE / inner.max(1) * inner };
        let (per_row, items) = match (shape.is_empty(), wide) {
            (true, _) => (1, 0),
            (false, true) => (inner.div_ceil(TILE), rows * inner.div_ceil(TILE)),
            (false, false) => (0, shape.len().div_ceil(tile)),
        };
        let mut plan = Self {
            program: program.clone(),
            shape,
            places: vec![],
            staged: vec![],
            copied: vec![],
            slots: 0,
            tile,
            per_row,
            items,
        };
        plan.place_inputs(wide);
        plan.place_results();
        Ok(plan)
    }

    fn place_inputs(&mut self, wide: bool) {
        let outer = self.shape.dims().len() - 1;
        for i in 0..self.program.inputs {
            let dense = self.shape.input_len()[i] == self.shape.len();
            let strides = |d: usize| self.shape.strides()[d][i];
            let once = (0..outer).all(|d| strides(d) == 0) && (!wide || strides(outer) == 0);
            if (dense && self.shape.len() != 1) || (wide && strides(outer) == 1) {
                self.places.push(Place::Direct(i as u8));
            } else {
                let slot = self.new_slot();
                self.places.push(Place::Slot(slot));
                self.staged.push((i as u16, slot, if once { Stage::Once } else { Stage::Tile }));
            }
        }
        for k in 0..self.program.constants.len() {
            let slot = self.new_slot();
            self.places.push(Place::Slot(slot));
            self.staged.push(((MAX_INPUTS + k) as u16, slot, Stage::Once));
        }
    }

    fn new_slot(&mut self) -> u16 {
        self.slots += 1;
        (self.slots - 1) as u16
    }

    /// Gives results scratch tiles, reusing those whose value is not read any more. Only the last
    /// instruction writes to an output's memory directly, so an input may be in an output's buffer.
    fn place_results(&mut self) {
        let first = self.program.first_result();
        let count = self.program.instructions.len();
        let mut last_use = vec![0usize; first + count];
        for (at, i) in self.program.instructions.iter().enumerate() {
            i.operands().for_each(|v| last_use[usize::from(v)] = at);
        }
        for v in &self.program.outputs {
            last_use[usize::from(*v)] = usize::MAX;
        }
        let mut free: Vec<u16> = vec![];
        for at in 0..count {
            let value = first + at;
            let outputs = &self.program.outputs;
            let stored = outputs.iter().position(|v| usize::from(*v) == value);
            let place = match stored {
                Some(o) if at + 1 == count => Place::Output(o as u8),
                _ => Place::Slot(match free.pop() {
                    Some(slot) => slot,
                    None => self.new_slot(),
                }),
            };
            self.places.push(place);
            let mut seen: [Option<Value>; 2] = [None; 2];
            for (k, v) in self.program.instructions[at].operands().enumerate() {
                let done = usize::from(v) >= first && last_use[usize::from(v)] == at;
                if let (true, false, Place::Slot(slot)) =
                    (done, seen.contains(&Some(v)), self.places[usize::from(v)])
                {
                    free.push(slot);
                }
                seen[k] = Some(v);
            }
        }
        for (o, v) in self.program.outputs.clone().into_iter().enumerate() {
            match self.places[usize::from(v)] {
                Place::Slot(slot) => self.copied.push((o as u8, slot)),
                Place::Output(first) if usize::from(first) != o => {
                    // The same value stored twice: keep it in a slot for both.
                    let slot = self.new_slot();
                    self.places[usize::from(v)] = Place::Slot(slot);
                    self.copied.push((first, slot));
                    self.copied.push((o as u8, slot));
                }
                _ => {}
            }
        }
        self.copied.sort_unstable();
        self.copied.dedup();
    }

    /// Instructions of the program.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.program.instructions.len()
    }

    /// Work items: tiles.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// Elements of the outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether the outputs have no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// Floats of scratch per thread.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.slots * TILE
    }

    /// The output elements of a tile.
    #[inline(always)]
    fn elements(&self, item: usize) -> Range<usize> {
        if self.per_row == 0 {
            return item * self.tile..self.shape.len().min((item + 1) * self.tile);
        }
        let (row, part) = (item / self.per_row, item % self.per_row);
        let inner = self.shape.inner();
        let start = row * inner;
        start + part * TILE..start + inner.min((part + 1) * TILE)
    }

    /// Runs the tiles `range`.
    ///
    /// # Panics
    /// If a slice is shorter than its shape or [`Self::scratch_len`], their number differs from
    /// the program's, or an input in an output's buffer is broadcast.
    pub fn run(
        &self,
        isa: Isa,
        inputs: &[Input<'_>],
        outputs: &[&Out<'_, f32>],
        scratch: &mut [f32],
        range: Range<usize>,
    ) {
        assert_eq!(inputs.len(), self.program.inputs, "one slice per input");
        assert_eq!(outputs.len(), self.program.outputs.len(), "one buffer per output");
        assert!(scratch.len() >= self.scratch_len(), "scratch shorter than scratch_len");
        for (i, x) in inputs.iter().enumerate() {
            let len = self.shape.input_len()[i];
            match x {
                Input::Slice(x) => assert!(x.len() >= len, "input shorter than its shape"),
                Input::Output(_) => {
                    assert!(len == self.len(), "an input in place has the full shape");
                }
            }
        }
        let range = range.start..range.end.min(self.items);
        run::tiles(isa, self, inputs, outputs, scratch, range);
    }
}

#[cfg(test)]
mod tests;
