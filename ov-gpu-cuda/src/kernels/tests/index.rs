//! Kernels that read and write by index, and tensors made of little.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        gather::{Gather, Gather1, Gather7, GatherElements, GatherNd, GatherNd5},
        generate::{Eye, NegativeIndices, OneHot, OneHot1, Range, Trilu},
        normalization::Dropout,
        scatter::{
            CacheMode, Reduction, ScatterElementsUpdate, ScatterElementsUpdate3, ScatterNdUpdate,
            ScatterNdUpdate3, ScatterUpdate, TensorScatter,
        },
        transpose::ReverseSequence,
    },
};

use super::{
    super::{cache::CACHE, gather::GATHER, generate::GENERATE, scatter::SCATTER},
    i64s, try_node, whole,
};
use crate::testing::{KernelTest, bind, check};

/// Indices of `-extent..extent`.
fn indices(ty: ElementType, shape: &[usize], extent: usize, seed: u32) -> Tensor {
    let values: Vec<f64> = whole(ElementType::I64, shape, seed)
        .to_f64_vec()
        .expect("integers")
        .iter()
        .map(|v| (v * 7.0) % extent as f64)
        .collect();
    Tensor::from_f64s::<f64>(shape, &values).expect("fits").cast(ty).expect("native")
}

#[test]
fn slices_are_gathered_along_an_axis() {
    for (shape, picks, axis) in [
        (vec![5, 3], vec![4], 0),
        (vec![5, 16], vec![2, 3], 0),
        (vec![2, 7, 3], vec![4], 1),
        (vec![2, 7], vec![], 1),
        (vec![3, 4, 8], vec![0], 1),
    ] {
        for ty in [ElementType::F32, ElementType::U8] {
            for index in [ElementType::I32, ElementType::I64] {
                let extent = shape[axis as usize];
                let inputs =
                    [whole(ty, &shape, 1), indices(index, &picks, extent, 2), Tensor::scalar(axis)];
                try_node(&GATHER, &Gather::default(), &inputs, 0.0);
                try_node(&GATHER, &Gather1 {}, &inputs, 0.0);
            }
        }
    }
    let batches = [
        whole(ElementType::F16, &[2, 3, 5, 4], 1),
        indices(ElementType::I32, &[2, 3, 6], 5, 2),
        Tensor::scalar(2i64),
    ];
    for batch_dims in [1, 2, -1] {
        let op = Gather { batch_dims, strict: false };
        let mut inputs = batches.clone();
        if batch_dims == 1 {
            inputs[1] = indices(ElementType::I32, &[2, 6], 5, 2);
        }
        try_node(&GATHER, &op, &inputs, 0.0);
        try_node(&GATHER, &Gather7 { batch_dims }, &inputs, 0.0);
    }
}

#[test]
fn indices_outside_give_zeros() {
    let inputs = [
        whole(ElementType::F32, &[3, 2], 1),
        i64s(&[0, 3, -4, 2, i64::MAX, i64::MIN]),
        Tensor::scalar(0i64),
    ];
    try_node(&GATHER, &Gather::default(), &inputs, 0.0);
}

#[test]
fn elements_and_tuples_are_gathered() {
    for (shape, picks, axis) in [
        (vec![3, 4], vec![2, 4], 0),
        (vec![3, 4], vec![3, 7], 1),
        (vec![2, 3, 5], vec![2, 2, 4], -2),
        (vec![6], vec![9], 0),
    ] {
        let extent = shape[(axis + shape.len() as i64) as usize % shape.len()];
        let inputs =
            [whole(ElementType::F32, &shape, 1), indices(ElementType::I64, &picks, extent, 2)];
        try_node(&GATHER, &GatherElements { axis }, &inputs, 0.0);
    }
    for (shape, tuples, batch_dims) in [
        (vec![3, 3], vec![5, 2], 0),
        (vec![3, 3, 8], vec![4, 2], 0),
        (vec![3, 3, 8], vec![2, 2, 1], 0),
        (vec![2, 3, 3, 5], vec![2, 4, 2], 1),
        (vec![2, 3, 3, 5], vec![2, 3, 1], 2),
        (vec![4], vec![1], 0),
    ] {
        for ty in [ElementType::U8, ElementType::F64] {
            let inputs = [whole(ty, &shape, 1), indices(ElementType::I32, &tuples, 3, 2)];
            try_node(&GATHER, &GatherNd { batch_dims }, &inputs, 0.0);
            try_node(&GATHER, &GatherNd5 { batch_dims }, &inputs, 0.0);
        }
    }
}

