//! Kernels that gather many elements into one: reductions, norms, softmax, sums, sorting.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        fused::quantize::{BlockRanges, QuantizeByRanges},
        normalization::{
            GroupNormalization, LayerNormalization, Mvn, MvnEpsilon, NormalizeL2, NormalizeL2Mode,
            RmsNorm,
        },
        quantize::DynamicQuantizeLinear,
        reduction::{
            CumProd, CumSum, ReduceL1, ReduceL2, ReduceLogSumExp, ReduceLogicalAnd,
            ReduceLogicalOr, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum,
        },
        softmax::{Hardmax, LogSoftmax, SoftMax},
        topk::{TopK, TopKMode, TopKSort},
    },
};

use super::{
    super::{
        dynamic_quantize::DYNAMIC_QUANTIZE, normalize::NORMALIZE, reduce::REDUCE, scan::SCAN,
        softmax::SOFTMAX, topk::TOPK,
    },
    i64s, try_node, whole,
};
use crate::testing::noise;

/// What sums in `f32` and rounding to the type may differ by.
fn tolerance(ty: ElementType) -> f64 {
    match ty {
        ElementType::F32 => 2e-5,
        ElementType::F64 => 1e-12,
        ElementType::F16 => 4e-3,
        ElementType::Bf16 => 2e-2,
        _ => 0.0,
    }
}

fn reductions() -> [Box<dyn Op>; 8] {
    [
        Box::new(ReduceSum { keep_dims: true }),
        Box::new(ReduceMean { keep_dims: false }),
        Box::new(ReduceProd { keep_dims: false }),
        Box::new(ReduceMax { keep_dims: true }),
        Box::new(ReduceMin { keep_dims: false }),
        Box::new(ReduceL1 { keep_dims: false }),
        Box::new(ReduceL2 { keep_dims: false }),
        Box::new(ReduceLogSumExp { keep_dims: false }),
    ]
}

#[test]
fn any_axes_are_reduced() {
    for op in reductions() {
        for (shape, axes) in [
            (vec![3, 5, 7], vec![0]),
            (vec![3, 5, 7], vec![1]),
            (vec![3, 5, 7], vec![-1]),
            (vec![3, 5, 7], vec![0, 2]),
            (vec![3, 5, 7], vec![0, 1, 2]),
            (vec![3, 5, 7], vec![]),
            (vec![2, 0], vec![1]),
            (vec![0, 2], vec![1]),
            (vec![2, 2, 3, 2, 3, 2], vec![0, 2, 4]),
        ] {
            let x = noise(ElementType::F32, &shape, 1);
            try_node(&REDUCE, op.as_ref(), &[x, i64s(&axes)], 2e-5);
        }
    }
}

#[test]
fn reductions_use_warps_blocks_columns_and_shares() {
    for (shape, axes) in [
        (vec![3, 1025], vec![1]),
        (vec![2, 3000], vec![1]),
        (vec![1, 20_000], vec![1]),
        (vec![9, 600], vec![0]),
        (vec![2, 5, 520], vec![1]),
    ] {
        for op in
            [&ReduceSum::default() as &dyn Op, &ReduceMax::default(), &ReduceLogSumExp::default()]
        {
            let x = noise(ElementType::F32, &shape, 1);
            try_node(&REDUCE, op, &[x, i64s(&axes)], 1e-4);
        }
    }
}

#[test]
fn every_type_is_reduced() {
    for ty in [
        ElementType::F16,
        ElementType::Bf16,
        ElementType::F64,
        ElementType::I8,
        ElementType::I32,
        ElementType::I64,
        ElementType::U8,
        ElementType::U64,
    ] {
        for op in [&ReduceSum::default() as &dyn Op, &ReduceMean::default(), &ReduceMax::default()]
        {
            try_node(&REDUCE, op, &[whole(ty, &[4, 37], 1), i64s(&[1])], 10.0 * tolerance(ty));
        }
    }
    for op in reductions() {
        try_node(&REDUCE, op.as_ref(), &[whole(ElementType::I32, &[5, 3], 1), i64s(&[0])], 0.0);
    }
    let bits: Vec<bool> = (0..24).map(|i| i % 5 != 0 && i < 20).collect();
    let truth = Tensor::from_bools([6, 4], &bits).expect("fits");
    for op in [&ReduceLogicalAnd::default() as &dyn Op, &ReduceLogicalOr::default()] {
        try_node(&REDUCE, op, &[truth.clone(), i64s(&[1])], 0.0);
    }
}

