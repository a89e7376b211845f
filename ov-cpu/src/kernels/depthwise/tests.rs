//! Against sums one by one.

use super::*;
use crate::kernels::testing::{assert_close, values};

fn reference(g: &Depthwise, n: usize, x: &[f32], w: &[f32], e: &Epilogue<'_>) -> Vec<f64> {
    let ([h, wd], c) = (g.input, g.channels);
    let mut y = vec![];
    for b in 0..n {
        for oh in 0..g.output[0] {
            for ow in 0..g.output[1] {
                for ch in 0..c {
                    let mut sum = e.bias.map_or(0.0, |b| f64::from(b[ch]));
                    for kh in 0..g.kernel[0] {
                        for kw in 0..g.kernel[1] {
                            let i = (oh * g.stride[0] + kh * g.dilation[0]) as isize
                                - g.pads[0] as isize;
                            let j = (ow * g.stride[1] + kw * g.dilation[1]) as isize
                                - g.pads[1] as isize;
                            if i >= 0 && j >= 0 && (i as usize) < h && (j as usize) < wd {
                                let at = (b * h + i as usize) * wd + j as usize;
                                let members = &x[at * c + ch / g.group * g.group..][..g.group];
                                for (m, x) in members.iter().enumerate() {
                                    let filter = (ch * g.group + m) * g.kernel[0] + kh;
                                    sum += f64::from(*x) * f64::from(w[filter * g.kernel[1] + kw]);
                                }
                            }
                        }
                    }
                    sum += e.residual.map_or(0.0, |r| f64::from(r[y.len()]));
                    y.push(match e.activation {
                        Activation::None => sum,
                        Activation::Relu => sum.max(0.0),
                        Activation::Clamp(a, b) => sum.clamp(f64::from(a), f64::from(b)),
                        _ => sum / (1.0 + (-sum).exp()),
                    });
                }
            }
        }
    }
    y
}

#[test]
fn matches_reference() {
    let case = |c, h: usize, w: usize, kh, kw, s, d, p: usize| {
        let size = |i: usize, k: usize| (i + 2 * p).saturating_sub(d * (k - 1) + 1) / s + 1;
        Depthwise {
            channels: c,
            group: 1,
            input: [h, w],
            output: [size(h, kh), size(w, kw)],
            kernel: [kh, kw],
            stride: [s, s],
            dilation: [d, d],
            pads: [p, p],
        }
    };
    let table = [
        case(16, 5, 9, 3, 3, 1, 1, 1),
        case(40, 11, 23, 3, 3, 1, 1, 1),
        case(17, 12, 12, 3, 3, 2, 1, 1),
        case(3, 7, 7, 5, 5, 1, 1, 2),
        case(33, 14, 15, 5, 5, 2, 1, 2),
        case(8, 9, 20, 7, 7, 1, 1, 3),
        case(24, 9, 9, 3, 3, 1, 2, 2),
        case(5, 8, 8, 2, 4, 3, 1, 0),
        case(19, 1, 40, 1, 9, 1, 1, 0),
        case(16, 3, 3, 7, 7, 1, 1, 3),
        case(16, 1, 1, 3, 3, 1, 1, 1),
        case(1, 4, 4, 1, 1, 1, 1, 0),
        case(20, 16, 31, 7, 7, 2, 1, 3),
        case(18, 1, 101, 1, 3, 1, 16, 0),
        case(9, 2, 75, 3, 31, 1, 1, 1),
        case(20, 9, 40, 3, 3, 1, 4, 4),
        case(3, 1, 77, 1, 5, 3, 2, 0),
    ];
    let grouped = |group, case: Depthwise| Depthwise { group, ..case };
    let groups = [
        grouped(2, case(6, 5, 9, 3, 3, 1, 1, 1)),
        grouped(4, case(36, 11, 23, 3, 3, 1, 1, 1)),
        grouped(8, case(24, 12, 12, 3, 3, 2, 1, 1)),
        grouped(8, case(48, 1, 90, 1, 5, 1, 4, 0)),
        grouped(4, case(20, 9, 20, 5, 2, 2, 1, 2)),
        grouped(16, case(48, 7, 19, 3, 3, 1, 1, 1)),
        grouped(16, case(16, 1, 1, 1, 1, 1, 1, 0)),
    ];
    for isa in Isa::available() {
        let narrow = groups.iter().filter(|g| g.group <= isa.f32_lanes());
        for (k, g) in table.iter().chain(narrow).enumerate() {
            let n = 2;
            let x = values(n * g.input[0] * g.input[1] * g.channels, 1);
            let w = values(g.channels * g.group * g.kernel[0] * g.kernel[1], 2);
            let len = n * g.output[0] * g.output[1] * g.channels;
            let (bias, residual) = (values(g.channels, 3), values(len, 4));
            let mut packed = vec![f32::NAN; g.packed_len()];
            g.pack(&w, &mut packed);
            let acts = [
                Activation::None,
                Activation::Relu,
                Activation::Clamp(-0.5, 1.0),
                Activation::Silu,
            ];
            for (i, activation) in acts.into_iter().enumerate() {
                let e = Epilogue {
                    bias: (i != 1).then_some(&bias[..]),
                    residual: (i > 1).then_some(&residual[..]),
                    activation,
                };
                let mut y = vec![f32::NAN; len];
                let (out, items) = (Out::new(&mut y), g.items(n));
                depthwise_f32(isa, g, &x, &packed, &e, &out, 0..items / 2);
                depthwise_f32(isa, g, &x, &packed, &e, &out, items / 2..items);
                let r = reference(g, n, &x, &w, &e);
                assert_close(&y, &r, 2e-5, &format!("{isa} case {k} {activation:?}"));
            }
        }
    }
}

#[test]
fn empty_output_and_output_beyond_the_input() {
    for isa in Isa::available() {
        let mut g = Depthwise {
            channels: 4,
            group: 1,
            input: [2, 2],
            output: [0, 3],
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0, 0],
        };
        let packed = vec![1.0; g.packed_len()];
        let x = vec![1.0; 16];
        let e = Epilogue::default();
        depthwise_f32(isa, &g, &x, &packed, &e, &Out::new(&mut []), 0..g.items(1));
        g.output = [4, 4];
        let mut y = vec![9.0; 64];
        depthwise_f32(isa, &g, &x, &packed, &e, &Out::new(&mut y), 0..4);
        for i in 0..64 {
            let (r, c) = (i / 16, i / 4 % 4);
            let e = (2usize.saturating_sub(r) * 2usize.saturating_sub(c)) as f32;
            assert_eq!(y[i], e, "{isa} {i}");
        }
    }
}
