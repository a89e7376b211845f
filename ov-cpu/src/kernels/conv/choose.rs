//! Which algorithm computes a convolution in the least time.

use crate::simd::Isa;

use super::ConvParams;
use super::winograd::{Winograd, WinogradTile, tiles_along};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// [`Conv`](super::Conv).
    Direct,
    /// [`Winograd`].
    Winograd(WinogradTile),
}

/// Where packed weights are when a layer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightsIn {
    /// In the last-level cache: all weights of the model fit it together.
    Cache,
    /// In memory.
    Memory,
}

/// The algorithm with the least estimated time on one thread.
///
/// The model counts multiplications, the bytes of weights, and the vector operations of the
/// Winograd transforms with their share of scattered loads and stores (cpu-kernels.md 3.4).
#[must_use]
pub fn choose(isa: Isa, p: &ConvParams, weights: WeightsIn) -> Algorithm {
    let wide = p.channels.min(p.outputs) >= MIN_CHANNELS;
    let algorithms = [
        Algorithm::Direct,
        Algorithm::Winograd(WinogradTile::Two),
        Algorithm::Winograd(WinogradTile::Four),
    ];
    algorithms
        .into_iter()
        .filter(|a| *a == Algorithm::Direct || (wide && Winograd::supports(p)))
        .min_by(|a, b| cycles(isa, p, *a, weights).total_cmp(&cycles(isa, p, *b, weights)))
        .unwrap_or(Algorithm::Direct)
}

/// Estimated cycles of one thread.
#[must_use]
pub fn cycles(isa: Isa, p: &ConvParams, algorithm: Algorithm, weights: WeightsIn) -> f64 {
    let lanes = if isa.has_avx512() { 16.0 } else { 8.0 };
    let bytes_per_cycle = match weights {
        WeightsIn::Cache => 24.0,
        // Two threads that stream weights share 34 GB/s (a decoder of 124 M weights in 14.6 ms).
        WeightsIn::Memory => 5.0,
    };
    let (c, o) = (p.channels as f64, p.outputs as f64);
    let vectors = |n: f64| (n / lanes).ceil();
    // 512-bit operations issue once per cycle on a 256-bit core, narrower ones twice.
    let issue = if isa.has_avx512() { 1.0 } else { 2.0 };
    let macs_per_cycle = issue * EFFICIENCY;
    match algorithm {
        Algorithm::Direct => {
            let depth = (p.taps() * p.channels / p.groups.max(1)) as f64;
            let products =
                p.pixels() as f64 * depth * vectors(o / p.groups as f64) * p.groups as f64;
            (products / macs_per_cycle).max(4.0 * depth * o / bytes_per_cycle)
        }
        Algorithm::Winograd(tile) => {
            let kernel = [p.kernel[1], p.kernel[2]];
            let size = tile.outputs_of(kernel);
            let products = tile.inputs_of(kernel).iter().product::<usize>() as f64;
            let along = |d: usize| tiles_along(p.output[d + 1], size[d], p.dilation[d + 1]);
            let tiles = (p.batch * along(0) * along(1)) as f64;
            let multiply = (tiles * products * c * vectors(o) / macs_per_cycle)
                .max(4.0 * products * c * o / bytes_per_cycle);
            let transforms =
                tiles * products / issue * (INPUT_CYCLES * vectors(c) + OUTPUT_CYCLES * vectors(o));
            multiply + transforms
        }
    }
}

/// Below this many channels or outputs the transforms are not amortised.
const MIN_CHANNELS: usize = 16;
/// Share of the peak that products reach.
const EFFICIENCY: f64 = 0.93;
/// Cycles per vector of V or M for the transforms.
const INPUT_CYCLES: f64 = 5.0;
const OUTPUT_CYCLES: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::{Algorithm, WeightsIn, choose};
    use crate::kernels::conv::ConvParams;
    use crate::kernels::conv::winograd::WinogradTile;
    use crate::simd::Isa;

    #[test]
    fn large_maps_use_the_large_tile_and_others_do_not() {
        let four = Algorithm::Winograd(WinogradTile::Four);
        for isa in Isa::available() {
            let of = |p| choose(isa, &p, WeightsIn::Cache);
            assert_eq!(of(ConvParams::new_2d([1, 56, 56, 64], 64, 3, 1, 1)), four, "{isa}");
            assert_eq!(of(ConvParams::new_2d([1, 28, 28, 128], 128, 3, 1, 1)), four, "{isa}");
            assert_eq!(
                of(ConvParams::new_2d([1, 56, 56, 64], 64, 3, 2, 1)),
                Algorithm::Direct,
                "{isa}"
            );
            assert_eq!(
                of(ConvParams::new_2d([1, 56, 56, 64], 64, 1, 1, 0)),
                Algorithm::Direct,
                "{isa}"
            );
            assert_eq!(
                of(ConvParams::new_2d([1, 64, 64, 4], 4, 3, 1, 1)),
                Algorithm::Direct,
                "{isa}"
            );
            let cold =
                choose(isa, &ConvParams::new_2d([1, 3, 3, 512], 512, 3, 1, 1), WeightsIn::Memory);
            assert_ne!(cold, four, "{isa}");
        }
    }
}