#[test]
fn nan_and_infinities_pass_through_reductions() {
    let rows = [
        [f32::NAN, 1.0, 2.0],
        [f32::INFINITY, 1.0, -1.0],
        [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY],
        [f32::NEG_INFINITY, 3.0, f32::INFINITY],
        [1.0, 2.0, f32::NAN],
    ];
    let x = Tensor::from_vec([5, 3], rows.concat()).expect("fits");
    for op in reductions() {
        try_node(&REDUCE, op.as_ref(), &[x.clone(), i64s(&[1])], 1e-6);
    }
    for op in [&SoftMax { axis: 1 } as &dyn Op, &LogSoftmax { axis: 1 }] {
        try_node(&SOFTMAX, op, std::slice::from_ref(&x), 1e-6);
    }
}

#[test]
fn lines_along_any_axis_become_softmax() {
    for (shape, axis) in [
        (vec![5], 0),
        (vec![3, 130], 1),
        (vec![2, 9000], -1),
        (vec![2, 7, 5], 1),
        (vec![4, 3, 1], 0),
        (vec![0, 4], 1),
    ] {
        for op in
            [&SoftMax { axis } as &dyn Op, &LogSoftmax { axis }, &Hardmax { axis, flatten: false }]
        {
            try_node(&SOFTMAX, op, &[noise(ElementType::F32, &shape, 1)], 1e-5);
        }
    }
    for ty in [ElementType::F16, ElementType::Bf16, ElementType::F64] {
        try_node(&SOFTMAX, &SoftMax { axis: 1 }, &[noise(ty, &[3, 33], 1)], tolerance(ty));
    }
    let hard = Hardmax { axis: 1, flatten: true };
    try_node(&SOFTMAX, &hard, &[whole(ElementType::F32, &[2, 3, 4], 1)], 0.0);
    let rows = Hardmax { axis: 1, flatten: false };
    try_node(&SOFTMAX, &rows, &[whole(ElementType::I32, &[4, 50], 1)], 0.0);
}

#[test]
fn layers_are_normalized() {
    for (shape, axis, parameter) in [
        (vec![3, 8], -1, vec![8]),
        (vec![2, 5, 768], -1, vec![768]),
        (vec![3, 767], -1, vec![767]),
        (vec![2, 4096], -1, vec![4096]),
        (vec![2, 8, 16], -1, vec![2, 1, 16]),
        (vec![2, 9000], 1, vec![9000]),
        (vec![2, 3, 4], 1, vec![3, 4]),
        (vec![2, 3, 4], 1, vec![4]),
        (vec![2, 3, 4], -1, vec![2, 3, 1]),
        (vec![0, 3], -1, vec![3]),
    ] {
        for ty in [ElementType::F32, ElementType::Bf16] {
            let p = |seed| noise(ty, &parameter, seed);
            let x = noise(ty, &shape, 1);
            for statistics in [false, true] {
                let op = LayerNormalization { axis, statistics, ..LayerNormalization::default() };
                let inputs = [x.clone(), p(2), p(3)];
                try_node(&NORMALIZE, &op, &inputs, tolerance(ty));
                try_node(&NORMALIZE, &op, &inputs[..2], tolerance(ty));
            }
            let op = RmsNorm { axis, ..RmsNorm::default() };
            try_node(&NORMALIZE, &op, &[x, p(2)], tolerance(ty));
        }
    }
    let mixed = [noise(ElementType::F32, &[2, 6], 1), noise(ElementType::F64, &[6], 2)];
    try_node(&NORMALIZE, &RmsNorm::default(), &mixed, 1e-6);
}

