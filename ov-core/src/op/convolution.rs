//! Convolution and its transpose, grouped and not.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::checked_len,
    present,
    reshape::target_shape,
    window::{AutoPad, Rounding, Window, advance, spatial},
};
use crate::{
    dispatch_numeric,
    tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor, TensorBuffer},
};

define_op! {
    /// Convolution of data `[n, c, …]` with filters `[o, c, k…]`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/convolution/convolution-1.html>
    pub struct Convolution("Convolution", 1) {
        /// Distance of neighbouring windows.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring filter elements.
        dilations: Vec<i64> = Vec::new(),
        /// Padding before the data.
        pads_begin: Vec<i64> = Vec::new(),
        /// Padding after the data.
        pads_end: Vec<i64> = Vec::new(),
        /// How padding is found.
        auto_pad: AutoPad = AutoPad::Explicit,
    }
}

define_op! {
    /// Convolution in groups of channels: filters `[g, o / g, c / g, k…]`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/convolution/group-convolution-1.html>
    pub struct GroupConvolution("GroupConvolution", 1) {
        /// Distance of neighbouring windows.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring filter elements.
        dilations: Vec<i64> = Vec::new(),
        /// Padding before the data.
        pads_begin: Vec<i64> = Vec::new(),
        /// Padding after the data.
        pads_end: Vec<i64> = Vec::new(),
        /// How padding is found.
        auto_pad: AutoPad = AutoPad::Explicit,
    }
}

define_op! {
    /// Transposed convolution of data `[n, c, …]` with filters `[c, o, k…]`; the third input may give the spatial shape.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/convolution/convolution-backprop-data-1.html>
    pub struct ConvolutionBackpropData("ConvolutionBackpropData", 1) {
        /// Distance of neighbouring windows in the output.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring filter elements.
        dilations: Vec<i64> = Vec::new(),
        /// What is cut off the beginning of the output.
        pads_begin: Vec<i64> = Vec::new(),
        /// What is cut off the end of the output.
        pads_end: Vec<i64> = Vec::new(),
        /// How the cut is found.
        auto_pad: AutoPad = AutoPad::Explicit,
        /// What is added to the end of the output.
        output_padding: Vec<i64> = Vec::new(),
    }
}

define_op! {
    /// Transposed convolution in groups: filters `[g, c / g, o / g, k…]`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/convolution/group-convolution-backprop-data-1.html>
    pub struct GroupConvolutionBackpropData("GroupConvolutionBackpropData", 1) {
        /// Distance of neighbouring windows in the output.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring filter elements.
        dilations: Vec<i64> = Vec::new(),
        /// What is cut off the beginning of the output.
        pads_begin: Vec<i64> = Vec::new(),
        /// What is cut off the end of the output.
        pads_end: Vec<i64> = Vec::new(),
        /// How the cut is found.
        auto_pad: AutoPad = AutoPad::Explicit,
        /// What is added to the end of the output.
        output_padding: Vec<i64> = Vec::new(),
    }
}

/// The attributes that the four operators share.
struct Settings<'a> {
    strides: &'a [i64],
    dilations: &'a [i64],
    begin: &'a [i64],
    end: &'a [i64],
    auto: AutoPad,
    grouped: bool,
}

impl Settings<'_> {
    fn windows(&self, kernel: &[usize]) -> OpResult<Vec<Window>> {
        Window::from_attributes(kernel, self.strides, self.dilations, self.begin, self.end)
    }

    /// Groups, first and second channel extents and kernel of filters.
    fn filter_dims(&self, filters: &[Dimension]) -> (Dimension, Dimension, Dimension, Vec<Dimension>) {
        let one = Dimension::fixed(1);
        let (g, rest) = if self.grouped { (filters[0], &filters[1..]) } else { (one, filters) };
        (g, rest[0], rest[1], rest[2..].to_vec())
    }

    fn check(&self, cx: &InferContext<'_>) -> OpResult<Option<usize>> {
        cx.common_type([0, 1])?;
        let extra = usize::from(self.grouped);
        let rank = cx.shape(0).rank().or_else(|| cx.shape(1).rank().and_then(|r| r.checked_sub(extra)));
        if let Some(rank) = rank {
            op_ensure!((3..=8).contains(&rank), "data of rank {rank}, expected 3 to 8");
            cx.expect_rank(0, rank..=rank)?;
            cx.expect_rank(1, rank + extra..=rank + extra)?;
        }
        Ok(rank)
    }
}

