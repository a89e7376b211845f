//! Parts of tensors along an axis, several in one launch.

use std::borrow::Cow;

use super::{
    Arg, Launch, Reject, Source,
    copy::TEXT,
    element::opaque_type,
    walk::{Record, count},
};

/// Rows that lie apart on both sides. Everything is in elements.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Where they come from.
    pub(super) from: Arg,
    /// Where they go.
    pub(super) to: Arg,
    /// How many.
    pub(super) rows: usize,
    /// Elements of a row.
    pub(super) run: usize,
    /// From row to row, on the side that they come from and where they go.
    pub(super) strides: [usize; 2],
    /// The first element on both sides.
    pub(super) first: [usize; 2],
}

/// Parts that one launch moves.
const MOST: usize = 8;

/// Threads of a block.
const BLOCK: u32 = 256;

/// The launches that move parts of elements of `size` bytes.
///
/// # Errors
/// When there are too many elements.
pub(super) fn launches(size: usize, parts: Vec<Part>) -> Result<Vec<Launch>, Reject> {
    let parts: Vec<Part> = parts.into_iter().filter(|p| p.rows * p.run > 0).collect();
    parts.chunks(MOST).map(|parts| launch(size, parts)).collect()
}

fn launch(size: usize, parts: &[Part]) -> Result<Launch, Reject> {
    // Units of up to 16 bytes, where everything lies at multiples of them.
    let suits = |by: usize| {
        let whole = |v: usize| v.is_multiple_of(by);
        let part = |p: &Part| {
            let strides = p.rows == 1 || p.strides.iter().all(|s| whole(*s));
            whole(p.run) && strides && p.first.iter().all(|f| whole(*f))
        };
        by * size <= 16 && parts.iter().all(part)
    };
    let by = [16, 8, 4, 2].into_iter().find(|by| suits(*by)).unwrap_or(1);
    let ty = opaque_type(size * by)
        .ok_or_else(|| Reject::from(format!("takes elements of 1 to 16 bytes, not {size}")))?;
    let mut record = Record::default();
    let mut longest = 0;
    for k in 0..MOST {
        let Some(p) = parts.get(k) else {
            record.u32(0).divisor(1).u32(0).u32(0).u32(0).u32(0);
            continue;
        };
        let units = |v: usize| count(v / by);
        let len = units(p.rows * p.run)?;
        longest = longest.max(len);
        record.u32(len).divisor(units(p.run)?);
        for v in p.strides.iter().chain(&p.first) {
            record.u32(units(*v)?);
        }
    }
    // Pointers of parts that are not there are those of the first.
    let side = |pick: fn(&Part) -> &Arg| {
        (0..MOST).map(move |k| pick(parts.get(k).unwrap_or(&parts[0])).clone())
    };
    let mut args: Vec<Arg> = side(|p| &p.from).chain(side(|p| &p.to)).collect();
    args.push(Arg::Bytes(record.bytes()));
    Ok(Launch {
        source: Source { body: Cow::Borrowed(TEXT), defines: vec![("OV_ELEMENT", ty.to_owned())] },
        function: "copy_parts".into(),
        grid: [longest.div_ceil(BLOCK), parts.len() as u32, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args,
    })
}
