//! Reference evaluation of recurrent operators, in `f64`.

use super::{
    super::{OpError, OpResult, present},
    Direction,
};
use crate::{dispatch_float, tensor::Tensor};

/// A function of a gate with its parameters.
#[derive(Clone, Copy, Debug)]
struct Activation {
    function: fn(f64, f64, f64) -> f64,
    alpha: f64,
    beta: f64,
}

/// Name, default alpha and beta, and function of (x, alpha, beta).
type ActivationRow = (&'static str, f64, f64, fn(f64, f64, f64) -> f64);

const ACTIVATIONS: &[ActivationRow] = &[
    ("sigmoid", 0.0, 0.0, |x, _, _| 1.0 / (1.0 + (-x).exp())),
    ("tanh", 0.0, 0.0, |x, _, _| x.tanh()),
    ("relu", 0.0, 0.0, |x, _, _| x.max(0.0)),
    ("affine", 1.0, 0.0, |x, a, b| a * x + b),
    ("leakyrelu", 0.01, 0.0, |x, a, _| if x >= 0.0 { x } else { a * x }),
    ("thresholdedrelu", 1.0, 0.0, |x, a, _| if x >= a { x } else { 0.0 }),
    ("scaledtanh", 1.0, 1.0, |x, a, b| a * (b * x).tanh()),
    ("hardsigmoid", 0.2, 0.5, |x, a, b| (a * x + b).clamp(0.0, 1.0)),
    ("elu", 1.0, 0.0, |x, a, _| if x >= 0.0 { x } else { a * x.exp_m1() }),
    ("softsign", 0.0, 0.0, |x, _, _| x / (1.0 + x.abs())),
    ("softplus", 0.0, 0.0, |x, _, _| x.max(0.0) + (-x.abs()).exp().ln_1p()),
];

/// Names of functions, then alphas, then betas.
pub(super) type ActivationLists<'a> = (&'a [String], &'a [f64], &'a [f64]);

fn activations((names, alphas, betas): ActivationLists<'_>, per_direction: usize) -> OpResult<Vec<Activation>> {
    op_ensure!(
        names.len() == per_direction || names.len() == 2 * per_direction,
        "{} activations are given, expected {per_direction} or twice as many",
        names.len()
    );
    names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let row = ACTIVATIONS.iter().find(|r| r.0.eq_ignore_ascii_case(name));
            let (_, alpha, beta, function) = *row.ok_or_else(|| OpError::Attribute {
                name: "activations",
                got: name.clone(),
                expected: ACTIVATIONS.iter().map(|r| r.0).collect::<Vec<_>>().join(", "),
            })?;
            let alpha = alphas.get(i).copied().unwrap_or(alpha);
            let beta = betas.get(i).copied().unwrap_or(beta);
            Ok(Activation { function, alpha, beta })
        })
        .collect()
}

enum Kind {
    Lstm { input_forget: bool },
    Gru { linear_before_reset: bool },
    Rnn,
}

/// What one step computes.
pub(super) struct Cell {
    kind: Kind,
    clip: f64,
    activations: Vec<Activation>,
}

impl Cell {
    pub(super) fn lstm(input_forget: bool, clip: f64, lists: ActivationLists<'_>) -> OpResult<Self> {
        Ok(Self { kind: Kind::Lstm { input_forget }, clip, activations: activations(lists, 3)? })
    }

    pub(super) fn gru(linear_before_reset: bool, clip: f64, lists: ActivationLists<'_>) -> OpResult<Self> {
        let kind = Kind::Gru { linear_before_reset };
        Ok(Self { kind, clip, activations: activations(lists, 2)? })
    }

    pub(super) fn rnn(clip: f64, lists: ActivationLists<'_>) -> OpResult<Self> {
        Ok(Self { kind: Kind::Rnn, clip, activations: activations(lists, 1)? })
    }

    fn gates(&self) -> usize {
        match self.kind {
            Kind::Lstm { .. } => 4,
            Kind::Gru { .. } => 3,
            Kind::Rnn => 1,
        }
    }

    fn biases(&self) -> usize {
        self.gates() + usize::from(matches!(self.kind, Kind::Gru { linear_before_reset: true }))
    }

    fn functions(&self) -> usize {
        match self.kind {
            Kind::Lstm { .. } => 3,
            Kind::Gru { .. } => 2,
            Kind::Rnn => 1,
        }
    }

    fn apply(&self, direction: usize, function: usize, x: f64) -> f64 {
        let x = if self.clip > 0.0 { x.clamp(-self.clip, self.clip) } else { x };
        self.apply_unclipped(direction, function, x)
    }

