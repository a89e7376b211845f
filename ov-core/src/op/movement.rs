//! Moving elements of any type without looking at them: strided copies, gathers, joins and block writes.

use smallvec::SmallVec;

use super::{OpError, OpResult};
use crate::{
    op_ensure,
    tensor::{ElementType, Shape, Tensor, read_packed, write_packed},
};

/// Most elements that an operator may make out of fewer: shapes come from files and are not trusted.
pub const MAX_ELEMENTS: usize = 1 << 33;

/// In place of a source index: the element is the fill value.
pub const FILL: usize = usize::MAX;

/// Number of elements of an output.
///
/// # Errors
/// [`OpError::Invalid`] above [`MAX_ELEMENTS`].
pub fn checked_len(shape: &[usize]) -> OpResult<usize> {
    let len = Shape::new(shape).checked_len().filter(|len| *len <= MAX_ELEMENTS);
    len.ok_or_else(|| {
        OpError::Invalid(format!("output shape {shape:?} has more than {MAX_ELEMENTS} elements"))
    })
}

/// Calls the block with `$T` bound to a plain type of the element type's width (whole bytes).
macro_rules! by_width {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty.bits() {
            8 => {
                type $T = u8;
                $body
            }
            16 => {
                type $T = u16;
                $body
            }
            32 => {
                type $T = u32;
                $body
            }
            64 => {
                type $T = u64;
                $body
            }
            _ => {
                type $T = [u64; 2];
                $body
            }
        }
    };
}

fn elements<T: bytemuck::Pod>(t: &Tensor) -> OpResult<&[T]> {
    bytemuck::try_cast_slice(t.bytes()).map_err(|e| OpError::Invalid(format!("tensor memory: {e}")))
}

fn elements_mut<T: bytemuck::Pod>(t: &mut Tensor) -> OpResult<&mut [T]> {
    bytemuck::try_cast_slice_mut(t.bytes_mut()?)
        .map_err(|e| OpError::Invalid(format!("tensor memory: {e}")))
}

/// Runs `f` on contiguous tensors of whole-byte elements. Texts and packed elements are numbered from 1 through all
/// sources (0 is the empty element), `f` moves the numbers, and the elements follow.
fn movable(sources: &[&Tensor], f: impl FnOnce(&[Tensor]) -> OpResult<Tensor>) -> OpResult<Tensor> {
    let ty = sources[0].element_type();
    if let Some((i, other)) = sources.iter().enumerate().find(|(_, s)| s.element_type() != ty) {
        return Err(OpError::Input {
            index: i,
            got: format!("element type {}", other.element_type()),
            expected: ty.to_string(),
        });
    }
    let sources: SmallVec<[Tensor; 4]> = sources.iter().map(|s| s.to_contiguous()).collect();
    if ty.bits() >= 8 {
        return f(&sources);
    }
    let mut start = 1u64;
    let mut numbered: SmallVec<[Tensor; 4]> = SmallVec::new();
    for source in &sources {
        let numbers: Vec<u64> = (start..start + source.len() as u64).collect();
        start += source.len() as u64;
        numbered.push(Tensor::from_vec(source.shape().clone(), numbers)?);
    }
    let moved = f(&numbered)?;
    let picks = moved.as_slice::<u64>()?;
    if ty == ElementType::String {
        let mut all = vec![""];
        for source in &sources {
            all.extend(source.as_strings()?.iter().map(String::as_str));
        }
        let texts = picks.iter().map(|p| all[*p as usize].to_owned()).collect();
        return Ok(Tensor::from_strings(moved.shape().clone(), texts)?);
    }
    let mut all = vec![0u8];
    for source in &sources {
        all.extend((0..source.len()).map(|i| read_packed(source.bytes(), ty.bits(), i)));
    }
    let mut out = Tensor::zeros(ty, moved.shape().clone())?;
    let bytes = out.bytes_mut()?;
    for (i, pick) in picks.iter().enumerate() {
        write_packed(bytes, ty.bits(), i, all[*pick as usize]);
    }
    Ok(out)
}

