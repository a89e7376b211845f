//! Tree ensembles: several trees are walked at once, so that their cache misses overlap.

use std::ops::Range;

use ov_core::op::ml::{
    Aggregate, LEAF, MODE_EQUAL, MODE_LESS, MODE_LESS_EQUAL, NAN_LEFT, feature_of, mode_of,
    next_node,
};

/// The type of rows, splits and weights.
pub trait Split: Copy + PartialOrd + Send + Sync + 'static {
    /// Words of a node.
    const WORDS: usize;
    /// The split at the head of a node.
    fn split(node: &[u32]) -> Self;
    /// The value in the type that scores are summed in.
    fn wide(self) -> f64;
}

impl Split for f32 {
    const WORDS: usize = 4;
    #[inline(always)]
    fn split(node: &[u32]) -> Self {
        Self::from_bits(node[0])
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Split for f64 {
    const WORDS: usize = 5;
    #[inline(always)]
    fn split(node: &[u32]) -> Self {
        Self::from_bits(u64::from(node[0]) | u64::from(node[1]) << 32)
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

/// The tables of [`ov_core::op::ml::TreeEnsemble`].
#[derive(Clone, Copy, Debug)]
pub struct Trees<'a, T> {
    /// Nodes in preorder.
    pub nodes: &'a [u32],
    /// Roots of the trees.
    pub roots: &'a [u32],
    /// Where the entries of each leaf begin; empty when each has one.
    pub offsets: &'a [u32],
    /// Target of each entry.
    pub targets: &'a [u32],
    /// Weight of each entry.
    pub weights: &'a [T],
    /// Members of sets, each ended by NaN.
    pub members: &'a [T],
}

/// Trees that are walked at once: enough loads in flight to hide a miss, few enough for registers and one cache line.
const WALKS: usize = 12;

impl<T: Split> Trees<'_, T> {
    /// Where the walk of `x` goes from node `at`; to a leaf that is none when the tables are damaged.
    #[inline(always)]
    fn step(&self, x: &[T], at: u32) -> u32 {
        let start = at as usize * T::WORDS;
        let Some(node) = self.nodes.get(start..start + T::WORDS) else { return u32::MAX };
        let flags = node[T::WORDS - 3];
        let Some(v) = x.get(feature_of(flags)).copied() else { return u32::MAX };
        let split = T::split(node);
        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
        let nan = v != v;
        let left = match mode_of(flags) {
            MODE_LESS_EQUAL => v <= split,
            MODE_LESS => v < split,
            MODE_EQUAL => v == split,
            _ => self.is_member(node[0], v),
        };
        let left = left | (nan & (flags & NAN_LEFT != 0));
        next_node(at, if left { node[T::WORDS - 2] } else { node[T::WORDS - 1] })
    }

    #[cold]
    fn is_member(&self, set: u32, v: T) -> bool {
        let set = self.members.get(set as usize..).unwrap_or_default();
        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
        set.iter().take_while(|m| **m == **m).any(|m| *m == v)
    }

    #[inline(always)]
    fn reach(&self, leaf: u32, aggregate: Aggregate, sums: &mut [f64]) {
        let leaf = (leaf & !LEAF) as usize;
        let entries: Range<usize> = match self.offsets.get(leaf..leaf.saturating_add(2)) {
            Some(range) => range[0] as usize..range[1] as usize,
            None => leaf..leaf.saturating_add(1),
        };
        let (targets, weights) = (self.targets.get(entries.clone()), self.weights.get(entries));
        for (target, weight) in targets.unwrap_or_default().iter().zip(weights.unwrap_or_default())
        {
            if let Some(sum) = sums.get_mut(*target as usize) {
                *sum = aggregate.join(*sum, weight.wide());
            }
        }
    }

    /// The leaves that row `x` reaches in the trees of `group`, put together per target in `sums`.
    pub fn run(&self, x: &[T], group: Range<usize>, aggregate: Aggregate, sums: &mut [f64]) {
        sums.fill(if aggregate.is_sum() { 0.0 } else { f64::NAN });
        let roots = self.roots.get(group).unwrap_or_default();
        let mut waiting = roots.iter().copied();
        let mut walks = [0u32; WALKS];
        let mut active = 0;
        for (walk, root) in walks.iter_mut().zip(waiting.by_ref().take(WALKS)) {
            *walk = root;
            active += 1;
        }
        while active > 0 {
            let mut i = 0;
            while i < active {
                let at = walks[i];
                if at & LEAF == 0 {
                    walks[i] = self.step(x, at);
                    i += 1;
                    continue;
                }
                self.reach(at, aggregate, sums);
                if let Some(root) = waiting.next() {
                    walks[i] = root;
                } else {
                    active -= 1;
                    walks[i] = walks[active];
                }
            }
        }
    }
}
