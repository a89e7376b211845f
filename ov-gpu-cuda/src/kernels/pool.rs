//! Pooling: windows over up to three axes, planar or channels last.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        Op,
        fused::pooling::{PoolLast, PoolMode},
        pooling::{AvgPool, AvgPool1, AvgPool14, LpPool, MaxPool, MaxPool1, MaxPool8},
        window::{AutoPad, Window},
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, element_bytes, storage_type, unsupported},
    host::{choice, from_front},
    reduce,
    walk::{Record, count},
};

/// The family.
pub(super) const POOL: Kernel = Kernel { name: "pool", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/pool.cu"),
);

const BLOCK: u32 = 128;

/// What is computed of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    /// The largest element.
    Largest,
    /// The mean of the elements inside the input.
    Average,
    /// The mean of the elements inside the padded input.
    AverageWithPad,
    /// `(Σ |x|^p)^(1/p)`.
    Power(i64),
}

/// Windows over the spatial axes, whatever the operator.
#[derive(Clone, Debug)]
pub(super) struct Pooling {
    /// What is computed.
    pub(super) function: Function,
    /// The windows, padding resolved.
    pub(super) windows: Vec<Window>,
    /// Whether the channels are the last axis rather than the second.
    pub(super) channels_last: bool,
    /// First axis that indices count from.
    pub(super) index_axis: i64,
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let kernel = attributes(node.op, &[])?;
    Some(
        kernel
            .and_then(|p| suits(&p, node.inputs[0].element_type))
            .and_then(|()| choice(node, &[])),
    )
}

/// Whether the kernel takes the windows and the element type.
pub(super) fn suits(pooling: &Pooling, ty: ElementType) -> Result<(), Reject> {
    if pooling.windows.len() > 3 {
        return Err(format!("takes up to three spatial axes, not {}", pooling.windows.len()).into());
    }
    if ty == ElementType::Boolean
        || (matches!(pooling.function, Function::Power(_)) && !ty.is_float())
    {
        return Err(unsupported(ty));
    }
    Ok(())
}

/// The windows of an operator over spatial axes of these extents (any, when only their number is asked for).
fn attributes(op: &dyn Op, extents: &[usize]) -> Option<Result<Pooling, Reject>> {
    macro_rules! read {
        ($op:ident, $dilations:expr, $function:expr, $axis:expr) => {
            windows(
                &$op.kernel,
                &$op.strides,
                $dilations,
                (&$op.pads_begin, &$op.pads_end),
                $op.auto_pad,
                extents,
            )
            .map(|windows| Pooling {
                function: $function,
                windows,
                channels_last: false,
                index_axis: $axis,
            })
        };
    }
    let average = |exclude| if exclude { Function::Average } else { Function::AverageWithPad };
    Some(if let Some(op) = op.downcast::<MaxPool>() {
        read!(op, &op.dilations, Function::Largest, op.axis)
    } else if let Some(op) = op.downcast::<MaxPool8>() {
        read!(op, &op.dilations, Function::Largest, op.axis)
    } else if let Some(op) = op.downcast::<MaxPool1>() {
        read!(op, &[], Function::Largest, 0)
    } else if let Some(op) = op.downcast::<AvgPool>() {
        read!(op, &op.dilations, average(op.exclude_pad), 0)
    } else if let Some(op) = op.downcast::<AvgPool14>() {
        read!(op, &[], average(op.exclude_pad), 0)
    } else if let Some(op) = op.downcast::<AvgPool1>() {
        read!(op, &[], average(op.exclude_pad), 0)
    } else if let Some(op) = op.downcast::<PoolLast>() {
        let function = match op.mode {
            PoolMode::Max => Function::Largest,
            PoolMode::Average => Function::Average,
            PoolMode::AverageWithPad => Function::AverageWithPad,
        };
        read!(op, &op.dilations, function, 0).map(|p| Pooling { channels_last: true, ..p })
    } else if let Some(op) = op.downcast::<LpPool>() {
        read!(op, &op.dilations, Function::Power(op.p), 0)
    } else {
        return None;
    })
}

fn windows(
    kernel: &[i64],
    strides: &[i64],
    dilations: &[i64],
    pads: (&[i64], &[i64]),
    auto: AutoPad,
    extents: &[usize],
) -> Result<Vec<Window>, Reject> {
    let kernel: Vec<usize> = kernel.iter().map(|k| usize::try_from(*k).unwrap_or(0)).collect();
    let windows = Window::from_attributes(&kernel, strides, dilations, pads.0, pads.1)
        .map_err(|e| Reject::from(e.to_string()))?;
    let extent = |i: usize| extents.get(i).copied().unwrap_or(1);
    Ok(windows.into_iter().enumerate().map(|(i, w)| w.padded(auto, extent(i))).collect())
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let first = if node.op.is::<PoolLast>() { 1 } else { 2 };
    let spatial = node.inputs[0].shape.get(first..).unwrap_or_default();
    let pooling = attributes(node.op, spatial)
        .ok_or_else(|| Reject::from(format!("{} pools nothing", node.op.kind())))??;
    pooling.bind(node)
}

