//! Recurrent layers.

use ov_core::{
    ElementType, Tensor,
    op::{
        fused::recurrent::{Cell, Recurrence},
        recurrent::Direction,
    },
};

use super::super::recurrence::RECURRENCE;
use crate::testing::{KernelTest, check, noise};

#[track_caller]
fn run(
    op: &Recurrence,
    [batch, length, hidden]: [usize; 3],
    states: bool,
    lengths: Option<&[i64]>,
    extra: bool,
) {
    let directions = op.direction.count();
    let gates = op.cell.kind().gates();
    let f32s = |shape: &[usize], seed| noise(ElementType::F32, shape, seed);
    let state =
        |seed| if states { f32s(&[batch, directions, hidden], seed) } else { Tensor::absent() };
    let cell = if op.cell == Cell::Lstm { state(3) } else { Tensor::absent() };
    let parts = if op.cell == Cell::Lstm { 3 } else { 1 };
    let inputs = [
        f32s(&[batch, length, directions * gates * hidden], 1),
        state(2),
        cell,
        lengths.map_or_else(Tensor::absent, Tensor::from_i64s),
        f32s(&[directions, gates * hidden, hidden], 4),
        if extra { f32s(&[directions, parts * hidden], 5) } else { Tensor::absent() },
    ];
    check(&KernelTest::new(&RECURRENCE, op, &inputs, 1e-4).constants(&[4, 5]));
}

fn layer(cell: Cell, direction: Direction) -> Recurrence {
    let names: &[&str] = match cell {
        Cell::Lstm => &["sigmoid", "tanh", "tanh"],
        Cell::Gru | Cell::GruLinear => &["sigmoid", "tanh"],
        Cell::Plain => &["tanh"],
    };
    let activations = names.iter().map(|n| (*n).to_owned()).collect();
    Recurrence { cell, direction, activations, ..Recurrence::default() }
}

#[test]
fn cells_in_every_direction() {
    for cell in [Cell::Lstm, Cell::Gru, Cell::GruLinear, Cell::Plain] {
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            let op = layer(cell, direction);
            let extra = cell == Cell::GruLinear;
            run(&op, [2, 4, 5], true, Some(&[3, 4]), extra);
            run(&op, [1, 3, 33], false, None, extra);
        }
    }
}

#[test]
fn peepholes_clips_and_no_steps() {
    let mut op = layer(Cell::Lstm, Direction::Bidirectional);
    op.clip = 0.5;
    run(&op, [2, 3, 4], true, Some(&[0, 2]), true);
    run(&op, [2, 0, 4], true, None, true);
    run(&layer(Cell::Plain, Direction::Forward), [1, 2, 300], true, None, false);
}
