//! Element-wise operators that ask something of one value.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{
        Op, OpAttributes, OpResult,
        comparison::{IsFinite, IsInf, IsNaN},
        logical::LogicalNot,
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost};
use crate::kernels::eltwise::predicate::{Predicate, logical_not, predicate_f32};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[KernelEntry {
    name: "predicate",
    ops: &[IsNaN::KIND, IsInf::KIND, IsFinite::KIND, LogicalNot::KIND],
    select,
    bind,
}];

/// Elements of a work item.
const BLOCK: usize = 4096;

/// The question that an operator asks of numbers; none when it asks truth values.
fn predicate(op: &dyn Op) -> Option<Predicate> {
    if let Some(IsInf { detect_negative: negative, detect_positive: positive }) = op.downcast() {
        return Some(Predicate::Infinite { negative: *negative, positive: *positive });
    }
    if op.is::<IsNaN>() {
        return Some(Predicate::Nan);
    }
    op.is::<IsFinite>().then_some(Predicate::Finite)
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let wanted = if view.op.is::<LogicalNot>() { ElementType::Boolean } else { ElementType::F32 };
    let found = view.inputs[0].element_type;
    if found != wanted {
        return Err(format!("takes {wanted}, not {found}").into());
    }
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let len = cx.outputs[0].shape.elements();
    Bound::step(PredicateStep { predicate: predicate(cx.op), len })
}

#[derive(Debug)]
struct PredicateStep {
    /// None for the opposite of truth values.
    predicate: Option<Predicate>,
    len: usize,
}

impl Step for PredicateStep {
    fn items(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 8.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let range = (range.start * BLOCK).min(self.len)..(range.end * BLOCK).min(self.len);
        match self.predicate {
            Some(predicate) => predicate_f32(predicate, io.input(0), &io.output(0), range),
            None => logical_not(io.input(0), &io.output(0), range),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, Shape, Tensor};

    use super::*;
    use crate::nodes::testing::check;

    #[test]
    fn answers_match_the_reference() {
        let values = [0.0, f32::NAN, f32::INFINITY, -1.0, f32::NEG_INFINITY, f32::MAX, -f32::NAN];
        let len = 9001;
        let x: Vec<f32> = values.iter().copied().cycle().take(len).collect();
        let inf = |detect_negative, detect_positive| IsInf { detect_negative, detect_positive };
        let ops: [&dyn Op; 5] =
            [&IsNaN {}, &IsFinite {}, &inf(true, true), &inf(false, true), &inf(true, false)];
        for op in ops {
            let mut m = Model::new("predicate");
            let value = m.add_parameter("x", ElementType::F32, Shape::new(&[len])).expect("valid");
            let y = m.add_node(op.clone_box(), &[value], "y").expect("valid");
            let no = m.add(LogicalNot {}, &[y.into()], "no").expect("valid");
            m.add_output("y", y.into());
            m.add_output("no", no);
            let x = Tensor::from_vec([len], x.clone()).expect("fits");
            check(&format!("{op:?}"), &m, &[x], "predicate", 0.0);
        }
    }
}
