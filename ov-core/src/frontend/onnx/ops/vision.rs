//! Boxes, regions and sampling grids.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    op::{
        Choice as _, OpError,
        vision::{
            AffineGrid, AlignMode, BoxEncoding, GridMode, GridSample, ImageDecoder,
            NonMaxSuppression, PixelFormat, PoolMode, RoiAlign, RoiPooling, RoiPoolingMethod,
        },
    },
    tensor::{ElementType, Tensor},
};

fn wrong(name: &'static str, got: &str, expected: &str) -> OpError {
    OpError::Attribute { name, got: got.to_owned(), expected: expected.to_owned() }
}

fn affine_grid(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let align_corners = cx.bool("align_corners", false)?;
    Ok(vec![cx.add(AffineGrid { align_corners }, &inputs)?])
}

fn grid_sample(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    // Opset 16 names the modes after two axes, later ones do not.
    let mode = match cx.str("mode", "linear")? {
        "linear" | "bilinear" => GridMode::Bilinear,
        "cubic" | "bicubic" => GridMode::Bicubic,
        "nearest" => GridMode::Nearest,
        other => return Err(wrong("mode", other, "linear, cubic or nearest").into()),
    };
    let mut op = GridSample { align_corners: cx.bool("align_corners", false)?, mode, ..GridSample::default() };
    let padding = cx.str("padding_mode", "zeros")?;
    if !op.padding_mode.set_text(padding) {
        return Err(wrong("padding_mode", padding, "zeros, border or reflection").into());
    }
    Ok(vec![cx.add(op, &inputs)?])
}

fn roi_align(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let default = if cx.opset() < 16 { "output_half_pixel" } else { "half_pixel" };
    let aligned_mode = match cx.str("coordinate_transformation_mode", default)? {
        "half_pixel" => AlignMode::HalfPixel,
        "output_half_pixel" => AlignMode::Asymmetric,
        other => {
            return Err(wrong("coordinate_transformation_mode", other, "half_pixel or output_half_pixel").into());
        }
    };
    let mode = match cx.str("mode", "avg")? {
        "avg" => PoolMode::Avg,
        "max" => PoolMode::Max,
        other => return Err(wrong("mode", other, "avg or max").into()),
    };
    let op = RoiAlign {
        pooled_h: cx.i64("output_height", 1)?,
        pooled_w: cx.i64("output_width", 1)?,
        sampling_ratio: cx.i64("sampling_ratio", 0)?,
        spatial_scale: f64::from(cx.f32("spatial_scale", 1.0)?),
        mode,
        aligned_mode,
    };
    Ok(vec![cx.add(op, &inputs)?])
}

fn max_roi_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let shape = cx.i64s("pooled_shape", &[])?;
    let [pooled_h, pooled_w] = shape[..] else {
        return Err(wrong("pooled_shape", &format!("{shape:?}"), "two extents").into());
    };
    let spatial_scale = f64::from(cx.f32("spatial_scale", 1.0)?);
    let op = RoiPooling { pooled_h, pooled_w, spatial_scale, method: RoiPoolingMethod::Max };
    Ok(vec![cx.add(op, &inputs)?])
}

fn non_max_suppression(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    cx.input(1)?;
    let mut inputs = cx.all_inputs();
    let box_encoding =
        if cx.bool("center_point_box", false)? { BoxEncoding::Center } else { BoxEncoding::Corner };
    // Without a limit every score counts, and by default no box is chosen.
    while inputs.len() < 5 {
        let default = match inputs.len() {
            2 => Tensor::scalar(0i64),
            3 => Tensor::scalar(0f32),
            _ => Tensor::scalar(f32::NEG_INFINITY),
        };
        inputs.push(cx.constant(default));
    }
    if cx.optional_input(4).is_none() {
        inputs[4] = cx.constant(Tensor::scalar(f32::NEG_INFINITY));
    }
    let op = NonMaxSuppression { box_encoding, sort_result_descending: false, output_type: ElementType::I64 };
    let outputs = cx.add_multi(op, &inputs)?;
    Ok(outputs[..1].to_vec())
}

fn image_decoder(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let stream = cx.input(0)?;
    let mut op = ImageDecoder { pixel_format: PixelFormat::Rgb };
    let format = cx.str("pixel_format", "RGB")?;
    if !op.pixel_format.set_text(format) {
        return Err(wrong("pixel_format", format, "RGB, BGR or Grayscale").into());
    }
    Ok(vec![cx.add(op, &[stream])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "AffineGrid", 20, affine_grid),
    ("", "GridSample", 16, grid_sample),
    ("", "RoiAlign", 10, roi_align),
    ("", "MaxRoiPool", 1, max_roi_pool),
    ("", "NonMaxSuppression", 10, non_max_suppression),
    ("", "ImageDecoder", 20, image_decoder),
];
