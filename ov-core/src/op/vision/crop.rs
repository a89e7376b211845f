//! Crops of images at one size.

use crate::{
    choice, dispatch_float,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, convert::to_f64,
        movement::checked_len, unsupported_type,
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// What lies between pixels.
    pub enum CropMode {
        /// The four pixels around, weighted by distance.
        Bilinear = "bilinear",
        /// The nearest pixel, halves away from zero.
        Nearest = "nearest",
    }
}

define_op! {
    /// Boxes (input 1, `[r, 4]`: top, left, bottom, right, from 0 to 1) of images (input 0, `[n, c, h, w]`) that input 2
    /// (`[r]`) names, resized to the height and width in input 3, corners on corners.
    /// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.CropAndResize>
    pub struct CropAndResize("CropAndResize", 0) {
        /// What lies between pixels.
        mode: CropMode = CropMode::Bilinear,
        /// Value of what lies outside of the image.
        extrapolation_value: f64 = 0.0,
    }
}

fn sizes(values: &[i64]) -> OpResult<[usize; 2]> {
    let size = |v: i64| usize::try_from(v).ok().filter(|v| *v > 0);
    match values {
        [h, w] => size(*h).zip(size(*w)).map(|(h, w)| [h, w]),
        _ => None,
    }
    .ok_or_else(|| OpError::Input {
        index: 3,
        got: format!("{values:?}"),
        expected: "a positive height and width".to_owned(),
    })
}

impl OpRules for CropAndResize {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=4)?;
        cx.expect_rank(0, 4..=4)?;
        cx.expect_rank(1, 2..=2)?;
        cx.expect_rank(2, 1..=1)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let boxes = cx.shape(1);
        if !boxes.dim(1).admits(4) {
            return Err(OpError::Input {
                index: 1,
                got: format!("shape {boxes}"),
                expected: "4 numbers per box".to_owned(),
            });
        }
        let [h, w] = match cx.i64s(3)? {
            Some(values) => sizes(&values)?.map(Dimension::fixed),
            None => [Dimension::DYNAMIC; 2],
        };
        let shape = PartialShape::new(&[boxes.dim(0), cx.shape(0).dim(1), h, w]);
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let [n, c, h, w] = inputs[0].shape()[..] else {
            return Err(OpError::Invalid(format!("images {} are not [n, c, h, w]", inputs[0].shape())));
        };
        let (images, boxes) = (to_f64(&inputs[0])?, to_f64(&inputs[1])?);
        let (batch, [rows, columns]) = (inputs[2].to_i64_vec()?, sizes(&inputs[3].to_i64_vec()?)?);
        op_ensure!(
            boxes.len() == 4 * batch.len(),
            "{} boxes for {} images",
            boxes.len() / 4,
            batch.len()
        );
        let shape = [batch.len(), c, rows, columns];
        let (len, ty) = (checked_len(&shape)?, inputs[0].element_type());
        if len == 0 {
            return Ok(vec![Tensor::zeros(ty, shape)?]);
        }
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| no_memory(&shape))?;
        for (b, index) in boxes.chunks_exact(4).zip(batch) {
            let image = usize::try_from(index).ok().filter(|i| *i < n);
            let image = image
                .ok_or_else(|| OpError::Invalid(format!("index {index} is outside of {n} images")))?;
            let (ys, xs) = (places(b[0], b[2], rows, h), places(b[1], b[3], columns, w));
            for channel in 0..c {
                let plane = &images[(image * c + channel) * h * w..][..h * w];
                for y in &ys {
                    out.extend(xs.iter().map(|x| self.value(plane, w, *y, *x)));
                }
            }
        }
        let out = dispatch_float!(ty, T => Tensor::from_f64s::<T>(shape, &out)?,
            else return Err(unsupported_type(ty)));
        Ok(vec![out])
    }
}

fn no_memory(shape: &[usize]) -> OpError {
    OpError::Invalid(format!("there is no memory for crops of {shape:?}"))
}

