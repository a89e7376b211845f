//! Transposed convolution as one ordinary convolution per output phase.
//!
//! Output position `o` receives tap `k` where `o + pad - k * dilation` is a multiple of the
//! stride. All positions `o = q * stride + f` of a phase `f` use the same taps, so each phase is a
//! convolution of stride 1 over `q` whose outputs are stored `stride` pixels apart. No product
//! with inserted zeros is computed and nothing is accumulated in memory.
#![allow(unsafe_code, reason = "phases write disjoint pixels of one output")]

use std::ops::Range;

use crate::simd::Isa;

use super::plan::OutputMap;
use super::rows::Geometry;
use super::{Conv, ConvArgs, ConvParams, ConvWeights};

/// Taps of one phase in each dimension, ordered by ascending input offset.
type PhaseTaps = [Vec<usize>; 3];

/// A transposed convolution bound to its sizes.
///
/// `ConvParams` describe it with `input` as the small and `output` as the large side:
/// `output = (input - 1) * stride - pad - pad_behind + (kernel - 1) * dilation + 1`.
#[derive(Clone, Debug)]
pub struct ConvTransposed {
    phases: Vec<Phase>,
    packed_len: usize,
    channels: usize,
    outputs: usize,
    groups: usize,
    kernel: [usize; 3],
    /// Neighbouring pixels of a row that one product computes.
    wide: usize,
}

#[derive(Clone, Debug)]
struct Phase {
    conv: Conv,
    taps: PhaseTaps,
    /// First element of the phase's packed weights.
    weights: usize,
    /// First work item.
    item: usize,
}

impl ConvTransposed {
    /// Binds a transposed convolution. The packed weights do not depend on spatial sizes.
    ///
    /// # Panics
    /// If a stride is 0 or groups do not divide the channels.
    #[must_use]
    pub fn new(isa: Isa, p: &ConvParams) -> Self {
        let (mut phases, mut packed_len, mut item) = (Vec::new(), 0, 0);
        let wide = wide(p);
        let step = [p.stride[0], p.stride[1], p.stride[2] / wide];
        let size = [p.output[0], p.output[1], p.output[2] / wide];
        let outputs = p.outputs * wide;
        for z in 0..step[0] {
            for y in 0..step[1] {
                for x in 0..step[2] {
                    let first = [z, y, x];
                    let mut taps = [0, 1, 2].map(|d| phase_taps(p, d, first[d]));
                    if wide > 1 {
                        // Each of the pixels has one tap; `pack` tells them apart by their output.
                        taps[2] = vec![0];
                    }
                    let count = taps.iter().map(Vec::len).product();
                    let weights = ConvWeights::new(isa, p.channels, outputs, p.groups, count);
                    let offsets = [0, 1, 2]
                        .map(|d| taps[d].iter().map(|k| offset(p, d, first[d], *k)).collect());
                    let output =
                        [0, 1, 2].map(|d| size[d].saturating_sub(first[d]).div_ceil(step[d]));
                    let geometry = Geometry { input: p.input, output, stride: [1; 3], offsets };
                    let pixel_stride = p.output_stride * wide;
                    let map = OutputMap { pixel_stride, size, step, first };
                    let conv = Conv::from_parts(
                        isa, weights, geometry, p.source, p.batch, p.channels, outputs, map,
                    );
                    phases.push(Phase { taps, weights: packed_len, item, conv });
                    let phase = &phases[phases.len() - 1];
                    packed_len += phase.conv.weights().packed_len();
                    item += phase.conv.work_items();
                }
            }
        }
        let ConvParams { channels, outputs, groups, kernel, .. } = *p;
        Self { phases, packed_len, channels, outputs, groups, kernel, wide }
    }

    /// How often bias rows repeat the outputs: a product computes this many neighbouring pixels at once, which lie one
    /// after the other. The rows of a residual are as much longer.
    #[must_use]
    pub fn wide(&self) -> usize {
        self.wide
    }

