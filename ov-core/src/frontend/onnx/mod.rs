//! The ONNX front end: opsets 7 to 28 of `ai.onnx`, and what real files carry of other domains.

mod attributes;
mod compose;
mod context;
mod convert;
mod expansion;
pub mod ops;
mod order;
#[allow(missing_docs, reason = "the fields are those of onnx.proto")]
pub mod proto;
mod scope;
pub mod sequence;
pub mod tensor;

use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

pub use compose::Attr;
pub use context::{ConvertError, ConvertResult, NodeContext};

use crate::{
    error::{ReadError, Result},
    io::ExternalFiles,
    model::Model,
};

/// Reads a model from ONNX bytes. `what` names the source in errors; external data is looked for in `external`.
///
/// # Errors
/// [`ReadError`] when the bytes are damaged, an operator is unknown or used wrongly, or external data is refused.
pub fn read(bytes: Bytes, what: &str, external: &ExternalFiles) -> Result<Model> {
    let malformed =
        |detail: String| ReadError::Malformed { format: "ONNX", what: what.to_owned(), detail };
    let proto = proto::ModelProto::decode(bytes).map_err(|e| malformed(e.to_string()))?;
    if proto.graph.is_none() {
        return Err(malformed("it has no graph".to_owned()).into());
    }
    convert::convert_model(&proto, what, external)
}

/// Whether the bytes look like an ONNX model: a top-level message that starts with a field that `ModelProto` has.
#[must_use]
pub fn looks_like_onnx(bytes: &[u8], path: Option<&Path>) -> bool {
    let by_name = path.and_then(Path::extension).is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    // Field 1 as a varint (ir_version), or one of the length-delimited fields 2 to 8 first.
    by_name || matches!(bytes.first(), Some(0x08 | 0x12 | 0x1A | 0x22 | 0x32 | 0x3A | 0x42))
}
