//! Nodes through their kernels on a GPU, by the driver, as plans launch them.

use std::sync::{Arc, OnceLock};

use crate::{
    compile::{Compiler, Nvrtc},
    driver::{
        Api, Context, DeviceMemory, Driver, DriverError, GraphBuilder, KernelNode, Module,
        Patience, Pinned, Side, Stream, Transfer, Wait,
    },
    images::Images,
    kernels::{Arg, Launch, Source, Step},
    program::ALIGNMENT,
};

/// Whether tests are to run on the GPUs of this machine.
pub(crate) fn on_hardware() -> bool {
    std::env::var_os("OV_CUDA_HARDWARE").is_some_and(|v| v == "1")
}

/// A GPU with a compiler for it.
#[derive(Debug)]
pub(crate) struct Lab {
    context: Arc<Context>,
    compiler: &'static dyn Compiler,
}

/// Bytes of operands, and what they hold after a launch.
pub(crate) struct Operands {
    pub(crate) inputs: Vec<Vec<u8>>,
    pub(crate) outputs: Vec<Vec<u8>>,
    pub(crate) packed: Vec<Vec<u8>>,
}

/// Where something lies.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    len: usize,
}

/// Everything that a step uses in one block of memory, with gaps that nothing may write.
#[derive(Default)]
struct Layout {
    image: Vec<u8>,
    places: Vec<Place>,
}

impl Layout {
    /// Between two operands at least; no number in any floating-point type.
    const GAP: [u8; ALIGNMENT] = [0xff; ALIGNMENT];

    fn add(&mut self, bytes: &[u8]) -> Place {
        self.image.extend(Self::GAP);
        self.image.resize(self.image.len().next_multiple_of(ALIGNMENT), 0xff);
        let place = Place { at: self.image.len(), len: bytes.len() };
        self.image.extend(bytes);
        self.places.push(place);
        place
    }

    /// Whether the gaps are as they were.
    fn is_intact(&self, image: &[u8]) -> bool {
        let starts = self.places.iter().map(|p| p.at).chain([image.len()]);
        let ends = [0].into_iter().chain(self.places.iter().map(|p| p.at + p.len));
        starts.zip(ends).all(|(start, end)| image[end..start].iter().all(|b| *b == 0xff))
    }
}

