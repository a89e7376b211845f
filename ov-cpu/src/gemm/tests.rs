//! Products against f64 over the tails of every tile.

use super::{
    BView, Epilogue, Gemm, PackedLayout, Partition, Residual, ResidualPlace, balanced, multiply,
    pack, run, run_unpacked, unpacked_scratch_len,
};
use crate::simd::Isa;
use crate::simd::activation::{Activation, apply_slice};

/// Numbers in [-1, 1) from a linear congruential generator.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn product(m: usize, n: usize, k: usize, a: &[f32], lda: usize, b: BView<'_>) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k)
                .map(|l| {
                    f64::from(a[i * lda + l])
                        * f64::from(b.data[l * b.row_stride + j * b.col_stride])
                })
                .sum();
        }
    }
    c
}

fn assert_close(name: &str, got: f32, want: f64, k: usize) {
    let tolerance = 1e-6 * (1.0 + (k as f64).sqrt()) + 1e-6 * want.abs();
    assert!((f64::from(got) - want).abs() <= tolerance, "{name}: {got}, want {want}");
}

fn shapes() -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    for m in (0..=14).chain([23, 25, 37]) {
        for (n, k) in [
            (1, 3),
            (8, 1),
            (16, 7),
            (17, 5),
            (31, 4),
            (32, 9),
            (33, 0),
            (48, 6),
            (50, 13),
            (96, 2),
            (97, 3),
        ] {
            all.push((m, n, k));
        }
    }
    all.extend([(0, 5, 3), (5, 0, 3), (0, 0, 0), (1, 129, 257), (4, 64, 300), (13, 70, 129)]);
    all
}

