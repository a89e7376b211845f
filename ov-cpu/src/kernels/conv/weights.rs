//! Packed weights of a convolution.

use crate::gemm::PackedLayout;
use crate::simd::Isa;

use super::Source;

/// Shape of packed convolution weights: one packed matrix `[taps * channels, outputs]` per group.
///
/// Groups that are narrower than a vector are merged, as blocks on the diagonal of a wider
/// matrix, as long as their outputs fit one vector: the lanes would be idle otherwise. Rows are
/// ordered tap by tap for a channels-last input and channel by channel for a planar one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvWeights {
    taps: usize,
    /// Groups as the model has them.
    groups: usize,
    /// Model groups per packed group.
    merged: usize,
    /// Channels and outputs of one model group.
    channels: usize,
    outputs: usize,
    planar: bool,
    layout: PackedLayout,
}

impl ConvWeights {
    /// The packing for `channels` and `outputs` (of all groups) on `isa`; of `source` only its
    /// kind matters.
    ///
    /// # Panics
    /// If `groups` is 0 or does not divide both channel counts.
    #[must_use]
    pub fn new(
        isa: Isa,
        channels: usize,
        outputs: usize,
        groups: usize,
        taps: usize,
        source: Source,
    ) -> Self {
        assert!(
            groups > 0 && channels.is_multiple_of(groups) && outputs.is_multiple_of(groups),
            "{groups} groups do not divide {channels} channels and {outputs} outputs"
        );
        let (c, o) = (channels / groups, outputs / groups);
        let lanes = if isa.has_avx512() { 16 } else { 8 };
        let most = lanes / o.max(1);
        let merged = (1..=most.max(1)).rev().find(|q| groups.is_multiple_of(*q)).unwrap_or(1);
        let layout = PackedLayout::new(isa, taps * c * merged, o * merged);
        let planar = source == Source::Planar;
        Self { taps, groups, merged, channels: c, outputs: o, planar, layout }
    }

    /// Elements of the packed weights.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.packed_groups() * self.layout.len()
    }

    /// Packs `weights` `[outputs, channels / groups, taps]` to `out`.
    ///
    /// # Panics
    /// If a slice is shorter than the shape says.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        self.pack_from(out, |o, c, t| weights[(o * self.channels + c) * self.taps + t]);
    }

    /// Packs from `weight(output, channel of its group, tap)`.
    pub(crate) fn pack_from(&self, out: &mut [f32], weight: impl Fn(usize, usize, usize) -> f32) {
        let out = &mut out[..self.packed_len()];
        out.fill(0.0);
        let wide = self.merged * self.channels;
        for g in 0..self.groups {
            let (outer, inner) = (g / self.merged, g % self.merged);
            let base = outer * self.layout.len();
            for o in 0..self.outputs {
                let col = inner * self.outputs + o;
                let panel = self.layout.panel(col / self.layout.width());
                let at = base + panel.offset + col - panel.col;
                for c in 0..self.channels {
                    let c_wide = inner * self.channels + c;
                    for t in 0..self.taps {
                        let k =
                            if self.planar { c_wide * self.taps + t } else { t * wide + c_wide };
                        out[at + k * panel.width] = weight(g * self.outputs + o, c, t);
                    }
                }
            }
        }
    }

    /// Packed matrices.
    pub(crate) fn packed_groups(&self) -> usize {
        self.groups / self.merged
    }

    /// Layout of one packed matrix.
    pub(crate) fn layout(&self) -> PackedLayout {
        self.layout
    }

    /// Input channels of one packed matrix.
    pub(crate) fn group_channels(&self) -> usize {
        self.merged * self.channels
    }
}
