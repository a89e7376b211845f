//! Convolution of narrow groups of channels, channels last: of single channels (depthwise), or of as many as divide a
//! vector, whose lanes then take turns in being read by their group.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::simd::Isa;
use crate::simd::activation::{self, Activation};
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;

/// Geometry of a depthwise convolution; a 1-D one has height 1 everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// Channels of input and output.
    pub channels: usize,
    /// Channels of a group, each of which is computed from all of the group: 1 for depthwise convolution, else a divisor
    /// of the vector's lanes and of the channels.
    pub group: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Steps between taps.
    pub dilation: [usize; 2],
    /// Zeros before the first row and column; those after follow from the output size.
    pub pads: [usize; 2],
}

/// What happens to a sum before it is stored: `act(sum + bias + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[channels]`
    pub bias: Option<&'a [f32]>,
    /// Shaped like the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// Channels that packed weights are padded to a multiple of.
pub const PAD: usize = 16;

/// Output rows below which rows are split into items of [`PART`] columns.
const FEW_ROWS: usize = 8;
const PART: usize = 32;

impl Depthwise {
    /// Work items of a batch of `n`: output rows, or parts of them where there are few.
    #[must_use]
    pub fn items(&self, n: usize) -> usize {
        n * self.output[0] * self.parts()
    }

    /// Items of an output row.
    fn parts(&self) -> usize {
        if self.output[0] < FEW_ROWS { self.output[1].div_ceil(PART).max(1) } else { 1 }
    }

    /// The output row, counted over the batch, and the columns of an item.
    #[inline(always)]
    fn part(&self, item: usize) -> (usize, Range<usize>) {
        let parts = self.parts();
        let (row, part) = (item / parts, item % parts);
        if parts == 1 {
            return (row, 0..self.output[1]);
        }
        (row, part * PART..self.output[1].min((part + 1) * PART))
    }

    /// Floats of packed weights: `[kh * kw][group][channels padded to 16]`.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.tap_len()
    }

    /// Floats of the packed weights of a tap.
    #[inline(always)]
    fn tap_len(&self) -> usize {
        self.group * self.channels.next_multiple_of(PAD)
    }

    /// Packs `weights: [channels, group, kh, kw]` as the kernel reads them.
    ///
    /// # Panics
    /// If a slice is shorter than its shape.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let taps = self.kernel[0] * self.kernel[1];
        let padded = self.channels.next_multiple_of(PAD);
        packed[..taps * self.group * padded].fill(0.0);
        for c in 0..self.channels {
            for i in 0..self.group {
                for t in 0..taps {
                    packed[(t * self.group + i) * padded + c] =
                        weights[(c * self.group + i) * taps + t];
                }
            }
        }
    }

    /// The taps along `axis` that read inside the input for output `o`.
    #[inline(always)]
    fn taps(&self, axis: usize, o: usize) -> Range<usize> {
        let start = o * self.stride[axis];
        let before = |limit: usize| limit.saturating_sub(start).div_ceil(self.dilation[axis]);
        let last = before(self.input[axis] + self.pads[axis]).min(self.kernel[axis]);
        before(self.pads[axis]).min(last)..last
    }

    /// The outputs of a row that read inside the input only.
    #[inline(always)]
    fn inner_columns(&self) -> Range<usize> {
        let first = self.pads[1].div_ceil(self.stride[1]).min(self.output[1]);
        let span = (self.kernel[1].max(1) - 1) * self.dilation[1] + 1;
        let fit = self.input[1] + self.pads[1];
        let end = if fit < span { first } else { (fit - span) / self.stride[1] + 1 };
        first..end.clamp(first, self.output[1])
    }
}

/// One output row for one vector of channels.
struct Strip<'a, S: Bits> {
    s: S,
    g: &'a Depthwise,
    /// First valid input row of the window, first column, this strip's channels.
    x: *const f32,
    /// Packed weights of the first valid row of taps, this strip's channels.
    w: *const f32,
    rows: usize,
    bias: S::F,
    residual: Option<*const f32>,
    y: *mut f32,
    low: S::F,
    high: S::F,
    /// Channels of the vector.
    n: usize,
    /// Outputs of the row.
    columns: Range<usize>,
}

