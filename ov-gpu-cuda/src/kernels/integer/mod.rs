//! Convolutions and products of bytes with constant weights, and sums of bytes.

mod add;
mod moves;
mod weights;

use ov_core::{
    ElementType, Shape,
    op::fused::{
        activation::Activation,
        integer::{IntegerConvolution, IntegerProduct, Port},
    },
};

pub(super) use add::INTEGER_ADD;
pub(crate) use moves::moves_bytes;
use weights::{Order, Weights, pack_i32, row_len, tap_len};

use super::{
    Arg, Binding, Bound, Choice, Gpu, Kernel, Launch, Reject, Selecting, Source, Step,
    convolution::{Convolution, Filters, image, is_plain, windows},
    element::storage_type,
    host::{ensure, is_given, is_present},
    linear::{GEMV_ROWS, GEMV_THREADS, constant, gemv_share, pack_f32},
    product::{BATCH_AXES, Finish, Form, Image, Operand, Product, Requantize, int},
    walk::Record,
};

/// The family.
pub(super) const INTEGER: Kernel = Kernel { name: "integer", select, bind };

const GEMV: &str = concat!(
    include_str!("../cuda/activation.cuh"),
    include_str!("../cuda/integer.cuh"),
    include_str!("../cuda/integer_gemv.cu"),
);
const DEPTHWISE: &str = concat!(
    include_str!("../cuda/activation.cuh"),
    include_str!("../cuda/integer.cuh"),
    include_str!("../cuda/depthwise.cuh"),
    include_str!("../cuda/integer_depthwise.cu"),
);

/// Threads of a block of depthwise convolutions.
const DEPTHWISE_THREADS: usize = 128;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    if let Some(op) = node.op.downcast::<IntegerProduct>() {
        return Some(choose_product(node, op));
    }
    let op = node.op.downcast::<IntegerConvolution>()?;
    Some(choose_convolution(node, op))
}

fn is_byte(ty: ElementType) -> bool {
    matches!(ty, ElementType::I8 | ElementType::U8)
}

fn choose_product(node: &Selecting<'_>, op: &IntegerProduct) -> Result<Choice, Reject> {
    op.activation().map_err(|e| e.to_string())?;
    let dims = constant(node, Port::W, "weights")?.shape();
    if dims.rank() != 2 {
        return Err(format!("takes weights of rank 2, not {dims}").into());
    }
    let (n, k, order, from_row, from_column) = match op.transpose_b {
        true => (dims[0], dims[1], Order::OutputsFirst, dims[1], 1),
        false => (dims[1], dims[0], Order::OutputsLast, 1, dims[1]),
    };
    let weights = Weights::of(node, n, order)?;
    let mut choice = rows(weights, k, move |r, c| r * from_row + c * from_column);
    choice.params.extend([n as i64, k as i64]);
    with_bias(node, choice, n)
}

fn choose_convolution(node: &Selecting<'_>, op: &IntegerConvolution) -> Result<Choice, Reject> {
    let convolution = convolution(op)?;
    let shape = constant(node, Port::W, "filters")?.shape();
    ensure(op.last, "gives channels-last results")?;
    if !(3..=5).contains(&shape.rank()) {
        return Err(format!("takes filters over one to three axes, not {shape}").into());
    }
    let filters = Filters::of(shape, &convolution)?;
    let Filters { channels, taps, .. } = filters;
    let outputs = filters.groups * filters.outputs;
    let weights = Weights::of(node, outputs, Order::OutputsFirst)?;
    let mut choice = if filters.depthwise(&convolution) {
        let packed = vec![weights.pack_taps(taps)];
        Choice { packed, params: vec![0], ..Choice::default() }
    } else {
        rows(weights, taps * channels, move |output, column| {
            let (tap, channel) = (column / channels, column % channels);
            (output * channels + channel) * taps + tap
        })
    };
    choice.params.extend(shape.iter().map(|d| *d as i64));
    with_bias(node, choice, outputs)
}

fn convolution(op: &IntegerConvolution) -> Result<Convolution, Reject> {
    let groups = usize::try_from(op.groups).ok().filter(|g| *g > 0);
    Ok(Convolution {
        groups: groups.ok_or("takes at least one group")?,
        planar: op.planar,
        transposed: false,
        activation: op.activation().map_err(|e| e.to_string())?,
        residual_after: op.residual_after,
    })
}

