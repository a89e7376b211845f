//! Products of two computed operands, in batches that broadcast.

use ov_core::{
    ElementType, Shape,
    op::matmul::{MatMul, MatMulInteger, matmul_layout},
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{storage_type, unsupported},
    host::is_present,
    product::{BATCH_AXES, Finish, Form, Operand, Product, int},
    walk::{Record, Walk, broadcast_strides},
};

/// The family.
pub(super) const MATMUL: Kernel = Kernel { name: "matmul", select, bind };

const PLAIN: &str = include_str!("cuda/matmul.cu");
const INTEGER: &str = include_str!("cuda/matmul_integer.cu");

/// Threads of a block of the plain kernel.
const PLAIN_THREADS: u32 = 128;

/// Rows and columns of a tile of the kernel of bytes, and its threads.
const INTEGER_TILE: usize = 64;
const INTEGER_THREADS: u32 = 256;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    if node.op.is::<MatMulInteger>() {
        return Some(Ok(Choice::default()));
    }
    node.op.downcast::<MatMul>()?;
    let ty = node.inputs[0].element_type;
    if ty == ElementType::Boolean || storage_type(ty).is_none() {
        return Some(Err(unsupported(ty)));
    }
    Some(Ok(Choice::default()))
}

/// The axes of a batch, and how far each operand goes from one product to the next along them.
struct Batch {
    extents: [usize; BATCH_AXES],
    steps: [[usize; BATCH_AXES]; 2],
}

impl Batch {
    /// `sizes` are the elements of one matrix of each operand.
    fn of(
        shapes: [&Shape; 2],
        y: &Shape,
        trimmed: usize,
        sizes: [usize; 2],
    ) -> Result<Self, Reject> {
        let outer = |s: &Shape| s[..s.rank().saturating_sub(2)].to_vec();
        let dims = &y[..y.rank() - trimmed];
        let strides = shapes
            .iter()
            .zip(sizes)
            .map(|(shape, size)| {
                let steps = broadcast_strides(&outer(shape), dims)?;
                Ok(steps.into_iter().map(|s| s * size as i64).collect())
            })
            .collect::<Result<Vec<Vec<i64>>, Reject>>()?;
        let walk = Walk::merged(dims, &strides);
        let Some(first) = BATCH_AXES.checked_sub(walk.dims.len()) else {
            return Err("takes batches of at most four axes".into());
        };
        let mut batch = Self { extents: [1; BATCH_AXES], steps: [[0; BATCH_AXES]; 2] };
        batch.extents[first..].copy_from_slice(&walk.dims);
        for (steps, strides) in batch.steps.iter_mut().zip(&walk.strides) {
            for (step, stride) in steps[first..].iter_mut().zip(strides) {
                *step = *stride as usize;
            }
        }
        Ok(batch)
    }
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    if node.op.is::<MatMulInteger>() {
        return Ok(Bound::Step(integer(node)?));
    }
    let op = node.op.downcast::<MatMul>().ok_or("is no product")?;
    let (a, b, y) = (node.inputs[0].shape, node.inputs[1].shape, node.outputs[0].shape);
    let layout = matmul_layout(a, b, op.transpose_a, op.transpose_b)
        .map_err(|e| Reject(e.to_string().into()))?;
    let (m, n, k) = (layout.m, layout.n, layout.k);
    if y.iter().product::<usize>() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    // A vector on either side has no axis in the result.
    let trimmed = usize::from(a.rank() > 1) + usize::from(b.rank() > 1);
    let a_turned = op.transpose_a && a.rank() > 1;
    let b_turned = op.transpose_b || b.rank() == 1;
    let batch = Batch::of([a, b], y, trimmed, [m * k, k * n])?;
    let ty = node.inputs[0].element_type;
    if !matches!(ty, ElementType::F32 | ElementType::F16 | ElementType::Bf16) {
        return Ok(Bound::Step(plain(ty, [m, n, k], a_turned, b_turned, &batch)?));
    }
    let whole = 128 / ty.bits();
    let operand = |arg, turned, row: usize, batch| Operand {
        arg,
        turned,
        row,
        batch,
        aligned: row.is_multiple_of(whole),
    };
    let count: usize = batch.extents.iter().product();
    // One right operand for all: the rows of every product together.
    let shared = batch.steps[1] == [0; BATCH_AXES]
        && !a_turned
        && a.iter().product::<usize>() == count * m * k;
    let (m, extents, steps) = match shared {
        true => (count * m, [1; BATCH_AXES], [[0; BATCH_AXES]; 2]),
        false => (m, batch.extents, batch.steps),
    };
    let product = Product {
        element_type: ty,
        m,
        n,
        k,
        batch: extents,
        a: operand(Arg::Input(0), a_turned, if a_turned { m } else { k }, steps[0]),
        b: operand(Arg::Input(1), b_turned, if b_turned { k } else { n }, steps[1]),
        b_constant: false,
        y_row: n,
        y_batch: m * n,
        bias_batch: 0,
        finish: Finish::none(),
        requantize: None,
        form: Form::Plain,
    };
    Ok(Bound::Step(product.step(Arg::Output(0), node.gpu)?))
}

