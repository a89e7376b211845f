//! Numbers as texts.

use crate::{
    dispatch_float, dispatch_numeric,
    op::{OpError, OpResult, unsupported_type},
    tensor::{Element, ElementType, Tensor},
};

/// The shortest text that reads back as the same number: plain from 1e-4 to 1e16, scientific outside.
fn float_text(value: f64, shortest: &dyn Fn(bool) -> String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        let text = shortest(false);
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = shortest(true);
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// The decimal number of fewest digits that is nearest to `v` among the numbers of its type.
fn shortest_decimal<T: Element>(v: T) -> f64 {
    let exact = v.to_f64();
    if !exact.is_finite() {
        return exact;
    }
    let decimals = (0..17).filter_map(|digits| format!("{exact:.digits$e}").parse::<f64>().ok());
    decimals.into_iter().find(|d| T::from_f64(*d) == v).unwrap_or(exact)
}

/// Every element as a text.
pub(super) fn to_texts(input: &Tensor) -> OpResult<Vec<String>> {
    let ty = input.element_type();
    let t = input.to_contiguous();
    if ty == ElementType::Boolean {
        return Ok(t.bytes().iter().map(|b| if *b == 0 { "False" } else { "True" }.to_owned()).collect());
    }
    if ty.is_float() {
        return dispatch_float!(ty, T => {
            let text = |v: &T| {
                let shortest = shortest_decimal(*v);
                float_text(v.to_f64(), &|scientific| {
                    if scientific { format!("{shortest:e}") } else { format!("{shortest}") }
                })
            };
            Ok(t.as_slice::<T>()?.iter().map(text).collect())
        }, else Err(unsupported_type(ty)));
    }
    dispatch_numeric!(ty, T => Ok(t.as_slice::<T>()?.iter().map(ToString::to_string).collect()), else {
        Ok(t.to_i64_vec()?.into_iter().map(|v| v.to_string()).collect())
    })
}

fn parse<N: std::str::FromStr>(text: &str, what: &str) -> OpResult<N> {
    text.trim().parse().map_err(|_| OpError::Invalid(format!("text {text:?} is not {what}")))
}

/// The tensor of type `i64` (or `u64`, `f64`) with the numbers that the texts name.
pub(super) fn from_texts(input: &Tensor, to: ElementType) -> OpResult<Tensor> {
    let texts = input.as_strings()?;
    let shape = input.shape().clone();
    if to == ElementType::U64 {
        let values = texts.iter().map(|t| parse::<u64>(t, "an integer")).collect::<OpResult<Vec<_>>>()?;
        return Ok(Tensor::from_vec(shape, values)?);
    }
    if to.is_integer() {
        let whole = |t: &String| {
            parse::<i64>(t, "an integer").or_else(|_| parse::<f64>(t, "a number").map(|v| v as i64))
        };
        return Ok(Tensor::from_vec(shape, texts.iter().map(whole).collect::<OpResult<Vec<_>>>()?)?);
    }
    let values = texts.iter().map(|t| parse::<f64>(t, "a number")).collect::<OpResult<Vec<_>>>()?;
    Ok(Tensor::from_vec(shape, values)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_briefly_and_read_back() {
        let t = Tensor::from_vec([8], vec![0.5f32, 3., 1e-5, 1e20, -0.1, f32::NAN, f32::INFINITY, 0.]).expect("fits");
        let texts = to_texts(&t).expect("numeric");
        assert_eq!(texts, ["0.5", "3.0", "1e-05", "1e+20", "-0.1", "NaN", "INF", "0.0"]);
        let back = from_texts(&Tensor::from_strings([8], texts).expect("fits"), ElementType::F32).expect("numbers");
        assert_eq!(back.cast(ElementType::F32).expect("native").to_f64_vec().expect("numbers")[..5], t.to_f64_vec().expect("numbers")[..5]);
        let halves = Tensor::from_f64s::<half::f16>([2], &[0.403, -2.404]).expect("fits");
        assert_eq!(to_texts(&halves).expect("numeric"), ["0.403", "-2.404"]);
        let bad = Tensor::from_strings([1], vec!["abc".to_owned()]).expect("fits");
        assert!(from_texts(&bad, ElementType::I32).is_err());
    }
}
