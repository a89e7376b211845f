//! Input tensors: from `.npy` files, or seeded values that are valid for the graph.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use ov_core::{
    CompiledModel, Core, ElementType, Model, PortInfo, Shape, Tensor,
    op::convert::{Narrowing, convert_tensor},
};

use crate::{
    args::Feed,
    load::{self, Reference},
    npy,
    rng::Rng,
    roles,
};

/// A tensor for every input of a compiled model.
///
/// # Errors
/// Files that are missing or do not fit; without files, shapes that are not known.
pub(crate) fn tensors(
    core: &Core,
    reference: &Reference,
    compiled: &CompiledModel,
    feed: &Feed,
) -> Result<Vec<Tensor>> {
    if let Some(dir) = &feed.inputs {
        return compiled.inputs().iter().enumerate().map(|(i, p)| from_file(dir, i, p)).collect();
    }
    let needs_graph = compiled.inputs().iter().any(|p| p.element_type.is_integer());
    let model = (needs_graph && !reference.is_blob())
        .then(|| reference.model(core, feed.shape.as_deref()))
        .transpose()?;
    let (fixed, shapes) = match reference {
        Reference::Zoo(entry) => (entry.values, load::parse_shapes(entry.feed)?),
        Reference::File(_) => (&[][..], Vec::new()),
    };
    let mut rng = Rng::new(SEED);
    let mut ports = compiled.inputs().to_vec();
    for port in &mut ports {
        let given = shapes.iter().find(|(name, _)| *name == port.name);
        if let Some(shape) = given.and_then(|(_, shape)| port.shape.intersect(shape)) {
            port.shape = shape;
        }
    }
    (0..ports.len()).map(|i| seeded(&ports, i, model.as_ref(), fixed, &mut rng)).collect()
}

/// The file `<index>.npy` or `<name>.npy` of a port.
pub(crate) fn find_file(dir: &Path, index: usize, name: &str) -> Result<PathBuf> {
    let named: String =
        name.chars().map(|c| if matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let candidates = [format!("{index}.npy"), format!("{named}.npy")];
    let found = candidates.iter().map(|file| dir.join(file)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no file for {name:?}: expected {} in {}", candidates.join(" or "), dir.display())
    })
}

fn from_file(dir: &Path, index: usize, port: &PortInfo) -> Result<Tensor> {
    let path = find_file(dir, index, &port.name)?;
    let tensor = npy::read(&path)?;
    let tensor =
        if port.element_type == ElementType::Bf16 && tensor.element_type() == ElementType::F32 {
            convert_tensor(&tensor, ElementType::Bf16, Narrowing::default())?
        } else {
            tensor
        };
    ensure!(
        port.admits(&tensor),
        "{} holds {}{}, input {:?} expects {}",
        path.display(),
        tensor.element_type(),
        tensor.shape(),
        port.name,
        port.type_text()
    );
    Ok(tensor)
}

fn seeded(
    ports: &[PortInfo],
    index: usize,
    model: Option<&Model>,
    fixed: &[(&str, i64)],
    rng: &mut Rng,
) -> Result<Tensor> {
    let port = &ports[index];
    let shape = concrete(port)?;
    let fixed = fixed.iter().find(|(name, _)| *name == port.name).map(|(_, value)| *value);
    let len = shape.elements();
    let from_f64 = |values: Vec<f64>| -> Result<Tensor> {
        let wide = Tensor::from_vec(shape.clone(), values)?;
        Ok(convert_tensor(&wide, port.element_type, Narrowing::default())?)
    };
    match port.element_type {
        ElementType::Boolean => Ok(Tensor::from_bools(shape, &vec![true; len])?),
        ElementType::String => Ok(Tensor::from_strings(shape, vec!["text".to_owned(); len])?),
        ElementType::F32 => {
            let values: Vec<f32> = (0..len).map(|_| rng.symmetric()).collect();
            Ok(Tensor::from_vec(shape, values)?)
        }
        t if t.is_float() => from_f64((0..len).map(|_| f64::from(rng.symmetric())).collect()),
        t if t.is_integer() => {
            let role = roles::of_input(model, ports, index);
            from_f64((0..len).map(|_| fixed.unwrap_or_else(|| role.value(rng)) as f64).collect())
        }
        t => bail!("input {:?} of type {t} has no seeded values, give --inputs", port.name),
    }
}

