//! Products of two computed operands, in batches that broadcast.

use ov_core::{
    ElementType, Shape,
    op::matmul::{MatMul, matmul_layout},
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{storage_type, unsupported},
    product::{BATCH_AXES, Finish, Form, Operand, Product, int},
    walk::{Record, Walk, broadcast_strides},
};

/// The family.
pub(super) const MATMUL: Kernel = Kernel { name: "matmul", select, bind };

const PLAIN: &str = include_str!("cuda/matmul.cu");

/// Threads of a block of the plain kernel.
const PLAIN_THREADS: u32 = 128;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
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

/// The plain kernel.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    [ElementType::F64, ElementType::I8, ElementType::I64].map(plain_source).into()
}
