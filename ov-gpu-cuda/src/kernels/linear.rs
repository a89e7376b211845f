//! Products with constant weights, and what follows them.

use ov_core::{ElementType, Tensor, op::fused::matmul::FullyConnected};

use super::{
    Arg, Binding, Bound, Choice, Gpu, Kernel, Launch, Pack, Reject, Selecting, Source, Step,
    element::storage_type,
    host::{is_given, is_present},
    product::{BATCH_AXES, Finish, Form, Operand, Product, int},
    walk::Record,
};

/// The family.
pub(super) const LINEAR: Kernel = Kernel { name: "linear", select, bind };

const GEMV: &str = concat!(include_str!("cuda/activation.cuh"), include_str!("cuda/gemv.cu"));

/// Rows of x up to which every weight is read once, by dot products.
pub(super) const GEMV_ROWS: usize = 8;
/// Threads of a block of them.
pub(super) const GEMV_THREADS: usize = 256;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op.downcast::<FullyConnected>()?;
    Some(choose(node, op))
}

fn choose(node: &Selecting<'_>, op: &FullyConnected) -> Result<Choice, Reject> {
    let ty = storage(node)?;
    op.activation().map_err(|e| e.to_string())?;
    let weights = constant(node, 1, "weights")?;
    let dims = weights.shape();
    if dims.rank() != 2 {
        return Err(format!("takes weights of rank 2, not {dims}").into());
    }
    let (n, k) = if op.transpose_b { (dims[0], dims[1]) } else { (dims[1], dims[0]) };
    let mut choice = Choice { consumed: vec![1], ..Choice::default() };
    choice.packed.push(pack_rows(weights, ty, n, k, !op.transpose_b)?);
    if is_given(node, 2) {
        choice.packed.push(pack_f32(constant(node, 2, "bias")?, n)?);
        choice.consumed.push(2);
    }
    choice.params = vec![n as i64, k as i64];
    Ok(choice)
}

/// The type of x, the result and the residual.
///
/// # Errors
/// When they differ, or are none that products take.
pub(super) fn storage(node: &Selecting<'_>) -> Result<ElementType, Reject> {
    let ty = node.inputs[0].element_type;
    if !matches!(ty, ElementType::F32 | ElementType::F16 | ElementType::Bf16) {
        return Err(format!("takes f32, f16 and bf16, not {ty}").into());
    }
    let residual = node.inputs.get(3).filter(|_| is_given(node, 3)).map(|i| i.element_type);
    let output = node.outputs.first().map(|o| o.element_type);
    match [residual, output].into_iter().flatten().find(|other| *other != ty) {
        Some(other) => Err(format!("takes one type, not {ty} and {other}").into()),
        None => Ok(ty),
    }
}

/// The constant behind an input.
///
/// # Errors
/// When it is computed while the model runs.
pub(super) fn constant<'a>(
    node: &Selecting<'a>,
    index: usize,
    what: &str,
) -> Result<&'a Tensor, Reject> {
    let found = node.inputs.get(index).and_then(|i| i.constant);
    found.ok_or_else(|| format!("takes constant {what}").into())
}

/// Elements of a row of packed weights: whole copies of 16 bytes.
pub(super) fn row_len(ty: ElementType, k: usize) -> usize {
    k.next_multiple_of(128 / ty.bits())
}

/// Weights as rows of `k` elements of type `ty`, one per column of the result; `across` when they are given as `[k, n]`.
///
/// # Errors
/// When they are no numbers.
pub(super) fn pack_rows(
    weights: &Tensor,
    ty: ElementType,
    n: usize,
    k: usize,
    across: bool,
) -> Result<Pack, Reject> {
    let (from_row, from_column) = if across { (1, n) } else { (k, 1) };
    pack_with(weights, ty, n, k, move |row, column| row * from_row + column * from_column)
}

/// Weights as rows of `k` elements, element `(row, column)` from where `from` says.
///
/// # Errors
/// When they are no numbers.
pub(super) fn pack_with(
    weights: &Tensor,
    ty: ElementType,
    n: usize,
    k: usize,
    from: impl Fn(usize, usize) -> usize + Send + 'static,
) -> Result<Pack, Reject> {
    let weights =
        if weights.element_type() == ty { weights.to_contiguous() } else { cast(weights, ty)? };
    let (row, size) = (row_len(ty, k), ty.bits() / 8);
    let fill = move |bytes: &mut [u8]| {
        let source = weights.bytes();
        // In squares, so that neither side leaves the cache from one element to the next.
        const SIDE: usize = 32;
        for rows in (0..n).step_by(SIDE) {
            for columns in (0..k).step_by(SIDE) {
                for r in rows..n.min(rows + SIDE) {
                    for c in columns..k.min(columns + SIDE) {
                        let at = from(r, c) * size;
                        bytes[(r * row + c) * size..][..size]
                            .copy_from_slice(&source[at..at + size]);
                    }
                }
            }
        }
    };
    Ok(Pack { len: n * row * size, fill: Box::new(fill) })
}