/// The shape of seeded values: an open leading dimension is a batch of 1, other open ones must be given.
fn concrete(port: &PortInfo) -> Result<Shape> {
    let hint = || {
        let dims: Vec<String> = port
            .shape
            .dims()
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(|(axis, d)| {
                d.value().map_or_else(|| EXAMPLE[axis.min(3)].to_owned(), |v| v.to_string())
            })
            .collect();
        format!(
            "input {:?} is {}: give its shape, as --shape \"{}[{}]\", or values with --inputs",
            port.name,
            port.type_text(),
            port.name,
            dims.join(",")
        )
    };
    let dims = port.shape.dims().with_context(hint)?;
    let extent = |(axis, dim): (usize, &ov_core::Dimension)| match dim.value() {
        Some(value) => Some(value),
        None if axis == 0 => Some(dim.min().max(1)),
        None => None,
    };
    dims.iter().enumerate().map(extent).collect::<Option<Shape>>().with_context(hint)
}

/// Writes each output as `<index>.npy`.
///
/// # Errors
/// When the folder or a file cannot be written.
pub(crate) fn write_outputs(dir: &Path, outputs: &[Tensor]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    for (i, tensor) in outputs.iter().enumerate() {
        npy::write(&dir.join(format!("{i}.npy")), tensor)?;
    }
    Ok(())
}

const SEED: u64 = 2026;

/// Extents for the example in an error.
const EXAMPLE: [&str; 4] = ["1", "3", "224", "224"];

#[cfg(test)]
mod tests {
    use ov_core::{Dimension, PartialShape};

    use super::*;

    fn port(element_type: ElementType, dims: &[Dimension]) -> PortInfo {
        PortInfo { name: "x".to_owned(), element_type, shape: PartialShape::new(dims) }
    }

    #[test]
    fn only_a_leading_dimension_is_guessed() {
        let open = Dimension::bounded(0, None);
        let shape = |dims: &[Dimension]| concrete(&port(ElementType::F32, dims));
        assert_eq!(shape(&[open, 3.into()]).unwrap().to_string(), "[1,3]");
        assert_eq!(shape(&[Dimension::bounded(4, None)]).unwrap().to_string(), "[4]");
        let error = shape(&[1.into(), 3.into(), open, open]).unwrap_err().to_string();
        assert!(error.contains("--shape \"x[1,3,224,224]\""), "{error}");
    }

    #[test]
    fn every_numeric_type_gets_values() {
        let mut rng = Rng::new(0);
        for element_type in [
            ElementType::F32,
            ElementType::F64,
            ElementType::F16,
            ElementType::Bf16,
            ElementType::I8,
            ElementType::U8,
            ElementType::I64,
            ElementType::Boolean,
        ] {
            let ports = [port(element_type, &[2.into(), 5.into()])];
            let tensor = seeded(&ports, 0, None, &[], &mut rng).unwrap();
            assert_eq!((tensor.element_type(), tensor.len()), (element_type, 10));
        }
        let ports = [port(ElementType::I64, &[])];
        let tensor = seeded(&ports, 0, None, &[("x", 16000)], &mut rng).unwrap();
        assert_eq!(tensor.as_slice::<i64>().unwrap(), [16000]);
    }

    #[test]
    fn files_are_found_by_index_or_name() {
        let dir = tempfile::tempdir().unwrap();
        let tensor = Tensor::from_i64s(&[1, 2]);
        for name in ["0.npy", "a_b.npy"] {
            npy::write(&dir.path().join(name), &tensor).unwrap();
        }
        assert!(find_file(dir.path(), 0, "x").is_ok());
        assert!(find_file(dir.path(), 1, "a/b").is_ok());
        let error = find_file(dir.path(), 1, "x").unwrap_err().to_string();
        assert!(error.contains("1.npy or x.npy"), "{error}");
        let wrong = port(ElementType::F32, &[2.into()]);
        let error = from_file(dir.path(), 0, &wrong).unwrap_err().to_string();
        assert!(error.contains("holds i64[2], input \"x\" expects f32[2]"), "{error}");
    }
}