#[test]
fn packed_products_match_f64_with_any_strides() {
    for isa in Isa::available() {
        for (m, n, k) in shapes() {
            let (lda, ldc) = (k + 3, n + 5);
            let (a, b) = (noise(m * lda, 1), noise(k * n, 2));
            for view in [BView::row_major(&b, n), BView::transposed(&b, k)] {
                let layout = PackedLayout::new(isa, k, n);
                let mut packed = vec![f32::NAN; layout.len()];
                pack(isa, layout, view, &mut packed);
                let mut c = vec![7.0; m * ldc];
                multiply(isa, m, &a, lda, layout, &packed, &mut c, ldc, None, Activation::None);
                let want = product(m, n, k, &a, lda, view);
                for i in 0..m {
                    for j in 0..n {
                        assert_close(
                            &format!("{isa} {m}x{n}x{k} ({i}, {j})"),
                            c[i * ldc + j],
                            want[i * n + j],
                            k,
                        );
                    }
                    assert!(
                        c[i * ldc + n..(i + 1) * ldc].iter().all(|x| *x == 7.0),
                        "{isa} {m}x{n}x{k} row {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn unpacked_products_match_packed_ones() {
    for isa in Isa::available() {
        for (m, n, k) in shapes() {
            let (a, b) = (noise(m * k, 3), noise(2 * k * n + 1, 4));
            let views = [
                BView { data: &b, row_stride: 2 * n, col_stride: 1 },
                BView { data: &b, row_stride: 1, col_stride: 2 * k },
                BView { data: &b, row_stride: 2 * n, col_stride: 2 },
            ];
            for view in views {
                let layout = PackedLayout::new(isa, k, n);
                let mut scratch = vec![f32::NAN; unpacked_scratch_len(layout)];
                let mut c = vec![0.0; m * n];
                let epilogue = Epilogue::default();
                let g = Gemm {
                    m,
                    a: a.as_ptr(),
                    a_stride: k,
                    layout,
                    b: &[],
                    c: c.as_mut_ptr(),
                    c_stride: n,
                    bf16_pairs: false,
                    epilogue,
                };
                // SAFETY: the vectors cover the matrices.
                unsafe { run_unpacked(isa, &g, view, &mut scratch, 0..m, layout.all_panels()) };
                let want = product(m, n, k, &a, k, view);
                for (got, want) in c.iter().zip(want) {
                    assert_close(&format!("{isa} {m}x{n}x{k}"), *got, want, k);
                }
            }
        }
    }
}

#[test]
fn epilogues_apply_in_the_given_order() {
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::Clamp(-0.5, 0.25),
        Activation::Silu,
        Activation::GeluErf,
    ];
    for isa in Isa::available() {
        for (m, n, k) in [(1, 40, 8), (13, 33, 5), (12, 32, 4), (5, 7, 0), (9, 48, 3)] {
            let (a, b, bias, res) =
                (noise(m * k, 5), noise(k * n, 6), noise(n, 7), noise(m * (n + 2), 8));
            let layout = PackedLayout::new(isa, k, n);
            let mut packed = vec![0.0; layout.len()];
            pack(isa, layout, BView::row_major(&b, n), &mut packed);
            let plain = product(m, n, k, &a, k, BView::row_major(&b, n));
            for activation in activations {
                for place in [
                    None,
                    Some(ResidualPlace::BeforeActivation),
                    Some(ResidualPlace::AfterActivation),
                ] {
                    for in_place in [false, true] {
                        let mut c = res.clone();
                        let data = if in_place { c.as_ptr() } else { res.as_ptr() };
                        let residual = place.map(|place| Residual { data, stride: n + 2, place });
                        let epilogue = Epilogue { bias: Some(&bias), residual, activation };
                        let g = Gemm {
                            m,
                            a: a.as_ptr(),
                            a_stride: k,
                            layout,
                            b: &packed,
                            c: c.as_mut_ptr(),
                            c_stride: n + 2,
                            bf16_pairs: false,
                            epilogue,
                        };
                        // SAFETY: the vectors cover the matrices; the residual may alias C.
                        unsafe { run(isa, &g, 0..m, layout.all_panels()) };
                        for i in 0..m {
                            for j in 0..n {
                                let r = f64::from(res[i * (n + 2) + j]);
                                let x = plain[i * n + j] + f64::from(bias[j]);
                                let act = |x: f64| {
                                    let mut y = [x as f32];
                                    apply_slice(Isa::PORTABLE, activation, &mut y);
                                    f64::from(y[0])
                                };
                                let want = match place {
                                    None => act(x),
                                    Some(ResidualPlace::BeforeActivation) => act(x + r),
                                    Some(ResidualPlace::AfterActivation) => act(x) + r,
                                };
                                let name = format!("{isa} {m}x{n}x{k} {activation:?} {place:?}");
                                assert_close(&name, c[i * (n + 2) + j], want, k);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn parts_cover_every_row_and_panel_once() {
    for isa in Isa::available() {
        for (m, n, k) in shapes() {
            for threads in [1, 2, 3, 8] {
                let layout = PackedLayout::new(isa, k, n);
                let partition = Partition::new(m, layout, threads);
                assert!(partition.parts() <= threads);
                let mut seen = vec![0; m * layout.panels()];
                for i in 0..threads {
                    let (rows, panels) = partition.part(i);
                    for r in rows {
                        for p in panels.clone() {
                            seen[r * layout.panels() + p] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|s| *s == 1), "{isa} {m}x{n}x{k} on {threads}: {seen:?}");
            }
        }
    }
}

#[test]
fn pieces_are_balanced() {
    for (n, max) in [(0, 12), (1, 12), (12, 12), (13, 12), (49, 12), (100, 9)] {
        let pieces: Vec<_> = balanced(5..5 + n, max).collect();
        let mut next = 5;
        for (row, height) in &pieces {
            assert_eq!(*row, next);
            assert!((1..=max).contains(height));
            next += height;
        }
        assert_eq!(next, 5 + n);
        assert_eq!(pieces.len(), n.div_ceil(max));
    }
}

#[test]
fn layouts_survive_storage_and_reject_others() {
    for isa in Isa::available() {
        for (_, n, k) in shapes() {
            let layout = PackedLayout::new(isa, k, n);
            let words = layout.to_words();
            assert_eq!(PackedLayout::from_words(isa, words), Some(layout));
            assert_eq!(
                PackedLayout::from_words(isa, [words[0], words[1], words[2] + 8, words[3]]),
                None
            );
            assert_eq!(
                PackedLayout::from_words(isa, [words[0], words[1], words[2], words[3] + 8]),
                None
            );
        }
        assert_eq!(PackedLayout::from_words(isa, [u32::MAX, u32::MAX, 32, 32]), None);
        assert_eq!(PackedLayout::from_words(isa, [1, 1, 0, 0]), None);
    }
}
