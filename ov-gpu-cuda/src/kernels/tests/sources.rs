//! Modules of the memory-bound families, each text in the types that change its code most.

use ov_core::{
    ElementType as Ty, Tensor,
    op::{
        Op,
        activation::{Gelu, SoftPlus},
        arithmetic::{Add, FloorMod, Power},
        concat::Concat,
        convert::{Convert, ConvertNarrow},
        fused::pooling::PoolLast,
        gather::Gather,
        generate::Range,
        normalization::{LayerNormalization, Lrn, Mvn},
        pad::{Pad, PadMode},
        pooling::{LpPool, MaxPool},
        quantize::{DynamicQuantizeLinear, FakeQuantize, QuantizeLinear},
        reduction::{CumSum, ReduceLogSumExp, ReduceMean, ReduceSum},
        resize::{Interpolate, InterpolateMode},
        scatter::{Reduction, ScatterElementsUpdate, ScatterUpdate, TensorScatter},
        softmax::{Hardmax, SoftMax},
        topk::TopK,
        transpose::Transpose,
        vision::{AffineGrid, GridMode, GridPadding, GridSample},
    },
};

use super::{
    super::{Bound, KERNELS, Source},
    i64s, whole,
};
use crate::testing::{KernelTest, bind};

/// The sources of a node on these inputs.
fn of(op: &dyn Op, inputs: &[Tensor]) -> Vec<Source> {
    for kernel in KERNELS {
        match bind(&KernelTest::new(kernel, op, inputs, 0.0)) {
            Ok((_, Bound::Step(step))) => {
                return step.launches.into_iter().map(|l| l.source).collect();
            }
            Ok((_, Bound::Alias(_))) => panic!("{op:?} launches nothing"),
            Err(None) => {}
            Err(Some(reason)) => panic!("{op:?}: {reason:?}"),
        }
    }
    panic!("{op:?} has no kernel")
}

fn node(op: impl Op, inputs: &[Tensor]) -> (Box<dyn Op>, Vec<Tensor>) {
    (Box::new(op), inputs.to_vec())
}

/// Every module once.
pub(crate) fn sources() -> Vec<Source> {
    let x = |ty, shape: &[usize]| whole(ty, shape, 1);
    let pair = |ty| [x(ty, &[4, 8]), x(ty, &[4, 8])];
    let one = |ty| x(ty, &[]);
    let image = |ty| x(ty, &[1, 4, 8, 8]);
    let rows = |ty| [x(ty, &[4, 8]), i64s(&[1])];
    let last = |ty| [x(ty, &[4, 8]), Tensor::scalar(1i64)];
    let layer = |ty| [x(ty, &[4, 8]), x(ty, &[8]), x(ty, &[8])];
    let cubic = Interpolate { mode: InterpolateMode::Cubic, ..Interpolate::default() };
    let sizes = |ty| [x(ty, &[8, 8]), i64s(&[5, 13])];
    let window = vec![2, 2];
    let pools = MaxPool { kernel: window.clone(), ..MaxPool::default() };
    let last_pool = PoolLast { kernel: window.clone(), ..PoolLast::default() };
    let powers = LpPool { kernel: window, ..LpPool::default() };
    let sampled = [image(Ty::F32), x(Ty::F32, &[1, 3, 3, 2])];
    let bicubic = GridSample {
        mode: GridMode::Bicubic,
        padding_mode: GridPadding::Reflection,
        ..GridSample::default()
    };
    let picks = |ty| [x(ty, &[4, 8]), i64s(&[1, 2]), x(ty, &[2, 8]), Tensor::scalar(0i64)];
    let elements =
        [x(Ty::F16, &[4, 8]), x(Ty::I32, &[4, 8]), x(Ty::F16, &[4, 8]), Tensor::scalar(0i64)];
    let means = ScatterElementsUpdate { reduction: Reduction::Mean, use_init_val: true };
    let sorted = |ty| [x(ty, &[2, 2048]), Tensor::scalar(100i64)];
    let reflected = [x(Ty::F32, &[4, 4]), i64s(&[1, 1]), i64s(&[1, 1])];
    let quantized = [x(Ty::F32, &[4, 8]), one(Ty::F32), one(Ty::I8)];
    let faked = [x(Ty::F32, &[4]), one(Ty::F32), one(Ty::F32), one(Ty::F32), one(Ty::F32)];
    let cached = [x(Ty::F16, &[2, 4, 8]), x(Ty::F16, &[2, 1, 8]), i64s(&[1, 2])];
    let nodes = vec![
        node(Add {}, &pair(Ty::F32)),
        node(Add {}, &pair(Ty::Bf16)),
        node(Power {}, &pair(Ty::F64)),
        node(FloorMod {}, &pair(Ty::I8)),
        node(
            Gelu { approximation_mode: ov_core::op::activation::GeluMode::Tanh },
            &[x(Ty::F16, &[9])],
        ),
        node(SoftPlus {}, &[x(Ty::F32, &[9])]),
        node(Convert { destination_type: Ty::U64 }, &[x(Ty::F32, &[9])]),
        node(QuantizeLinear::default(), &quantized),
        node(FakeQuantize::default(), &faked),
        node(Transpose {}, &[x(Ty::F16, &[64, 64]), i64s(&[1, 0])]),
        node(ReduceSum::default(), &rows(Ty::F32)),
        node(ReduceMean::default(), &rows(Ty::I32)),
        node(ReduceLogSumExp::default(), &rows(Ty::Bf16)),
        node(SoftMax { axis: 1 }, &[x(Ty::Bf16, &[4, 8])]),
        node(Hardmax::default(), &[x(Ty::I64, &[4, 8])]),
        node(LayerNormalization::default(), &layer(Ty::Bf16)),
        node(Mvn::default(), &rows(Ty::F64)),
        node(pools, &[image(Ty::F32)]),
        node(last_pool, &[image(Ty::Bf16)]),
        node(powers, &[image(Ty::F16)]),
        node(cubic, &sizes(Ty::F32)),
        node(Interpolate::default(), &sizes(Ty::U8)),
        node(Pad { pad_mode: PadMode::Reflect }, &reflected),
        node(Gather::default(), &picks(Ty::F32)[..2]),
        node(ScatterUpdate {}, &picks(Ty::F32)),
        node(means, &elements),
        node(TopK::default(), &sorted(Ty::F32)),
        node(CumSum::default(), &last(Ty::F32)),
        node(
            Range { output_type: Ty::F16 },
            &[one(Ty::F32), Tensor::scalar(900f32), Tensor::scalar(2f32)],
        ),
        node(GridSample::default(), &sampled),
        node(bicubic, &sampled),
        node(DynamicQuantizeLinear {}, &[x(Ty::F32, &[9])]),
        node(Concat { axis: 1 }, &pair(Ty::I8)),
        node(TensorScatter { axis: 1, ..TensorScatter::default() }, &cached),
        node(AffineGrid::default(), &[x(Ty::F32, &[1, 2, 3]), i64s(&[1, 1, 4, 5])]),
        node(ConvertNarrow::default(), &[x(Ty::F32, &[9])]),
        node(Lrn { size: 3, ..Lrn::default() }, &rows(Ty::F32)),
    ];
    let mut sources = Vec::new();
    for (op, mut inputs) in nodes {
        if op.is::<Gather>() {
            inputs.push(Tensor::scalar(0i64));
        }
        for source in of(op.as_ref(), &inputs) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
    }
    sources
}
