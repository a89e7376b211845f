//! Maps of ONNX: to tensors and from them.

use std::collections::HashMap;

use crate::{
    choice,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType,
        convert::Convert,
        movement::{FILL, checked_len, strided_copy, take_blocks},
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// What the values of a map are converted to.
    pub enum MapCast {
        /// `f32`.
        Float = "TO_FLOAT",
        /// Texts.
        Text = "TO_STRING",
        /// `i64`.
        Int64 = "TO_INT64",
    }
}

choice! {
    /// Which places of the tensor the keys of a map mean.
    pub enum MapForm {
        /// The values in the order of their keys.
        Dense = "DENSE",
        /// The keys are positions; the others are empty.
        Sparse = "SPARSE",
    }
}

define_op! {
    /// The values of a map with `i64` keys as a tensor `[1, n]`.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_CastMap.html>
    pub struct CastMap("CastMap", 0) {
        /// Element type of the output.
        cast_to: MapCast = MapCast::Float,
        /// Which places the keys mean.
        map_form: MapForm = MapForm::Dense,
        /// Length of a sparse output.
        max_map: i64 = 1,
    }
}

impl CastMap {
    fn element_type(&self) -> ElementType {
        match self.cast_to {
            MapCast::Float => ElementType::F32,
            MapCast::Text => ElementType::String,
            MapCast::Int64 => ElementType::I64,
        }
    }
}

fn expect_map(cx: &InferContext<'_>) -> OpResult<()> {
    cx.expect_inputs(1..=1)?;
    cx.expect_type(0, "a map", |t| t == ElementType::Map)
}

