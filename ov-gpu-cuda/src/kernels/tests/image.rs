//! Kernels over windows, images and paddings.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        fused::pooling::{PoolLast, PoolMode},
        normalization::Lrn,
        pad::{Pad, PadMode},
        pooling::{AvgPool, AvgPool1, LpPool, MaxPool, MaxPool1, MaxPool8},
        resize::{
            AspectRatio, CoordinateMode, Interpolate, Interpolate4, InterpolateMode, NearestMode,
            ShapeCalculation,
        },
        vision::{AffineGrid, GridMode, GridPadding, GridSample},
        window::{AutoPad, Rounding},
    },
};

use super::{
    super::{affine::AFFINE, grid::GRID, lrn::LRN, pad::PAD, pool::POOL, resize::RESIZE},
    i64s, try_node, whole,
};
use crate::testing::noise;

#[test]
fn windows_are_pooled() {
    for (shape, kernel, strides, dilations, pads_begin, pads_end, rounding_type) in [
        (vec![2, 3, 7], vec![3], vec![2], vec![1], vec![1], vec![0], Rounding::Floor),
        (
            vec![2, 3, 8, 9],
            vec![3, 3],
            vec![2, 2],
            vec![1, 1],
            vec![1, 1],
            vec![1, 1],
            Rounding::Floor,
        ),
        (
            vec![1, 2, 8, 9],
            vec![3, 2],
            vec![2, 3],
            vec![1, 2],
            vec![1, 1],
            vec![1, 1],
            Rounding::Ceil,
        ),
        (
            vec![1, 2, 8, 9],
            vec![2, 2],
            vec![3, 3],
            vec![1, 1],
            vec![0, 0],
            vec![0, 0],
            Rounding::CeilTorch,
        ),
        (
            vec![1, 2, 4, 5, 6],
            vec![2, 3, 2],
            vec![1, 2, 2],
            vec![2, 1, 1],
            vec![0, 1, 0],
            vec![0, 1, 1],
            Rounding::Floor,
        ),
    ] {
        let x = noise(ElementType::F32, &shape, 1);
        for axis in [0, 2] {
            let op = MaxPool {
                strides: strides.clone(),
                pads_begin: pads_begin.clone(),
                pads_end: pads_end.clone(),
                kernel: kernel.clone(),
                rounding_type,
                dilations: dilations.clone(),
                axis,
                ..MaxPool::default()
            };
            try_node(&POOL, &op, std::slice::from_ref(&x), 0.0);
        }
        for exclude_pad in [true, false] {
            let op = AvgPool {
                strides: strides.clone(),
                pads_begin: pads_begin.clone(),
                pads_end: pads_end.clone(),
                kernel: kernel.clone(),
                rounding_type,
                dilations: dilations.clone(),
                exclude_pad,
                ..AvgPool::default()
            };
            try_node(&POOL, &op, std::slice::from_ref(&x), 1e-6);
        }
        for mode in [PoolMode::Max, PoolMode::Average, PoolMode::AverageWithPad] {
            let op = PoolLast {
                mode,
                strides: strides.clone(),
                pads_begin: pads_begin.clone(),
                pads_end: pads_end.clone(),
                kernel: kernel.clone(),
                rounding_type,
                dilations: dilations.clone(),
                ..PoolLast::default()
            };
            for channels in [3, 8] {
                let last = [&shape[..1], &shape[2..], &[channels]].concat();
                for ty in [ElementType::F32, ElementType::Bf16] {
                    try_node(&POOL, &op, &[noise(ty, &last, 1)], 1e-2);
                }
                try_node(&POOL, &op, &[noise(ElementType::F32, &last, 1)], 1e-6);
            }
        }
    }
}

