//! Convolutions with constant filters, channels last: products of the image with the filters, depthwise ones apart.

use ov_core::{
    ElementType, Shape, Tensor,
    op::{
        Op,
        fused::{
            activation::Activation, common::Convolving, convolution::FusedConvolution,
            integer::IntegerConvolution, transposed::FusedConvolutionTransposed,
        },
        window::Window,
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Pack, Reject, Selecting, Source, Step,
    element::storage_type,
    host::{is_given, is_present},
    linear::{constant, dense, pack_f32, pack_with, row_len, storage},
    product::{Finish, Form, Image, Operand, Product, int},
    walk::Record,
};

/// The family.
pub(super) const CONVOLUTION: Kernel = Kernel { name: "convolution", select, bind };

const DEPTHWISE: &str = concat!(
    include_str!("cuda/activation.cuh"),
    include_str!("cuda/depthwise.cuh"),
    include_str!("cuda/depthwise.cu"),
);

/// Most threads of a block of depthwise convolutions.
const DEPTHWISE_THREADS: u32 = 128;

/// A convolution, whatever the operator.
pub(super) struct Convolution {
    pub(super) groups: usize,
    pub(super) planar: bool,
    pub(super) transposed: bool,
    pub(super) activation: Activation,
    pub(super) residual_after: bool,
}

impl Convolution {
    fn of(op: &dyn Op) -> Option<Result<Self, Reject>> {
        let (groups, planar, transposed, activation, residual_after) =
            if let Some(op) = op.downcast::<FusedConvolution>() {
                (op.groups, op.planar, false, op.activation(), op.residual_after)
            } else {
                let op = op.downcast::<FusedConvolutionTransposed>()?;
                (op.groups, false, true, op.activation(), op.residual_after)
            };
        let made = || {
            let activation = activation.map_err(|e| e.to_string())?;
            let groups = usize::try_from(groups).ok().filter(|g| *g > 0);
            let groups = groups.ok_or("takes at least one group")?;
            Ok(Self { groups, planar, transposed, activation, residual_after })
        };
        Some(made())
    }
}

/// Filters, as extents per group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    pub(super) groups: usize,
    /// Channels of input and output of one group.
    pub(super) channels: usize,
    pub(super) outputs: usize,
    pub(super) taps: usize,
}

impl Filters {
    /// # Errors
    /// When the groups do not divide the filters.
    pub(super) fn of(shape: &Shape, convolution: &Convolution) -> Result<Self, Reject> {
        let groups = convolution.groups;
        let taps = shape[2..].iter().product();
        let (whole, part) = (shape[0], shape[1]);
        if !whole.is_multiple_of(groups) {
            return Err(format!("takes filters of {groups} groups, not {shape}").into());
        }
        Ok(match convolution.transposed {
            true => Self { groups, channels: whole / groups, outputs: part, taps },
            false => Self { groups, channels: part, outputs: whole / groups, taps },
        })
    }

    /// Whether every output depends on one channel.
    pub(super) fn depthwise(&self, convolution: &Convolution) -> bool {
        self.channels == 1 && self.groups > 1 && !convolution.transposed && !convolution.planar
    }
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let convolution = match Convolution::of(node.op)? {
        Ok(found) => found,
        Err(e) => return Some(Err(e)),
    };
    Some(choose(node, &convolution))
}

fn choose(node: &Selecting<'_>, convolution: &Convolution) -> Result<Choice, Reject> {
    let ty = storage(node)?;
    let weights = constant(node, 1, "filters")?;
    let shape = weights.shape();
    if !(3..=5).contains(&shape.rank()) {
        return Err(format!("takes filters over one to three axes, not {shape}").into());
    }
    let filters = Filters::of(shape, convolution)?;
    let mut choice = Choice { consumed: vec![1], ..Choice::default() };
    choice.packed.push(pack(weights, ty, filters, convolution)?);
    if is_given(node, 2) {
        let outputs = filters.groups * filters.outputs;
        choice.packed.push(pack_f32(constant(node, 2, "bias")?, outputs)?);
        choice.consumed.push(2);
    }
    choice.params = shape.iter().map(|d| *d as i64).collect();
    Ok(choice)
}