#[test]
fn groups_and_axes_are_normalized() {
    let x = noise(ElementType::F32, &[2, 6, 3, 5], 1);
    let p = |seed| noise(ElementType::F32, &[6], seed);
    for num_groups in [1, 2, 6] {
        let op = GroupNormalization { num_groups, epsilon: 1e-5 };
        try_node(&NORMALIZE, &op, &[x.clone(), p(2), p(3)], 1e-5);
    }
    for axes in [vec![2, 3], vec![1], vec![0, 1, 2, 3], vec![0, 2]] {
        for (normalize_variance, eps_mode) in [
            (true, MvnEpsilon::InsideSqrt),
            (true, MvnEpsilon::OutsideSqrt),
            (false, MvnEpsilon::InsideSqrt),
        ] {
            let op = Mvn { normalize_variance, eps: 1e-3, eps_mode };
            try_node(&NORMALIZE, &op, &[x.clone(), i64s(&axes)], 1e-5);
        }
        for eps_mode in [NormalizeL2Mode::Add, NormalizeL2Mode::Max] {
            let op = NormalizeL2 { eps: 0.5, eps_mode };
            try_node(&NORMALIZE, &op, &[x.clone(), i64s(&axes)], 1e-5);
        }
    }
    let wide = noise(ElementType::F64, &[3, 7], 1);
    try_node(&NORMALIZE, &Mvn::default(), &[wide, i64s(&[1])], 1e-12);
}

#[test]
fn sums_run_along_axes() {
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        for (shape, axis) in [
            (vec![3, 5, 4], 1),
            (vec![2, 700], 1),
            (vec![4, 3], 0),
            (vec![1, 256], -1),
            (vec![2, 0], 1),
        ] {
            let inputs = [noise(ElementType::F32, &shape, 1), Tensor::scalar(i64::from(axis))];
            try_node(&SCAN, &CumSum { exclusive, reverse }, &inputs, 1e-5);
        }
        for ty in [ElementType::I8, ElementType::U64, ElementType::F16] {
            let inputs = [whole(ty, &[2, 90], 1), Tensor::scalar(1i64)];
            try_node(&SCAN, &CumSum { exclusive, reverse }, &inputs, tolerance(ty));
        }
        let inputs = [whole(ElementType::I32, &[5, 4], 1), Tensor::scalar(0i64)];
        try_node(&SCAN, &CumProd { exclusive, reverse }, &inputs, 0.0);
    }
    try_node(&SCAN, &CumSum::default(), &[noise(ElementType::F64, &[9], 1)], 1e-12);
}

#[test]
fn the_best_elements_are_found_in_order() {
    for mode in [TopKMode::Max, TopKMode::Min] {
        for sort in [TopKSort::Value, TopKSort::Index, TopKSort::None] {
            for (shape, axis, k) in [
                (vec![3, 10], 1, 5),
                (vec![2, 1000], -1, 7),
                (vec![6, 5], 0, 6),
                (vec![2, 9, 3], 1, 1),
                (vec![4, 1], 1, 1),
                (vec![3, 4], 1, 0),
            ] {
                let op = TopK { axis, mode, sort, ..TopK::default() };
                let inputs = [whole(ElementType::F32, &shape, 1), Tensor::scalar(i64::from(k))];
                try_node(&TOPK, &op, &inputs, 0.0);
            }
        }
        let op = TopK { mode, index_element_type: ElementType::I64, ..TopK::default() };
        try_node(&TOPK, &op, &[noise(ElementType::F16, &[2, 5000], 1), Tensor::scalar(6i64)], 0.0);
        let x = Tensor::from_vec([6], vec![3f32, 1., f32::NAN, 3., -0., 0.]).expect("fits");
        try_node(&TOPK, &op, &[x.clone(), Tensor::scalar(6i64)], 0.0);
        try_node(&TOPK, &op, &[x, Tensor::scalar(3i64)], 0.0);
        for ty in [ElementType::I64, ElementType::U8] {
            try_node(&TOPK, &op, &[whole(ty, &[2, 40], 1), Tensor::scalar(9i64)], 0.0);
        }
    }
}

#[test]
fn data_are_quantized_by_their_range() {
    for len in [0, 1, 7, 20_000] {
        for scale in [1.0, 0.0] {
            let wide = noise(ElementType::F32, &[len], 1).to_f64_vec().expect("f32");
            let values: Vec<f64> = wide.iter().map(|v| (v + 0.3) * scale).collect();
            let x = Tensor::from_f64s::<f32>([len], &values).expect("fits");
            let whole = std::slice::from_ref(&x);
            try_node(&DYNAMIC_QUANTIZE, &DynamicQuantizeLinear {}, whole, 0.0);
            let ranges = BlockRanges { blocks: 5 };
            try_node(&DYNAMIC_QUANTIZE, &ranges, whole, 0.0);
            let found = ranges.evaluate(whole).expect("valid").remove(0);
            try_node(&DYNAMIC_QUANTIZE, &QuantizeByRanges {}, &[x, found], 0.0);
        }
    }
}
