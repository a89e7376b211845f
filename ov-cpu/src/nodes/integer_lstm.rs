//! LSTM with weights in bytes and dynamically quantized inputs and states.
#![allow(unsafe_code, reason = "calls kernels on scratch memory")]

use std::{ops::Range, ptr};

use ov_core::{
    ElementType, Tensor,
    op::{
        OpAttributes, OpError, OpResult,
        recurrent::{Direction, QuantizedLstmSequence},
    },
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights,
    byte_weights::Centred, cost, view,
};
use crate::{
    gemm::{
        ResidualPlace,
        int8::{ByteFinish, Target},
    },
    kernels::{
        conv::{ConvParams, Source},
        int8::{
            ByteArgs, ByteConv, BytePacking, lstm_cell,
            quantize::{Steps, quantize, range},
        },
    },
    simd::{Isa, activation::Activation},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "lstm_int8", ops: &[QuantizedLstmSequence::KIND], select, bind }];

/// Inputs of the operator that this kernel needs by number.
const LENGTHS: usize = 3;
const W: usize = 4;
const R: usize = 5;
const B: usize = 6;
const PEEPHOLES: usize = 7;

fn op(op: &dyn ov_core::op::Op) -> &QuantizedLstmSequence {
    op.downcast().expect("the table lists this kernel for this operator only")
}

fn absent(view: &NodeView<'_>, index: usize) -> bool {
    view.inputs[index].constant.is_some_and(Tensor::is_absent)
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let op = op(view.op);
    let standard = op.activations == ["sigmoid", "tanh", "tanh"]
        || op.activations == ["sigmoid", "tanh", "tanh", "sigmoid", "tanh", "tanh"];
    if !standard || op.clip != 0.0 || op.input_forget {
        return Err("takes the usual activations without clipping".into());
    }
    if !absent(view, PEEPHOLES) || !absent(view, LENGTHS) {
        return Err("takes neither peepholes nor lengths".into());
    }
    let floats = [0, 1, 2, B]
        .iter()
        .all(|i| absent(view, *i) || view.inputs[*i].element_type == ElementType::F32);
    let (w, r) = (view.constant(W)?, view.constant(R)?);
    if !floats || absent(view, B) || w.rank() != 3 || r.rank() != 3 {
        return Err("takes f32 and a bias".into());
    }
    let mut packed = Vec::new();
    let mut params = Vec::new();
    for (weights, scale, zero) in [(w, 8, 9), (r, 10, 11)] {
        let outputs = weights.shape()[0] * weights.shape()[2];
        let list = |index: usize| -> Result<Vec<f64>, Reject> {
            let tensor = view.constant(index)?;
            let values = if tensor.is_absent() {
                vec![0.0]
            } else {
                tensor.to_f64_vec().map_err(|e| e.to_string())?
            };
            let directions = weights.shape()[0].max(1);
            match values.len() {
                n if n == outputs => Ok(values),
                n if n == directions || n == 1 => {
                    Ok((0..outputs).map(|i| values[i * n / outputs.max(1)]).collect())
                }
                n => Err(format!("input {index} has {n} values").into()),
            }
        };
        let (scales, zeros) = (list(scale)?, list(zero)?);
        let (choice, shifted) = pack(view.isa, weights, &zeros)?;
        params.push(i64::from(shifted));
        packed.push(choice);
        packed.push(Pack::f32s(outputs, move |out| {
            for (y, x) in out.iter_mut().zip(&scales) {
                *y = *x as f32;
            }
        }));
    }
    Ok(Choice { params, packed, consumed: vec![W, R] })
}

/// Weights `[directions, columns, gates]`, packed as one group per direction; whether they are shifted.
fn pack(isa: Isa, weights: &Tensor, zeros: &[f64]) -> Result<(Pack, bool), Reject> {
    let [directions, columns, gates] = weights.shape()[..] else {
        return Err("takes weights of rank 3".into());
    };
    if directions == 0 || gates == 0 {
        return Err("takes weights that are not empty".into());
    }
    let weights = Centred::of(weights, zeros.iter().map(|z| *z as i32).collect())?;
    let outputs = directions * gates;
    let shifted = weights.shifted_rows(outputs, directions)?;
    let packing = BytePacking::new(isa, directions * columns, outputs, directions, 1, false);
    let pack =
        super::integer::pack_all(packing.len(), outputs, shifted, move |data, sums, shifts| {
            let row = |direction, column, range: Range<usize>, line: &mut [i32]| {
                let at = (direction * columns + column) * gates + range.start;
                let first = direction * gates;
                weights.row(at, first + range.start..first + range.end, line);
            };
            packing.pack_rows(row, data, sums, shifts);
        });
    Ok((pack, shifted))
}

