//! Decoding of image files.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use hayro_jpeg2000::{ColorSpace, DecodeSettings, DecoderContext};
use image::{ImageReader, Limits};

use super::jpeg;
use crate::{
    choice,
    op::{InferContext, OpResult, OpRules, OutputType},
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// The channels of a decoded image.
    pub enum PixelFormat {
        /// Red, green, blue.
        Rgb = "RGB",
        /// Blue, green, red.
        Bgr = "BGR",
        /// Luma of ITU-R 601.
        Grayscale = "Grayscale",
    }
}

define_op! {
    /// The pixels `[h, w, channels]` of an image file (input 0, its bytes): BMP, JPEG, JPEG 2000, PNG, the portable
    /// formats, TIFF or `WebP`. Bytes that are no such image give an image without pixels.
    /// <https://onnx.ai/onnx/operators/onnx__ImageDecoder.html>
    pub struct ImageDecoder("ImageDecoder", 0) {
        /// The channels.
        pixel_format: PixelFormat = PixelFormat::Rgb,
    }
}

/// Red, green and blue of every pixel, row by row.
struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Bytes that decoding one image may take.
const MAX_BYTES: u64 = 512 << 20;

/// Pixels along one side at most.
const MAX_SIDE: u32 = 1 << 16;

fn decode(bytes: &[u8]) -> Option<Picture> {
    let jpeg_2000 = bytes.starts_with(b"\x00\x00\x00\x0CjP  ") || bytes.starts_with(b"\xFF\x4F\xFF\x51");
    if jpeg_2000 {
        return decode_jpeg_2000(bytes);
    }
    jpeg::decode(bytes, MAX_BYTES)
        .map(|p| Picture { width: p.width, height: p.height, rgb: p.rgb })
        .or_else(|| decode_common(bytes))
}

fn decode_common(bytes: &[u8]) -> Option<Picture> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    reader.limits(limits);
    let picture = reader.decode().ok()?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Some(Picture { width, height, rgb: picture.into_raw() })
}

fn decode_jpeg_2000(bytes: &[u8]) -> Option<Picture> {
    let file = hayro_jpeg2000::Image::new(bytes, &DecodeSettings::default()).ok()?;
    let colors = usize::from(file.color_space().num_channels());
    let channels = colors + usize::from(file.has_alpha());
    let (w, h) = (file.width(), file.height());
    // Every channel is held as numbers of four bytes, and once more as bytes.
    let needed = u64::from(w).checked_mul(u64::from(h))?.checked_mul(channels as u64 * 5)?;
    if w > MAX_SIDE || h > MAX_SIDE || needed > MAX_BYTES || channels == 0 {
        return None;
    }
    let mut context = DecoderContext::default();
    let data = file.decode(&mut context).ok()?.data_u8();
    let (width, height) = (w as usize, h as usize);
    if data.len() != width * height * channels {
        return None;
    }
    let is_cmyk = matches!(file.color_space(), ColorSpace::CMYK);
    let pixel = |p: &[u8]| -> [u8; 3] {
        match p {
            [c, m, y, k, ..] if is_cmyk => [c, m, y].map(|ink| {
                let white = (255 - u32::from(*ink)) * (255 - u32::from(*k));
                ((white + 127) / 255) as u8
            }),
            [r, g, b, ..] if colors >= 3 => [*r, *g, *b],
            _ => [p[0]; 3],
        }
    };
    Some(Picture { width, height, rgb: data.chunks_exact(channels).flat_map(pixel).collect() })
}

/// Luma of ITU-R 601 in 16 fractional bits, to nearest.
fn luma(p: &[u8]) -> u8 {
    let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
    ((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8
}

impl ImageDecoder {
    fn channels(&self) -> usize {
        if self.pixel_format == PixelFormat::Grayscale { 1 } else { 3 }
    }
}

impl OpRules for ImageDecoder {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 1..=1)?;
        cx.expect_type(0, "bytes (u8)", |t| t == ElementType::U8)?;
        let side = Dimension::bounded(0, Some(MAX_SIDE as usize));
        let shape = [side, side, Dimension::fixed(self.channels())];
        Ok(vec![OutputType::new(ElementType::U8, PartialShape::new(&shape))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let stream = inputs[0].to_contiguous();
        let bytes = stream.as_slice::<u8>()?;
        // A decoder that fails an assertion on damaged bytes could not decode them either.
        let picture = catch_unwind(AssertUnwindSafe(|| decode(bytes))).ok().flatten();
        let Some(Picture { width, height, rgb }) = picture else {
            return Ok(vec![Tensor::zeros(ElementType::U8, [0, 0, self.channels()])?]);
        };
        let pixels = match self.pixel_format {
            PixelFormat::Rgb => rgb,
            PixelFormat::Bgr => rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
            PixelFormat::Grayscale => rgb.chunks_exact(3).map(luma).collect(),
        };
        Ok(vec![Tensor::from_vec([height, width, self.channels()], pixels)?])
    }
}