impl<S: Bits> Strip<'_, S> {
    /// # Safety
    /// `p` must have `n` readable elements, and a whole vector if `FULL`.
    #[inline(always)]
    unsafe fn load<const FULL: bool>(&self, p: *const f32) -> S::F {
        // SAFETY: the caller's contract.
        unsafe { if FULL { self.s.load(p) } else { self.s.load_n(p, self.n) } }
    }

    /// What member `i` of each group gives to its channels, from the elements at `p`.
    ///
    /// # Safety
    /// As for [`Self::load`].
    #[inline(always)]
    unsafe fn member<const FULL: bool, const GROUPED: bool>(
        &self,
        p: *const f32,
        lanes: S::Lanes,
    ) -> S::F {
        // SAFETY: the caller's contract.
        let v = unsafe { self.load::<FULL>(p) };
        if GROUPED { self.s.permute(v, lanes) } else { v }
    }

    /// # Safety
    /// Output `o` must lie in the row.
    #[inline(always)]
    unsafe fn store<const FULL: bool>(&self, o: usize, acc: S::F) {
        let s = self.s;
        let at = o * self.g.channels;
        let mut v = acc;
        // SAFETY: output o of the row has n channels here, and so has the residual.
        unsafe {
            if let Some(r) = self.residual {
                v = s.add(v, self.load::<FULL>(r.add(at)));
            }
            v = s.min(self.high, s.max(self.low, v));
            let p = self.y.add(at);
            if FULL { s.store(p, v) } else { s.store_n(p, v, self.n) }
        }
    }

    /// `P` outputs from `o`, all of whose column taps are inside the input.
    ///
    /// # Safety
    /// The outputs must lie in the row and their taps in the input.
    #[inline(always)]
    unsafe fn inside<
        const KW: usize,
        const STRIDE: usize,
        const P: usize,
        const FULL: bool,
        const GROUPED: bool,
    >(
        &self,
        o: usize,
    ) {
        let (s, g) = (self.s, self.g);
        let padded = g.channels.next_multiple_of(PAD);
        let mut acc = [self.bias; P];
        let row_step = g.dilation[0] * g.input[1] * g.channels;
        let group = if GROUPED { g.group } else { 1 };
        let (mut k, mut i) = (0, 0);
        while k < self.rows {
            let lanes = s.lane_of_group(group, i);
            // SAFETY: tap rows and columns are inside by the caller's contract; weights are
            // padded to whole vectors.
            unsafe {
                let x = self.x.add(k * row_step + (o * STRIDE - g.pads[1]) * g.channels);
                let wp = self.w.add((k * KW * group + i) * padded);
                let mut w = [s.zero(); KW];
                for (t, w) in w.iter_mut().enumerate() {
                    *w = s.load(wp.add(t * group * padded));
                }
                for j in 0..(P - 1) * STRIDE + KW {
                    let v = self.member::<FULL, GROUPED>(x.add(j * g.channels), lanes);
                    for p in 0..P {
                        if j >= p * STRIDE && j - p * STRIDE < KW {
                            acc[p] = s.fma(v, w[j - p * STRIDE], acc[p]);
                        }
                    }
                }
            }
            i += 1;
            if i == group {
                (k, i) = (k + 1, 0);
            }
        }
        for (p, a) in acc.iter().enumerate() {
            // SAFETY: the outputs lie in the row.
            unsafe { self.store::<FULL>(o + p, *a) };
        }
    }

    /// Output `o` with any taps.
    ///
    /// # Safety
    /// The output must lie in the row.
    #[inline(always)]
    unsafe fn any<const FULL: bool>(&self, o: usize) {
        let (s, g) = (self.s, self.g);
        let padded = g.channels.next_multiple_of(PAD);
        let taps = g.taps(1, o);
        let mut acc = [self.bias, s.zero()];
        let row_step = g.dilation[0] * g.input[1] * g.channels;
        for k in 0..self.rows {
            for t in taps.clone() {
                let column = o * g.stride[1] + t * g.dilation[1] - g.pads[1];
                // SAFETY: `taps` only gives columns inside the input; weights are padded.
                unsafe {
                    let v = self.load::<FULL>(self.x.add(k * row_step + column * g.channels));
                    let w = self.w.add((k * g.kernel[1] + t) * g.tap_len());
                    for i in 0..g.group {
                        let v = s.permute(v, s.lane_of_group(g.group, i));
                        acc[t & 1] = s.fma(v, s.load(w.add(i * padded)), acc[t & 1]);
                    }
                }
            }
        }
        // SAFETY: the caller's contract.
        unsafe { self.store::<FULL>(o, s.add(acc[0], acc[1])) };
    }

    /// `P` outputs from `o`, whose column taps may lie outside the input.
    ///
    /// # Safety
    /// The outputs must lie in the row.
    #[inline(always)]
    unsafe fn border<
        const KW: usize,
        const STRIDE: usize,
        const P: usize,
        const FULL: bool,
        const GROUPED: bool,
    >(
        &self,
        o: usize,
    ) {
        let (s, g) = (self.s, self.g);
        let padded = g.channels.next_multiple_of(PAD);
        let mut acc = [self.bias; P];
        let row_step = g.dilation[0] * g.input[1] * g.channels;
        let group = if GROUPED { g.group } else { 1 };
        let (mut k, mut i) = (0, 0);
        while k < self.rows {
            let lanes = s.lane_of_group(group, i);
            // SAFETY: tap rows are inside, columns are checked; weights are padded to whole vectors.
            unsafe {
                let wp = self.w.add((k * KW * group + i) * padded);
                let mut w = [s.zero(); KW];
                for (t, w) in w.iter_mut().enumerate() {
                    *w = s.load(wp.add(t * group * padded));
                }
                for j in 0..(P - 1) * STRIDE + KW {
                    let column = (o * STRIDE + j).wrapping_sub(g.pads[1]);
                    if column >= g.input[1] {
                        continue;
                    }
                    let at = self.x.add(k * row_step + column * g.channels);
                    let v = self.member::<FULL, GROUPED>(at, lanes);
                    for p in 0..P {
                        if j >= p * STRIDE && j - p * STRIDE < KW {
                            acc[p] = s.fma(v, w[j - p * STRIDE], acc[p]);
                        }
                    }
                }
            }
            i += 1;
            if i == group {
                (k, i) = (k + 1, 0);
            }
        }
        for (p, a) in acc.iter().enumerate() {
            // SAFETY: the outputs lie in the row.
            unsafe { self.store::<FULL>(o + p, *a) };
        }
    }

    /// # Safety
    /// The pointers must be those of a valid row.
    #[inline(always)]
    unsafe fn row<const KW: usize, const STRIDE: usize, const FULL: bool, const GROUPED: bool>(
        &self,
    ) {
        let Range { start: first, end: last } = self.g.inner_columns();
        macro_rules! some {
            ($o:ident, $p:literal) => {{
                // SAFETY: outputs are below ow; those in first..last have all column taps inside.
                unsafe {
                    if $o >= first && $o + ($p - 1) < last {
                        self.inside::<KW, STRIDE, $p, FULL, GROUPED>($o);
                    } else {
                        self.border::<KW, STRIDE, $p, FULL, GROUPED>($o);
                    }
                }
                $o += $p;
            }};
        }
        let mut o = self.columns.start;
        while o < self.columns.end {
            match self.columns.end - o {
                // Sevens leave nothing over of the widths 7 and 14.
                7 | 14 if S::LEN == 16 => some!(o, 7),
                8.. if S::LEN == 16 => some!(o, 8),
                4.. => some!(o, 4),
                2.. => some!(o, 2),
                _ => some!(o, 1),
            }
        }
    }

    /// `P` outputs from `o`, all of whose column taps are inside the input.
    ///
    /// # Safety
    /// The outputs must lie in the row and their taps in the input.
    #[inline(always)]
    unsafe fn inside_any<const P: usize, const FULL: bool, const GROUPED: bool>(&self, o: usize) {
        let (s, g) = (self.s, self.g);
        let padded = g.channels.next_multiple_of(PAD);
        let mut acc = [self.bias; P];
        let row_step = g.dilation[0] * g.input[1] * g.channels;
        let (across, tap_step) = (g.stride[1] * g.channels, g.dilation[1] * g.channels);
        for k in 0..self.rows {
            // SAFETY: tap rows and columns are inside by the caller's contract; weights are padded to whole vectors.
            unsafe {
                let mut x = self.x.add(k * row_step + (o * g.stride[1] - g.pads[1]) * g.channels);
                let mut w = self.w.add(k * g.kernel[1] * g.tap_len());
                for _ in 0..g.kernel[1] {
                    for i in 0..g.group {
                        let lanes = s.lane_of_group(g.group, i);
                        let weight = s.load(w.add(i * padded));
                        for (p, acc) in acc.iter_mut().enumerate() {
                            let v = self.member::<FULL, GROUPED>(x.add(p * across), lanes);
                            *acc = s.fma(v, weight, *acc);
                        }
                    }
                    x = x.wrapping_add(tap_step);
                    w = w.wrapping_add(g.tap_len());
                }
            }
        }
        for (p, a) in acc.iter().enumerate() {
            // SAFETY: the outputs lie in the row.
            unsafe { self.store::<FULL>(o + p, *a) };
        }
    }

    /// A row whose taps have no kernel of their own.
    ///
    /// # Safety
    /// The pointers must be those of a valid row.
    #[inline(always)]
    unsafe fn row_any<const FULL: bool, const GROUPED: bool>(&self) {
        let inner = self.g.inner_columns();
        let mut o = self.columns.start;
        while o < self.columns.end {
            let left = if inner.contains(&o) { inner.end.min(self.columns.end) - o } else { 0 };
            // SAFETY: outputs are below the width; those of `inner` have all column taps inside.
            unsafe {
                match left {
                    8.. if S::LEN == 16 => {
                        self.inside_any::<8, FULL, GROUPED>(o);
                        o += 8;
                    }
                    4.. => {
                        self.inside_any::<4, FULL, GROUPED>(o);
                        o += 4;
                    }
                    _ => {
                        self.any::<FULL>(o);
                        o += 1;
                    }
                }
            }
        }
    }

    /// # Safety
    /// The pointers must be those of a valid row.
    #[inline(always)]
    unsafe fn run<const FULL: bool>(&self) {
        let g = self.g;
        // SAFETY: the caller's contract.
        unsafe {
            match (g.group, g.kernel[1], g.stride[1], g.dilation[1]) {
                (1, 3, 1, 1) => self.row::<3, 1, FULL, false>(),
                (1, 3, 2, 1) => self.row::<3, 2, FULL, false>(),
                (1, 5, 1, 1) => self.row::<5, 1, FULL, false>(),
                (1, 5, 2, 1) => self.row::<5, 2, FULL, false>(),
                (1, 7, 1, 1) => self.row::<7, 1, FULL, false>(),
                (1, 7, 2, 1) => self.row::<7, 2, FULL, false>(),
                (1, ..) => self.row_any::<FULL, false>(),
                (_, 3, 1, 1) => self.row::<3, 1, FULL, true>(),
                (_, 3, 2, 1) => self.row::<3, 2, FULL, true>(),
                _ => self.row_any::<FULL, true>(),
            }
        }
    }
}

