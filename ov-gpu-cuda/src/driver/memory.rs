//! Memory of a GPU, and pinned memory of the host that it copies from and to.

use std::{ffi::c_void, fmt, sync::Arc};

use cudarc::driver::sys::CUdeviceptr;

use super::{
    device::{Context, Result},
    stream::Stream,
};

/// Memory of a GPU; freed when dropped, unless the device is lost.
pub(crate) struct DeviceMemory {
    context: Arc<Context>,
    address: CUdeviceptr,
    len: usize,
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({} bytes)", self.len)
    }
}

impl DeviceMemory {
    /// Allocates at least one byte.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub(crate) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.current("cuMemAlloc")?;
        let mut address = 0;
        // SAFETY: writes one address.
        context.check("cuMemAlloc", unsafe {
            (context.device.api.functions.cuMemAlloc_v2)(&raw mut address, len.max(1))
        })?;
        Ok(Self { context: Arc::clone(context), address, len })
    }

    /// Where it starts.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The context that it belongs to.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Starts setting every byte to zero.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn zero(&self, stream: &Stream) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        self.context.current("cuMemsetD8Async")?;
        // SAFETY: the range is this memory.
        self.context.check("cuMemsetD8Async", unsafe {
            (self.context.device.api.functions.cuMemsetD8Async)(
                self.address,
                0,
                self.len,
                stream.handle,
            )
        })
    }

    /// Starts copying pinned bytes to `at`; the caller waits for the stream before it drops or writes either.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When the bytes do not fit.
    pub(crate) fn write(
        &self,
        at: usize,
        from: &Pinned,
        len: usize,
        stream: &Stream,
    ) -> Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len) && len <= from.len);
        if len == 0 {
            return Ok(());
        }
        self.context.current("cuMemcpyHtoDAsync")?;
        // SAFETY: both ranges were checked above; freeing either waits for the device, and the only caller waits for the
        // stream before it writes the pinned bytes again.
        self.context.check("cuMemcpyHtoDAsync", unsafe {
            (self.context.device.api.functions.cuMemcpyHtoDAsync_v2)(
                self.address + at as u64,
                from.address,
                len,
                stream.handle,
            )
        })
    }
}

impl DeviceMemory {
    /// Copies bytes to the beginning, after what is in the stream; returns when it is done.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When the bytes do not fit.
    pub(crate) fn fill(&self, from: &[u8], stream: &Stream) -> Result<()> {
        assert!(from.len() <= self.len);
        if from.is_empty() {
            return Ok(());
        }
        self.context.current("cuMemcpyHtoDAsync")?;
        // SAFETY: the range was checked above; the bytes are borrowed until the stream has been waited for, also after an
        // error of the copy itself, which then has not begun.
        self.context.check("cuMemcpyHtoDAsync", unsafe {
            (self.context.device.api.functions.cuMemcpyHtoDAsync_v2)(
                self.address,
                from.as_ptr().cast(),
                from.len(),
                stream.handle,
            )
        })?;
        stream.wait()
    }

    /// Copies the first bytes to the host. The caller has waited for what writes them.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When there are not so many bytes.
    pub(crate) fn read(&self, to: &mut [u8]) -> Result<()> {
        assert!(to.len() <= self.len);
        if to.is_empty() {
            return Ok(());
        }
        self.context.current("cuMemcpyDtoH")?;
        // SAFETY: the range was checked above; the call returns when the bytes are there.
        self.context.check("cuMemcpyDtoH", unsafe {
            (self.context.device.api.functions.cuMemcpyDtoH_v2)(
                to.as_mut_ptr().cast(),
                self.address,
                to.len(),
            )
        })
    }

    /// Copies the first `len` bytes of memory of another GPU here, after what is in the stream, which is one of this
    /// memory's GPU; returns when it is done. The caller has waited for what writes them.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn take(&self, from: &Self, len: usize, stream: &Stream) -> Result<()> {
        assert!(len <= self.len && len <= from.len);
        if len == 0 {
            return Ok(());
        }
        self.context.current("cuMemcpyPeerAsync")?;
        // SAFETY: both ranges were checked above, and both are borrowed until the stream has been waited for.
        self.context.check("cuMemcpyPeerAsync", unsafe {
            (self.context.device.api.functions.cuMemcpyPeerAsync)(
                self.address,
                self.context.handle,
                from.address,
                from.context.handle,
                len,
                stream.handle,
            )
        })?;
        stream.wait()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.context.current("cuMemFree").is_ok() {
            // SAFETY: allocated by `new`; graphs that use it are dropped before it by their owners.
            unsafe { (self.context.device.api.functions.cuMemFree_v2)(self.address) };
        }
    }
}

/// Page-locked memory of the host, which the GPU copies from and to by itself. Readable and writable at full speed by
/// the processor (not write-combined).
pub(crate) struct Pinned {
    context: Arc<Context>,
    address: *mut c_void,
    len: usize,
}

// SAFETY: owned memory; access from Rust follows the borrow of `self`.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.len)
    }
}

impl Pinned {
    const PORTABLE: u32 = 1;

    /// Allocates zeroed memory, at least one byte, that every GPU can copy from.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub(crate) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.current("cuMemHostAlloc")?;
        let mut address = std::ptr::null_mut();
        // SAFETY: writes one address.
        context.check("cuMemHostAlloc", unsafe {
            (context.device.api.functions.cuMemHostAlloc)(
                &raw mut address,
                len.max(1),
                Self::PORTABLE,
            )
        })?;
        // SAFETY: `len` bytes were allocated; zeroed because Rust may read them before they are written.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, len) };
        Ok(Self { context: Arc::clone(context), address, len })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes; the GPU writes only between a launch and the wait for it, which slots do
        // under one exclusive borrow.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.len) }
    }

    /// To write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.len) }
    }

    /// The address of a byte, for copies by the GPU.
    pub(super) fn at(&self, offset: usize, len: usize) -> *mut c_void {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: checked to lie within the allocation.
        unsafe { self.address.cast::<u8>().add(offset).cast() }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.current("cuMemFreeHost").is_ok() {
            // SAFETY: allocated by `new`; copies from and to it have been waited for.
            unsafe { (self.context.device.api.functions.cuMemFreeHost)(self.address) };
        }
    }
}