impl Lab {
    /// The first GPU of this machine, where tests run on hardware.
    ///
    /// # Panics
    /// When tests are to run there and cannot.
    pub(crate) fn get() -> Option<&'static Self> {
        static LAB: OnceLock<Lab> = OnceLock::new();
        on_hardware().then(|| {
            LAB.get_or_init(|| {
                let driver = Driver::start(Api::system().expect("a driver")).expect("it starts");
                let compiler = Nvrtc::get(driver.version()).expect("NVRTC");
                Self::on(&driver, compiler).expect("a context")
            })
        })
    }

    /// The first GPU of a driver.
    pub(crate) fn on(
        driver: &Driver,
        compiler: &'static dyn Compiler,
    ) -> Result<Self, DriverError> {
        Ok(Self { context: driver.devices()[0].context()?, compiler })
    }

    fn module(&self, source: &Source) -> Result<Arc<Module>, String> {
        let capability = self.context.device().about.capability;
        let images = Images::native(source, capability, self.compiler);
        let images = images.map_err(|e| e.to_string())?;
        let image = images.candidates(capability).into_iter().next().ok_or("no code")?;
        let module = Module::load(&self.context, image.bytes, image.waits);
        module.map(Arc::new).map_err(|e| e.to_string())
    }

    /// Runs a step `rounds` times, as one graph each, and gives what its outputs hold after each.
    ///
    /// # Errors
    /// What the compiler or the driver says; writes beside the operands, changed inputs, memory that is not zero again.
    pub(crate) fn run(
        &self,
        step: &Step,
        operands: &Operands,
        rounds: usize,
    ) -> Result<Vec<Vec<Vec<u8>>>, String> {
        let mut layout = Layout::default();
        let mut all = |list: &[Vec<u8>]| list.iter().map(|b| layout.add(b)).collect::<Vec<_>>();
        let (inputs, outputs, packed) =
            (all(&operands.inputs), all(&operands.outputs), all(&operands.packed));
        let zeroed = layout.add(&vec![0; step.zeroed]);
        // As plans place them.
        let rest_at = step.zeroed / ALIGNMENT * ALIGNMENT;
        let rest = layout.add(&vec![0xff; step.scratch.saturating_sub(rest_at)]);
        layout.add(&[]);
        layout.image.extend(Layout::GAP);
        let address = |arg: &Arg, base: u64| -> Vec<u8> {
            let to = |place: &Place, offset: usize| {
                (base + (place.at + offset) as u64).to_ne_bytes().to_vec()
            };
            match arg {
                Arg::Input(i) => to(&inputs[*i], 0),
                Arg::Output(i) => to(&outputs[*i], 0),
                Arg::Packed(i) => to(&packed[*i], 0),
                Arg::Scratch(at) if *at < step.zeroed => to(&zeroed, *at),
                Arg::Scratch(at) => to(&rest, at - rest_at),
                Arg::I32(v) => v.to_ne_bytes().to_vec(),
                Arg::I64(v) => v.to_ne_bytes().to_vec(),
                Arg::F32(v) => v.to_ne_bytes().to_vec(),
                Arg::Bytes(bytes) => bytes.clone(),
            }
        };
        let modules = step
            .launches
            .iter()
            .map(|l| self.module(&l.source))
            .collect::<Result<Vec<_>, String>>()?;
        let text = |e: DriverError| e.to_string();
        let len = layout.image.len();
        let stream = Stream::new(&self.context, 0).map_err(text)?;
        let memory = DeviceMemory::new(&self.context, len).map_err(text)?;
        let mut pinned = Pinned::new(&self.context, len).map_err(text)?;
        let mut builder = GraphBuilder::new(&self.context).map_err(text)?;
        for (Launch { function, grid, block, shared, args, .. }, module) in
            step.launches.iter().zip(&modules)
        {
            let function = module.function(function).map_err(text)?;
            let args: Vec<_> = args.iter().map(|arg| address(arg, memory.address())).collect();
            let node = KernelNode {
                function: &function,
                grid: *grid,
                block: *block,
                shared: *shared,
                args: &args,
            };
            builder.kernel(node).map_err(text)?;
        }
        let (from, to) = (Side::Device(&memory, 0), Side::Host(&pinned, 0));
        builder.copies(&[Transfer { from, to, len }]).map_err(text)?;
        let mut graph = builder.finish(&stream).map_err(text)?;
        pinned.bytes_mut().copy_from_slice(&layout.image);
        memory.write(0, &pinned, len, &stream).map_err(text)?;
        let patience = Patience {
            expected: std::time::Duration::ZERO,
            most: std::time::Duration::from_secs(20),
        };
        let mut results = Vec::new();
        for round in 0..rounds {
            graph.launch(&stream).map_err(text)?;
            stream.wait_by(Wait::Spin, patience).map_err(text)?;
            let after = pinned.bytes();
            let bytes = |place: &Place| after[place.at..place.at + place.len].to_vec();
            if !layout.is_intact(after) {
                return Err(format!("round {round}: a write beside the operands"));
            }
            let kept =
                inputs.iter().chain(&packed).zip(operands.inputs.iter().chain(&operands.packed));
            if let Some(i) = kept.into_iter().position(|(place, before)| bytes(place) != *before) {
                return Err(format!("round {round}: operand {i} has changed"));
            }
            if bytes(&zeroed).iter().any(|b| *b != 0) {
                return Err(format!("round {round}: zeroed memory is not zero again"));
            }
            results.push(outputs.iter().map(bytes).collect());
        }
        Ok(results)
    }
}
