//! Tests of the convolution family.

use super::*;

fn ramp(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| ((i * 7) % 11) as f32 - 5.0).collect::<Vec<_>>();
    Tensor::from_vec(shape, values).expect("fits")
}

#[test]
fn rows_sum_what_the_definition_says() {
    let (x, w) = (ramp(&[2, 2, 5, 4]), ramp(&[3, 2, 3, 2]));
    let op = Convolution {
        strides: vec![2, 1],
        dilations: vec![1, 2],
        pads_begin: vec![1, 0],
        pads_end: vec![0, 3],
        auto_pad: AutoPad::Explicit,
    };
    let y = op.evaluate(&[x.clone(), w.clone()]).expect("valid").remove(0);
    assert_eq!(y.shape().to_vec(), [2, 3, 2, 5]);
    let (x, w, y) = (
        x.view::<f32>().expect("f32"),
        w.view::<f32>().expect("f32"),
        y.view::<f32>().expect("f32"),
    );
    for ((n, o, i, j), v) in y.indexed_iter().map(|(ix, v)| ((ix[0], ix[1], ix[2], ix[3]), v)) {
        let mut sum = 0.0;
        for c in 0..2 {
            for (a, b) in (0..3).flat_map(|a| (0..2).map(move |b| (a, b))) {
                let (row, column) = ((2 * i + a).wrapping_sub(1), j + 2 * b);
                sum += x.get([n, c, row, column].as_slice()).unwrap_or(&0.0) * w[[o, c, a, b]];
            }
        }
        assert_eq!(*v, sum, "{n} {o} {i} {j}");
    }
}

#[test]
fn groups_and_integers() {
    let x = Tensor::from_vec([1, 2, 3], vec![1i32, 2, 3, 4, 5, 6]).expect("fits");
    let w = Tensor::from_vec([2, 1, 1, 2], vec![1i32, 1, 1, -1]).expect("fits");
    let y = GroupConvolution::default().evaluate(&[x.clone(), w.clone()]).expect("valid");
    assert_eq!(y[0].to_i64_vec().expect("i32"), [3, 5, -1, -1]);
    let back = GroupConvolutionBackpropData::default().evaluate(&[x, w]).expect("valid");
    assert_eq!(back[0].to_i64_vec().expect("i32"), [1, 3, 5, 3, 4, 1, 1, -6]);
}

#[test]
fn the_transpose_has_the_adjoint_s_shape_and_sum() {
    for (stride, pads, added, extent) in [(1, (0, 0), 0, 5), (2, (1, 0), 1, 7), (3, (1, 2), 2, 8)] {
        let op = ConvolutionBackpropData {
            strides: vec![stride],
            pads_begin: vec![pads.0],
            pads_end: vec![pads.1],
            output_padding: vec![added],
            ..ConvolutionBackpropData::default()
        };
        let y = op.evaluate(&[ramp(&[1, 2, 3]), ramp(&[2, 1, 3])]).expect("valid");
        assert_eq!(y[0].shape()[2], extent, "stride {stride}");
    }
    let op = ConvolutionBackpropData { pads_begin: vec![9], ..ConvolutionBackpropData::default() };
    assert!(op.evaluate(&[ramp(&[1, 1, 2]), ramp(&[1, 1, 3])]).is_err());
}

#[test]
fn empty_batches_give_empty_results_and_misfits_are_refused() {
    let w = ramp(&[3, 2, 3]);
    let y = Convolution::default().evaluate(&[ramp(&[0, 2, 5]), w.clone()]).expect("valid");
    assert_eq!(y[0].shape().to_vec(), [0, 3, 3]);
    for data in [&[1, 3, 5][..], &[1, 2, 2], &[1, 2], &[1, 2, 5, 5]] {
        assert!(Convolution::default().evaluate(&[ramp(data), w.clone()]).is_err(), "{data:?}");
    }
}
