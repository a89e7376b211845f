//! The shim itself: what the wrappers do, and that it finds the mistakes it is there for.

use super::{
    HostCompiler, HostModule, Order,
    host_compiler::{SANITIZE, compilers_library},
    module::Shape,
};
use crate::kernels::Source;

fn source(body: &'static str) -> Source {
    Source { body: body.into(), defines: Vec::new() }
}

/// Runs `kernel(const T* x, T* y, int n)` on one block.
fn run<T: bytemuck::Pod>(
    body: &'static str,
    threads: u32,
    x: &mut [T],
    y: &mut [T],
    order: Order,
) -> Option<Result<(), String>> {
    let compiler = HostCompiler::get()?;
    let object = compiler.object(&source(body)).expect("the kernel compiles");
    let module = HostModule::load(&object).expect("the object loads");
    let shape = Shape { grid: [1, 1, 1], block: [threads, 1, 1], shared: 4096 };
    let address = |slice: &mut [T]| (slice.as_mut_ptr() as u64).to_le_bytes().to_vec();
    let mut arguments = [address(x), address(y), (x.len() as i32).to_le_bytes().to_vec()].to_vec();
    // SAFETY: the kernels below stay within `x` and `y`.
    Some(unsafe { module.launch("kernel", shape, &mut arguments, order, &mut || {}) })
}

const REVERSE: &str = "
OV_KERNEL kernel(const int* x, int* y, int n) {
  OV_SHARED(int, s, 256);
  const int i = (int)ov_thread_x();
  ov_grid_wait();
  s[i] = x[i];
  ov_block_sync();
  y[i] = s[n - 1 - i];
}
";

