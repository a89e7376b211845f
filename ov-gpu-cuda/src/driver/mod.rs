//! The CUDA driver library: the only place with unsafe code.
#![allow(unsafe_code, reason = "calls the CUDA driver library")]

/// Whether the driver library can be loaded.
pub(crate) fn library_present() -> bool {
    // SAFETY: the function only tries to load the library by its well-known names and calls nothing in it.
    unsafe { cudarc::driver::sys::is_culib_present() }
}
