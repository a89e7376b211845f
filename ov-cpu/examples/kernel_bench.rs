//! Prints the speed of single kernels on one thread, beside a register-only FMA loop.
#![allow(
    unsafe_code,
    reason = "the peak probe is a function compiled for one instruction-set level"
)]
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ov_cpu::gemm::{BView, Epilogue, PackedLayout, multiply, pack};
use ov_cpu::kernels::conv::winograd::{Winograd, WinogradTile};
use ov_cpu::kernels::conv::{Conv, ConvArgs, ConvParams, Source};
use ov_cpu::simd::Isa;
use ov_cpu::simd::activation::Activation;

fn main() {
    let only = std::env::args().nth(1);
    for isa in Isa::available().filter(|i| only.as_deref().is_none_or(|o| o == i.name())) {
        println!("{isa}: FMA peak {:.1} GFLOP/s", peak(isa));
        for (m, n, k) in [
            (128, 3072, 768),
            (128, 768, 3072),
            (196, 512, 512),
            (16, 1536, 384),
            (3136, 64, 64),
            (784, 128, 256),
            (49, 2048, 512),
            (4, 3072, 768),
            (1, 3072, 768),
            (1, 512, 256),
        ] {
            gemm(isa, m, n, k, Activation::None);
        }
        gemm(isa, 128, 3072, 768, Activation::GeluErf);
        for (size, channels, outputs, kernel, stride) in [
            (56, 64, 64, 3, 1),
            (28, 128, 128, 3, 1),
            (14, 256, 256, 3, 1),
            (7, 512, 512, 3, 1),
            (80, 64, 64, 3, 1),
            (160, 16, 16, 3, 1),
            (56, 128, 128, 3, 2),
            (56, 64, 256, 1, 1),
            (14, 1024, 256, 1, 1),
            (7, 512, 2048, 1, 1),
            (56, 256, 512, 1, 2),
        ] {
            let shape = [1, size, size, channels];
            let p = ConvParams::new_2d(shape, outputs, kernel, stride, kernel / 2);
            conv(isa, &p, "direct", &|p| {
                let plan = Conv::new(isa, p);
                let weights = plan.weights().packed_len();
                let items = plan.work_items();
                (
                    weights,
                    plan.scratch_len(),
                    Box::new(move |args, scratch| {
                        // SAFETY: `conv` gives buffers of the plan's sizes.
                        unsafe { plan.run(args, 0..items, scratch) };
                    }),
                )
            });
            for tile in [WinogradTile::Two, WinogradTile::Four] {
                if Winograd::supports(&p) {
                    conv(
                        isa,
                        &p,
                        if tile == WinogradTile::Two { "F(2,3)" } else { "F(4,3)" },
                        &|p| {
                            let plan =
                                Winograd::new(isa, tile, p).expect("the algorithm supports it");
                            let items = plan.work_items();
                            (
                                plan.weights().packed_len(),
                                plan.scratch_len(),
                                Box::new(move |args, scratch| {
                                    // SAFETY: `conv` gives buffers of the plan's sizes.
                                    unsafe { plan.run(args, 0..items, scratch) };
                                }),
                            )
                        },
                    );
                }
            }
        }
        let mut stem = ConvParams::new_2d([1, 224, 224, 3], 64, 7, 2, 3);
        stem.source = Source::Planar;
        conv(isa, &stem, "planar", &|p| {
            let plan = Conv::new(isa, p);
            let items = plan.work_items();
            (
                plan.weights().packed_len(),
                plan.scratch_len(),
                Box::new(move |args, scratch| {
                    // SAFETY: `conv` gives buffers of the plan's sizes.
                    unsafe { plan.run(args, 0..items, scratch) };
                }),
            )
        });
    }
}

type Run = Box<dyn Fn(&ConvArgs<'_>, &mut [f32])>;

fn conv(isa: Isa, p: &ConvParams, name: &str, bind: &dyn Fn(&ConvParams) -> (usize, usize, Run)) {
    let (weights, scratch, run) = bind(p);
    let input = values(p.batch * p.input.iter().product::<usize>() * p.channels);
    let (weights, bias) = (values(weights), values(p.outputs));
    let mut output = vec![0.0; p.pixels() * p.output_stride];
    let mut scratch = vec![0.0; scratch];
    let epilogue =
        Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
    let args = ConvArgs {
        input: input.as_ptr(),
        weights: &weights,
        output: output.as_mut_ptr(),
        epilogue,
    };
    let seconds = best(|| run(&args, &mut scratch));
    let [_, h, w] = p.input;
    let title = format!(
        "{name} {}x{} s{} {h}x{w}x{}->{}",
        p.kernel[1], p.kernel[2], p.stride[1], p.channels, p.outputs
    );
    report(isa, &title, p.cost().flops, seconds);
}

/// Shortest of repeated runs for about a quarter of a second.
fn best(mut f: impl FnMut()) -> f64 {
    let (begin, mut least) = (Instant::now(), f64::MAX);
    while begin.elapsed() < Duration::from_millis(250) {
        let t = Instant::now();
        f();
        least = least.min(t.elapsed().as_secs_f64());
    }
    least
}

fn report(isa: Isa, name: &str, flops: f64, seconds: f64) {
    println!("  {isa} {name:<34} {:>9.1} us {:>7.1} GFLOP/s", seconds * 1e6, flops / seconds / 1e9);
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

fn gemm(isa: Isa, m: usize, n: usize, k: usize, activation: Activation) {
    let (a, b) = (values(m * k), values(k * n));
    let layout = PackedLayout::new(isa, k, n);
    let mut packed = vec![0.0; layout.len()];
    pack(isa, layout, BView::row_major(&b, n), &mut packed);
    let mut c = vec![0.0; m * n];
    let bias = values(n);
    let seconds = best(|| {
        multiply(isa, m, &a, k, layout, &packed, &mut c, n, Some(&bias), activation);
        black_box(&mut c);
    });
    report(isa, &format!("gemm {m}x{n}x{k} {activation:?}"), 2.0 * (m * n * k) as f64, seconds);
}

/// GFLOP/s of independent multiply-adds in registers.
fn peak(isa: Isa) -> f64 {
    const STEPS: usize = 1 << 16;
    let lanes = peak_loop(isa, 1);
    let seconds = best(|| {
        black_box(peak_loop(isa, STEPS));
    });
    (2 * 12 * STEPS) as f64 * lanes / seconds / 1e9
}

fn peak_loop(isa: Isa, steps: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if isa.has_avx512() {
            // SAFETY: the token proves AVX-512 F.
            return unsafe { x86::avx512(steps) };
        }
        if isa.has_avx2() {
            // SAFETY: the token proves AVX2 and FMA.
            return unsafe { x86::avx2(steps) };
        }
    }
    let _ = isa;
    let mut acc = [[1.0f32; 4]; 12];
    for _ in 0..steps {
        for a in &mut acc {
            for x in a {
                *x = *x * 0.999 + 0.001;
            }
        }
        black_box(&mut acc);
    }
    4.0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub(crate) fn avx512(steps: usize) -> f64 {
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut acc = [y; 12];
        for _ in 0..steps {
            for a in &mut acc {
                *a = _mm512_fmadd_ps(*a, x, y);
            }
        }
        black_box(acc);
        16.0
    }

    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn avx2(steps: usize) -> f64 {
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut acc = [y; 12];
        for _ in 0..steps {
            for a in &mut acc {
                *a = _mm256_fmadd_ps(*a, x, y);
            }
        }
        black_box(acc);
        8.0
    }
}
