//! Launches of the tiled matrix product, which products, convolutions and their batches become.

use ov_core::{ElementType, op::fused::activation::Activation};

use super::{Arg, Gpu, Launch, Reject, Source, Step, element::storage_type, walk::Record};

const TEXT: &str = concat!(include_str!("cuda/activation.cuh"), include_str!("cuda/product.cu"));
const INTEGER_TEXT: &str = concat!(
    include_str!("cuda/activation.cuh"),
    include_str!("cuda/integer.cuh"),
    include_str!("cuda/product.cu"),
);

/// Most axes of a batch after merging.
pub(super) const BATCH_AXES: usize = 4;

/// An operand of a product: where it is and how it lies.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    /// Its address.
    pub(super) arg: Arg,
    /// Whether its rows are columns of the other form: a as `[k, m]`, b as `[n, k]`.
    pub(super) turned: bool,
    /// Elements from row to row.
    pub(super) row: usize,
    /// Elements from one product to the next along each axis of the batch.
    pub(super) batch: [usize; BATCH_AXES],
    /// Whether every address of a row's start is a multiple of 16 bytes.
    pub(super) aligned: bool,
}

/// What follows the product.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    /// f32 values per column, or none.
    pub(super) bias: Option<Arg>,
    /// What is added, laid out as the result, or none.
    pub(super) residual: Option<Arg>,
    /// Applied in the end, or before the residual.
    pub(super) activation: Activation,
    /// Whether the residual is added after the activation.
    pub(super) residual_after: bool,
}

impl Finish {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self { bias: None, residual: None, activation: Activation::None, residual_after: false }
    }

    /// The struct `ov_finish`.
    pub(super) fn record(&self, record: &mut Record) {
        let (_, [p, q]) = self.activation.to_parts();
        record.f32(p).f32(q).i32(self.residual_after.into());
    }

    /// The number of the activation.
    pub(super) fn activation(&self) -> String {
        self.activation.to_parts().0.to_string()
    }

    /// The addresses of bias and residual.
    pub(super) fn args(&self) -> [Arg; 2] {
        [&self.bias, &self.residual].map(|arg| arg.clone().unwrap_or(Arg::I64(0)))
    }
}

/// What follows sums of bytes before and after [`Finish`], whose bias, residual and activation are `f32`.
#[derive(Clone, Debug)]
pub(super) struct Requantize {
    /// Zero point of a, or none.
    pub(super) x_zero: Option<Arg>,
    /// i32 sums of the columns of b; none where the kernel takes zero points away by itself.
    pub(super) columns: Option<Arg>,
    /// i32 values that were taken from the weights of each column, or none.
    pub(super) shifts: Option<Arg>,
    /// f32 factors: one, or one per column.
    pub(super) scale: Arg,
    /// One f32 that they are multiplied by, or none.
    pub(super) factor: Option<Arg>,
    /// Whether there is one per column.
    pub(super) scale_per_column: bool,
    /// Size of a step, and zero point, of a result of bytes.
    pub(super) steps: Option<[Arg; 2]>,
    /// Type of the result.
    pub(super) output: ElementType,
}

impl Requantize {
    /// One with a scale per column and nothing else, to be compiled.
    #[cfg(test)]
    pub(super) fn sample(output: ElementType, shifted: bool) -> Self {
        Self {
            x_zero: None,
            columns: None,
            shifts: shifted.then_some(Arg::I64(0)),
            scale: Arg::I64(0),
            factor: None,
            scale_per_column: true,
            steps: None,
            output,
        }
    }

    /// `OV_Y`.
    pub(super) fn output(&self) -> String {
        storage_type(self.output).unwrap_or("float").to_owned()
    }

    /// The zero point of a.
    pub(super) fn x_zero(&self) -> Arg {
        self.x_zero.clone().unwrap_or(Arg::I64(0))
    }

    /// Sums and shifts of columns.
    pub(super) fn columns(&self) -> [Arg; 2] {
        [&self.columns, &self.shifts].map(|arg| arg.clone().unwrap_or(Arg::I64(0)))
    }

    /// The scale and its factor, then size of a step and zero point of the result.
    pub(super) fn scales(&self) -> [Arg; 4] {
        let [step, zero] = self.steps.clone().unwrap_or([Arg::I64(0), Arg::I64(0)]);
        [self.scale.clone(), self.factor.clone().unwrap_or(Arg::I64(0)), step, zero]
    }
}

/// The image of a convolution as the operand a: the struct `Image`.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Extents of input, output and filter; steps between taps and between windows; padding before.
    pub(super) spatial: [[i32; 3]; 6],
    /// Channels of a group.
    pub(super) channels: usize,
    /// Elements from one image, and from one channel, to the next.
    pub(super) image: usize,
    pub(super) channel: usize,
    /// Elements from one place to the next along each axis.
    pub(super) at: [usize; 3],
}