impl OpRules for CastMap {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        expect_map(cx)?;
        let len = match self.map_form {
            MapForm::Dense => cx.shape(0).dim(0),
            MapForm::Sparse => Dimension::fixed(usize::try_from(self.max_map).unwrap_or(0)),
        };
        let shape = PartialShape::new(&[Dimension::fixed(1), len]);
        Ok(vec![OutputType::new(self.element_type(), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (keys, values) = inputs[0].as_map()?;
        let keys = keys.to_i64_vec()?;
        let starts = match self.map_form {
            MapForm::Dense => {
                let mut places: Vec<usize> = (0..keys.len()).collect();
                places.sort_by_key(|p| keys[*p]);
                places
            }
            MapForm::Sparse => {
                let len = checked_len(&[usize::try_from(self.max_map).unwrap_or(0)])?;
                let mut places = vec![FILL; len];
                for (i, key) in keys.iter().enumerate() {
                    let place = usize::try_from(*key).ok().and_then(|k| places.get_mut(k));
                    *place.ok_or_else(|| {
                        OpError::Invalid(format!("key {key} lies outside a map of at most {len}"))
                    })? = i;
                }
                places
            }
        };
        let dense = take_blocks(values, &[1, starts.len()], 1, &starts)?;
        let mut out = Convert { destination_type: self.element_type() }
            .evaluate(&[dense])?;
        if let (MapForm::Sparse, MapCast::Text) = (self.map_form, self.cast_to) {
            // Places without a key are empty, not the text of 0.
            let texts = out[0].as_strings()?.iter().zip(&starts);
            let texts = texts.map(|(t, s)| if *s == FILL { String::new() } else { t.clone() });
            out = vec![Tensor::from_strings([1, starts.len()], texts.collect())?];
        }
        Ok(out)
    }
}

define_op! {
    /// The values of a map at the keys of a vocabulary (one of the two lists), as a tensor `[1, n]` of their type; keys
    /// that the map lacks give 0 or the empty text.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_DictVectorizer.html>
    pub struct DictVectorizer("DictVectorizer", 0) {
        /// Keys that are texts.
        string_vocabulary: Vec<String> = Vec::new(),
        /// Keys that are numbers.
        int64_vocabulary: Vec<i64> = Vec::new(),
    }
}

impl OpRules for DictVectorizer {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        expect_map(cx)?;
        let len = self.string_vocabulary.len().max(self.int64_vocabulary.len());
        Ok(vec![OutputType::new(ElementType::Dynamic, [1, len])])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (keys, values) = inputs[0].as_map()?;
        let starts: Vec<usize> = if let Ok(texts) = keys.as_strings() {
            let places: HashMap<&str, usize> =
                texts.iter().enumerate().map(|(i, k)| (k.as_str(), i)).collect();
            let place = |k: &String| places.get(k.as_str()).copied().unwrap_or(FILL);
            self.string_vocabulary.iter().map(place).collect()
        } else {
            let places: HashMap<i64, usize> =
                keys.to_i64_vec()?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
            self.int64_vocabulary.iter().map(|k| places.get(k).copied().unwrap_or(FILL)).collect()
        };
        Ok(vec![take_blocks(values, &[1, starts.len()], 1, &starts)?])
    }
}

define_op! {
    /// A map from class labels (one of the two lists) to scores for each row of `[n, classes]`, as a sequence.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html>
    pub struct ZipMap("ZipMap", 0) {
        /// Labels that are texts.
        classlabels_strings: Vec<String> = Vec::new(),
        /// Labels that are numbers.
        classlabels_int64s: Vec<i64> = Vec::new(),
    }
}

impl ZipMap {
    fn keys(&self) -> OpResult<Tensor> {
        if self.classlabels_int64s.is_empty() {
            let keys = self.classlabels_strings.clone();
            return Ok(Tensor::from_strings([keys.len()], keys)?);
        }
        Ok(Tensor::from_i64s(&self.classlabels_int64s))
    }
}

impl OpRules for ZipMap {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 1..=2)?;
        let shape = cx.shape(0);
        let rows = match shape.rank() {
            Some(1) => Dimension::fixed(1),
            _ => shape.dim(0),
        };
        Ok(vec![OutputType::new(ElementType::Sequence, PartialShape::new(&[rows]))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (keys, scores) = (self.keys()?, inputs[0].to_contiguous());
        let classes = scores.shape().last().copied().unwrap_or(0);
        op_ensure!(
            classes == keys.len() && (1..=2).contains(&scores.rank()),
            "scores have shape {}, expected {} for each row",
            scores.shape(),
            keys.len()
        );
        let rows = if scores.rank() == 1 { 1 } else { scores.shape()[0] };
        let maps = (0..rows)
            .map(|row| {
                let row = strided_copy(&scores, &[classes], row * classes, &[1])?;
                Ok(Tensor::from_map(keys.clone(), row)?)
            })
            .collect::<OpResult<Vec<Tensor>>>()?;
        Ok(vec![Tensor::from_sequence(maps)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn maps_become_tensors_and_back() {
        let map = Tensor::from_map(Tensor::from_i64s(&[4, 1]), f32s(&[2], &[0.5, 2.5])).expect("pairs");
        let cast = |cast_to, map_form, max_map| {
            CastMap { cast_to, map_form, max_map }.evaluate(std::slice::from_ref(&map))
        };
        let dense = cast(MapCast::Float, MapForm::Dense, 1).expect("valid");
        assert_eq!(dense[0], f32s(&[1, 2], &[2.5, 0.5]));
        let sparse = cast(MapCast::Int64, MapForm::Sparse, 5).expect("valid");
        assert_eq!(sparse[0], Tensor::from_i64s(&[0, 2, 0, 0, 0]).reshape([1, 5]).expect("fits"));
        let texts = cast(MapCast::Text, MapForm::Sparse, 5).expect("valid");
        assert_eq!(texts[0].as_strings().expect("texts"), ["", "2.5", "", "", "0.5"]);
        assert!(cast(MapCast::Float, MapForm::Sparse, 3).is_err());

        let vocabulary = DictVectorizer { int64_vocabulary: vec![1, 9, 4], ..DictVectorizer::default() };
        let got = vocabulary.evaluate(std::slice::from_ref(&map)).expect("valid");
        assert_eq!(got[0], f32s(&[1, 3], &[2.5, 0.0, 0.5]));

        let zip = ZipMap { classlabels_int64s: vec![4, 1], ..ZipMap::default() };
        let got = zip.evaluate(&[f32s(&[2, 2], &[0.5, 2.5, 1.0, 0.0])]).expect("valid");
        let items = got[0].as_sequence().expect("a sequence");
        assert_eq!((items.len(), &items[0]), (2, &map));
        assert!(zip.evaluate(&[f32s(&[1, 3], &[0.0; 3])]).is_err());
        let empty = zip.evaluate(&[f32s(&[0, 2], &[])]).expect("valid");
        assert!(empty[0].as_sequence().expect("a sequence").is_empty());
    }
}
