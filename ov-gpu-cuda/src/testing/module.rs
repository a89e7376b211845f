//! Shared objects of kernels, and their launches.

use std::{
    ffi::{CStr, c_char, c_int, c_ulong, c_void},
    path::Path,
};

use libloading::{Library, Symbol};

use super::run::H100;

/// In which order things happen that a GPU may do in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// 0: threads and blocks in order; otherwise in an order drawn from it.
    pub(crate) seed: u64,
    /// Whether copies to shared memory happen when they are waited for, else when they are begun.
    pub(crate) deferred: bool,
}

impl Order {
    /// Every case runs in these.
    pub(crate) const ALL: [Self; 4] = [
        Self { seed: 0, deferred: false },
        Self { seed: 0, deferred: true },
        Self { seed: 1, deferred: true },
        Self { seed: 2, deferred: false },
    ];
}

#[repr(C)]
struct ShimKernel {
    run: unsafe extern "C" fn(*mut *mut c_void),
    sizes: *const u32,
    arguments: u32,
    max_threads: u32,
}

#[repr(C)]
struct ShimLaunch {
    kernel: *const ShimKernel,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    arguments: *mut *mut c_void,
    seed: u64,
    deferred: u32,
    allowed_shared: u32,
    on_grid_wait: Option<unsafe extern "C" fn(*mut c_void)>,
    context: *mut c_void,
}

type LaunchFn = unsafe extern "C" fn(*const ShimLaunch, *mut c_char, c_ulong) -> c_int;

/// A loaded module. Modules stay loaded as long as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostModule(&'static Library);

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
}

impl HostModule {
    /// Loads an object that [`super::HostCompiler`] built.
    pub(crate) fn load(object: &Path) -> Result<Self, String> {
        // SAFETY: the object is one that this crate compiled; its initialisers only set tables of kernels.
        let library =
            unsafe { Library::new(object) }.map_err(|e| format!("{}: {e:?}", object.display()))?;
        Ok(Self(Box::leak(Box::new(library))))
    }

    /// Runs a kernel with arguments as they lie in memory; `on_grid_wait` is called when a thread first waits for what ran
    /// before.
    ///
    /// # Safety
    /// The addresses among the arguments must be those of memory that the kernel may use as it does.
    pub(crate) unsafe fn launch(
        self,
        function: &str,
        shape: Shape,
        arguments: &mut [Vec<u8>],
        order: Order,
        on_grid_wait: &mut dyn FnMut(),
    ) -> Result<(), String> {
        unsafe extern "C" fn called(context: *mut c_void) {
            // SAFETY: the context is the reference below, which outlives the launch.
            let hook = unsafe { &mut *context.cast::<&mut dyn FnMut()>() };
            hook();
        }
        let name = format!("ov_kernel_{function}\0");
        // SAFETY: a symbol of this name is a table that the compiler wrote, of this layout.
        let kernel: Symbol<'_, *const ShimKernel> = unsafe { self.0.get(name.as_bytes()) }
            .map_err(|e| format!("no kernel {function}: {e}"))?;
        // SAFETY: the library that runs kernels has this function, of this type.
        let launch: Symbol<'_, LaunchFn> =
            unsafe { self.0.get(b"ov_shim_launch\0") }.map_err(|e| e.to_string())?;
        // SAFETY: the table lives as long as the module.
        let described = unsafe { &**kernel };
        // SAFETY: the table has a size per argument.
        let sizes =
            unsafe { std::slice::from_raw_parts(described.sizes, described.arguments as usize) };
        let given: Vec<u32> = arguments.iter().map(|a| a.len() as u32).collect();
        if sizes != given {
            return Err(format!("{function} takes arguments of {sizes:?} bytes, not {given:?}"));
        }
        // Structures want to lie at multiples of 8.
        let mut aligned: Vec<Vec<u64>> = arguments
            .iter()
            .map(|bytes| {
                let mut words = vec![0_u64; bytes.len().div_ceil(8)];
                bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
                words
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            aligned.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
        let mut hook = on_grid_wait;
        let request = ShimLaunch {
            kernel: *kernel,
            grid: shape.grid,
            block: shape.block,
            shared: shape.shared,
            arguments: pointers.as_mut_ptr(),
            seed: order.seed,
            deferred: order.deferred.into(),
            allowed_shared: H100.shared_per_block,
            on_grid_wait: Some(called),
            context: (&raw mut hook).cast(),
        };
        let mut message = [0_u8; 512];
        // SAFETY: the request is complete, its pointers live during the call, and the caller vouches for the arguments.
        let failed = unsafe { launch(&raw const request, message.as_mut_ptr().cast(), 512) };
        if failed == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).map(CStr::to_string_lossy);
        Err(format!("{function}: {}", text.unwrap_or_default()))
    }
}