/// Filters as rows of taps and channels, one per output; depthwise ones as rows of outputs, one per tap.
fn pack(
    weights: &Tensor,
    ty: ElementType,
    f: Filters,
    convolution: &Convolution,
) -> Result<Pack, Reject> {
    let outputs = f.groups * f.outputs;
    let Filters { channels, taps, .. } = f;
    if f.depthwise(convolution) {
        return pack_with(weights, ty, taps, outputs, move |tap, output| output * taps + tap);
    }
    let transposed = convolution.transposed;
    pack_with(weights, ty, outputs, taps * channels, move |output, column| {
        let (tap, channel) = (column / channels, column % channels);
        if transposed {
            let (group, output) = (output / f.outputs, output % f.outputs);
            ((group * channels + channel) * f.outputs + output) * taps + tap
        } else {
            (output * channels + channel) * taps + tap
        }
    })
}

/// Windows over the spatial axes, padding resolved.
///
/// # Errors
/// When an attribute is not valid.
pub(super) fn windows(
    op: &dyn Op,
    kernel: &[usize],
    input: &[usize],
) -> Result<Vec<Window>, Reject> {
    let found = if let Some(op) = op.downcast::<FusedConvolution>() {
        op.windows(kernel, input)
    } else if let Some(op) = op.downcast::<IntegerConvolution>() {
        op.windows(kernel, input)
    } else if let Some(op) = op.downcast::<FusedConvolutionTransposed>() {
        op.windows(kernel, input).map(|w| w.into_iter().map(|(w, _)| w).collect())
    } else {
        return Err("is no convolution".into());
    };
    found.map_err(|e| Reject(e.to_string().into()))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let convolution = Convolution::of(node.op).ok_or("is no convolution")??;
    let shape: Shape = node.params.iter().map(|d| *d as usize).collect::<Vec<_>>().into();
    let filters = Filters::of(&shape, &convolution)?;
    let (x, y) = (node.inputs[0], node.outputs[0]);
    let rank = x.shape.rank();
    let spatial = if convolution.planar { &x.shape[2..] } else { &x.shape[1..rank - 1] };
    let windows = windows(node.op, &shape[2..], spatial)?;
    let finish = Finish {
        bias: is_present(node, 2).then_some(Arg::Packed(1)),
        residual: is_present(node, 3).then_some(Arg::Input(3)),
        activation: convolution.activation,
        residual_after: convolution.residual_after,
    };
    let outputs = filters.groups * filters.outputs;
    let rows = y.shape.iter().product::<usize>().checked_div(outputs).unwrap_or(0);
    let image = image(x.shape, y.shape, &windows, filters, &convolution)?;
    let ty = x.element_type;
    if filters.depthwise(&convolution) {
        return Ok(Bound::Step(depthwise(ty, rows, filters, &image, &finish)?));
    }
    if filters.groups == 1 && !convolution.planar && windows.iter().all(is_plain) {
        let step = dense(node.gpu, ty, [rows, outputs, filters.channels], finish)?;
        return Ok(Bound::Step(step));
    }
    let k = filters.taps * filters.channels;
    let by_group = |elements: usize| [0, 0, 0, elements];
    let product = Product {
        element_type: ty,
        m: rows,
        n: filters.outputs,
        k,
        batch: [1, 1, 1, filters.groups],
        a: Operand {
            arg: Arg::Input(0),
            turned: false,
            row: 0,
            batch: by_group(filters.channels * image.channel),
            aligned: true,
        },
        b: Operand {
            arg: Arg::Packed(0),
            turned: true,
            row: row_len(ty, k),
            batch: by_group(filters.outputs * row_len(ty, k)),
            aligned: true,
        },
        b_constant: true,
        y_row: outputs,
        y_batch: filters.outputs,
        bias_batch: filters.outputs,
        finish,
        requantize: None,
        form: match convolution.transposed {
            true => Form::Transposed(image),
            false => Form::Convolution(image),
        },
    };
    Ok(Bound::Step(product.step(Arg::Output(0), node.gpu)?))
}