fn channels_error(data: &PartialShape, filters: &PartialShape) -> OpError {
    OpError::Input {
        index: 1,
        got: format!("shape {filters}"),
        expected: format!("filters for the channels of {data}"),
    }
}

fn infer_forward(cx: &InferContext<'_>, s: &Settings<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    let ty = cx.common_type([0, 1])?;
    let (data, filters) = (cx.shape(0), cx.shape(1));
    let Some(rank) = s.check(cx)? else {
        return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]);
    };
    let Some(f) = filters.dims() else {
        let mut shape = PartialShape::dynamic_rank(rank);
        if let Some(d) = shape.dims_mut() {
            d[0] = data.dim(0);
        }
        return Ok(vec![OutputType::new(ty, shape)]);
    };
    let (groups, outs, ins, kernel) = s.filter_dims(f);
    groups.mul(ins).intersect(data.dim(1)).ok_or_else(|| channels_error(&data, &filters))?;
    let mut out = vec![data.dim(0), groups.mul(outs)];
    let known: Option<Vec<usize>> = kernel.iter().map(|k| k.value()).collect();
    match (known, spatial(&data)) {
        (Some(kernel), Some(extents)) => {
            op_ensure!(kernel.iter().all(|k| *k > 0), "filters {filters} are empty");
            for (w, d) in s.windows(&kernel)?.iter().zip(extents) {
                out.push(w.output_dim(*d, s.auto, Rounding::Floor)?);
            }
        }
        _ => out.resize(rank, Dimension::DYNAMIC),
    }
    Ok(vec![OutputType::new(ty, PartialShape::new(&out))])
}

/// Extents of one convolution: data `[n, g × ins, …]`, filters `[g, outs, ins, k…]` (forward naming).
struct Problem {
    batch: usize,
    groups: usize,
    outs: usize,
    ins: usize,
    windows: Vec<Window>,
    wide: Vec<usize>,
    narrow: Vec<usize>,
}

/// What sums run in: wide enough that the result is that of exact arithmetic, rounded once.
trait Accumulate: Element {
    type Sum: Copy + std::ops::AddAssign + std::ops::Mul<Output = Self::Sum> + Default;
    fn widen(self) -> Self::Sum;
    fn narrow(sum: Self::Sum) -> Self;
}

macro_rules! accumulate {
    ($sum:ty, $to:ident, $from:ident: $($t:ty),*) => {$(
        impl Accumulate for $t {
            type Sum = $sum;
            fn widen(self) -> $sum { self.$to() }
            fn narrow(sum: $sum) -> Self { Self::$from(sum) }
        }
    )*};
}

mod sums {
    use super::{Accumulate, Element};

    #[derive(Clone, Copy, Default)]
    pub(super) struct Wrapping(i64);

    impl std::ops::AddAssign for Wrapping {
        fn add_assign(&mut self, other: Self) {
            self.0 = self.0.wrapping_add(other.0);
        }
    }

    impl std::ops::Mul for Wrapping {
        type Output = Self;
        fn mul(self, other: Self) -> Self {
            Self(self.0.wrapping_mul(other.0))
        }
    }

    trait Wrap: Element {
        fn to_sum(self) -> Wrapping {
            Wrapping(self.to_i64())
        }
        fn from_sum(sum: Wrapping) -> Self {
            Self::from_i64(sum.0)
        }
    }

    impl<T: Element> Wrap for T {}