/// The tensor of `shape` whose element `i` is element `offset + Σ i[a] strides[a]` of `source` in row-major order.
/// Strides may be zero (repetition) or negative (reversal).
///
/// # Errors
/// When an element lies outside the source, or the output is too large.
pub fn strided_copy(
    source: &Tensor,
    shape: &[usize],
    offset: usize,
    strides: &[isize],
) -> OpResult<Tensor> {
    let outside = || OpError::Invalid(format!("shape {shape:?} reaches outside the input"));
    if checked_len(shape)? > 0 {
        let (mut low, mut high) = (offset as i128, offset as i128);
        for (d, s) in shape.iter().zip(strides) {
            let reach = (*d as i128 - 1) * *s as i128;
            *(if reach < 0 { &mut low } else { &mut high }) += reach;
        }
        if low < 0 || high >= source.len() as i128 {
            return Err(outside());
        }
    }
    movable(&[source], |s| {
        let mut out = Tensor::zeros(s[0].element_type(), shape)?;
        by_width!(s[0].element_type(), T => {
            copy_strided::<T>(elements(&s[0])?, elements_mut(&mut out)?, shape, offset, strides);
        });
        Ok(out)
    })
}

fn copy_strided<T: Copy>(
    source: &[T],
    target: &mut [T],
    shape: &[usize],
    offset: usize,
    strides: &[isize],
) {
    if target.is_empty() {
        return;
    }
    let mut axes: SmallVec<[(usize, isize); 8]> = SmallVec::new();
    for (d, s) in shape.iter().zip(strides).filter(|(d, _)| **d != 1) {
        match axes.last_mut() {
            Some((extent, stride)) if *stride == *s * *d as isize => {
                *extent *= *d;
                *stride = *s;
            }
            _ => axes.push((*d, *s)),
        }
    }
    let (inner, step) = axes.pop().unwrap_or((1, 1));
    let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, axes.len());
    let mut at = offset as isize;
    for row in target.chunks_exact_mut(inner) {
        let start = at as usize;
        match step {
            1 => row.copy_from_slice(&source[start..start + inner]),
            0 => row.fill(source[start]),
            _ => {
                let mut from = at;
                for t in row {
                    *t = source[from as usize];
                    from += step;
                }
            }
        }
        for (i, (extent, stride)) in index.iter_mut().zip(&axes).rev() {
            *i += 1;
            at += stride;
            if *i < *extent {
                break;
            }
            at -= stride * *extent as isize;
            *i = 0;
        }
    }
}

/// Row-major strides of a shape, signed as [`strided_copy`] wants them.
#[must_use]
pub fn signed_strides(shape: &[usize]) -> SmallVec<[isize; 8]> {
    Shape::new(shape).strides().iter().map(|s| *s as isize).collect()
}

/// `source` with its axes in the order `order`.
///
/// # Errors
/// When `order` is not a permutation of the axes.
pub fn permute(source: &Tensor, order: &[usize]) -> OpResult<Tensor> {
    let mut seen = vec![false; source.rank()];
    for axis in order {
        match seen.get_mut(*axis) {
            Some(s) if !*s => *s = true,
            _ => {
                return Err(OpError::Invalid(format!(
                    "order {order:?} is not a permutation of {} axes",
                    source.rank()
                )));
            }
        }
    }
    op_ensure!(order.len() == source.rank(), "order {order:?} is not of rank {}", source.rank());
    let strides = signed_strides(source.shape());
    let shape: SmallVec<[usize; 8]> = order.iter().map(|a| source.shape()[*a]).collect();
    let strides: SmallVec<[isize; 8]> = order.iter().map(|a| strides[*a]).collect();
    strided_copy(source, &shape, 0, &strides)
}

/// The tensor whose element `i` is `source[maps[0][i0], maps[1][i1], …]`, or `fill` where a map says [`FILL`].
/// Without `fill`, zero.
///
/// # Errors
/// When a map reaches outside its axis, `fill` is of another type, or the output is too large.
pub fn gather_axes(
    source: &Tensor,
    maps: &[Vec<usize>],
    fill: Option<&Tensor>,
) -> OpResult<Tensor> {
    let shape: SmallVec<[usize; 8]> = maps.iter().map(Vec::len).collect();
    checked_len(&shape)?;
    op_ensure!(maps.len() == source.rank(), "{} maps for rank {}", maps.len(), source.rank());
    for (axis, (map, extent)) in maps.iter().zip(source.shape().iter()).enumerate() {
        if let Some(bad) = map.iter().find(|i| **i != FILL && **i >= *extent) {
            return Err(OpError::Invalid(format!(
                "index {bad} is outside axis {axis} of extent {extent}"
            )));
        }
    }
    let mut sources: SmallVec<[&Tensor; 2]> = SmallVec::from_slice(&[source]);
    sources.extend(fill);
    movable(&sources, |s| {
        let mut out = Tensor::zeros(s[0].element_type(), shape.as_slice())?;
        let strides = s[0].shape().strides();
        by_width!(s[0].element_type(), T => {
            let target = elements_mut::<T>(&mut out)?;
            if let Some(fill) = s.get(1) {
                target.fill(*elements::<T>(fill)?.first().ok_or_else(|| {
                    OpError::Invalid("the fill value is empty".to_owned())
                })?);
            }
            if !target.is_empty() {
                gather_level(elements::<T>(&s[0])?, target, maps, &strides, 0);
            }
        });
        Ok(out)
    })
}

