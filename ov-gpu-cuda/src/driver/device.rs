//! GPUs and their contexts.

use std::{
    ffi::{CStr, c_char, c_int},
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute as Attribute, CUuuid};

use super::{
    api::{Api, Code},
    error::{DriverError, ErrorKind},
};

pub(super) type Result<T> = std::result::Result<T, DriverError>;

/// A driver that has been initialised.
#[derive(Debug)]
pub(crate) struct Driver {
    devices: Vec<Arc<Device>>,
    /// As the driver counts: 13000 is CUDA 13.0.
    version: i32,
}

impl Driver {
    /// Initialises the driver and lists its GPUs by their numbers; contexts are made later, by who needs them.
    ///
    /// # Errors
    /// What the driver says, 100 when there is no GPU.
    pub(crate) fn start(api: Api) -> Result<Self> {
        let start = Instant::now();
        let api = Arc::new(api);
        // SAFETY: the functions take the documented arguments.
        check(&api, "cuInit", unsafe { (api.functions.cuInit)(0) })?;
        let mut version = 0;
        // SAFETY: as above; writes one integer.
        check(&api, "cuDriverGetVersion", unsafe {
            (api.functions.cuDriverGetVersion)(&raw mut version)
        })?;
        let mut count = 0;
        // SAFETY: as above.
        check(&api, "cuDeviceGetCount", unsafe {
            (api.functions.cuDeviceGetCount)(&raw mut count)
        })?;
        let mut devices = Vec::new();
        let mut broken = None;
        for i in 0..count {
            match Device::get(&api, i) {
                Ok(device) => devices.push(Arc::new(device)),
                Err(e) => {
                    tracing::warn!(device = i, error = %e, "a GPU is left out");
                    broken = Some(e);
                }
            }
        }
        let microseconds = start.elapsed().as_micros() as u64;
        tracing::debug!(microseconds, version, devices = devices.len(), "the driver is started");
        match broken {
            Some(e) if devices.is_empty() => Err(e),
            _ => Ok(Self { devices, version }),
        }
    }

    /// The GPUs that answer, in order of their numbers.
    pub(crate) fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// The newest CUDA version that the driver knows, 13000 for 13.0.
    pub(crate) fn version(&self) -> i32 {
        self.version
    }
}

/// One GPU.
pub(crate) struct Device {
    pub(super) api: Arc<Api>,
    handle: CUdevice,
    /// Number among the GPUs that the driver shows.
    pub(crate) ordinal: usize,
    /// What it is and has.
    pub(crate) about: About,
    /// Set for good once a call showed that the context is corrupt.
    lost: AtomicBool,
    context: Mutex<Weak<Context>>,
}

/// What a GPU is and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// Marketing name.
    pub(crate) name: String,
    /// Compute capability.
    pub(crate) capability: (u32, u32),
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub(crate) shared_per_block: u32,
    /// Bytes of memory.
    pub(crate) memory: usize,
    /// `GPU-…`, if the driver tells.
    pub(crate) uuid: String,
    /// `domain:bus:device.function`, if the driver tells.
    pub(crate) pci: String,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {})", self.ordinal, self.about.name)
    }
}

