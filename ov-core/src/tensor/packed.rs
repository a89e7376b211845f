//! Elements of less than a byte: one, two or four bits, low bits first.

/// Element `index` of packed `bits`-wide elements, without sign extension.
///
/// `bits` is 1, 2 or 4; `index` must lie within `bytes`.
#[must_use]
pub fn read_packed(bytes: &[u8], bits: usize, index: usize) -> u8 {
    let per_byte = 8 / bits;
    let mask = ((1u16 << bits) - 1) as u8;
    (bytes[index / per_byte] >> ((index % per_byte) * bits)) & mask
}

/// Stores the low `bits` of `value` as element `index`.
pub fn write_packed(bytes: &mut [u8], bits: usize, index: usize, value: u8) {
    let per_byte = 8 / bits;
    let mask = ((1u16 << bits) - 1) as u8;
    let shift = (index % per_byte) * bits;
    let byte = &mut bytes[index / per_byte];
    *byte = (*byte & !(mask << shift)) | ((value & mask) << shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_elements_round_trip() {
        for bits in [1, 2, 4] {
            let mut bytes = vec![0xFF; 4];
            let n = 32 / bits;
            for i in 0..n {
                write_packed(&mut bytes, bits, i, (i * 7) as u8);
            }
            for i in 0..n {
                assert_eq!(read_packed(&bytes, bits, i), (i * 7) as u8 & ((1 << bits) - 1) as u8);
            }
        }
    }
}