/// One matrix of all directions.
#[derive(Debug)]
struct Matrix {
    conv: ByteConv,
    packed: Tensor,
    scales: Weights,
    packing: BytePacking,
    shifted: bool,
    columns: usize,
    outputs: usize,
}

impl Matrix {
    /// `m` rows of `columns` bytes times the matrix of one direction.
    fn new(
        cx: &BindContext<'_>,
        index: usize,
        (m, columns, outputs, directions): (usize, usize, usize, usize),
    ) -> OpResult<Self> {
        let p = ConvParams {
            batch: 1,
            channels: columns,
            outputs,
            groups: 1,
            input: [1, 1, m],
            kernel: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            pad: [0; 3],
            output: [1, 1, m],
            source: Source::ChannelsLast { pixel_stride: columns },
            output_stride: outputs,
        };
        let packing = BytePacking::new(cx.isa, columns, outputs, 1, 1, false);
        let packed = cx.packed.get(2 * index).cloned();
        let packed =
            packed.ok_or_else(|| OpError::Invalid("the program holds no weights".to_owned()))?;
        let shifted = cx.params.get(index) == Some(&1);
        let lists = directions * outputs * (1 + usize::from(shifted));
        let expected = (directions * packing.len()).next_multiple_of(64) + 4 * lists;
        if packed.bytes().len() != expected || packed.bytes().as_ptr().addr() % 4 != 0 {
            return Err(OpError::Invalid(format!(
                "packed weights of {} bytes, expected {expected}",
                packed.bytes().len()
            )));
        }
        let scales = cx.packed_f32(2 * index + 1)?;
        if scales.get().len() < directions * outputs {
            return Err(OpError::Invalid("too few scales of weights".to_owned()));
        }
        let conv = ByteConv::new(cx.isa, &p, false, 1);
        Ok(Self { conv, packed, scales, packing, shifted, columns, outputs })
    }

    /// The product with direction `d` of rows `x` that are quantized by their range.
    fn multiply(
        &self,
        isa: Isa,
        work: &mut Work<'_>,
        d: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (low, high) = range(isa, x);
        let step = if high == low { 1.0 } else { (high - low) / 255.0 };
        let zero = (-low / step).clamp(0.0, 255.0).round_ties_even();
        let bytes = &mut work.bytes[..x.len()];
        quantize(isa, x, Steps { scale: &[step], zero: &[zero] }, false, bytes);
        let scales = &self.scales.get()[d * self.outputs..][..self.outputs];
        for (y, s) in work.scales.iter_mut().zip(scales) {
            *y = s * step;
        }
        let directions = self.scales.get().len() / self.outputs;
        let packed = self.packed.bytes();
        let sums: &[i32] =
            bytemuck::cast_slice(&packed[(directions * self.packing.len()).next_multiple_of(64)..]);
        let from = |at: usize| sums[at * self.outputs..][..self.outputs].as_ptr();
        let finish = ByteFinish {
            isa,
            row_zero: zero as i32,
            column_sums: from(d),
            shifts: if self.shifted { from(directions + d) } else { ptr::null() },
            floats: false,
            scale: work.scales.as_ptr(),
            scale_step: 1,
            bias: bias.map_or(ptr::null(), <[f32]>::as_ptr),
            residual: ptr::null(),
            place: ResidualPlace::BeforeActivation,
            activation: Activation::None,
            stride: self.outputs,
            target: Target::F32(y.as_mut_ptr()),
        };
        let weights = bytemuck::cast_slice(&packed[d * self.packing.len()..][..self.packing.len()]);
        let args = ByteArgs { input: bytes.as_ptr(), weights, finish };
        debug_assert!(x.len().is_multiple_of(self.columns.max(1)));
        // SAFETY: the rows are whole, bias and scales have a value per output, and y a row of them per row of x, by
        // the lengths that the step was bound with.
        unsafe { self.conv.run(&args, 0..self.conv.work_items(), work.conv) };
    }
}

