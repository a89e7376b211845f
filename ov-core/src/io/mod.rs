//! Files and memory: the workspace's only file mapping, and external data beneath a model's folder.
#![allow(unsafe_code, reason = "maps files and calls the operating system")]

mod background;
mod external;
mod huge_buffer;
mod mapped_file;
mod memory;
mod system;

pub use background::BackgroundThread;
pub use external::ExternalFiles;
pub use huge_buffer::HugeBuffer;
pub use mapped_file::{MappedFile, release};
pub use memory::memory_limit;
pub use system::{
    FileSystem, file_system, free_bytes, populate, reserve_space, user, yield_to_others,
};