    trait Real: Element {
        fn to_real(self) -> f64 {
            self.to_f64()
        }
        fn from_real(sum: f64) -> Self {
            Self::from_f64(sum)
        }
    }

    impl<T: Element> Real for T {}

    accumulate!(f64, to_real, from_real: f32, f64, half::f16, half::bf16);
    accumulate!(Wrapping, to_sum, from_sum: i8, i16, i32, i64, u8, u16, u32, u64);
}

/// Row-wise convolution: one filter element times one row of data added to one row of sums.
fn convolve<T: Accumulate>(p: &Problem, data: &[T], filters: &[T]) -> Vec<T> {
    let (in_plane, out_plane): (usize, usize) = (p.wide.iter().product(), p.narrow.iter().product());
    let kernel: Vec<usize> = p.windows.iter().map(|w| w.kernel).collect();
    let kernel_len: usize = kernel.iter().product();
    let last = p.windows.len() - 1;
    let (row, width) = (p.narrow[last], p.wide[last]);
    let w = p.windows[last];
    let mut out = Vec::with_capacity(p.batch * p.groups * p.outs * out_plane);
    let mut sums = vec![T::Sum::default(); out_plane];
    for n in 0..p.batch {
        for o in 0..p.groups * p.outs {
            sums.fill(T::Sum::default());
            let group = o / p.outs;
            for c in 0..p.ins {
                let plane = &data[((n * p.groups + group) * p.ins + c) * in_plane..][..in_plane];
                let taps = &filters[(o * p.ins + c) * kernel_len..][..kernel_len];
                let mut at = vec![0usize; last];
                let mut base = 0;
                loop {
                    let rows = (0..last).map(|a| p.windows[a].inside(at[a], p.wide[a]));
                    let rows: smallvec::SmallVec<[_; 4]> = rows.collect();
                    let mut k = vec![0usize; last];
                    for (tap_row, taps) in taps.chunks_exact(w.kernel).enumerate() {
                        if tap_row > 0 {
                            advance(&mut k, &kernel[..last]);
                        }
                        if !rows.iter().zip(&k).all(|((inside, _), k)| inside.contains(k)) {
                            continue;
                        }
                        let start = rows.iter().zip(&k).enumerate().fold(0usize, |s, (a, ((_, first), k))| {
                            s * p.wide[a] + (first + (k * p.windows[a].dilation) as i64) as usize
                        }) * width;
                        let source = &plane[start..start + width];
                        for (x, tap) in taps.iter().enumerate() {
                            let tap = tap.widen();
                            let first = (x * w.dilation) as i64 - w.begin;
                            let from = if first < 0 { (-first) as usize } else { 0 }.div_ceil(w.stride);
                            let until = (width as i64 - first).max(0) as usize;
                            let to = until.div_ceil(w.stride).min(row);
                            for ox in from..to {
                                let v = source[(first + (ox * w.stride) as i64) as usize].widen();
                                sums[base + ox] += tap * v;
                            }
                        }
                    }
                    base += row;
                    if !advance(&mut at, &p.narrow[..last]) {
                        break;
                    }
                }
            }
            out.extend(sums.iter().map(|s| T::narrow(*s)));
        }
    }
    out
}

