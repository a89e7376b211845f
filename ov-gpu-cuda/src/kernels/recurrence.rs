//! Recurrent layers whose input products are there.

use ov_core::{
    ElementType,
    op::{
        fused::{
            activation::Activation,
            recurrent::{Cell, Recurrence},
        },
        recurrent::Direction,
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Pack, Reject, Selecting, Source, Step,
    host::{is_given, is_present},
    linear::{constant, pack_f32},
    product::int,
    walk::Record,
};

/// The family.
pub(super) const RECURRENCE: Kernel = Kernel { name: "recurrence", select, bind };

const TEXT: &str = concat!(include_str!("cuda/activation.cuh"), include_str!("cuda/recurrence.cu"));

const WEIGHTS: usize = 4;
const EXTRA: usize = 5;
/// Most threads of a block: as in the text.
const THREADS: usize = 256;
/// Most elements of a state: four of them lie in the shared memory that every GPU has.
const MOST_HIDDEN: usize = 3072;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    Some(choose(node, node.op.downcast::<Recurrence>()?))
}

fn choose(node: &Selecting<'_>, op: &Recurrence) -> Result<Choice, Reject> {
    for index in [0, 1, 2, WEIGHTS, EXTRA] {
        if is_given(node, index) && node.inputs[index].element_type != ElementType::F32 {
            return Err(format!("takes f32, not {}", node.inputs[index].element_type).into());
        }
    }
    if is_given(node, 3)
        && !matches!(node.inputs[3].element_type, ElementType::I32 | ElementType::I64)
    {
        return Err(
            format!("takes lengths of i32 or i64, not {}", node.inputs[3].element_type).into()
        );
    }
    let weights = constant(node, WEIGHTS, "recurrent weights")?;
    let (directions, rows, hidden) = (weights.shape()[0], weights.shape()[1], weights.shape()[2]);
    if hidden > MOST_HIDDEN {
        return Err(format!("takes states of at most {MOST_HIDDEN} elements, not {hidden}").into());
    }
    for direction in 0..directions {
        op.functions(direction).map_err(|e| e.to_string())?;
    }
    let weights = weights.to_contiguous();
    let fill = move |bytes: &mut [u8]| {
        let source = weights.bytes();
        for (at, to) in bytes.chunks_exact_mut(4).enumerate() {
            let (direction, rest) = (at / (rows * hidden), at % (rows * hidden));
            let (k, row) = (rest / rows, rest % rows);
            let from = ((direction * rows + row) * hidden + k) * 4;
            to.copy_from_slice(&source[from..from + 4]);
        }
    };
    let mut choice = Choice { consumed: vec![WEIGHTS], ..Choice::default() };
    choice.packed.push(Pack { len: directions * rows * hidden * 4, fill: Box::new(fill) });
    if is_given(node, EXTRA) {
        let extra = constant(node, EXTRA, "peepholes and recurrent biases")?;
        choice.packed.push(pack_f32(extra, extra.len())?);
        choice.consumed.push(EXTRA);
    }
    choice.params = vec![directions as i64, hidden as i64];
    Ok(choice)
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = node.op.downcast::<Recurrence>().ok_or("is no recurrent layer")?;
    let &[directions, hidden] = node.params else { return Err("has lost its extents".into()) };
    let (directions, hidden) = (directions as usize, hidden as usize);
    let x = node.inputs[0].shape;
    let (batch, length) = (x[0], x[1]);
    if batch * directions * hidden == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let backwards = match op.direction {
        Direction::Forward => 0,
        Direction::Reverse => 1,
        Direction::Bidirectional => 2,
    };
    let mut functions = Vec::new();
    for direction in 0..2 {
        let chosen = op.functions(direction.min(directions - 1)).map_err(|e| e.to_string())?;
        functions.extend(chosen.map(Activation::to_parts));
    }
    let wide = node.inputs.get(3).is_some_and(|i| i.element_type == ElementType::I64);
    let mut r = Record::default();
    r.i32(int(length)?).i32(int(directions)?).i32(int(hidden)?).i32(backwards);
    r.i32(wide.into()).f32(op.clip as f32);
    for (id, _) in &functions {
        r.u32(*id);
    }
    for which in 0..2 {
        for (_, params) in &functions {
            r.f32(params[which]);
        }
    }
    let optional = |index| if is_present(node, index) { Arg::Input(index) } else { Arg::I64(0) };
    let lstm = op.cell == Cell::Lstm;
    let launch = Launch {
        source: source(op.cell),
        function: "recurrence".into(),
        grid: [int(batch * directions)?.unsigned_abs(), 1, 1],
        block: [hidden.next_multiple_of(32).min(THREADS) as u32, 1, 1],
        shared: (4 * hidden * 4) as u32,
        args: vec![
            Arg::Input(0),
            optional(1),
            if lstm { optional(2) } else { Arg::I64(0) },
            optional(3),
            Arg::Packed(0),
            if is_present(node, EXTRA) { Arg::Packed(1) } else { Arg::I64(0) },
            Arg::Output(0),
            Arg::Output(1),
            if lstm { Arg::Output(2) } else { Arg::I64(0) },
            Arg::Bytes(r.bytes()),
        ],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}

fn source(cell: Cell) -> Source {
    let number = match cell {
        Cell::Lstm => 0,
        Cell::Gru => 1,
        Cell::GruLinear => 2,
        Cell::Plain => 3,
    };
    Source { body: TEXT.into(), defines: vec![("OV_CELL", number.to_string())] }
}

/// Every cell.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    [Cell::Lstm, Cell::Gru, Cell::GruLinear, Cell::Plain].map(source).into()
}