/// Whether a window takes one place and moves by one.
pub(super) fn is_plain(w: &Window) -> bool {
    w.kernel == 1 && w.stride == 1 && w.begin == 0 && w.end == 0
}

/// The image as the kernels walk it; axes that are not there come first.
///
/// # Errors
/// When an extent is beyond what kernels count.
pub(super) fn image(
    x: &Shape,
    y: &Shape,
    windows: &[Window],
    filters: Filters,
    convolution: &Convolution,
) -> Result<Image, Reject> {
    let axes = windows.len();
    let missing = 3 - axes;
    let first = if convolution.planar { 2 } else { 1 };
    let mut spatial = [[1_i32; 3]; 6];
    spatial[5] = [0; 3];
    for (axis, window) in windows.iter().enumerate() {
        let at = missing + axis;
        spatial[0][at] = int(x[first + axis])?;
        spatial[1][at] = int(y[1 + axis])?;
        spatial[2][at] = int(window.kernel)?;
        spatial[3][at] = int(window.dilation)?;
        spatial[4][at] = int(window.stride)?;
        spatial[5][at] =
            i32::try_from(window.begin).map_err(|_| Reject("takes less padding".into()))?;
    }
    let channels = filters.groups * filters.channels;
    let places: usize = x[first..first + axes].iter().product();
    let (channel, place) = if convolution.planar { (places, 1) } else { (1, channels) };
    let mut at = [0; 3];
    let mut step = place;
    for axis in (0..axes).rev() {
        at[missing + axis] = step;
        step *= x[first + axis];
    }
    Ok(Image { spatial, channels: filters.channels, image: channels * places, channel, at })
}

/// A thread per output place and 16 bytes of channels.
fn depthwise(
    ty: ElementType,
    rows: usize,
    filters: Filters,
    image: &Image,
    finish: &Finish,
) -> Result<Step, Reject> {
    let outputs = filters.groups * filters.outputs;
    if rows == 0 || outputs == 0 {
        return Ok(Step::default());
    }
    let whole = 128 / ty.bits();
    let vector = if filters.outputs == 1 && outputs.is_multiple_of(whole) { whole } else { 1 };
    let chunks = outputs / vector;
    let threads = int(rows.checked_mul(chunks).ok_or("takes fewer outputs")?)? as u32;
    let mut r = Record::from(image.bytes()?);
    r.i32(int(rows)?).i32(int(outputs)?).i32(int(filters.outputs)?).i32(int(row_len(ty, outputs))?);
    finish.record(&mut r);
    r.i32(0);
    let [bias, residual] = finish.args();
    let kernel = image.spatial[2];
    let launch = Launch {
        source: depthwise_source(ty, vector, kernel, finish),
        function: "depthwise".into(),
        grid: [threads.div_ceil(DEPTHWISE_THREADS), 1, 1],
        block: [DEPTHWISE_THREADS, 1, 1],
        shared: 0,
        args: vec![
            Arg::Input(0),
            Arg::Packed(0),
            Arg::Output(0),
            bias,
            residual,
            Arg::Bytes(r.bytes()),
        ],
    };
    Ok(Step { launches: vec![launch], ..Step::default() })
}

fn depthwise_source(ty: ElementType, vector: usize, kernel: [i32; 3], finish: &Finish) -> Source {
    Source {
        body: DEPTHWISE.into(),
        defines: vec![
            ("OV_T", storage_type(ty).unwrap_or("float").to_owned()),
            ("OV_VECTOR", vector.to_string()),
            ("OV_TAPS_Z", kernel[0].to_string()),
            ("OV_TAPS_Y", kernel[1].to_string()),
            ("OV_TAPS_X", kernel[2].to_string()),
            ("OV_ACTIVATION", finish.activation()),
        ],
    }
}

/// Depthwise convolutions of usual filters.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    let mut all = Vec::new();
    for ty in [ElementType::F32, ElementType::Bf16] {
        let whole = 128 / ty.bits();
        for (kernel, vector) in [([1, 3, 3], whole), ([1, 7, 7], whole), ([1, 1, 31], 1)] {
            all.push(depthwise_source(ty, vector, kernel, &Finish::none()));
        }
    }
    all
}
