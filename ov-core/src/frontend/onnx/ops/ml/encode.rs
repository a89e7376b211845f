//! Features: scaling, imputation, encoding, maps.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult,
};
use crate::{
    model::Value,
    op::{
        Choice, OpError,
        convert::Convert,
        generate::{NegativeIndices, OneHot},
        ml::{CastMap, DictVectorizer, LabelEncoder, MapCast, MapForm, ZipMap},
        normalize_axis,
    },
    tensor::{ElementType, Tensor},
};

/// A choice from the text of an attribute.
pub(super) fn choice<C: Choice + Default>(
    cx: &NodeContext<'_, '_>,
    name: &'static str,
) -> Result<C, ConvertError> {
    let mut choice = C::default();
    if let Some(text) = cx.optional_str(name)?
        && !choice.set_text(text)
    {
        let expected = format!("one of {}", choice.options().join(", "));
        return Err(OpError::Attribute { name, got: text.to_owned(), expected }.into());
    }
    Ok(choice)
}

/// The value converted, unless it is of that type.
pub(super) fn cast(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    to: ElementType,
) -> Result<Value, ConvertError> {
    if cx.element_type(x) == to { Ok(x) } else { cx.add(Convert { destination_type: to }, &[x]) }
}

/// The type that features are computed in: `f64` stays, everything else becomes `f32`.
pub(super) fn compute_type(cx: &NodeContext<'_, '_>, x: Value) -> ElementType {
    if cx.element_type(x) == ElementType::F64 { ElementType::F64 } else { ElementType::F32 }
}

pub(super) fn f32s(values: &[f32]) -> Tensor {
    Tensor::from_vec([values.len()], values.to_vec()).expect("as many as the shape says")
}

pub(super) fn texts(values: Vec<String>) -> Tensor {
    Tensor::from_strings([values.len()], values).expect("as many as the shape says")
}

fn missing(name: &'static str, expected: &str) -> ConvertError {
    OpError::Attribute { name, got: "missing".to_owned(), expected: expected.to_owned() }.into()
}

pub(super) fn array_feature_extractor(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, y) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x)?;
    if rank == 0 {
        return Err(OpError::Invalid("the data have no axis to pick from".to_owned()).into());
    }
    let flat = cx.reshape(y, &[-1])?;
    let picked = cx.compose("Gather", &[x, flat], &[("axis", Attr::Int(rank as i64 - 1))])?;
    // A vector counts as a matrix of one row.
    Ok(vec![if rank == 1 { cx.reshape(picked, &[1, -1])? } else { picked }])
}

pub(super) fn binarizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let mut threshold = f64::from(cx.f32("threshold", 0.0)?);
    if cx.element_type(x).is_integer() {
        threshold = threshold.floor();
    }
    let threshold = cx.scalar_like(threshold, x)?;
    let above = cx.compose("Greater", &[x, threshold], &[])?;
    Ok(vec![cx.compose("CastLike", &[above, x], &[])?])
}

