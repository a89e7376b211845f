//! Local response normalization.

use std::borrow::Cow;

use ov_core::op::normalization::Lrn;

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{axes_from_front, choice, integers},
    walk::{MAX_RANK, Record, count, dense_strides},
};

/// The family.
pub(super) const LRN: Kernel = Kernel { name: "lrn", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/lrn.cu"),
);

const BLOCK: u32 = 128;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    node.op.downcast::<Lrn>()?;
    let ty = node.inputs.first()?.element_type;
    if !ty.is_float() {
        return Some(Err(unsupported(ty)));
    }
    Some(choice(node, &[1]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op: &Lrn = node.op.downcast().ok_or("is another operator")?;
    let shape = node.inputs[0].shape;
    let ty = node.inputs[0].element_type;
    if shape.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let axes = axes_from_front(&integers(node, 1)?, shape.rank())?;
    if axes.len() > MAX_RANK {
        return Err(format!("takes {MAX_RANK} axes, not {}", axes.len()).into());
    }
    let strides = dense_strides(shape);
    let mut record = Record::default();
    record.u32(count(shape.elements())?).u32(axes.len() as u32);
    for i in 0..MAX_RANK {
        record.divisor(axes.get(i).map_or(1, |a| strides[*a] as u32));
    }
    for i in 0..MAX_RANK {
        record.divisor(count(axes.get(i).map_or(1, |a| shape[*a]))?);
    }
    let size = op.size.max(1);
    let neighbours = |n: i64| n.min(i64::from(i32::MAX)) as i32;
    let scale = op.alpha / (size as f64).powi(axes.len() as i32);
    record.i32(neighbours((size - 1) / 2)).i32(neighbours(size / 2));
    record.f32(scale as f32).f32(op.beta as f32).f32(op.bias as f32);
    let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage.to_owned()),
                ("OV_V", compute_type(ty).unwrap_or(storage).to_owned()),
            ],
        },
        function: "lrn".into(),
        grid: [count(shape.elements())?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Output(0), Arg::Bytes(record.bytes())],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