#[test]
fn kernels_run_under_sanitizers() {
    if HostCompiler::get().is_none() || std::env::var_os(SANITIZE).is_some() {
        return;
    }
    let Some(library) = compilers_library("libasan.so") else {
        return println!("SKIPPED: the compiler has no address sanitizer");
    };
    let test = std::env::current_exe().expect("a test runs");
    // A family of each kind: products, of bytes too, loads of vectors, rows, indices.
    let tests = [
        "tests::linear::",
        "tests::matmul::",
        "tests::integer::",
        "tests::attention::",
        "seeded_mistake",
    ];
    let run = |mistake: &str| {
        let mut command = std::process::Command::new(&test);
        let options = "detect_leaks=0:verify_asan_link_order=0";
        command.args(tests).env(SANITIZE, "1").env("OV_HOST_MISTAKE", mistake);
        command.env("LD_PRELOAD", &library).env("ASAN_OPTIONS", options);
        command.output().expect("starts")
    };
    let sound = run("0");
    let text = |output: &std::process::Output| {
        let both = [output.stdout.as_slice(), &output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    assert!(sound.status.success(), "{}", text(&sound));
    let ran = text(&sound).matches("kernels::tests::").count();
    assert!(ran >= 6, "{}", text(&sound));
    let found = text(&run("1"));
    assert!(found.contains("misaligned address"), "{found}");
}

/// Run by the test above only: a vector at an address that does not suit it.
#[test]
fn seeded_mistake() {
    if std::env::var_os("OV_HOST_MISTAKE").is_none_or(|v| v != "1") {
        return;
    }
    let text = "
struct alignas(16) Four { int v[4]; };
OV_KERNEL kernel(const int* x, int* y, int n) {
  ov_grid_wait();
  y[ov_thread_x()] = ((const Four*)(x + 1))->v[0];
}
";
    let (mut x, mut y) = (vec![0i32; 64], vec![0i32; 64]);
    drop(run(text, 32, &mut x, &mut y, Order::default()));
}

#[test]
fn threads_meet_at_the_barrier() {
    for order in Order::ALL {
        let mut x: Vec<i32> = (0..256).collect();
        let mut y = vec![0; 256];
        let Some(result) = run(REVERSE, 256, &mut x, &mut y, order) else { return };
        result.expect("runs");
        assert!(y.iter().rev().eq(&x), "{order:?}");
    }
}

const SHUFFLES: &str = "
OV_KERNEL kernel(const float* x, float* y, int n) {
  ov_grid_wait();
  const float v = x[ov_thread_x()];
  float r = ov_warp_sum(v);
  r += 1000.0f * ov_shfl_down(v, 1) + 0.001f * (float)ov_ballot(v > 3.0f);
  r += ov_shfl_up(v, 2) * 0.5f;
  y[ov_thread_x()] = r + (float)ov_shfl((double)v, 7);
}
";

#[test]
fn lanes_exchange_values() {
    for order in Order::ALL {
        let mut x: Vec<f32> = (0..64).map(|i| (i % 32) as f32 * 0.25).collect();
        let mut y = vec![0.0; 64];
        let Some(result) = run(SHUFFLES, 64, &mut x, &mut y, order) else { return };
        result.expect("runs");
        let votes = (0..32).filter(|i| *i as f32 * 0.25 > 3.0).map(|i| 1_u32 << i).sum::<u32>();
        for (i, y) in y.iter().enumerate() {
            let lane = i % 32;
            let sum: f32 = x[..32].iter().sum();
            let down = x[if lane == 31 { 31 } else { lane + 1 }];
            let up = x[if lane < 2 { lane } else { lane - 2 }];
            let expected = sum + (1000.0 * down + 0.001 * votes as f32) + up * 0.5 + x[7];
            assert!((y - expected).abs() <= 1e-5 * expected.abs(), "{order:?} {i}: {y} {expected}");
        }
    }
}

/// Kernels with one mistake each, and a word of what is said about it, or nothing where wrong results show it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "a lane leaves before a warp operation",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           ov_grid_wait();
           if (ov_thread_x() == 5) return;
           y[ov_thread_x()] = ov_shfl_xor(x[ov_thread_x()], 1);
         }",
        "return",
    ),
    (
        "lanes diverge",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           ov_grid_wait();
           if (ov_lane() < 16) y[ov_lane()] = (int)ov_ballot(true); else ov_warp_sync();
         }",
        "diverge",
    ),
    (
        "half of the block waits at a barrier, half for lanes",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           ov_grid_wait();
           if (ov_thread_x() % 2) ov_block_sync(); else ov_warp_sync();
           y[ov_thread_x()] = 1;
         }",
        "no thread can go on",
    ),
    (
        "a thread leaves before the barrier",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           ov_grid_wait();
           if (ov_thread_x() == 63) return;
           ov_block_sync();
         }",
        "barrier",
    ),
    (
        "a misaligned access",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           ov_grid_wait();
           y[0] = (int)ov_load_16(x + 1).x;
         }",
        "multiple",
    ),
    (
        "some threads that do not wait for what ran before",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           if (ov_thread_x() == 7) return;
           ov_grid_wait();
         }",
        "ov_grid_wait",
    ),
    (
        "no wait for what ran before",
        "OV_KERNEL kernel(const int* x, int* y, int n) { y[ov_thread_x()] = x[ov_thread_x()]; }",
        "ov_grid_wait",
    ),
    (
        "no barrier after writing shared memory",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           OV_SHARED(int, s, 64);
           ov_grid_wait();
           s[ov_thread_x()] = x[ov_thread_x()];
           y[ov_thread_x()] = s[63 - ov_thread_x()];
         }",
        "",
    ),
    (
        "no barrier before overwriting shared memory",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           OV_SHARED(int, s, 64);
           ov_grid_wait();
           for (int round = 0; round < 2; ++round) {
             s[ov_thread_x()] = x[ov_thread_x()] + (round == 0 ? 0 : 1000);
             ov_block_sync();
             if (round == 0) y[ov_thread_x()] = s[63 - ov_thread_x()];
           }
         }",
        "",
    ),
    (
        "no wait for a copy",
        "OV_KERNEL kernel(const int* x, int* y, int n) {
           OV_SHARED(int, s, 64);
           ov_grid_wait();
           if (ov_thread_x() < 16) ov_copy_16(s + 4 * ov_thread_x(), x + 4 * ov_thread_x(), 16);
           ov_copy_commit();
           ov_copy_wait<1>();
           ov_block_sync();
           y[ov_thread_x()] = s[63 - ov_thread_x()];
         }",
        "",
    ),
];

#[test]
fn mistakes_are_found() {
    for (what, body, word) in MISTAKES {
        let mut found = 0;
        for order in Order::ALL {
            let mut x: Vec<i32> = (0..64).collect();
            let mut y = vec![0; 64];
            let Some(result) = run(body, 64, &mut x, &mut y, order) else { return };
            let right = y.iter().rev().eq(&x);
            found += match &result {
                Err(e) if !word.is_empty() => {
                    assert!(e.contains(word), "{what}: {e}");
                    1
                }
                Err(e) => panic!("{what}: {e}"),
                Ok(()) => i32::from(word.is_empty() && !right),
            };
        }
        assert!(found > 0, "{what}");
    }
}

const COPIES: &str = "
OV_KERNEL kernel(const int* x, int* y, int n) {
  OV_SHARED(int, s, 128);
  const int t = (int)ov_thread_x();
  ov_grid_wait();
  for (int stage = 0; stage < 2; ++stage) {
    ov_copy_16(s + 64 * stage + 4 * t, x + 64 * stage + 4 * t, t == 15 ? 8 : 16);
    ov_copy_commit();
  }
  for (int stage = 0; stage < 2; ++stage) {
    if (stage == 0) ov_copy_wait<1>(); else ov_copy_wait<0>();
    ov_block_sync();
    for (int i = t; i < 64; i += 16) y[64 * stage + i] = s[64 * stage + 63 - i];
  }
}
";