fn gather_level<T: Copy>(
    source: &[T],
    target: &mut [T],
    maps: &[Vec<usize>],
    strides: &[usize],
    at: usize,
) {
    let Some((map, rest)) = maps.split_first() else {
        target[0] = source[at];
        return;
    };
    if rest.is_empty() {
        for (t, i) in target.iter_mut().zip(map).filter(|(_, i)| **i != FILL) {
            *t = source[at + i];
        }
        return;
    }
    let chunk = target.len() / map.len();
    for (t, i) in target.chunks_exact_mut(chunk).zip(map).filter(|(_, i)| **i != FILL) {
        gather_level(source, t, rest, &strides[1..], at + i * strides[0]);
    }
}

/// The blocks of `block` elements of `source` that start at `starts`, one after the other, as a tensor of `shape`.
/// A start of [`FILL`] gives zeros.
///
/// # Errors
/// When a block lies outside the source or the blocks do not fill the shape.
pub fn take_blocks(
    source: &Tensor,
    shape: &[usize],
    block: usize,
    starts: &[usize],
) -> OpResult<Tensor> {
    let len = checked_len(shape)?;
    op_ensure!(
        starts.len().checked_mul(block) == Some(len),
        "{} blocks of {block} elements do not fill shape {shape:?}",
        starts.len()
    );
    let limit = source.len();
    if let Some(bad) =
        starts.iter().find(|s| **s != FILL && s.checked_add(block).is_none_or(|end| end > limit))
    {
        return Err(OpError::Invalid(format!("element {bad} is outside the {limit} of the input")));
    }
    movable(&[source], |s| {
        let mut out = Tensor::zeros(s[0].element_type(), shape)?;
        by_width!(s[0].element_type(), T => {
            let (from, to) = (elements::<T>(&s[0])?, elements_mut::<T>(&mut out)?);
            if block == 1 {
                for (t, start) in to.iter_mut().zip(starts).filter(|(_, s)| **s != FILL) {
                    *t = from[*start];
                }
            } else if block > 0 {
                let blocks = to.chunks_exact_mut(block).zip(starts);
                for (t, start) in blocks.filter(|(_, s)| **s != FILL) {
                    t.copy_from_slice(&from[*start..*start + block]);
                }
            }
        });
        Ok(out)
    })
}

/// A copy of `data` in which the blocks of `block` elements that start at `starts` are those of `updates`, in order;
/// later ones win.
///
/// # Errors
/// When a block lies outside the data, there are not enough updates, or the types differ.
pub fn put_blocks(
    data: &Tensor,
    updates: &Tensor,
    block: usize,
    starts: &[usize],
) -> OpResult<Tensor> {
    let limit = data.len();
    op_ensure!(
        starts.len().checked_mul(block) == Some(updates.len()),
        "{} blocks of {block} elements for {} updates",
        starts.len(),
        updates.len()
    );
    if let Some(bad) = starts.iter().find(|s| s.checked_add(block).is_none_or(|end| end > limit)) {
        return Err(OpError::Invalid(format!("element {bad} is outside the {limit} of the data")));
    }
    movable(&[data, updates], |s| {
        let mut out = s[0].to_owned_tensor();
        by_width!(out.element_type(), T => {
            let (from, to) = (elements::<T>(&s[1])?, elements_mut::<T>(&mut out)?);
            if block > 0 {
                for (u, start) in from.chunks_exact(block).zip(starts) {
                    to[*start..*start + block].copy_from_slice(u);
                }
            }
        });
        Ok(out)
    })
}