#[test]
fn every_type_is_pooled() {
    let pads = || vec![1, 1];
    for ty in
        [ElementType::F64, ElementType::F16, ElementType::I8, ElementType::U8, ElementType::I64]
    {
        let x = whole(ty, &[1, 2, 5, 6], 1);
        let largest = MaxPool8 {
            kernel: vec![2, 3],
            pads_begin: pads(),
            pads_end: pads(),
            ..MaxPool8::default()
        };
        try_node(&POOL, &largest, std::slice::from_ref(&x), 0.0);
        let mean = AvgPool1 {
            kernel: vec![2, 3],
            pads_begin: pads(),
            pads_end: pads(),
            ..AvgPool1::default()
        };
        try_node(&POOL, &mean, &[x], if ty.is_float() { 1e-2 } else { 0.0 });
    }
    let same = MaxPool1 { kernel: vec![2, 2], auto_pad: AutoPad::SameUpper, ..MaxPool1::default() };
    let x =
        Tensor::from_vec([1, 1, 2, 3], vec![1., f32::NAN, 3., -1., 5., f32::NAN]).expect("fits");
    try_node(&POOL, &same, &[x], 0.0);
    for p in [1, 2, 3] {
        let op = LpPool { kernel: vec![3, 2], strides: vec![2, 1], p, ..LpPool::default() };
        try_node(&POOL, &op, &[noise(ElementType::F32, &[2, 2, 6, 5], 1)], 1e-5);
    }
}

#[test]
fn whole_planes_are_averaged() {
    for shape in [vec![2, 5, 7, 7], vec![1, 600, 3, 3]] {
        let op = AvgPool1 { kernel: vec![shape[2] as i64, shape[3] as i64], ..AvgPool1::default() };
        try_node(&POOL, &op, &[noise(ElementType::F32, &shape, 1)], 1e-6);
        let last = [shape[0], shape[2], shape[3], shape[1]];
        let kernel = vec![shape[2] as i64, shape[3] as i64];
        let op = PoolLast { mode: PoolMode::Average, kernel, ..PoolLast::default() };
        try_node(&POOL, &op, &[noise(ElementType::F32, &last, 1)], 1e-6);
    }
}

#[test]
fn paddings_show_values_edges_mirrors_and_the_other_end() {
    let modes =
        [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Symmetric, PadMode::Wrap];
    for pad_mode in modes {
        for (shape, begin, end) in [
            (vec![3, 4], vec![1, 2], vec![2, 1]),
            (vec![2, 3, 5, 4], vec![0, 0, 2, 1], vec![0, 0, 3, 0]),
            (vec![2, 6], vec![0, -2], vec![0, 3]),
            (vec![1, 3], vec![2, 7], vec![2, 9]),
            (vec![3, 4, 2], vec![1, 0, 0], vec![0, 0, 0]),
            (vec![3, 4], vec![0, 0], vec![0, 0]),
        ] {
            for ty in [ElementType::F32, ElementType::U8] {
                let inputs = [whole(ty, &shape, 1), i64s(&begin), i64s(&end), whole(ty, &[], 2)];
                let op = Pad { pad_mode };
                try_node(&PAD, &op, &inputs, 0.0);
                try_node(&PAD, &op, &inputs[..3], 0.0);
            }
        }
    }
}

const COORDINATES: [CoordinateMode; 8] = [
    CoordinateMode::HalfPixel,
    CoordinateMode::PytorchHalfPixel,
    CoordinateMode::Asymmetric,
    CoordinateMode::TfHalfPixelForNn,
    CoordinateMode::AlignCorners,
    CoordinateMode::AlignCornersScaled,
    CoordinateMode::HalfPixelSymmetric,
    CoordinateMode::TfCropAndResize,
];

#[test]
fn images_are_resized_with_every_coordinate_and_filter() {
    let x = noise(ElementType::F32, &[2, 3, 6, 5], 1);
    for coordinate_transformation_mode in COORDINATES {
        for (mode, antialias) in [
            (InterpolateMode::Nearest, false),
            (InterpolateMode::Linear, false),
            (InterpolateMode::LinearOnnx, true),
            (InterpolateMode::Cubic, false),
            (InterpolateMode::Cubic, true),
            (InterpolateMode::BilinearPillow, false),
        ] {
            let op = Interpolate {
                mode,
                antialias,
                coordinate_transformation_mode,
                shape_calculation_mode: ShapeCalculation::Scales,
                extrapolation_value: 10.0,
                ..Interpolate::default()
            };
            for scales in [[1.7f32, 0.6], [1.0, 3.0], [0.5, 2.0]] {
                let region = Tensor::from_vec([4], vec![0.2f32, -0.1, 1.3, 0.8]).expect("fits");
                let scales = Tensor::from_vec([2], scales.to_vec()).expect("fits");
                let inputs = [x.clone(), scales, i64s(&[2, 3]), region];
                try_node(&RESIZE, &op, &inputs, 2e-6);
            }
        }
    }
}

