//! `ov-bench infer`: one inference, its outputs written, compared or summarised.

use anyhow::{Result, bail, ensure};
use ov_core::{ElementType, PortInfo, Tensor, op::convert::to_f64};
use serde_json::json;

use crate::{
    args::InferArgs,
    commands::Place,
    inputs,
    load::{self, Reference},
    npy,
    properties::Extra,
    report::{align_right, bordered},
    sampler,
};

/// Runs, and prints what the outputs are like.
///
/// # Errors
/// When the model cannot be loaded or run, or an output is outside the tolerance.
pub(crate) fn run(args: &InferArgs) -> Result<()> {
    let reference = Reference::parse(&args.model)?;
    let place = Place::of(&args.target, Extra::default())?;
    let shape = args.feed.shape.as_deref();
    let loaded = load::load(&place.core, &reference, shape, &place.device, &place.properties)?;
    let load::Loaded { compiled, mut request, .. } = loaded;
    let inputs = inputs::tensors(&place.core, &reference, &compiled, &args.feed)?;
    sampler::set_inputs(&mut request, &inputs)?;
    request.infer()?;
    let ports = compiled.outputs();
    let outputs: Vec<Tensor> =
        (0..ports.len()).map(|i| request.output(i).cloned()).collect::<Result<_, _>>()?;
    let outputs = outputs
        .into_iter()
        .map(|t| Ok(array_of_maps(&t)?.unwrap_or(t)))
        .collect::<Result<Vec<Tensor>>>()?;
    if let Some(dir) = &args.outputs {
        inputs::write_outputs(dir, &outputs)?;
    }
    if let Some(dir) = &args.expected {
        let expected = ports
            .iter()
            .enumerate()
            .map(|(i, port)| npy::read(&inputs::find_file(dir, i, &port.name)?))
            .collect::<Result<Vec<_>>>()?;
        return judge(args, ports, &outputs, &expected);
    }
    if args.outputs.is_none() {
        summarise(args, ports, &outputs)?;
    }
    Ok(())
}

/// A sequence of maps to numbers, as classifiers give them, as an array: a row per map, a column per key in ascending
/// order. Nothing for other tensors and for maps whose keys differ.
fn array_of_maps(sequence: &Tensor) -> Result<Option<Tensor>> {
    let Ok(maps) = sequence.as_sequence() else { return Ok(None) };
    let (mut values, mut columns) = (Vec::new(), None);
    for map in maps {
        let Ok((keys, numbers)) = map.as_map() else { return Ok(None) };
        let Ok(numbers) = numbers.as_slice::<f32>() else { return Ok(None) };
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        let keys: Vec<String> = if let Ok(texts) = keys.as_strings() {
            order.sort_by_key(|i| &texts[*i]);
            order.iter().map(|i| texts[*i].clone()).collect()
        } else {
            let keys = keys.as_slice::<i64>()?;
            order.sort_by_key(|i| keys[*i]);
            order.iter().map(|i| keys[*i].to_string()).collect()
        };
        values.extend(order.iter().map(|i| numbers[*i]));
        if *columns.get_or_insert_with(|| keys.clone()) != keys {
            return Ok(None);
        }
    }
    let Some(columns) = columns else { return Ok(None) };
    Ok(Some(Tensor::from_vec([maps.len(), columns.len()], values)?))
}

/// How far an output is from what was expected.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deviation {
    /// `max |a - b|`.
    error: f64,
    /// `max |a - b| / max(1, max |b|)`.
    figure: f64,
    /// Elements with `|a - b| > atol max |b| + rtol |b|`.
    outside: usize,
}

/// Compares an output `a` with what was expected, `b`. NaN suits NaN, an infinity the same one.
fn deviation(a: &Tensor, b: &Tensor, rtol: f64, atol: f64) -> Result<Deviation> {
    ensure!(a.shape() == b.shape(), "has shape {}, expected {}", a.shape(), b.shape());
    let strings = [a, b].map(|t| t.element_type() == ElementType::String);
    if strings[0] || strings[1] {
        ensure!(
            strings[0] && strings[1],
            "is of {}, expected {}",
            a.element_type(),
            b.element_type()
        );
        let outside = a.as_strings()?.iter().zip(b.as_strings()?).filter(|(a, b)| a != b).count();
        return Ok(Deviation { error: outside as f64, figure: outside as f64, outside });
    }
    let (a, b) = (to_f64(&a.to_contiguous())?, to_f64(&b.to_contiguous())?);
    let largest = b.iter().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let mut result = Deviation { error: 0.0, figure: 0.0, outside: 0 };
    for (a, b) in a.iter().zip(&b) {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let error = (a - b).abs();
        let error = if error.is_nan() { f64::INFINITY } else { error };
        result.error = result.error.max(error);
        if !(b.is_finite() && error <= atol * largest + rtol * b.abs()) {
            result.outside += 1;
        }
    }
    result.figure = result.error / largest.max(1.0);
    Ok(result)
}