/// `n` values as f32.
///
/// # Errors
/// When they are no numbers, or another number of them.
pub(super) fn pack_f32(values: &Tensor, n: usize) -> Result<Pack, Reject> {
    if values.len() != n {
        return Err(format!("takes a bias of {n} elements, not {}", values.shape()).into());
    }
    let wide = cast(values, ElementType::F32)?;
    Ok(Pack { len: n * 4, fill: Box::new(move |bytes| bytes.copy_from_slice(wide.bytes())) })
}

fn cast(tensor: &Tensor, ty: ElementType) -> Result<Tensor, Reject> {
    tensor.cast(ty).map(|t| t.to_contiguous()).map_err(|e| Reject(e.to_string().into()))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = node.op.downcast::<FullyConnected>().ok_or("is no product")?;
    let &[n, k] = node.params else { return Err("has lost its extents".into()) };
    let (n, k) = (n as usize, k as usize);
    let x = node.inputs[0];
    if x.shape.last().is_some_and(|last| *last != k) {
        return Err(format!("takes rows of {k} elements, not {}", x.shape).into());
    }
    let m = node.outputs[0].shape.iter().product::<usize>().checked_div(n).unwrap_or(0);
    let finish = Finish {
        bias: is_present(node, 2).then_some(Arg::Packed(1)),
        residual: is_present(node, 3).then_some(Arg::Input(3)),
        activation: op.activation().map_err(|e| e.to_string())?,
        residual_after: op.residual_after,
    };
    Ok(Bound::Step(dense(node.gpu, x.element_type, [m, n, k], finish)?))
}

/// `finish(x w)` for `x: [m, k]` in input 0 and weights from [`pack_rows`] in place 0.
///
/// # Errors
/// When an extent is beyond what kernels count.
pub(super) fn dense(
    gpu: Gpu,
    ty: ElementType,
    [m, n, k]: [usize; 3],
    finish: Finish,
) -> Result<Step, Reject> {
    if m <= GEMV_ROWS {
        return gemv(gpu, ty, [m, n, k], &finish);
    }
    let row = row_len(ty, k);
    let operand =
        |arg, turned, row, aligned| Operand { arg, turned, row, batch: [0; BATCH_AXES], aligned };
    let product = Product {
        element_type: ty,
        m,
        n,
        k,
        batch: [1; BATCH_AXES],
        a: operand(Arg::Input(0), false, k, k == row),
        b: operand(Arg::Packed(0), true, row, true),
        b_constant: true,
        y_row: n,
        y_batch: 0,
        bias_batch: 0,
        finish,
        requantize: None,
        form: Form::Plain,
    };
    product.step(Arg::Output(0), gpu)
}

/// Few rows: a warp, or several, per column of the result.
fn gemv(gpu: Gpu, ty: ElementType, [m, n, k]: [usize; 3], finish: &Finish) -> Result<Step, Reject> {
    if m == 0 || n == 0 {
        return Ok(Step::default());
    }
    let warps = GEMV_THREADS / 32;
    let share = gemv_share(gpu, n, k, ty.bits());
    let mut r = Record::default();
    r.i32(int(m)?).i32(int(n)?).i32(int(k)?).i32(int(row_len(ty, k))?);
    finish.record(&mut r);
    let [bias, residual] = finish.args();
    let launch = Launch {
        source: gemv_source(ty, m.next_power_of_two(), share, finish),
        function: "gemv".into(),
        grid: [int(n.div_ceil(warps / share))? as u32, 1, 1],
        block: [GEMV_THREADS as u32, 1, 1],
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

/// Warps that share a column of `k` elements of so many bits.
pub(super) fn gemv_share(gpu: Gpu, n: usize, k: usize, bits: usize) -> usize {
    let warps = GEMV_THREADS / 32;
    // So many columns keep the multiprocessors busy; with fewer, several warps share one.
    let wanted = gpu.multiprocessors as usize * 2 * warps;
    let mut share = 1;
    let most = k.div_ceil(32 * 128 / bits).max(1);
    while share < warps && n * share < wanted && share * 2 <= most {
        share *= 2;
    }
    share
}

fn gemv_source(ty: ElementType, rows: usize, share: usize, finish: &Finish) -> Source {
    Source {
        body: GEMV.into(),
        defines: vec![
            ("OV_T", storage_type(ty).unwrap_or("float").to_owned()),
            ("OV_ROWS", rows.to_string()),
            ("OV_SHARE", share.to_string()),
            ("OV_THREADS", GEMV_THREADS.to_string()),
            ("OV_ACTIVATION", finish.activation()),
        ],
    }
}

/// Dot products of every number of rows.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    let mut all = Vec::new();
    for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        let every: &[_] =
            if ty == ElementType::F16 { &[(1, 1)] } else { &[(1, 1), (2, 8), (8, 4)] };
        for &(rows, share) in every {
            all.push(gemv_source(ty, rows, share, &Finish::none()));
        }
    }
    all
}
