//! What integer inputs mean, from how the graph uses them, so that seeded values are valid.

use ov_core::{
    ElementType, Model, PortInfo, Tensor,
    model::{NodeId, Value},
    op::convert::to_f64,
};

use crate::rng::Rng;

/// The values that suit an integer input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Indices below a bound.
    Index(u64),
    /// One value only: a mask, a length, a constant that the graph compares with.
    Only(i64),
    /// Small numbers from 0.
    Number(u64),
}

impl Role {
    /// A value of this role.
    pub(crate) fn value(self, rng: &mut Rng) -> i64 {
        match self {
            Self::Index(bound) | Self::Number(bound) => rng.below(bound).cast_signed(),
            Self::Only(value) => value,
        }
    }
}

/// The role of input `index`; without a graph (a compiled blob) from its type and name alone.
pub(crate) fn of_input(model: Option<&Model>, ports: &[PortInfo], index: usize) -> Role {
    let port = &ports[index];
    let name = port.name.to_lowercase();
    if let Some(model) = model
        && let Some(role) = from_uses(model, model.parameters()[index])
    {
        return role;
    }
    if name.contains("mask") {
        return Role::Only(1);
    }
    if name.contains("length") || name.ends_with("_len") || name.ends_with("lens") {
        return Role::Only(longest(ports, index));
    }
    match (port.element_type, model) {
        (ElementType::U8, _) => Role::Number(256),
        (ElementType::I8, _) => Role::Number(128),
        (_, Some(_)) if port.shape.rank().is_some_and(|r| r > 0) => Role::Number(2),
        (_, Some(_)) => Role::Only(1),
        (_, None) => Role::Only(0),
    }
}

/// Follows the input through operators that keep its values to those that say what it is.
fn from_uses(model: &Model, parameter: NodeId) -> Option<Role> {
    let mut bound: Option<u64> = None;
    let mut only = None;
    let mut seen = vec![parameter];
    let mut values: Vec<Value> = vec![parameter.into()];
    while let Some(value) = values.pop() {
        for (user, input) in model.uses(value) {
            let node = model.node(user);
            let shape_of = |i: usize| node.inputs().get(i).map(|v| model.shape(*v));
            match (node.op().kind().name, input) {
                ("Gather" | "GatherElements", 1) => {
                    let axis = gathered_axis(model, user);
                    let extent = shape_of(0).and_then(|s| {
                        let rank = i64::try_from(s.rank()?).ok()?;
                        let axis = axis?;
                        let axis = if axis < 0 { axis + rank } else { axis };
                        s.dims()?.get(usize::try_from(axis).ok()?)?.value()
                    });
                    let extent = extent.map_or(1, |e| e as u64);
                    bound = Some(bound.map_or(extent, |b| b.min(extent)));
                }
                ("GatherND" | "ScatterNDUpdate" | "OneHot", _) => bound = bound.or(Some(1)),
                ("Equal", _) => {
                    let other = node.inputs()[1 - input as usize % 2];
                    only = only.or_else(|| single(model.constant(other)?));
                }
                ("LSTMSequence" | "GRUSequence" | "RNNSequence", i) if i > 1 => {
                    let steps = shape_of(0).and_then(|s| s.dims()?.get(1)?.value());
                    only = only.or_else(|| steps.and_then(|s| i64::try_from(s).ok()));
                }
                (
                    "Convert" | "Reshape" | "Squeeze" | "Unsqueeze" | "Slice" | "StridedSlice"
                    | "Transpose" | "Concat" | "Broadcast" | "Tile" | "Gather",
                    0,
                ) if !seen.contains(&user) => {
                    seen.push(user);
                    values.push(user.into());
                }
                _ => {}
            }
        }
    }
    bound.map(Role::Index).or_else(|| only.map(Role::Only))
}

/// The axis of a Gather (its third input) or a `GatherElements` (its attribute).
fn gathered_axis(model: &Model, id: NodeId) -> Option<i64> {
    let node = model.node(id);
    match node.inputs().get(2) {
        Some(axis) => single(model.constant(*axis)?),
        None => node
            .op()
            .attributes_text()
            .split(|c: char| c == ',' || c.is_whitespace())
            .find_map(|part| part.strip_prefix("axis=")?.parse().ok()),
    }
}

fn single(tensor: &Tensor) -> Option<i64> {
    match to_f64(tensor).ok()?[..] {
        [value] => Some(value as i64),
        _ => None,
    }
}

/// The extent that a length may have: the second dimension of any other input.
fn longest(ports: &[PortInfo], index: usize) -> i64 {
    ports
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != index)
        .filter_map(|(_, p)| p.shape.dims()?.get(1)?.value())
        .max()
        .and_then(|extent| i64::try_from(extent).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use ov_core::{Core, ReadOptions};

    use super::*;
    use crate::zoo;

    fn roles(name: &str) -> Vec<Role> {
        let core = Core::with_plugins([]).unwrap();
        let bytes = zoo::find(name).unwrap().onnx();
        let model = core.read_model_from_bytes(bytes, &ReadOptions::default()).unwrap();
        let ports = PortInfo::inputs_of(&model);
        (0..ports.len())
            .filter(|i| ports[*i].element_type.is_integer())
            .map(|i| of_input(Some(&model), &ports, i))
            .collect()
    }

    #[test]
    fn token_indices_stay_below_their_tables() {
        assert_eq!(roles("minilm"), [Role::Index(30522), Role::Only(1), Role::Index(2)]);
    }

    #[test]
    fn a_number_that_is_compared_gets_the_constant() {
        assert_eq!(roles("silero-vad-v6"), [Role::Only(16000)]);
    }

    #[test]
    fn names_speak_where_the_graph_does_not() {
        let port = |name: &str, dims: &[usize]| PortInfo {
            name: name.to_owned(),
            element_type: ElementType::I64,
            shape: ov_core::Shape::new(dims).into(),
        };
        let ports =
            [port("x", &[1, 80]), port("attention_mask", &[1, 80]), port("x_lengths", &[1])];
        let roles: Vec<Role> = (0..3).map(|i| of_input(None, &ports, i)).collect();
        assert_eq!(roles, [Role::Only(0), Role::Only(1), Role::Only(80)]);
    }
}
