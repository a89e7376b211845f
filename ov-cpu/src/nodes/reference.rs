//! Operators without a kernel of their own: ov-core's reference evaluation, on one thread.
#![allow(unsafe_code, reason = "lends planned memory to tensors for the time of one evaluation")]

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    io::memory_limit,
    op::{InferContext, InputInfo, Op, OpError, OpResult},
    tensor::TensorBuffer,
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step};

/// The fallback, last in the list.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "reference", ops: &[], select, bind }];

fn select(_: &NodeView<'_>) -> Result<Choice, Reject> {
    Ok(Choice::default())
}

/// The step of a node that a kernel took and cannot bind to the shapes that came.
pub(super) fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let sizes = cx.outputs.iter().map(|o| o.element_type.byte_len(o.shape.elements()));
    expect_memory(sizes.fold(0, |sum, size| sum.saturating_add(size.unwrap_or(usize::MAX))))?;
    Bound::step(Reference {
        op: cx.op.clone_box(),
        inputs: cx
            .inputs
            .iter()
            .map(|i| (i.element_type, i.shape.clone(), held(i.value, i.element_type)))
            .collect(),
        outputs: cx.outputs.iter().map(|o| (o.element_type, o.shape.clone())).collect(),
    })
}

/// Values that have no bytes (texts, the absent marker) cannot come from memory.
fn held(value: Option<&Tensor>, ty: ElementType) -> Option<Tensor> {
    value.filter(|_| ty.bits() == 0).cloned()
}

#[derive(Debug)]
struct Reference {
    op: Box<dyn Op>,
    inputs: Vec<(ElementType, Shape, Option<Tensor>)>,
    outputs: Vec<(ElementType, Shape)>,
}

/// Memory of a step, lent to a tensor.
struct Lent {
    address: *const u8,
    /// 0 once the call is over.
    len: AtomicUsize,
}

// SAFETY: the memory is only read, and `evaluate_lent` makes sure that no tensor outlives the call.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl TensorBuffer for Lent {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `evaluate_lent` builds this from a slice that outlives the evaluation, and sets the length to 0 when
        // that is over; evaluations start no thread that outlives them.
        unsafe { std::slice::from_raw_parts(self.address, self.len.load(Ordering::Acquire)) }
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// Evaluates `op` on memory that is lent for the time of the call; no output shares it afterwards.
pub(crate) fn evaluate_lent(
    op: &dyn Op,
    inputs: &[(ElementType, &Shape, LentInput<'_>)],
    results: Results,
) -> OpResult<Vec<Tensor>> {
    let mut owners: Vec<Arc<Lent>> = Vec::new();
    let mut tensors = Vec::with_capacity(inputs.len());
    for (ty, shape, memory) in inputs {
        tensors.push(match memory {
            LentInput::Held(t) => (*t).clone(),
            LentInput::Bytes(bytes) => {
                let owner =
                    Arc::new(Lent { address: bytes.as_ptr(), len: AtomicUsize::new(bytes.len()) });
                owners.push(Arc::clone(&owner));
                Tensor::from_buffer(*ty, (*shape).clone(), owner, 0)?
            }
        });
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        if results == Results::Unknown {
            check_size(op, &tensors)?;
        }
        op.evaluate(&tensors)
    }));
    drop(tensors);
    let mut result = result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Err(OpError::Invalid(format!("evaluation panicked: {text}")))
    });
    if owners.iter().any(|o| Arc::strong_count(o) > 1) {
        for output in result.iter_mut().flatten() {
            *output = output.to_owned_tensor();
        }
    }
    for owner in &owners {
        owner.len.store(0, Ordering::Release);
    }
    result
}

/// Refuses an evaluation whose results, as far as types and values of the inputs tell, are larger than memory.
fn check_size(op: &dyn Op, inputs: &[Tensor]) -> OpResult<()> {
    let shapes: Vec<PartialShape> = inputs.iter().map(|t| t.shape().into()).collect();
    let infos: Vec<InputInfo<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|(t, shape)| InputInfo {
            element_type: t.element_type(),
            shape,
            value: Some(t),
            dims: None,
        })
        .collect();
    let types = op.infer(&InferContext { inputs: &infos })?;
    let mut bytes = 0usize;
    for ty in &types {
        let len = ty.shape.to_shape().map_or(Some(0), |s| s.checked_len());
        let size = len.and_then(|n| ty.element_type.byte_len(n)).unwrap_or(usize::MAX);
        bytes = bytes.saturating_add(size);
    }
    expect_memory(bytes)
}

/// Refuses results of so many bytes when they are larger than memory.
fn expect_memory(bytes: usize) -> OpResult<()> {
    // Evaluations widen what they compute, some to twice eight bytes an element.
    let limit = memory_limit() / 4;
    if bytes > limit {
        return Err(OpError::Invalid(format!(
            "the result needs {bytes} bytes, more than the limit of {limit} (a quarter of the memory of this process)"
        )));
    }
    Ok(())
}

/// Whether the sizes of the results were checked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    /// When the plan was made.
    Planned,
    /// Not yet.
    Unknown,
}

/// One input of [`evaluate_lent`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum LentInput<'a> {
    /// A tensor of its own.
    Held(&'a Tensor),
    /// Memory lent for the call.
    Bytes(&'a [u8]),
}

impl Step for Reference {
    fn cost_ns(&self) -> f64 {
        let elements: usize = self.outputs.iter().map(|(_, s)| s.elements()).sum();
        500.0 + 5.0 * elements as f64
    }

    fn run(&self, io: &Io<'_>, _: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .enumerate()
            .map(|(i, (ty, shape, held))| {
                let memory =
                    held.as_ref().map_or_else(|| LentInput::Bytes(io.input(i)), LentInput::Held);
                (*ty, shape, memory)
            })
            .collect();
        let outputs = evaluate_lent(&*self.op, &inputs, Results::Planned)?;
        if outputs.len() < self.outputs.len() {
            return Err(OpError::Invalid(format!(
                "gave {} outputs, expected {}",
                outputs.len(),
                self.outputs.len()
            )));
        }
        for (i, ((ty, shape), tensor)) in self.outputs.iter().zip(&outputs).enumerate() {
            if tensor.element_type() != *ty || tensor.shape() != shape {
                return Err(OpError::Invalid(format!(
                    "output {i} is {}{}, inferred {ty}{shape}",
                    tensor.element_type(),
                    tensor.shape()
                )));
            }
            let tensor = tensor.to_contiguous();
            let out = io.output::<u8>(i);
            // SAFETY: the step has one item, so nobody else holds a part of the output.
            unsafe { out.slice(0..out.len()) }.copy_from_slice(tensor.bytes());
        }
        Ok(())
    }
}