#[test]
fn sequences_are_reversed_up_to_their_length() {
    for (batch_axis, seq_axis) in [(0, 1), (1, 0), (2, 0), (0, -1)] {
        let shape = [4, 5, 3];
        let x = whole(ElementType::F32, &shape, 1);
        let count = shape[batch_axis as usize];
        let longest = shape[(seq_axis + 3) as usize % 3];
        let lengths: Vec<i64> = (0..count).map(|i| (i * 2 % (longest + 1)) as i64).collect();
        try_node(&GATHER, &ReverseSequence { batch_axis, seq_axis }, &[x, i64s(&lengths)], 0.0);
    }
}

#[test]
fn slices_are_replaced_and_the_last_update_wins() {
    for (shape, picks, axis) in [
        (vec![5, 3], vec![4], 0),
        (vec![9, 8], vec![3, 20], 0),
        (vec![2, 5], vec![40], 1),
        (vec![3, 4, 2], vec![], 1),
    ] {
        let data = whole(ElementType::F32, &shape, 1);
        let updates = [&shape[..axis], &picks, &shape[axis + 1..]].concat();
        let inputs = [
            data,
            indices(ElementType::I64, &picks, shape[axis], 2),
            whole(ElementType::F32, &updates, 3),
            Tensor::scalar(axis as i64),
        ];
        try_node(&SCATTER, &ScatterUpdate {}, &inputs, 0.0);
    }
}

const REDUCTIONS: [Reduction; 7] = [
    Reduction::None,
    Reduction::Sum,
    Reduction::Sub,
    Reduction::Prod,
    Reduction::Min,
    Reduction::Max,
    Reduction::Mean,
];

#[test]
fn elements_are_updated_in_every_mode() {
    for reduction in REDUCTIONS {
        for use_init_val in [true, false] {
            for (shape, picks, axis) in
                [(vec![4, 3], vec![6, 3], 0), (vec![3, 5], vec![2, 9], 1), (vec![30], vec![70], 0)]
            {
                let inputs = |ty, index| {
                    [
                        whole(ty, &shape, 1),
                        indices(index, &picks, shape[axis], 2),
                        whole(ty, &picks, 3),
                        Tensor::scalar(axis as i64),
                    ]
                };
                let op = ScatterElementsUpdate { reduction, use_init_val };
                try_node(&SCATTER, &op, &inputs(ElementType::F32, ElementType::I64), 1e-6);
                if reduction != Reduction::Prod {
                    try_node(&SCATTER, &op, &inputs(ElementType::I32, ElementType::I32), 0.0);
                }
            }
        }
    }
    let inputs = [
        whole(ElementType::U8, &[4, 4], 1),
        indices(ElementType::I32, &[2, 4], 4, 2),
        whole(ElementType::U8, &[2, 4], 3),
        Tensor::scalar(0i64),
    ];
    try_node(&SCATTER, &ScatterElementsUpdate3 {}, &inputs, 0.0);
}