#[test]
fn copies_arrive_when_waited_for_and_fill_with_zeros() {
    for order in Order::ALL {
        let mut x: Vec<i32> = (1..=128).collect();
        let mut y = vec![-1; 128];
        let Some(result) = run(COPIES, 16, &mut x, &mut y, order) else { return };
        result.expect("runs");
        for (i, got) in y.iter().enumerate() {
            let from = i / 64 * 64 + 63 - i % 64;
            assert_eq!(*got, if from % 64 < 62 { x[from] } else { 0 }, "{order:?} {i}");
        }
    }
}

const CONVERSIONS: &str = "
OV_KERNEL kernel(const unsigned* x, unsigned* y, int n) {
  ov_grid_wait();
  const unsigned i = ov_global_thread(), bits = x[i];
  const float v = ov_bits_float(bits);
  if (n == 64) {
    y[i] = ov_f32_to_f16(v).bits | (unsigned)ov_f32_to_bf16(v).bits << 16;
  } else {
    y[i] = ov_float_bits(ov_f16_to_f32({(unsigned short)bits}));
  }
}
";

#[test]
fn conversions_round_to_nearest_even() {
    let f16 = |v: f32| ov_core::Tensor::from_vec([1], vec![v]).unwrap();
    let bits = |v: f32, ty| {
        let bytes = f16(v).cast(ty).unwrap().bytes().to_vec();
        u16::from_le_bytes([bytes[0], bytes[1]])
    };
    let mut x: Vec<u32> = vec![
        0,
        1 << 31,
        0x3f80_0000,
        0x3f80_1000,
        0x3f80_3000,
        0x3f80_1001,
        0x3f80_8000,
        0x3f81_8000,
        0x477f_e000,
        0x477f_efff,
        0x477f_f000,
        0x477f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7f7f_ffff,
        0x3880_0000,
        0x387f_ffff,
        0x387f_e000,
        0x3300_0000,
        0x3300_0001,
        0x3380_0000,
        0x33c0_0000,
        0x0000_0001,
        0x0080_0000,
        0x3400_0000,
        0xb3c0_0000,
        0xc77f_f000,
        0x3f7f_ffff,
        0x0001_8000,
    ];
    while x.len() < 64 {
        let last = x[x.len() - 1];
        x.push(last.wrapping_mul(0x9e37_79b9).wrapping_add(0x1234_5678) & 0xbfff_ffff);
    }
    let mut y = vec![0_u32; 64];
    let Some(result) = run(CONVERSIONS, 64, &mut x, &mut y, Order::default()) else { return };
    result.expect("runs");
    for (x, y) in x.iter().zip(&y) {
        let v = f32::from_bits(*x);
        assert_eq!(*y as u16, bits(v, ov_core::ElementType::F16), "f16 of {v:e} ({x:x})");
        assert_eq!((*y >> 16) as u16, bits(v, ov_core::ElementType::Bf16), "bf16 of {v:e}");
    }
    let mut halves: Vec<u32> = (0..512).map(|i| i * 0x80 + i % 0x7f).collect();
    let mut y = vec![0_u32; 512];
    run(CONVERSIONS, 512, &mut halves, &mut y, Order::default()).unwrap().expect("runs");
    for (h, y) in halves.iter().zip(&y) {
        let half =
            ov_core::Tensor::from_bytes(ov_core::ElementType::F16, [1], &(*h as u16).to_le_bytes());
        let wide = half.unwrap().element_as_f64(0).unwrap();
        let got = f64::from(f32::from_bits(*y));
        assert!(got == wide || (got.is_nan() && wide.is_nan()), "{h:x}: {got} {wide}");
    }
}

const MMA: &str = "
typedef ov_bf16 T;
OV_KERNEL kernel(const float* x, float* y, int n) {
  // a: 16 x 16 from x, b: 16 x 8 behind it, through shared memory and the matrix loads.
  OV_SHARED(T, a, 16 * 16);
  OV_SHARED(T, b, 16 * 16);
  ov_grid_wait();
  const int lane = (int)ov_lane();
  for (int i = lane; i < 256; i += 32) a[i] = ov_from_f32<T>(x[i]);
  for (int i = lane; i < 256; i += 32) b[i] = ov_from_f32<T>(i % 16 < 8 ? x[256 + i / 16 * 8 + i % 16] : 0.0f);
  ov_warp_sync();
  unsigned ra[4], rb[4];
  ov_load_matrix_4(ra, a + (lane % 16) * 16 + lane / 16 * 8);
  ov_load_matrix_4_transposed(rb, b + (lane % 16) * 16 + lane / 16 * 8);
  const unsigned columns[2] = {rb[0], rb[1]};
  float d[4] = {1, 2, 3, 4};
  ov_mma_bf16(d, ra, columns);
  const int g = lane / 4, t = lane % 4;
  y[g * 8 + 2 * t] = d[0];
  y[g * 8 + 2 * t + 1] = d[1];
  y[(g + 8) * 8 + 2 * t] = d[2];
  y[(g + 8) * 8 + 2 * t + 1] = d[3];
}
";

