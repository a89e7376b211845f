//! A program from bytes that are not trusted: every index, range and name is checked.

use ov_core::{
    Model,
    error::{BlobError, Result},
    op::OutputType,
};

use super::{
    Constant, NodeDesc, Port, Program, ValueDesc, ValueId,
    codec::{AttributeReader, Reader},
    encode::tags,
};
use crate::{nodes, ops};

/// Bodies inside bodies.
const MAX_DEPTH: usize = 64;

/// Reads a program whose weights section has `weights` bytes.
///
/// # Errors
/// [`BlobError`] when the bytes are damaged or name an operator or kernel that this build does not have.
pub fn decode(bytes: &[u8], weights: usize) -> Result<Program> {
    let mut r = Reader::new(bytes);
    let version = r.u32()?;
    if version != tags::VERSION {
        return Err(BlobError::Incompatible {
            made_for: format!("program version {version}"),
            here: format!("program version {}", tags::VERSION),
        }
        .into());
    }
    let program = read_program(&mut r, weights, 0)?;
    r.finish()?;
    Ok(program)
}

fn read_program(r: &mut Reader<'_>, weights: usize, depth: usize) -> Result<Program> {
    if depth > MAX_DEPTH {
        return r.fail("bodies that are not nested so deep");
    }
    let name = r.text()?.to_owned();
    let values = (0..r.len(12)?)
        .map(|_| {
            let (element_type, shape) = (r.element_type()?, r.shape()?);
            let constant = match r.u32()? {
                tags::NO => Constant::No,
                tags::STORED => {
                    let range = r.range(weights)?;
                    let needed =
                        shape.to_shape().and_then(|s| element_type.byte_len(s.checked_len()?));
                    if needed != Some(range.len()) || range.start % 64 != 0 {
                        return r.fail("a stored constant of the size of its shape");
                    }
                    Constant::Stored(range)
                }
                tags::HELD => Constant::Held(r.tensor()?),
                tags::PACKED => Constant::Packed,
                _ => return r.fail("a kind of constant"),
            };
            Ok(ValueDesc { element_type, shape, constant })
        })
        .collect::<Result<Vec<_>>>()?;
    let count = values.len();
    let id = |r: &mut Reader<'_>| -> Result<ValueId> {
        let id = r.u32()?;
        if (id as usize) < count { Ok(id) } else { r.fail("a value of this program") }
    };
    let ports = |r: &mut Reader<'_>| -> Result<Vec<Port>> {
        (0..r.len(8)?).map(|_| Ok(Port { name: r.text()?.to_owned(), value: id(r)? })).collect()
    };
    let (inputs, outputs) = (ports(r)?, ports(r)?);
    let mut made: Vec<bool> = values.iter().map(|v| !matches!(v.constant, Constant::No)).collect();
    for p in &inputs {
        made[p.value as usize] = true;
    }
    let mut nodes = Vec::new();
    for _ in 0..r.len(32)? {
        let node = read_node(r, weights, depth, &id)?;
        if let Some(missing) = node.inputs.iter().find(|v| !made[**v as usize]) {
            return r.fail(&format!("value {missing} to be made before {:?} reads it", node.name));
        }
        for v in &node.outputs {
            if std::mem::replace(&mut made[*v as usize], true) {
                return r.fail(&format!("value {v} to be made once"));
            }
        }
        nodes.push(node);
    }
    if outputs.iter().any(|p| !made[p.value as usize]) {
        return r.fail("every output to be made");
    }
    Ok(Program { name, values, inputs, outputs, nodes })
}

fn read_node(
    r: &mut Reader<'_>,
    weights: usize,
    depth: usize,
    id: &impl Fn(&mut Reader<'_>) -> Result<ValueId>,
) -> Result<NodeDesc> {
    let (kind, opset) = (r.text()?, r.u32()?);
    let Some(mut op) = ops::create(kind, opset) else {
        return r.fail(&format!("an operator of this build, got {kind} of opset {opset}"));
    };
    let kernel_name = r.text()?;
    let Some(kernel) = nodes::by_name(kernel_name) else {
        return r.fail(&format!("a kernel of this build, got {kernel_name:?}"));
    };
    let name = r.text()?.to_owned();
    let bodies =
        (0..r.len(16)?).map(|_| read_program(r, weights, depth + 1)).collect::<Result<Vec<_>>>()?;
    let signatures = bodies.iter().map(signature).collect::<Result<Vec<_>>>()?.into_iter();
    let visited = op.visit_attributes(&mut AttributeReader { reader: r, bodies: signatures });
    if let Err(e) = visited {
        return r.fail(&format!("attributes of {kind} {name:?}: {e}"));
    }
    let ids =
        |r: &mut Reader<'_>| -> Result<Vec<ValueId>> { (0..r.len(4)?).map(|_| id(r)).collect() };
    let (inputs, outputs) = (ids(r)?, ids(r)?);
    let params = (0..r.len(8)?).map(|_| Ok(r.u64()? as i64)).collect::<Result<_>>()?;
    let packed = (0..r.len(16)?).map(|_| r.range(weights)).collect::<Result<_>>()?;
    Ok(NodeDesc { op, kernel, name, inputs, outputs, params, packed, bodies })
}

/// What an operator may know of its body once it has been compiled.
fn signature(program: &Program) -> Result<Model> {
    let types = |ports: &[Port]| -> Vec<OutputType> {
        ports
            .iter()
            .map(|p| &program.values[p.value as usize])
            .map(|v| OutputType::new(v.element_type, v.shape.clone()))
            .collect()
    };
    Model::signature(&program.name, &types(&program.inputs), &types(&program.outputs))
}
