//! Transforms against the sum that defines them.

use rustfft::num_complex::Complex;

use super::*;
use crate::op::OpRules as _;

fn numbers(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    Tensor::from_vec(shape, (0..len).map(|i| (i as f64 * 1.7).sin() + i as f64 * 0.1).collect::<Vec<_>>())
        .expect("fits")
}

/// `Σ x[k] exp(±2πi jk / n)` of a line of `n` complex numbers.
fn defined(line: &[Complex<f64>], sign: f64) -> Vec<Complex<f64>> {
    let n = line.len() as f64;
    (0..line.len())
        .map(|j| {
            let turn = |k: usize| Complex::from_polar(1.0, sign * 2.0 * std::f64::consts::PI * (j * k) as f64 / n);
            line.iter().enumerate().map(|(k, x)| x * turn(k)).sum()
        })
        .collect()
}

fn assert_close(got: &Tensor, expected: &[f64]) {
    let got = got.to_f64_vec().expect("numbers");
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 1e-9, "{got:?} {expected:?}");
    }
}

#[test]
fn transforms_of_any_length_and_axis_are_the_sums_that_define_them() {
    for n in [1, 2, 3, 7, 8, 12, 97] {
        for (inverse, sign, scale) in [(false, -1.0, 1.0), (true, 1.0, 1.0 / n as f64)] {
            let x = numbers(&[2, n, 3, 2]);
            let values = x.to_f64_vec().expect("f64");
            let mut expected = vec![0.0; values.len()];
            let at = |o: usize, k: usize, i: usize| ((o * n + k) * 3 + i) * 2;
            for (o, i) in (0..2).flat_map(|o| (0..3).map(move |i| (o, i))) {
                let line: Vec<_> = (0..n).map(|k| Complex::new(values[at(o, k, i)], values[at(o, k, i) + 1])).collect();
                for (k, c) in defined(&line, sign).into_iter().enumerate() {
                    expected[at(o, k, i)] = c.re * scale;
                    expected[at(o, k, i) + 1] = c.im * scale;
                }
            }
            let op = FourierTransform { inverse, onesided: false };
            for axis in [1i64, -3] {
                let got = op.evaluate(&[x.clone(), Tensor::absent(), Tensor::scalar(axis)]).expect("valid");
                assert_close(&got[0], &expected);
            }
        }
    }
}

#[test]
fn half_spectra_go_back_to_the_real_signal() {
    for n in [1i64, 2, 5, 6, 11] {
        let x = numbers(&[2, n as usize, 1]);
        let forward = FourierTransform { inverse: false, onesided: true };
        let half = forward.evaluate(std::slice::from_ref(&x)).expect("valid").remove(0);
        assert_eq!(half.shape().to_vec(), [2, n as usize / 2 + 1, 2]);
        let back = FourierTransform { inverse: true, onesided: true };
        let got = back.evaluate(&[half, Tensor::scalar(n)]).expect("valid");
        assert_eq!(got[0].shape(), x.shape());
        assert_close(&got[0], &x.to_f64_vec().expect("f64"));
    }
}

#[test]
fn signals_are_cut_and_padded_to_the_length() {
    let x = numbers(&[1, 4, 1]);
    let short = FourierTransform::default().evaluate(&[x.clone(), Tensor::scalar(2i32)]).expect("valid");
    let v = x.to_f64_vec().expect("f64");
    assert_close(&short[0], &[v[0] + v[1], 0.0, v[0] - v[1], 0.0]);
    let long = FourierTransform::default().evaluate(&[x, Tensor::scalar(8i64)]).expect("valid");
    assert_eq!(long[0].shape().to_vec(), [1, 8, 2]);
    assert!((long[0].to_f64_vec().expect("f64")[0] - v.iter().sum::<f64>()).abs() < 1e-12);
}

#[test]
fn useless_lengths_and_axes_are_refused() {
    let x = numbers(&[1, 4, 1]);
    let op = FourierTransform::default();
    for bad in [Tensor::scalar(-1i64), Tensor::scalar(0i64 - i64::MAX), Tensor::from_i64s(&[1, 2])] {
        assert!(op.evaluate(&[x.clone(), bad]).is_err());
    }
    assert!(op.evaluate(&[x.clone(), Tensor::scalar(i64::MAX)]).is_err());
    assert!(op.evaluate(&[x, Tensor::absent(), Tensor::scalar(2i64)]).is_err());
    assert!(op.evaluate(&[numbers(&[1, 4, 3])]).is_err());
    let empty = op.evaluate(&[numbers(&[0, 4, 1])]).expect("empty");
    assert_eq!(empty[0].shape().to_vec(), [0, 4, 2]);
}

