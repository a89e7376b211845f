//! Attention against the formula in f64.

use super::*;
use crate::kernels::testing::{assert_close, values};

fn reference(
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&Mask<'_>>,
    y: &mut [f64],
) {
    for b in 0..a.batch {
        for h in 0..a.heads {
            let kv = h * a.kv_heads / a.heads;
            for i in 0..a.queries {
                let n = a.causal.map_or(a.keys, |o| a.keys.min(i + o + 1));
                let scores: Vec<f64> = (0..n)
                    .map(|j| {
                        let dot: f64 = (0..a.depth)
                            .map(|d| {
                                let x = q[b * a.q.batch + h * a.q.head + i * a.q.row + d];
                                let z = k[b * a.k.batch + kv * a.k.head + j * a.k.row + d];
                                f64::from(x) * f64::from(z)
                            })
                            .sum();
                        let m = mask.map_or(0.0, |m| {
                            let t = m.strides;
                            f64::from(m.data[b * t.batch + h * t.head + i * t.row + j])
                        });
                        dot * f64::from(a.scale) + m
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
                let sum: f64 = e.iter().sum();
                for d in 0..a.value_depth {
                    let dot: f64 = (0..n)
                        .map(|j| {
                            e[j] * f64::from(v[b * a.v.batch + kv * a.v.head + j * a.v.row + d])
                        })
                        .sum();
                    let at = b * a.out.batch + h * a.out.head + i * a.out.row + d;
                    y[at] = if max == f64::NEG_INFINITY { 0.0 } else { dot / sum };
                }
            }
        }
    }
}

/// `[batch, rows, heads, width]` or `[batch, heads, rows, width]`.
fn layout(heads: usize, rows: usize, width: usize, interleaved: bool) -> Strides {
    let batch = heads * rows * width;
    if interleaved {
        Strides { batch, head: width, row: heads * width }
    } else {
        Strides { batch, head: rows * width, row: width }
    }
}

#[test]
fn matches_reference() {
    // batch, heads, kv heads, queries, keys, depth, value depth
    let table = [
        (1, 2, 2, 5, 7, 16, 16),
        (2, 3, 3, 33, 33, 64, 64),
        (1, 4, 2, 12, 50, 40, 24),
        (1, 2, 1, 1, 100, 64, 64),
        (1, 1, 1, 2, 3, 5, 1),
        (1, 1, 1, 70, 65, 8, 80),
        (2, 2, 2, 9, 31, 17, 33),
        (1, 1, 1, 4, 1, 1, 1),
        (1, 2, 2, 0, 4, 8, 8),
        (0, 2, 2, 3, 4, 8, 8),
    ];
    for isa in Isa::available() {
        for (batch, heads, kv_heads, queries, keys, depth, value_depth) in table {
            for variant in 0..4 {
                let interleaved = variant % 2 == 1;
                let a = Attention {
                    batch,
                    heads,
                    kv_heads,
                    queries,
                    keys,
                    depth,
                    value_depth,
                    scale: 0.3,
                    causal: (variant >= 2).then(|| keys.saturating_sub(queries)),
                    q: layout(heads, queries, depth, interleaved),
                    k: layout(kv_heads, keys, depth, interleaved),
                    v: layout(kv_heads, keys, value_depth, interleaved),
                    out: layout(heads, queries, value_depth, !interleaved),
                };
                let q = values(batch * heads * queries * depth, 1);
                let k = values(batch * kv_heads * keys * depth, 2);
                let v = values(batch * kv_heads * keys * value_depth, 3);
                let mut data = values(heads * queries * keys, 4);
                data.iter_mut().step_by(3).for_each(|x| *x = f32::NEG_INFINITY);
                let strides = Strides { batch: 0, head: queries * keys, row: keys };
                let mask = Mask { data: &data, strides };
                let mask = (variant == 0 || variant == 3).then_some(&mask);
                let len = batch * heads * queries * value_depth;
                let (mut y, mut e) = (vec![9.0; len], vec![9.0; len]);
                reference(&a, &q, &k, &v, mask, &mut e);
                let mut scratch = vec![f32::NAN; a.scratch_len()];
                let (out, items) = (Out::new(&mut y), a.items());
                attention_f32(isa, &a, &q, &k, &v, mask, &mut scratch, &out, 0..items / 2);
                attention_f32(isa, &a, &q, &k, &v, mask, &mut scratch, &out, items / 2..items);
                assert_close(&y, &e, 1e-5, &format!("{isa} {a:?} variant {variant}"));
            }
        }
    }
}

#[test]
fn no_visible_key_gives_zero() {
    for isa in Isa::available() {
        for (queries, keys) in [(5, 3), (2, 0), (4, 0)] {
            let strides = Strides { batch: 0, head: 0, row: 4 };
            let a = Attention {
                batch: 1,
                heads: 1,
                kv_heads: 1,
                queries,
                keys,
                depth: 4,
                value_depth: 4,
                scale: 1.0,
                causal: None,
                q: strides,
                k: strides,
                v: strides,
                out: strides,
            };
            let x = vec![1.0; 20];
            let data = [f32::NEG_INFINITY; 3];
            let mask = Mask { data: &data[..keys], strides: Strides { batch: 0, head: 0, row: 0 } };
            let mut y = vec![9.0; queries * 4];
            let mut scratch = vec![f32::NAN; a.scratch_len()];
            let out = Out::new(&mut y);
            attention_f32(isa, &a, &x, &x, &x, Some(&mask), &mut scratch, &out, 0..a.items());
            assert!(y.iter().all(|y| *y == 0.0), "{isa} {y:?}");
        }
    }
}
