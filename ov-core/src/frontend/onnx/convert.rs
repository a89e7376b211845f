//! Converts graphs: values by name, nodes by the operator table, functions expanded, nested graphs captured.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use super::{
    context::{ConvertError, NodeContext},
    expansion::{self, MAX_NODES},
    ops, order,
    proto::{
        AttributeProto, DimensionKind, FunctionProto, GraphProto, ModelProto, NodeProto, TypeKind,
        ValueInfoProto,
    },
    scope::{Frame, Frames, Scope},
    tensor,
};
use crate::{
    error::{ModelError, ReadError, Result},
    io::ExternalFiles,
    model::{Model, Value},
    tensor::{Dimension, ElementType, PartialShape},
};

/// Nested graphs and function calls inside each other.
const MAX_DEPTH: usize = 64;
/// The newest opset of `ai.onnx` that the table of operators knows.
const NEWEST_OPSET: i64 = 28;
/// From this version of the format on, models import their operators.
const IMPORTS_SINCE: i64 = 3;
/// Nodes that are converted, those of loop bodies again until their types settle.
const MAX_CONVERSIONS: u64 = 4 * MAX_NODES;

/// What a call names: domain, operator, overload.
pub(super) type FunctionKey<'c> = (&'c str, &'c str, &'c str);

/// The state of one conversion.
#[derive(Debug)]
pub(super) struct Converter<'c> {
    pub(super) frames: Frames,
    pub(super) external: &'c ExternalFiles,
    functions: HashMap<FunctionKey<'c>, &'c FunctionProto>,
    symbols: HashMap<String, u32>,
    what: &'c str,
    converted: u64,
    depth: usize,
}

pub(super) fn convert_model(
    proto: &ModelProto,
    what: &str,
    external: &ExternalFiles,
) -> Result<Model> {
    let functions: HashMap<_, _> = proto
        .functions
        .iter()
        .map(|f| ((canonical_domain(&f.domain), f.name.as_str(), f.overload.as_str()), f))
        .collect();
    let graph = proto.graph.as_ref().expect("the caller checked that there is a graph");
    expansion::check(graph, &functions)?;
    let mut converter = Converter {
        frames: Frames::default(),
        external,
        functions,
        symbols: HashMap::new(),
        what,
        converted: 0,
        depth: 0,
    };
    let mut opsets = opset_map(&proto.opset_import)
        .map_err(|detail| converter.malformed(format!("{detail} (imports of the model)")))?;
    // Files older than the imports are of the first opset.
    if proto.ir_version.is_none_or(|v| v < IMPORTS_SINCE) {
        opsets.entry(String::new()).or_insert(1);
    }
    let scope = Scope { opsets: Rc::new(opsets), ..Scope::default() };
    converter.frames.0.push(Frame {
        model: Model::new(graph.name.clone()),
        scopes: vec![scope],
        captures: Vec::new(),
    });
    converter.convert_graph(graph, None)?;
    let frame = converter.frames.0.pop().expect("the frame was pushed above");
    Ok(frame.model)
}

pub(super) fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Version of each domain; the text of an error when that is not clear or not known.
///
/// "An implementation must support all operators in the set or reject the model":
/// <https://github.com/onnx/onnx/blob/main/docs/IR.md#models>.
fn opset_map(
    imports: &[super::proto::OperatorSetId],
) -> std::result::Result<HashMap<String, i64>, String> {
    let mut map = HashMap::new();
    for import in imports {
        let (domain, version) = (canonical_domain(&import.domain), import.version);
        if domain.is_empty() && version > NEWEST_OPSET {
            return Err(format!(
                "opset {version} of ai.onnx is not known, expected at most {NEWEST_OPSET}; onnx.version_converter gives \
                 a model of an older one"
            ));
        }
        let before = map.insert(domain.to_owned(), version);
        if let Some(before) = before.filter(|b| *b != version) {
            let shown = if domain.is_empty() { "ai.onnx" } else { domain };
            return Err(format!(
                "opsets {before} and {version} of {shown} are both imported, expected one of them"
            ));
        }
    }
    Ok(map)
}

