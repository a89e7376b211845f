//! Compiled kernels on a GPU.

use std::{
    ffi::{CString, c_int},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUmodule};

use super::{
    device::{Context, Result},
    error::DriverError,
};

/// A loaded module; unloaded when the last of its functions is gone.
pub(crate) struct Module {
    context: Arc<Context>,
    handle: CUmodule,
    waits: bool,
}

// SAFETY: handles of modules may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Module")
    }
}

impl Module {
    /// Loads a cubin, or PTX, which the driver compiles. `waits`: whether its kernels wait for those before them, which
    /// only code for compute capability 9.0 and later does.
    ///
    /// # Errors
    /// What the driver says; [`ErrorKind::NoImage`](super::ErrorKind::NoImage) when the image is for another GPU.
    pub(crate) fn load(context: &Arc<Context>, image: &[u8], waits: bool) -> Result<Self> {
        context.current("cuModuleLoadData")?;
        // PTX is read as a text up to a zero, which the caller's bytes need not end with.
        let mut terminated = Vec::with_capacity(image.len() + 1);
        terminated.extend_from_slice(image);
        terminated.push(0);
        let mut handle: CUmodule = std::ptr::null_mut();
        // SAFETY: the image lives during the call; what it holds is checked by the driver, which takes its sizes from
        // the image itself: images come from a compiler, or from the section of a blob whose hash is compared.
        context.check("cuModuleLoadData", unsafe {
            (context.device.api.functions.cuModuleLoadData)(
                &raw mut handle,
                terminated.as_ptr().cast(),
            )
        })?;
        Ok(Self { context: Arc::clone(context), handle, waits })
    }

    /// A kernel by name.
    ///
    /// # Errors
    /// When the module holds none of that name.
    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Result<Function> {
        self.context.current("cuModuleGetFunction")?;
        let text = CString::new(name).map_err(|_| DriverError {
            code: 500,
            call: "cuModuleGetFunction",
            text: format!("{name:?} is no name"),
        })?;
        let mut handle: CUfunction = std::ptr::null_mut();
        // SAFETY: writes one handle; the name ends with a zero.
        self.context.check("cuModuleGetFunction", unsafe {
            (self.context.device.api.functions.cuModuleGetFunction)(
                &raw mut handle,
                self.handle,
                text.as_ptr(),
            )
        })?;
        Ok(Function { module: Arc::clone(self), handle, shared: AtomicU32::new(0) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.current("cuModuleUnload").is_ok() {
            // SAFETY: loaded by `load`; functions hold the module.
            unsafe { (self.context.device.api.functions.cuModuleUnload)(self.handle) };
        }
    }
}

/// A kernel of a loaded module.
pub(crate) struct Function {
    module: Arc<Module>,
    pub(super) handle: CUfunction,
    /// Dynamic shared memory that its blocks were allowed to use.
    shared: AtomicU32,
}

// SAFETY: handles of functions may be used from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl Function {
    /// Whether it waits itself for the kernel before it.
    pub(crate) fn waits(&self) -> bool {
        self.module.waits
    }

    /// Checks arguments against the parameters that the kernel declares, where the driver tells them: it copies as many
    /// bytes as are declared from each address that it is given.
    ///
    /// # Errors
    /// When there are more or fewer of them, or one is of another size.
    pub(super) fn expect_args(&self, args: &[Vec<u8>]) -> Result<()> {
        let call = "cuFuncGetParamInfo";
        let context = &self.module.context;
        let Some(get) = context.device.api.functions.cuFuncGetParamInfo else { return Ok(()) };
        context.current(call)?;
        let size = |index: usize| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: writes two numbers; the handle is valid while the module lives.
            let code = unsafe { get(self.handle, index, &raw mut offset, &raw mut size) };
            (code == 0).then_some(size)
        };
        let given = || args.iter().map(|a| Some(a.len())).chain([None]);
        if given().enumerate().all(|(index, len)| size(index) == len) {
            return Ok(());
        }
        let declared: Vec<usize> = (0..).map_while(size).take(64).collect();
        let given: Vec<usize> = given().flatten().collect();
        let text = format!("a kernel takes arguments of {declared:?} bytes, not {given:?}");
        Err(DriverError { code: 1, call, text })
    }

    /// Lets blocks use so much dynamic shared memory. What they may use without asking depends on the static memory of
    /// the kernel, so that every amount is asked for.
    ///
    /// # Errors
    /// When the GPU has less.
    pub(crate) fn allow_shared(&self, bytes: u32) -> Result<()> {
        if bytes <= self.shared.load(Ordering::Acquire) {
            return Ok(());
        }
        let context = &self.module.context;
        context.current("cuFuncSetAttribute")?;
        let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: the handle is valid while the module lives.
        context.check("cuFuncSetAttribute", unsafe {
            (context.device.api.functions.cuFuncSetAttribute)(
                self.handle,
                CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                value,
            )
        })?;
        self.shared.fetch_max(bytes, Ordering::AcqRel);
        Ok(())
    }
}
