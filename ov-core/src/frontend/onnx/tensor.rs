//! ONNX tensors: `raw_data` is shared with the file, typed fields are narrowed, external data is mapped.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::proto::{SparseTensorProto, TensorProto};
use crate::{
    error::{ReadError, Result},
    io::ExternalFiles,
    tensor::{ElementType, Shape, Tensor},
};

/// ONNX's `TensorProto.DataType` as an element type; 0 is `Dynamic`.
#[must_use]
pub fn element_type(data_type: i32) -> Option<ElementType> {
    Some(match data_type {
        0 => ElementType::Dynamic,
        1 => ElementType::F32,
        2 => ElementType::U8,
        3 => ElementType::I8,
        4 => ElementType::U16,
        5 => ElementType::I16,
        6 => ElementType::I32,
        7 => ElementType::I64,
        8 => ElementType::String,
        9 => ElementType::Boolean,
        10 => ElementType::F16,
        11 => ElementType::F64,
        12 => ElementType::U32,
        13 => ElementType::U64,
        14 => ElementType::Complex64,
        15 => ElementType::Complex128,
        16 => ElementType::Bf16,
        17 => ElementType::F8E4M3,
        18 => ElementType::F8E4M3Fnuz,
        19 => ElementType::F8E5M2,
        20 => ElementType::F8E5M2Fnuz,
        21 => ElementType::U4,
        22 => ElementType::I4,
        23 => ElementType::F4E2M1,
        24 => ElementType::F8E8M0,
        25 => ElementType::U2,
        26 => ElementType::I2,
        _ => return None,
    })
}

fn malformed(name: &str, detail: impl std::fmt::Display) -> ReadError {
    ReadError::Malformed {
        format: "ONNX",
        what: format!("tensor {name:?}"),
        detail: detail.to_string(),
    }
}

/// The shape in `dims`, checked.
fn shape(name: &str, dims: &[i64]) -> Result<Shape> {
    if dims.len() > 64 {
        return Err(malformed(name, format!("rank {} is more than 64", dims.len())).into());
    }
    let shape = dims
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<std::result::Result<Shape, _>>()
        .map_err(|_| malformed(name, format!("shape {dims:?} has a negative extent")))?;
    if shape.checked_len().is_none() {
        return Err(
            malformed(name, format!("shape {shape} is larger than the address space")).into()
        );
    }
    Ok(shape)
}

/// The tensor in `proto`; `raw_data` is shared with the file when its address is aligned.
///
/// # Errors
/// [`ReadError::Malformed`] when type, shape and data contradict each other, [`ReadError::ExternalData`].
pub fn convert(proto: &TensorProto, external: &ExternalFiles) -> Result<Tensor> {
    let name = &proto.name;
    let ty = element_type(proto.data_type)
        .filter(|t| *t != ElementType::Dynamic)
        .ok_or_else(|| malformed(name, format!("data type {} is not known", proto.data_type)))?;
    let shape = shape(name, &proto.dims)?;
    let len = shape.elements();
    let wrong = |what: &str, got: usize, expected: usize| {
        malformed(
            name,
            format!("{what} has {got} elements or bytes, expected {expected} for {ty}{shape}"),
        )
    };
    if ty == ElementType::String {
        if proto.string_data.len() != len {
            return Err(wrong("string_data", proto.string_data.len(), len).into());
        }
        let texts =
            proto.string_data.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        return Tensor::from_strings(shape, texts).map_err(|e| malformed(name, e).into());
    }
    let needed = ty.byte_len(len).ok_or_else(|| malformed(name, "its size overflows"))?;
    let shared = |bytes: Bytes| -> Result<Tensor> {
        if bytes.len() != needed {
            return Err(wrong("raw_data", bytes.len(), needed).into());
        }
        Tensor::from_buffer(ty, shape.clone(), Arc::new(bytes), 0)
            .map_err(|e| malformed(name, e).into())
    };
    if proto.data_location == 1 {
        return shared(external_bytes(proto, external, needed)?);
    }
    if let Some(raw) = &proto.raw_data {
        if proto.float_data.len()
            + proto.int32_data.len()
            + proto.int64_data.len()
            + proto.double_data.len()
            > 0
        {
            return Err(malformed(name, "both raw_data and typed data are given").into());
        }
        return shared(raw.clone());
    }
    let bytes: Vec<u8> = match ty {
        ElementType::F32 | ElementType::Complex64 => {
            bytemuck::cast_slice(&proto.float_data).to_vec()
        }
        ElementType::F64 | ElementType::Complex128 => {
            bytemuck::cast_slice(&proto.double_data).to_vec()
        }
        ElementType::I64 => bytemuck::cast_slice(&proto.int64_data).to_vec(),
        ElementType::U64 => bytemuck::cast_slice(&proto.uint64_data).to_vec(),
        ElementType::U32 => {
            proto.uint64_data.iter().flat_map(|v| (*v as u32).to_ne_bytes()).collect()
        }
        ElementType::I32 => bytemuck::cast_slice(&proto.int32_data).to_vec(),
        _ if ty.bits() == 16 => {
            proto.int32_data.iter().flat_map(|v| (*v as u16).to_ne_bytes()).collect()
        }
        // Sub-byte types hold one packed byte per entry, 8-bit types one element.
        _ => proto.int32_data.iter().map(|v| *v as u8).collect(),
    };
    Tensor::from_bytes(ty, shape.clone(), &bytes)
        .map_err(|_| wrong("typed data", bytes.len(), needed).into())
}

