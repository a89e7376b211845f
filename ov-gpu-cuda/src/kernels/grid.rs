//! Sampling of images at given positions.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::vision::{GridMode, GridPadding, GridSample},
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{storage_type, unsupported},
    host::{choice, ensure},
    walk::{Record, count},
};

/// The family.
pub(super) const GRID: Kernel = Kernel { name: "grid_sample", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/grid.cu"),
);

const BLOCK: u32 = 128;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    node.op.downcast::<GridSample>()?;
    let input = node.inputs.first()?;
    if input.element_type == ElementType::Boolean {
        return Some(Err(unsupported(input.element_type)));
    }
    if !input.shape.rank().is_some_and(|r| (3..=5).contains(&r)) {
        return Some(Err("takes images of one to three axes".into()));
    }
    Some(choice(node, &[]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op: &GridSample = node.op.downcast().ok_or("is another operator")?;
    let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
    if y.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let grid = node.inputs[1].shape;
    let suits = grid.rank() == x.rank() && grid[0] == x[0] && grid.last() == Some(&(x.rank() - 2));
    ensure(suits && x.elements() > 0, "takes one position per axis for every image")?;
    count(x.elements())?;
    let mut record = Record::default();
    record.u32(count(y.elements())?);
    record.divisor(count(y[2..].iter().product())?).divisor(count(x[1])?);
    for i in 0..3 {
        record.u32(count(x.get(2 + i).copied().unwrap_or(1))?);
    }
    let storage = |ty: ElementType| storage_type(ty).ok_or_else(|| unsupported(ty));
    let mode = match op.mode {
        GridMode::Bilinear => 0,
        GridMode::Bicubic => 1,
        GridMode::Nearest => 2,
    };
    let padding = match op.padding_mode {
        GridPadding::Zeros => 0,
        GridPadding::Border => 1,
        GridPadding::Reflection => 2,
    };
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage(node.inputs[0].element_type)?.to_owned()),
                ("OV_G", storage(node.inputs[1].element_type)?.to_owned()),
                ("OV_AXES", (x.rank() - 2).to_string()),
                ("OV_MODE", mode.to_string()),
                ("OV_PADDING", padding.to_string()),
                ("OV_CORNERS", u8::from(op.align_corners).to_string()),
            ],
        },
        function: "grid_sample".into(),
        grid: [count(y.elements())?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0), Arg::Bytes(record.bytes())],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