/// Scratch of a product.
struct Work<'a> {
    bytes: &'a mut [u8],
    scales: &'a mut [f32],
    conv: &'a mut [u8],
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = op(cx.op);
    let given = |i: usize| !cx.inputs[i].value.is_some_and(Tensor::is_absent);
    let (x, w) = (cx.inputs[0].shape, cx.inputs[W].shape);
    let r = cx.inputs[R].shape;
    let directions = op.direction.count();
    let [batch, length, input] = x[..] else {
        return Err(OpError::Invalid(format!("x has shape {x}, expected rank 3")));
    };
    let hidden = r.get(1).copied().unwrap_or(0);
    let gates = 4 * hidden;
    let fits = w[..] == [directions, input, gates]
        && r[..] == [directions, hidden, gates]
        && cx.inputs[B].shape[..] == [directions, gates]
        && cx.outputs[0].shape[..] == [batch, directions, length, hidden]
        && [1, 2]
            .iter()
            .all(|i| !given(*i) || cx.inputs[*i].shape[..] == [batch, directions, hidden]);
    if !fits {
        return Err(OpError::Invalid(format!("weights {w} and {r} do not fit x {x}")));
    }
    let backward = match op.direction {
        Direction::Forward => [false, false],
        Direction::Reverse => [true, true],
        Direction::Bidirectional => [false, true],
    };
    let work = 2.0 * (batch * length * gates * (input + hidden) * directions) as f64;
    Bound::step(LstmStep {
        isa: cx.isa,
        batch,
        length,
        input,
        hidden,
        directions,
        backward,
        states: [given(1), given(2)],
        w: Matrix::new(cx, 0, (batch * length, input, gates, directions))?,
        r: Matrix::new(cx, 1, (batch, hidden, gates, directions))?,
        cost: cost::ns(work, work / 8.0),
    })
}

#[derive(Debug)]
struct LstmStep {
    isa: Isa,
    batch: usize,
    length: usize,
    input: usize,
    hidden: usize,
    directions: usize,
    backward: [bool; 2],
    states: [bool; 2],
    w: Matrix,
    r: Matrix,
    cost: f64,
}

impl LstmStep {
    /// Lengths of the parts of scratch, each a multiple of 64 bytes: quantized rows, scratch of products, then floats:
    /// scales, products of x, products of the state, hidden and cell states.
    fn parts(&self) -> ([usize; 2], [usize; 5]) {
        let (gates, states) = (4 * self.hidden, self.batch * self.hidden);
        let bytes = (self.batch * self.length * self.input).max(states);
        let conv = self.w.conv.scratch_len().max(self.r.conv.scratch_len());
        let floats = [gates, self.batch * self.length * gates, self.batch * gates, states, states];
        ([bytes, conv].map(|n| n.next_multiple_of(64)), floats.map(|n| n.next_multiple_of(16)))
    }
}

