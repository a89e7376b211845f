//! Calls to the operating system that std lacks: space, file systems, priorities, page tables.

use std::{fs::File, io};

/// The kind of file system that a file lies on, as far as caches care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// On this machine: inode numbers and time stamps are stable.
    Local,
    /// Over a network, in user space, layered, or unknown: they may not be.
    Other,
}

/// The file system of an open file.
#[must_use]
pub fn file_system(file: &File) -> FileSystem {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        // SAFETY: a zeroed statfs is a valid value of this plain struct.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open for the life of `file`, and `stat` is writable.
        let failed = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) };
        if failed == 0 && LOCAL.contains(&(stat.f_type as u32)) {
            return FileSystem::Local;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = file;
    FileSystem::Other
}

/// ext2 to ext4, XFS, btrfs, tmpfs, F2FS, ZFS: numbers of statfs(2).
#[cfg(target_os = "linux")]
const LOCAL: &[u32] = &[0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010, 0x2FC1_2FC1];

/// Bytes that this user may still write on the file system of an open file; `None` where the system does not tell.
#[must_use]
pub fn free_bytes(file: &File) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd as _;
        // SAFETY: a zeroed statvfs is a valid value of this plain struct.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open for the life of `file`, and `stat` is writable.
        let failed = unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut stat) };
        #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
        if failed == 0 {
            return Some((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64));
        }
        None
    }
    #[cfg(not(unix))]
    {
        let _unused = file;
        None
    }
}

/// Reserves `len` bytes for a file, so that a full disk is noticed before anything is written.
///
/// # Errors
/// When there is not so much space. File systems that cannot reserve are no error.
pub fn reserve_space(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        let Ok(len) = libc::off_t::try_from(len) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the descriptor is open for the life of `file`; the call touches no memory of ours.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINTR) => Ok(()),
            _ => Err(error),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = (file, len);
        Ok(())
    }
}

/// Lets the calling thread run only when others leave a processor idle; does nothing where the system has no such thing.
pub fn yield_to_others() {
    #[cfg(target_os = "linux")]
    // SAFETY: the call touches no memory; 0 is the calling thread, whose niceness may always be raised.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
}

/// The effective user; `None` where the system has none.
#[must_use]
pub fn user() -> Option<u32> {
    #[cfg(unix)]
    {
        // SAFETY: the call has no preconditions and cannot fail.
        Some(unsafe { libc::geteuid() })
    }
    #[cfg(not(unix))]
    None
}

/// Enters memory into the page tables, without changing it, so that whoever reads it later is not interrupted. Memory
/// of a mapped file that is not there any more is left out, not an error.
pub fn populate(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let start = bytes.as_ptr().addr() & !(PAGE - 1);
        let len = bytes.as_ptr().addr() + bytes.len() - start;
        if bytes.is_empty() {
            return;
        }
        // SAFETY: the range covers pages that hold `bytes`, which are mapped; reading page tables in changes no memory.
        unsafe {
            libc::madvise(
                bytes.as_ptr().map_addr(|_| start).cast_mut().cast(),
                len,
                libc::MADV_POPULATE_READ,
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = bytes;
}

/// Takes the whole pages within `bytes` out of the page tables. They must be of a file that is mapped read-only: their
/// content comes back from there.
pub(super) fn forget_pages(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let first = bytes.as_ptr().addr().next_multiple_of(PAGE);
        let end = (bytes.as_ptr().addr() + bytes.len()) & !(PAGE - 1);
        if first >= end {
            return;
        }
        // SAFETY: the pages are mapped, as `bytes` lies in them, and of a file that nobody writes through this mapping,
        // so that what is read next is what was there.
        unsafe {
            libc::madvise(
                bytes.as_ptr().with_addr(first).cast_mut().cast(),
                end - first,
                libc::MADV_DONTNEED,
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = bytes;
}

/// Enters the whole pages within a range of writable anonymous memory into the page tables.
///
/// # Safety
/// The range must stay mapped until this returns.
pub(super) unsafe fn populate_range(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    {
        let first = start.addr().next_multiple_of(PAGE);
        let end = (start.addr() + len) & !(PAGE - 1);
        if first >= end {
            return;
        }
        // SAFETY: the caller keeps the range mapped; the call changes no content.
        unsafe {
            libc::madvise(start.with_addr(first).cast(), end - first, libc::MADV_POPULATE_WRITE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = (start, len);
}

/// Smallest page of the systems where this is used; larger pages are rounded by the kernel or refused, which is harmless.
#[cfg(target_os = "linux")]
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_their_space_and_take_reservations() {
        let file = tempfile::tempfile().expect("a temporary file");
        reserve_space(&file, 1 << 20).expect("a megabyte");
        reserve_space(&file, 0).expect("nothing");
        if cfg!(target_os = "linux") {
            assert!(reserve_space(&file, u64::MAX / 4).is_err());
            assert!(free_bytes(&file).is_some_and(|free| free > 0));
        }
        assert_eq!(file_system(&file), file_system(&file));
    }

    #[test]
    fn populating_changes_nothing() {
        let mut memory = crate::io::HugeBuffer::zeroed(5 << 20).expect("memory");
        memory[4097] = 7;
        populate(&memory[100..9000]);
        populate(&[]);
        let start = memory.as_mut_ptr();
        for (from, len) in [(5000, 3 << 20), (1, 1), (0, 5 << 20)] {
            // SAFETY: each range lies within the buffer, which outlives the call.
            unsafe { populate_range(start.wrapping_add(from), len) };
        }
        assert_eq!((memory[4097], memory[4098]), (7, 0));
    }
}
