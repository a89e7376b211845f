//! JPEG as `ImageDecoder` wants it, to the last bit: the accurate integer transform and the chroma upsampling that the
//! operator's specification describes, which the decoder crates round differently. Sequential and progressive files of 8
//! bits with Huffman codes and one or three components; anything else is left to the crate for the other formats.

mod huffman;
mod scan;
mod transform;
mod upsample;

use huffman::Table;
use scan::Scan;

/// Red, green and blue of every pixel.
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Vec<u8>,
}

/// One component of a frame.
#[derive(Debug, Default)]
struct Component {
    id: u8,
    /// Samples per smallest unit of the image, along each axis.
    h: usize,
    v: usize,
    /// Index of the quantisation table.
    quantizer: usize,
    /// Samples that belong to the image.
    width: usize,
    height: usize,
    /// Blocks per row, to whole units.
    stride: usize,
    /// Coefficients in the order of rows, 64 per block.
    blocks: Vec<i16>,
}

/// A frame under construction.
#[derive(Debug, Default)]
struct Frame {
    width: usize,
    height: usize,
    is_progressive: bool,
    components: Vec<Component>,
    h_max: usize,
    v_max: usize,
}

#[derive(Debug, Default)]
struct Decoder {
    frame: Option<Frame>,
    quantizers: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart: usize,
    has_jfif: bool,
    adobe: Option<u8>,
}

/// Places of coefficients in the order in which files hold them.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Bytes of coefficients and samples per pixel and component, about.
const BYTES_PER_SAMPLE: u64 = 6;

/// The pixels of a file of the supported kinds, or `None`. Takes at most about `max_bytes` of memory.
pub(super) fn decode(bytes: &[u8], max_bytes: u64) -> Option<Pixels> {
    let mut rest = bytes.strip_prefix(b"\xFF\xD8")?;
    let mut decoder = Decoder::default();
    loop {
        let (marker, after) = next_marker(rest)?;
        match marker {
            0xD9 => return decoder.finish(),
            0xD0..=0xD7 | 0x01 => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let len = usize::from(u16::from_be_bytes([*after.first()?, *after.get(1)?]));
        let segment = after.get(2..len)?;
        rest = &after[len..];
        match marker {
            0xC0..=0xC2 => decoder.start_frame(segment, marker == 0xC2, max_bytes)?,
            0xC4 => decoder.read_huffman(segment)?,
            0xDA => rest = decoder.scan(segment, rest)?,
            0xDB => decoder.read_quantizers(segment)?,
            0xDD => decoder.restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
            0xE0 if segment.starts_with(b"JFIF\0") => decoder.has_jfif = true,
            0xEE if segment.starts_with(b"Adobe") => decoder.adobe = segment.get(11).copied(),
            0xE0..=0xEF | 0xFE => {}
            _ => return None,
        }
    }
}

/// The next marker and what follows it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut at = bytes.iter().position(|b| *b == 0xFF)?;
    loop {
        match bytes.get(at + 1)? {
            0xFF => at += 1,
            0 => at += 2 + bytes.get(at + 2..)?.iter().position(|b| *b == 0xFF)?,
            marker => return Some((*marker, &bytes[at + 2..])),
        }
    }
}