/// A batch of products `y = finish(a b)`; y is dense.
#[derive(Clone, Debug)]
pub(super) struct Product {
    /// Storage type: f32, f16 or bf16; u8 or i8 of a where sums are of bytes.
    pub(super) element_type: ElementType,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Extents of the batch.
    pub(super) batch: [usize; BATCH_AXES],
    pub(super) a: Operand,
    pub(super) b: Operand,
    /// Whether b is not written while a model runs.
    pub(super) b_constant: bool,
    /// Elements from row to row of the result, and from one result to the next.
    pub(super) y_row: usize,
    pub(super) y_batch: usize,
    /// Elements from the bias of one product to the next.
    pub(super) bias_batch: usize,
    pub(super) finish: Finish,
    /// For sums of bytes.
    pub(super) requantize: Option<Requantize>,
    pub(super) form: Form,
}

/// What the rows of a are.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// Rows of a matrix.
    Plain,
    /// Windows of an image.
    Convolution(Image),
    /// Places of an image between which the results of a transposed convolution lie.
    Transposed(Image),
}

impl Form {
    fn image(&self) -> Option<&Image> {
        match self {
            Self::Plain => None,
            Self::Convolution(image) | Self::Transposed(image) => Some(image),
        }
    }

    /// `OV_CONV`.
    fn number(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Convolution(_) => 1,
            Self::Transposed(_) => 2,
        }
    }
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    m: usize,
    n: usize,
    k: usize,
    stages: usize,
    warps: [usize; 2],
}

impl Tile {
    const fn new(m: usize, n: usize, k: usize, stages: usize, warps: [usize; 2]) -> Self {
        Self { m, n, k, stages, warps }
    }

    fn threads(self) -> usize {
        32 * self.warps[0] * self.warps[1]
    }

    /// Bytes of the buffers.
    fn shared(self, size: usize, a_turned: bool, b_turned: bool) -> usize {
        let pad = 16 / size;
        let a = if a_turned { self.k * (self.m + pad) } else { self.m * (self.k + pad) };
        let b = if b_turned { self.n * (self.k + pad) } else { self.k * (self.n + pad) };
        self.stages * (a + b) * size
    }
}

/// From few rows to many: tensor cores.
const NARROW: [Tile; 4] = [
    Tile::new(16, 64, 64, 4, [1, 4]),
    Tile::new(32, 64, 64, 4, [1, 4]),
    Tile::new(64, 64, 64, 3, [2, 2]),
    Tile::new(128, 128, 32, 4, [2, 4]),
];
/// The same in f32.
const WIDE: [Tile; 3] = [
    Tile::new(16, 64, 32, 4, [1, 4]),
    Tile::new(64, 64, 16, 4, [1, 8]),
    Tile::new(128, 64, 16, 4, [1, 8]),
];
/// The same for bytes.
const BYTES: [Tile; 4] = [
    Tile::new(16, 64, 128, 4, [1, 4]),
    Tile::new(32, 64, 128, 4, [1, 4]),
    Tile::new(64, 64, 128, 3, [2, 2]),
    Tile::new(128, 128, 64, 4, [2, 4]),
];
/// Slices of k that a share has at least: fewer do not pay for adding the shares.
const LEAST_SLICES: usize = 4;
/// Blocks that share a tile at most.
const MOST_SHARES: usize = 32;

impl Product {
    /// The number of products.
    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    /// A tile that fits the rows and gives every multiprocessor work where it can.
    fn tile(&self, gpu: Gpu) -> Tile {
        let all = tiles_of(self.element_type);
        let fits = all.iter().position(|t| t.m >= self.m).unwrap_or(all.len() - 1);
        let tiles = |t: Tile| self.m.div_ceil(t.m) * self.n.div_ceil(t.n) * self.batches();
        let mut chosen = fits;
        // A larger tile reads less, a smaller one leaves fewer multiprocessors idle.
        while chosen > 1 && tiles(all[chosen]) < gpu.multiprocessors as usize {
            chosen -= 1;
        }
        all[chosen]
    }

    /// Blocks that share the k of a tile.
    fn shares(&self, tile: Tile, gpu: Gpu) -> usize {
        let tiles = self.m.div_ceil(tile.m) * self.n.div_ceil(tile.n) * self.batches();
        let slices = self.k.div_ceil(tile.k);
        let idle = gpu.multiprocessors as usize / tiles.max(1);
        idle.min(slices / LEAST_SLICES).clamp(1, MOST_SHARES)
    }

