//! Padding in every mode.

use std::borrow::Cow;

use ov_core::op::pad::{Pad, Pad1, PadMode};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{moved_bytes, opaque_type},
    host::{ensure, integers, is_present, moving_choice},
    walk::{MAX_RANK, Record, count, dense_strides},
};

/// The family.
pub(super) const PAD: Kernel = Kernel { name: "pad", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/pad.cu"),
);

const BLOCK: u32 = 256;

fn mode(op: &dyn ov_core::op::Op) -> Option<PadMode> {
    let new = op.downcast::<Pad>().map(|op| op.pad_mode);
    new.or_else(|| op.downcast::<Pad1>().map(|op| op.pad_mode))
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    mode(node.op).map(|_| moving_choice(node, &[1, 2]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let mode = mode(node.op).ok_or("is another operator")?;
    let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
    let (begin, end) = (integers(node, 1)?, integers(node, 2)?);
    if begin.iter().chain(&end).all(|p| *p == 0) {
        return Ok(Bound::Alias(0));
    }
    if y.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let step = padding(
        moved_bytes(node.outputs[0].element_type)?,
        mode,
        x,
        y,
        &begin,
        is_present(node, 3) && node.inputs[3].shape.elements() > 0,
    )?;
    Ok(Bound::Step(step))
}

/// The step that pads input 0 of `x` to output 0 of `y`, with the value of input 3 where there is one.
fn padding(
    size: usize,
    mode: PadMode,
    x: &[usize],
    y: &[usize],
    begin: &[i64],
    filled: bool,
) -> Result<Step, Reject> {
    let shown = mode == PadMode::Constant || x.iter().all(|d| *d > 0);
    ensure(shown, "pads nothing with nothing")?;
    if begin.len() != x.len() || y.len() != x.len() {
        return Err(format!("{} pads for {} axes", begin.len(), x.len()).into());
    }
    let strides = dense_strides(x);
    // Extents in the input and the output, padding, stride. Neighbouring axes that are not padded are one.
    let mut axes: Vec<(usize, usize, i64, i64)> = Vec::new();
    for i in 0..x.len() {
        match axes.last_mut() {
            Some(last) if begin[i] == 0 && x[i] == y[i] && last.2 == 0 && last.0 == last.1 => {
                *last = (last.0 * x[i], last.0 * x[i], 0, strides[i]);
            }
            _ => axes.push((x[i], y[i], begin[i], strides[i])),
        }
    }
    if axes.len() > MAX_RANK {
        return Err(format!("takes {MAX_RANK} axes, not {}", axes.len()).into());
    }
    count(x.iter().product())?;
    let total: usize = y.iter().product();
    let mut record = Record::default();
    record.u32(count(total)?).u32(axes.len() as u32);
    let axis = |i: usize| axes.get(i).copied().unwrap_or((1, 1, 0, 0));
    for i in 0..MAX_RANK {
        record.divisor(count(axis(i).1)?);
    }
    for i in 0..MAX_RANK {
        record.u32(count(axis(i).0)?);
    }
    for i in 0..MAX_RANK {
        let begin = axis(i).2;
        record.i32(i32::try_from(begin).map_err(|_| Reject::from(format!("a pad of {begin}")))?);
    }
    for i in 0..MAX_RANK {
        record.i32(axis(i).3 as i32);
    }
    let mode = match mode {
        PadMode::Constant => 0,
        PadMode::Edge => 1,
        PadMode::Reflect => 2,
        PadMode::Symmetric => 3,
        PadMode::Wrap => 4,
    };
    let unit =
        opaque_type(size).ok_or_else(|| Reject::from(format!("elements of {size} bytes")))?;
    let filled = filled && mode == 0;
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![("OV_ELEMENT", unit.to_owned()), ("OV_MODE", mode.to_string())],
        },
        function: "pad".into(),
        grid: [count(total)?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![
            Arg::Input(0),
            Arg::Input(if filled { 3 } else { 0 }),
            Arg::Output(0),
            Arg::Bytes(record.bytes()),
            Arg::I32(i32::from(filled)),
        ],
    };
    Ok(Step { launches: vec![launch], ..Step::default() })
}
