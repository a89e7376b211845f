//! NVIDIA's run-time compiler, loaded when it is first needed.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr::null,
    sync::OnceLock,
};

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use super::{CompileError, Compiler, Format, Image, Target, library};
use crate::kernels::Source;

const PTX_WRAPPERS: &str = include_str!("../kernels/cuda/ov_ptx.cuh");
const WRAPPERS: &str = include_str!("../kernels/cuda/ov_dev.cuh");

/// Beside the architecture. Registers and spills go to the log.
const OPTIONS: &[&str] = &["--std=c++17", "--ptxas-options=-v"];

#[cfg(windows)]
const NAMES: [&str; 3] = ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64_112_0.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
const COMPANION: &str = if cfg!(windows) { "nvrtc-builtins" } else { "libnvrtc-builtins.so" };

type Create = unsafe extern "C" fn(
    *mut nvrtcProgram,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> nvrtcResult;
type CompileProgram =
    unsafe extern "C" fn(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult;
type Size = unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult;
type Bytes = unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult;

/// The compiler. Compiling is safe from several threads at once.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    version: (c_int, c_int),
    /// Capabilities that it compiles for, as 90 for 9.0; none when it does not tell.
    supported: Vec<c_int>,
    create: Create,
    compile: CompileProgram,
    destroy: unsafe extern "C" fn(*mut nvrtcProgram) -> nvrtcResult,
    error: unsafe extern "C" fn(nvrtcResult) -> *const c_char,
    log: (Size, Bytes),
    cubin: (Size, Bytes),
    ptx: (Size, Bytes),
}

impl Nvrtc {
    /// The compiler that is installed, found once per process. A driver that knows CUDA up to `newest` (13000 is 13.0)
    /// need not take what the compiler of a later generation makes, so that an older one comes first there.
    ///
    /// # Errors
    /// Why there is none, in words for a user.
    pub(crate) fn get(newest: i32) -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        let load = || {
            let mut names = NAMES;
            if newest < 13_000 {
                names.swap(0, 1);
            }
            Self::load(&names)
        };
        FOUND.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// Major and minor version of CUDA that it belongs to.
    pub(crate) fn version(&self) -> (u32, u32) {
        (self.version.0.unsigned_abs(), self.version.1.unsigned_abs())
    }

    fn load(names: &[&str]) -> Result<Self, String> {
        let library = library::open(names, COMPANION)?;
        // The types below are those that the library's header declares for these names.
        unsafe fn symbol<T: Copy>(library: &'static Library, name: &str) -> Result<T, String> {
            // SAFETY: as for the caller.
            let found = unsafe { library.get::<T>(name.as_bytes()) };
            found.map(|s| *s).map_err(|_| format!("the NVRTC that is installed lacks {name}"))
        }
        type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> nvrtcResult;
        // SAFETY: `nvrtcVersion(int*, int*)`.
        let ask: Version = unsafe { symbol(library, "nvrtcVersion") }?;
        let mut version = (0, 0);
        // SAFETY: both point to numbers.
        let result = unsafe { ask(&raw mut version.0, &raw mut version.1) };
        if result != nvrtcResult::NVRTC_SUCCESS {
            return Err(format!("the NVRTC that is installed does not start: {result:?}"));
        }
        let supported = supported(library).unwrap_or_default();
        // SAFETY: all of them as in the header.
        unsafe {
            Ok(Self {
                version,
                supported,
                create: symbol(library, "nvrtcCreateProgram")?,
                compile: symbol(library, "nvrtcCompileProgram")?,
                destroy: symbol(library, "nvrtcDestroyProgram")?,
                error: symbol(library, "nvrtcGetErrorString")?,
                log: (
                    symbol(library, "nvrtcGetProgramLogSize")?,
                    symbol(library, "nvrtcGetProgramLog")?,
                ),
                cubin: (symbol(library, "nvrtcGetCUBINSize")?, symbol(library, "nvrtcGetCUBIN")?),
                ptx: (symbol(library, "nvrtcGetPTXSize")?, symbol(library, "nvrtcGetPTX")?),
            })
        }
    }

    fn describe(&self, result: nvrtcResult) -> String {
        // SAFETY: the function takes any code and gives a static text.
        let text = unsafe { (self.error)(result) };
        if text.is_null() {
            return format!("{result:?}");
        }
        // SAFETY: a C string that lives as long as the library.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    fn check(&self, what: &str, result: nvrtcResult) -> Result<(), CompileError> {
        if result == nvrtcResult::NVRTC_SUCCESS {
            return Ok(());
        }
        Err(CompileError(format!("NVRTC cannot {what}: {}", self.describe(result))))
    }

    fn bytes(
        &self,
        what: &str,
        program: &Program<'_>,
        (size, get): (Size, Bytes),
    ) -> Result<Vec<u8>, CompileError> {
        let mut len = 0;
        // SAFETY: the program lives, the size is written to a number.
        self.check(what, unsafe { size(program.handle, &raw mut len) })?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: the buffer has the size that the library asks for.
        self.check(what, unsafe { get(program.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

/// The capabilities that the library says it compiles for.
fn supported(library: &'static Library) -> Option<Vec<c_int>> {
    type Ask = unsafe extern "C" fn(*mut c_int) -> nvrtcResult;
    // SAFETY: `nvrtcGetNumSupportedArchs(int*)`.
    let count = unsafe { library.get::<Ask>(b"nvrtcGetNumSupportedArchs") }.ok()?;
    // SAFETY: `nvrtcGetSupportedArchs(int*)`.
    let list = unsafe { library.get::<Ask>(b"nvrtcGetSupportedArchs") }.ok()?;
    let mut len = 0;
    // SAFETY: writes one number.
    let result = unsafe { count(&raw mut len) };
    let mut all = vec![0; usize::try_from(len).ok().filter(|len| *len < 1024)?];
    // SAFETY: writes as many numbers as it has said.
    let filled = unsafe { list(all.as_mut_ptr()) };
    let good = nvrtcResult::NVRTC_SUCCESS;
    (result == good && filled == good).then_some(all)
}

/// The newest of `supported` capabilities, as 90 for 9.0, up to one; that one itself when none is known.
fn nearest_of(supported: &[c_int], (major, minor): (u32, u32)) -> (u32, u32) {
    let all = supported.iter().filter_map(|s| u32::try_from(*s).ok()).map(|s| (s / 10, s % 10));
    all.filter(|s| *s <= (major, minor)).max().unwrap_or((major, minor))
}

/// A program of the library, destroyed in the end.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: nvrtcProgram,
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this library and not yet destroyed.
        let _: nvrtcResult = unsafe { (self.nvrtc.destroy)(&raw mut self.handle) };
    }
}

impl Compiler for Nvrtc {
    fn identity(&self) -> String {
        let wrappers = blake3::Hasher::new()
            .update(PTX_WRAPPERS.as_bytes())
            .update(WRAPPERS.as_bytes())
            .finalize();
        let (major, minor) = self.version;
        format!("nvrtc {major}.{minor} {} {}", OPTIONS.join(" "), wrappers.to_hex())
    }

    fn nearest(&self, capability: (u32, u32)) -> (u32, u32) {
        nearest_of(&self.supported, capability)
    }

    fn compile(&self, source: &Source, target: Target) -> Result<Image, CompileError> {
        let text = format!("{PTX_WRAPPERS}{WRAPPERS}#line 1 \"kernel\"\n{}", source.text());
        let c_string = |text: String| {
            CString::new(text).map_err(|_| CompileError("the text holds a zero byte".to_owned()))
        };
        let text = c_string(text)?;
        let architecture = c_string(format!("--gpu-architecture={}", target.name()))?;
        let fixed: Vec<CString> =
            OPTIONS.iter().map(|o| c_string((*o).to_owned())).collect::<Result<_, _>>()?;
        let options: Vec<*const c_char> =
            std::iter::once(&architecture).chain(&fixed).map(|o| o.as_ptr()).collect();
        let mut program = Program { nvrtc: self, handle: std::ptr::null_mut() };
        // SAFETY: the text is a C string; no headers are given.
        let created = unsafe {
            (self.create)(
                &raw mut program.handle,
                text.as_ptr(),
                c"ov.cu".as_ptr(),
                0,
                null(),
                null(),
            )
        };
        self.check("take the program", created)?;
        // SAFETY: the program lives, the options are as many C strings.
        let compiled =
            unsafe { (self.compile)(program.handle, options.len() as c_int, options.as_ptr()) };
        let log = self.bytes("give its log", &program, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if compiled != nvrtcResult::NVRTC_SUCCESS {
            let what = self.describe(compiled);
            return Err(CompileError(format!("{what} for {}:\n{log}", target.name())));
        }
        let parts = match target.format {
            Format::Cubin => self.cubin,
            Format::Ptx => self.ptx,
        };
        Ok(Image { bytes: self.bytes("give its output", &program, parts)?, log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(body: &'static str) -> Source {
        Source { body: body.into(), defines: vec![("N", "4".to_owned())] }
    }

    /// The compiler, or a line that says why its tests are left out.
    fn nvrtc() -> Option<&'static Nvrtc> {
        Nvrtc::get(13_000).inspect_err(|reason| println!("SKIPPED: {reason}")).ok()
    }

    #[test]
    fn gives_machine_code_assembly_and_a_log() {
        let Some(nvrtc) = nvrtc() else { return };
        let kernel = source("OV_KERNEL k(int* y) { ov_grid_wait(); y[ov_thread_x()] = N; }\n");
        let cubin = nvrtc.compile(&kernel, Target::cubin((9, 0))).expect("compiles");
        assert!(cubin.bytes.starts_with(b"\x7fELF"));
        assert!(cubin.log.contains("registers"), "{}", cubin.log);
        let target = Target { capability: (8, 0), specific: false, format: Format::Ptx };
        let ptx = nvrtc.compile(&kernel, target).expect("compiles");
        assert!(String::from_utf8_lossy(&ptx.bytes).contains(".target sm_80"));
        assert!(nvrtc.identity().contains("nvrtc"));
        assert!(nvrtc.version().0 >= 12);
    }

    #[test]
    fn errors_say_the_line_of_the_kernel() {
        let Some(nvrtc) = nvrtc() else { return };
        let wrong = source("\nOV_KERNEL k(int* y) { y[0] = nothing; }\n");
        let error = nvrtc.compile(&wrong, Target::cubin((8, 0))).unwrap_err().to_string();
        assert!(error.contains("kernel(3)") && error.contains("nothing"), "{error}");
    }

    #[test]
    fn every_wrapper_compiles() {
        let Some(nvrtc) = nvrtc() else { return };
        let kernel = source(include_str!("../testing/cpp/every_wrapper.cu"));
        for capability in [(8, 0), (9, 0), (12, 0)] {
            nvrtc.compile(&kernel, Target::cubin(capability)).unwrap_or_else(|e| panic!("{e}"));
        }
    }

    #[test]
    fn gpus_that_are_too_new_get_the_nearest_older_code() {
        let supported = [75, 80, 86, 90, 100, 120];
        for (capability, expected) in
            [((9, 0), (9, 0)), ((8, 9), (8, 6)), ((12, 1), (12, 0)), ((5, 0), (5, 0))]
        {
            assert_eq!(nearest_of(&supported, capability), expected, "{capability:?}");
        }
        assert_eq!(nearest_of(&[], (9, 0)), (9, 0));
        let Some(nvrtc) = nvrtc() else { return };
        assert_eq!(nvrtc.nearest((9, 0)), (9, 0));
        assert!(nvrtc.nearest((99, 0)) < (99, 0), "{:?}", nvrtc.supported);
    }
}
