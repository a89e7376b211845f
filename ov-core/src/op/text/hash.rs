//! Hashes of elements.

use crate::{
    op::{InferContext, OpResult, OpRules, OutputType},
    tensor::{ElementType, Tensor},
};

define_op! {
    /// The 32-bit hash of every element: of the bytes of a number (little-endian) or of the UTF-8 bytes of a text.
    /// `MurmurHash3` of
    /// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MurmurHash3>.
    pub struct MurmurHash3("MurmurHash3", 0) {
        /// Where the hash starts.
        seed: i64 = 0,
        /// Whether the result is `u32` and not `i32`.
        positive: bool = true,
    }
}

impl MurmurHash3 {
    fn output_type(&self) -> ElementType {
        if self.positive { ElementType::U32 } else { ElementType::I32 }
    }
}

impl OpRules for MurmurHash3 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "texts or numbers of 32 or 64 bits", |t| {
            t == ElementType::String || matches!(t.bits(), 32 | 64)
        })?;
        Ok(vec![OutputType::new(self.output_type(), cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = inputs[0].to_contiguous();
        let seed = self.seed as u32;
        let hashes: Vec<u32> = if x.element_type() == ElementType::String {
            x.as_strings()?.iter().map(|t| murmur3(t.as_bytes(), seed)).collect()
        } else {
            let size = (x.element_type().bits() / 8).max(1);
            x.bytes().chunks_exact(size).map(|b| murmur3(b, seed)).collect()
        };
        let shape = x.shape().clone();
        if self.positive {
            return Ok(vec![Tensor::from_vec(shape, hashes)?]);
        }
        Ok(vec![Tensor::from_vec(shape, hashes.into_iter().map(u32::cast_signed).collect())?])
    }
}

/// `MurmurHash3_x86_32` by Austin Appleby: <https://github.com/aappleby/smhasher/wiki/MurmurHash3>.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593);
    let (words, tail) = bytes.as_chunks::<4>();
    let mut hash = seed;
    for word in words {
        hash = (hash ^ scramble(u32::from_le_bytes(*word))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xE654_6B64);
    }
    let last = tail.iter().rev().fold(0u32, |k, b| k << 8 | u32::from(*b));
    hash ^= scramble(last);
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85EB_CA6B);
    hash = (hash ^ hash >> 13).wrapping_mul(0xC2B2_AE35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        for (text, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514E_28B7),
            ("test", 0, 0xBA6B_D213),
            ("test", 0x9747_B28C, 0x704B_81DC),
            ("Hello, world!", 0, 0xC036_3E43),
            ("aaa", 0x9747_B28C, 0x283E_0130),
        ] {
            assert_eq!(murmur3(text.as_bytes(), seed), expected, "{text:?} {seed}");
        }
        let x = Tensor::from_strings([2], vec!["test".to_owned(), String::new()]).expect("fits");
        let y = MurmurHash3 { seed: 0, positive: false }.evaluate(&[x]).expect("valid");
        assert_eq!(y[0].as_slice::<i32>().expect("i32"), [0xBA6B_D213u32.cast_signed(), 0]);
        let y = MurmurHash3::default().evaluate(&[Tensor::from_i64s(&[])]).expect("valid");
        assert_eq!(y[0].len(), 0);
    }
}
