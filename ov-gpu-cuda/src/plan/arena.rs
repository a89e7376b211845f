//! Places values in one piece of memory by their lifetimes.

use crate::program::ALIGNMENT;

/// A value that needs memory from one point in time to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) len: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Offsets for every need, and how much memory that is. Large ones are placed first, each at the lowest offset where
/// nothing lies that lives at the same time.
pub(super) fn place(needs: &[Need]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..needs.len()).filter(|i| needs[*i].len > 0).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(needs[*i].len), needs[*i].first, *i));
    let mut offsets = vec![0; needs.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let need = needs[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|p| needs[**p].first <= need.last && need.first <= needs[**p].last)
            .map(|p| (offsets[*p], offsets[*p] + needs[*p].len))
            .collect();
        taken.sort_unstable();
        let mut at = 0usize;
        for (start, end) in taken {
            if at + need.len <= start {
                break;
            }
            at = at.max(end.next_multiple_of(ALIGNMENT));
        }
        offsets[i] = at;
        total = total.max(at + need.len);
        placed.push(i);
    }
    (offsets, total.next_multiple_of(ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(needs: &[Need]) -> usize {
        let (offsets, total) = place(needs);
        for (i, a) in needs.iter().enumerate() {
            assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.len <= total);
            for (j, b) in needs.iter().enumerate().take(i) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(!together || apart || a.len == 0 || b.len == 0, "{a:?} and {b:?}");
            }
        }
        total
    }

    #[test]
    fn values_that_live_together_lie_apart_and_others_share() {
        let need = |len, first, last| Need { len, first, last };
        assert_eq!(check(&[need(256, 0, 1), need(256, 1, 2), need(256, 2, 3)]), 512);
        assert_eq!(check(&[need(100, 0, 1), need(0, 0, 9), need(1000, 2, 3)]), 1024);
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) % below) as usize
        };
        let many: Vec<Need> = (0..200)
            .map(|_| {
                let first = next(50);
                need(next(5000), first, first + next(10))
            })
            .collect();
        assert!(check(&many) < many.iter().map(|n| n.len).sum::<usize>() / 2);
    }
}
