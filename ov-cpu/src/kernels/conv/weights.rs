//! Packed weights of a convolution.

use crate::gemm::{BView, PackedLayout, Panel, Stored, pack_panel};
use crate::simd::Isa;

/// Shape of packed convolution weights: one packed matrix `[taps * channels, outputs]` per group.
///
/// Groups that are narrower than a vector are merged, as blocks on the diagonal of a wider
/// matrix, as long as their outputs fit one vector: the lanes would be idle otherwise. For the same
/// reason, where a single group has few outputs, columns stand for several neighbouring output
/// pixels: a kernel of `k` taps across and stride `s` then has `k + (pixels - 1) s` of them, most
/// of which every pixel uses. Rows are ordered tap by tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvWeights {
    /// Taps of all dimensions but the last, and of the last.
    taps: [usize; 2],
    /// Groups as the model has them.
    groups: usize,
    /// Model groups per packed group.
    merged: usize,
    /// Channels and outputs of one model group.
    channels: usize,
    outputs: usize,
    /// Neighbouring output pixels that are computed as one, and the stride between them.
    pixels: usize,
    stride: usize,
    layout: PackedLayout,
}

impl ConvWeights {
    /// The packing for `channels` and `outputs` (of all groups) on `isa`.
    ///
    /// # Panics
    /// If `groups` is 0 or does not divide both channel counts.
    #[must_use]
    pub fn new(isa: Isa, channels: usize, outputs: usize, groups: usize, taps: usize) -> Self {
        assert!(
            groups > 0 && channels.is_multiple_of(groups) && outputs.is_multiple_of(groups),
            "{groups} groups do not divide {channels} channels and {outputs} outputs"
        );
        let (c, o) = (channels / groups, outputs / groups);
        let lanes = if isa.has_avx512() { 16 } else { 8 };
        let most = lanes / o.max(1);
        let merged = (1..=most.max(1)).rev().find(|q| groups.is_multiple_of(*q)).unwrap_or(1);
        let layout = PackedLayout::new(isa, taps * c * merged, o * merged);
        let taps = [1, taps];
        Self { taps, groups, merged, channels: c, outputs: o, pixels: 1, stride: 1, layout }
    }

    /// The packing for a convolution of one group with a `kernel` without dilation in its last
    /// dimension, where outputs of neighbouring pixels are neighbours in memory.
    ///
    /// # Panics
    /// If `channels` or `kernel` are too large for a matrix.
    #[must_use]
    pub fn of_pixels(
        isa: Isa,
        channels: usize,
        outputs: usize,
        kernel: [usize; 3],
        stride: usize,
    ) -> Self {
        let mut new = Self::new(isa, channels, outputs, 1, kernel.iter().product());
        let lanes = if isa.has_avx512() { 16 } else { 8 };
        let per_pixel = |pixels: usize| (kernel[2] + (pixels - 1) * stride) as f64 / pixels as f64;
        let most = lanes / outputs.max(1);
        let best = (1..=most.max(1)).min_by(|a, b| per_pixel(*a).total_cmp(&per_pixel(*b)));
        let pixels = best.unwrap_or(1);
        if per_pixel(pixels) < WORTH_JOINING * per_pixel(1) {
            let (lines, across) = (kernel[0] * kernel[1], kernel[2] + (pixels - 1) * stride);
            new.layout = PackedLayout::new(isa, lines * across * channels, outputs * pixels);
            (new.taps, new.pixels, new.stride) = ([lines, kernel[2]], pixels, stride);
        }
        new
    }

    /// Neighbouring output pixels that one row of the product stands for.
    pub(crate) fn pixels(&self) -> usize {
        self.pixels
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
    pub fn pack<T: Stored>(&self, isa: Isa, weights: &[T], out: &mut [f32]) {
        let taps = self.taps[0] * self.taps[1];
        if self.merged > 1 || self.pixels > 1 {
            self.pack_from(out, |o, c, t| weights[(o * self.channels + c) * taps + t].get());
            return;
        }
        let filter = self.channels * taps;
        for g in 0..self.groups {
            let weights = &weights[g * self.outputs * filter..][..self.outputs * filter];
            let out = &mut out[g * self.layout.len()..][..self.layout.len()];
            for panel in self.layout.all_panels().map(|p| self.layout.panel(p)) {
                self.pack_panel(isa, weights, panel, &mut out[panel.offset..]);
            }
        }
    }

    /// Packs the panel of a group that is not merged. Some channels at a time are brought into the order of the rows,
    /// tap by tap, and then transposed, so that all of it happens in L1.
    fn pack_panel<T: Stored>(&self, isa: Isa, weights: &[T], panel: Panel, out: &mut [f32]) {
        const CHANNELS: usize = 16;
        let (taps, channels) = (self.taps[0] * self.taps[1], self.channels);
        let columns = Panel { col: 0, offset: 0, ..panel };
        if taps == 1 {
            let filters = BView::transposed(&weights[panel.col * channels..], channels);
            return pack_panel(isa, channels, columns, filters, out);
        }
        let mut sorted = vec![0.0; panel.cols * taps * CHANNELS];
        for first in (0..channels).step_by(CHANNELS) {
            let n = CHANNELS.min(channels - first);
            for (o, sorted) in sorted.chunks_exact_mut(taps * CHANNELS).enumerate() {
                let from = ((panel.col + o) * channels + first) * taps;
                for (c, filter) in weights[from..from + n * taps].chunks_exact(taps).enumerate() {
                    for (t, w) in filter.iter().enumerate() {
                        sorted[t * CHANNELS + c] = w.get();
                    }
                }
            }
            for t in 0..taps {
                let rows = &mut out[(t * channels + first) * panel.width..][..n * panel.width];
                let filters = BView::transposed(&sorted[t * CHANNELS..], taps * CHANNELS);
                pack_panel(isa, n, columns, filters, rows);
            }
        }
    }

    /// Packs from `weight(output, channel of its group, tap)`.
    pub(crate) fn pack_from(&self, out: &mut [f32], weight: impl Fn(usize, usize, usize) -> f32) {
        let out = &mut out[..self.packed_len()];
        out.fill(0.0);
        let wide = self.merged * self.channels;
        let [lines, across] = self.taps;
        let across_all = across + (self.pixels - 1) * self.stride;
        for g in 0..self.groups {
            let (outer, inner) = (g / self.merged, g % self.merged);
            let base = outer * self.layout.len();
            for pixel in 0..self.pixels {
                for o in 0..self.outputs {
                    let col = (inner + pixel) * self.outputs + o;
                    let panel = self.layout.panel(col / self.layout.width());
                    let at = base + panel.offset + col - panel.col;
                    for c in 0..self.channels {
                        let c_wide = inner * self.channels + c;
                        for t in 0..lines * across {
                            let tap = t / across * across_all + t % across + pixel * self.stride;
                            let k = tap * wide + c_wide;
                            out[at + k * panel.width] = weight(g * self.outputs + o, c, t);
                        }
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

/// Share of the multiplications that must remain for pixels to be joined.
const WORTH_JOINING: f64 = 0.9;
