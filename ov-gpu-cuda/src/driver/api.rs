//! The functions of the driver library, looked up by name when it is opened, so that nothing is called that is not there.

use std::{
    ffi::{c_char, c_int, c_uint, c_ulonglong, c_void},
    fmt,
    path::{Path, PathBuf},
};

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr,
    CUevent, CUfunction, CUfunction_attribute, CUgraph, CUgraphEdgeData, CUgraphExec, CUgraphNode,
    CUmodule, CUstream, CUuuid,
};
use libloading::{Library, Symbol};

/// What every function of the driver returns; 0 is success. A number, because drivers newer than this build have codes
/// that no enumeration here could hold.
pub(crate) type Code = u32;

macro_rules! functions {
    (
        required { $($name:ident($($arg:ty),*);)* }
        optional { $($extra:ident($($earg:ty),*);)* }
    ) => {
        /// The functions, by the names that the library exports.
        #[allow(non_snake_case, reason = "the names are those of the library")]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) -> Code,)*
            $(pub(super) $extra: Option<unsafe extern "C" fn($($earg),*) -> Code>,)*
        }

        impl Functions {
            fn look_up(library: &Library, hidden: &[&str]) -> Result<Self, &'static str> {
                Ok(Self {
                    // SAFETY: each type is the documented signature of the function of its name.
                    $($name: unsafe {
                        look_up(library, stringify!($name), hidden).ok_or(stringify!($name))?
                    },)*
                    // SAFETY: as above.
                    $($extra: unsafe { look_up(library, stringify!($extra), hidden) },)*
                })
            }
        }
    };
}

/// A function of the library; none when it is not there, or is to be taken for missing.
///
/// # Safety
/// `F` must be a function pointer of the function's signature.
unsafe fn look_up<F: Copy>(library: &Library, name: &str, hidden: &[&str]) -> Option<F> {
    if hidden.contains(&name) {
        return None;
    }
    // SAFETY: the caller vouches for the type; the library outlives the table that this goes into.
    let found: Result<Symbol<'_, F>, _> = unsafe { library.get(name.as_bytes()) };
    found.ok().map(|f| *f)
}

functions! {
    required {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, CUdevice);
        cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, CUdevice);
        cuDeviceTotalMem_v2(*mut usize, CUdevice);
        cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
        cuDevicePrimaryCtxRelease_v2(CUdevice);
        cuCtxSetCurrent(CUcontext);
        cuMemAlloc_v2(*mut CUdeviceptr, usize);
        cuMemFree_v2(CUdeviceptr);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
        cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
        cuMemcpyDtoH_v2(*mut c_void, CUdeviceptr, usize);
        cuMemcpyPeerAsync(CUdeviceptr, CUcontext, CUdeviceptr, CUcontext, usize, CUstream);
        cuModuleLoadData(*mut CUmodule, *const c_void);
        cuModuleUnload(CUmodule);
        cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
        cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
        cuStreamCreateWithPriority(*mut CUstream, c_uint, c_int);
        cuStreamSynchronize(CUstream);
        cuStreamQuery(CUstream);
        cuStreamDestroy_v2(CUstream);
        cuEventCreate(*mut CUevent, c_uint);
        cuEventDestroy_v2(CUevent);
        cuGraphCreate(*mut CUgraph, c_uint);
        cuGraphAddKernelNode_v2(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_KERNEL_NODE_PARAMS);
        cuGraphAddMemcpyNode(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_MEMCPY3D, CUcontext);
        cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
        cuGraphLaunch(CUgraphExec, CUstream);
        cuGraphExecDestroy(CUgraphExec);
        cuGraphDestroy(CUgraph);
    }
    optional {
        cuDeviceGetUuid_v2(*mut CUuuid, CUdevice);
        cuDeviceGetPCIBusId(*mut c_char, c_int, CUdevice);
        cuCtxGetStreamPriorityRange(*mut c_int, *mut c_int);
        cuGetErrorName(Code, *mut *const c_char);
        cuGetErrorString(Code, *mut *const c_char);
        cuEventElapsedTime(*mut f32, CUevent, CUevent);
        cuGraphAddEventRecordNode(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, CUevent);
        cuGraphAddDependencies_v2(CUgraph, *const CUgraphNode, *const CUgraphNode, *const CUgraphEdgeData, usize);
        cuGraphUpload(CUgraphExec, CUstream);
        cuFuncGetParamInfo(CUfunction, usize, *mut usize, *mut usize);
    }
}

/// A driver library that was opened, which is never closed: what was left in it with a lost GPU may still run its code.
pub(crate) struct Api {
    pub(super) functions: Functions,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api")
    }
}

/// Why there is no driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    /// The library was not found.
    #[error(
        "the driver library (libcuda.so.1) is not installed: install the NVIDIA driver, or set OV_CUDA_LIBRARY_PATH to \
         the folder that holds it ({0})"
    )]
    Missing(String),
    /// A function that everything needs is not there.
    #[error("the driver lacks {0}: install a newer one (CUDA 12.0 or later)")]
    TooOld(&'static str),
}

/// Folders to look for libraries in before the system's: `OV_CUDA_LIBRARY_PATH`.
fn library_folders() -> Vec<PathBuf> {
    std::env::var_os("OV_CUDA_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default()
}

const NAMES: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

impl Api {
    /// The driver of this system.
    ///
    /// # Errors
    /// When there is none, or one that is too old.
    pub(crate) fn system() -> Result<Self, LoadError> {
        let inside = library_folders().into_iter().flat_map(|folder| {
            NAMES.iter().map(move |name| folder.join(name)).filter(|path| path.is_file())
        });
        let mut reason = String::new();
        for path in inside.chain(NAMES.iter().map(PathBuf::from)) {
            match Self::open(&path, &[]) {
                Err(LoadError::Missing(e)) => reason = e,
                found => return found,
            }
        }
        Err(LoadError::Missing(reason))
    }

    /// The driver in a file, as if it did not export the functions in `hidden`.
    ///
    /// # Errors
    /// When it cannot be opened or lacks a function that is always needed.
    pub(crate) fn open(path: &Path, hidden: &[&str]) -> Result<Self, LoadError> {
        // SAFETY: loading the driver library runs its initialisers, which is what an installed driver is for.
        let library =
            unsafe { Library::new(path) }.map_err(|e| LoadError::Missing(e.to_string()))?;
        let functions = Functions::look_up(&library, hidden).map_err(LoadError::TooOld)?;
        std::mem::forget(library);
        Ok(Self { functions })
    }
}
