//! The OpenVINO IR front end, versions 10 and 11: XML with weights in a second file.
//!
//! It knows no operator but those that carry the graph itself (Parameter, Result, Const, `ReadValue`, Assign, and the bodies
//! of control flow): attributes are read by each operator's own visitor.

mod bodies;
mod graph;
mod variables;
mod weights;

use bytes::Bytes;

use crate::{
    error::{Error, ReadError, Result},
    model::Model,
};

/// Bodies within bodies.
const MAX_DEPTH: usize = 32;

/// What errors and constants need while a file is read.
struct Source<'a> {
    what: &'a str,
    weights: Option<Bytes>,
}

impl Source<'_> {
    fn malformed(&self, detail: impl Into<String>) -> Error {
        ReadError::Malformed { format: "IR", what: self.what.to_owned(), detail: detail.into() }
            .into()
    }
}

/// Reads a model from the bytes of the XML file. `what` names the source in errors; constants are slices of `weights`.
///
/// # Errors
/// [`ReadError`] when the XML is damaged, an operator is unknown or used wrongly, or a constant lies outside the
/// weights.
pub fn read(xml: &[u8], what: &str, weights: Option<Bytes>) -> Result<Model> {
    let source = Source { what, weights };
    let text = std::str::from_utf8(xml).map_err(|e| source.malformed(format!("not UTF-8: {e}")))?;
    let options = roxmltree::ParsingOptions { nodes_limit: MAX_XML_NODES, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|e| source.malformed(e.to_string()))?;
    let net = document.root_element();
    if net.tag_name().name() != "net" {
        let found = net.tag_name().name();
        return Err(source.malformed(format!("the root element is <{found}>, expected <net>")));
    }
    let version = net.attribute("version").unwrap_or("none");
    if !matches!(version, "10" | "11") {
        return Err(source.malformed(format!("IR version {version}, expected 10 or 11")));
    }
    let name = net.attribute("name").unwrap_or_default();
    Ok(graph::read(&source, net, name, 0)?.model)
}

/// Elements and texts of one file; beyond this it is an attack rather than a model.
const MAX_XML_NODES: u32 = 50_000_000;

#[cfg(test)]
mod tests;
