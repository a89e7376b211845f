//! A program as bytes.

use super::{Constant, Program, codec::Writer};
use ov_core::error::{CompileError, Result};

/// Alignment of every tensor in the weights section: one cache line.
pub(crate) const TENSOR_ALIGNMENT: usize = 64;

type Fill = Box<dyn FnOnce(&mut [u8]) + Send>;

/// Weights to be written: ranges are given out at once, bytes are made later, all in parallel, straight in place.
#[derive(Default)]
pub struct Weights {
    len: usize,
    fills: Vec<(std::ops::Range<usize>, Fill)>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("len", &self.len).field("parts", &self.fills.len()).finish()
    }
}

impl Weights {
    /// Reserves `len` bytes, which `fill` writes later.
    pub fn reserve(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) + Send + 'static,
    ) -> std::ops::Range<usize> {
        let start = self.len.next_multiple_of(TENSOR_ALIGNMENT);
        self.len = start + len;
        self.fills.push((start..self.len, Box::new(fill)));
        start..self.len
    }

    /// Bytes of the whole section.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes everything into `section`, in parallel on the current rayon pool.
    ///
    /// # Panics
    /// When `section` is shorter than [`Weights::len`].
    pub fn write(self, section: &mut [u8]) {
        let mut rest = section;
        let mut at = 0;
        rayon::scope(|scope| {
            for (range, fill) in self.fills {
                let (_, tail) = std::mem::take(&mut rest).split_at_mut(range.start - at);
                let (part, tail) = tail.split_at_mut(range.len());
                (rest, at) = (tail, range.end);
                scope.spawn(move |_| fill(part));
            }
        });
    }
}

const VERSION: u32 = 1;
const NO: u32 = 0;
const STORED: u32 = 1;
const HELD: u32 = 2;
const PACKED: u32 = 3;

/// The version word and tags, for the reader.
pub(super) mod tags {
    pub(crate) const VERSION: u32 = super::VERSION;
    pub(crate) const NO: u32 = super::NO;
    pub(crate) const STORED: u32 = super::STORED;
    pub(crate) const HELD: u32 = super::HELD;
    pub(crate) const PACKED: u32 = super::PACKED;
}

/// The bytes of a program.
///
/// # Errors
/// [`CompileError::Other`] when an operator has an attribute that cannot be written.
pub fn encode(program: &Program) -> Result<Vec<u8>> {
    let mut w = Writer::default();
    w.u32(VERSION);
    write_program(&mut w, program)?;
    Ok(w.0)
}

fn write_program(w: &mut Writer, program: &Program) -> Result<()> {
    w.text(&program.name);
    w.len(program.values.len());
    for v in &program.values {
        w.text(v.element_type.name());
        w.shape(&v.shape);
        match &v.constant {
            Constant::No => w.u32(NO),
            Constant::Stored(range) => {
                w.u32(STORED);
                w.range(range);
            }
            Constant::Held(tensor) => {
                w.u32(HELD);
                w.tensor(tensor);
            }
            Constant::Packed => w.u32(PACKED),
        }
    }
    for ports in [&program.inputs, &program.outputs] {
        w.len(ports.len());
        for p in ports {
            w.text(&p.name);
            w.u32(p.value);
        }
    }
    w.len(program.nodes.len());
    for n in &program.nodes {
        let kind = n.op.kind();
        w.text(kind.name);
        w.u32(kind.opset);
        w.text(n.kernel.name);
        w.text(&n.name);
        w.len(n.bodies.len());
        for body in &n.bodies {
            write_program(w, body)?;
        }
        n.op.clone().visit_attributes(w).map_err(|e| CompileError::Other {
            device: "CPU".to_owned(),
            model: program.name.clone(),
            detail: format!("{kind} {:?}: {e}", n.name),
        })?;
        for ids in [&n.inputs, &n.outputs] {
            w.len(ids.len());
            ids.iter().for_each(|id| w.u32(*id));
        }
        w.len(n.params.len());
        n.params.iter().for_each(|p| w.u64(*p as u64));
        w.len(n.packed.len());
        n.packed.iter().for_each(|r| w.range(r));
    }
    Ok(())
}
