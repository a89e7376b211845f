//! Reading by index: slices, elements, tuples, reversed sequences. An index outside of the data gives zeros.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        Op,
        gather::{Gather, Gather1, Gather7, GatherElements, GatherNd, GatherNd5},
        transpose::ReverseSequence,
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{moved_bytes, opaque_type, storage_type, unsupported},
    host::{axis, ensure, from_front, moving_choice},
    walk::{MAX_RANK, Record, Walk, count, dense_strides},
};

/// The family.
pub(super) const GATHER: Kernel = Kernel { name: "gather", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/gather.cu"),
);

const BLOCK: u32 = 256;

fn batch_dims(op: &dyn Op) -> Option<i64> {
    if let Some(op) = op.downcast::<Gather>() {
        return Some(op.batch_dims);
    }
    if let Some(op) = op.downcast::<Gather7>() {
        return Some(op.batch_dims);
    }
    op.is::<Gather1>().then_some(0)
}

/// Leading axes that data and index tuples share.
fn tuple_batch(op: &dyn Op) -> Option<i64> {
    let new = op.downcast::<GatherNd>().map(|op| op.batch_dims);
    new.or_else(|| op.downcast::<GatherNd5>().map(|op| op.batch_dims))
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op;
    let host: &[usize] = if batch_dims(op).is_some() {
        &[2]
    } else if op.is::<GatherElements>() || tuple_batch(op).is_some() || op.is::<ReverseSequence>() {
        &[]
    } else {
        return None;
    };
    let indices = node.inputs.get(1)?.element_type;
    if !indices.is_integer() && !op.is::<ReverseSequence>() {
        return Some(Err(unsupported(indices)));
    }
    Some(moving_choice(node, host))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    if node.outputs[0].shape.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let launch = if let Some(batch) = batch_dims(node.op) {
        slices(node, batch)?
    } else if let Some(op) = node.op.downcast::<GatherElements>() {
        elements(node, op.axis)?
    } else if let Some(batch) = tuple_batch(node.op) {
        tuples(node, usize::try_from(batch).unwrap_or(0))?
    } else {
        sequences(node)?
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}

/// A launch over `units` units of `size` bytes.
fn launch(
    node: &Binding<'_>,
    function: &'static str,
    size: usize,
    units: usize,
    mut args: Vec<Arg>,
) -> Result<Launch, Reject> {
    let indices = node.inputs[1].element_type;
    let unit = opaque_type(size).ok_or_else(|| Reject::from(format!("units of {size} bytes")))?;
    let mut all = vec![Arg::Input(0), Arg::Input(1), Arg::Output(0)];
    all.append(&mut args);
    Ok(Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_ELEMENT", unit.to_owned()),
                ("OV_INDEX", storage_type(indices).ok_or_else(|| unsupported(indices))?.to_owned()),
            ],
        },
        function: function.into(),
        grid: [count(units)?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: all,
    })
}

/// Elements of `size` bytes that are moved in blocks of `block`, as units of up to 16 bytes: their size and the units of a
/// block.
pub(super) fn units(size: usize, block: usize) -> (usize, usize) {
    let by = [16, 8, 4, 2].into_iter().find(|by| by * size <= 16 && block.is_multiple_of(*by));
    let by = by.unwrap_or(1);
    (size * by, block / by)
}

fn slices(node: &Binding<'_>, batch_dims: i64) -> Result<Launch, Reject> {
    let (data, indices) = (node.inputs[0].shape, node.inputs[1].shape);
    let axis = axis(node, 2, 0, data.rank())?;
    let batch = if batch_dims < 0 { batch_dims + indices.rank() as i64 } else { batch_dims };
    let batch = usize::try_from(batch).ok().filter(|b| *b <= axis && *b <= indices.rank());
    let batch = batch.ok_or_else(|| Reject::from(format!("{batch_dims} batch axes")))?;
    ensure(data[..batch] == indices[..batch], "takes data and indices of the same batches")?;
    let size = moved_bytes(node.inputs[0].element_type)?;
    let (size, block) = units(size, data[axis + 1..].iter().product());
    let picks: usize = indices[batch..].iter().product();
    let outer: usize = data[batch..axis].iter().product();
    let total = data[..axis].iter().product::<usize>() * picks * block;
    count(data.elements())?;
    let mut record = Record::default();
    record.u32(count(total)?).divisor(count(block)?).divisor(count(picks)?);
    record.divisor(count(outer)?).u32(count(data[axis])?);
    launch(node, "gather_slices", size, total, vec![Arg::Bytes(record.bytes())])
}