impl Step for LstmStep {
    fn items(&self) -> usize {
        self.directions
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        let (bytes, floats) = self.parts();
        bytes.iter().sum::<usize>() + 4 * floats.iter().sum::<usize>()
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (hidden, gates, n) = (self.hidden, 4 * self.hidden, self.directions);
        let ([bytes_len, conv_len], floats) = self.parts();
        let (bytes, rest) = scratch.split_at_mut(bytes_len);
        let (conv, rest) = rest.split_at_mut(conv_len);
        let rest: &mut [f32] = bytemuck::cast_slice_mut(rest);
        let (scales, rest) = rest.split_at_mut(floats[0]);
        let (products, rest) = rest.split_at_mut(floats[1]);
        let (recurrent, rest) = rest.split_at_mut(floats[2]);
        let (h, rest) = rest.split_at_mut(floats[3]);
        let h = &mut h[..self.batch * hidden];
        let c = &mut rest[..self.batch * hidden];
        let mut work = Work { bytes, scales, conv };
        for d in items {
            let x = &io.input::<f32>(0)[..self.batch * self.length * self.input];
            let bias = &io.input::<f32>(B)[d * gates..][..gates];
            self.w.multiply(self.isa, &mut work, d, x, Some(bias), products);
            for (given, state, index) in
                [(self.states[0], &mut *h, 1), (self.states[1], &mut *c, 2)]
            {
                for (s, row) in state.chunks_exact_mut(hidden.max(1)).enumerate() {
                    if given {
                        let first = &io.input::<f32>(index)[(s * n + d) * hidden..][..hidden];
                        row.copy_from_slice(first);
                    } else {
                        row.fill(0.0);
                    }
                }
            }
            let y = io.output::<f32>(0);
            for step in 0..self.length {
                self.r.multiply(self.isa, &mut work, d, h, None, recurrent);
                let t = if self.backward[d] { self.length - 1 - step } else { step };
                for s in 0..self.batch {
                    let row = &products[(s * self.length + t) * gates..][..gates];
                    let r = &recurrent[s * gates..][..gates];
                    let h = &mut h[s * hidden..][..hidden];
                    lstm_cell(self.isa, row, r, &mut c[s * hidden..][..hidden], h);
                    let at = ((s * n + d) * self.length + t) * hidden;
                    view::item(&y, at, hidden).copy_from_slice(h);
                }
            }
            for (index, state) in [(1, &*h), (2, &*c)] {
                let out = io.output::<f32>(index);
                for s in 0..self.batch {
                    let row = &state[s * hidden..][..hidden];
                    view::item(&out, (s * n + d) * hidden, hidden).copy_from_slice(row);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Tensor,
        model::Value,
        op::recurrent::{Direction, QuantizedLstmSequence},
    };

    use crate::{
        kernels::testing::bytes,
        nodes::testing::{check, noise, parameter},
    };

    #[test]
    fn quantized_sequences_give_what_the_reference_gives() {
        for (batch, length, input, hidden, direction, wide) in [
            (1, 5, 7, 16, Direction::Forward, false),
            (1, 9, 12, 33, Direction::Bidirectional, false),
            (3, 4, 5, 6, Direction::Reverse, false),
            (2, 3, 8, 40, Direction::Bidirectional, true),
            (1, 0, 4, 4, Direction::Forward, false),
        ] {
            let n = direction.count();
            let gates = 4 * hidden;
            let mut m = Model::new("lstm");
            let x = parameter(&mut m, "x", &[batch, length, input]);
            let h = parameter(&mut m, "h", &[batch, n, hidden]);
            let c = parameter(&mut m, "c", &[batch, n, hidden]);
            let weights = |shape: [usize; 3], seed| {
                let t = Tensor::from_vec(shape, bytes(shape.iter().product(), seed)).expect("fits");
                if wide { t } else { t.cast(ov_core::ElementType::I8).expect("integers") }
            };
            let scale = |len: usize| {
                let v = (0..len).map(|i| 0.01 + 0.001 * (i % 5) as f32).collect();
                Tensor::from_vec([n, len / n], v).expect("fits")
            };
            let zero = |len: usize| {
                let t = Tensor::from_vec([n], vec![99u8; n]).expect("fits");
                if wide {
                    t
                } else {
                    let t = Tensor::from_vec([n, len / n], vec![0i8; len]);
                    t.expect("fits")
                }
            };
            let constants = [
                Tensor::absent(),
                weights([n, input, gates], 3),
                weights([n, hidden, gates], 4),
                noise(&[n, gates], 5),
                Tensor::absent(),
                scale(n * gates),
                zero(n * gates),
                scale(n * gates),
                zero(n * gates),
            ];
            let mut inputs = vec![x, h, c];
            inputs.extend(constants.into_iter().map(|t| m.add_constant(t, "c")));
            let op = QuantizedLstmSequence {
                hidden_size: hidden as i64,
                direction,
                ..QuantizedLstmSequence::default()
            };
            let id = m.add_node(Box::new(op), &inputs, "lstm").expect("valid");
            for output in 0..3 {
                m.add_output(format!("y{output}"), Value { node: id, output });
            }
            let data = [
                noise(&[batch, length, input], 1),
                noise(&[batch, n, hidden], 2),
                noise(&[batch, n, hidden], 6),
            ];
            let what = format!("{batch} {length} {input} {hidden} {direction:?}");
            // A state on the edge between two steps may fall either way.
            check(&what, &m, &data, "lstm_int8", 2e-2);
        }
    }
}