    fn apply_unclipped(&self, direction: usize, function: usize, x: f64) -> f64 {
        let per_direction = self.functions();
        let at = direction * per_direction + function;
        let a = self.activations.get(at).unwrap_or(&self.activations[function]);
        (a.function)(x, a.alpha, a.beta)
    }

    /// The next states of one sequence. `x` holds the products with the input, `recurrent` those with the hidden state,
    /// one block of the state's extent per gate.
    fn step(
        &self,
        at: &Weights<'_>,
        x: &[f64],
        recurrent: &[f64],
        hidden: &mut [f64],
        cell: &mut [f64],
    ) {
        let n = hidden.len();
        let gate = |g: usize, i: usize| x[g * n + i] + recurrent[g * n + i] + at.bias[g * n + i];
        let d = at.direction;
        match self.kind {
            Kind::Rnn => {
                for (i, h) in hidden.iter_mut().enumerate() {
                    *h = self.apply(d, 0, gate(0, i));
                }
            }
            Kind::Lstm { input_forget } => {
                let peephole = |p: usize, i: usize| at.peepholes.map_or(0.0, |w| w[p * n + i]);
                for i in 0..n {
                    let input = self.apply(d, 0, gate(1, i) + peephole(1, i) * cell[i]);
                    let forget = if input_forget {
                        1.0 - input
                    } else {
                        self.apply(d, 0, gate(0, i) + peephole(0, i) * cell[i])
                    };
                    let candidate = self.apply(d, 1, gate(2, i));
                    cell[i] = forget * cell[i] + input * candidate;
                    let output = self.apply(d, 0, gate(3, i) + peephole(2, i) * cell[i]);
                    hidden[i] = output * self.apply_unclipped(d, 2, cell[i]);
                }
            }
            Kind::Gru { linear_before_reset } => {
                let reset: Vec<f64> = (0..n).map(|i| self.apply(d, 0, gate(1, i))).collect();
                let candidates: Vec<f64> = if linear_before_reset {
                    let inner = |i: usize| recurrent[2 * n + i] + at.bias[3 * n + i];
                    (0..n).map(|i| x[2 * n + i] + reset[i] * inner(i) + at.bias[2 * n + i]).collect()
                } else {
                    let kept: Vec<f64> = reset.iter().zip(&*hidden).map(|(r, h)| r * h).collect();
                    let mut product = vec![0.0; n];
                    at.recurrent.multiply(d, 2 * n..3 * n, &kept, &mut product);
                    (0..n).map(|i| x[2 * n + i] + product[i] + at.bias[2 * n + i]).collect()
                };
                for (i, h) in hidden.iter_mut().enumerate() {
                    let update = self.apply(d, 0, gate(0, i));
                    *h = (1.0 - update) * self.apply(d, 1, candidates[i]) + update * *h;
                }
            }
        }
    }
}

/// The weights that a step needs besides the products.
struct Weights<'a> {
    direction: usize,
    bias: &'a [f64],
    peepholes: Option<&'a [f64]>,
    recurrent: &'a Projection,
}

/// A matrix per direction, `[directions, rows, columns]`.
pub(super) struct Projection {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
    /// Scale and zero point per direction and row of quantized weights.
    quantization: Option<(Vec<f64>, Vec<f64>)>,
}

impl Projection {
    pub(super) fn floats(weights: &Tensor) -> OpResult<Self> {
        op_ensure!(weights.rank() == 3, "weights have shape {}, expected rank 3", weights.shape());
        let (rows, columns) = (weights.shape()[1], weights.shape()[2]);
        Ok(Self { rows, columns, values: weights.to_f64_vec()?, quantization: None })
    }

    /// Weights `[directions, columns, rows]`.
    pub(super) fn quantized(weights: &Tensor, scale: &Tensor, zero_point: &Tensor) -> OpResult<Self> {
        let [directions, columns, rows] = weights.shape()[..] else {
            return Err(OpError::Invalid(format!("weights have shape {}, expected rank 3", weights.shape())));
        };
        let matrix = weights.to_contiguous().with_strides([directions, rows, columns], &[rows * columns, 1, rows])?;
        let mut this = Self::floats(&matrix.to_contiguous())?;
        let per_row = |t: &Tensor| -> OpResult<Vec<f64>> {
            let values = if t.is_absent() { vec![0.0; directions] } else { t.to_f64_vec()? };
            if values.len() == directions * rows {
                return Ok(values);
            }
            op_ensure!(
                values.len() == directions,
                "scales or zero points have shape {}, expected one per direction or row",
                t.shape()
            );
            Ok(values.iter().flat_map(|v| std::iter::repeat_n(*v, rows)).collect())
        };
        this.quantization = Some((per_row(scale)?, per_row(zero_point)?));
        Ok(this)
    }

