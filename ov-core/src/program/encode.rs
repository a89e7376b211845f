//! A program as bytes.

use crate::{blob::Encoder, error::Result, op::OpKind};

use super::{Constant, Kernel, Program};

/// Least alignment of every tensor in the weights section: one cache line.
pub const TENSOR_ALIGNMENT: usize = 64;

type Fill = Box<dyn FnOnce(&mut [u8]) + Send>;

/// Weights to be written: ranges are given out at once, bytes are made later, all in parallel, straight in place.
pub struct Weights {
    alignment: usize,
    len: usize,
    fills: Vec<(std::ops::Range<usize>, Fill)>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("len", &self.len).field("parts", &self.fills.len()).finish()
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::aligned(TENSOR_ALIGNMENT)
    }
}

impl Weights {
    /// No weights yet; each will begin at a multiple of `alignment` bytes.
    ///
    /// # Panics
    /// When that is not a multiple of [`TENSOR_ALIGNMENT`].
    #[must_use]
    pub fn aligned(alignment: usize) -> Self {
        assert!(alignment > 0 && alignment.is_multiple_of(TENSOR_ALIGNMENT));
        Self { alignment, len: 0, fills: Vec::new() }
    }

    /// Reserves `len` bytes, which `fill` writes later.
    pub fn reserve(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) + Send + 'static,
    ) -> std::ops::Range<usize> {
        let start = self.len.next_multiple_of(self.alignment);
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

/// The version word and tags, for the reader.
pub(super) mod tags {
    pub(crate) const VERSION: u32 = 2;
    pub(crate) const NO: u8 = 0;
    pub(crate) const STORED: u8 = 1;
    pub(crate) const HELD: u8 = 2;
    pub(crate) const PACKED: u8 = 3;
}

/// Names that occur many times, each written once.
#[derive(Default)]
pub(super) struct Tables {
    ops: Vec<OpKind>,
    kernels: Vec<&'static str>,
}

impl Tables {
    fn collect<K: Kernel>(&mut self, program: &Program<K>) {
        for node in &program.nodes {
            add(&mut self.ops, node.op.kind());
            add(&mut self.kernels, node.kernel.name());
            node.bodies.iter().for_each(|body| self.collect(body));
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn index_of<T: PartialEq>(list: &[T], item: &T) -> u32 {
    let index = list.iter().position(|i| i == item);
    index.map_or(u32::MAX, |i| i as u32)
}

/// The bytes of a program.
///
/// # Errors
/// When an operator has an attribute that cannot be written.
pub fn encode<K: Kernel>(program: &Program<K>) -> Result<Vec<u8>> {
    let mut tables = Tables::default();
    tables.collect(program);
    let mut e = Encoder::new();
    e.u32(tags::VERSION);
    e.list(tables.ops.iter(), |e, kind| {
        e.text(kind.name);
        e.u32(kind.opset);
    });
    e.list(tables.kernels.iter(), |e, name| e.text(name));
    write_program(&mut e, &tables, program)?;
    Ok(e.into_bytes())
}

fn write_program<K: Kernel>(e: &mut Encoder, tables: &Tables, program: &Program<K>) -> Result<()> {
    e.text(&program.name);
    e.list(program.values.iter(), |e, v| {
        e.element_type(v.element_type);
        e.partial_shape(&v.shape);
        match &v.constant {
            Constant::No => e.u8(tags::NO),
            Constant::Stored(range) => {
                e.u8(tags::STORED);
                e.range(range);
            }
            Constant::Held(tensor) => {
                e.u8(tags::HELD);
                e.tensor(tensor);
            }
            Constant::Packed => e.u8(tags::PACKED),
        }
    });
    for ports in [&program.inputs, &program.outputs] {
        e.list(ports.iter(), |e, p| {
            e.text(&p.name);
            e.u32(p.value);
        });
    }
    e.size(program.nodes.len());
    for n in &program.nodes {
        e.u32(index_of(&tables.ops, &n.op.kind()));
        e.u32(index_of(&tables.kernels, &n.kernel.name()));
        e.text(&n.name);
        e.size(n.bodies.len());
        for body in &n.bodies {
            write_program(e, tables, body)?;
        }
        e.attributes(&*n.op)?;
        for ids in [&n.inputs, &n.outputs] {
            e.list(ids.iter(), |e, id| e.u32(*id));
        }
        e.list(n.params.iter(), |e, p| e.i64(*p));
        e.list(n.packed.iter(), Encoder::range);
    }
    Ok(())
}
