//! A compiled model on one GPU: its weights there, and its kernels as they are asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ov_core::error::{DeviceError, Error};

use crate::{
    DEVICE_NAME,
    compile::Compiler,
    driver::{
        Context, Device, DeviceMemory, DriverError, ErrorKind, Function, Module, Pinned, Stream,
    },
    images::{Candidate, Code, Images},
    kernels::Source,
};

/// A model's part of one GPU, shared by its slots.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) context: Arc<Context>,
    pub(crate) weights: DeviceMemory,
    code: Arc<Code>,
    compiler: Option<&'static dyn Compiler>,
    modules: Mutex<HashMap<Source, Arc<Module>>>,
    functions: Mutex<HashMap<(Source, String), Arc<Function>>>,
}

/// Bytes that are copied to pinned memory while those before them are on their way to the GPU.
const CHUNK: usize = 8 << 20;

/// An error of the driver for a device, as users see it.
pub(crate) fn failed(device: &Device, error: DriverError) -> Error {
    let name = format!("{DEVICE_NAME}.{}", device.ordinal);
    DeviceError::Failed { name, source: Box::new(error) }.into()
}

impl Loaded {
    /// Copies the weights to the GPU, in the order in which they lie.
    ///
    /// # Errors
    /// What the driver says: mostly that there is not so much memory.
    pub(crate) fn new(
        context: Arc<Context>,
        weights: &[u8],
        code: Arc<Code>,
        compiler: Option<&'static dyn Compiler>,
    ) -> Result<Self, DriverError> {
        let start = Instant::now();
        let memory = DeviceMemory::new(&context, weights.len())?;
        if !weights.is_empty() {
            let stream = Stream::new(&context, context.priorities().0)?;
            let mut staging = [
                Pinned::new(&context, CHUNK.min(weights.len()))?,
                Pinned::new(&context, CHUNK.min(weights.len()))?,
            ];
            for (i, chunk) in weights.chunks(CHUNK).enumerate() {
                let [first, second] = &mut staging;
                // What was copied from this buffer two chunks ago has arrived: the wait before the copy of the last.
                let pinned = if i % 2 == 0 { first } else { second };
                pinned.bytes_mut()[..chunk.len()].copy_from_slice(chunk);
                stream.wait()?;
                memory.write(i * CHUNK, pinned, chunk.len(), &stream)?;
            }
            stream.wait()?;
        }
        let (microseconds, bytes) = (start.elapsed().as_micros() as u64, weights.len());
        tracing::debug!(microseconds, bytes, "weights are on the GPU");
        Ok(Self {
            context,
            weights: memory,
            code,
            compiler,
            modules: Mutex::default(),
            functions: Mutex::default(),
        })
    }

    /// A kernel, from the images of the blob, else compiled now.
    ///
    /// # Errors
    /// When no image suits the GPU and none can be made, or the module lacks the function.
    pub(crate) fn function(&self, source: &Source, name: &str) -> Result<Arc<Function>, Error> {
        let key = (source.clone(), name.to_owned());
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&key) {
            return Ok(Arc::clone(function));
        }
        let device = self.context.device();
        let module = self.module(source, name)?;
        let function = Arc::new(module.function(name).map_err(|e| failed(device, e))?);
        functions.insert(key, Arc::clone(&function));
        Ok(function)
    }

    /// The module of a kernel. Drivers may look at a kernel's code only when they are asked for it.
    fn module(&self, source: &Source, function: &str) -> Result<Arc<Module>, Error> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(source) {
            return Ok(Arc::clone(module));
        }
        let device = self.context.device();
        let capability = device.about.capability;
        let refused = match self.first_of(self.code.candidates(source, capability), function)? {
            Ok(module) => return Ok(keep(&mut modules, source, module)),
            Err(refused) => refused,
        };
        let name = format!("{DEVICE_NAME}.{}", device.ordinal);
        let unsupported = |what: &str, hint: &str| {
            let (name, what, hint) = (name.clone(), what.to_owned(), hint.to_owned());
            Error::from(DeviceError::Unsupported { name, what, hint })
        };
        let Some(compiler) = self.compiler else {
            return Err(match refused {
                Some(e) => failed(device, e),
                None => unsupported(
                    "shapes whose kernels are not in the compiled model",
                    ": install NVRTC (the package nvidia-cuda-nvrtc), or compile for these shapes",
                ),
            });
        };
        let images = Images::native(source, capability, compiler)
            .map_err(|e| DeviceError::Failed { name: name.clone(), source: Box::new(e) })?;
        match self.first_of(images.candidates(capability), function)? {
            Ok(module) => Ok(keep(&mut modules, source, module)),
            Err(Some(e)) => Err(failed(device, e)),
            Err(None) => {
                Err(unsupported("GPUs that its compiler does not know", ": install a newer NVRTC"))
            }
        }
    }

    /// The first image that the driver takes, or why it refused the last.
    fn first_of(
        &self,
        candidates: Vec<Candidate<'_>>,
        function: &str,
    ) -> Result<Result<Arc<Module>, Option<DriverError>>, Error> {
        let mut refused = None;
        for candidate in candidates {
            let loaded = Module::load(&self.context, candidate.bytes, candidate.waits)
                .map(Arc::new)
                .and_then(|module| module.function(function).map(|_| module));
            match loaded {
                Ok(module) => return Ok(Ok(module)),
                Err(e) if e.kind() == ErrorKind::NoImage => refused = Some(e),
                Err(e) => return Err(failed(self.context.device(), e)),
            }
        }
        Ok(Err(refused))
    }
}

fn keep(
    modules: &mut HashMap<Source, Arc<Module>>,
    source: &Source,
    module: Arc<Module>,
) -> Arc<Module> {
    modules.insert(source.clone(), Arc::clone(&module));
    module
}