/// Types without tensor cores here: a thread per element.
fn plain(
    ty: ElementType,
    [m, n, k]: [usize; 3],
    a_turned: bool,
    b_turned: bool,
    batch: &Batch,
) -> Result<Step, Reject> {
    let count: usize = batch.extents.iter().product();
    let mut r = Record::default();
    r.i32(int(m)?).i32(int(n)?).i32(int(k)?).i32(int(count * m * n)?);
    let (a_row, a_column) = if a_turned { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if b_turned { (1, k) } else { (n, 1) };
    for v in [a_row, a_column, b_row, b_column] {
        r.i64(v as i64);
    }
    for v in batch.extents {
        r.i32(int(v)?);
    }
    for v in batch.steps.iter().flatten() {
        r.i64(*v as i64);
    }
    let launch = Launch {
        source: plain_source(ty),
        function: "matmul".into(),
        grid: [int(count * m * n)?.unsigned_abs().div_ceil(PLAIN_THREADS), 1, 1],
        block: [PLAIN_THREADS, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Input(1), Arg::Output(0), Arg::Bytes(r.bytes())],
    };
    Ok(Step { launches: vec![launch], ..Step::default() })
}

fn plain_source(ty: ElementType) -> Source {
    let storage = storage_type(ty).unwrap_or("int");
    Source { body: PLAIN.into(), defines: vec![("OV_T", storage.to_owned())] }
}

/// Bytes on both sides, less their zero points.
fn integer(node: &Binding<'_>) -> Result<Step, Reject> {
    let (a, b, y) = (node.inputs[0], node.inputs[1], node.outputs[0].shape);
    let layout =
        matmul_layout(a.shape, b.shape, false, false).map_err(|e| Reject(e.to_string().into()))?;
    let (m, n, k) = (layout.m, layout.n, layout.k);
    if y.elements() == 0 {
        return Ok(Step::default());
    }
    let trimmed = usize::from(a.shape.rank() > 1) + usize::from(b.shape.rank() > 1);
    let batch = Batch::of([a.shape, b.shape], y, trimmed, [1, 1])?;
    let count: usize = batch.extents.iter().product();
    if count > 65_535 {
        return Err(format!("takes at most 65535 products in a batch, not {count}").into());
    }
    // One zero point, one per line, or one per line of each matrix.
    let zeros = |index: usize, of: usize, lines: usize, matrix: usize| {
        if !is_present(node, index) {
            return Ok((Arg::I64(0), [0, 0]));
        }
        let given = node.inputs[index].shape.elements();
        let matrices = node.inputs[of].shape.elements() / matrix.max(1);
        let steps = match given {
            1 => [0, 0],
            _ if given == lines => [1, 0],
            _ if given == lines * matrices => [1, lines],
            _ => return Err(Reject("takes one zero point, or one per line".into())),
        };
        Ok((Arg::Input(index), steps))
    };
    let (a_zero, [a_line, a_matrix]) = zeros(2, 0, m, m * k)?;
    let (b_zero, [b_line, b_matrix]) = zeros(3, 1, n, k * n)?;
    let mut r = Record::default();
    for v in [m, n, k, a_line, b_line, a_matrix, b_matrix].into_iter().chain(batch.extents) {
        r.i32(int(v)?);
    }
    r.i32(0);
    for v in batch.steps.iter().flatten() {
        r.i64(*v as i64);
    }
    let tiles = m.div_ceil(INTEGER_TILE) * n.div_ceil(INTEGER_TILE);
    let args =
        vec![Arg::Input(0), Arg::Input(1), a_zero, b_zero, Arg::Output(0), Arg::Bytes(r.bytes())];
    let launch = Launch {
        source: integer_source(a.element_type, b.element_type),
        function: "matmul_integer".into(),
        grid: [int(tiles)?.unsigned_abs(), 1, count as u32],
        block: [INTEGER_THREADS, 1, 1],
        shared: 0,
        args,
    };
    Ok(Step { launches: vec![launch], ..Step::default() })
}

fn integer_source(a: ElementType, b: ElementType) -> Source {
    let storage = |ty| storage_type(ty).unwrap_or("signed char").to_owned();
    Source { body: INTEGER.into(), defines: vec![("OV_A", storage(a)), ("OV_B", storage(b))] }
}

/// The kernels without floats.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    let plain = [ElementType::F64, ElementType::I8, ElementType::I64].map(plain_source);
    let types = [(ElementType::U8, ElementType::I8), (ElementType::I8, ElementType::U8)];
    plain.into_iter().chain(types.map(|(a, b)| integer_source(a, b))).collect()
}
