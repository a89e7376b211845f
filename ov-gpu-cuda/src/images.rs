//! The compiled modules that a blob holds: machine code for the architecture that the model was compiled for, and
//! assembly that other GPUs' drivers can translate.

use std::collections::BTreeMap;

use ov_core::{
    blob::{Decoder, Encoder},
    error::Result,
};

use crate::{
    compile::{CompileError, Compiler, Format, Target},
    kernels::Source,
};

/// The least capability that kernels are written for, which the assembly in blobs is compiled for.
pub(crate) const PORTABLE: (u32, u32) = (8, 0);

const VERSION: u32 = 1;

/// The images of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Images {
    /// By the target's name.
    by_target: BTreeMap<String, Vec<u8>>,
}

/// Images by the text of their module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    /// The compiler with its version and options, for people.
    pub(crate) producer: String,
    modules: BTreeMap<[u8; 32], Images>,
}

fn key(source: &Source) -> [u8; 32] {
    *blake3::hash(source.text().as_bytes()).as_bytes()
}

impl Code {
    /// Compiles every module that is not there yet, for a GPU and, where the compiler can, for others.
    ///
    /// # Errors
    /// What the compiler says of a module for the GPU itself.
    pub(crate) fn add(
        &mut self,
        source: &Source,
        capability: (u32, u32),
        compiler: &dyn Compiler,
    ) -> Result<(), CompileError> {
        let key = key(source);
        if self.modules.contains_key(&key) {
            return Ok(());
        }
        let own = Target::cubin(capability);
        let mut by_target = BTreeMap::new();
        by_target.insert(own.name(), compiler.compile(source, own)?.bytes);
        let portable = Target { capability: PORTABLE, specific: false, format: Format::Ptx };
        // Without it the blob is for this architecture only, which its reader finds out.
        match compiler.compile(source, portable) {
            Ok(image) => drop(by_target.insert(portable.name(), image.bytes)),
            Err(error) => tracing::debug!(%error, "no portable code for a module"),
        }
        self.producer = compiler.identity();
        self.modules.insert(key, Images { by_target });
        Ok(())
    }

    /// Number of modules.
    pub(crate) fn len(&self) -> usize {
        self.modules.len()
    }

    /// Images of a module that a GPU of this capability may take, the best first: code for it, code for an older one of
    /// its generation, assembly.
    pub(crate) fn candidates(&self, source: &Source, capability: (u32, u32)) -> Vec<&[u8]> {
        let Some(images) = self.modules.get(&key(source)) else { return Vec::new() };
        let (major, minor) = capability;
        let mut names = vec![Target::cubin(capability).name()];
        names.extend((0..=minor).rev().map(|minor| format!("sm_{major}{minor}")));
        names.push(format!("compute_{}{}", PORTABLE.0, PORTABLE.1));
        names.dedup();
        names.iter().filter_map(|name| images.by_target.get(name).map(Vec::as_slice)).collect()
    }

    /// The section of a blob.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.u32(VERSION);
        e.text(&self.producer);
        e.list(self.modules.iter(), |e, (key, images)| {
            e.raw(key);
            e.list(images.by_target.iter(), |e, (name, bytes)| {
                e.text(name);
                e.size(bytes.len());
                e.raw(bytes);
            });
        });
        e.into_bytes()
    }

    /// Reads a section.
    ///
    /// # Errors
    /// When the bytes are damaged or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        if d.u32()? != VERSION {
            return d.fail(format_args!("version {VERSION} of the code section"));
        }
        let producer = d.text()?.to_owned();
        let modules = d.list(|d| {
            let key = d.array::<32>()?;
            let images = d.list(|d| {
                let name = d.text()?.to_owned();
                let len = d.size()?;
                Ok((name, d.bytes(len)?.to_vec()))
            })?;
            Ok((key, Images { by_target: images.into_iter().collect() }))
        })?;
        d.end()?;
        Ok(Self { producer, modules: modules.into_iter().collect() })
    }
}