    /// Elements of the packed weights.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.packed_len
    }

    /// Packs `weights` `[channels, outputs / groups, taps]` to `out`.
    ///
    /// # Panics
    /// If a slice is shorter than the shape says.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        let (cg, og) = (self.channels / self.groups, self.outputs / self.groups);
        let [_, height, width] = self.kernel;
        let taps: usize = self.kernel.iter().product();
        for phase in &self.phases {
            let [tz, ty, tx] = &phase.taps;
            let out = &mut out[phase.weights..][..phase.conv.weights().packed_len()];
            phase.conv.weights().pack_from(out, |o, c, t| {
                let (pixel, o) = (o / self.outputs, o % self.outputs);
                let (z, y, x) =
                    (tz[t / (ty.len() * tx.len())], ty[t / tx.len() % ty.len()], tx[t % tx.len()]);
                let channel = o / og * cg + c;
                weights[(channel * og + o % og) * taps + (z * height + y) * width + x + pixel]
            });
        }
    }

    /// Work items; any ranges that cover them once compute the output.
    #[must_use]
    pub fn work_items(&self) -> usize {
        self.phases.iter().map(|p| p.conv.work_items()).sum()
    }

    /// Elements of scratch per thread; it must be aligned to 8 bytes.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.phases.iter().map(|p| p.conv.scratch_len()).max().unwrap_or(0)
    }

    /// Computes the work `items`.
    ///
    /// # Safety
    /// As [`Conv::run`].
    ///
    /// # Panics
    /// As [`Conv::run`].
    pub unsafe fn run(&self, args: &ConvArgs<'_>, items: Range<usize>, scratch: &mut [f32]) {
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        for phase in &self.phases {
            let count = phase.conv.work_items();
            let start = items.start.max(phase.item).min(phase.item + count);
            let end = items.end.clamp(start, (phase.item + count).max(start));
            let weights = &args.weights[phase.weights..];
            // SAFETY: passed on from the caller; phases write different pixels.
            unsafe {
                phase.conv.run(
                    &ConvArgs { weights, ..*args },
                    start - phase.item..end - phase.item,
                    scratch,
                );
            }
        }
    }
}

/// Pixels of a row that one product can compute: all that come from one input pixel, where windows neither overlap nor
/// leave gaps along the row.
fn wide(p: &ConvParams) -> usize {
    let (stride, kernel) = (p.stride[2], p.kernel[2]);
    let touching = stride == kernel && p.dilation[2] == 1 && p.pad[2] == 0;
    let whole = p.output[2] == p.input[2] * stride;
    let dense = p.groups == 1 && p.output_stride == p.outputs;
    if touching && whole && dense { stride } else { 1 }
}

fn phase_taps(p: &ConvParams, d: usize, first: usize) -> Vec<usize> {
    let hits = |k: &usize| {
        let at = (first + p.pad[d]) as isize - (k * p.dilation[d]) as isize;
        at.rem_euclid(p.stride[d] as isize) == 0
    };
    (0..p.kernel[d]).rev().filter(hits).collect()
}