impl Device {
    fn get(api: &Arc<Api>, ordinal: c_int) -> Result<Self> {
        let f = &api.functions;
        let mut handle: CUdevice = 0;
        // SAFETY: writes one handle.
        check(api, "cuDeviceGet", unsafe { (f.cuDeviceGet)(&raw mut handle, ordinal) })?;
        let attribute = |which: Attribute| -> Result<u32> {
            let mut value = 0;
            // SAFETY: writes one integer; the handle is the one just given.
            check(api, "cuDeviceGetAttribute", unsafe {
                (f.cuDeviceGetAttribute)(&raw mut value, which, handle)
            })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let mut name = [0 as c_char; 256];
        // SAFETY: writes at most the given number of characters.
        check(api, "cuDeviceGetName", unsafe {
            (f.cuDeviceGetName)(name.as_mut_ptr(), name.len() as c_int, handle)
        })?;
        let mut memory = 0;
        // SAFETY: writes one number.
        check(api, "cuDeviceTotalMem", unsafe {
            (f.cuDeviceTotalMem_v2)(&raw mut memory, handle)
        })?;
        Ok(Self {
            api: Arc::clone(api),
            handle,
            ordinal: usize::try_from(ordinal).unwrap_or(0),
            about: About {
                name: text(&name),
                capability: (
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
                shared_per_block: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                )?,
                memory,
                uuid: uuid(api, handle),
                pci: pci(api, handle),
            },
            lost: AtomicBool::new(false),
            context: Mutex::default(),
        })
    }

    /// Whether the context was found to be corrupt: nothing may be run here again in this process.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// The context, made by whoever needs it first and released by the last.
    ///
    /// # Errors
    /// What the driver says; the loss of the device.
    pub(crate) fn context(self: &Arc<Self>) -> Result<Arc<Context>> {
        let mut weak = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = weak.upgrade() {
            return Ok(context);
        }
        self.expect_alive("cuDevicePrimaryCtxRetain")?;
        let start = Instant::now();
        let mut handle: CUcontext = std::ptr::null_mut();
        // SAFETY: writes one handle, which is released when the last user of the context is gone.
        self.check("cuDevicePrimaryCtxRetain", unsafe {
            (self.api.functions.cuDevicePrimaryCtxRetain)(&raw mut handle, self.handle)
        })?;
        let mut context = Context { device: Arc::clone(self), handle, priorities: (0, 0) };
        context.priorities = context.priority_range()?;
        let context = Arc::new(context);
        *weak = Arc::downgrade(&context);
        let microseconds = start.elapsed().as_micros() as u64;
        tracing::debug!(microseconds, device = self.ordinal, "a context is made");
        Ok(context)
    }

    /// A code as a result; remembers the loss of the device.
    pub(super) fn check(&self, call: &'static str, code: Code) -> Result<()> {
        let result = check(&self.api, call, code);
        if ErrorKind::of(code) == ErrorKind::DeviceLost && !self.lost.swap(true, Ordering::AcqRel) {
            tracing::error!(device = self.ordinal, call, code, "the GPU is lost to this process");
        }
        result
    }

    /// Gives the device up: it does not answer, as `text` says.
    pub(super) fn lose(&self, call: &'static str, text: String) -> DriverError {
        const TIMEOUT: Code = 702;
        self.lost.store(true, Ordering::Release);
        tracing::error!(device = self.ordinal, name = self.about.name, call, text, "the GPU hangs");
        DriverError { code: TIMEOUT, call, text }
    }

    /// Refuses further work on a lost device, without calling the driver.
    pub(super) fn expect_alive(&self, call: &'static str) -> Result<()> {
        if self.is_lost() {
            return Err(DriverError {
                code: 709,
                call,
                text: "was not called: an earlier error has corrupted the context".to_owned(),
            });
        }
        Ok(())
    }
}

fn pci(api: &Api, handle: CUdevice) -> String {
    let Some(get) = api.functions.cuDeviceGetPCIBusId else { return String::new() };
    let mut bytes = [0 as c_char; 32];
    // SAFETY: writes at most the given number of characters.
    match unsafe { get(bytes.as_mut_ptr(), bytes.len() as c_int, handle) } {
        0 => text(&bytes),
        _ => String::new(),
    }
}

fn uuid(api: &Api, handle: CUdevice) -> String {
    let Some(get) = api.functions.cuDeviceGetUuid_v2 else { return String::new() };
    let mut uuid = CUuuid { bytes: [0; 16] };
    // SAFETY: writes one identifier.
    if unsafe { get(&raw mut uuid, handle) } != 0 {
        return String::new();
    }
    let hex: Vec<String> = uuid.bytes.iter().map(|b| format!("{:02x}", *b as u8)).collect();
    let part = |range: std::ops::Range<usize>| hex[range].concat();
    format!("GPU-{}-{}-{}-{}-{}", part(0..4), part(4..6), part(6..8), part(8..10), part(10..16))
}

/// The characters before the first zero.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The primary context of a GPU.
pub(crate) struct Context {
    pub(super) device: Arc<Device>,
    pub(super) handle: CUcontext,
    /// Stream priorities, from the least urgent to the most urgent.
    priorities: (i32, i32),
}

// SAFETY: contexts may be used from any thread; each call first makes the context current on its own thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?})", self.device)
    }
}

impl Context {
    /// The GPU.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Makes the context the one of this thread's next calls.
    pub(super) fn current(&self, call: &'static str) -> Result<()> {
        self.device.expect_alive(call)?;
        // SAFETY: the handle is valid while `self` lives.
        self.check("cuCtxSetCurrent", unsafe {
            (self.device.api.functions.cuCtxSetCurrent)(self.handle)
        })
    }

    pub(super) fn check(&self, call: &'static str, code: Code) -> Result<()> {
        self.device.check(call, code)
    }

    fn priority_range(&self) -> Result<(i32, i32)> {
        let Some(get) = self.device.api.functions.cuCtxGetStreamPriorityRange else {
            return Ok((0, 0));
        };
        self.current("cuCtxGetStreamPriorityRange")?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: writes two numbers.
        self.check("cuCtxGetStreamPriorityRange", unsafe {
            get(&raw mut least, &raw mut greatest)
        })?;
        Ok((least, greatest))
    }

    /// Stream priorities, from the least urgent to the most urgent; equal where the driver has one only.
    pub(crate) fn priorities(&self) -> (i32, i32) {
        self.priorities
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !self.device.is_lost() {
            // SAFETY: retained once by `Device::context`; whoever used the handle has held this object.
            unsafe { (self.device.api.functions.cuDevicePrimaryCtxRelease_v2)(self.device.handle) };
        }
    }
}

/// A code as a result, with the driver's words for it.
fn check(api: &Api, call: &'static str, code: Code) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let words = |get: Option<unsafe extern "C" fn(Code, *mut *const c_char) -> Code>| {
        let mut found: *const c_char = std::ptr::null();
        // SAFETY: writes one pointer, to a text that lives as long as the library.
        let known = unsafe { get?(code, &raw mut found) } == 0 && !found.is_null();
        // SAFETY: a zero-terminated text, as documented.
        known.then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
    };
    let name = words(api.functions.cuGetErrorName);
    let meaning = words(api.functions.cuGetErrorString);
    let text = match (name, meaning) {
        (Some(name), Some(meaning)) => format!("{name}: {meaning}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => "unknown".to_owned(),
    };
    Err(DriverError { code, call, text })
}
