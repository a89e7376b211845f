//! Values that are not tensors in files of test data: sequences, maps and optionals.

use bytes::Bytes;
use prost::Message as _;

use super::{
    proto::{MapProto, OptionalProto, SequenceProto, TensorProto, TypeKind, TypeProto},
    tensor,
};
use crate::{
    error::{ReadError, Result},
    io::ExternalFiles,
    tensor::Tensor,
};

fn malformed(what: &str, detail: impl std::fmt::Display) -> ReadError {
    ReadError::Malformed { format: "ONNX", what: what.to_owned(), detail: detail.to_string() }
}

/// The value in the bytes of a message of the kind that `ty` says, a tensor when `ty` is not known.
///
/// # Errors
/// [`ReadError`] when the bytes are damaged.
pub fn read_value(bytes: Bytes, ty: Option<&TypeProto>) -> Result<Tensor> {
    fn decode<M: prost::Message + Default>(bytes: Bytes) -> Result<M> {
        M::decode(bytes).map_err(|e| malformed("a value", e).into())
    }
    match ty.and_then(|t| t.value.as_ref()) {
        Some(TypeKind::Sequence(_)) => sequence(&decode::<SequenceProto>(bytes)?),
        Some(TypeKind::Optional(inner)) => {
            // Files hold an optional's value either wrapped or bare; the kind of element tells which.
            let inner = inner.elem_type.as_deref();
            let is_sequence =
                matches!(inner.and_then(|t| t.value.as_ref()), Some(TypeKind::Sequence(_)));
            let wrapped = OptionalProto::decode(bytes.clone()).ok().filter(|o| {
                if is_sequence {
                    o.elem_type == 3 && o.sequence_value.is_some()
                } else {
                    o.elem_type == 1 && o.tensor_value.is_some()
                }
            });
            match wrapped {
                Some(wrapped) => optional(&wrapped),
                None if bytes.is_empty() => Ok(Tensor::absent()),
                None => read_value(bytes.clone(), inner).or_else(|e| {
                    let empty = OptionalProto::decode(bytes)
                        .is_ok_and(|o| optional(&o).is_ok_and(|v| v.is_absent()));
                    if empty { Ok(Tensor::absent()) } else { Err(e) }
                }),
            }
        }
        Some(TypeKind::Map(_)) => map(&decode::<MapProto>(bytes)?),
        _ => one(&decode::<TensorProto>(bytes)?),
    }
}

fn one(proto: &TensorProto) -> Result<Tensor> {
    tensor::convert(proto, &ExternalFiles::none())
}

fn sequence(proto: &SequenceProto) -> Result<Tensor> {
    let items: Result<Vec<Tensor>> = match proto.elem_type {
        3 => proto.sequence_values.iter().map(sequence).collect(),
        4 => proto.map_values.iter().map(map).collect(),
        5 => proto.optional_values.iter().map(optional).collect(),
        _ => proto.tensor_values.iter().map(one).collect(),
    };
    Ok(Tensor::from_sequence(items?))
}

fn optional(proto: &OptionalProto) -> Result<Tensor> {
    match (&proto.tensor_value, &proto.sequence_value, &proto.map_value, &proto.optional_value) {
        (Some(t), ..) => one(t),
        (_, Some(s), ..) => sequence(s),
        (_, _, Some(m), _) => map(m),
        (_, _, _, Some(o)) => optional(o),
        _ => Ok(Tensor::absent()),
    }
}

fn map(proto: &MapProto) -> Result<Tensor> {
    let wrong = |e: crate::tensor::TensorError| malformed("a map", e);
    let keys = if proto.string_keys.is_empty() {
        Tensor::from_i64s(&proto.keys)
    } else {
        let texts: Vec<String> =
            proto.string_keys.iter().map(|k| String::from_utf8_lossy(k).into_owned()).collect();
        Tensor::from_strings([texts.len()], texts).map_err(wrong)?
    };
    let values = proto.values.as_ref().map_or(&[][..], |v| &v.tensor_values);
    let values = values.iter().map(one).collect::<Result<Vec<_>>>()?;
    let mut flat = Vec::with_capacity(values.len());
    for value in &values {
        flat.push(value.reshape([1]).map_err(wrong)?);
    }
    let values = match flat.len() {
        0 => Tensor::zeros(crate::ElementType::F32, [0]).map_err(wrong)?,
        _ => crate::op::control_flow::concat_axis(&flat, 0).map_err(|e| malformed("a map", e))?,
    };
    Tensor::from_map(keys, values).map_err(|e| wrong(e).into())
}