/// Whether indices along `axis` stay within the other axes of the data.
pub(super) fn fits(indices: &[usize], data: &[usize], axis: usize) -> bool {
    let within = |(a, (i, d)): (usize, (&usize, &usize))| a == axis || i <= d;
    indices.len() == data.len() && indices.iter().zip(data).enumerate().all(within)
}

fn elements(node: &Binding<'_>, axis: i64) -> Result<Launch, Reject> {
    let (data, indices) = (node.inputs[0].shape, node.inputs[1].shape);
    let axis = from_front(axis, data.rank())?;
    ensure(fits(indices, data, axis), "takes indices within the other axes of the data")?;
    let mut strides = dense_strides(data);
    let stride = strides[axis];
    strides[axis] = 0;
    count(data.elements())?;
    let walk = Walk::merged(indices, &[strides]);
    let args = vec![
        Arg::Bytes(walk.record()?.bytes()),
        Arg::I32(count(data[axis])? as i32),
        Arg::I32(count(usize::try_from(stride).unwrap_or(0))? as i32),
    ];
    launch(node, "gather_elements", moved_bytes(node.inputs[0].element_type)?, walk.len(), args)
}

fn tuples(node: &Binding<'_>, batch: usize) -> Result<Launch, Reject> {
    let (data, indices) = (node.inputs[0].shape, node.inputs[1].shape);
    let depth = indices.last().copied().unwrap_or(0);
    if batch + depth > data.rank() || batch >= indices.rank() || depth > MAX_RANK {
        return Err(format!("tuples of {depth} of {data}").into());
    }
    ensure(data[..batch] == indices[..batch], "takes data and indices of the same batches")?;
    let size = moved_bytes(node.inputs[0].element_type)?;
    let (size, block) = units(size, data[batch + depth..].iter().product());
    let indexed = &data[batch..batch + depth];
    let tuples: usize = indices[batch..indices.rank() - 1].iter().product();
    let total = data[..batch].iter().product::<usize>() * tuples * block;
    count(data.elements())?;
    let mut record = Record::default();
    record.u32(count(total)?).u32(count(depth)?).divisor(count(block)?).divisor(count(tuples)?);
    record.u32(count(indexed.iter().product())?);
    let strides = dense_strides(indexed);
    (0..MAX_RANK).try_for_each(|d| {
        record.u32(count(indexed.get(d).copied().unwrap_or(1))?);
        Ok::<_, Reject>(())
    })?;
    for d in 0..MAX_RANK {
        record.u32(strides.get(d).map_or(0, |s| *s as u32));
    }
    launch(node, "gather_tuples", size, total, vec![Arg::Bytes(record.bytes())])
}

fn sequences(node: &Binding<'_>) -> Result<Launch, Reject> {
    let op: &ReverseSequence = node.op.downcast().ok_or("is another operator")?;
    let data = node.inputs[0].shape;
    if node.inputs[1].element_type == ElementType::Boolean {
        return Err("takes lengths of a numeric type".into());
    }
    let (batch, sequence) =
        (from_front(op.batch_axis, data.rank())?, from_front(op.seq_axis, data.rank())?);
    let lengths = node.inputs[1].shape.elements();
    ensure(lengths == data[batch] && batch != sequence, "takes one length per batch")?;
    let inner = |axis: usize| count(data[axis + 1..].iter().product());
    let mut record = Walk::merged(data, &[dense_strides(data)]).record()?;
    record.divisor(inner(sequence)?).divisor(count(data[sequence])?);
    record.divisor(inner(batch)?).divisor(count(data[batch])?);
    let size = moved_bytes(node.inputs[0].element_type)?;
    launch(node, "reverse_sequences", size, data.elements(), vec![Arg::Bytes(record.bytes())])
}