    /// The launches.
    ///
    /// # Errors
    /// When an extent is beyond what the kernel counts.
    pub(super) fn step(&self, y: Arg, gpu: Gpu) -> Result<Step, Reject> {
        let tile = self.tile(gpu);
        self.step_with(y, tile, self.shares(tile, gpu))
    }

    fn step_with(&self, y: Arg, tile: Tile, shares: usize) -> Result<Step, Reject> {
        if self.m == 0 || self.n == 0 || self.batches() == 0 {
            return Ok(Step::default());
        }
        let size = self.element_type.bits() / 8;
        let whole = 16 / size;
        let per_copy = |aligned: bool| if aligned { whole } else { 1 };
        let image_suits = |by: usize| self.form.image().is_none_or(|i| i.aligned(by));
        let a_vector = if self.requantize.is_some() {
            let suits = |by: &usize| match self.form {
                Form::Plain => self.a.row.is_multiple_of(*by),
                _ => image_suits(*by),
            };
            [16, 8, 4].into_iter().find(suits).unwrap_or(1)
        } else {
            per_copy(self.a.aligned && image_suits(whole))
        };
        let source = self.source(tile, a_vector, per_copy(self.b.aligned));
        let tiles = self.m.div_ceil(tile.m) * self.n.div_ceil(tile.n);
        let slices = self.k.div_ceil(tile.k).div_ceil(shares);
        let grid = [tiles, shares, self.batches()].map(u32::try_from);
        let [Ok(x), Ok(y_blocks), Ok(z)] = grid else {
            return Err("takes fewer than 2^31 tiles".into());
        };
        if x > i32::MAX as u32 || z > 65_535 {
            return Err(format!("takes at most 65535 products in a batch, not {z}").into());
        }
        let counters = if shares > 1 { tiles * self.batches() * 4 } else { 0 };
        let parts = counters.next_multiple_of(256);
        let part = tile.m * tile.n * 4;
        let scratch = if shares > 1 { parts + tiles * self.batches() * shares * part } else { 0 };
        let [bias, residual] = self.finish.args();
        let mut args = vec![self.a.arg.clone(), self.b.arg.clone(), y, bias, residual];
        args.extend([Arg::Scratch(parts), Arg::Scratch(0)].map(|arg| match shares {
            1 => Arg::I64(0),
            _ => arg,
        }));
        if let Some(requantize) = &self.requantize {
            args.push(requantize.x_zero());
            args.extend(requantize.columns());
            args.extend(requantize.scales());
        }
        if let Some(image) = self.form.image() {
            args.push(Arg::Bytes(image.bytes()?));
        }
        args.push(Arg::Bytes(self.bytes(slices, shares)?));
        let launch = Launch {
            source,
            function: "product".into(),
            grid: [x, y_blocks, z],
            block: [tile.threads() as u32, 1, 1],
            shared: tile.shared(size, self.a.turned, self.b.turned) as u32,
            args,
        };
        Ok(Step { launches: vec![launch], scratch, zeroed: counters, update: None })
    }

    fn source(&self, tile: Tile, a_vector: usize, b_vector: usize) -> Source {
        let storage = storage_type(self.element_type).unwrap_or("float");
        let number = |v: usize| v.to_string();
        let truth = |v: bool| usize::from(v).to_string();
        let mut source = Source {
            body: TEXT.into(),
            defines: vec![
                ("OV_T", storage.to_owned()),
                ("OV_BM", number(tile.m)),
                ("OV_BN", number(tile.n)),
                ("OV_BK", number(tile.k)),
                ("OV_STAGES", number(tile.stages)),
                ("OV_WARPS_M", number(tile.warps[0])),
                ("OV_WARPS_N", number(tile.warps[1])),
                ("OV_THREADS", number(tile.threads())),
                ("OV_A_TURNED", truth(self.a.turned)),
                ("OV_B_TURNED", truth(self.b.turned)),
                ("OV_B_CONSTANT", truth(self.b_constant)),
                ("OV_A_VECTOR", number(a_vector)),
                ("OV_B_VECTOR", number(b_vector)),
                ("OV_CONV", number(self.form.number())),
                ("OV_ACTIVATION", self.finish.activation()),
            ],
        };
        if let Some(requantize) = &self.requantize {
            source.body = INTEGER_TEXT.into();
            source.defines.extend([
                ("OV_INTEGER", number(1)),
                ("OV_SHIFTED", truth(requantize.shifts.is_some())),
                ("OV_Y", requantize.output()),
            ]);
        }
        source
    }

