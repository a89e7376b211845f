//! Kernels on the processor, against the reference of their operators.

mod attention;
mod convolution;
mod image;
mod index;
mod integer;
mod linear;
mod matmul;
mod movement;
mod recurrence;
mod rows;
mod sources;

pub(crate) use sources::sources;

use ov_core::{ElementType, Tensor, op::Op};

use super::Kernel;
use crate::testing::{KernelTest, check, noise};

/// A node on these inputs; `tolerance` as in [`KernelTest::new`].
#[track_caller]
fn try_node(kernel: &Kernel, op: &dyn Op, inputs: &[Tensor], tolerance: f64) {
    check(&KernelTest::new(kernel, op, inputs, tolerance));
}

/// Whole numbers around zero, or from it on in an unsigned type.
fn whole(ty: ElementType, shape: &[usize], seed: u32) -> Tensor {
    let wide = noise(ElementType::F64, shape, seed);
    let low = if ty.is_unsigned_integer() { 2.0 } else { 0.0 };
    let values: Vec<f64> =
        wide.to_f64_vec().expect("floats").iter().map(|v| ((v + low) * 30.0).round()).collect();
    Tensor::from_f64s::<f64>(shape, &values).expect("fits").cast(ty).expect("native")
}

fn i64s(values: &[i64]) -> Tensor {
    Tensor::from_i64s(values)
}
