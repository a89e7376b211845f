//! Sums of two tensors of bytes.

use ov_core::{
    ElementType,
    op::fused::{activation::Activation, quantize::IntegerAdd},
};

use super::{
    super::{
        Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
        element::storage_type,
        host::ensure,
        walk::{Record, count},
    },
    is_byte,
};

/// The family.
pub(in super::super) const INTEGER_ADD: Kernel = Kernel { name: "integer_add", select, bind };

const TEXT: &str = concat!(
    include_str!("../cuda/activation.cuh"),
    include_str!("../cuda/integer.cuh"),
    include_str!("../cuda/integer_add.cu"),
);

const BLOCK: u32 = 128;

/// Elements of a thread.
const VECTOR: u32 = 16;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op.downcast::<IntegerAdd>()?;
    let known = op.activation().map(|_| Choice::default());
    Some(known.map_err(|e| Reject(e.to_string().into())))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op: &IntegerAdd = node.op.downcast().ok_or("is another operator")?;
    let y = node.outputs[0];
    ensure(node.inputs[0].shape == node.inputs[3].shape, "takes tensors of one shape")?;
    let one = |port: &usize| node.inputs[*port].shape.elements() == 1;
    ensure([1, 2, 4, 5, 6, 7].iter().all(one), "takes steps of one size per tensor")?;
    let types = [node.inputs[0].element_type, node.inputs[3].element_type, y.element_type];
    ensure(types.into_iter().all(is_byte), "takes bytes")?;
    let len = count(y.shape.elements())?;
    if len == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let activation = op.activation().map_err(|e| e.to_string())?;
    let (_, [p, q]) = activation.to_parts();
    let mut record = Record::default();
    record.u32(len).f32(p).f32(q);
    let mut args: Vec<Arg> = (0..8).map(Arg::Input).collect();
    args.extend([Arg::Output(0), Arg::Bytes(record.bytes())]);
    let launch = Launch {
        source: source(types[0], types[1], types[2], activation),
        function: "integer_add".into(),
        grid: [len.div_ceil(VECTOR).div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args,
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}

/// The module for these types of both terms and the sum.
pub(super) fn source(
    a: ElementType,
    b: ElementType,
    y: ElementType,
    activation: Activation,
) -> Source {
    let storage = |ty| storage_type(ty).unwrap_or("unsigned char").to_owned();
    Source {
        body: TEXT.into(),
        defines: vec![
            ("OV_A", storage(a)),
            ("OV_B", storage(b)),
            ("OV_Y", storage(y)),
            ("OV_ACTIVATION", activation.to_parts().0.to_string()),
        ],
    }
}
