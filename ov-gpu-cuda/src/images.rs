//! The compiled modules that a blob holds: machine code for the architecture that the model was compiled for, and
//! assembly that other GPUs' drivers can translate.

use std::collections::{BTreeMap, btree_map::Entry};

use ov_core::{
    blob::{Decoder, Encoder},
    error::Result,
};

use crate::{
    compile::{CompileError, Compiler, Target},
    kernels::Source,
};

/// The least capability that kernels are written for.
pub(crate) const LEAST: (u32, u32) = (8, 0);

/// From this capability on kernels wait themselves for those before them: code for older ones has no such instruction,
/// whatever GPU it runs on.
const WAITING: (u32, u32) = (9, 0);

const VERSION: u32 = 1;

/// The images of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Images {
    /// By the target's name.
    by_target: BTreeMap<String, Vec<u8>>,
}

/// An image that a GPU may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    /// What the driver loads.
    pub(crate) bytes: &'a [u8],
    /// Whether its kernels wait for those before them.
    pub(crate) waits: bool,
}

impl Images {
    /// Machine code for a GPU; assembly where the compiler is older than the GPU.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn native(
        source: &Source,
        capability: (u32, u32),
        compiler: &dyn Compiler,
    ) -> Result<Self, CompileError> {
        let known = compiler.nearest(capability);
        let own = if known == capability { Target::cubin(known) } else { Target::ptx(known) };
        let bytes = compiler.compile(source, own)?.bytes;
        Ok(Self { by_target: BTreeMap::from([(own.name(), bytes)]) })
    }

    /// The same with assembly for newer GPUs.
    ///
    /// # Errors
    /// What the compiler says of the code for this GPU.
    fn portable(
        source: &Source,
        capability: (u32, u32),
        compiler: &dyn Compiler,
    ) -> Result<Self, CompileError> {
        let mut images = Self::native(source, capability, compiler)?;
        let target = Target::ptx(compiler.nearest(capability));
        if let Entry::Vacant(place) = images.by_target.entry(target.name()) {
            // Without it the blob is for this architecture only, which its reader finds out.
            match compiler.compile(source, target) {
                Ok(image) => drop(place.insert(image.bytes)),
                Err(error) => tracing::debug!(%error, "no portable code for a module"),
            }
        }
        Ok(images)
    }

    /// What a GPU of this capability may take, the best first: code for it, code for an older one of its generation,
    /// assembly for it or for an older one.
    pub(crate) fn candidates(&self, capability: (u32, u32)) -> Vec<Candidate<'_>> {
        let (major, minor) = capability;
        let mut targets = vec![Target::cubin(capability)];
        let plain = |minor| Target { specific: false, ..Target::cubin((major, minor)) };
        targets.extend((0..=minor).rev().map(plain));
        let older = (0..=major).rev().flat_map(|major| (0..=9).rev().map(move |m| (major, m)));
        let older = older.filter(|c| *c <= capability);
        targets.extend(older.map(Target::ptx));
        targets.dedup();
        let found = targets.iter().filter_map(|target| {
            let bytes = self.by_target.get(&target.name())?;
            Some(Candidate { bytes, waits: target.capability >= WAITING })
        });
        found.collect()
    }
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
        let images = Images::portable(source, capability, compiler)?;
        self.producer = compiler.identity();
        self.modules.insert(key, images);
        Ok(())
    }

    /// Number of modules.
    pub(crate) fn len(&self) -> usize {
        self.modules.len()
    }

    /// Images of a module that a GPU of this capability may take, the best first.
    pub(crate) fn candidates(&self, source: &Source, capability: (u32, u32)) -> Vec<Candidate<'_>> {
        self.modules.get(&key(source)).map_or_else(Vec::new, |i| i.candidates(capability))
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