    /// The struct `Product`.
    fn bytes(&self, slices: usize, shares: usize) -> Result<Vec<u8>, Reject> {
        let mut r = Record::default();
        for v in [self.m, self.n, self.k, slices, shares, self.bias_batch] {
            r.i32(int(v)?);
        }
        for v in [self.a.row, self.b.row, self.y_row, self.y_batch] {
            r.i64(v as i64);
        }
        for v in self.batch {
            r.i32(int(v)?);
        }
        for v in self.a.batch.iter().chain(&self.b.batch) {
            r.i64(*v as i64);
        }
        self.finish.record(&mut r);
        r.i32(self.requantize.as_ref().is_some_and(|q| q.scale_per_column).into());
        Ok(r.bytes())
    }
}

/// The tiles of a storage type, from few rows to many.
fn tiles_of(ty: ElementType) -> &'static [Tile] {
    match ty {
        ElementType::F32 => &WIDE,
        ElementType::U8 | ElementType::I8 => &BYTES,
        _ => &NARROW,
    }
}

impl Image {
    /// Whether the channels of a place can be copied in pieces of `whole` elements.
    fn aligned(&self, whole: usize) -> bool {
        let steps = self.at.iter().chain([&self.channels, &self.image]);
        self.channel == 1 && steps.copied().all(|s| s.is_multiple_of(whole))
    }

    /// The struct `Image`.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Reject> {
        let mut r = Record::default();
        for v in self.spatial.iter().flatten() {
            r.i32(*v);
        }
        r.i32(int(self.channels)?).i32(0);
        for v in [self.image, self.channel].into_iter().chain(self.at) {
            r.i64(v as i64);
        }
        Ok(r.bytes())
    }
}

/// An extent as kernels count it.
///
/// # Errors
/// When it is too large.
pub(super) fn int(v: usize) -> Result<i32, Reject> {
    i32::try_from(v).map_err(|_| format!("takes extents below 2^31, not {v}").into())
}

/// Products with every tile, and the forms of operands that models have.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    use ElementType::{Bf16, F16, F32, I8, U8};
    let operand = |turned| Operand {
        arg: Arg::I64(0),
        turned,
        row: 64,
        batch: [0; BATCH_AXES],
        aligned: true,
    };
    let image = || Image { spatial: [[1; 3]; 6], channels: 8, image: 8, channel: 1, at: [8; 3] };
    let mut all = Vec::new();
    for element_type in [F32, Bf16, F16] {
        let tiles = tiles_of(element_type);
        let whole = 128 / element_type.bits();
        let mut add = |tile: Tile, a_turned, b_turned, form, vector| {
            let product = Product {
                element_type,
                m: 1,
                n: 1,
                k: 1,
                batch: [1; BATCH_AXES],
                a: operand(a_turned),
                b: operand(b_turned),
                b_constant: b_turned,
                y_row: 1,
                y_batch: 1,
                bias_batch: 0,
                finish: Finish { activation: Activation::GeluErf, ..Finish::none() },
                requantize: None,
                form,
            };
            all.push(product.source(tile, vector, whole));
        };
        add(tiles[1], false, true, Form::Convolution(image()), whole);
        if element_type == F16 {
            continue;
        }
        for tile in tiles {
            add(*tile, false, true, Form::Plain, whole);
        }
        let last = tiles[tiles.len() - 1];
        add(last, false, true, Form::Convolution(image()), whole);
        add(last, false, true, Form::Transposed(image()), 1);
        add(last, false, false, Form::Plain, whole);
        add(last, true, false, Form::Plain, 1);
    }
    let bytes = |element_type, tile, form, a_vector, shifted: bool, output| {
        let product = Product {
            element_type,
            m: 1,
            n: 1,
            k: 1,
            batch: [1; BATCH_AXES],
            a: operand(false),
            b: operand(true),
            b_constant: true,
            y_row: 1,
            y_batch: 1,
            bias_batch: 0,
            finish: Finish { activation: Activation::Silu, ..Finish::none() },
            requantize: Some(Requantize::sample(output, shifted)),
            form,
        };
        product.source(tile, a_vector, 16)
    };
    for tile in BYTES {
        all.push(bytes(U8, tile, Form::Plain, 16, false, U8));
    }
    let [few, .., last] = BYTES;
    all.push(bytes(I8, few, Form::Plain, 1, false, F32));
    all.push(bytes(U8, last, Form::Plain, 16, true, F32));
    all.push(bytes(I8, last, Form::Plain, 8, true, I8));
    all.push(bytes(U8, last, Form::Convolution(image()), 16, false, U8));
    all.push(bytes(I8, last, Form::Convolution(image()), 4, true, F32));
    all.push(bytes(U8, BYTES[2], Form::Convolution(image()), 1, false, I8));
    all
}
