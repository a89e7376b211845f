//! A driver library without a GPU: see `cpp/fake_cuda.cpp`.

use std::{
    ffi::{CStr, CString, c_char, c_longlong, c_ulong},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use libloading::{Library, Symbol};

use super::HostCompiler;

/// A driver of its own, which nothing else in the process shares: tests that change it run side by side.
#[derive(Debug)]
pub(crate) struct FakeCuda {
    path: PathBuf,
    /// Never closed, as by [`Api`](crate::driver::Api).
    library: &'static Library,
}

impl FakeCuda {
    /// A driver with two H100s of 1 GiB; `None` with a line that says so where there is no compiler.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let compiler = HostCompiler::get()?;
        let header = ("fake_cuda.h", include_str!("cpp/fake_cuda.h"));
        let parts = [
            include_str!("cpp/fake_cuda.cpp"),
            include_str!("cpp/fake_memory.cpp"),
            include_str!("cpp/fake_module.cpp"),
            include_str!("cpp/fake_graph.cpp"),
        ];
        let built = compiler.library("libcuda.so.1", header, &parts).expect("the driver builds");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = built.with_file_name(format!("driver-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the driver");
        let path = folder.join("libcuda.so.1");
        fs::copy(&built, &path).expect("a copy of the driver");
        // SAFETY: the initialisers of this library only fill its own tables.
        let library = unsafe { Library::new(&path) }.expect("the driver loads");
        Some(Self { path, library: Box::leak(Box::new(library)) })
    }

    /// The library's file, to be opened by its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets how the driver behaves: `devices`, `memory` (bytes per device), `init` (code of `cuInit`),
    /// `driver_version`, `capability` (90), `processors`, `fail_allocation` and `fail_launch` (from which one on, 0:
    /// none), `fail_code` and `fail_device` (of failing launches), `fail_module` (code), `delay_us` (before each task of
    /// a stream), `seed` and `deferred` (of kernels; an odd seed also turns the order of independent nodes of a graph).
    pub(crate) fn set(&self, knob: &str, value: i64) {
        let name = CString::new(knob).expect("no zero byte");
        // SAFETY: the library's function of this name has this type.
        let set: Symbol<'_, unsafe extern "C" fn(*const c_char, c_longlong)> =
            unsafe { self.library.get(b"fake_cuda_set\0") }.expect("is exported");
        // SAFETY: the name is a C string.
        unsafe { set(name.as_ptr(), value) };
    }

    /// What was done or exists: `launches`, `early_launches` (of kernels that began before the one before them),
    /// `graph_launches`, `launch_priority` (of the last), `programmatic_edges`, `allocation_calls`; bytes that were copied:
    /// `host_to_device`, `device_to_host`, `within_device` (by nodes of graphs), `peer`; `allocations`, `bytes`, `pinned`,
    /// `modules`, `contexts`, `graphs`, `graph_execs`.
    pub(crate) fn get(&self, counter: &str) -> i64 {
        let name = CString::new(counter).expect("no zero byte");
        // SAFETY: the library's function of this name has this type.
        let get: Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_longlong> =
            unsafe { self.library.get(b"fake_cuda_get\0") }.expect("is exported");
        // SAFETY: the name is a C string.
        unsafe { get(name.as_ptr()) }
    }

    /// What went wrong in the first kernel that failed.
    pub(crate) fn message(&self) -> String {
        // SAFETY: the library's function of this name has this type.
        let message: Symbol<'_, unsafe extern "C" fn(*mut c_char, c_ulong)> =
            unsafe { self.library.get(b"fake_cuda_message\0") }.expect("is exported");
        let mut text = [0_u8; 512];
        // SAFETY: the buffer is as long as is said.
        unsafe { message(text.as_mut_ptr().cast(), 512) };
        CStr::from_bytes_until_nul(&text)
            .map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
    }
}

impl Drop for FakeCuda {
    fn drop(&mut self) {
        if let Some(folder) = self.path.parent() {
            drop(fs::remove_dir_all(folder));
        }
    }
}
