//! How many nodes a model has once its functions are expanded, counted without expanding them.

use std::collections::HashMap;

use super::{
    convert::{FunctionKey, canonical_domain},
    order,
    proto::{FunctionProto, GraphProto, NodeProto},
};
use crate::error::{ModelError, ReadError, Result};

/// Nodes after functions are expanded.
pub(super) const MAX_NODES: u64 = 1_000_000;

/// Graphs inside each other in a file.
const MAX_NESTING: usize = 64;

/// Checks that the functions that `graph` calls do not call themselves, and that it stays within the limit of nodes.
///
/// # Errors
/// [`ModelError::Cycle`] with the path of calls, [`ReadError::Limit`].
pub(super) fn check(
    graph: &GraphProto,
    functions: &HashMap<FunctionKey<'_>, &FunctionProto>,
) -> Result<()> {
    let mut count =
        Count { functions, known: HashMap::new(), calls: Vec::new(), model: &graph.name };
    let total = count.nodes(&graph.node, 0)?;
    if total > MAX_NODES {
        return Err(ReadError::Limit {
            what: "number of nodes after functions are expanded".to_owned(),
            got: total,
            limit: MAX_NODES,
        }
        .into());
    }
    Ok(())
}

struct Count<'a> {
    functions: &'a HashMap<FunctionKey<'a>, &'a FunctionProto>,
    known: HashMap<FunctionKey<'a>, u64>,
    calls: Vec<FunctionKey<'a>>,
    model: &'a str,
}

impl<'a> Count<'a> {
    fn nodes(&mut self, nodes: &'a [NodeProto], nesting: usize) -> Result<u64> {
        if nesting > MAX_NESTING {
            return Err(ReadError::Limit {
                what: "depth of nested graphs and function calls".to_owned(),
                got: nesting as u64,
                limit: MAX_NESTING as u64,
            }
            .into());
        }
        let mut total = 0u64;
        for node in nodes {
            let key = (canonical_domain(&node.domain), &*node.op_type, &*node.overload);
            let own = match self.functions.get(&key) {
                Some(function) => self.function(key, function, nesting)?,
                None => 1,
            };
            total = total.saturating_add(own);
            for graph in order::graphs(node) {
                total = total.saturating_add(self.nodes(&graph.node, nesting + 1)?);
            }
        }
        Ok(total)
    }

    fn function(
        &mut self,
        key: FunctionKey<'a>,
        function: &'a FunctionProto,
        nesting: usize,
    ) -> Result<u64> {
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        if let Some(at) = self.calls.iter().position(|c| *c == key) {
            let names: Vec<&str> =
                self.calls[at..].iter().chain([&key]).map(|(_, name, _)| *name).collect();
            let path = order::path(&names);
            return Err(ModelError::Cycle { model: self.model.to_owned(), path }.into());
        }
        self.calls.push(key);
        let total = self.nodes(&function.node, nesting + 1)?;
        self.calls.pop();
        self.known.insert(key, total);
        Ok(total)
    }
}