/// Spreads each data element over the output through the filters `[g, ins, outs, k…]`.
fn spread<T: Accumulate>(p: &Problem, data: &[T], filters: &[T]) -> Vec<T> {
    let (in_plane, out_plane): (usize, usize) = (p.narrow.iter().product(), p.wide.iter().product());
    let kernel: Vec<usize> = p.windows.iter().map(|w| w.kernel).collect();
    let kernel_len: usize = kernel.iter().product();
    let mut out = Vec::with_capacity(p.batch * p.groups * p.outs * out_plane);
    let mut sums = vec![T::Sum::default(); out_plane];
    let mut targets: Vec<(usize, usize)> = Vec::new();
    let mut at = vec![0usize; kernel.len()];
    let mut k = vec![0usize; kernel.len()];
    for n in 0..p.batch {
        for o in 0..p.groups * p.outs {
            sums.fill(T::Sum::default());
            let (group, member) = (o / p.outs, o % p.outs);
            at.fill(0);
            for position in 0..in_plane {
                targets.clear();
                k.fill(0);
                let ranges: smallvec::SmallVec<[_; 4]> =
                    (0..kernel.len()).map(|a| p.windows[a].inside(at[a], p.wide[a])).collect();
                for tap in 0..kernel_len {
                    if ranges.iter().zip(&k).all(|((inside, _), k)| inside.contains(k)) {
                        let target = ranges.iter().zip(&k).enumerate().fold(0usize, |s, (a, ((_, first), k))| {
                            s * p.wide[a] + (first + (k * p.windows[a].dilation) as i64) as usize
                        });
                        targets.push((tap, target));
                    }
                    advance(&mut k, &kernel);
                }
                for c in 0..p.ins {
                    let v = data[((n * p.groups + group) * p.ins + c) * in_plane + position].widen();
                    let taps = &filters[((group * p.ins + c) * p.outs + member) * kernel_len..][..kernel_len];
                    for (tap, target) in &targets {
                        sums[*target] += taps[*tap].widen() * v;
                    }
                }
                advance(&mut at, &p.narrow);
            }
            out.extend(sums.iter().map(|s| T::narrow(*s)));
        }
    }
    out
}

fn run(
    p: &Problem,
    inputs: &[Tensor],
    shape: &[usize],
    forward: bool,
) -> OpResult<Vec<Tensor>> {
    checked_len(shape)?;
    let (data, filters) = (inputs[0].to_contiguous(), inputs[1].to_contiguous());
    let ty: ElementType = data.element_type();
    if shape.contains(&0) || data.is_empty() || filters.is_empty() {
        return Ok(vec![Tensor::zeros(ty, shape)?]);
    }
    fn typed<T: Accumulate>(p: &Problem, data: &Tensor, filters: &Tensor, shape: &[usize], forward: bool) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let (data, filters) = (data.as_slice::<T>()?, filters.as_slice::<T>()?);
        let out = if forward { convolve(p, data, filters) } else { spread(p, data, filters) };
        Ok(Tensor::from_vec(shape, out)?)
    }
    let out = dispatch_numeric!(ty, T => typed::<T>(p, &data, &filters, shape, forward), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })?;
    Ok(vec![out])
}

/// Data shape and filters as `[g, a, b, k…]`.
fn shapes(inputs: &[Tensor], grouped: bool) -> OpResult<(Shape, Vec<usize>)> {
    let data = inputs[0].shape().clone();
    let mut filters = inputs[1].shape().to_vec();
    if !grouped {
        filters.insert(0, 1);
    }
    op_ensure!(
        data.rank() >= 3 && filters.len() == data.rank() + 1,
        "data {data} and filters {} do not suit each other",
        inputs[1].shape()
    );
    Ok((data, filters))
}

fn evaluate_forward(inputs: &[Tensor], s: &Settings<'_>) -> OpResult<Vec<Tensor>> {
    let (data, filters) = shapes(inputs, s.grouped)?;
    let (groups, outs, ins) = (filters[0], filters[1], filters[2]);
    if groups.checked_mul(ins) != Some(data[1]) {
        return Err(channels_error(&(&data).into(), &inputs[1].shape().into()));
    }
    let windows: Vec<Window> = s
        .windows(&filters[3..])?
        .iter()
        .zip(&data[2..])
        .map(|(w, d)| w.padded(s.auto, *d))
        .collect();
    let narrow: Vec<usize> = windows
        .iter()
        .zip(&data[2..])
        .map(|(w, d)| Ok(w.output_dim(Dimension::fixed(*d), AutoPad::Explicit, Rounding::Floor)?.min()))
        .collect::<OpResult<_>>()?;
    let shape = [&[data[0], groups.saturating_mul(outs)], narrow.as_slice()].concat();
    let p = Problem { batch: data[0], groups, outs, ins, windows, wide: data[2..].to_vec(), narrow };
    run(&p, inputs, &shape, true)
}

