//! A program from bytes that are not trusted: every index, range and name is checked.

use crate::{
    Model,
    blob::Decoder,
    error::{BlobError, Result},
    op::{OpEntry, OutputType, fused},
};

use super::{
    Constant, Kernel, NodeDesc, Port, Program, TENSOR_ALIGNMENT, ValueDesc, ValueId, encode::tags,
};

/// Bodies inside bodies.
const MAX_DEPTH: usize = 64;

/// What names stand for.
struct Tables<K> {
    ops: Vec<&'static OpEntry>,
    kernels: Vec<K>,
}

/// Reads a program whose weights section has `weights` bytes.
///
/// # Errors
/// [`BlobError`] when the bytes are damaged or name an operator or kernel that this build does not have.
pub fn decode<K: Kernel>(bytes: &[u8], weights: usize) -> Result<Program<K>> {
    let mut d = Decoder::new(bytes);
    let version = d.u32()?;
    if version != tags::VERSION {
        return Err(BlobError::Incompatible {
            made_for: format!("program version {version}"),
            here: format!("program version {}", tags::VERSION),
        }
        .into());
    }
    let ops = d.list(|d| {
        let (kind, opset) = (d.text()?, d.u32()?);
        match fused::find(kind, opset) {
            Some(entry) => Ok(entry),
            None => {
                d.fail(format_args!("an operator of this build, got {kind:?} of opset {opset}"))
            }
        }
    })?;
    let kernels = d.list(|d| {
        let name = d.text()?;
        match K::by_name(name) {
            Some(kernel) => Ok(kernel),
            None => d.fail(format_args!("a kernel of this build, got {name:?}")),
        }
    })?;
    let program = read_program(&mut d, &Tables { ops, kernels }, weights, 0)?;
    d.end()?;
    Ok(program)
}

fn read_program<K: Kernel>(
    d: &mut Decoder<'_>,
    tables: &Tables<K>,
    weights: usize,
    depth: usize,
) -> Result<Program<K>> {
    if depth > MAX_DEPTH {
        return d.fail("bodies that are not nested so deep");
    }
    let name = d.text()?.to_owned();
    let values = d.list(|d| read_value(d, weights))?;
    let count = values.len();
    let id = |d: &mut Decoder<'_>| -> Result<ValueId> {
        let id = d.u32()?;
        if (id as usize) < count { Ok(id) } else { d.fail("a value of this program") }
    };
    let ports = |d: &mut Decoder<'_>| -> Result<Vec<Port>> {
        d.list(|d| Ok(Port { name: d.text()?.to_owned(), value: id(d)? }))
    };
    let (inputs, outputs) = (ports(d)?, ports(d)?);
    let mut made: Vec<bool> = values.iter().map(|v| !matches!(v.constant, Constant::No)).collect();
    for p in &inputs {
        made[p.value as usize] = true;
    }
    let nodes = d.list(|d| {
        let node = read_node(d, tables, weights, depth, &id)?;
        if let Some(missing) = node.inputs.iter().find(|v| !made[**v as usize]) {
            let name = &node.name;
            return d.fail(format_args!("value {missing} to be made before {name:?} reads it"));
        }
        for v in &node.outputs {
            if std::mem::replace(&mut made[*v as usize], true) {
                return d.fail(format_args!("value {v} to be made once"));
            }
        }
        Ok(node)
    })?;
    if outputs.iter().any(|p| !made[p.value as usize]) {
        return d.fail("every output to be made");
    }
    Ok(Program { name, values, inputs, outputs, nodes })
}

fn read_value(d: &mut Decoder<'_>, weights: usize) -> Result<ValueDesc> {
    let (element_type, shape) = (d.element_type()?, d.partial_shape()?);
    let constant = match d.u8()? {
        tags::NO => Constant::No,
        tags::STORED => {
            let range = d.range(weights)?;
            let needed = shape.to_shape().and_then(|s| element_type.byte_len(s.checked_len()?));
            if needed != Some(range.len()) || range.start % TENSOR_ALIGNMENT != 0 {
                return d.fail("a stored constant of the size of its shape");
            }
            Constant::Stored(range)
        }
        tags::HELD => Constant::Held(d.tensor()?),
        tags::PACKED => Constant::Packed,
        _ => return d.fail("a kind of constant"),
    };
    Ok(ValueDesc { element_type, shape, constant })
}

fn read_node<K: Kernel>(
    d: &mut Decoder<'_>,
    tables: &Tables<K>,
    weights: usize,
    depth: usize,
    id: &impl Fn(&mut Decoder<'_>) -> Result<ValueId>,
) -> Result<NodeDesc<K>> {
    let (op, kernel) = (d.u32()? as usize, d.u32()? as usize);
    let (Some(op), Some(kernel)) = (tables.ops.get(op), tables.kernels.get(kernel).copied()) else {
        return d.fail("an operator and a kernel of the tables");
    };
    if !kernel.takes(op.kind) {
        return d.fail(format_args!("a kernel for {}, got {}", op.kind, kernel.name()));
    }
    let mut op = (op.create)();
    let name = d.text()?.to_owned();
    let bodies = d.list(|d| read_program(d, tables, weights, depth + 1))?;
    let signatures = bodies.iter().map(signature).collect::<Result<Vec<_>>>()?;
    d.attributes(&mut *op, signatures)?;
    let ids = |d: &mut Decoder<'_>| -> Result<Vec<ValueId>> { d.list(|d| id(d)) };
    let (inputs, outputs) = (ids(d)?, ids(d)?);
    let params = d.list(Decoder::i64)?;
    let packed = d.list(|d| d.range(weights))?;
    Ok(NodeDesc { op, kernel, name, inputs, outputs, params, packed, bodies })
}

/// What an operator may know of its body once it has been compiled.
fn signature<K>(program: &Program<K>) -> Result<Model> {
    let types = |ports: &[Port]| -> Vec<OutputType> {
        ports
            .iter()
            .map(|p| &program.values[p.value as usize])
            .map(|v| OutputType::new(v.element_type, v.shape.clone()))
            .collect()
    };
    Model::signature(&program.name, &types(&program.inputs), &types(&program.outputs))
}