impl Decoder {
    fn read_quantizers(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((head, rest)) = segment.split_first() {
            let wide = usize::from(head >> 4 != 0);
            let values = rest.get(..64 << wide)?;
            let mut table = [0; 64];
            for (i, place) in ZIGZAG.iter().enumerate() {
                table[usize::from(*place)] = match wide {
                    0 => u16::from(values[i]),
                    _ => u16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
                };
            }
            *self.quantizers.get_mut(usize::from(head & 15))? = Some(table);
            segment = &rest[64 << wide..];
        }
        Some(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((head, rest)) = segment.split_first() {
            let counts: &[u8; 16] = rest.get(..16)?.try_into().ok()?;
            let total: usize = counts.iter().map(|c| usize::from(*c)).sum();
            let table = Table::new(counts, rest.get(16..16 + total)?)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15))? = Some(table);
            segment = &rest[16 + total..];
        }
        Some(())
    }

    fn start_frame(&mut self, segment: &[u8], is_progressive: bool, max_bytes: u64) -> Option<()> {
        let [precision, h1, h0, w1, w0, count, parts @ ..] = segment else { return None };
        let (height, width) = (
            usize::from(u16::from_be_bytes([*h1, *h0])),
            usize::from(u16::from_be_bytes([*w1, *w0])),
        );
        let supported = *precision == 8 && matches!(count, 1 | 3) && self.frame.is_none();
        if !supported || parts.len() != 3 * usize::from(*count) || width == 0 || height == 0 {
            return None;
        }
        let needed = (width as u64 * height as u64).checked_mul(u64::from(*count) * BYTES_PER_SAMPLE)?;
        if needed > max_bytes {
            return None;
        }
        let mut frame = Frame { width, height, is_progressive, ..Frame::default() };
        for part in parts.chunks_exact(3) {
            let (h, v) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return None;
            }
            frame.h_max = frame.h_max.max(h);
            frame.v_max = frame.v_max.max(v);
            let quantizer = usize::from(part[2]);
            frame.components.push(Component { id: part[0], h, v, quantizer, ..Component::default() });
        }
        if let [only] = &mut frame.components[..] {
            // The factors of a single component mean nothing.
            (only.h, only.v, frame.h_max, frame.v_max) = (1, 1, 1, 1);
        }
        let (units_x, units_y) =
            (width.div_ceil(8 * frame.h_max), height.div_ceil(8 * frame.v_max));
        for c in &mut frame.components {
            c.width = (width * c.h).div_ceil(frame.h_max);
            c.height = (height * c.v).div_ceil(frame.v_max);
            c.stride = units_x * c.h;
            c.blocks = vec![0; c.stride * units_y * c.v * 64];
        }
        self.frame = Some(frame);
        Some(())
    }

    /// Reads a scan; gives what follows it.
    fn scan<'b>(&mut self, head: &[u8], data: &'b [u8]) -> Option<&'b [u8]> {
        let frame = self.frame.as_mut()?;
        let (count, rest) = head.split_first()?;
        let count = usize::from(*count);
        let [start, end, approximation] = rest.get(2 * count..)?.try_into().ok()?;
        let mut members = Vec::with_capacity(4);
        for part in rest[..2 * count].chunks_exact(2) {
            let index = frame.components.iter().position(|c| c.id == part[0])?;
            let tables = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            if members.iter().any(|(i, _)| *i == index) {
                return None;
            }
            members.push((index, tables));
        }
        let scan = Scan {
            members,
            start: usize::from(start),
            end: usize::from(end),
            high: approximation >> 4,
            low: approximation & 15,
            restart: self.restart,
        };
        scan.read(frame, &self.dc, &self.ac, data)
    }

    fn finish(self) -> Option<Pixels> {
        let frame = self.frame?;
        let planes = frame
            .components
            .iter()
            .map(|c| {
                let quantizer = self.quantizers.get(c.quantizer)?.as_ref()?;
                let plane = transform::plane(c, quantizer);
                upsample::plane(&plane, c, &frame)
            })
            .collect::<Option<Vec<_>>>()?;
        let (width, height) = (frame.width, frame.height);
        let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        let is_rgb = match self.adobe {
            _ if self.has_jfif => false,
            Some(transform) => transform == 0,
            None => ids == *b"RGB",
        };
        let mut rgb = Vec::with_capacity(width * height * 3);
        match &planes[..] {
            [gray] => rgb.extend(gray.iter().flat_map(|g| [*g; 3])),
            [a, b, c] => {
                for ((a, b), c) in a.iter().zip(b).zip(c) {
                    rgb.extend(if is_rgb { [*a, *b, *c] } else { transform::rgb(*a, *b, *c) });
                }
            }
            _ => return None,
        }
        Some(Pixels { width, height, rgb })
    }
}