/// Weights as rows of `k`, their sums, and the shifts of columns that do not fit. The first parameter says whether there
/// are any.
fn rows(
    weights: Weights,
    k: usize,
    from: impl Fn(usize, usize) -> usize + Send + 'static,
) -> Choice {
    let columns = weights.columns();
    let params = vec![i64::from(columns.shifts.is_some())];
    let shifts = columns.shifts.clone().map(pack_i32);
    let mut packed = vec![weights.pack_rows(k, columns.shifts, from), pack_i32(columns.sums)];
    packed.extend(shifts);
    Choice { packed, params, ..Choice::default() }
}

/// The choice with the bias packed last, and what is only needed in packed form.
fn with_bias(node: &Selecting<'_>, mut choice: Choice, outputs: usize) -> Result<Choice, Reject> {
    ensure(is_byte(node.inputs[Port::X].element_type), "takes bytes")?;
    if is_given(node, Port::BIAS) {
        choice.packed.push(pack_f32(constant(node, Port::BIAS, "bias")?, outputs)?);
    }
    let packed = [Port::W, Port::W_ZERO, Port::BIAS];
    choice.consumed = packed.into_iter().filter(|port| is_given(node, *port)).collect();
    Ok(choice)
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (shifted, dims) = node.params.split_first().ok_or("has no parameters")?;
    let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
    let step = if let Some(op) = node.op.downcast::<IntegerProduct>() {
        let [n, k] = dims[..] else { return Err("has other parameters".into()) };
        let activation = op.activation().map_err(|e| e.to_string())?;
        let tail = Tail::of(node, n, *shifted != 0, activation, op.residual_after)?;
        let m = node.outputs[0].shape.elements().checked_div(n).unwrap_or(0);
        tail.dense([m, n, k])?
    } else {
        let op: &IntegerConvolution = node.op.downcast().ok_or("is another operator")?;
        bind_convolution(node, &convolution(op)?, &dims.into(), *shifted != 0)?
    };
    Ok(Bound::Step(step))
}

fn bind_convolution(
    node: &Binding<'_>,
    convolution: &Convolution,
    shape: &Shape,
    shifted: bool,
) -> Result<Step, Reject> {
    let filters = Filters::of(shape, convolution)?;
    let (x, y) = (node.inputs[Port::X].shape, node.outputs[0].shape);
    let spatial = if convolution.planar { &x[2..] } else { &x[1..x.rank() - 1] };
    let windows = windows(node.op, &shape[2..], spatial)?;
    let outputs = filters.groups * filters.outputs;
    let rows = y.elements().checked_div(outputs).unwrap_or(0);
    let image = image(x, y, &windows, filters, convolution)?;
    let Convolution { activation, residual_after, .. } = *convolution;
    if filters.depthwise(convolution) {
        let tail = Tail::of_taps(node, outputs, activation, residual_after)?;
        return tail.depthwise(rows, filters, &image);
    }
    let tail = Tail::of(node, outputs, shifted, activation, residual_after)?;
    if filters.groups == 1 && !convolution.planar && windows.iter().all(is_plain) {
        return tail.dense([rows, outputs, filters.channels]);
    }
    tail.convolution(rows, filters, image)
}

/// A node with what follows its sums.
struct Tail {
    gpu: Gpu,
    /// Type of x.
    element_type: ElementType,
    finish: Finish,
    requantize: Requantize,
}

impl Tail {
    /// The tail of a node whose kernels take sums of columns.
    fn of(
        node: &Binding<'_>,
        outputs: usize,
        shifted: bool,
        activation: Activation,
        residual_after: bool,
    ) -> Result<Self, Reject> {
        let mut tail = Self::of_taps(node, outputs, activation, residual_after)?;
        let requantize = &mut tail.requantize;
        requantize.columns = Some(Arg::Packed(1));
        requantize.shifts = shifted.then_some(Arg::Packed(2));
        if tail.finish.bias.is_some() {
            tail.finish.bias = Some(Arg::Packed(2 + usize::from(shifted)));
        }
        Ok(tail)
    }

