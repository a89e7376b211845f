//! Tensors in `NumPy`'s `.npy` files: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context, Result, bail, ensure};
use ov_core::{
    ElementType, Shape, Tensor,
    op::convert::{Narrowing, convert_tensor},
};

/// Reads a file of version 1 to 3, little-endian and in C order.
///
/// # Errors
/// When the file cannot be read or is not such a file; the text names the file.
pub(crate) fn read(path: &Path) -> Result<Tensor> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode(&bytes).with_context(|| format!("{} is not usable as .npy", path.display()))
}

/// Writes a tensor as version 1. Types that `NumPy` lacks become the next larger one that it has: bf16 and f8 become f32,
/// 4-bit integers 8-bit ones.
///
/// # Errors
/// When the file cannot be written, or for texts.
pub(crate) fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    let bytes = encode(tensor).with_context(|| format!("cannot write {}", path.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn decode(bytes: &[u8]) -> Result<Tensor> {
    let rest = bytes.strip_prefix(MAGIC).context("it does not start with \\x93NUMPY")?;
    let (version, rest) = rest.split_first_chunk::<2>().context("it ends before its version")?;
    let short = "it ends within its header";
    let (header_len, rest) = match version {
        [1, 0] => {
            let (len, rest) = rest.split_first_chunk::<2>().context(short)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        [2 | 3, 0] => {
            let (len, rest) = rest.split_first_chunk::<4>().context(short)?;
            (usize::try_from(u32::from_le_bytes(*len))?, rest)
        }
        [major, minor] => bail!("version {major}.{minor} is not known, expected 1.0 to 3.0"),
    };
    let (header, data) = rest.split_at_checked(header_len).context(short)?;
    let header = std::str::from_utf8(header).context("its header is not text")?;
    ensure!(
        value_of(header, "fortran_order")?.starts_with("False"),
        "it is in Fortran order; save it with numpy.ascontiguousarray"
    );
    let descr = value_of(header, "descr")?;
    let descr = descr
        .strip_prefix('\'')
        .and_then(|d| d.split_once('\''))
        .context("its element type is not a plain one")?
        .0;
    let Some((_, element_type)) = TYPES.iter().find(|(text, _)| *text == descr) else {
        let known: Vec<&str> = TYPES.iter().map(|(text, _)| *text).collect();
        bail!("element type {descr:?} is not known, expected one of {}", known.join(" "));
    };
    let shape = parse_shape(value_of(header, "shape")?)?;
    let expected = shape
        .checked_len()
        .and_then(|len| element_type.byte_len(len))
        .with_context(|| format!("shape {shape} is larger than the address space"))?;
    ensure!(
        data.len() == expected,
        "shape {shape} of {element_type} needs {expected} bytes, it has {}",
        data.len()
    );
    if *element_type == ElementType::Boolean {
        let values: Vec<bool> = data.iter().map(|b| *b != 0).collect();
        return Ok(Tensor::from_bools(shape, &values)?);
    }
    Ok(Tensor::from_bytes(*element_type, shape, data)?)
}

/// What follows a key of the header's dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let quoted = format!("'{key}':");
    header
        .split_once(&quoted)
        .map(|(_, rest)| rest.trim_start())
        .with_context(|| format!("its header has no {key:?}"))
}

/// A tuple: `()`, `(3,)`, `(2, 3)`.
fn parse_shape(text: &str) -> Result<Shape> {
    let inner = text.strip_prefix('(').and_then(|t| t.split_once(')')).context("no shape")?.0;
    inner
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| t.parse().with_context(|| format!("extent {t:?} is not a number")))
        .collect()
}

fn encode(tensor: &Tensor) -> Result<Vec<u8>> {
    let stored = match tensor.element_type() {
        t if TYPES.iter().any(|(_, known)| *known == t) => t,
        ElementType::I2 | ElementType::I4 => ElementType::I8,
        ElementType::U1 | ElementType::U2 | ElementType::U4 => ElementType::U8,
        t if t.is_float() => ElementType::F32,
        t => bail!("{t} has no form in .npy"),
    };
    let tensor = if stored == tensor.element_type() {
        tensor.to_contiguous()
    } else {
        convert_tensor(tensor, stored, Narrowing::default())?
    };
    let descr = TYPES.iter().find(|(_, t)| *t == stored).map_or("", |(text, _)| text);
    let mut shape: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    shape.truncate(shape.len().saturating_sub(if tensor.rank() == 1 { 1 } else { 2 }));
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(u16::try_from(header.len())?.to_le_bytes());
    bytes.write_all(header.as_bytes())?;
    bytes.extend(tensor.bytes());
    Ok(bytes)
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// The data starts at a multiple of this.
const ALIGNMENT: usize = 64;

/// Spellings of `NumPy`; the first of a type is the one that is written.
const TYPES: &[(&str, ElementType)] = &[
    ("<f4", ElementType::F32),
    ("<f8", ElementType::F64),
    ("<f2", ElementType::F16),
    ("|i1", ElementType::I8),
    ("<i1", ElementType::I8),
    ("<i2", ElementType::I16),
    ("<i4", ElementType::I32),
    ("<i8", ElementType::I64),
    ("|u1", ElementType::U8),
    ("<u1", ElementType::U8),
    ("<u2", ElementType::U16),
    ("<u4", ElementType::U32),
    ("<u8", ElementType::U64),
    ("|b1", ElementType::Boolean),
    ("<c8", ElementType::Complex64),
    ("<c16", ElementType::Complex128),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: [u8; 2], header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(version);
        if version[0] == 1 {
            bytes.extend((header.len() as u16).to_le_bytes());
        } else {
            bytes.extend((header.len() as u32).to_le_bytes());
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_type_survives_a_round_trip() {
        for (_, element_type) in TYPES {
            for shape in [&[][..], &[0], &[3], &[1, 1], &[2, 0, 5], &[2, 3, 4]] {
                let shape = Shape::from(shape);
                let len = element_type.byte_len(shape.elements()).unwrap();
                let bytes: Vec<u8> = (0..len).map(|i| (i % 2) as u8).collect();
                let tensor = Tensor::from_bytes(*element_type, shape, &bytes).unwrap();
                let encoded = encode(&tensor).unwrap();
                assert_eq!((encoded.len() - bytes.len()) % ALIGNMENT, 0);
                let back = decode(&encoded).unwrap();
                assert_eq!(back.element_type(), *element_type);
                assert_eq!(back.shape(), tensor.shape());
                assert_eq!(back.bytes(), tensor.bytes());
            }
        }
    }

    #[test]
    fn reads_what_numpy_writes() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }      \n";
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        for version in [[1, 0], [2, 0], [3, 0]] {
            let tensor = decode(&file(version, header, &data)).unwrap();
            assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.5, -2.0]);
        }
        let scalar = "{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n";
        assert_eq!(decode(&file([1, 0], scalar, &[7])).unwrap().bytes(), [1]);
    }

    #[test]
    fn types_that_numpy_lacks_are_widened() {
        let tensor =
            Tensor::from_vec(Shape::new(&[2]), vec![ov_core::half::bf16::from_f32(1.5); 2])
                .unwrap();
        let back = decode(&encode(&tensor).unwrap()).unwrap();
        assert_eq!(back.as_slice::<f32>().unwrap(), [1.5, 1.5]);
        let texts = Tensor::from_strings(Shape::new(&[1]), vec!["a".to_owned()]).unwrap();
        assert!(encode(&texts).is_err());
    }

    #[test]
    fn damaged_files_are_refused_with_a_reason() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        for (bytes, expected) in [
            (b"PK\x03\x04".to_vec(), "does not start"),
            (MAGIC.to_vec(), "before its version"),
            (file([9, 0], good, &[0; 8]), "version 9.0"),
            (file([1, 0], good, &[0; 7]), "needs 8 bytes, it has 7"),
            (file([1, 0], good, &[0; 9]), "needs 8 bytes, it has 9"),
            (file([1, 0], &good.replace("False", "True"), &[0; 8]), "Fortran"),
            (file([1, 0], &good.replace("<f4", ">f4"), &[0; 8]), "\">f4\" is not known"),
            (file([1, 0], &good.replace("shape", "shap"), &[0; 8]), "no \"shape\""),
            (file([1, 0], &good.replace("(2,)", "(x,)"), &[0; 8]), "\"x\" is not a number"),
            (file([1, 0], &good.replace("(2,)", "(-2,)"), &[0; 8]), "\"-2\" is not a number"),
            (
                file([1, 0], &good.replace("(2,)", "(99999999999, 99999999999)"), &[0; 8]),
                "larger than the address space",
            ),
            (file([2, 0], good, &[])[..14].to_vec(), "within its header"),
        ] {
            let error = format!("{:#}", decode(&bytes).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
