//! Grids, regions, boxes and images.

use super::*;
use crate::{
    ElementType, Tensor,
    op::OpRules as _,
};

fn f32s(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64s::<f32>(shape, values).expect("fits")
}

fn run(op: &dyn crate::op::Op, inputs: &[Tensor]) -> Vec<f64> {
    op.evaluate(inputs).expect("valid")[0].to_f64_vec().expect("numbers")
}

#[test]
fn the_identity_map_gives_pixel_centres() {
    let theta = f32s(&[1, 2, 3], &[1., 0., 0., 0., 1., 0.]);
    let size = Tensor::from_i64s(&[1, 1, 2, 3]);
    let third = 2.0 / 3.0;
    for (align_corners, x, y) in [(true, [-1., 0., 1.], [-1., 1.]), (false, [-third, 0., third], [-0.5, 0.5])] {
        let got = run(&AffineGrid { align_corners }, &[theta.clone(), size.clone()]);
        let expected: Vec<f64> = y.iter().flat_map(|y| x.iter().flat_map(move |x| [*x, *y])).collect();
        assert!(got.iter().zip(&expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?}");
    }
    let theta = f32s(&[2, 3, 4], &[0.5; 24]);
    let op = AffineGrid { align_corners: false };
    let got = op.evaluate(&[theta.clone(), Tensor::from_i64s(&[2, 1, 2, 1, 3])]).expect("3-D");
    assert_eq!(got[0].shape().to_vec(), [2, 2, 1, 3, 3]);
    assert!(op.evaluate(&[theta.clone(), Tensor::from_i64s(&[2, 1, 2, 3])]).is_err());
    assert!(op.evaluate(&[theta, Tensor::from_i64s(&[2, 1, -1, 1, 3])]).is_err());
}

#[test]
fn sampling_at_pixel_centres_gives_the_pixels() {
    let pixels: Vec<f64> = (0..12).map(|v| f64::from(v * v)).collect();
    let data = f32s(&[1, 2, 2, 3], &pixels);
    let theta = f32s(&[1, 2, 3], &[1., 0., 0., 0., 1., 0.]);
    for align_corners in [false, true] {
        let size = Tensor::from_i64s(&[1, 2, 2, 3]);
        let grid = AffineGrid { align_corners }.evaluate(&[theta.clone(), size]).expect("valid").remove(0);
        for mode in [GridMode::Bilinear, GridMode::Bicubic, GridMode::Nearest] {
            for padding_mode in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
                let op = GridSample { align_corners, mode, padding_mode };
                let got = run(&op, &[data.clone(), grid.clone()]);
                assert!(got.iter().zip(&pixels).all(|(g, e)| (g - e).abs() < 1e-3), "{op:?} {got:?}");
            }
        }
    }
}

#[test]
fn positions_outside_follow_the_padding() {
    let data = f32s(&[1, 1, 4], &[1., 2., 3., 4.]);
    // Places -1.5, 4.5 and far away among the pixels.
    let grid = f32s(&[1, 4, 1], &[-1.5, 1.5, 1e30, f64::NAN]);
    for (padding_mode, expected) in [
        (GridPadding::Zeros, [0., 0., 0., 0.]),
        (GridPadding::Border, [1., 4., 4., 1.]),
        (GridPadding::Reflection, [1.5, 3.5, f64::NAN, f64::NAN]),
    ] {
        let op = GridSample { padding_mode, ..GridSample::default() };
        let got = run(&op, &[data.clone(), grid.clone()]);
        for (g, e) in got.iter().zip(expected).filter(|(_, e)| !e.is_nan()) {
            assert!((g - e).abs() < 1e-6, "{padding_mode} {got:?}");
        }
        assert!(got.iter().all(|v| (0.0..=4.0).contains(v)));
    }
}