    /// The tail of a node whose weights are all that comes before its bias.
    fn of_taps(
        node: &Binding<'_>,
        outputs: usize,
        activation: Activation,
        residual_after: bool,
    ) -> Result<Self, Reject> {
        let y = node.outputs[0];
        let elements = |port: usize| node.inputs[port].shape.elements();
        let given = |port: usize| is_present(node, port);
        let scales = elements(Port::SCALE);
        ensure(scales == 1 || scales == outputs, "takes one scale, or one per output")?;
        for port in [Port::X_ZERO, Port::OUTPUT_SCALE, Port::OUTPUT_ZERO, Port::FACTOR] {
            ensure(!given(port) || elements(port) == 1, "takes steps of one size per tensor")?;
        }
        let same = !given(Port::RESIDUAL) || node.inputs[Port::RESIDUAL].shape == y.shape;
        ensure(same, "takes a residual of the shape of the output")?;
        let steps = [Port::OUTPUT_SCALE, Port::OUTPUT_ZERO].map(Arg::Input);
        Ok(Self {
            gpu: node.gpu,
            element_type: node.inputs[Port::X].element_type,
            finish: Finish {
                bias: given(Port::BIAS).then_some(Arg::Packed(1)),
                residual: given(Port::RESIDUAL).then_some(Arg::Input(Port::RESIDUAL)),
                activation,
                residual_after,
            },
            requantize: Requantize {
                x_zero: given(Port::X_ZERO).then_some(Arg::Input(Port::X_ZERO)),
                columns: None,
                shifts: None,
                scale: Arg::Input(Port::SCALE),
                factor: given(Port::FACTOR).then_some(Arg::Input(Port::FACTOR)),
                scale_per_column: scales != 1,
                steps: is_byte(y.element_type).then_some(steps),
                output: y.element_type,
            },
        })
    }

    fn storage(&self) -> String {
        storage_type(self.element_type).unwrap_or("unsigned char").to_owned()
    }

    /// `finish(x w)` for `x: [m, k]`.
    fn dense(self, [m, n, k]: [usize; 3]) -> Result<Step, Reject> {
        if m <= GEMV_ROWS {
            return self.gemv([m, n, k]);
        }
        self.product([m, n, k], k, 1, [0, 0], Form::Plain)
    }

    fn convolution(self, rows: usize, f: Filters, image: Image) -> Result<Step, Reject> {
        let k = f.taps * f.channels;
        let batch = [f.channels * image.channel, f.outputs * row_len(k)];
        self.product([rows, f.outputs, k], 0, f.groups, batch, Form::Convolution(image))
    }

    /// `groups` products side by side, whose operands lie `batch` elements apart.
    fn product(
        self,
        [m, n, k]: [usize; 3],
        a_row: usize,
        groups: usize,
        batch: [usize; 2],
        form: Form,
    ) -> Result<Step, Reject> {
        let operand = |arg, turned, row, step| Operand {
            arg,
            turned,
            row,
            batch: [0, 0, 0, step],
            aligned: true,
        };
        let mut extents = [1; BATCH_AXES];
        extents[BATCH_AXES - 1] = groups;
        let product = Product {
            element_type: self.element_type,
            m,
            n,
            k,
            batch: extents,
            a: operand(Arg::Input(Port::X), false, a_row, batch[0]),
            b: operand(Arg::Packed(0), true, row_len(k), batch[1]),
            b_constant: true,
            y_row: n * groups,
            y_batch: n,
            bias_batch: n,
            finish: self.finish,
            requantize: Some(self.requantize),
            form,
        };
        product.step(Arg::Output(0), self.gpu)
    }

    /// Few rows: a warp, or several, per column of the result.
    fn gemv(&self, [m, n, k]: [usize; 3]) -> Result<Step, Reject> {
        if m == 0 || n == 0 {
            return Ok(Step::default());
        }
        let warps = GEMV_THREADS / 32;
        let share = gemv_share(self.gpu, n, k, 8);
        let mut r = Record::default();
        r.i32(int(m)?).i32(int(n)?).i32(int(k)?).i32(int(row_len(k))?);
        self.finish.record(&mut r);
        r.i32(self.requantize.scale_per_column.into());
        let [bias, residual] = self.finish.args();
        let mut args = vec![Arg::Input(Port::X), Arg::Packed(0), Arg::Output(0), bias, residual];
        args.push(self.requantize.x_zero());
        args.extend(self.requantize.columns());
        args.extend(self.requantize.scales());
        args.push(Arg::Bytes(r.bytes()));
        let launch = Launch {
            source: self.gemv_source(m.next_power_of_two(), share),
            function: "integer_gemv".into(),
            grid: [int(n.div_ceil(warps / share))? as u32, 1, 1],
            block: [GEMV_THREADS as u32, 1, 1],
            shared: 0,
            args,
        };
        Ok(Step { launches: vec![launch], ..Step::default() })
    }

