//! Order statistics of latency samples, exact: every sample is kept and sorted.

use serde::Serialize;

/// A summary of samples in microseconds. Percentiles are nearest rank: `sorted[ceil(p n) - 1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) min_us: f64,
    pub(crate) median_us: f64,
    pub(crate) mean_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Number of samples.
    pub(crate) n: usize,
}

impl Summary {
    /// The summary of samples in any order; all zero when there are none.
    pub(crate) fn of(samples_us: &[f64]) -> Self {
        let mut sorted = samples_us.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        Self {
            min_us: *min,
            median_us: percentile(&sorted, 500),
            mean_us: sorted.iter().sum::<f64>() / sorted.len() as f64,
            p90_us: percentile(&sorted, 900),
            p95_us: percentile(&sorted, 950),
            p99_us: percentile(&sorted, 990),
            p999_us: percentile(&sorted, 999),
            max_us: *max,
            n: sorted.len(),
        }
    }
}

/// The smallest sample that at least `permille` thousandths of the samples do not exceed. In whole numbers, as
/// `0.9 * 10.0` is not 9.
pub(crate) fn percentile(sorted: &[f64], permille: usize) -> f64 {
    let rank = (sorted.len() * permille).div_ceil(1000).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        for (permille, expected) in
            [(0, 1.0), (100, 1.0), (101, 2.0), (500, 5.0), (900, 9.0), (901, 10.0), (1000, 10.0)]
        {
            assert_eq!(percentile(&ten, permille), expected, "{permille}");
        }
        assert_eq!(percentile(&[7.0], 999), 7.0);
        assert_eq!(percentile(&[], 500), 0.0);
    }

    #[test]
    fn summaries_do_not_depend_on_order() {
        let samples: Vec<f64> = (0..1000).map(|i| f64::from(i * 7 % 1000)).collect();
        let summary = Summary::of(&samples);
        assert_eq!(
            summary,
            Summary {
                min_us: 0.0,
                median_us: 499.0,
                mean_us: 499.5,
                p90_us: 899.0,
                p95_us: 949.0,
                p99_us: 989.0,
                p999_us: 998.0,
                max_us: 999.0,
                n: 1000
            }
        );
        assert_eq!(Summary::of(&[]), Summary::default());
    }
}
