//! Samples from coefficients, and colours from samples.

use super::Component;

/// Fractional bits of the multipliers, and those kept between columns and rows.
const FRACTION: u32 = 13;
const KEPT: u32 = 2;

/// The inverse cosine transform of eight values. Loeffler, Ligtenberg, Moschytz: Practical fast 1-D DCT algorithms with
/// 11 multiplications, 1989; multipliers in 13 fractional bits, as every decoder that is to agree to the last bit has.
fn line(v: [i64; 8], shift: u32) -> [i64; 8] {
    let z1 = (v[2] + v[6]) * 4433;
    let (even2, even3) = (z1 - v[6] * 15_137, z1 + v[2] * 6270);
    let (even0, even1) = ((v[0] + v[4]) << FRACTION, (v[0] - v[4]) << FRACTION);
    let even = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];
    let (z1, z2, z3, z4) = (v[7] + v[1], v[5] + v[3], v[7] + v[3], v[5] + v[1]);
    let z5 = (z3 + z4) * 9633;
    let (z1, z2, z3, z4) = (-z1 * 7373, -z2 * 20_995, z5 - z3 * 16_069, z5 - z4 * 3196);
    let odd = [
        v[1] * 12_299 + z1 + z4,
        v[3] * 25_172 + z2 + z3,
        v[5] * 16_819 + z2 + z4,
        v[7] * 2446 + z1 + z3,
    ];
    let half = 1 << (shift - 1);
    std::array::from_fn(|i| {
        let sum = if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] };
        (sum + half) >> shift
    })
}

/// The samples of a component, in rows of eight times its blocks.
pub(super) fn plane(c: &Component, quantizer: &[u16; 64]) -> Vec<u8> {
    let width = c.stride * 8;
    let mut out = vec![0; c.blocks.len()];
    for (index, block) in c.blocks.chunks_exact(64).enumerate() {
        let mut values = [0i64; 64];
        for x in 0..8 {
            let column =
                std::array::from_fn(|y| i64::from(block[y * 8 + x]) * i64::from(quantizer[y * 8 + x]));
            for (y, v) in line(column, FRACTION - KEPT).into_iter().enumerate() {
                values[y * 8 + x] = v;
            }
        }
        let corner = index / c.stride * 8 * width + index % c.stride * 8;
        for (y, row) in values.chunks_exact(8).enumerate() {
            let row = line(std::array::from_fn(|x| row[x]), FRACTION + KEPT + 3);
            let to = &mut out[corner + y * width..][..8];
            for (t, v) in to.iter_mut().zip(row) {
                *t = (v + 128).clamp(0, 255) as u8;
            }
        }
    }
    out
}

/// Red, green and blue of luma and chroma, in 16 fractional bits. JFIF 1.02.
pub(super) fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let half = 1 << 15;
    [
        y + ((91_881 * cr + half) >> 16),
        y + ((-22_554 * cb - 46_802 * cr + half) >> 16),
        y + ((116_130 * cb + half) >> 16),
    ]
    .map(|v| v.clamp(0, 255) as u8)
}