impl<'c> Converter<'c> {
    fn malformed(&self, detail: String) -> ReadError {
        ReadError::Malformed { format: "ONNX", what: self.what.to_owned(), detail }
    }

    /// Converts a graph into the top frame. `parameters` override the types of the file's inputs.
    fn convert_graph(
        &mut self,
        graph: &GraphProto,
        parameters: Option<&[(ElementType, PartialShape)]>,
    ) -> Result<()> {
        for initializer in &graph.initializer {
            let value = tensor::convert(initializer, self.external)?;
            let value = self.frames.top().model.add_constant(value, &initializer.name);
            if self.frames.scope().values.insert(initializer.name.clone(), value).is_some() {
                return Err(self
                    .malformed(format!("two initializers are named {:?}", initializer.name))
                    .into());
            }
        }
        for sparse in &graph.sparse_initializer {
            let value = tensor::convert_sparse(sparse, self.external)?;
            let name = sparse.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
            let value = self.frames.top().model.add_constant(value, &name);
            self.frames.scope().values.insert(name, value);
        }
        let inputs: Vec<&ValueInfoProto> = match parameters {
            Some(_) => graph.input.iter().collect(),
            None => graph
                .input
                .iter()
                .filter(|i| {
                    !self.frames.0.last().is_some_and(|f| f.scopes[0].values.contains_key(&i.name))
                })
                .collect(),
        };
        for (index, input) in inputs.into_iter().enumerate() {
            let (mut ty, mut shape) = self.value_type(input)?;
            if let Some((given, given_shape)) = parameters.and_then(|p| p.get(index)) {
                ty = if *given == ElementType::Dynamic { ty } else { *given };
                if given_shape.rank().is_some() {
                    shape = given_shape.clone();
                }
            }
            let value = self.frames.top().model.add_parameter(&input.name, ty, shape)?;
            if self.frames.scope().values.insert(input.name.clone(), value).is_some() {
                return Err(self
                    .malformed(format!("two inputs are named {:?}", input.name))
                    .into());
            }
        }
        self.convert_nodes(&graph.node)?;
        for output in &graph.output {
            let value = self.frames.lookup(&output.name)?.ok_or_else(|| {
                self.malformed(format!(
                    "output {:?} of graph {:?} is given by no node",
                    output.name, graph.name
                ))
            })?;
            self.frames.top().model.add_output(&output.name, value);
        }
        Ok(())
    }

    fn convert_nodes(&mut self, nodes: &[NodeProto]) -> Result<()> {
        let order = order::sorted(nodes)
            .map_err(|cycle| ModelError::Cycle { model: self.what.to_owned(), path: cycle.0 })?;
        for at in 0..nodes.len() {
            let node = &nodes[order.as_ref().map_or(at, |o| o[at])];
            self.converted += 1;
            if self.converted > MAX_CONVERSIONS {
                return Err(ReadError::Limit {
                    what: "number of nodes converted, bodies of loops several times".to_owned(),
                    got: self.converted,
                    limit: MAX_CONVERSIONS,
                }
                .into());
            }
            let outputs = self.convert_node(node)?;
            for (i, name) in node.output.iter().enumerate() {
                if name.is_empty() {
                    continue;
                }
                let value = *outputs.get(i).ok_or_else(|| {
                    self.malformed(format!(
                        "{} {:?} has no output {i} (named {name:?})",
                        node.op_type, node.name
                    ))
                })?;
                if self.frames.scope().values.insert(name.clone(), value).is_some() {
                    return Err(self
                        .malformed(format!("two nodes give a value named {name:?}"))
                        .into());
                }
            }
        }
        Ok(())
    }

