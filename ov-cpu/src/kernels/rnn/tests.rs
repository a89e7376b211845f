//! Recurrent layers against the ONNX formulas in f64.

use super::*;
use crate::kernels::testing::{assert_close, values};
use crate::simd::Isa;

struct Case<'a> {
    r: Rnn<'a>,
    weights: &'a [f32],
    x: &'a [f32],
    h0: Option<&'a [f32]>,
    c0: Option<&'a [f32]>,
}

fn act(a: Activation, x: f64) -> f64 {
    match a {
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Relu => x.max(0.0),
        _ => (0.2 * x + 0.5).clamp(0.0, 1.0),
    }
}

/// Outputs of all steps `[steps, directions, batch, hidden]`, last hidden and last cell states.
fn reference(case: &Case<'_>) -> [Vec<f64>; 3] {
    let r = &case.r;
    let (n, gates, dirs) = (r.hidden, r.kind.gates(), r.reverse.len());
    let mut y = vec![0.0; r.steps * dirs * r.batch * n];
    let (mut hs, mut cs) = (vec![0.0; dirs * r.batch * n], vec![0.0; dirs * r.batch * n]);
    for d in 0..dirs {
        let w = &case.weights[d * gates * n * n..(d + 1) * gates * n * n];
        let [f, g, o] = r.activations[d];
        for b in 0..r.batch {
            let start = (b * dirs + d) * n;
            let row = |s: Option<&[f32]>| -> Vec<f64> {
                (0..n).map(|i| s.map_or(0.0, |s| f64::from(s[start + i]))).collect()
            };
            let (mut h, mut c) = (row(case.h0), row(case.c0));
            let len = r.lengths.map_or(r.steps, |l| l.get(b) as usize);
            for step in 0..len {
                let t = if r.reverse[d] { len - 1 - step } else { step };
                let at = t * r.x.step + b * r.x.batch + d * r.x.direction;
                let x = |gate: usize, i: usize| f64::from(case.x[at + gate * n + i]);
                let rec = |h: &[f64], gate: usize, i: usize| -> f64 {
                    (0..n).map(|k| h[k] * f64::from(w[(gate * n + i) * n + k])).sum()
                };
                let clip = |v: f64| v.clamp(-f64::from(r.clip), f64::from(r.clip));
                let sum = |gate, i| x(gate, i) + rec(&h, gate, i);
                let mut next = vec![0.0; n];
                match r.kind {
                    CellKind::Lstm => {
                        let old = c.clone();
                        for i in 0..n {
                            let p = |k: usize| {
                                r.peepholes.map_or(0.0, |p| f64::from(p[d * 3 * n + k * n + i]))
                            };
                            let fg = act(f, clip(sum(0, i) + p(0) * old[i]));
                            let ig = act(f, clip(sum(1, i) + p(1) * old[i]));
                            c[i] = fg * old[i] + ig * act(g, clip(sum(2, i)));
                            next[i] = act(f, clip(sum(3, i) + p(2) * c[i])) * act(o, c[i]);
                        }
                    }
                    CellKind::Gru | CellKind::GruLinear => {
                        let z: Vec<f64> = (0..n).map(|i| act(f, clip(sum(0, i)))).collect();
                        let q: Vec<f64> = (0..n).map(|i| act(f, clip(sum(1, i)))).collect();
                        let reset: Vec<f64> = (0..n).map(|i| q[i] * h[i]).collect();
                        for i in 0..n {
                            let bias = r.recurrent_bias.map_or(0.0, |b| f64::from(b[d * n + i]));
                            let v = if r.kind == CellKind::Gru {
                                x(2, i) + rec(&reset, 2, i)
                            } else {
                                x(2, i) + q[i] * (rec(&h, 2, i) + bias)
                            };
                            next[i] = (1.0 - z[i]) * act(g, clip(v)) + z[i] * h[i];
                        }
                    }
                    CellKind::Plain => {
                        (0..n).for_each(|i| next[i] = act(f, clip(sum(0, i))));
                    }
                }
                h = next;
                let to = t * r.y.step + b * r.y.batch + d * r.y.direction;
                y[to..to + n].copy_from_slice(&h);
            }
            hs[start..start + n].copy_from_slice(&h);
            cs[start..start + n].copy_from_slice(&c);
        }
    }
    [y, hs, cs]
}