fn offset(p: &ConvParams, d: usize, first: usize, k: usize) -> isize {
    ((first + p.pad[d]) as isize - (k * p.dilation[d]) as isize).div_euclid(p.stride[d] as isize)
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code, reason = "the kernels under test take raw pointers")]

    use super::ConvTransposed;
    use crate::gemm::tests::noise;
    use crate::gemm::{Epilogue, Residual, ResidualPlace};
    use crate::kernels::conv::{ConvArgs, ConvParams, Source};
    use crate::simd::Isa;
    use crate::simd::activation::Activation;

    fn reference(p: &ConvParams, x: impl Fn(usize, usize, usize) -> f32, w: &[f32]) -> Vec<f64> {
        let (cg, og) = (p.channels / p.groups, p.outputs / p.groups);
        let plane: usize = p.input.iter().product();
        let mut y = vec![0.0; p.pixels() * p.outputs];
        for image in 0..p.batch {
            for i in 0..plane {
                let q =
                    [i / (p.input[1] * p.input[2]), i / p.input[2] % p.input[1], i % p.input[2]];
                for tap in 0..p.taps() {
                    let k = [
                        tap / (p.kernel[1] * p.kernel[2]),
                        tap / p.kernel[2] % p.kernel[1],
                        tap % p.kernel[2],
                    ];
                    let at = [0, 1, 2].map(|d| {
                        (q[d] * p.stride[d] + k[d] * p.dilation[d]).wrapping_sub(p.pad[d])
                    });
                    if (0..3).any(|d| at[d] >= p.output[d]) {
                        continue;
                    }
                    let pixel = (0..3).fold(image, |n, d| n * p.output[d] + at[d]);
                    for c in 0..p.channels {
                        for o in 0..og {
                            let out = c / cg * og + o;
                            let product = f64::from(x(image, i, c))
                                * f64::from(w[(c * og + o) * p.taps() + tap]);
                            y[pixel * p.outputs + out] += product;
                        }
                    }
                }
            }
        }
        y
    }

    fn case(
        size: [usize; 4],
        outputs: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
        more: usize,
    ) -> ConvParams {
        let mut p = ConvParams::new_2d(size, outputs, 1, 1, 0);
        (p.kernel, p.stride, p.pad) = ([1, kernel, kernel], [1, stride, stride], [0, pad, pad]);
        p.output = [1, 2, 3]
            .map(|d| if d == 1 { 1 } else { (size[d - 1] - 1) * stride + kernel + more - 2 * pad });
        p
    }

    #[test]
    fn matches_f64_on_every_level() {
        let mut cases = vec![
            case([1, 5, 6, 8], 16, 2, 2, 0, 0),
            case([2, 4, 13, 3], 33, 4, 2, 1, 0),
            case([1, 7, 7, 20], 10, 3, 2, 1, 1),
            case([1, 3, 30, 17], 40, 3, 1, 1, 0),
            case([1, 4, 4, 5], 7, 2, 3, 0, 0),
            case([2, 3, 5, 9], 1, 2, 2, 0, 0),
            case([1, 2, 11, 24], 13, 3, 3, 0, 0),
            case([1, 1, 1, 6], 5, 5, 4, 2, 0),
        ];
        let mut grouped = case([1, 5, 5, 12], 24, 3, 2, 1, 1);
        grouped.groups = 4;
        cases.push(grouped);
        let mut dilated = case([1, 5, 6, 4], 9, 3, 2, 1, 0);
        (dilated.dilation, dilated.output) = ([1, 2, 3], [1, 11, 15]);
        cases.push(dilated);
        let mut deep = case([1, 4, 5, 6], 11, 3, 2, 1, 0);
        (deep.input[0], deep.kernel[0], deep.stride[0], deep.output[0]) = (3, 2, 2, 6);
        cases.push(deep);
        for isa in Isa::available() {
            for p in &cases {
                for planar in [false, true] {
                    check(
                        isa,
                        &ConvParams {
                            source: if planar { Source::Planar } else { p.source },
                            ..*p
                        },
                    );
                }
            }
        }
    }

    fn check(isa: Isa, p: &ConvParams) {
        let plane: usize = p.input.iter().product();
        let x = noise(p.batch * plane * p.channels, 1);
        let w = noise(p.channels * p.outputs / p.groups * p.taps(), 2);
        let (bias, y0) = (noise(p.outputs, 3), noise(p.pixels() * p.outputs, 4));
        let want = reference(
            p,
            |n, i, c| match p.source {
                Source::Planar => x[(n * p.channels + c) * plane + i],
                Source::ChannelsLast { .. } => x[(n * plane + i) * p.channels + c],
            },
            &w,
        );
        let plan = ConvTransposed::new(isa, p);
        let mut packed = vec![f32::NAN; plan.packed_len()];
        plan.pack(&w, &mut packed);
        let mut y = y0.clone();
        let place = ResidualPlace::BeforeActivation;
        let stride = p.outputs * plan.wide();
        let residual = Some(Residual { data: y0.as_ptr(), stride, place });
        let repeated = bias.repeat(plan.wide());
        let epilogue = Epilogue { bias: Some(&repeated), residual, activation: Activation::Relu };
        let args =
            ConvArgs { input: x.as_ptr(), weights: &packed, output: y.as_mut_ptr(), epilogue };
        let mut scratch = vec![0u64; plan.scratch_len().div_ceil(2)];
        let items = plan.work_items();
        for piece in [0..items / 3, items / 3..items / 2, items / 2..items] {
            // SAFETY: the vectors cover the tensors.
            unsafe { plan.run(&args, piece, bytemuck::cast_slice_mut(&mut scratch)) };
        }
        for (i, got) in y.iter().enumerate() {
            let want = (want[i] + f64::from(bias[i % p.outputs]) + f64::from(y0[i])).max(0.0);
            assert!(
                (f64::from(*got) - want).abs() <= 2e-5,
                "{isa} {p:?} element {i}: {got}, want {want}"
            );
        }
    }
}
