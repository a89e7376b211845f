//! Floats of 8 and 4 bits: values of every code, and the nearest code of a value.

use std::sync::OnceLock;

use crate::tensor::ElementType;

/// What happens to values that a float of 8 bits cannot hold, and between powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// Whether values out of range become the greatest finite one rather than infinity or NaN.
    pub saturate: bool,
    /// How values between two powers of two become one (`F8E8M0` only).
    pub scale_rounding: ScaleRounding,
}

impl Default for Narrowing {
    fn default() -> Self {
        Self { saturate: true, scale_rounding: ScaleRounding::Up }
    }
}

choice! {
    /// How a value becomes a power of two.
    pub enum ScaleRounding {
        /// The next power of two that is not less.
        Up = "up",
        /// The nearest, halves up.
        Nearest = "nearest",
        /// The next power of two that is not greater.
        Down = "down",
    }
}

use crate::choice;

/// A format of sign, exponent and mantissa bits.
struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    /// Code of the greatest finite value.
    max: u8,
    infinity: Option<u8>,
    nan: Option<u8>,
    /// Whether there is one zero only, and NaN takes the place of the negative one.
    single_zero: bool,
}

fn format(ty: ElementType) -> Option<Format> {
    let (exponent_bits, mantissa_bits, bias, max, infinity, nan, single_zero) = match ty {
        ElementType::F8E4M3 => (4, 3, 7, 0x7E, None, Some(0x7F), false),
        ElementType::F8E4M3Fnuz => (4, 3, 8, 0x7F, None, Some(0x80), true),
        ElementType::F8E5M2 => (5, 2, 15, 0x7B, Some(0x7C), Some(0x7E), false),
        ElementType::F8E5M2Fnuz => (5, 2, 16, 0x7F, None, Some(0x80), true),
        ElementType::F4E2M1 => (2, 1, 1, 0x7, None, None, false),
        _ => return None,
    };
    Some(Format { exponent_bits, mantissa_bits, bias, max, infinity, nan, single_zero })
}

impl Format {
    fn sign_bit(&self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    fn decode(&self, code: u8) -> f64 {
        let magnitude = code & (self.sign_bit() - 1);
        let negative = code & self.sign_bit() != 0;
        if self.single_zero && code == 0x80 {
            return f64::NAN;
        }
        let mantissa = f64::from(magnitude & ((1 << self.mantissa_bits) - 1)) / f64::from(1u32 << self.mantissa_bits);
        let exponent = i32::from(magnitude >> self.mantissa_bits);
        let value = if magnitude > self.max {
            if self.infinity == Some(magnitude) { f64::INFINITY } else { f64::NAN }
        } else if exponent == 0 {
            mantissa * 2f64.powi(1 - self.bias)
        } else {
            (1.0 + mantissa) * 2f64.powi(exponent - self.bias)
        };
        if negative { -value } else { value }
    }

    fn encode(&self, value: f64, saturate: bool) -> u8 {
        let sign = if value.is_sign_negative() { self.sign_bit() } else { 0 };
        let signed = |code: u8| if code == 0 && self.single_zero { 0 } else { code | sign };
        if value.is_nan() {
            return self.nan.map_or_else(|| signed(0), |nan| if self.single_zero { nan } else { nan | sign });
        }
        let magnitude = value.abs();
        let (mut low, mut high) = (0u8, self.max);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.decode(middle) <= magnitude { low = middle } else { high = middle - 1 }
        }
        let below = self.decode(low);
        let step = if low == self.max { below - self.decode(low - 1) } else { self.decode(low + 1) - below };
        let excess = magnitude - below;
        let up = excess > step / 2.0 || (excess == step / 2.0 && low & 1 == 1);
        if !up {
            return signed(low);
        }
        if low < self.max {
            return signed(low + 1);
        }
        match (saturate, self.infinity, self.nan) {
            (false, Some(infinity), _) => infinity | sign,
            (false, None, Some(nan)) => if self.single_zero { nan } else { nan | sign },
            _ => signed(self.max),
        }
    }
}

/// Value of every code of an 8-bit or 4-bit float, or `None` for other types.
#[must_use]
pub fn decode_table(ty: ElementType) -> Option<&'static [f64]> {
    static TABLES: OnceLock<Vec<(ElementType, Vec<f64>)>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        ElementType::all()
            .filter_map(|ty| {
                let codes = 0..=u8::MAX >> (8 - ty.bits().clamp(1, 8));
                let values = match ty {
                    ElementType::F8E8M0 => codes.map(decode_scale).collect(),
                    ElementType::Nf4 => NORMAL_FLOAT.to_vec(),
                    _ => {
                        let format = format(ty)?;
                        codes.map(|c| format.decode(c)).collect()
                    }
                };
                Some((ty, values))
            })
            .collect()
    });
    tables.iter().find(|(t, _)| *t == ty).map(|(_, v)| &v[..])
}

fn decode_scale(code: u8) -> f64 {
    if code == u8::MAX { f64::NAN } else { 2f64.powi(i32::from(code) - 127) }
}

