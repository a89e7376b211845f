//! Layers and edges become nodes.

use std::collections::HashMap;

use roxmltree::Node;

use super::{MAX_DEPTH, Source, bodies::Extra, variables::Variables};
use crate::{
    error::{ReadError, Result},
    model::{Model, Value},
    op::{self, OpError, OpResult, parse_partial_shape},
    tensor::ElementType,
};

/// A graph that was read, with the places of its Parameter and Result layers.
pub(super) struct Graph {
    pub(super) model: Model,
    /// Layer id to index among the model's inputs.
    pub(super) parameters: HashMap<u64, usize>,
    /// Layer id to index among the model's outputs.
    pub(super) results: HashMap<u64, usize>,
}

/// A layer element with its ports.
pub(super) struct Layer<'a> {
    pub(super) element: Node<'a, 'a>,
    pub(super) id: u64,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) data: Option<Node<'a, 'a>>,
    /// Port ids in order.
    pub(super) inputs: Vec<u64>,
    /// Port ids in order, with tensor names.
    pub(super) outputs: Vec<(u64, Option<&'a str>)>,
}

impl Layer<'_> {
    fn tensor_name(&self, output: usize) -> Option<&str> {
        let names = self.outputs.get(output)?.1?;
        names.split(',').next().filter(|n| !n.is_empty())
    }
}

/// Reads the `<layers>` and `<edges>` below `parent`.
pub(super) fn read(
    source: &Source<'_>,
    parent: Node<'_, '_>,
    name: &str,
    depth: usize,
) -> Result<Graph> {
    if depth > MAX_DEPTH {
        let limit = MAX_DEPTH as u64;
        return Err(ReadError::Limit {
            what: "depth of bodies".to_owned(),
            got: depth as u64,
            limit,
        }
        .into());
    }
    let layers = read_layers(source, parent)?;
    let index: HashMap<u64, usize> = layers.iter().enumerate().map(|(i, l)| (l.id, i)).collect();
    if index.len() != layers.len() {
        return Err(source.malformed("two layers have the same id"));
    }
    let inputs = read_edges(source, parent, &layers, &index)?;
    let mut graph =
        Graph { model: Model::new(name), parameters: HashMap::new(), results: HashMap::new() };
    let mut values: Vec<Vec<Value>> = vec![Vec::new(); layers.len()];
    for (i, layer) in layers.iter().enumerate().filter(|(_, l)| l.kind == "Parameter") {
        graph.parameters.insert(layer.id, graph.model.parameters().len());
        values[i] = vec![parameter(source, layer, &mut graph.model)?];
    }
    let mut variables = Variables::default();
    for i in order(source, &layers, &inputs)? {
        let layer = &layers[i];
        if matches!(layer.kind, "Parameter" | "Result") {
            continue;
        }
        if matches!(layer.kind, "ReadValue" | "Assign") {
            let argument = match inputs[i][..] {
                [] => None,
                [(from, output), ..] => Some(value(source, &layers, &values, from, output)?),
            };
            if depth > 0 {
                return Err(source.malformed(format!(
                    "{} {:?} is inside of a body, where variables are not supported",
                    layer.kind, layer.name
                )));
            }
            values[i] = vec![variables.layer(source, layer, argument, &mut graph.model)?];
            continue;
        }
        if layer.kind == "Const" {
            let value = source.constant(layer.name, layer.data)?;
            values[i] = vec![graph.model.add_constant(value, layer.name)];
            continue;
        }
        let arguments = inputs[i]
            .iter()
            .map(|(l, o)| value(source, &layers, &values, *l, *o))
            .collect::<Result<Vec<_>>>()?;
        let id = graph.model.add_node(operator(source, layer, depth)?, &arguments, layer.name)?;
        let count = graph.model.node(id).outputs().len() as u32;
        values[i] = (0..count).map(|output| Value { node: id, output }).collect();
    }
    for (i, layer) in layers.iter().enumerate().filter(|(_, l)| l.kind == "Result") {
        let Some((from, output)) = inputs[i].first().copied() else {
            return Err(source.malformed(format!("Result {:?} has no input", layer.name)));
        };
        let value = value(source, &layers, &values, from, output)?;
        let name = layers[from].tensor_name(output).unwrap_or(layer.name);
        graph.results.insert(layer.id, graph.model.outputs().len());
        graph.model.add_output(name, value);
    }
    variables.finish(source, &mut graph.model)?;
    Ok(graph)
}

fn value(
    source: &Source<'_>,
    layers: &[Layer<'_>],
    values: &[Vec<Value>],
    layer: usize,
    output: usize,
) -> Result<Value> {
    values[layer].get(output).copied().ok_or_else(|| {
        source.malformed(format!(
            "{} {:?} has no output {output}",
            layers[layer].kind, layers[layer].name
        ))
    })
}

pub(super) fn children<'a>(
    parent: Node<'a, 'a>,
    list: &str,
    item: &'static str,
) -> impl Iterator<Item = Node<'a, 'a>> {
    let list = parent.children().find(|c| c.has_tag_name(list));
    list.into_iter().flat_map(move |l| l.children().filter(move |c| c.has_tag_name(item)))
}

pub(super) fn number(source: &Source<'_>, element: Node<'_, '_>, key: &str) -> Result<u64> {
    let text = element.attribute(key);
    text.and_then(|t| t.trim().parse().ok()).ok_or_else(|| {
        let tag = element.tag_name().name();
        source.malformed(format!("<{tag}> has {key}={text:?}, expected a number"))
    })
}