struct Backward<'a> {
    settings: Settings<'a>,
    output_padding: &'a [i64],
}

impl Backward<'_> {
    /// The window of axis `i` with its cut, and the output extent, for an input of known extent.
    fn axis(
        &self,
        i: usize,
        window: Window,
        extent: usize,
        wanted: Option<usize>,
    ) -> OpResult<(Window, usize)> {
        let added = self.output_padding.get(i).copied().unwrap_or(0);
        op_ensure!((0..=i64::from(i32::MAX)).contains(&added), "output_padding is {added}");
        let whole = extent
            .saturating_sub(1)
            .saturating_mul(window.stride)
            .saturating_add(window.span());
        let whole = i64::try_from(whole).ok().and_then(|v| v.checked_add(added));
        let whole = whole.ok_or_else(|| OpError::Invalid("the output is too large".to_owned()))?;
        let auto = self.settings.auto;
        let explicit = (window.begin, window.end);
        let same = extent.saturating_mul(window.stride);
        let target = match (wanted, auto) {
            (Some(w), AutoPad::Explicit) if explicit != (0, 0) => return Ok((window, w)),
            (Some(w), _) => Some(w),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => Some(same),
            (None, AutoPad::Explicit | AutoPad::Valid) => None,
        };
        let (begin, end) = match (target, auto) {
            (_, AutoPad::Valid) => (0, 0),
            (None, _) => explicit,
            (Some(target), _) => {
                let cut = (whole - i64::try_from(target).unwrap_or(i64::MAX)).max(0);
                let small = cut / 2;
                if auto == AutoPad::SameLower { (cut - small, small) } else { (small, cut - small) }
            }
        };
        let out = whole - begin - end;
        op_ensure!(out >= 0, "the padding cuts the whole output off");
        let out = if extent == 0 { 0 } else { out as usize };
        Ok((Window { begin, end, ..window }, wanted.unwrap_or(out)))
    }

    /// [`Self::axis`] for every axis.
    fn axes(
        &self,
        kernel: &[usize],
        extents: &[usize],
        wanted: Option<&[usize]>,
    ) -> OpResult<Vec<(Window, usize)>> {
        let windows = self.windows(kernel)?;
        op_ensure!(
            windows.len() == extents.len() && wanted.is_none_or(|w| w.len() == extents.len()),
            "output shape {wanted:?} for spatial extents {extents:?} and a kernel {kernel:?}"
        );
        windows
            .into_iter()
            .zip(extents)
            .enumerate()
            .map(|(i, (window, extent))| self.axis(i, window, *extent, wanted.map(|w| w[i])))
            .collect()
    }

    fn windows(&self, kernel: &[usize]) -> OpResult<Vec<Window>> {
        let added = self.output_padding.len();
        op_ensure!(
            added == 0 || added == kernel.len(),
            "output_padding has {added} values, expected {}",
            kernel.len()
        );
        self.settings.windows(kernel)
    }

    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        let ty = cx.common_type([0, 1])?;
        let (data, filters) = (cx.shape(0), cx.shape(1));
        let Some(rank) = self.settings.check(cx)? else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]);
        };
        let mut out = vec![data.dim(0), Dimension::DYNAMIC];
        let wanted = if cx.len() > 2 { Some(target_shape(cx, 2)?) } else { None };
        if let Some(f) = filters.dims() {
            let (groups, ins, outs, kernel) = self.settings.filter_dims(f);
            groups.mul(ins).intersect(data.dim(1)).ok_or_else(|| channels_error(&data, &filters))?;
            out[1] = groups.mul(outs);
            let known: Option<Vec<usize>> = kernel.iter().map(|k| k.value()).collect();
            if let (Some(kernel), None) = (known, &wanted) {
                op_ensure!(kernel.iter().all(|k| *k > 0), "filters {filters} are empty");
                let windows = self.windows(&kernel)?;
                for (i, d) in spatial(&data).unwrap_or_default().iter().enumerate() {
                    let at = |v: usize| self.axis(i, windows[i], v, None).map(|r| r.1);
                    out.push(match d.value() {
                        Some(v) => Dimension::fixed(at(v)?),
                        None => d.map(|v| at(v).unwrap_or(0)),
                    });
                }
            }
        }
        if let Some(wanted) = wanted
            && let Some(dims) = wanted.dims() {
                op_ensure!(dims.len() == rank - 2, "output shape {wanted} for {} spatial axes", rank - 2);
                out.extend(dims);
            }
        out.resize(rank, Dimension::DYNAMIC);
        Ok(vec![OutputType::new(ty, PartialShape::new(&out))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, filters) = shapes(inputs, self.settings.grouped)?;
        let (groups, ins, outs) = (filters[0], filters[1], filters[2]);
        if groups.checked_mul(ins) != Some(data[1]) {
            return Err(channels_error(&(&data).into(), &inputs[1].shape().into()));
        }
        let wanted = present(inputs, 2).map(|t| super::reshape::usizes(t, "extent")).transpose()?;
        let (windows, wide): (Vec<_>, Vec<_>) =
            self.axes(&filters[3..], &data[2..], wanted.as_deref())?.into_iter().unzip();
        let shape = [&[data[0], groups.saturating_mul(outs)], wide.as_slice()].concat();
        let p = Problem { batch: data[0], groups, outs, ins, windows, wide, narrow: data[2..].to_vec() };
        run(&p, inputs, &shape, false)
    }
}