#[test]
fn warps_multiply_matrices() {
    for order in Order::ALL {
        let mut x: Vec<f32> = (0..384_i16).map(|i| f32::from((i * 37 + 11) % 17 - 8)).collect();
        let mut y = vec![0.0_f32; 128];
        let Some(result) = run(MMA, 32, &mut x, &mut y, order) else { return };
        result.expect("runs");
        for i in 0..16 {
            for j in 0..8 {
                let dot: f32 = (0..16).map(|k| x[i * 16 + k] * x[256 + k * 8 + j]).sum();
                let start = if i < 8 { 1.0 } else { 3.0 } + (j % 2) as f32;
                assert_eq!(y[i * 8 + j], dot + start, "{order:?} {i} {j}");
            }
        }
    }
}

const BYTE_MMA: &str = "
typedef signed char T;
OV_KERNEL kernel(const int* x, int* y, int n) {
  // a: 16 x 32 from x, b: 8 columns of 32 behind it, through shared memory and the matrix loads.
  OV_SHARED(T, a, 16 * 32);
  OV_SHARED(T, b, 16 * 32);
  ov_grid_wait();
  const int lane = (int)ov_lane();
  for (int i = lane; i < 512; i += 32) a[i] = (T)x[i];
  for (int i = lane; i < 512; i += 32) b[i] = i < 256 ? (T)x[512 + i] : 0;
  ov_warp_sync();
  unsigned ra[4], rb[4];
  ov_load_matrix_4(ra, a + (lane % 16) * 32 + lane / 16 * 16);
  ov_load_matrix_4(rb, b + (lane % 8 + lane / 16 * 8) * 32 + lane / 8 % 2 * 16);
  const unsigned columns[2] = {rb[0], rb[1]};
  int d[4] = {1, 2, 3, 4}, e[4] = {1, 2, 3, 4};
  ov_mma_i8_i8(d, ra, columns);
  ov_mma_u8_i8(e, ra, columns);
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    y[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
    y[128 + (g + i / 2 * 8) * 8 + 2 * t + i % 2] = e[i];
  }
  y[256 + 2 * lane] = ov_dot_i8_i8(ra[0], rb[0], 5);
  y[256 + 2 * lane + 1] = ov_dot_u8_i8(ra[0], rb[0], 5);
}
";

#[test]
fn warps_multiply_bytes() {
    for order in Order::ALL {
        let mut x: Vec<i32> =
            (0..768).map(|i| i32::from(((i * 83 + 29) % 256) as u8 as i8)).collect();
        let mut y = vec![0_i32; 320];
        let Some(result) = run(BYTE_MMA, 32, &mut x, &mut y, order) else { return };
        result.expect("runs");
        let unsigned = |v: i32| v & 255;
        for i in 0..16 {
            for j in 0..8 {
                let dot = |a: fn(i32) -> i32| -> i32 {
                    (0..32).map(|k| a(x[i * 32 + k]) * x[512 + j * 32 + k]).sum()
                };
                let start = if i < 8 { 1 } else { 3 } + (j % 2) as i32;
                assert_eq!(y[i * 8 + j], dot(|v| v) + start, "{order:?} {i} {j}");
                assert_eq!(y[128 + i * 8 + j], dot(unsigned) + start, "{order:?} {i} {j}");
            }
        }
        for lane in 0..32 {
            // Four bytes from k = 4 (lane % 4) on of row and column lane / 4.
            let at = lane / 4 * 32 + lane % 4 * 4;
            let dot = |a: fn(i32) -> i32| -> i32 {
                5 + (at..at + 4).map(|i| a(x[i]) * x[512 + i]).sum::<i32>()
            };
            assert_eq!(y[256 + 2 * lane], dot(|v| v), "{order:?} {lane}");
            assert_eq!(y[256 + 2 * lane + 1], dot(unsigned), "{order:?} {lane}");
        }
    }
}

#[test]
fn every_wrapper_compiles() {
    let Some(compiler) = HostCompiler::get() else { return };
    compiler.object(&source(include_str!("cpp/every_wrapper.cu"))).expect("compiles");
}