    /// `out[r, i] = sum over k of x[r, k] values[range.start + i, k]` for every row of `x`.
    fn multiply(&self, direction: usize, range: std::ops::Range<usize>, x: &[f64], out: &mut [f64]) {
        let count = range.len();
        if self.columns == 0 {
            out.fill(0.0);
            return;
        }
        let quantized = self.quantization.as_ref().map(|q| (q, quantize(x)));
        let first = direction * self.rows + range.start;
        let matrix = &self.values[first * self.columns..][..count * self.columns];
        let source = quantized.as_ref().map_or(x, |(_, q)| &q.values);
        for (x, out) in source.chunks_exact(self.columns).zip(out.chunks_exact_mut(count)) {
            match &quantized {
                None => {
                    for (row, out) in matrix.chunks_exact(self.columns).zip(out) {
                        *out = dot(x, row);
                    }
                }
                Some(((scales, zeros), q)) => {
                    let sum: f64 = x.iter().sum();
                    for (i, (row, out)) in matrix.chunks_exact(self.columns).zip(out).enumerate() {
                        let (scale, zero) = (scales[first + i], zeros[first + i]);
                        *out = q.scale * scale * (dot(x, row) - zero * sum);
                    }
                }
            }
        }
    }
}

/// Sum of products, in four chains that do not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (chunks, others) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = chunks.remainder().iter().zip(others.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in chunks.zip(others) {
        for i in 0..4 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + tail
}

struct Quantized {
    /// `u8` values less the zero point.
    values: Vec<f64>,
    scale: f64,
}

/// Quantizes to `u8` over the range of the values and zero, rounding to even as `DynamicQuantizeLinear` does.
fn quantize(x: &[f64]) -> Quantized {
    let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(l, h), v| (l.min(*v as f32), h.max(*v as f32)));
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    let values = x
        .iter()
        .map(|v| {
            let q = (*v as f32 / scale).round_ties_even() + zero;
            f64::from(q.clamp(0.0, 255.0) - zero)
        })
        .collect();
    Quantized { values, scale: f64::from(scale) }
}

/// The sequences and states that are read, checked.
pub(super) struct Sequences {
    x: Vec<f64>,
    states: Vec<Vec<f64>>,
    lengths: Vec<usize>,
    like: Tensor,
    batch: usize,
    length: usize,
    input: usize,
    hidden: usize,
    direction: Direction,
}

impl Sequences {
    /// `axis` is the one of `R` whose extent is that of a state.
    pub(super) fn new(
        inputs: &[Tensor],
        direction: Direction,
        states: usize,
        (hidden_size, axis): (i64, usize),
    ) -> OpResult<Self> {
        op_ensure!(inputs.len() >= states + 5, "has {} inputs, too few", inputs.len());
        let x = &inputs[0];
        op_ensure!(x.rank() == 3, "X has shape {}, expected rank 3", x.shape());
        let (batch, length, input) = (x.shape()[0], x.shape()[1], x.shape()[2]);
        let r = &inputs[states + 3];
        op_ensure!(r.rank() == 3, "R has shape {}, expected rank 3", r.shape());
        let hidden = r.shape()[axis];
        op_ensure!(
            hidden_size <= 0 || usize::try_from(hidden_size) == Ok(hidden),
            "R has shape {}, hidden_size is {hidden_size}",
            r.shape()
        );
        let count = direction.count();
        let states = (1..=states)
            .map(|i| match present(inputs, i) {
                None => Ok(vec![0.0; batch * count * hidden]),
                Some(s) if s.shape()[..] == [batch, count, hidden] => Ok(s.to_f64_vec()?),
                Some(s) => Err(OpError::Input {
                    index: i,
                    got: format!("shape {}", s.shape()),
                    expected: format!("[{batch},{count},{hidden}]"),
                }),
            })
            .collect::<OpResult<Vec<_>>>()?;
        let lengths = match present(inputs, states.len() + 1) {
            None => vec![length; batch],
            Some(t) => {
                let lengths = t.to_i64_vec()?;
                op_ensure!(lengths.len() == batch, "{} lengths for a batch of {batch}", lengths.len());
                lengths
                    .into_iter()
                    .map(|l| {
                        usize::try_from(l).ok().filter(|l| *l <= length).ok_or_else(|| {
                            OpError::Invalid(format!("length {l} of a sequence of {length}"))
                        })
                    })
                    .collect::<OpResult<_>>()?
            }
        };
        let like = Tensor::zeros(x.element_type(), [0])?;
        Ok(Self { x: x.to_f64_vec()?, states, lengths, like, batch, length, input, hidden, direction })
    }

