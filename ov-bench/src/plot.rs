//! An SVG of a run: how latencies are distributed, and how they went over time.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::{report::time, sampler::Run, stats::percentile};

/// Draws both charts side by side.
///
/// # Errors
/// When there is nothing to draw or the file cannot be written.
pub(crate) fn write(path: &Path, title: &str, run: &Run) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| anyhow!("cannot write {}: {e}", path.display());
    let mut sorted = run.latency_us.clone();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (sorted.first().copied(), sorted.last().copied()) else {
        return Err(failed(&"there are no samples"));
    };
    let high = percentile(&sorted, 999).max(low).min(high).max(low * 1.01 + 1e-3);
    let root = SVGBackend::new(path, (1400, 520)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let root = root.titled(title, ("sans-serif", 18)).map_err(|e| failed(&e))?;
    let (left, right) = root.split_horizontally(600);
    distribution(&left, &sorted, low, high).map_err(|e| failed(&e))?;
    over_time(&right, run, low, high).map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The share of inferences that a latency is not below, with the percentiles marked.
fn distribution(area: &Area<'_>, sorted: &[f64], low: f64, high: f64) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(low..high, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("latency, up to the 99.9th percentile")
        .y_desc("share of inferences")
        .x_label_formatter(&|us| time(*us))
        .x_labels(5)
        .draw()?;
    let points = thin(sorted.len()).map(|i| (sorted[i], (i + 1) as f64 / sorted.len() as f64));
    chart.draw_series(LineSeries::new(points.filter(|(us, _)| *us <= high), BLUE))?;
    for (permille, name) in [(500, "p50"), (900, "p90"), (990, "p99")] {
        let (us, share) = (percentile(sorted, permille), permille as f64 / 1000.0);
        let label = format!("{name} {}", time(us));
        chart.draw_series([EmptyElement::at((us.min(high), share))
            + Circle::new((0, 0), 3, RED.filled())
            + Text::new(label, (6, 4), ("sans-serif", 13))])?;
    }
    Ok(())
}

/// Every inference by when it ended, in the colour of the devices that served it.
fn over_time(area: &Area<'_>, run: &Run, low: f64, high: f64) -> Drawn {
    let end = run.end_us.last().copied().unwrap_or(1.0).max(1.0) / 1e6;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end, (low * 0.95)..(high * 1.02))?;
    chart.configure_mesh().x_desc("seconds").y_label_formatter(&|us| time(*us)).draw()?;
    let mut spans = run.devices.clone();
    if spans.is_empty() {
        spans.push((0, "latency".to_owned()));
    }
    for (i, (first, device)) in spans.iter().enumerate() {
        let last = spans.get(i + 1).map_or(run.end_us.len(), |(next, _)| *next);
        let colour = Palette99::pick(i).to_rgba();
        let points = thin(run.end_us.len())
            .filter(|i| (*first..last).contains(i))
            .map(|i| (run.end_us[i] / 1e6, run.latency_us[i].min(high)));
        chart
            .draw_series(points.map(|at| Circle::new(at, 1, colour.filled())))?
            .label(device)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}

/// Evenly spread indices, few enough to draw, the last one among them.
fn thin(len: usize) -> impl Iterator<Item = usize> {
    let step = len.div_ceil(MOST_POINTS).max(1);
    (0..len).filter(move |i| i % step == 0 || i + 1 == len)
}

const MOST_POINTS: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_runs_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.svg");
        for len in [1usize, 2, 10_000] {
            let run = Run {
                latency_us: (0..len).map(|i| 10.0 + (i % 7) as f64).collect(),
                end_us: (0..len).map(|i| 20.0 * i as f64).collect(),
                duration_s: 1.0,
                devices: vec![(0, "CPU".to_owned()), (len / 2, "CUDA".to_owned())],
            };
            write(&path, "model", &run).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(svg.starts_with("<svg") && svg.contains("CUDA") && svg.contains("p99"));
        }
        assert!(write(&path, "model", &Run::default()).is_err());
        assert_eq!(thin(10_001).last(), Some(10_000));
    }
}
