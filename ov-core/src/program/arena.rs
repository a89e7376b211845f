//! Where buffers lie in the arena: by size, largest first, each in the tightest gap that its lifetime leaves.

/// A buffer with the steps during which it is alive, both included.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// The first step.
    pub first: usize,
    /// The last step.
    pub last: usize,
    /// Bytes.
    pub len: usize,
}

/// Offsets of the buffers, in order, multiples of `alignment`, and the length of the arena.
#[must_use]
pub fn place(buffers: &[Lifetime], alignment: usize) -> (Vec<usize>, usize) {
    let rounded = |len: usize| len.next_multiple_of(alignment).max(alignment);
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(buffers[*i].len), buffers[*i].first));
    let mut offsets = vec![0usize; buffers.len()];
    // Placed buffers by offset, so that gaps are found in one walk.
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut total = 0;
    for i in order {
        let buffer = buffers[i];
        let len = rounded(buffer.len);
        let (mut end, mut best) = (0usize, None::<(usize, usize)>);
        for &p in &placed {
            let other = buffers[p];
            if other.first > buffer.last || other.last < buffer.first {
                continue;
            }
            let gap = offsets[p].saturating_sub(end);
            if gap >= len && best.is_none_or(|(size, _)| gap < size) {
                best = Some((gap, end));
            }
            end = end.max(offsets[p] + rounded(other.len));
        }
        offsets[i] = best.map_or(end, |(_, offset)| offset);
        total = total.max(offsets[i] + len);
        let at = placed.partition_point(|p| offsets[*p] <= offsets[i]);
        placed.insert(at, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNMENT: usize = 64;

    use proptest::prelude::*;

    #[test]
    fn buffers_that_do_not_meet_share_memory() {
        let chain: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { first: i, last: i + 1, len: 1000 }).collect();
        let (_, total) = place(&chain, ALIGNMENT);
        assert_eq!(total, 2 * 1024);
    }

    proptest! {
        #[test]
        fn buffers_alive_together_never_overlap(
            buffers in prop::collection::vec((0usize..40, 0usize..20, 0usize..5000), 0..60)
        ) {
            let buffers: Vec<Lifetime> = buffers
                .into_iter()
                .map(|(first, length, len)| Lifetime { first, last: first + length, len })
                .collect();
            let (offsets, total) = place(&buffers, ALIGNMENT);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert_eq!(offsets[i] % ALIGNMENT, 0);
                prop_assert!(offsets[i] + a.len <= total);
                for (j, b) in buffers.iter().enumerate().take(i) {
                    let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                    prop_assert!(apart || a.first > b.last || b.first > a.last);
                }
            }
        }
    }
}