/// The code of a value in an 8-bit or 4-bit float type, or `None` for other types.
#[must_use]
pub fn encode(value: f64, ty: ElementType, narrowing: Narrowing) -> Option<u8> {
    match ty {
        ElementType::F8E8M0 => Some(encode_scale(value, narrowing)),
        ElementType::Nf4 => {
            let distance = |i: usize| (NORMAL_FLOAT[i] - value).abs();
            (0..16).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).map(|i| i as u8)
        }
        _ => Some(format(ty)?.encode(value, narrowing.saturate)),
    }
}

fn encode_scale(value: f64, narrowing: Narrowing) -> u8 {
    const NAN: u8 = u8::MAX;
    if value.is_nan() {
        return NAN;
    }
    let magnitude = value.abs();
    let out_of_range = |code: u8| if narrowing.saturate { code } else { NAN };
    if magnitude.is_infinite() {
        return out_of_range(254);
    }
    if magnitude == 0.0 {
        return out_of_range(0);
    }
    let floor = {
        let e = magnitude.log2().floor() as i32;
        if 2f64.powi(e) > magnitude { e - 1 } else if 2f64.powi(e + 1) <= magnitude { e + 1 } else { e }
    };
    let fraction = magnitude / 2f64.powi(floor);
    let up = match narrowing.scale_rounding {
        ScaleRounding::Up => fraction > 1.0,
        ScaleRounding::Nearest => fraction >= 1.5,
        ScaleRounding::Down => false,
    };
    match floor + i32::from(up) + 127 {
        e if e > 254 => out_of_range(254),
        e if e < 0 => out_of_range(0),
        e => u8::try_from(e).unwrap_or(NAN),
    }
}

/// The 16 values of `NormalFloat4`: quantiles of the normal distribution, Dettmers et al., "`QLoRA`", appendix E.
const NORMAL_FLOAT: [f64; 16] = [
    -1.0,
    -0.696_192_800_998_687_7,
    -0.525_073_051_452_636_7,
    -0.394_917_488_098_144_53,
    -0.284_441_381_692_886_35,
    -0.184_773_430_228_233_34,
    -0.091_050_036_251_544_95,
    0.0,
    0.079_580_299_556_255_34,
    0.160_930_201_411_247_25,
    0.246_112_301_945_686_34,
    0.337_915_241_718_292_24,
    0.440_709_829_330_444_34,
    0.562_617_003_917_694_1,
    0.722_956_836_223_602_3,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_round_trips() {
        for ty in ElementType::all() {
            let Some(table) = decode_table(ty) else { continue };
            for (code, value) in table.iter().enumerate() {
                let back = encode(*value, ty, Narrowing { saturate: false, ..Narrowing::default() }).expect("small");
                assert!(
                    usize::from(back) == code || (value.is_nan() && table[usize::from(back)].is_nan()),
                    "{ty} {code} {value} {back}"
                );
            }
        }
    }

    #[test]
    fn values_round_to_even_and_overflow_as_asked() {
        for (ty, value, saturated, other) in [
            (ElementType::F8E4M3, 464.0, 448.0, 448.0),
            (ElementType::F8E4M3, 465.0, 448.0, f64::NAN),
            (ElementType::F8E4M3, -1e9, -448.0, f64::NAN),
            (ElementType::F8E4M3Fnuz, 248.0, 240.0, f64::NAN),
            (ElementType::F8E5M2, 61440.0, 57344.0, f64::INFINITY),
            (ElementType::F8E5M2, f64::NEG_INFINITY, -57344.0, f64::NEG_INFINITY),
            (ElementType::F8E5M2Fnuz, 1e9, 57344.0, f64::NAN),
            (ElementType::F8E4M3, 1.0625, 1.0, 1.0),
            (ElementType::F8E4M3, 1.1875, 1.25, 1.25),
            (ElementType::F4E2M1, 2.5, 2.0, 2.0),
            (ElementType::F4E2M1, -100.0, -6.0, -6.0),
            (ElementType::F8E8M0, 3.0, 4.0, 4.0),
            (ElementType::F8E8M0, 0.0, 2f64.powi(-127), f64::NAN),
        ] {
            for (saturate, expected) in [(true, saturated), (false, other)] {
                let code = encode(value, ty, Narrowing { saturate, ..Narrowing::default() }).expect("small");
                let got = decode_table(ty).expect("small")[usize::from(code)];
                assert!(got == expected || (got.is_nan() && expected.is_nan()), "{ty} {value} {saturate}: {got}");
            }
        }
        for (rounding, expected) in [(ScaleRounding::Up, 4.0), (ScaleRounding::Down, 2.0), (ScaleRounding::Nearest, 2.0)] {
            let code = encode(2.9, ElementType::F8E8M0, Narrowing { saturate: true, scale_rounding: rounding });
            assert_eq!(decode_table(ElementType::F8E8M0).expect("small")[usize::from(code.expect("small"))], expected);
        }
    }
}
