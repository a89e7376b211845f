//! Look-up of keys: labels to numbers and back.

use std::cmp::Ordering;

use crate::{
    dispatch_numeric,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, movement::{FILL, join, take_blocks},
        unsupported_type,
    },
    tensor::{Element, Tensor},
};

define_op! {
    /// The value that belongs to each key: inputs the keys to look up, the known keys in ascending order (see
    /// [`LabelEncoder::sorted`]), their values, and the value of unknown keys, of one element. Keys are texts or of any
    /// numeric type, NaN equals NaN. <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>
    pub struct LabelEncoder("LabelEncoder", 0) {
        /// Whether an unknown key is an error.
        required: bool = false,
    }
}

/// An order in which NaN equals itself and zeros are equal.
fn order<T: Element>(a: T, b: T) -> Ordering {
    if a.to_f64().is_nan() || b.to_f64().is_nan() {
        return a.to_f64().is_nan().cmp(&b.to_f64().is_nan());
    }
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

impl LabelEncoder {
    /// Keys in ascending order with their values; of equal keys the last counts.
    ///
    /// # Errors
    /// When the numbers of keys and values differ, or the keys are of a type without an order.
    pub fn sorted(keys: &Tensor, values: &Tensor) -> OpResult<[Tensor; 2]> {
        op_ensure!(keys.len() == values.len(), "{} keys have {} values", keys.len(), values.len());
        let keys = keys.to_contiguous();
        let mut places: Vec<usize> = (0..keys.len()).rev().collect();
        let same: Vec<bool> = if let Ok(texts) = keys.as_strings() {
            places.sort_by(|a, b| texts[*a].cmp(&texts[*b]));
            places.windows(2).map(|w| texts[w[0]] == texts[w[1]]).collect()
        } else {
            let ty = keys.element_type();
            dispatch_numeric!(ty, T => {
                let keys = keys.as_slice::<T>()?;
                places.sort_by(|a, b| order(keys[*a], keys[*b]));
                places.windows(2).map(|w| order(keys[w[0]], keys[w[1]]).is_eq()).collect()
            }, else return Err(unsupported_type(ty)))
        };
        let repeated = std::iter::once(false).chain(same);
        let starts: Vec<usize> =
            places.into_iter().zip(repeated).filter(|(_, same)| !same).map(|(p, _)| p).collect();
        let shape = [starts.len()];
        Ok([take_blocks(&keys, &shape, 1, &starts)?, take_blocks(values, &shape, 1, &starts)?])
    }

    /// The place of each key, [`FILL`] for unknown ones.
    fn places(inputs: &[Tensor]) -> OpResult<Vec<usize>> {
        let (x, keys) = (inputs[0].to_contiguous(), inputs[1].to_contiguous());
        let ty = x.element_type();
        op_ensure!(ty == keys.element_type(), "keys are {}, got {ty}", keys.element_type());
        if let (Ok(x), Ok(keys)) = (x.as_strings(), keys.as_strings()) {
            return Ok(x.iter().map(|v| keys.binary_search(v).unwrap_or(FILL)).collect());
        }
        dispatch_numeric!(ty, T => {
            let keys = keys.as_slice::<T>()?;
            let place = |v: &T| keys.binary_search_by(|k| order(*k, *v)).unwrap_or(FILL);
            Ok(x.as_slice::<T>()?.iter().map(place).collect())
        }, else Err(unsupported_type(ty)))
    }
}

impl OpRules for LabelEncoder {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=4)?;
        cx.common_type([0, 1])?;
        Ok(vec![OutputType::new(cx.common_type([2, 3])?, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs[3].len() == 1, "the default has shape {}", inputs[3].shape());
        let unknown = inputs[2].len();
        let mut places = Self::places(inputs)?;
        for (i, place) in places.iter_mut().enumerate() {
            if *place >= unknown {
                if self.required {
                    return Err(OpError::Invalid(format!("element {i} is none of the known keys")));
                }
                *place = unknown;
            }
        }
        let values = join(&[&inputs[2].reshape([unknown])?, &inputs[3].reshape([1])?], 0)?;
        Ok(vec![take_blocks(&values, inputs[0].shape(), 1, &places)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(v: &[&str]) -> Tensor {
        let v: Vec<String> = v.iter().map(|s| (*s).to_owned()).collect();
        Tensor::from_strings([v.len()], v).expect("fits")
    }

    #[test]
    fn texts_and_numbers_are_looked_up_and_the_last_of_equal_keys_counts() {
        let values = Tensor::from_i64s(&[1, 2, 3]);
        let [keys, values] = LabelEncoder::sorted(&texts(&["b", "a", "b"]), &values).expect("pairs");
        let inputs = [texts(&["a", "x", "b"]), keys, values, Tensor::from_i64s(&[-1])];
        let got = LabelEncoder::default().evaluate(&inputs).expect("valid");
        assert_eq!(got[0], Tensor::from_i64s(&[2, -1, 3]));
        assert!(LabelEncoder { required: true }.evaluate(&inputs).is_err());

        let f32s = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        let keys = f32s(&[f32::NAN, 0.0, -1.5]);
        let [keys, values] = LabelEncoder::sorted(&keys, &texts(&["nan", "zero", "minus"])).expect("pairs");
        let inputs = [f32s(&[-0.0, f32::NAN, -1.5, 7.0]), keys, values, texts(&["?"])];
        let got = LabelEncoder::default().evaluate(&inputs).expect("valid");
        assert_eq!(got[0], texts(&["zero", "nan", "minus", "?"]));
        let empty = [f32s(&[1.0]), f32s(&[]), texts(&[]), texts(&["?"])];
        assert_eq!(LabelEncoder::default().evaluate(&empty).expect("valid")[0], texts(&["?"]));
        assert!(LabelEncoder::sorted(&f32s(&[1.0]), &texts(&[])).is_err());
    }
}