    fn gemv_source(&self, rows: usize, share: usize) -> Source {
        Source {
            body: GEMV.into(),
            defines: vec![
                ("OV_T", self.storage()),
                ("OV_Y", self.requantize.output()),
                ("OV_ROWS", rows.to_string()),
                ("OV_SHARE", share.to_string()),
                ("OV_SHIFTED", u8::from(self.requantize.shifts.is_some()).to_string()),
                ("OV_THREADS", GEMV_THREADS.to_string()),
                ("OV_ACTIVATION", self.finish.activation()),
            ],
        }
    }

    /// A thread per output place and some channels: as many as leave no multiprocessor idle.
    fn depthwise(&self, rows: usize, filters: Filters, image: &Image) -> Result<Step, Reject> {
        let outputs = filters.groups * filters.outputs;
        if rows == 0 || outputs == 0 {
            return Ok(Step::default());
        }
        let busy = self.gpu.multiprocessors as usize * 4 * DEPTHWISE_THREADS;
        let suits = |by: usize| filters.outputs == 1 && outputs.is_multiple_of(by);
        let vector = if suits(16) && rows * outputs / 16 >= busy {
            16
        } else if suits(4) {
            4
        } else {
            1
        };
        let threads = int(rows.checked_mul(outputs / vector).ok_or("takes fewer outputs")?)?;
        let mut r = Record::from(image.bytes()?);
        r.i32(int(rows)?).i32(int(outputs)?);
        r.i32(int(filters.outputs)?).i32(int(tap_len(outputs))?);
        self.finish.record(&mut r);
        r.i32(self.requantize.scale_per_column.into());
        let [bias, residual] = self.finish.args();
        let mut args = vec![Arg::Input(Port::X), Arg::Packed(0), Arg::Output(0), bias, residual];
        args.push(self.requantize.x_zero());
        args.extend(self.requantize.scales());
        args.push(Arg::Bytes(r.bytes()));
        let launch = Launch {
            source: self.depthwise_source(vector, image.spatial[2]),
            function: "integer_depthwise".into(),
            grid: [(threads as u32).div_ceil(DEPTHWISE_THREADS as u32), 1, 1],
            block: [DEPTHWISE_THREADS as u32, 1, 1],
            shared: 0,
            args,
        };
        Ok(Step { launches: vec![launch], ..Step::default() })
    }

    fn depthwise_source(&self, vector: usize, kernel: [i32; 3]) -> Source {
        Source {
            body: DEPTHWISE.into(),
            defines: vec![
                ("OV_T", self.storage()),
                ("OV_Y", self.requantize.output()),
                ("OV_VECTOR", vector.to_string()),
                ("OV_TAPS_Z", kernel[0].to_string()),
                ("OV_TAPS_Y", kernel[1].to_string()),
                ("OV_TAPS_X", kernel[2].to_string()),
                ("OV_ACTIVATION", self.finish.activation()),
            ],
        }
    }
}

/// Dot products of every number of rows, depthwise convolutions of usual filters, and a sum.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    use crate::testing::H100;
    use ElementType::{F32, I8, U8};
    let tail = |element_type, output, shifted: bool| Tail {
        gpu: H100,
        element_type,
        finish: Finish::none(),
        requantize: Requantize::sample(output, shifted),
    };
    let mut all = vec![
        tail(U8, F32, false).gemv_source(1, 1),
        tail(I8, F32, true).gemv_source(8, 8),
        tail(U8, U8, false).gemv_source(8, 4),
        add::source(U8, I8, U8, Activation::Relu),
    ];
    for vector in [16, 4, 1] {
        all.push(tail(U8, U8, false).depthwise_source(vector, [1, 3, 3]));
        all.push(tail(I8, F32, false).depthwise_source(vector, [1, 5, 5]));
    }
    all
}