#[test]
fn tuples_are_updated_in_every_mode() {
    for reduction in REDUCTIONS.into_iter().filter(|r| *r != Reduction::Mean) {
        for (shape, tuples) in [
            (vec![3, 3], vec![5, 2]),
            (vec![3, 3, 8], vec![30, 2]),
            (vec![3, 5], vec![2, 2, 1]),
            (vec![3, 3], vec![0, 2]),
        ] {
            let depth = tuples[tuples.len() - 1];
            let updates = [&tuples[..tuples.len() - 1], &shape[depth..]].concat();
            let inputs = [
                whole(ElementType::F32, &shape, 1),
                indices(ElementType::I64, &tuples, 3, 2),
                whole(ElementType::F32, &updates, 3),
            ];
            try_node(&SCATTER, &ScatterNdUpdate { reduction }, &inputs, 1e-6);
        }
    }
    let inputs = [
        whole(ElementType::I64, &[3, 4], 1),
        indices(ElementType::I32, &[50, 1], 3, 2),
        whole(ElementType::I64, &[50, 4], 3),
    ];
    try_node(&SCATTER, &ScatterNdUpdate3 {}, &inputs, 0.0);
    let truth = |shape: &[usize], seed| {
        whole(ElementType::I32, shape, seed).cast(ElementType::Boolean).expect("native")
    };
    for reduction in [Reduction::None, Reduction::Sum, Reduction::Prod] {
        let inputs = [truth(&[6], 1), indices(ElementType::I32, &[4, 1], 6, 2), truth(&[4], 3)];
        try_node(&SCATTER, &ScatterNdUpdate { reduction }, &inputs, 0.0);
    }
}

#[test]
fn ranges_count() {
    let op = |output_type| Range { output_type };
    for (start, stop, step) in [(2i64, 11, 3), (5, -4, -2), (3, 3, 1)] {
        let inputs = [start, stop, step].map(Tensor::scalar);
        for ty in [ElementType::I64, ElementType::U8, ElementType::F32] {
            try_node(&GENERATE, &op(ty), &inputs, 0.0);
        }
    }
    let inputs = [0.5f32, 4.0, 0.3].map(Tensor::scalar);
    for ty in [ElementType::F32, ElementType::F64] {
        try_node(&GENERATE, &op(ty), &inputs, 0.0);
    }
}

#[test]
fn matrices_have_diagonals_and_triangles() {
    for diagonal in [-2i64, 0, 3, 9] {
        for ty in [ElementType::F32, ElementType::I8, ElementType::F16, ElementType::Boolean] {
            let inputs = [Tensor::scalar(4i64), Tensor::scalar(5i64), Tensor::scalar(diagonal)];
            try_node(&GENERATE, &Eye { output_type: ty }, &inputs, 0.0);
        }
        let batch =
            [Tensor::scalar(2i32), Tensor::scalar(3i32), Tensor::scalar(diagonal), i64s(&[2, 2])];
        try_node(&GENERATE, &Eye { output_type: ElementType::F64 }, &batch, 0.0);
        for upper in [true, false] {
            let x = whole(ElementType::F32, &[2, 4, 5], 1);
            try_node(&GENERATE, &Trilu { upper }, &[x.clone(), Tensor::scalar(diagonal)], 0.0);
            try_node(&GENERATE, &Trilu { upper }, &[x], 0.0);
        }
    }
}

#[test]
fn indices_become_one_hot_vectors() {
    let picks = Tensor::from_vec([2, 3], vec![0i32, 3, -1, 7, 2, -4]).expect("fits");
    for axis in [-1, 0, 1] {
        for mode in [NegativeIndices::Ignore, NegativeIndices::Normalize] {
            let op = OneHot { axis, negative_indices_mode: mode };
            let inputs =
                [picks.clone(), Tensor::scalar(4i64), Tensor::scalar(2f32), Tensor::scalar(-1f32)];
            try_node(&GENERATE, &op, &inputs, 0.0);
        }
        let inputs =
            [picks.clone(), Tensor::scalar(5i64), Tensor::scalar(1u8), Tensor::scalar(0u8)];
        try_node(&GENERATE, &OneHot1 { axis }, &inputs, 0.0);
    }
}

