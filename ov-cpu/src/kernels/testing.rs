//! Values and comparisons that the kernels' tests share.

/// `n` values in -2..2 with two decimals' spread, the same for a seed on every machine.
pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 4_194_304.0 - 2.0
        })
        .collect()
}

/// Asserts `|y - e| <= tolerance * (1 + |e|)` for every element.
#[track_caller]
pub(crate) fn assert_close(y: &[f32], e: &[f64], tolerance: f64, what: &str) {
    assert_eq!(y.len(), e.len(), "{what}");
    for i in 0..y.len() {
        let (u, v) = (f64::from(y[i]), e[i]);
        let same = u == v || (u.is_nan() && v.is_nan());
        assert!(
            same || (u - v).abs() <= tolerance * (1.0 + v.abs()),
            "{what}: element {i} is {u}, expected {v}"
        );
    }
}

/// `n` bytes, the same for a seed on every machine.
pub(crate) fn bytes(n: usize, seed: u32) -> Vec<u8> {
    values(n, seed).iter().map(|v| (v * 64.0 + 128.0) as u8).collect()
}
