//! The interpreter of element-wise programs, one pass over a tile per instruction.
#![allow(unsafe_code, reason = "operations over tiles at computed addresses")]

use std::ops::Range;

use super::{Input, Instruction, Place, ProgramPlan, Stage, TILE, Value};
use crate::kernels::eltwise::binary::{BinaryOp, floor_remainder};
use crate::kernels::eltwise::broadcast::Run;
use crate::kernels::eltwise::unary;
use crate::kernels::out::Out;
use crate::simd::activation::Visitor;
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;
use crate::simd::math::Unary;

/// Pointers of one tile.
struct Tile<'a> {
    plan: &'a ProgramPlan,
    inputs: &'a [Input<'a>],
    outputs: &'a [&'a Out<'a, f32>],
    scratch: *mut f32,
    first: Run<{ super::MAX_INPUTS }>,
    start: usize,
    len: usize,
}

impl Tile<'_> {
    #[inline(always)]
    fn slot(&self, slot: u16) -> *mut f32 {
        // SAFETY: the scratch has a tile for every slot of the plan.
        unsafe { self.scratch.add(usize::from(slot) * TILE) }
    }

    #[inline(always)]
    fn read(&self, v: Value) -> *const f32 {
        match self.plan.places[usize::from(v)] {
            Place::Direct(i) => {
                let i = usize::from(i);
                let at = self.first.input[i];
                match self.inputs[i] {
                    Input::Slice(x) => x[at..][..self.len].as_ptr(),
                    Input::Output(o) => self.outputs[o].at(at, self.len).cast_const(),
                }
            }
            Place::Slot(s) => self.slot(s).cast_const(),
            Place::Output(o) => self.write_output(o).cast_const(),
        }
    }

    #[inline(always)]
    fn write_output(&self, o: u8) -> *mut f32 {
        self.outputs[usize::from(o)].at(self.start, self.len)
    }

    #[inline(always)]
    fn write(&self, v: Value) -> *mut f32 {
        match self.plan.places[usize::from(v)] {
            Place::Output(o) => self.write_output(o),
            Place::Slot(s) => self.slot(s),
            Place::Direct(_) => unreachable!("results are never inputs"),
        }
    }
}

/// `y = f(a, b)` by vectors. No closure may go through a function of another crate, such as `array::map`: without the
/// instruction set it would not be inlined.
///
/// # Safety
/// `n` elements must be readable at `a` and `b` and writable at `y`.
#[inline(always)]
unsafe fn each<S: Bits>(
    s: S,
    [a, b]: [*const f32; 2],
    y: *mut f32,
    n: usize,
    f: impl Fn(S::F, S::F) -> S::F,
) {
    let mut i = 0;
    // SAFETY: every access is below n.
    unsafe {
        while i + S::LEN <= n {
            s.store(y.add(i), f(s.load(a.add(i)), s.load(b.add(i))));
            i += S::LEN;
        }
        if i < n {
            let k = n - i;
            s.store_n(y.add(i), f(s.load_n(a.add(i), k), s.load_n(b.add(i), k)), k);
        }
    }
}

struct Apply<S: Bits> {
    s: S,
    x: *const f32,
    y: *mut f32,
    n: usize,
}

impl<S: Bits> Visitor for Apply<S> {
    #[inline(always)]
    fn visit<U: Unary>(self, u: U) {
        let s = self.s;
        // SAFETY: the pointers are a tile's, n elements each.
        unsafe {
            each(
                s,
                [self.x, self.x],
                self.y,
                self.n,
                #[inline(always)]
                |x, _| u.eval(s, x),
            );
        };
    }
}

/// Lane by lane, for the operations that have no vector form.
///
/// # Safety
/// `n` elements must be readable at both operands and writable at `y`.
#[inline(always)]
unsafe fn lanes(a: *const f32, b: *const f32, y: *mut f32, n: usize, f: impl Fn(f32, f32) -> f32) {
    for i in 0..n {
        // SAFETY: i is below n.
        unsafe { y.add(i).write(f(a.add(i).read(), b.add(i).read())) };
    }
}