#[inline(always)]
fn body<S: Bits>(
    s: S,
    g: &Depthwise,
    x: &[f32],
    packed: &[f32],
    epilogue: &Epilogue<'_>,
    (low, high): (f32, f32),
    out: &Out<'_, f32>,
    item: usize,
) {
    let (row, columns) = g.part(item);
    let (n, oh) = (row / g.output[0], row % g.output[0]);
    let plane = g.input[0] * g.input[1] * g.channels;
    let width = g.output[1] * g.channels;
    let taps = g.taps(0, oh);
    let image = &x[n * plane..(n + 1) * plane];
    assert!(packed.len() >= g.packed_len(), "weights shorter than their packed length");
    let y = out.at(row * width, width);
    let residual = epilogue.residual.map(|r| r[row * width..(row + 1) * width].as_ptr());
    let top = if taps.is_empty() {
        0
    } else {
        (oh * g.stride[0] + taps.start * g.dilation[0] - g.pads[0]) * g.input[1] * g.channels
    };
    let mut c = 0;
    while c < g.channels {
        let n = S::LEN.min(g.channels - c);
        // SAFETY: channel c exists in every pixel of the image, the output row, the residual
        // row and the packed weights; the row range `taps` is inside the input.
        unsafe {
            let strip = Strip {
                s,
                g,
                x: image.as_ptr().add(if taps.is_empty() { 0 } else { top + c }),
                w: packed.as_ptr().add(taps.start * g.kernel[1] * g.tap_len() + c),
                rows: taps.len(),
                bias: match epilogue.bias {
                    Some(b) => s.load_n(b[c..c + n].as_ptr(), n),
                    None => s.zero(),
                },
                residual: residual.map(|r| r.add(c)),
                y: y.add(c),
                low: s.splat(low),
                high: s.splat(high),
                n,
                columns: columns.clone(),
            };
            if n == S::LEN { strip.run::<true>() } else { strip.run::<false>() }
        }
        c += n;
    }
}