fn read_layers<'a>(source: &Source<'_>, parent: Node<'a, 'a>) -> Result<Vec<Layer<'a>>> {
    children(parent, "layers", "layer")
        .map(|element| {
            let port = |p: Node<'_, '_>| number(source, p, "id");
            Ok(Layer {
                element,
                id: number(source, element, "id")?,
                kind: element
                    .attribute("type")
                    .ok_or_else(|| source.malformed("a layer has no type"))?,
                name: element.attribute("name").unwrap_or_default(),
                data: element.children().find(|c| c.has_tag_name("data")),
                inputs: children(element, "input", "port").map(port).collect::<Result<_>>()?,
                outputs: children(element, "output", "port")
                    .map(|p| Ok((port(p)?, p.attribute("names"))))
                    .collect::<Result<_>>()?,
            })
        })
        .collect()
}

/// For each layer, the layer and output index that each input reads.
fn read_edges(
    source: &Source<'_>,
    parent: Node<'_, '_>,
    layers: &[Layer<'_>],
    index: &HashMap<u64, usize>,
) -> Result<Vec<Vec<(usize, usize)>>> {
    let mut edges: HashMap<(usize, u64), (usize, u64)> = HashMap::new();
    for edge in children(parent, "edges", "edge") {
        let layer = |key| -> Result<usize> {
            let id = number(source, edge, key)?;
            index.get(&id).copied().ok_or_else(|| {
                source.malformed(format!("an edge names layer {id}, which does not exist"))
            })
        };
        let from = (layer("from-layer")?, number(source, edge, "from-port")?);
        let to = (layer("to-layer")?, number(source, edge, "to-port")?);
        if edges.insert(to, from).is_some() {
            let name = layers[to.0].name;
            return Err(source.malformed(format!("port {} of {name:?} has two edges", to.1)));
        }
    }
    layers
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            layer
                .inputs
                .iter()
                .map(|port| {
                    let (from, id) = edges.get(&(i, *port)).copied().ok_or_else(|| {
                        source.malformed(format!(
                            "port {port} of {} {:?} has no edge",
                            layer.kind, layer.name
                        ))
                    })?;
                    let output = layers[from].outputs.iter().position(|(o, _)| *o == id);
                    let output = output.ok_or_else(|| {
                        source.malformed(format!("{:?} has no output port {id}", layers[from].name))
                    })?;
                    Ok((from, output))
                })
                .collect()
        })
        .collect()
}

/// Layers, producers first.
fn order(
    source: &Source<'_>,
    layers: &[Layer<'_>],
    inputs: &[Vec<(usize, usize)>],
) -> Result<Vec<usize>> {
    const NEW: u8 = 0;
    const OPEN: u8 = 1;
    const DONE: u8 = 2;
    let mut state = vec![NEW; layers.len()];
    let mut order = Vec::with_capacity(layers.len());
    let mut stack = Vec::new();
    for root in 0..layers.len() {
        if state[root] != NEW {
            continue;
        }
        state[root] = OPEN;
        stack.push((root, 0));
        while let Some((at, next)) = stack.pop() {
            let Some(&(from, _)) = inputs[at].get(next) else {
                state[at] = DONE;
                order.push(at);
                continue;
            };
            stack.push((at, next + 1));
            match state[from] {
                NEW => {
                    state[from] = OPEN;
                    stack.push((from, 0));
                }
                OPEN => {
                    return Err(source
                        .malformed(format!("there is a cycle through {:?}", layers[from].name)));
                }
                _ => {}
            }
        }
    }
    Ok(order)
}

fn parameter(source: &Source<'_>, layer: &Layer<'_>, model: &mut Model) -> Result<Value> {
    let read = || -> OpResult<_> {
        let text = |key| layer.data.and_then(|d| d.attribute(key));
        let element_type: ElementType = match text("element_type") {
            Some(t) => t.parse().map_err(|e| OpError::Invalid(format!("{e}")))?,
            None => ElementType::Dynamic,
        };
        Ok((element_type, parse_partial_shape("shape", text("shape").unwrap_or("..."))?))
    };
    let (element_type, shape) =
        read().map_err(|e| source.malformed(format!("Parameter {:?}: {e}", layer.name)))?;
    model.add_parameter(layer.tensor_name(0).unwrap_or(layer.name), element_type, shape)
}

fn operator(source: &Source<'_>, layer: &Layer<'_>, depth: usize) -> Result<Box<dyn op::Op>> {
    let version = layer.element.attribute("version").unwrap_or("opset1");
    let opset: Option<u32> = version.strip_prefix("opset").and_then(|v| v.parse().ok());
    let domain = if opset.is_some() { "openvino" } else { version }.to_owned();
    let opset = opset.unwrap_or(0);
    let Some(entry) = op::find(layer.kind, opset).filter(|e| e.kind.opset > 0) else {
        return Err(ReadError::UnsupportedOp {
            op: layer.kind.to_owned(),
            domain,
            opset: opset.into(),
            node: layer.name.to_owned(),
            nearest: op::find(layer.kind, u32::MAX)
                .map(|e| format!("; it is known from opset {} on", e.kind.opset))
                .unwrap_or_default(),
        }
        .into());
    };
    let mut op = (entry.create)();
    let mut extra = Extra::read(source, layer, depth)?;
    op.visit_attributes(&mut extra).map_err(|e| ReadError::Node {
        op: layer.kind.to_owned(),
        domain,
        opset: opset.into(),
        node: layer.name.to_owned(),
        source: e,
    })?;
    Ok(op)
}