#[test]
fn nearest_elements_are_rounded_and_moved_in_every_type() {
    for nearest_mode in [
        NearestMode::RoundPreferFloor,
        NearestMode::RoundPreferCeil,
        NearestMode::Floor,
        NearestMode::Ceil,
        NearestMode::Simple,
    ] {
        for ty in [ElementType::F32, ElementType::I64] {
            let op = Interpolate {
                nearest_mode,
                coordinate_transformation_mode: CoordinateMode::Asymmetric,
                ..Interpolate::default()
            };
            let x = whole(ty, &[4, 6], 1);
            try_node(&RESIZE, &op, &[x.clone(), i64s(&[7, 9])], 0.0);
            try_node(&RESIZE, &op, &[x, i64s(&[3, 4])], 0.0);
        }
    }
    let old = Interpolate4 { mode: InterpolateMode::LinearOnnx, ..Interpolate4::default() };
    let scales = Tensor::from_vec([2], vec![2f32, 2.]).expect("fits");
    for ty in [ElementType::F32, ElementType::F16, ElementType::U8] {
        let inputs = [whole(ty, &[1, 3, 4], 1), i64s(&[6, 8]), scales.clone(), i64s(&[1, 2])];
        try_node(&RESIZE, &old, &inputs, if ty == ElementType::F16 { 2e-3 } else { 1e-6 });
    }
    let aspect =
        Interpolate { keep_aspect_ratio_policy: AspectRatio::NotLarger, ..Interpolate::default() };
    try_node(&RESIZE, &aspect, &[whole(ElementType::F32, &[4, 6], 1), i64s(&[9, 9])], 0.0);
}

#[test]
fn images_are_sampled_at_positions() {
    for mode in [GridMode::Bilinear, GridMode::Bicubic, GridMode::Nearest] {
        for padding_mode in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
            for align_corners in [true, false] {
                let op = GridSample { align_corners, mode, padding_mode };
                let x = noise(ElementType::F32, &[2, 3, 4, 5], 1);
                try_node(&GRID, &op, &[x, noise(ElementType::F32, &[2, 3, 2, 2], 2)], 1e-5);
            }
        }
    }
    let op = GridSample::default();
    let x = noise(ElementType::F32, &[1, 2, 3, 4, 5], 1);
    try_node(&GRID, &op, &[x, noise(ElementType::F32, &[1, 2, 2, 3, 3], 2)], 1e-5);
    let odd = Tensor::from_vec([1, 1, 2, 2], vec![f32::NAN, 0., f32::INFINITY, 0.]).expect("fits");
    try_node(&GRID, &op, &[noise(ElementType::F16, &[1, 1, 3, 3], 1), odd], 1e-3);
}

#[test]
fn neighbours_share_their_response() {
    for (axes, size) in [(vec![1], 3), (vec![1], 4), (vec![2, 3], 3), (vec![1], 99)] {
        let op: &dyn Op = &Lrn { alpha: 0.3, beta: 0.75, bias: 1.5, size };
        for ty in [ElementType::F32, ElementType::F64] {
            try_node(&LRN, op, &[noise(ty, &[2, 5, 3, 4], 1), i64s(&axes)], 1e-6);
        }
    }
}

#[test]
fn affine_maps_give_positions() {
    for align_corners in [true, false] {
        let op = AffineGrid { align_corners };
        for ty in [ElementType::F32, ElementType::F64] {
            let maps = noise(ty, &[2, 2, 3], 1);
            try_node(&AFFINE, &op, &[maps, i64s(&[2, 1, 3, 5])], 1e-6);
            let maps = noise(ty, &[1, 3, 4], 1);
            try_node(&AFFINE, &op, &[maps, i64s(&[1, 1, 2, 1, 4])], 1e-6);
        }
    }
}
