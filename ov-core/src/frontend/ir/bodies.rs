//! Attributes of a layer: text of `<data>`, and the bodies and port maps of control flow.

use std::collections::HashMap;

use roxmltree::Node;

use super::{
    Source,
    graph::{self, Graph, Layer, children, number},
};
use crate::{
    error::Result,
    model::Model,
    op::{Attribute, AttributeVisitor, OpResult, TextReader},
};

/// What a layer says about its operator's attributes.
pub(super) struct Extra<'a> {
    data: Option<Node<'a, 'a>>,
    bodies: HashMap<&'static str, Model>,
    lists: HashMap<&'static str, Vec<i64>>,
    numbers: HashMap<&'static str, i64>,
}

impl AttributeVisitor for Extra<'_> {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        match attribute {
            Attribute::Body(body) => {
                if let Some(read) = self.bodies.remove(name) {
                    *body = read;
                }
                Ok(())
            }
            Attribute::I64s(list) if self.lists.contains_key(name) => {
                *list = self.lists.remove(name).unwrap_or_default();
                Ok(())
            }
            Attribute::I64(value) if self.numbers.contains_key(name) => {
                *value = self.numbers[name];
                Ok(())
            }
            attribute => {
                let data = self.data;
                TextReader(move |name: &'static str| data.and_then(|d| d.attribute(name)))
                    .visit(name, attribute)
            }
        }
    }
}

impl<'a> Extra<'a> {
    pub(super) fn read(source: &Source<'_>, layer: &Layer<'a>, depth: usize) -> Result<Self> {
        let mut extra = Self {
            data: layer.data,
            bodies: HashMap::new(),
            lists: HashMap::new(),
            numbers: HashMap::new(),
        };
        match layer.kind {
            "If" => {
                extra.branch(
                    source,
                    layer,
                    depth,
                    ["then_body", "then_port_map", "then_inputs", "then_outputs"],
                )?;
                extra.branch(
                    source,
                    layer,
                    depth,
                    ["else_body", "else_port_map", "else_inputs", "else_outputs"],
                )?;
            }
            "Loop" | "TensorIterator" => extra.iteration(source, layer, depth)?,
            _ => {}
        }
        Ok(extra)
    }

    fn body(source: &Source<'_>, layer: &Layer<'_>, tag: &str, depth: usize) -> Result<Graph> {
        let element = layer.element.children().find(|c| c.has_tag_name(tag)).ok_or_else(|| {
            source.malformed(format!("{} {:?} has no <{tag}>", layer.kind, layer.name))
        })?;
        graph::read(source, element, tag, depth + 1)
    }

