//! Kernels that move elements.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        concat::{Concat, Split, VariadicSplit},
        reshape::{Broadcast, BroadcastMode, Reshape, Tile},
        slice::{Slice, StridedSlice},
        transpose::{
            DepthMode, DepthToSpace, Reverse, ReverseMode, ShuffleChannels, SpaceToDepth, Transpose,
        },
    },
};

use super::{super::movement::MOVEMENT, i64s, try_node, whole};
use crate::{
    kernels::Bound,
    testing::{KernelTest, bind},
};

#[track_caller]
fn moves(op: &dyn Op, inputs: &[Tensor]) {
    try_node(&MOVEMENT, op, inputs, 0.0);
}

#[test]
fn axes_are_permuted() {
    for (shape, order) in [
        (vec![3, 5], vec![1, 0]),
        (vec![40, 70], vec![1, 0]),
        (vec![2, 33, 3, 65], vec![0, 2, 3, 1]),
        (vec![2, 65, 33], vec![0, 2, 1]),
        (vec![2, 3, 4, 8], vec![1, 0, 2, 3]),
        (vec![2, 3, 4, 5, 6], vec![4, 2, 0, 3, 1]),
        (vec![4, 1, 3], vec![1, 0, 2]),
        (vec![2, 3], vec![]),
        (vec![0, 3], vec![1, 0]),
        (vec![2, 1, 2, 1, 2, 1, 2, 2, 2], vec![8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ] {
        for ty in [ElementType::U8, ElementType::F16, ElementType::F32, ElementType::I64] {
            moves(&Transpose {}, &[whole(ty, &shape, 1), i64s(&order)]);
        }
    }
}

#[test]
fn what_does_not_move_is_an_alias() {
    let x = whole(ElementType::F32, &[2, 1, 6], 1);
    for (op, inputs) in [
        (&Transpose {} as &dyn Op, vec![x.clone(), i64s(&[1, 0, 2])]),
        (&Reshape::default(), vec![x.clone(), i64s(&[3, 4])]),
        (&Slice {}, vec![x.clone(), i64s(&[0]), i64s(&[2]), i64s(&[1]), i64s(&[0])]),
        (&Tile {}, vec![x.clone(), i64s(&[1, 1, 1])]),
    ] {
        let test = KernelTest::new(&MOVEMENT, op, &inputs, 0.0);
        let (_, bound) = bind(&test).expect("is taken");
        assert_eq!(bound, Bound::Alias(0), "{op:?}");
        moves(op, &inputs);
    }
}

#[test]
fn tensors_are_joined_and_cut() {
    for ty in [ElementType::U8, ElementType::F16, ElementType::F64] {
        for axis in [0, 1, -1] {
            let shape = |n: usize| {
                let mut shape = vec![3, 4, 8];
                shape[(axis + 3) as usize % 3] = n;
                shape
            };
            let parts: Vec<Tensor> =
                [5, 0, 8].iter().map(|n| whole(ty, &shape(*n), *n as u32)).collect();
            moves(&Concat { axis }, &parts);
            let x = whole(ty, &shape(12), 1);
            moves(&Split { num_splits: 3 }, &[x.clone(), Tensor::scalar(axis)]);
            moves(&VariadicSplit {}, &[x, Tensor::scalar(axis), i64s(&[7, -1, 1])]);
        }
    }
    moves(&Concat { axis: 0 }, &[whole(ElementType::I8, &[3], 1)]);
    // More parts than one launch takes, with rows whose strides are no multiples of their runs.
    let many: Vec<Tensor> =
        (1..20).map(|n| whole(ElementType::F32, &[2, n % 5, 2], n as u32)).collect();
    moves(&Concat { axis: 1 }, &many);
    let x = whole(ElementType::F16, &[3, 22], 1);
    moves(&Split { num_splits: 11 }, &[x, Tensor::scalar(1i64)]);
}

#[test]
fn slices_start_stop_and_step() {
    let x = whole(ElementType::F32, &[7, 5, 16], 1);
    for (start, stop, step, axes) in [
        (vec![1], vec![6], vec![2], vec![0]),
        (vec![-1], vec![-8], vec![-2], vec![0]),
        (vec![4, 4], vec![12, 0], vec![1, -1], vec![2, 1]),
        (vec![3], vec![3], vec![1], vec![1]),
        (vec![0, 1, 4], vec![9, 9, 8], vec![1, 1, 1], vec![0, 1, 2]),
        (vec![15], vec![-99], vec![-1], vec![2]),
    ] {
        moves(&Slice {}, &[x.clone(), i64s(&start), i64s(&stop), i64s(&step), i64s(&axes)]);
    }
    moves(&Slice {}, &[x.clone(), i64s(&[2]), i64s(&[6]), i64s(&[1])]);
    let op = StridedSlice {
        begin_mask: vec![0, 1, 0, 0],
        end_mask: vec![0, 1, 0, 0],
        new_axis_mask: vec![0, 0, 1, 0],
        shrink_axis_mask: vec![1, 0, 0, 0],
        ellipsis_mask: vec![0; 4],
    };
    let inputs = [x, i64s(&[-2, 0, 0, 3]), i64s(&[0, 0, 0, 11]), i64s(&[1, -1, 1, 2])];
    moves(&op, &inputs);
}

#[test]
fn tensors_are_repeated() {
    for ty in [ElementType::U8, ElementType::F32] {
        for (from, to) in
            [(vec![3, 1], vec![2, 3, 4]), (vec![], vec![5]), (vec![4, 8], vec![3, 4, 8])]
        {
            let to = i64s(&to);
            for mode in [BroadcastMode::Numpy, BroadcastMode::Bidirectional] {
                moves(&Broadcast { mode }, &[whole(ty, &from, 1), to.clone()]);
            }
        }
        let op = Broadcast { mode: BroadcastMode::Explicit };
        moves(&op, &[whole(ty, &[3, 5], 1), i64s(&[2, 3, 4, 5]), i64s(&[1, 3])]);
        for repeats in [vec![2], vec![1, 3], vec![2, 1, 3], vec![0, 2]] {
            moves(&Tile {}, &[whole(ty, &[4, 6], 1), i64s(&repeats)]);
        }
    }
}

#[test]
fn blocks_move_between_depth_and_space() {
    for mode in [DepthMode::BlocksFirst, DepthMode::DepthFirst] {
        for block_size in [1, 2, 3] {
            let volume = (block_size * block_size) as usize;
            let x = whole(ElementType::F16, &[2, 3 * volume, 4, 5], 1);
            moves(&DepthToSpace { block_size, mode }, &[x]);
            let b = block_size as usize;
            let x = whole(ElementType::F16, &[2, 3, 4 * b, 5 * b], 1);
            moves(&SpaceToDepth { block_size, mode }, &[x]);
        }
        moves(
            &DepthToSpace { block_size: 2, mode },
            &[whole(ElementType::I8, &[1, 16, 2, 3, 2], 1)],
        );
    }
    for group in [1, 2, 6] {
        moves(&ShuffleChannels { axis: 1, group }, &[whole(ElementType::F32, &[2, 6, 3], 1)]);
    }
}

#[test]
fn axes_are_reversed() {
    let x = whole(ElementType::I16, &[3, 4, 5], 1);
    for axes in [vec![0], vec![-1, 0], vec![]] {
        moves(&Reverse { mode: ReverseMode::Index }, &[x.clone(), i64s(&axes)]);
    }
    let mask = Tensor::from_bools([3], &[true, false, true]).expect("fits");
    moves(&Reverse { mode: ReverseMode::Mask }, &[x, mask]);
}