fn external_bytes(proto: &TensorProto, external: &ExternalFiles, needed: usize) -> Result<Bytes> {
    let entry =
        |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").unwrap_or_default();
    let refuse = |detail: String| ReadError::ExternalData {
        tensor: proto.name.clone(),
        location: location.to_owned(),
        detail,
    };
    let number = |key: &str| {
        entry(key)
            .map(|t| {
                t.trim()
                    .parse::<usize>()
                    .map_err(|_| refuse(format!("{key} {t:?} is not a number of bytes")))
            })
            .transpose()
    };
    let offset = number("offset")?.unwrap_or(0);
    let file = external.open(Path::new(location)).map_err(refuse)?;
    let len = match number("length")? {
        Some(len) if len != needed => {
            return Err(refuse(format!("length is {len}, the shape needs {needed} bytes")).into());
        }
        _ => needed,
    };
    if len > file.len() || offset > file.len() - len {
        return Err(refuse(format!(
            "bytes {offset}..{} lie outside the file of {} bytes",
            offset.saturating_add(len),
            file.len()
        ))
        .into());
    }
    Ok(file.slice(offset..offset + len))
}

/// The dense form of a sparse tensor.
///
/// # Errors
/// [`ReadError::Malformed`] when values, indices and shape contradict each other.
pub fn convert_sparse(proto: &SparseTensorProto, external: &ExternalFiles) -> Result<Tensor> {
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err(malformed("", "a sparse tensor lacks values or indices").into());
    };
    let name = values.name.clone();
    let shape = shape(&name, &proto.dims)?;
    let (values, indices) = (convert(values, external)?, convert(indices, external)?);
    let limit = 64usize << 20;
    let size = values.element_type().bits() / 8;
    if size == 0 || shape.elements().saturating_mul(size) > limit {
        return Err(ReadError::Limit {
            what: format!("bytes of the dense form of sparse tensor {name:?}"),
            got: shape.elements().saturating_mul(size) as u64,
            limit: limit as u64,
        }
        .into());
    }
    let at = indices.to_i64_vec().map_err(|e| malformed(&name, e))?;
    let (count, strides) = (values.len(), shape.strides());
    let linear: Vec<i64> = if indices.rank() == 2 && indices.shape()[..] == [count, shape.rank()] {
        at.chunks(shape.rank().max(1))
            .map(|row| row.iter().zip(&strides).map(|(i, s)| i.saturating_mul(*s as i64)).sum())
            .collect()
    } else {
        at
    };
    if linear.len() != count {
        return Err(malformed(&name, format!("{} indices for {count} values", linear.len())).into());
    }
    let mut dense = vec![0u8; shape.elements() * size];
    for (value, index) in values.bytes().chunks_exact(size).zip(linear) {
        let index = usize::try_from(index).ok().filter(|i| *i < shape.elements());
        let index =
            index.ok_or_else(|| malformed(&name, "a sparse index lies outside the shape"))?;
        dense[index * size..][..size].copy_from_slice(value);
    }
    Tensor::from_bytes(values.element_type(), shape, &dense).map_err(|e| malformed(&name, e).into())
}
