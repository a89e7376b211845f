//! A conversion after one that loses nothing starts from the first type.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::NodeId,
    op::convert::Convert,
    tensor::ElementType::{
        self, Bf16, Boolean, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
    },
};

pub(super) const REWRITE: Rewrite =
    Rewrite { name: "convert of convert", roots: &["Convert"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let middle = m.unary::<Convert>(root.into()).ok_or(NoMatch::Pattern)?;
    let x = m.unary::<Convert>(middle).ok_or(NoMatch::Pattern)?;
    let (from, over, to) = (m.element_type(x), m.element_type(middle), m.element_type(root.into()));
    NoMatch::unless(holds(over, from), "the first conversion may lose something")?;
    if from == to {
        return Ok(Patch::replace(root, x));
    }
    let y = cx.add(Convert { destination_type: to }, &[x], root)?;
    Ok(Patch::replace(root, y))
}

/// Whether `wide` holds every value of `narrow`, and converting it on gives what converting from `narrow` gives.
fn holds(wide: ElementType, narrow: ElementType) -> bool {
    let narrower: &[ElementType] = match wide {
        F32 => &[F16, Bf16, I8, U8, I16, U16],
        F64 => &[F16, Bf16, F32, I8, U8, I16, U16, I32, U32],
        I64 => &[I32, I16, I8, U32, U16, U8, Boolean],
        I32 => &[I16, I8, U16, U8, Boolean],
        U64 => &[U32, U16, U8],
        _ => &[],
    };
    narrower.contains(&narrow)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[REWRITE];

    fn chain(types: &[ElementType]) -> usize {
        let mut b = Build::new();
        let mut v = b.input([2, 3]);
        for ty in types {
            v = b.add(Convert { destination_type: *ty }, &[v]);
        }
        rewritten(&b.output(v), TABLE).len() - 1
    }

    #[test]
    fn only_lossless_steps_are_skipped() {
        for (types, expected) in [
            (&[F64, F32][..], 0),
            (&[F16, F32, F16], 1),
            (&[I32, I64], 2),
            (&[I32, I64, I32], 1),
            (&[I64, I32], 2),
            (&[I64, I32, I64], 3),
            (&[I32, F32, I32], 3),
        ] {
            assert_eq!(chain(types), expected, "{types:?}");
        }
    }
}
