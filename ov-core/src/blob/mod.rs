//! Compiled models as bytes: a header, a section table, and sections that lie as they are used.
//!
//! Compiling writes a [`Blob`] ([`BlobWriter`] reserves sections, [`BlobBuffer`] lends their memory to packers);
//! loading maps one and binds it in place. All numbers are little-endian. The structure is checked whenever bytes become
//! a [`Blob`]; the *content* of sections is the device's to check, and comes from outside like any file: decode it with
//! [`Decoder`] from a copy ([`Blob::copy_section`]), never trust a length or an index, and form no `&str`, `bool` or enum
//! over the section itself, since another process may change a mapped file.

mod codec;
mod format;
mod meta;
mod model;
mod reader;
mod seal;
mod writer;

pub use codec::{Decoder, Encoder};
pub use format::{
    HEADER_LEN, Header, LEAF_LEN, MAX_SECTIONS, Section, SectionKind, TENSOR_ALIGNMENT, align_up,
};
pub use meta::Meta;
pub use reader::Blob;
pub use seal::{HashFn, Seal, Sealer, Verify};
pub use writer::{BlobBuffer, BlobWriter};
