//! The largest or smallest elements along an axis.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        Op,
        topk::{TopK, TopK1, TopK3, TopKMode, TopKSort},
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{choice, ensure, from_front},
    walk::{Walk, count, dense_strides},
};

/// The family.
pub(super) const TOPK: Kernel = Kernel { name: "topk", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/group.cuh"),
    include_str!("cuda/topk.cu"),
);

/// Longest line that is sorted in shared memory: 16 bytes an entry at most.
const SORTED: usize = 2048;

/// Results up to which a line is searched again for each.
const SEARCHED: usize = 4;

fn attributes(op: &dyn Op) -> Option<(i64, TopKMode, TopKSort)> {
    macro_rules! read {
        ($($ty:ty),*) => {
            $(if let Some(op) = op.downcast::<$ty>() {
                return Some((op.axis, op.mode, op.sort));
            })*
        };
    }
    read!(TopK, TopK3, TopK1);
    None
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let (axis, _, sort) = attributes(node.op)?;
    let input = node.inputs.first()?;
    if input.element_type == ElementType::Boolean {
        return Some(Err(unsupported(input.element_type)));
    }
    // Long lines by index would need a sort of their own.
    let long = input.shape.rank().is_none_or(|rank| {
        let axis = from_front(axis, rank).ok().and_then(|a| input.shape.dim(a).value());
        axis.is_none_or(|extent| extent > SORTED)
    });
    if sort == TopKSort::Index && long {
        return Some(Err(format!("sorts by index along axes of at most {SORTED} elements").into()));
    }
    Some(choice(node, &[1]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (axis, mode, sort) = attributes(node.op).ok_or("is another operator")?;
    let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
    if y.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let axis = from_front(axis, x.rank())?;
    let (extent, k) = (x[axis], y[axis]);
    ensure(k <= extent, "finds at most as many elements as there are")?;
    let (from, to) = (dense_strides(x), dense_strides(y));
    let rest = |v: &[i64]| [&v[..axis], &v[axis + 1..]].concat();
    let dims = [&x[..axis], &x[axis + 1..]].concat();
    let lines = Walk::merged(&dims, &[rest(&from), rest(&to)]);
    count(x.elements())?;
    let mut record = lines.record()?;
    record.u32(count(extent)?).u32(count(k)?).i32(from[axis] as i32).i32(to[axis] as i32);
    let by_index = sort == TopKSort::Index;
    let searched = extent > SORTED || (k <= SEARCHED && !by_index);
    if searched && by_index {
        return Err(format!(
            "sorts by index along axes of at most {SORTED} elements, not {extent}"
        )
        .into());
    }
    let sorted = extent.min(SORTED).next_power_of_two().max(2);
    let threads = if searched { extent.div_ceil(8) } else { sorted / 2 };
    let ty = node.inputs[0].element_type;
    let index = node.outputs[1].element_type;
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage_type(ty).ok_or_else(|| unsupported(ty))?.to_owned()),
                ("OV_V", compute_type(ty).ok_or_else(|| unsupported(ty))?.to_owned()),
                ("OV_I", storage_type(index).ok_or_else(|| unsupported(index))?.to_owned()),
                ("OV_LARGEST", u8::from(mode == TopKMode::Max).to_string()),
                ("OV_SORTED", sorted.to_string()),
                ("OV_BY_INDEX", u8::from(by_index).to_string()),
            ],
        },
        function: if searched { "topk_select" } else { "topk_sort" }.into(),
        grid: [count(lines.len())?, 1, 1],
        block: [(threads.next_multiple_of(32) as u32).clamp(32, 512), 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Output(0), Arg::Output(1), Arg::Bytes(record.bytes())],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
