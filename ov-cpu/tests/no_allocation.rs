//! An inference with static shapes allocates nothing, also through the public handle.
#![allow(unsafe_code, reason = "a counting allocator implements an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use ov_core::{
    Core, ElementType, Model, PropertyMap, Tensor,
    op::{
        activation::{HSwish, Relu},
        arithmetic::Add,
        convolution::Convolution,
        matmul::MatMul,
        reduction::ReduceMean,
        reshape::Reshape,
        softmax::SoftMax,
    },
};
use ov_cpu as _;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn values(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
    Tensor::from_vec(shape, data).expect("fits")
}

/// Convolutions with bias, activation and residual, pooling over space, a classifier and a softmax.
fn network() -> Model {
    let mut m = Model::new("network");
    let x = m.add_parameter("x", ElementType::F32, [1, 3, 33, 33]).expect("valid");
    let w = m.add_constant(values(&[24, 3, 3, 3]), "w");
    let same = || Convolution {
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads_begin: vec![1, 1],
        pads_end: vec![1, 1],
        ..Convolution::default()
    };
    let a = m.add(same(), &[x, w], "conv1").expect("valid");
    let b = m.add_constant(values(&[1, 24, 1, 1]), "b");
    let a = m.add(Add {}, &[a, b], "bias").expect("valid");
    let a = m.add(HSwish {}, &[a], "act").expect("valid");
    let w = m.add_constant(values(&[24, 24, 3, 3]), "w2");
    let c = m.add(same(), &[a, w], "conv2").expect("valid");
    let c = m.add(Add {}, &[c, a], "residual").expect("valid");
    let c = m.add(Relu {}, &[c], "relu").expect("valid");
    let axes = m.add_constant(Tensor::from_i64s(&[2, 3]), "axes");
    let p = m.add(ReduceMean { keep_dims: true }, &[c, axes], "pool").expect("valid");
    let target = m.add_constant(Tensor::from_i64s(&[1, 24]), "target");
    let p = m
        .add(Reshape { special_zero: false, ..Reshape::default() }, &[p, target], "flatten")
        .expect("valid");
    let w = m.add_constant(values(&[24, 10]), "w3");
    let y = m.add(MatMul::default(), &[p, w], "classifier").expect("valid");
    let y = m.add(SoftMax { axis: 1 }, &[y], "softmax").expect("valid");
    m.add_output("y", y);
    m
}

#[test]
fn inference_with_static_shapes_allocates_nothing() {
    let model = network();
    let input = values(&[1, 3, 33, 33]);
    let expected =
        ov_core::reference::evaluate(&model, std::slice::from_ref(&input)).expect("runs");
    let core = Core::new().expect("devices");
    for threads in ["1", "2"] {
        let properties =
            PropertyMap::new().with_text("INFERENCE_NUM_THREADS", threads).expect("a number");
        let compiled = core.compile_model(&model, "CPU", &properties).expect("compiles");
        let mut request = compiled.create_infer_request().expect("memory");
        request.set_input("x", input.clone()).expect("fits");
        request.infer().expect("runs");
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..10 {
            request.infer().expect("runs");
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "with {threads} threads");
        let got = request.output("y").expect("there");
        ov_core::testing::compare(got, &expected[0], 1e-4, 1e-5).expect("equal");
    }
}