/// # Safety
/// As for [`each`].
#[inline(always)]
unsafe fn binary<S: Bits>(s: S, op: BinaryOp, a: *const f32, b: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match op {
            BinaryOp::Add => each(
                s,
                [a, b],
                y,
                n,
                #[inline(always)]
                |a, b| s.add(a, b),
            ),
            BinaryOp::Sub => each(
                s,
                [a, b],
                y,
                n,
                #[inline(always)]
                |a, b| s.sub(a, b),
            ),
            BinaryOp::Mul => each(
                s,
                [a, b],
                y,
                n,
                #[inline(always)]
                |a, b| s.mul(a, b),
            ),
            BinaryOp::Div => each(
                s,
                [a, b],
                y,
                n,
                #[inline(always)]
                |a, b| s.div(a, b),
            ),
            BinaryOp::Max => {
                each(
                    s,
                    [a, b],
                    y,
                    n,
                    #[inline(always)]
                    |a, b| s.select(s.eq(a, a), s.max(a, b), a),
                );
            }
            BinaryOp::Min => {
                each(
                    s,
                    [a, b],
                    y,
                    n,
                    #[inline(always)]
                    |a, b| s.select(s.eq(a, a), s.min(a, b), a),
                );
            }
            BinaryOp::SquaredDifference => each(
                s,
                [a, b],
                y,
                n,
                #[inline(always)]
                |a, b| {
                    let d = s.sub(a, b);
                    s.mul(d, d)
                },
            ),
            BinaryOp::PRelu => {
                each(
                    s,
                    [a, b],
                    y,
                    n,
                    #[inline(always)]
                    |a, b| s.select(s.lt(a, s.zero()), s.mul(a, b), a),
                );
            }
            BinaryOp::Pow => lanes(a, b, y, n, f32::powf),
            BinaryOp::Mod => lanes(a, b, y, n, |a, b| a % b),
            BinaryOp::FloorMod => lanes(a, b, y, n, floor_remainder),
        }
    }
}

#[inline(always)]
fn execute<S: Bits>(s: S, tile: &Tile<'_>) {
    let first = tile.plan.program.first_result();
    let n = tile.len;
    for (at, i) in tile.plan.program.instructions.iter().enumerate() {
        let y = tile.write((first + at) as Value);
        // SAFETY: every value of a tile has n elements: inputs and outputs were sliced, slots
        // have TILE.
        unsafe {
            match *i {
                Instruction::Unary(op, x) => {
                    unary::dispatch(op, Apply { s, x: tile.read(x), y, n });
                }
                Instruction::Binary(op, a, b) => {
                    binary(s, op, tile.read(a), tile.read(b), y, n);
                }
            }
        }
    }
    for (o, slot) in &tile.plan.copied {
        // SAFETY: both have n elements, and scratch does not overlap outputs.
        unsafe { tile.slot(*slot).cast_const().copy_to_nonoverlapping(tile.write_output(*o), n) };
    }
}

/// Fills the scratch tiles of broadcast inputs for the output elements `range`.
#[inline(always)]
fn stage(
    plan: &ProgramPlan,
    inputs: &[Input<'_>],
    outputs: &[&Out<'_, f32>],
    scratch: &mut [f32],
    range: &Range<usize>,
    stage: Stage,
) {
    let strides = plan.shape.inner_strides();
    for (input, slot, when) in &plan.staged {
        if *when != stage {
            continue;
        }
        let (i, at) = (usize::from(*input), usize::from(*slot) * TILE);
        let to = &mut scratch[at..at + TILE];
        if i >= super::MAX_INPUTS {
            to.fill(plan.program.constants[i - super::MAX_INPUTS]);
            continue;
        }
        plan.shape.for_each_run(range.clone(), |run| {
            let to = &mut to[run.out - range.start..][..run.len];
            let from = run.input[i];
            match inputs[i] {
                Input::Slice(x) if strides[i] == 0 => to.fill(x[from]),
                Input::Slice(x) => to.copy_from_slice(&x[from..from + run.len]),
                // SAFETY: only a single element is staged in place, and it is not written yet.
                Input::Output(o) => to.fill(unsafe { outputs[o].slice(from..from + 1) }[0]),
            }
        });
    }
}

#[inline(always)]
fn body<S: Bits>(
    s: S,
    plan: &ProgramPlan,
    inputs: &[Input<'_>],
    outputs: &[&Out<'_, f32>],
    scratch: &mut [f32],
    range: Range<usize>,
) {
    if range.is_empty() {
        return;
    }
    let whole = plan.elements(0);
    stage(
        plan,
        inputs,
        outputs,
        scratch,
        &(0..whole.end.max(plan.len().min(plan.tile))),
        Stage::Once,
    );
    for item in range {
        let elements = plan.elements(item);
        stage(plan, inputs, outputs, scratch, &elements, Stage::Tile);
        let mut first = None;
        plan.shape.for_each_run(elements.start..elements.start + 1, |run| first = Some(run));
        let Some(first) = first else { continue };
        let tile = Tile {
            plan,
            inputs,
            outputs,
            scratch: scratch.as_mut_ptr(),
            first,
            start: elements.start,
            len: elements.len(),
        };
        execute(s, &tile);
    }
}

instantiate! {
    pub(super) fn tiles(
        plan: &ProgramPlan, inputs: &[Input<'_>], outputs: &[&Out<'_, f32>], scratch: &mut [f32],
        range: Range<usize>,
    ) = body;
}
