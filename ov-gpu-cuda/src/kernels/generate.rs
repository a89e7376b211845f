//! Ranges, identity matrices, triangles, one-hot vectors, and what Dropout is outside of training.

use std::borrow::Cow;

use ov_core::{
    ElementType, Tensor,
    op::{
        generate::{Eye, NegativeIndices, OneHot, OneHot1, Range, Trilu},
        normalization::Dropout,
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    copy::Copy,
    element::{element_bytes, opaque_type, storage_type, unsupported},
    host::{choice, ensure, from_front, is_given, optional_integers, value},
    walk::{Record, count},
};

/// The family.
pub(super) const GENERATE: Kernel = Kernel { name: "generate", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/generate.cu"),
);

const BLOCK: u32 = 256;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op;
    let host: &[usize] = if op.is::<Range>() {
        &[0, 1, 2]
    } else if op.is::<Eye>() {
        &[0, 1, 2, 3]
    } else if op.is::<Dropout>() {
        let zero = |t: &Tensor| t.element_as_f64(0) == Some(0.0);
        let constant = |index: usize| node.inputs[index].constant;
        let trains = is_given(node, 2) && !constant(2).is_some_and(zero);
        if trains && !(is_given(node, 1) && constant(1).is_some_and(zero)) {
            return Some(Err("draws no random numbers".into()));
        }
        &[1, 2]
    } else if op.is::<Trilu>() || op.is::<OneHot>() || op.is::<OneHot1>() {
        &[1]
    } else {
        return None;
    };
    Some(choice(node, host))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    if node.outputs[0].shape.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    if node.op.is::<Dropout>() {
        return dropout(node);
    }
    let launch = if node.op.is::<Range>() {
        range(node)?
    } else if node.op.is::<Eye>() {
        let args = |m| vec![Arg::Output(0), Arg::Bytes(m)];
        launch(node, "eye", None, args(matrices(node, 2)?))?
    } else if let Some(op) = node.op.downcast::<Trilu>() {
        let args = vec![
            Arg::Input(0),
            Arg::Output(0),
            Arg::Bytes(matrices(node, 1)?),
            Arg::I32(i32::from(op.upper)),
        ];
        launch(node, "triangle", None, args)?
    } else {
        one_hot(node)?
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}

/// The data as they are, and a mask of ones.
fn dropout(node: &Binding<'_>) -> Result<Bound, Reject> {
    let len = node.outputs[0].shape.elements();
    let size = element_bytes(node.outputs[0].element_type)?;
    let (from, to) = (vec![1], vec![1]);
    let whole = Copy { size, dims: vec![len], from, to, from_offset: 0, to_offset: 0 };
    let mut step = Step::default();
    step.launches.extend(whole.launch(Arg::Input(0), Arg::Output(0))?);
    if node.outputs.len() > 1 {
        let args = vec![Arg::Output(1), Arg::I32(count(len)? as i32), Arg::I64(1), Arg::I64(0)];
        let mask = source(ElementType::Boolean, storage_type(ElementType::Boolean), None)?;
        step.launches.push(Launch {
            source: mask,
            function: "range_integers".into(),
            grid: [count(len)?.div_ceil(BLOCK), 1, 1],
            block: [BLOCK, 1, 1],
            shared: 0,
            args,
        });
    }
    Ok(Bound::Step(step))
}

/// The module for elements of `storage`, the form of `ty`, and indices.
fn source(
    ty: ElementType,
    storage: Option<&'static str>,
    index: Option<ElementType>,
) -> Result<Source, Reject> {
    let index = index.unwrap_or(ElementType::I32);
    Ok(Source {
        body: Cow::Borrowed(TEXT),
        defines: vec![
            ("OV_ELEMENT", storage.ok_or_else(|| unsupported(ty))?.to_owned()),
            ("OV_INDEX", storage_type(index).ok_or_else(|| unsupported(index))?.to_owned()),
        ],
    })
}

/// A launch with a thread per element of the output. Values that are only moved have a type of their width.
fn launch(
    node: &Binding<'_>,
    function: &'static str,
    index: Option<ElementType>,
    args: Vec<Arg>,
) -> Result<Launch, Reject> {
    let ty = node.outputs[0].element_type;
    let storage = if matches!(function, "triangle" | "one_hot") {
        opaque_type(element_bytes(ty)?)
    } else {
        storage_type(ty)
    };
    Ok(Launch {
        source: source(ty, storage, index)?,
        function: function.into(),
        grid: [count(node.outputs[0].shape.elements())?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args,
    })
}

fn range(node: &Binding<'_>) -> Result<Launch, Reject> {
    let scalar = |index: usize| -> Result<&Tensor, Reject> {
        value(node, index)?.ok_or_else(|| format!("input {index} is missing").into())
    };
    let (start, step) = (scalar(0)?, scalar(2)?);
    let mut args = vec![Arg::Output(0), Arg::I32(count(node.outputs[0].shape.elements())? as i32)];
    let integers = start.element_type().is_integer() && step.element_type().is_integer();
    if integers {
        for t in [start, step] {
            args.push(Arg::I64(t.element_as_i64(0).ok_or("has no start or step")?));
        }
        return launch(node, "range_integers", None, args);
    }
    for t in [start, step] {
        let v = t.element_as_f64(0).ok_or("has no start or step")?;
        args.push(Arg::Bytes(v.to_le_bytes().to_vec()));
    }
    launch(node, "range_reals", None, args)
}

/// The struct `Matrices`; input `index` is the diagonal.
fn matrices(node: &Binding<'_>, index: usize) -> Result<Vec<u8>, Reject> {
    let shape = node.outputs[0].shape;
    let [.., rows, columns] = shape[..] else {
        return Err(format!("takes matrices, not {shape}").into());
    };
    let diagonal = optional_integers(node, index)?.and_then(|v| v.first().copied()).unwrap_or(0);
    let mut record = Record::default();
    record.u32(count(shape.elements())?).divisor(count(columns)?).divisor(count(rows)?);
    // Up to the next multiple of 8.
    record.u32(0).i64(diagonal);
    Ok(record.bytes())
}

fn one_hot(node: &Binding<'_>) -> Result<Launch, Reject> {
    let (axis, from_end) = match (node.op.downcast::<OneHot>(), node.op.downcast::<OneHot1>()) {
        (Some(op), _) => (op.axis, op.negative_indices_mode == NegativeIndices::Normalize),
        (_, Some(op)) => (op.axis, false),
        _ => return Err("is another operator".into()),
    };
    let single = |index: usize| node.inputs[index].shape.elements() == 1;
    ensure(single(2) && single(3), "takes one value for on and one for off")?;
    let shape = node.outputs[0].shape;
    let axis = from_front(axis, shape.rank())?;
    let mut record = Record::default();
    record.u32(count(shape.elements())?).divisor(count(shape[axis + 1..].iter().product())?);
    record.divisor(count(shape[axis])?).u32(u32::from(from_end));
    let args = vec![
        Arg::Input(0),
        Arg::Input(2),
        Arg::Input(3),
        Arg::Output(0),
        Arg::Bytes(record.bytes()),
    ];
    launch(node, "one_hot", Some(node.inputs[0].element_type), args)
}