fn judge(
    args: &InferArgs,
    ports: &[PortInfo],
    outputs: &[Tensor],
    expected: &[Tensor],
) -> Result<()> {
    let mut table =
        bordered(&["output", "type", "max |a-b|", "/ max(1, max |b|)", "outside", "verdict"]);
    let (mut bad, mut worst, mut lines) = (Vec::new(), 0f64, Vec::new());
    for ((port, output), expected) in ports.iter().zip(outputs).zip(expected) {
        let kind = format!("{}{}", output.element_type(), output.shape());
        let found = deviation(output, expected, args.rtol, args.atol);
        let good = found.as_ref().is_ok_and(|d| d.outside == 0);
        if !good {
            bad.push(port.name.clone());
        }
        let verdict = match &found {
            Ok(_) if good => "ok".to_owned(),
            Ok(_) => "outside".to_owned(),
            Err(e) => e.to_string(),
        };
        let Deviation { error, figure, outside } = found.unwrap_or(Deviation {
            error: f64::INFINITY,
            figure: f64::INFINITY,
            outside: output.len(),
        });
        worst = worst.max(figure);
        lines
            .push(json!({ "output": port.name, "type": kind, "max_error": error, "figure": figure,
            "outside": outside, "ok": good }));
        let share = format!("{outside} of {}", output.len());
        table.add_row([
            port.name.clone(),
            kind,
            format!("{error:.3e}"),
            format!("{figure:.3e}"),
            share,
            verdict,
        ]);
    }
    align_right(&mut table, 2..5);
    if args.json {
        say!(
            "{}",
            json!({ "model": args.model, "figure": worst, "ok": bad.is_empty(), "outputs": lines })
        );
    } else {
        say!("{table}");
        say!("figure {worst:.3e} {}", if bad.is_empty() { "ok" } else { "outside the tolerance" });
    }
    if bad.is_empty() {
        return Ok(());
    }
    bail!(
        "outputs outside the tolerance (rtol {:e}, atol {:e} of the largest value): {}",
        args.rtol,
        args.atol,
        bad.join(", ")
    )
}

fn summarise(args: &InferArgs, ports: &[PortInfo], outputs: &[Tensor]) -> Result<()> {
    let mut table = bordered(&["output", "type", "min", "mean", "max", "first values"]);
    let mut lines = Vec::new();
    for (port, output) in ports.iter().zip(outputs) {
        let kind = format!("{}{}", output.element_type(), output.shape());
        let values = match output.as_strings() {
            Ok(_) => Vec::new(),
            Err(_) => to_f64(&output.to_contiguous())?,
        };
        let (low, high) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let first: Vec<String> = match output.as_strings() {
            Ok(texts) => texts.iter().take(SHOWN).map(|t| format!("{t:?}")).collect(),
            Err(_) => values.iter().take(SHOWN).map(|v| format!("{v:.5}")).collect(),
        };
        lines.push(
            json!({ "output": port.name, "type": kind, "min": low, "mean": mean, "max": high }),
        );
        let number = |v: f64| if values.is_empty() { "-".to_owned() } else { format!("{v:.5}") };
        table.add_row([
            port.name.clone(),
            kind,
            number(low),
            number(mean),
            number(high),
            first.join(" "),
        ]);
    }
    if args.json {
        say!("{}", json!({ "model": args.model, "outputs": lines }));
    } else {
        say!("{table}");
    }
    Ok(())
}

/// Leading values that are shown.
const SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use ov_core::Shape;

    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::new(&[values.len()]), values.to_vec()).unwrap()
    }

    #[test]
    fn maps_become_rows_with_their_keys_in_order() {
        let map = |keys: [i64; 2], values: [f32; 2]| {
            Tensor::from_map(
                Tensor::from_vec([2], keys.to_vec()).unwrap(),
                Tensor::from_vec([2], values.to_vec()).unwrap(),
            )
            .unwrap()
        };
        let rows = Tensor::from_sequence(vec![map([0, 1], [0.1, 0.9]), map([1, 0], [0.4, 0.6])]);
        let array = array_of_maps(&rows).unwrap().unwrap();
        assert_eq!(array, Tensor::from_vec([2, 2], vec![0.1f32, 0.9, 0.6, 0.4]).unwrap());
        let other = Tensor::from_sequence(vec![map([0, 1], [0.1, 0.9]), map([2, 0], [0.4, 0.6])]);
        assert_eq!(array_of_maps(&other).unwrap(), None);
        assert_eq!(array_of_maps(&tensor(&[1.0])).unwrap(), None);
    }

    #[test]
    fn tolerance_is_relative_to_the_largest_value() {
        let b = tensor(&[100.0, 0.0]);
        let at = |value: f32| deviation(&tensor(&[100.0, value]), &b, 0.0, 1e-3).unwrap();
        assert_eq!(at(0.09).outside, 0);
        assert_eq!(at(0.11).outside, 1);
        let d = deviation(&tensor(&[102.0, 0.0]), &b, 1e-2, 0.0).unwrap();
        assert_eq!(d, Deviation { error: 2.0, figure: 0.02, outside: 1 });
        assert_eq!(deviation(&tensor(&[101.0, 0.0]), &b, 1e-2, 0.0).unwrap().outside, 0);
    }

    #[test]
    fn special_values_must_agree() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for (a, b, outside) in [
            (nan, nan, 0),
            (inf, inf, 0),
            (inf, -inf, 1),
            (inf, 1.0, 1),
            (1.0, inf, 1),
            (nan, 1.0, 1),
            (1.0, nan, 1),
        ] {
            let d = deviation(&tensor(&[a]), &tensor(&[b]), 1e9, 1e9).unwrap();
            assert_eq!(d.outside, outside, "{a} {b}");
        }
        assert!(deviation(&tensor(&[1.0]), &tensor(&[1.0, 2.0]), 1.0, 1.0).is_err());
    }
}
