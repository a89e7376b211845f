//! Caches that grow by runs of slices.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::scatter::{CacheMode, TensorScatter},
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step, Update,
    copy::Copy,
    element::{moved_bytes, opaque_type, storage_type, unsupported},
    gather::units,
    host::{ensure, from_front, is_present, moving_choice},
    walk::{Record, count},
};

/// The family.
pub(super) const CACHE: Kernel = Kernel { name: "cache", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/cache.cu"),
);

const BLOCK: u32 = 256;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    node.op.downcast::<TensorScatter>()?;
    Some(moving_choice(node, &[]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op: &TensorScatter = node.op.downcast().ok_or("is another operator")?;
    let (cache, update) = (node.inputs[0].shape, node.inputs[1].shape);
    let axis = from_front(op.axis, cache.rank())?;
    if axis == 0 || update.rank() != cache.rank() {
        return Err(format!("takes caches with a batch axis, not {cache} with {update}").into());
    }
    let fits = (0..cache.rank())
        .all(|a| if a == axis { update[a] <= cache[a] } else { update[a] == cache[a] });
    let begins = is_present(node, 2);
    let known = !begins || node.inputs[2].shape.elements() == cache[0];
    ensure(fits && known, "takes updates that fit the cache, with one place per batch")?;
    let size = moved_bytes(node.outputs[0].element_type)?;
    let len = cache.elements();
    count(len)?;
    let (from, to) = (vec![1], vec![1]);
    let whole = Copy { size, dims: vec![len], from, to, from_offset: 0, to_offset: 0 };
    let mut step = Step::default();
    step.launches.extend(whole.launch(Arg::Input(0), Arg::Output(0))?);
    step.update = Some(Update { input: 0, copies: step.launches.len() });
    if update.elements() == 0 {
        return Ok(Bound::Step(step));
    }
    let (size, block) = units(size, cache[axis + 1..].iter().product());
    let total = update[..=axis].iter().product::<usize>() * block;
    let mut record = Record::default();
    record.u32(count(total)?).divisor(count(block)?).divisor(count(update[axis])?);
    record.divisor(count(cache[1..axis].iter().product())?).u32(count(cache[axis])?);
    let index = if begins { node.inputs[2].element_type } else { ElementType::I64 };
    let unit = opaque_type(size).ok_or_else(|| Reject::from(format!("units of {size} bytes")))?;
    step.launches.push(Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_ELEMENT", unit.to_owned()),
                ("OV_INDEX", storage_type(index).ok_or_else(|| unsupported(index))?.to_owned()),
                ("OV_BEGINS", u8::from(begins).to_string()),
                ("OV_CIRCULAR", u8::from(op.mode == CacheMode::Circular).to_string()),
            ],
        },
        function: "cache_write".into(),
        grid: [count(total)?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![
            Arg::Input(1),
            Arg::Input(if begins { 2 } else { 1 }),
            Arg::Output(0),
            Arg::Bytes(record.bytes()),
        ],
    });
    Ok(Bound::Step(step))
}