#[test]
fn matches_reference() {
    let sizes = [
        (1, 3, 1),
        (16, 4, 1),
        (20, 5, 4),
        (33, 3, 7),
        (64, 2, 3),
        (5, 1, 9),
        (8, 0, 2),
        (40, 6, 5),
    ];
    let kinds = [CellKind::Lstm, CellKind::Gru, CellKind::GruLinear, CellKind::Plain];
    for isa in Isa::available() {
        for kind in kinds {
            for (k, (n, steps, batch)) in sizes.into_iter().enumerate() {
                let reverse: &[bool] = [&[false][..], &[true], &[false, true]][k % 3];
                let (dirs, gates) = (reverse.len(), kind.gates());
                let (s, t) = (Activation::Sigmoid, Activation::Tanh);
                let usual = if kind == CellKind::Plain { [t, t, t] } else { [s, t, t] };
                let other = [Activation::HardSigmoid(0.2, 0.5), Activation::Relu, t];
                let activations = [if k == 4 { other } else { usual }, usual];
                let scale = |x: Vec<f32>, f: f32| -> Vec<f32> { x.iter().map(|x| x * f).collect() };
                let weights = scale(values(dirs * gates * n * n, 1), 0.5 / (n as f32).sqrt());
                let x = values(steps * batch * dirs * gates * n, 2);
                let (h0, c0) = (values(dirs * batch * n, 3), values(dirs * batch * n, 4));
                let bias = values(dirs * n, 5);
                let peep = values(dirs * 3 * n, 6);
                let lengths: Vec<i32> = (0..batch).map(|b| (b * 3 % (steps + 1)) as i32).collect();
                let long: Vec<i64> = lengths.iter().map(|l| i64::from(*l)).collect();
                let one = packed_len(kind, n);
                let mut packed = vec![f32::NAN; dirs * one];
                for d in 0..dirs {
                    let w = &weights[d * gates * n * n..];
                    pack_recurrent(kind, n, w, &mut packed[d * one..(d + 1) * one]);
                }
                let width = dirs * gates * n;
                let rnn = Rnn {
                    kind,
                    hidden: n,
                    steps,
                    batch,
                    reverse,
                    activations: &activations[..dirs],
                    clip: if k == 3 { 0.5 } else { f32::INFINITY },
                    lengths: match k % 4 {
                        1 => Some(Lengths::I32(&lengths)),
                        3 => Some(Lengths::I64(&long)),
                        _ => None,
                    },
                    packed: &packed,
                    recurrent_bias: (kind == CellKind::GruLinear).then_some(&bias[..]),
                    peepholes: (kind == CellKind::Lstm && k == 2).then_some(&peep[..]),
                    x: SequenceStrides { step: batch * width, batch: width, direction: gates * n },
                    y: SequenceStrides { step: dirs * batch * n, batch: n, direction: batch * n },
                };
                let initial = k != 1;
                let case = Case {
                    r: rnn,
                    weights: &weights,
                    x: &x,
                    h0: initial.then_some(&h0[..]),
                    c0: initial.then_some(&c0[..]),
                };
                let e = reference(&case);
                let mut y = vec![9.0; e[0].len()];
                let (mut h, mut c) = (vec![9.0; e[1].len()], vec![9.0; e[2].len()]);
                let (ho, co, yo) = (Out::new(&mut h), Out::new(&mut c), Out::new(&mut y));
                let lstm = kind == CellKind::Lstm;
                let states = States {
                    first_hidden: case.h0,
                    first_cell: case.c0.filter(|_| lstm),
                    last_hidden: Some(&ho),
                    last_cell: lstm.then_some(&co),
                };
                let mut scratch = vec![f32::NAN; rnn.scratch_len()];
                let items = rnn.items();
                rnn_f32(isa, &rnn, &x, &states, Some(&yo), &mut scratch, 0..items / 2);
                rnn_f32(isa, &rnn, &x, &states, Some(&yo), &mut scratch, items / 2..items);
                let what = format!("{isa} {kind:?} hidden {n} steps {steps} batch {batch}");
                assert_close(&y, &e[0], 1e-5, &what);
                assert_close(&h, &e[1], 1e-5, &what);
                if lstm {
                    assert_close(&c, &e[2], 1e-5, &what);
                }
            }
        }
    }
}