#[test]
fn transforms_over_several_axes_invert_each_other() {
    let x = numbers(&[3, 4, 5]);
    let axes = Tensor::from_i64s(&[0, -1]);
    let half = Rdft {}.evaluate(&[x.clone(), axes.clone()]).expect("valid").remove(0);
    assert_eq!(half.shape().to_vec(), [3, 4, 3, 2]);
    let got = Irdft {}.evaluate(&[half, axes, Tensor::from_i64s(&[-1, 5])]).expect("valid");
    assert_close(&got[0], &x.to_f64_vec().expect("f64"));
    let x = numbers(&[3, 4, 2]);
    let axes = Tensor::from_i64s(&[1, 0]);
    let spectrum = Dft {}.evaluate(&[x.clone(), axes.clone()]).expect("valid").remove(0);
    let got = Idft {}.evaluate(&[spectrum, axes]).expect("valid");
    assert_close(&got[0], &x.to_f64_vec().expect("f64"));
    assert!(Dft {}.evaluate(&[x, Tensor::from_i64s(&[0, -2])]).is_err());
}

#[test]
fn frames_are_windowed_and_transformed() {
    let x = numbers(&[2, 9, 1]);
    let window = Tensor::from_vec([4], vec![0.5, 1.0, 1.0, 0.25]).expect("fits");
    let op = ShortTimeFourierTransform { onesided: true };
    let got = op.evaluate(&[x.clone(), Tensor::scalar(3i64), window.clone()]).expect("valid").remove(0);
    assert_eq!(got.shape().to_vec(), [2, 2, 3, 2]);
    let (v, w) = (x.to_f64_vec().expect("f64"), window.to_f64_vec().expect("f64"));
    let line: Vec<_> = (0..4).map(|k| Complex::new(v[9 + 3 + k] * w[k], 0.0)).collect();
    let expected: Vec<f64> = defined(&line, -1.0)[..3].iter().flat_map(|c| [c.re, c.im]).collect();
    let last = Tensor::from_vec([6], got.to_f64_vec().expect("f64")[18..].to_vec()).expect("fits");
    assert_close(&last, &expected);
    assert!(op.evaluate(&[x.clone(), Tensor::scalar(0i64), window.clone()]).is_err());
    assert!(op.evaluate(&[x.clone(), Tensor::scalar(1i64), window, Tensor::scalar(5i64)]).is_err());
    let none = op.evaluate(&[x, Tensor::scalar(1i64), Tensor::absent(), Tensor::scalar(10i64)]).expect("no frame");
    assert_eq!(none[0].shape().to_vec(), [2, 0, 6, 2]);
}

#[test]
fn windows_are_symmetric_about_their_middle() {
    for function in [WindowFunction::Hann, WindowFunction::Hamming, WindowFunction::Blackman] {
        for len in [0i64, 1, 2, 5, 8] {
            let op = SignalWindow { function, periodic: false, output_type: ElementType::F64 };
            let w = op.evaluate(&[Tensor::scalar(len)]).expect("valid")[0].to_f64_vec().expect("f64");
            let mut reversed = w.clone();
            reversed.reverse();
            assert_close(&Tensor::from_vec([w.len()], reversed).expect("fits"), &w);
            if len % 2 == 1 {
                assert!((w[len as usize / 2] - 1.0).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn mel_bands_peak_at_one_and_ignore_bins_outside() {
    let inputs = |high: f32| {
        [Tensor::scalar(8i64), Tensor::scalar(64i64), Tensor::scalar(8192i64), Tensor::scalar(0f32), Tensor::scalar(high)]
    };
    let op = MelWeightMatrix { output_type: ElementType::F64 };
    let m = op.evaluate(&inputs(4096.0)).expect("valid").remove(0);
    assert_eq!(m.shape().to_vec(), [33, 8]);
    let v = m.to_f64_vec().expect("f64");
    for band in 0..8 {
        let peak = (0..33).map(|bin| v[bin * 8 + band]).fold(0.0, f64::max);
        assert_eq!(peak, 1.0);
    }
    assert!(op.evaluate(&inputs(1e9)).is_ok());
    assert!(op.evaluate(&inputs(f32::NAN)).is_err());
}