/// Where `count` points from `start` to `end` (0 to 1) lie on an axis of `extent` pixels; `None` outside of it. In
/// `f32`, whose rounding decides which pixel is nearest to a point half-way between two.
fn places(start: f64, end: f64, count: usize, extent: usize) -> Vec<Option<f64>> {
    let last = extent as f32 - 1.0;
    let (start, end) = (start as f32 * last, end as f32 * last);
    let step = (end - start) / (count as f32 - 1.0);
    let point =
        |i: usize| if count > 1 { start + i as f32 * step } else { 0.5 * (start + end) };
    (0..count).map(|i| Some(point(i)).filter(|at| (0.0..=last).contains(at)).map(f64::from)).collect()
}

impl CropAndResize {
    fn value(&self, plane: &[f64], width: usize, y: Option<f64>, x: Option<f64>) -> f64 {
        let Some((y, x)) = y.zip(x) else { return self.extrapolation_value };
        let pixel = |y: f64, x: f64| plane[y as usize * width + x as usize];
        match self.mode {
            CropMode::Nearest => pixel(y.round(), x.round()),
            CropMode::Bilinear => {
                let (top, bottom, left, right) = (y.floor(), y.ceil(), x.floor(), x.ceil());
                let (fy, fx) = (y - top, x - left);
                let above = pixel(top, left) * (1.0 - fx) + pixel(top, right) * fx;
                let below = pixel(bottom, left) * (1.0 - fx) + pixel(bottom, right) * fx;
                above * (1.0 - fy) + below * fy
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(mode: CropMode, b: [f32; 4], size: [i64; 2], image: i32) -> OpResult<Vec<f32>> {
        let x = Tensor::from_vec([1, 1, 2, 3], vec![0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0])?;
        let boxes = Tensor::from_vec([1, 4], b.to_vec())?;
        let op = CropAndResize { mode, extrapolation_value: -1.0 };
        let inputs = [x, boxes, Tensor::from_vec([1], vec![image])?, Tensor::from_i64s(&size)];
        Ok(op.evaluate(&inputs)?[0].as_slice::<f32>()?.to_vec())
    }

    #[test]
    fn boxes_are_resized_corner_to_corner() {
        let whole = [0.0, 0.0, 1.0, 1.0];
        for (mode, b, size, expected) in [
            (CropMode::Bilinear, whole, [2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            (CropMode::Bilinear, whole, [1, 1], vec![2.5]),
            (CropMode::Bilinear, whole, [1, 2], vec![1.5, 3.5]),
            (CropMode::Nearest, whole, [1, 2], vec![3.0, 5.0]),
            (CropMode::Bilinear, [0.0, 1.0, 1.0, 0.0], [1, 3], vec![3.5, 2.5, 1.5]),
            (CropMode::Bilinear, [0.0, -1.0, 0.0, 1.0], [1, 3], vec![-1.0, 0.0, 2.0]),
            (CropMode::Bilinear, [f32::NAN, 0.0, 1.0, 1.0], [1, 1], vec![-1.0]),
        ] {
            assert_eq!(crop(mode, b, size, 0).expect("valid"), expected, "{b:?} {size:?}");
        }
        assert!(crop(CropMode::Bilinear, whole, [2, 2], 1).is_err());
        assert!(crop(CropMode::Bilinear, whole, [0, 2], 0).is_err());
        assert!(crop(CropMode::Bilinear, whole, [1 << 40, 1 << 40], 0).is_err());
        let none = Tensor::zeros(ElementType::F32, [1, 0, 2, 3]).expect("small");
        let b = Tensor::zeros(ElementType::F32, [1, 4]).expect("small");
        let i = Tensor::zeros(ElementType::I32, [1]).expect("small");
        let size = Tensor::from_i64s(&[1 << 40, 1]);
        let y = CropAndResize::default().evaluate(&[none, b, i, size]).expect("nothing to do");
        assert_eq!(y[0].shape().to_vec(), [1, 0, 1 << 40, 1]);
    }
}