    fn convert_node(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let value = self.frames.lookup(name)?.ok_or_else(|| {
                self.malformed(format!(
                    "{} {:?} reads {name:?}, which no input, initializer or node gives",
                    node.op_type, node.name
                ))
            })?;
            inputs.push(Some(value));
        }
        let domain = canonical_domain(&node.domain);
        if let Some(function) =
            self.functions.get(&(domain, node.op_type.as_str(), node.overload.as_str())).copied()
        {
            return self.call_function(function, node, &inputs);
        }
        let scope = self.frames.scope();
        let (imported, function_attributes) =
            (scope.opsets.get(domain).copied(), Rc::clone(&scope.attributes));
        if domain.is_empty() && imported.is_none() {
            return Err(self
                .malformed(format!(
                    "{} {:?} is of ai.onnx, which is not imported: expected an opset_import with a version of it",
                    node.op_type, node.name
                ))
                .into());
        }
        let opset = imported.unwrap_or(1);
        let shown_domain = if domain.is_empty() { "ai.onnx" } else { domain };
        let name = if node.name.is_empty() {
            node.output.first().cloned().unwrap_or_default()
        } else {
            node.name.clone()
        };
        let Some(convert) = ops::find(domain, &node.op_type, opset) else {
            return Err(ReadError::UnsupportedOp {
                op: node.op_type.clone(),
                domain: shown_domain.to_owned(),
                opset,
                node: name,
                nearest: ops::nearest(domain, &node.op_type),
            }
            .into());
        };
        let asked = Cell::new(0);
        let mut cx =
            NodeContext { converter: self, node, inputs, function_attributes, opset, asked };
        let converted = convert(&mut cx).and_then(|outputs| {
            cx.expect_inputs_asked()?;
            Ok(outputs)
        });
        converted.map_err(|e| match e {
            ConvertError::Op(source) => ReadError::Node {
                op: node.op_type.clone(),
                domain: shown_domain.to_owned(),
                opset,
                node: name,
                source,
            }
            .into(),
            ConvertError::Other(e) => e,
        })
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ReadError::Limit {
                what: "depth of nested graphs and function calls".to_owned(),
                got: self.depth as u64,
                limit: MAX_DEPTH as u64,
            }
            .into());
        }
        Ok(())
    }

    fn call_function(
        &mut self,
        function: &FunctionProto,
        call: &NodeProto,
        inputs: &[Option<Value>],
    ) -> Result<Vec<Value>> {
        self.enter()?;
        let mut opsets = opset_map(&function.opset_import).map_err(|detail| {
            self.malformed(format!("{detail} (imports of function {:?})", function.name))
        })?;
        let outer = self.frames.scope();
        let mut attributes: HashMap<String, AttributeProto> =
            function.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
        for attribute in &call.attribute {
            let resolved = if attribute.ref_attr_name.is_empty() {
                Some(attribute)
            } else {
                outer.attributes.get(&attribute.ref_attr_name)
            };
            if let Some(resolved) = resolved {
                attributes.insert(attribute.name.clone(), resolved.clone());
            }
        }
        for (domain, version) in outer.opsets.iter() {
            opsets.entry(domain.clone()).or_insert(*version);
        }
        let values = function
            .input
            .iter()
            .zip(inputs)
            .filter_map(|(name, value)| value.map(|v| (name.clone(), v)))
            .collect();
        // Inputs that the call leaves out are left out in the body too.
        let absent: Vec<&String> = function
            .input
            .iter()
            .enumerate()
            .filter(|(i, _)| inputs.get(*i).is_none_or(Option::is_none))
            .map(|(_, n)| n)
            .collect();
        self.frames.top().scopes.push(Scope {
            values,
            attributes: Rc::new(attributes),
            opsets: Rc::new(opsets),
            composed: false,
        });
        let converted = if absent.is_empty() {
            self.convert_nodes(&function.node)
        } else {
            let nodes: Vec<NodeProto> = function
                .node
                .iter()
                .cloned()
                .map(|mut n| {
                    for input in &mut n.input {
                        if absent.contains(&&*input) {
                            input.clear();
                        }
                    }
                    n
                })
                .collect();
            self.convert_nodes(&nodes)
        };
        let scope = self.frames.top().scopes.pop().expect("the scope was pushed above");
        self.depth -= 1;
        converted?;
        function
            .output
            .iter()
            .map(|name| {
                scope.values.get(name).copied().ok_or_else(|| {
                    self.malformed(format!(
                        "output {name:?} of function {:?} is given by no node",
                        function.name
                    ))
                    .into()
                })
            })
            .collect()
    }

    /// Converts nodes into the top frame in a scope of their own, with another opset of `ai.onnx` if one is given.
    pub(super) fn convert_inline(
        &mut self,
        nodes: &[NodeProto],
        inputs: &[(&str, Value)],
        outputs: &[&str],
        opset: Option<i64>,
    ) -> Result<Vec<Value>> {
        self.enter()?;
        let mut opsets = Rc::clone(&self.frames.scope().opsets);
        if let Some(opset) = opset {
            Rc::make_mut(&mut opsets).insert(String::new(), opset);
        }
        let values = inputs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        self.frames.top().scopes.push(Scope {
            values,
            attributes: Rc::default(),
            opsets,
            composed: opset.is_some(),
        });
        let converted = self.convert_nodes(nodes);
        let scope = self.frames.top().scopes.pop().expect("the scope was pushed above");
        self.depth -= 1;
        converted?;
        outputs
            .iter()
            .map(|n| {
                scope
                    .values
                    .get(*n)
                    .copied()
                    .ok_or_else(|| self.malformed(format!("no node gives {n:?}")).into())
            })
            .collect()
    }

    pub(super) fn convert_body(
        &mut self,
        graph: &GraphProto,
        parameters: &[(ElementType, PartialShape)],
        attributes: &Rc<HashMap<String, AttributeProto>>,
    ) -> Result<(Model, Vec<Value>)> {
        self.enter()?;
        let opsets = Rc::clone(&self.frames.scope().opsets);
        let scope = Scope { attributes: Rc::clone(attributes), opsets, ..Scope::default() };
        self.frames.0.push(Frame {
            model: Model::new(graph.name.clone()),
            scopes: vec![scope],
            captures: Vec::new(),
        });
        let converted = self.convert_graph(graph, Some(parameters));
        let frame = self.frames.0.pop().expect("the frame was pushed above");
        self.depth -= 1;
        converted?;
        Ok((frame.model, frame.captures.into_iter().map(|(outer, _)| outer).collect()))
    }

    fn value_type(&mut self, info: &ValueInfoProto) -> Result<(ElementType, PartialShape)> {
        let tensor = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            None => return Ok((ElementType::Dynamic, PartialShape::dynamic())),
            Some(TypeKind::Tensor(t) | TypeKind::SparseTensor(t)) => t,
            Some(TypeKind::Sequence(_)) => {
                return Ok((ElementType::Sequence, PartialShape::dynamic_rank(1)));
            }
            Some(TypeKind::Map(_)) => return Ok((ElementType::Map, PartialShape::dynamic_rank(1))),
            // An optional may be absent, which is a value of no type.
            Some(TypeKind::Optional(_)) => {
                return Ok((ElementType::Dynamic, PartialShape::dynamic()));
            }
        };
        let ty = tensor::element_type(tensor.elem_type).ok_or_else(|| {
            self.malformed(format!("{:?} has unknown data type {}", info.name, tensor.elem_type))
        })?;
        let Some(shape) = &tensor.shape else { return Ok((ty, PartialShape::dynamic())) };
        let shape = shape
            .dim
            .iter()
            .map(|d| match &d.value {
                Some(DimensionKind::Value(v)) if *v > 0 => {
                    Dimension::fixed(usize::try_from(*v).unwrap_or(0))
                }
                Some(DimensionKind::Value(0)) => Dimension::fixed(0),
                Some(DimensionKind::Param(name)) if !name.is_empty() => {
                    let next = self.symbols.len() as u32 + 1;
                    let symbol = *self.symbols.entry(name.clone()).or_insert(next);
                    Dimension::DYNAMIC.with_symbol(symbol)
                }
                _ => Dimension::DYNAMIC,
            })
            .collect();
        Ok((ty, shape))
    }
}