#[test]
fn updates_of_two_lanes_never_meet() {
    // Two lines of many updates each: marked, then the last ones written.
    let inputs = [
        whole(ElementType::F16, &[2, 11], 1),
        indices(ElementType::I32, &[2, 60], 11, 2),
        whole(ElementType::F16, &[2, 60], 3),
        Tensor::scalar(1i64),
    ];
    let op: &dyn Op = &ScatterElementsUpdate::default();
    try_node(&SCATTER, op, &inputs, 0.0);
}

#[test]
fn caches_take_runs_of_slices() {
    for (cache, update, axis, begins) in [
        (vec![2, 3, 6, 4], vec![2, 3, 2, 4], -2, vec![1i64, 4]),
        (vec![2, 5], vec![2, 5], 1, vec![3, 0]),
        (vec![3, 4, 3], vec![3, 0, 3], 1, vec![0, 0, 0]),
    ] {
        for ty in [ElementType::F16, ElementType::I8] {
            let inputs = [whole(ty, &cache, 1), whole(ty, &update, 2), i64s(&begins)];
            let circular = TensorScatter { axis, mode: CacheMode::Circular };
            try_node(&CACHE, &circular, &inputs, 0.0);
            let linear = TensorScatter { axis, mode: CacheMode::Linear };
            try_node(&CACHE, &linear, &inputs[..2], 0.0);
        }
    }
}

#[test]
fn nothing_is_dropped_outside_of_training() {
    let off = Tensor::from_bools([], &[false]).expect("fits");
    let on = Tensor::from_bools([], &[true]).expect("fits");
    let x = whole(ElementType::F16, &[3, 7], 1);
    let op = Dropout { seed: 1, seeded: true };
    let constants = |inputs: &[Tensor]| {
        check(&KernelTest::new(&GENERATE, &op, inputs, 0.0).constants(&[1, 2]));
    };
    constants(std::slice::from_ref(&x));
    constants(&[x.clone(), Tensor::scalar(0.4f32), off]);
    constants(&[x.clone(), Tensor::scalar(0f32), on.clone()]);
    let trained = [x, Tensor::scalar(0.4f32), on];
    let test = KernelTest::new(&GENERATE, &op, &trained, 0.0).constants(&[1, 2]);
    assert!(bind(&test).is_err());
}

#[test]
fn shapes_that_reach_outside_are_left_to_the_reference() {
    let f = |shape: &[usize]| whole(ElementType::F32, shape, 1);
    let picks = |shape: &[usize]| indices(ElementType::I64, shape, 2, 2);
    let axis = || Tensor::scalar(1i64);
    for (kernel, op, inputs) in [
        (&GATHER, &GatherElements { axis: 1 } as &dyn Op, vec![f(&[2, 2]), picks(&[3, 2])]),
        (&GATHER, &ReverseSequence::default(), vec![f(&[2, 3]), i64s(&[1])]),
        (
            &SCATTER,
            &ScatterElementsUpdate3 {},
            vec![f(&[2, 2]), picks(&[3, 2]), f(&[3, 2]), axis()],
        ),
        (
            &SCATTER,
            &ScatterElementsUpdate3 {},
            vec![f(&[2, 2]), picks(&[2, 2]), f(&[2, 1]), axis()],
        ),
        (&SCATTER, &ScatterNdUpdate3 {}, vec![f(&[2, 2]), picks(&[3, 1]), f(&[2, 2])]),
        (&SCATTER, &ScatterUpdate {}, vec![f(&[2, 2]), picks(&[3]), f(&[2, 2]), axis()]),
        (&CACHE, &TensorScatter::default(), vec![f(&[2, 2, 3]), f(&[2, 4, 3])]),
    ] {
        let refused = bind(&KernelTest::new(kernel, op, &inputs, 0.0));
        assert!(matches!(refused, Err(Some(_))), "{op:?}");
        assert!(op.evaluate(&inputs).is_err(), "{op:?}");
    }
}