    fn tensor(&self, shape: &[usize], values: &[f64]) -> OpResult<Tensor> {
        let ty = self.like.element_type();
        dispatch_float!(ty, T => Ok(Tensor::from_f64s::<T>(shape, values)?), else {
            Err(OpError::Unsupported(format!("element type {ty}")))
        })
    }
}

fn expect_shape(what: &str, tensor: &Tensor, shape: &[usize]) -> OpResult<()> {
    op_ensure!(
        tensor.shape()[..] == *shape,
        "{what} has shape {}, expected {shape:?}",
        tensor.shape()
    );
    Ok(())
}

/// Runs a cell over sequences. `w: [directions, gates hidden, input]`, `r: [directions, gates hidden, hidden]`,
/// `b: [directions, biases hidden]`, `p: [directions, 3 hidden]`.
pub(super) fn run(
    sequences: &Sequences,
    cell: &Cell,
    w: &Projection,
    r: &Projection,
    b: &Tensor,
    p: Option<&Tensor>,
) -> OpResult<Vec<Tensor>> {
    let &Sequences { batch, length, input, hidden, direction, .. } = sequences;
    let (count, gates) = (direction.count(), cell.gates());
    let rows = gates * hidden;
    op_ensure!(
        (w.rows, w.columns, w.values.len()) == (rows, input, count * rows * input),
        "W does not have shape [{count},{rows},{input}]"
    );
    op_ensure!(
        (r.rows, r.columns, r.values.len()) == (rows, hidden, count * rows * hidden),
        "R does not have shape [{count},{rows},{hidden}]"
    );
    let biases = cell.biases() * hidden;
    expect_shape("B", b, &[count, biases])?;
    let bias = b.to_f64_vec()?;
    let peepholes = p
        .map(|p| expect_shape("P", p, &[count, 3 * hidden]).and_then(|()| Ok(p.to_f64_vec()?)))
        .transpose()?;
    let total = batch.checked_mul(count).and_then(|n| n.checked_mul(length)).and_then(|n| n.checked_mul(hidden));
    let total = total.filter(|n| *n <= 1 << 33);
    let total = total.ok_or_else(|| OpError::Unsupported("an output of so many elements".to_owned()))?;
    let mut y = vec![0.0; total];
    let mut states = sequences.states.clone();
    let mut x_products = vec![0.0; batch * length * rows];
    let mut hidden_states = vec![0.0; batch * hidden];
    let mut products = vec![0.0; batch * rows];
    let mut no_cell = vec![0.0; hidden];
    for d in 0..count {
        w.multiply(d, 0..rows, &sequences.x, &mut x_products);
        let at = Weights {
            direction: d,
            bias: &bias[d * biases..][..biases],
            peepholes: peepholes.as_ref().map(|p| &p[d * 3 * hidden..][..3 * hidden]),
            recurrent: r,
        };
        let backward = direction == Direction::Reverse || d == 1;
        for step in 0..length {
            for s in 0..batch {
                let from = &states[0][(s * count + d) * hidden..][..hidden];
                hidden_states[s * hidden..][..hidden].copy_from_slice(from);
            }
            r.multiply(d, 0..rows, &hidden_states, &mut products);
            for s in 0..batch {
                let len = sequences.lengths[s];
                if step >= len {
                    continue;
                }
                let t = if backward { len - 1 - step } else { step };
                let state = (s * count + d) * hidden;
                let (hs, cs) = states.split_at_mut(1);
                let h = &mut hs[0][state..][..hidden];
                let c = cs.first_mut().map_or(&mut no_cell[..], |c| &mut c[state..][..hidden]);
                let x = &x_products[(s * length + t) * rows..][..rows];
                cell.step(&at, x, &products[s * rows..][..rows], h, c);
                y[((s * count + d) * length + t) * hidden..][..hidden].copy_from_slice(h);
            }
        }
    }
    let mut outputs = vec![sequences.tensor(&[batch, count, length, hidden], &y)?];
    for state in &states {
        outputs.push(sequences.tensor(&[batch, count, hidden], state)?);
    }
    Ok(outputs)
}
