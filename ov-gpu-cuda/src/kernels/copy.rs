//! Strided copies: any arrangement of elements in which input and output places are sums of strides.

use std::borrow::Cow;

use super::{
    Arg, Launch, Reject, Source,
    element::opaque_type,
    walk::{Record, Walk, count},
};

/// One copy; offsets and strides are in elements.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// Bytes of an element.
    pub(super) size: usize,
    /// Extents of what is copied.
    pub(super) dims: Vec<usize>,
    /// Strides in the input.
    pub(super) from: Vec<i64>,
    /// Strides in the output.
    pub(super) to: Vec<i64>,
    /// First element in the input.
    pub(super) from_offset: i64,
    /// First element in the output.
    pub(super) to_offset: i64,
}

/// Threads of a block.
const BLOCK: u32 = 256;

/// Edge of a tile of the transposing kernel, and the rows of threads that move it.
const TILE: usize = 32;
const TILE_ROWS: u32 = 8;

/// The text of every copying kernel.
pub(super) const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/copy.cu"),
);

/// The module for elements of `size` bytes.
fn source(size: usize) -> Result<Source, Reject> {
    let ty = opaque_type(size)
        .ok_or_else(|| Reject::from(format!("takes elements of 1 to 16 bytes, not {size}")))?;
    Ok(Source { body: Cow::Borrowed(TEXT), defines: vec![("OV_ELEMENT", ty.to_owned())] })
}

impl Copy {
    /// The launch that does it, `None` when there is nothing to copy.
    ///
    /// # Errors
    /// When it has too many elements or dimensions.
    pub(super) fn launch(mut self, from: Arg, to: Arg) -> Result<Option<Launch>, Reject> {
        if self.dims.contains(&0) {
            return Ok(None);
        }
        let mut walk = Walk::merged(&self.dims, &[self.from.clone(), self.to.clone()]);
        if let Some(launch) = self.tiled(&walk, &from, &to)? {
            return Ok(Some(launch));
        }
        self.widen(&mut walk);
        let source = source(self.size)?;
        let args = vec![
            from,
            to,
            Arg::Bytes(walk.record()?.bytes()),
            Arg::I64(self.from_offset),
            Arg::I64(self.to_offset),
        ];
        Ok(Some(Launch {
            source,
            function: "copy_strided".into(),
            grid: [count(walk.len())?.div_ceil(BLOCK), 1, 1],
            block: [BLOCK, 1, 1],
            shared: 0,
            args,
        }))
    }

    /// Copies up to 16 bytes at once where both sides are dense and everything lies at multiples of them.
    fn widen(&mut self, walk: &mut Walk) {
        let last = walk.dims.len() - 1;
        if walk.strides.iter().any(|s| s[last] != 1) {
            return;
        }
        let suits = |by: usize| {
            let whole = |v: i64| v.unsigned_abs().is_multiple_of(by as u64);
            walk.dims[last].is_multiple_of(by)
                && whole(self.from_offset)
                && whole(self.to_offset)
                && walk.strides.iter().all(|s| s[..last].iter().all(|s| whole(*s)))
        };
        let by = [16, 8, 4, 2].into_iter().find(|by| by * self.size <= 16 && suits(*by));
        let Some(by) = by else { return };
        walk.dims[last] /= by;
        for strides in &mut walk.strides {
            strides[..last].iter_mut().for_each(|s| *s /= by as i64);
        }
        self.size *= by;
        self.from_offset /= by as i64;
        self.to_offset /= by as i64;
    }

    /// A transposition through shared memory, where neighbours in the output are far apart in the input and the other
    /// way round.
    fn tiled(&self, walk: &Walk, from: &Arg, to: &Arg) -> Result<Option<Launch>, Reject> {
        let last = walk.dims.len() - 1;
        let Some(row) = (0..last).find(|a| walk.strides[0][*a] == 1 && walk.dims[*a] >= TILE / 2)
        else {
            return Ok(None);
        };
        if walk.strides[1][last] != 1 || walk.dims[last] < TILE / 2 || self.size > 8 {
            return Ok(None);
        }
        let (rows, columns) = (walk.dims[row], walk.dims[last]);
        let kept =
            |v: &[i64]| -> Vec<i64> { (0..last).filter(|a| *a != row).map(|a| v[a]).collect() };
        let outer: Vec<usize> = (0..last).filter(|a| *a != row).map(|a| walk.dims[a]).collect();
        let outer = Walk::merged(&outer, &[kept(&walk.strides[0]), kept(&walk.strides[1])]);
        // The walk over everything says whether offsets fit.
        walk.record()?;
        let (across, down) = (columns.div_ceil(TILE), rows.div_ceil(TILE));
        let mut tiles = Record::default();
        tiles.divisor(count(across)?).divisor(count(down)?);
        tiles.u32(count(rows)?).u32(count(columns)?);
        tiles.i32(stride(walk.strides[0][last])?).i32(stride(walk.strides[1][row])?);
        Ok(Some(Launch {
            source: source(self.size)?,
            function: "copy_transposed".into(),
            grid: [count(across * down * outer.len())?, 1, 1],
            block: [TILE as u32, TILE_ROWS, 1],
            shared: 0,
            args: vec![
                from.clone(),
                to.clone(),
                Arg::Bytes(outer.record()?.bytes()),
                Arg::Bytes(tiles.bytes()),
                Arg::I64(self.from_offset),
                Arg::I64(self.to_offset),
            ],
        }))
    }
}

fn stride(v: i64) -> Result<i32, Reject> {
    i32::try_from(v).map_err(|_| format!("takes strides of 31 bits, not {v}").into())
}