#[test]
fn every_type_is_sampled() {
    let grid = f32s(&[1, 2, 1], &[-0.5, 0.5]);
    for ty in [ElementType::I8, ElementType::U64, ElementType::F16, ElementType::Bf16, ElementType::F64, ElementType::Boolean] {
        let data = f32s(&[1, 1, 2], &[0., 1.]).cast(ty).expect("native");
        for mode in [GridMode::Bilinear, GridMode::Nearest] {
            let op = GridSample { mode, ..GridSample::default() };
            let got = op.evaluate(&[data.clone(), grid.clone()]).expect("valid");
            assert_eq!((got[0].element_type(), got[0].to_f64_vec().expect("numbers")), (ty, vec![0., 1.]));
        }
    }
    let texts = Tensor::from_strings([1, 1, 2], vec!["a".to_owned(), "b".to_owned()]).expect("fits");
    let op = GridSample { mode: GridMode::Nearest, ..GridSample::default() };
    assert_eq!(op.evaluate(&[texts.clone(), grid.clone()]).expect("valid")[0], texts);
    let numbers = Tensor::from_bytes(ElementType::Complex64, [1, 1, 2], bytemuck::cast_slice(&[1f32, 2., 3., 4.]));
    let numbers = numbers.expect("fits");
    assert_eq!(GridSample::default().evaluate(&[numbers.clone(), grid]).expect("valid")[0], numbers);
    let none = op.evaluate(&[texts, Tensor::zeros(ElementType::F32, [1, 0, 1]).expect("empty")]);
    assert_eq!(none.expect("empty")[0].shape().to_vec(), [1, 1, 0]);
}

#[test]
fn regions_are_cut_into_bins() {
    let data = f32s(&[1, 1, 4, 4], &(0..16).map(f64::from).collect::<Vec<_>>());
    let op = RoiAlign { pooled_h: 2, pooled_w: 2, sampling_ratio: 1, aligned_mode: AlignMode::HalfPixel, ..RoiAlign::default() };
    let inputs = |r: &[f64], i: i64| [data.clone(), f32s(&[r.len() / 4, 4], r), Tensor::from_i64s(&[i])];
    assert_eq!(run(&op, &inputs(&[0., 0., 4., 4.], 0)), [2.5, 4.5, 10.5, 12.5]);
    assert_eq!(run(&op, &inputs(&[100., 100., 104., 104.], 0)), [0.; 4]);
    assert!(op.evaluate(&inputs(&[0., 0., 4., 4.], 1)).is_err());
    assert!(op.evaluate(&inputs(&[0., 0., 4., f64::NAN], 0)).is_err());
    let adaptive = RoiAlign { sampling_ratio: 0, ..op };
    assert!(adaptive.evaluate(&inputs(&[0., 0., 1e30, 1e30], 0)).is_err());
    let pool = RoiPooling { pooled_h: 2, pooled_w: 2, ..RoiPooling::default() };
    assert_eq!(run(&pool, &[data.clone(), f32s(&[1, 5], &[0., 0., 0., 3., 3.])]), [5., 7., 13., 15.]);
    assert_eq!(run(&pool, &[data.clone(), f32s(&[1, 5], &[0., 9., 9., 9., 9.])]), [0.; 4]);
    let bilinear = RoiPooling { method: RoiPoolingMethod::Bilinear, ..pool };
    assert_eq!(run(&bilinear, &[data, f32s(&[1, 5], &[0., 0., 0., 1., 1.])]), [0., 3., 12., 15.]);
}