pub(super) fn cast_map(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = CastMap {
        cast_to: choice::<MapCast>(cx, "cast_to")?,
        map_form: choice::<MapForm>(cx, "map_form")?,
        max_map: cx.i64("max_map", 1)?,
    };
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

pub(super) fn dict_vectorizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = DictVectorizer {
        string_vocabulary: cx.optional_strs("string_vocabulary")?.unwrap_or_default(),
        int64_vocabulary: cx.i64s("int64_vocabulary", &[])?,
    };
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

pub(super) fn zip_map(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = ZipMap {
        classlabels_strings: cx.optional_strs("classlabels_strings")?.unwrap_or_default(),
        classlabels_int64s: cx.i64s("classlabels_int64s", &[])?,
    };
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

fn look_up(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    keys: &Tensor,
    values: &Tensor,
    default: Tensor,
    required: bool,
) -> Result<Value, ConvertError> {
    let [keys, values] = LabelEncoder::sorted(keys, values)?;
    let inputs = [x, cx.constant(keys), cx.constant(values), cx.constant(default)];
    cx.add(LabelEncoder { required }, &inputs)
}

/// Texts to numbers or back, by one table: `CategoryMapper`, and `LabelEncoder` of opset 1.
pub(super) fn category_mapper(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let name = if cx.op_type() == "LabelEncoder" { "classes_strings" } else { "cats_strings" };
    let strings = cx.optional_strs(name)?.ok_or_else(|| missing(name, "a list of texts"))?;
    let numbers = match cx.optional_i64s("cats_int64s")? {
        Some(numbers) => Tensor::from_i64s(&numbers),
        None => Tensor::from_i64s(&(0..strings.len() as i64).collect::<Vec<_>>()),
    };
    let strings = texts(strings);
    Ok(vec![if cx.element_type(x) == ElementType::String {
        let default = Tensor::scalar(cx.i64("default_int64", -1)?);
        look_up(cx, x, &strings, &numbers, default, false)?
    } else {
        let default = texts(vec![cx.str("default_string", "_Unused")?.to_owned()]);
        let x = cast(cx, x, ElementType::I64)?;
        look_up(cx, x, &numbers, &strings, default, false)?
    }])
}

/// A list in one of the attributes that may hold it: a tensor, texts, integers or numbers.
fn list(
    cx: &NodeContext<'_, '_>,
    names: [&'static str; 4],
) -> Result<Tensor, ConvertError> {
    let [tensor, strings, ints, floats] = names;
    if let Some(t) = cx.optional_tensor(tensor)? {
        return Ok(t.reshape([t.len()])?);
    }
    if let Some(t) = cx.optional_strs(strings)?.filter(|t| !t.is_empty()) {
        return Ok(texts(t));
    }
    if let Some(t) = cx.optional_i64s(ints)?.filter(|t| !t.is_empty()) {
        return Ok(Tensor::from_i64s(&t));
    }
    let floats_given = cx.optional_f32s(floats)?;
    floats_given.map(|t| f32s(&t)).ok_or_else(|| missing(tensor, "one of the lists to be given"))
}

pub(super) fn label_encoder(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let keys = list(cx, ["keys_tensor", "keys_strings", "keys_int64s", "keys_floats"])?;
    let values = list(cx, ["values_tensor", "values_strings", "values_int64s", "values_floats"])?;
    let default = match (cx.optional_tensor("default_tensor")?, values.element_type()) {
        (Some(default), _) => default.reshape([default.len()])?,
        (None, ElementType::String) => {
            texts(vec![cx.str("default_string", "_Unused")?.to_owned()])
        }
        (None, ty) if ty.is_integer() => Tensor::scalar(cx.i64("default_int64", -1)?).cast(ty)?,
        // The specification's default is negative zero.
        (None, ty) => Tensor::scalar(cx.f32("default_float", -0.0)?).cast(ty)?,
    };
    Ok(vec![look_up(cx, x, &keys, &values, default, false)?])
}

pub(super) fn one_hot_encoder(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let strings = cx.optional_strs("cats_strings")?.unwrap_or_default();
    let (x, keys) = if cx.element_type(x) == ElementType::String {
        (x, texts(strings))
    } else {
        (cast(cx, x, ElementType::I64)?, Tensor::from_i64s(&cx.i64s("cats_int64s", &[])?))
    };
    let count = keys.len() as i64;
    let places = Tensor::from_i64s(&(0..count).collect::<Vec<_>>());
    let required = !cx.bool("zeros", true)?;
    let place = look_up(cx, x, &keys, &places, Tensor::scalar(-1i64), required)?;
    let inputs = [Tensor::scalar(count), Tensor::scalar(1f32), Tensor::scalar(0f32)];
    let [depth, on, off] = inputs.map(|t| cx.constant(t));
    let op = OneHot { axis: -1, negative_indices_mode: NegativeIndices::Ignore };
    Ok(vec![cx.add(op, &[place, depth, on, off])?])
}

pub(super) fn feature_vectorizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let widths = cx.optional_i64s("inputdimensions")?;
    let mut parts = Vec::new();
    for index in 0..cx.input_count() {
        let x = cx.input(index)?;
        let mut x = cast(cx, x, ElementType::F32)?;
        if cx.rank(x)? == 1 {
            x = cx.reshape(x, &[-1, 1])?;
        }
        let Some(width) = widths.as_ref().and_then(|w| w.get(index)).copied() else {
            parts.push(x);
            continue;
        };
        // Features beyond the width are cut off, missing ones are 0.
        let [start, stop, axis] = [[0], [width], [1]].map(|v| cx.i64s_constant(&v));
        let cut = cx.compose("Slice", &[x, start, stop, axis], &[])?;
        parts.push(match cx.shape(cut).dim(1).value() {
            Some(given) if (given as i64) < width => {
                let pads = cx.i64s_constant(&[0, 0, 0, width - given as i64]);
                cx.compose("Pad", &[cut, pads], &[])?
            }
            _ => cut,
        });
    }
    Ok(vec![cx.compose("Concat", &parts, &[("axis", Attr::Int(1))])?])
}

pub(super) fn imputer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let ty = cx.element_type(x);
    let (values, replaced) = match cx.optional_f32s("imputed_value_floats")? {
        Some(values) if !values.is_empty() => {
            (f32s(&values), f64::from(cx.f32("replaced_value_float", 0.0)?))
        }
        _ => {
            let values = cx.i64s("imputed_value_int64s", &[])?;
            (Tensor::from_i64s(&values), cx.i64("replaced_value_int64", 0)? as f64)
        }
    };
    if values.is_empty() {
        return Err(missing("imputed_value_floats", "one value, or one for each feature"));
    }
    let values = cx.constant(values.cast(ty)?);
    let wanted = if replaced.is_nan() {
        cx.compose("IsNaN", &[x], &[])?
    } else {
        let replaced = cx.scalar_like(replaced, x)?;
        cx.compose("Equal", &[x, replaced], &[])?
    };
    Ok(vec![cx.compose("Where", &[wanted, values, x], &[])?])
}

pub(super) fn normalizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let x = cast(cx, x, ElementType::F32)?;
    let axis = normalize_axis(-1, cx.rank(x)?)? as i64;
    let axes = cx.i64s_constant(&[axis]);
    let norm = match cx.str("norm", "MAX")? {
        "MAX" => {
            let size = cx.compose("Abs", &[x], &[])?;
            cx.compose("ReduceMax", &[size, axes], &[])?
        }
        "L1" => cx.compose("ReduceL1", &[x, axes], &[])?,
        "L2" => cx.compose("ReduceL2", &[x, axes], &[])?,
        other => {
            let (got, expected) = (other.to_owned(), "MAX, L1 or L2".to_owned());
            return Err(OpError::Attribute { name: "norm", got, expected }.into());
        }
    };
    // A row of zeros stays as it is.
    let (zero, one) = (cx.scalar_like(0.0, x)?, cx.scalar_like(1.0, x)?);
    let is_zero = cx.compose("Equal", &[norm, zero], &[])?;
    let norm = cx.compose("Where", &[is_zero, one, norm], &[])?;
    Ok(vec![cx.compose("Div", &[x, norm], &[])?])
}

pub(super) fn scaler(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let ty = compute_type(cx, x);
    let mut y = cast(cx, x, ty)?;
    for (name, op) in [("offset", "Sub"), ("scale", "Mul")] {
        if let Some(values) = cx.optional_f32s(name)?.filter(|v| !v.is_empty()) {
            let values = cx.constant(f32s(&values).cast(ty)?);
            y = cx.compose(op, &[y, values], &[])?;
        }
    }
    Ok(vec![cast(cx, y, ElementType::F32)?])
}