macro_rules! forward_rules {
    ($($op:ident: $grouped:literal),*) => {$(
        impl $op {
            fn settings(&self) -> Settings<'_> {
                Settings {
                    strides: &self.strides,
                    dilations: &self.dilations,
                    begin: &self.pads_begin,
                    end: &self.pads_end,
                    auto: self.auto_pad,
                    grouped: $grouped,
                }
            }
        }

        impl OpRules for $op {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer_forward(cx, &self.settings())
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                evaluate_forward(inputs, &self.settings())
            }
        }
    )*};
}
forward_rules!(Convolution: false, GroupConvolution: true);

macro_rules! backward_rules {
    ($($op:ident: $grouped:literal),*) => {$(
        impl $op {
            fn backward(&self) -> Backward<'_> {
                Backward {
                    settings: Settings {
                        strides: &self.strides,
                        dilations: &self.dilations,
                        begin: &self.pads_begin,
                        end: &self.pads_end,
                        auto: self.auto_pad,
                        grouped: $grouped,
                    },
                    output_padding: &self.output_padding,
                }
            }

            /// For each spatial axis the window, with what it cuts off the output, and the extent of the output, for
            /// filters of spatial extents `kernel`, data of spatial extents `input` and, when the third input is
            /// there, the extents that it asks for. Without it, the cut does not depend on `input`.
            ///
            /// # Errors
            /// When lists differ in length, or an attribute or the cut is not valid.
            pub fn windows(
                &self,
                kernel: &[usize],
                input: &[usize],
                output: Option<&[usize]>,
            ) -> OpResult<Vec<(Window, usize)>> {
                self.backward().axes(kernel, input, output)
            }
        }

        impl OpRules for $op {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                self.backward().infer(cx)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                self.backward().evaluate(inputs)
            }
        }
    )*};
}
backward_rules!(ConvolutionBackpropData: false, GroupConvolutionBackpropData: true);

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Convolution>(),
    OpEntry::of::<GroupConvolution>(),
    OpEntry::of::<ConvolutionBackpropData>(),
    OpEntry::of::<GroupConvolutionBackpropData>(),
];

#[cfg(test)]
#[path = "convolution_tests.rs"]
mod tests;