#[test]
fn overlapping_boxes_are_suppressed() {
    let boxes = f32s(&[1, 3, 4], &[0., 0., 1., 1., 1., 1., 0., 0.1, 0., 2., 1., 3.]);
    let scores = f32s(&[1, 1, 3], &[0.9, 0.75, 0.6]);
    let scalar = |v: f32| Tensor::scalar(v);
    let op = NonMaxSuppression { sort_result_descending: false, ..NonMaxSuppression::default() };
    let chosen = |most: i64, overlap: f32, score: f32| {
        run(&op, &[boxes.clone(), scores.clone(), Tensor::scalar(most), scalar(overlap), scalar(score)])
    };
    assert_eq!(chosen(3, 0.5, 0.0), [0., 0., 0., 0., 0., 2.]);
    assert_eq!(chosen(3, 0.95, 0.0), [0., 0., 0., 0., 0., 1., 0., 0., 2.]);
    assert_eq!(chosen(3, 0.5, 0.6), [0., 0., 0.]);
    assert_eq!(chosen(1, 0.5, 0.0), [0., 0., 0.]);
    assert_eq!(chosen(0, 0.5, 0.0), [0.; 0]);
    let soft = op.evaluate(&[boxes.clone(), scores.clone(), Tensor::scalar(3i64), scalar(0.), scalar(0.), scalar(0.5)]);
    let soft = soft.expect("valid");
    assert_eq!(soft[0].to_i64_vec().expect("i64"), [0, 0, 0, 0, 0, 2, 0, 0, 1]);
    assert!(soft[1].to_f64_vec().expect("f32")[8] < 0.4);
    assert_eq!(soft[2].to_i64_vec().expect("i64"), [3]);
    assert!(op.evaluate(&[boxes, f32s(&[1, 1, 2], &[0., 0.])]).is_err());
}

#[test]
fn image_files_are_decoded_in_every_pixel_format() {
    let ppm = |bytes: &[u8]| Tensor::from_vec([bytes.len()], bytes.to_vec()).expect("fits");
    let file = ppm(b"P6\n2 1\n255\n\x01\x02\x03\xff\x00\x80");
    for (pixel_format, expected) in [
        (PixelFormat::Rgb, vec![1., 2., 3., 255., 0., 128.]),
        (PixelFormat::Bgr, vec![3., 2., 1., 128., 0., 255.]),
        (PixelFormat::Grayscale, vec![2., 91.]),
    ] {
        let op = ImageDecoder { pixel_format };
        let got = op.evaluate(std::slice::from_ref(&file)).expect("valid");
        assert_eq!(got[0].shape().to_vec(), [1, 2, expected.len() / 2]);
        assert_eq!(got[0].to_f64_vec().expect("u8"), expected);
    }
    for bytes in [&b""[..], b"P6\n2 1\n255\n\x01", b"P6\n60000 60000\n255\n", b"\xff\xd8\xff\xe0", b"\xff\x4f\xff\x51\x00\x2f"] {
        let got = ImageDecoder::default().evaluate(&[ppm(bytes)]).expect("no error");
        assert_eq!(got[0].shape().to_vec(), [0, 0, 3], "{bytes:?}");
    }
}

/// A progressive JPEG of 5 × 7 pixels whose chroma has half as many samples along each axis.
const JPEG: &[u8] = include_bytes!("jpeg/progressive_420.jpg");

#[test]
fn jpeg_is_decoded_to_the_last_bit_of_libjpeg_turbo() {
    let file = Tensor::from_vec([JPEG.len()], JPEG.to_vec()).expect("fits");
    let got = ImageDecoder::default().evaluate(&[file]).expect("valid").remove(0);
    assert_eq!(got.shape().to_vec(), [7, 5, 3]);
    assert_eq!(got.bytes(), include_bytes!("jpeg/progressive_420.rgb"));
}

#[test]
fn damaged_jpeg_files_are_no_images_and_no_trouble() {
    for at in 0..JPEG.len() {
        let mut bytes = JPEG.to_vec();
        bytes[at] ^= 0x55;
        for bytes in [&bytes[..], &JPEG[..at]] {
            let file = Tensor::from_vec([bytes.len()], bytes.to_vec()).expect("fits");
            let got = ImageDecoder::default().evaluate(&[file]).expect("no error");
            assert_eq!(got[0].shape().rank(), 3);
        }
    }
}