instantiate! {
    fn row_f32(
        g: &Depthwise, x: &[f32], packed: &[f32], epilogue: &Epilogue<'_>, clamp: (f32, f32),
        out: &Out<'_, f32>, item: usize,
    ) = body;
}

/// Convolves `x: [n, height, width, channels]` with `packed` weights ([`Depthwise::pack`]) into
/// `out`, items `range` of [`Depthwise::items`].
///
/// # Panics
/// If a slice is shorter than the geometry needs.
pub fn depthwise_f32(
    isa: Isa,
    geometry: &Depthwise,
    x: &[f32],
    packed: &[f32],
    epilogue: &Epilogue<'_>,
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let clamp = epilogue.activation.as_clamp();
    let width = geometry.output[1] * geometry.channels;
    for item in range {
        let bounds = clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        row_f32(isa, geometry, x, packed, epilogue, bounds, out, item);
        if clamp.is_none() {
            let (row, columns) = geometry.part(item);
            let at = row * width;
            let part = at + columns.start * geometry.channels..at + columns.end * geometry.channels;
            // SAFETY: the part belongs to this item, and the kernel above is done with it.
            let part = unsafe { out.slice(part) };
            activation::apply_slice(isa, epilogue.activation, part);
        }
    }
}

#[cfg(test)]
mod tests;
