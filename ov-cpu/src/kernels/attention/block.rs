//! Small matrix products whose right side lies as it is in memory.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use crate::simd::lanes::Simd;

/// `c = alpha * a b` for `a: [m, k]`, `b: [k, n]`, `c: [m, n]` with the given row strides.
///
/// # Safety
/// The matrices must be readable and writable in full.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    s: S,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    alpha: f32,
) {
    let mut row = 0;
    // SAFETY: rows are below m.
    unsafe {
        while row < m {
            let (a, c) = (a.add(row * lda), c.add(row * ldc));
            let rest = m - row;
            if rest >= 8 && S::LEN == 16 {
                columns::<S, 8, 2>(s, n, k, a, lda, b, ldb, c, ldc, alpha);
                row += 8;
            } else if rest >= 4 {
                columns::<S, 4, 2>(s, n, k, a, lda, b, ldb, c, ldc, alpha);
                row += 4;
            } else {
                columns::<S, 1, 4>(s, n, k, a, lda, b, ldb, c, ldc, alpha);
                row += 1;
            }
        }
    }
}

/// # Safety
/// As for [`multiply`] with `M` rows.
#[inline(always)]
unsafe fn columns<S: Simd, const M: usize, const V: usize>(
    s: S,
    n: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    alpha: f32,
) {
    let mut at = 0;
    // SAFETY: columns are below n.
    unsafe {
        while at + V * S::LEN <= n {
            tile::<S, M, V, true>(s, k, a, lda, b.add(at), ldb, c.add(at), ldc, alpha, S::LEN);
            at += V * S::LEN;
        }
        while at + S::LEN <= n {
            tile::<S, M, 1, true>(s, k, a, lda, b.add(at), ldb, c.add(at), ldc, alpha, S::LEN);
            at += S::LEN;
        }
        if at < n {
            tile::<S, M, 1, false>(s, k, a, lda, b.add(at), ldb, c.add(at), ldc, alpha, n - at);
        }
    }
}

/// # Safety
/// As for [`multiply`] with `M` rows and `V` vectors of `n` columns each.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const V: usize, const FULL: bool>(
    s: S,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    alpha: f32,
    n: usize,
) {
    let mut acc = [[s.zero(); V]; M];
    // SAFETY: rows below M, columns below V vectors and steps below k are inside the matrices.
    unsafe {
        for i in 0..k {
            let mut x = [s.zero(); V];
            for (v, x) in x.iter_mut().enumerate() {
                let p = b.add(i * ldb + v * S::LEN);
                *x = if FULL { s.load(p) } else { s.load_n(p, n) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let w = s.splat(*a.add(r * lda + i));
                for v in 0..V {
                    acc[v] = s.fma(w, x[v], acc[v]);
                }
            }
        }
        let alpha = s.splat(alpha);
        for (r, acc) in acc.iter().enumerate() {
            for (v, x) in acc.iter().enumerate() {
                let p = c.add(r * ldc + v * S::LEN);
                let y = s.mul(*x, alpha);
                if FULL { s.store(p, y) } else { s.store_n(p, y, n) }
            }
        }
    }
}

/// `y[j] = alpha * (q . k_j)` for `n` keys, four at once.
///
/// # Safety
/// `depth` elements must be readable at `q` and at every key, and `n` writable at `y`.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd>(
    s: S,
    q: *const f32,
    k: *const f32,
    stride: usize,
    n: usize,
    depth: usize,
    alpha: f32,
    y: *mut f32,
) {
    let mut j = 0;
    while j < n {
        let group = (n - j).min(4);
        let mut acc = [s.zero(); 4];
        let mut i = 0;
        // SAFETY: keys are below n and elements below depth.
        unsafe {
            while i < depth {
                let l = S::LEN.min(depth - i);
                let load = |p: *const f32| if l == S::LEN { s.load(p) } else { s.load_n(p, l) };
                let x = load(q.add(i));
                if group == 4 {
                    for (g, acc) in acc.iter_mut().enumerate() {
                        *acc = s.fma(x, load(k.add((j + g) * stride + i)), *acc);
                    }
                } else {
                    for (g, acc) in acc.iter_mut().enumerate().take(group) {
                        *acc = s.fma(x, load(k.add((j + g) * stride + i)), *acc);
                    }
                }
                i += l;
            }
            for (g, acc) in acc.iter().enumerate().take(group) {
                y.add(j + g).write(s.sum(*acc) * alpha);
            }
        }
        j += group;
    }
}