impl Pooling {
    /// The step that pools input 0 into output 0, with indices into output 1 where there is one.
    ///
    /// # Errors
    /// When the shapes are too large.
    pub(super) fn bind(&self, node: &Binding<'_>) -> Result<Bound, Reject> {
        let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
        let ty = node.inputs[0].element_type;
        let outputs = y.elements();
        if outputs == 0 {
            return Ok(Bound::Step(Step::default()));
        }
        let channel_axis = if self.channels_last { x.rank() - 1 } else { 1 };
        let first = if self.channels_last { 1 } else { 2 };
        let (extents, places) =
            (&x[first..first + self.windows.len()], &y[first..first + self.windows.len()]);
        if let Some(step) = self.whole(node, extents, channel_axis)? {
            return Ok(Bound::Step(step));
        }
        let indices = node.outputs.len() > 1;
        let lanes = 16 / element_bytes(ty)?;
        let grouped =
            self.channels_last && !indices && lanes > 1 && x[channel_axis].is_multiple_of(lanes);
        let n = if grouped { lanes } else { 1 };
        let strides: Vec<usize> = x.strides().to_vec();
        count(x.elements())?;
        let mut record = Record::default();
        record.u32(count(outputs / n)?).u32(u32::from(self.channels_last));
        record.divisor(count(x[channel_axis] / n)?);
        // Axes that are not there have one place.
        let missing = 3 - self.windows.len();
        for i in 0..3_usize {
            record.divisor(count(i.checked_sub(missing).map_or(1, |i| places[i]))?);
        }
        for i in 0..3_usize {
            let number = |v: i64| {
                i32::try_from(v)
                    .map_err(|_| Reject::from(format!("takes windows of 31 bits, not {v}")))
            };
            let (extent, w, step) = match i.checked_sub(missing) {
                Some(i) => (extents[i], self.windows[i], strides[first + i]),
                None => (1, Window { kernel: 1, stride: 1, dilation: 1, begin: 0, end: 0 }, 0),
            };
            record
                .u32(count(extent)?)
                .u32(count(w.kernel)?)
                .u32(count(w.stride)?)
                .u32(count(w.dilation)?);
            record.i32(number(w.begin)?).i32(number(w.end)?).u32(count(step)?);
        }
        record.u32(count(strides[0])?).u32(count(strides[channel_axis])?);
        let axis = from_front(self.index_axis, x.rank())?.min(2);
        record.u32(count(x[axis..].iter().product())?.max(1));
        let power = if let Function::Power(p) = self.function { p as f32 } else { 0.0 };
        record.f32(power);
        let launch = Launch {
            source: self.source(ty, indices.then(|| node.outputs[1].element_type), lanes)?,
            function: if grouped { "pool_lanes" } else { "pool_single" }.into(),
            grid: [count(outputs / n)?.div_ceil(BLOCK), 1, 1],
            block: [BLOCK, 1, 1],
            shared: 0,
            args: vec![
                Arg::Input(0),
                Arg::Output(0),
                Arg::Output(if indices { 1 } else { 0 }),
                Arg::Bytes(record.bytes()),
            ],
        };
        Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
    }

    /// The mean of whole planes as a reduction, which many threads share.
    fn whole(
        &self,
        node: &Binding<'_>,
        extents: &[usize],
        channel_axis: usize,
    ) -> Result<Option<Step>, Reject> {
        let covers = self
            .windows
            .iter()
            .zip(extents)
            .all(|(w, e)| w.kernel == *e && w.dilation == 1 && w.begin == 0 && w.end == 0);
        let average = matches!(self.function, Function::Average | Function::AverageWithPad);
        let ty = node.inputs[0].element_type;
        let one = node.outputs[0].shape.elements()
            == node.inputs[0].shape[0] * node.inputs[0].shape[channel_axis];
        if !(covers && average && one && ty.is_float()) {
            return Ok(None);
        }
        let x = node.inputs[0].shape;
        let axes: Vec<usize> = (1..x.rank()).filter(|a| *a != channel_axis).collect();
        reduce::mean(node.gpu, ty, x, &axes).map(Some)
    }

    fn source(
        &self,
        ty: ElementType,
        index: Option<ElementType>,
        lanes: usize,
    ) -> Result<Source, Reject> {
        let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
        let compute = compute_type(ty).ok_or_else(|| unsupported(ty))?;
        let sums = self.function != Function::Largest && ty.is_integer();
        let function = match self.function {
            Function::Largest => "Largest",
            Function::Average => "Average",
            Function::AverageWithPad => "AverageWithPad",
            Function::Power(_) => "Power",
        };
        let indices = storage_type(index.unwrap_or(ElementType::I32));
        Ok(Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage.to_owned()),
                ("OV_V", if sums { "double" } else { compute }.to_owned()),
                ("OV_I", indices.unwrap_or("int").to_owned()),
                ("OV_FUNCTION", function.to_owned()),
                ("OV_INDICES", u8::from(index.is_some()).to_string()),
                ("OV_LANES", lanes.to_string()),
            ],
        })
    }
}
