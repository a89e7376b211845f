//! Strided copies against element-by-element indexing.

use super::*;

fn run_both_halves(plan: &CopyPlan, isa: Isa, src: &[u8], so: usize, dst: &mut [u8], d: usize) {
    let (out, items) = (Out::new(dst), plan.items());
    plan.run(isa, src, so, &out, d, 0..items / 3);
    plan.run(isa, src, so, &out, d, items / 3..items);
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn transposes_match_indexing() {
    let table: [(&[usize], &[usize]); 14] = [
        (&[17, 33], &[1, 0]),
        (&[16, 16], &[1, 0]),
        (&[48, 5], &[1, 0]),
        (&[5, 48], &[1, 0]),
        (&[2, 19, 7, 9], &[0, 2, 3, 1]),
        (&[2, 7, 9, 19], &[0, 3, 1, 2]),
        (&[2, 3, 4, 8], &[0, 2, 1, 3]),
        (&[2, 3, 4, 5, 6], &[4, 3, 2, 1, 0]),
        (&[3, 4, 5], &[0, 1, 2]),
        (&[3, 1, 5, 1], &[3, 2, 1, 0]),
        (&[], &[]),
        (&[1], &[0]),
        (&[4, 0, 3], &[2, 1, 0]),
        (&[40, 24], &[1, 0]),
    ];
    for isa in Isa::available() {
        for size in [1, 2, 4, 8] {
            for (shape, axes) in table {
                let n: usize = shape.iter().product();
                let x = bytes(n * size);
                let mut y = vec![0; n * size];
                let plan = CopyPlan::transpose(shape, axes, size).expect("valid");
                run_both_halves(&plan, isa, &x, 0, &mut y, 0);
                let strides = dense_strides(shape).expect("small");
                for o in 0..n {
                    let (mut rest, mut from) = (o, 0);
                    for i in (0..axes.len()).rev() {
                        from += rest % shape[axes[i]] * strides[axes[i]] as usize;
                        rest /= shape[axes[i]];
                    }
                    let (e, f) = (&y[o * size..][..size], &x[from * size..][..size]);
                    assert_eq!(e, f, "{isa} {size} {shape:?} {axes:?} element {o}");
                }
            }
        }
    }
}

#[test]
fn slices_reverses_tiles_and_concatenates() {
    for isa in Isa::available() {
        let x: Vec<u8> = (0..60).collect();
        let reverse = CopyPlan::new(&[3, 5], &[20, -2], &[5, 1], 1).expect("valid");
        let mut y = vec![0; 15];
        run_both_halves(&reverse, isa, &x, 9, &mut y, 0);
        let e: Vec<u8> = (0..3).flat_map(|i| (0..5).map(move |j| i * 20 + 9 - 2 * j)).collect();
        assert_eq!(y, e, "{isa}");

        let tile = CopyPlan::new(&[2, 3, 2, 4], &[0, 4, 0, 1], &[24, 8, 4, 1], 1).expect("valid");
        let mut y = vec![0; 48];
        run_both_halves(&tile, isa, &x, 0, &mut y, 0);
        for i in 0..48 {
            assert_eq!(y[i], (i / 8 % 3 * 4 + i % 4) as u8, "{isa}");
        }

        let spread = CopyPlan::new(&[4, 3], &[1, 0], &[3, 1], 4).expect("valid");
        let mut y = vec![0; 48];
        run_both_halves(&spread, isa, &x, 0, &mut y, 0);
        for i in 0..12 {
            assert_eq!(y[4 * i..4 * i + 4], x[i / 3 * 4..i / 3 * 4 + 4], "{isa}");
        }

        let mut y = vec![0; 5 * 7];
        let left = CopyPlan::new(&[5, 3], &[3, 1], &[7, 1], 1).expect("valid");
        let right = CopyPlan::new(&[5, 4], &[4, 1], &[7, 1], 1).expect("valid");
        run_both_halves(&left, isa, &x, 0, &mut y, 0);
        run_both_halves(&right, isa, &x, 20, &mut y, 3);
        for i in 0..35 {
            let (r, c) = (i / 7, i % 7);
            let e = if c < 3 { r * 3 + c } else { 20 + r * 4 + c - 3 };
            assert_eq!(y[i], e as u8, "{isa}");
        }
    }
}

#[test]
fn rejects_bad_arguments() {
    assert_eq!(CopyPlan::transpose(&[2, 3], &[0, 0], 4), Err(CopyError::Permutation(2)));
    assert_eq!(CopyPlan::transpose(&[2, 3], &[0], 4), Err(CopyError::Permutation(2)));
    assert_eq!(CopyPlan::transpose(&[2, 3], &[0, 2], 4), Err(CopyError::Permutation(2)));
    assert_eq!(CopyPlan::new(&[2], &[1], &[1], 3), Err(CopyError::ElementSize(3)));
    assert_eq!(CopyPlan::new(&[2], &[1], &[], 4), Err(CopyError::Rank(1, 1, 0)));
    assert_eq!(CopyPlan::new(&[3], &[isize::MAX], &[1], 1), Err(CopyError::TooLarge));
}

#[test]
#[should_panic(expected = "source shorter")]
fn stops_before_reading_outside() {
    let plan = CopyPlan::new(&[4], &[2], &[1], 4).expect("valid");
    let (x, mut y) = (vec![0; 24], vec![0; 16]);
    plan.run(Isa::PORTABLE, &x, 0, &Out::new(&mut y), 0, 0..plan.items());
}