    fn branch(
        &mut self,
        source: &Source<'_>,
        layer: &Layer<'_>,
        depth: usize,
        [body, map, inputs, outputs]: [&'static str; 4],
    ) -> Result<()> {
        let graph = Self::body(source, layer, body, depth)?;
        let ports = Ports { source, layer, graph: &graph };
        let mut from = vec![-1; graph.parameters.len()];
        for entry in children(layer.element, map, "input") {
            from[ports.parameter(entry)? as usize] = ports.input(entry)?;
        }
        let mut to = vec![-1; layer.outputs.len()];
        for entry in children(layer.element, map, "output") {
            to[ports.output(entry)? as usize] = ports.result(entry)?;
        }
        if from.iter().chain(&to).any(|i| *i < 0) {
            return Err(source.malformed(format!("If {:?}: {map} leaves ports out", layer.name)));
        }
        self.lists.insert(inputs, from);
        self.lists.insert(outputs, to);
        self.bodies.insert(body, graph.model);
        Ok(())
    }

    fn iteration(&mut self, source: &Source<'_>, layer: &Layer<'_>, depth: usize) -> Result<()> {
        let graph = Self::body(source, layer, "body", depth)?;
        let ports = Ports { source, layer, graph: &graph };
        let mut back: HashMap<i64, i64> = HashMap::new();
        for edge in children(layer.element, "back_edges", "edge") {
            let from = ports.internal(edge, "from-layer", &graph.results)?;
            back.insert(ports.internal(edge, "to-layer", &graph.parameters)?, from);
        }
        let (mut sliced, mut merged, mut invariant) = (Vec::new(), Vec::new(), Vec::new());
        for entry in children(layer.element, "port_map", "input") {
            let parameter = ports.parameter(entry)?;
            if entry.attribute("purpose") == Some("current_iteration") {
                self.numbers.insert("current_iteration", parameter);
            } else if entry.has_attribute("axis") {
                sliced.extend([ports.input(entry)?, parameter]);
                sliced.extend(ports.slice(entry)?);
            } else if let Some(result) = back.get(&parameter) {
                merged.extend([ports.input(entry)?, parameter, *result]);
            } else {
                invariant.extend([ports.input(entry)?, parameter]);
            }
        }
        let (mut last, mut concat) = (Vec::new(), Vec::new());
        for entry in children(layer.element, "port_map", "output") {
            let result = ports.result(entry)?;
            if entry.attribute("purpose") == Some("execution_condition") {
                self.numbers.insert("condition_output", result);
            }
            if entry.attribute("external_port_id").is_none_or(|t| t.trim() == "-1") {
                continue;
            }
            if entry.has_attribute("axis") {
                concat.extend([ports.output(entry)?, result]);
                concat.extend(ports.slice(entry)?);
            } else {
                last.extend([ports.output(entry)?, result]);
            }
        }
        for (name, list) in [
            ("sliced_inputs", sliced),
            ("merged_inputs", merged),
            ("invariant_inputs", invariant),
            ("body_outputs", last),
            ("concat_outputs", concat),
        ] {
            self.lists.insert(name, list);
        }
        self.bodies.insert("body", graph.model);
        Ok(())
    }
}

/// Resolves the ids of a port map.
struct Ports<'s, 'a> {
    source: &'s Source<'s>,
    layer: &'s Layer<'a>,
    graph: &'s Graph,
}

impl Ports<'_, '_> {
    fn external(&self, entry: Node<'_, '_>, mut ports: impl Iterator<Item = u64>) -> Result<i64> {
        let id = number(self.source, entry, "external_port_id")?;
        ports.position(|p| p == id).map(|i| i as i64).ok_or_else(|| {
            self.source
                .malformed(format!("{} {:?} has no port {id}", self.layer.kind, self.layer.name))
        })
    }

    fn input(&self, entry: Node<'_, '_>) -> Result<i64> {
        self.external(entry, self.layer.inputs.iter().copied())
    }

    fn output(&self, entry: Node<'_, '_>) -> Result<i64> {
        self.external(entry, self.layer.outputs.iter().map(|o| o.0))
    }

    fn internal(&self, entry: Node<'_, '_>, key: &str, map: &HashMap<u64, usize>) -> Result<i64> {
        let id = number(self.source, entry, key)?;
        map.get(&id).map(|i| *i as i64).ok_or_else(|| {
            self.source.malformed(format!(
                "{} {:?}: layer {id} of the body is no Parameter or Result as its port map says",
                self.layer.kind, self.layer.name
            ))
        })
    }

    fn parameter(&self, entry: Node<'_, '_>) -> Result<i64> {
        self.internal(entry, "internal_layer_id", &self.graph.parameters)
    }

    fn result(&self, entry: Node<'_, '_>) -> Result<i64> {
        self.internal(entry, "internal_layer_id", &self.graph.results)
    }

    /// Axis, start, end, stride and part size.
    fn slice(&self, entry: Node<'_, '_>) -> Result<[i64; 5]> {
        let mut values = [0, 0, -1, 1, 1];
        for (value, key) in values.iter_mut().zip(["axis", "start", "end", "stride", "part_size"]) {
            if let Some(text) = entry.attribute(key) {
                *value = text.trim().parse().map_err(|_| {
                    self.source.malformed(format!("{key} is {text:?}, expected an integer"))
                })?;
            }
        }
        Ok(values)
    }
}
