//! Products of bytes against plain sums, on every instruction set.

use super::tile::{ByteTile, ByteTiles};
use super::{ByteFinish, ByteLayout, Sums, Target, sum_bytes};
use crate::gemm::ResidualPlace;
use crate::gemm::tile::{MAX_COLS, MAX_ROWS};
use crate::kernels::testing::bytes;
use crate::simd::Isa;
use crate::simd::activation::Activation;

#[test]
fn every_tile_gives_exact_sums() {
    for isa in Isa::available() {
        for (k, n) in [(1, 1), (4, 8), (7, 16), (33, 31), (64, 48), (5, 33), (260, 17), (0, 3)] {
            let layout = ByteLayout::new(isa, k, n);
            // The extremes come up, where sixteen bits would saturate.
            let w: Vec<i32> = bytes(k * n, 3)
                .iter()
                .map(|b| if b % 3 == 0 { 127 } else { i32::from(*b as i8) })
                .collect();
            let (mut packed, mut sums) = (vec![0; layout.len()], vec![0; n]);
            layout.pack(
                |j, column| column.iter_mut().enumerate().for_each(|(i, v)| *v = w[i * n + j]),
                &mut packed,
                &mut sums,
                &mut [],
            );
            for (j, sum) in sums.iter().enumerate() {
                assert_eq!(*sum, (0..k).map(|i| w[i * n + j]).sum::<i32>());
            }
            let panels = layout.panels();
            for tiles in ByteTiles::all_of(isa) {
                for rows in 1..=tiles.of_width(panels.panel(0).width).len() {
                    let row_len = layout.row_len();
                    let mut a: Vec<u8> =
                        bytes(rows * row_len, 9).iter().map(|b| b | 0x80).collect();
                    a.extend([0; 4]);
                    let pointers: Vec<*const u8> =
                        (0..rows).map(|r| a[r * row_len..].as_ptr()).collect();
                    for p in panels.all_panels() {
                        let panel = panels.panel(p);
                        let mut out = Sums([7; MAX_ROWS * MAX_COLS]);
                        let tile = ByteTile {
                            a: pointers.as_ptr(),
                            segments: 1,
                            groups: row_len / 4,
                            b: packed[panel.offset * 4..].as_ptr(),
                            sums: out.0.as_mut_ptr(),
                        };
                        // SAFETY: rows and panel have whole groups, and the buffer fits the largest tile.
                        unsafe { tiles.of_width(panel.width)[rows - 1](&tile) };
                        for r in 0..rows {
                            for j in 0..panel.cols {
                                let expected: i32 = (0..k)
                                    .map(|i| {
                                        i32::from(a[r * row_len + i]) * w[i * n + panel.col + j]
                                    })
                                    .sum();
                                let got = out.0[r * MAX_COLS + j];
                                assert_eq!(got, expected, "{isa} {k}x{n} {rows} rows, {r} {j}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_are_summed() {
    for isa in Isa::available() {
        for len in [0, 1, 31, 32, 33, 100, 1000] {
            let x = bytes(len, 5);
            let expected: i32 = x.iter().map(|b| i32::from(*b)).sum();
            // SAFETY: the slice has that many bytes.
            assert_eq!(unsafe { sum_bytes(isa, x.as_ptr(), len) }, expected, "{isa} {len}");
        }
    }
}

#[test]
fn sums_are_finished_in_the_order_that_is_asked_for() {
    let n = 19;
    let mut sums = Sums([0; MAX_ROWS * MAX_COLS]);
    for (i, s) in sums.0.iter_mut().enumerate() {
        *s = (i as i32 * 37) % 201 - 100;
    }
    let columns: Vec<i32> = (0..n).map(|i| i as i32 - 3).collect();
    let shifts: Vec<i32> = (0..n).map(|i| i as i32 % 5 - 2).collect();
    let row_sums = [11, -4, 7];
    let scale: Vec<f32> = (0..n).map(|i| 0.5f32.powi(i as i32 % 4)).collect();
    let bias: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 4.0).collect();
    let residual: Vec<f32> = (0..3 * n).map(|i| (i % 7) as f32 - 3.0).collect();
    for isa in Isa::available() {
        for after in [false, true] {
            let (mut f, mut u, mut i) = (vec![0f32; 3 * n], vec![0u8; 3 * n], vec![0i8; 3 * n]);
            let expected: Vec<f32> = (0..3 * n)
                .map(|at| {
                    let (r, j) = (at / n, at % n);
                    let sum = sums.0[r * MAX_COLS + j] - 6 * columns[j] + shifts[j] * row_sums[r];
                    let x = sum as f32 * scale[j] + bias[j];
                    if after { x.max(0.0) + residual[at] } else { (x + residual[at]).max(0.0) }
                })
                .collect();
            let targets = [
                Target::F32(f.as_mut_ptr()),
                Target::U8 { c: u.as_mut_ptr(), scale: 2.0, zero: 100.0 },
                Target::I8 { c: i.as_mut_ptr(), scale: 2.0, zero: -100.0 },
            ];
            for target in targets {
                let finish = ByteFinish {
                    isa,
                    row_zero: 6,
                    column_sums: columns.as_ptr(),
                    shifts: shifts.as_ptr(),
                    floats: false,
                    scale: scale.as_ptr(),
                    scale_step: 1,
                    bias: bias.as_ptr(),
                    residual: residual.as_ptr(),
                    place: if after {
                        ResidualPlace::AfterActivation
                    } else {
                        ResidualPlace::BeforeActivation
                    },
                    activation: Activation::Relu,
                    stride: n,
                    target,
                };
                // SAFETY: every slice has an element for each of three rows and n columns.
                unsafe { finish.store(&sums, 3, n, 0, 0, row_sums.as_ptr()) };
            }
            assert_eq!(f, expected, "{isa}");
            for at in 0..3 * n {
                let q = (expected[at] * 2.0).round_ties_even();
                assert_eq!(f32::from(u[at]), (q + 100.0).clamp(0.0, 255.0), "{isa} {at}");
                assert_eq!(f32::from(i[at]), (q - 100.0).clamp(-128.0, 127.0), "{isa} {at}");
            }
        }
    }
}

#[test]
fn rows_and_columns_pack_alike() {
    for isa in Isa::available() {
        for (k, n) in [(1, 1), (4, 8), (7, 16), (33, 31), (64, 48), (5, 113), (0, 3)] {
            let layout = ByteLayout::new(isa, k, n);
            // Columns of unsigned bytes less a zero point of their own: some need a shift, some do not.
            let weights: Vec<i32> = bytes(k * n, 5)
                .iter()
                .enumerate()
                .map(|(i, b)| i32::from(*b) - if (i % n) % 2 == 0 { 128 } else { 90 })
                .collect();
            let pack = |by_rows: bool| {
                let (mut out, mut sums, mut shifts) =
                    (vec![9; layout.len()], vec![9; n], vec![9; n]);
                if by_rows {
                    let row = |i: usize, columns: std::ops::Range<usize>, line: &mut [i32]| {
                        line.copy_from_slice(&weights[i * n..][columns]);
                    };
                    layout.pack_rows(row, &mut out, &mut sums, &mut shifts);
                } else {
                    let column = |j: usize, column: &mut [i32]| {
                        column.iter_mut().enumerate().for_each(|(i, v)| *v = weights[i * n + j]);
                    };
                    layout.pack(column, &mut out, &mut sums, &mut shifts);
                }
                (out, sums, shifts)
            };
            assert_eq!(pack(true), pack(false), "{isa} {k} {n}");
        }
    }
}