/// The tensors one after the other along `axis`; their other extents agree.
///
/// # Errors
/// When shapes or types differ.
pub fn join(tensors: &[&Tensor], axis: usize) -> OpResult<Tensor> {
    let mut shape = tensors[0].shape().to_vec();
    op_ensure!(axis < shape.len(), "axis {axis} of rank {}", shape.len());
    shape[axis] = 0;
    for (index, t) in tensors.iter().enumerate() {
        let fits = t.rank() == shape.len()
            && t.shape().iter().zip(&shape).enumerate().all(|(a, (x, y))| a == axis || x == y);
        if !fits {
            return Err(OpError::Input {
                index,
                got: format!("shape {}", t.shape()),
                expected: format!("{} except for axis {axis}", tensors[0].shape()),
            });
        }
        shape[axis] = shape[axis].saturating_add(t.shape()[axis]);
    }
    checked_len(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let row = shape[axis] * inner;
    movable(tensors, |s| {
        let mut out = Tensor::zeros(s[0].element_type(), shape.as_slice())?;
        by_width!(s[0].element_type(), T => {
            let to = elements_mut::<T>(&mut out)?;
            let mut at = 0;
            for t in s {
                let (from, len) = (elements::<T>(t)?, t.shape()[axis] * inner);
                for o in 0..outer {
                    to[o * row + at..o * row + at + len].copy_from_slice(&from[o * len..(o + 1) * len]);
                }
                at += len;
            }
        });
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..len as i32).collect::<Vec<_>>()).expect("fits")
    }

    #[test]
    fn axes_permute_for_every_width() {
        let t = Tensor::from_bytes(ElementType::U4, [2, 3], &[0x10, 0x32, 0x54]).expect("fits");
        assert_eq!(
            permute(&t, &[1, 0]).expect("permutes").to_i64_vec().expect("u4"),
            [0, 3, 1, 4, 2, 5]
        );
        let texts =
            Tensor::from_strings([1, 2], vec!["a".to_owned(), "b".to_owned()]).expect("fits");
        assert_eq!(permute(&texts, &[1, 0]).expect("permutes").shape().to_vec(), [2, 1]);
        let t = permute(&iota(&[2, 3, 4]), &[2, 0, 1]).expect("permutes");
        assert_eq!(t.as_slice::<i32>().expect("i32")[..7], [0, 4, 8, 12, 16, 20, 1]);
        assert!(permute(&iota(&[2, 3]), &[0, 0]).is_err());
        assert!(permute(&iota(&[2, 3]), &[0]).is_err());
        assert_eq!(permute(&iota(&[0, 3]), &[1, 0]).expect("empty").shape().to_vec(), [3, 0]);
    }

    #[test]
    fn strides_repeat_reverse_and_stay_inside() {
        let t = iota(&[3]);
        let r = strided_copy(&t, &[2, 3], 2, &[0, -1]).expect("inside");
        assert_eq!(r.as_slice::<i32>().expect("i32"), [2, 1, 0, 2, 1, 0]);
        assert!(strided_copy(&t, &[4], 2, &[-1]).is_err());
        assert!(strided_copy(&t, &[2], 2, &[1]).is_err());
    }

    #[test]
    fn maps_gather_and_fill() {
        let fill = Tensor::scalar(9i32);
        let t = gather_axes(&iota(&[2, 2]), &[vec![1, FILL], vec![0, 1, 0]], Some(&fill));
        assert_eq!(t.expect("gathers").as_slice::<i32>().expect("i32"), [2, 3, 2, 9, 9, 9]);
        assert!(gather_axes(&iota(&[2]), &[vec![2]], None).is_err());
    }

    #[test]
    fn blocks_are_taken_put_and_joined() {
        let t = iota(&[3, 2]);
        let taken = take_blocks(&t, &[2, 2], 2, &[4, FILL]).expect("inside");
        assert_eq!(taken.as_slice::<i32>().expect("i32"), [4, 5, 0, 0]);
        assert!(take_blocks(&t, &[2], 2, &[5]).is_err());
        let put = put_blocks(&t, &iota(&[1, 2]), 2, &[2]).expect("inside");
        assert_eq!(put.as_slice::<i32>().expect("i32"), [0, 1, 0, 1, 4, 5]);
        let joined = join(&[&t, &iota(&[3, 1])], 1).expect("fits");
        assert_eq!(joined.as_slice::<i32>().expect("i32"), [0, 1, 0, 2, 3, 1, 4, 5, 2]);
        assert!(join(&[&t, &iota(&[2, 1])], 1).is_err());
    }
}
