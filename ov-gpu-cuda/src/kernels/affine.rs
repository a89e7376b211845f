//! Sampling grids of affine maps.

use std::borrow::Cow;

use ov_core::op::vision::AffineGrid;

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{storage_type, unsupported},
    host::{choice, ensure},
    walk::{Record, count},
};

/// The family.
pub(super) const AFFINE: Kernel = Kernel { name: "affine_grid", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/affine.cu"),
);

const BLOCK: u32 = 128;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    node.op.downcast::<AffineGrid>()?;
    Some(choice(node, &[1]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op: &AffineGrid = node.op.downcast().ok_or("is another operator")?;
    let y = node.outputs[0].shape;
    if y.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let ty = node.inputs[0].element_type;
    let axes = y.rank() - 2;
    let maps = node.inputs[0].shape;
    ensure(maps[..] == [y[0], axes, axes + 1], "takes one affine map per image")?;
    if axes > 3 {
        return Err(format!("takes images of one to three axes, not {axes}").into());
    }
    let mut record = Record::default();
    record.u32(count(y.elements() / axes)?).u32(axes as u32);
    for i in 0..3_usize {
        let extent = (i + axes).checked_sub(3).map_or(1, |i| y[1 + i]);
        record.divisor(count(extent)?);
    }
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage_type(ty).ok_or_else(|| unsupported(ty))?.to_owned()),
                ("OV_CORNERS", u8::from(op.align_corners).to_string()),
            ],
        },
        function: "affine_grid".into(),
        grid: [count(y.elements() / axes)?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Output(0), Arg::Bytes(record.bytes())],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
