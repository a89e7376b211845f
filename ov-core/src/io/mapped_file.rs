//! A file as memory.

use std::{
    fs::File,
    io,
    ops::Deref,
    path::Path,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use memmap2::Mmap;

/// A regular file mapped read-only, or the empty slice for an empty file.
///
/// The mapping assumes that nobody truncates or rewrites the file in place while it is used. ov's own files are only
/// ever created, renamed and unlinked, which leaves mappings intact.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a whole regular file.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A FIFO would block in open, so look before opening as well as after.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Self::from_file(&File::open(path)?)
    }

    /// Maps an open regular file.
    ///
    /// # Errors
    /// When the file cannot be mapped or is not a regular file.
    pub fn from_file(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is read-only; that the file is not changed in place while mapped is the contract of this
        // type, and no reference into it is turned into a type with invalid bit patterns (see `blob`, `frontend`).
        let map = unsafe { Mmap::map(file)? };
        // What is read from the disk then comes in huge pages, each entered by one fault: without this, a file that the
        // page cache has dropped comes back in pages of the read-ahead.
        #[cfg(target_os = "linux")]
        if map.len() >= HUGE_PAGE
            && let Err(e) = map.advise(memmap2::Advice::HugePage)
        {
            tracing::debug!(error = %e, "no huge pages for a mapped file");
        }
        maps().push((map.as_ptr().addr(), map.len()));
        Ok(Self { map: Some(map) })
    }

    /// The file as shared bytes that keep the mapping alive.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if let Some(map) = &self.map {
            maps().retain(|(start, _)| *start != map.as_ptr().addr());
        }
    }
}

/// Address and length of every mapped file.
static MAPS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn maps() -> std::sync::MutexGuard<'static, Vec<(usize, usize)>> {
    MAPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that `bytes` will not be read soon: where they are part of a mapped file, its whole pages among them leave this
/// process's memory, to come back from the page cache when they are read again. Other memory is left alone.
pub fn release(bytes: &[u8]) {
    let (start, end) = (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len());
    if maps().iter().any(|(from, len)| *from <= start && end <= from + len) {
        super::system::forget_pages(bytes);
    }
}

#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_refuses_folders() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a");
        std::fs::write(&path, b"abc").expect("written");
        assert_eq!(&MappedFile::open(&path).expect("mapped")[..], b"abc");
        std::fs::write(&path, b"").expect("written");
        assert_eq!(MappedFile::open(&path).expect("mapped").into_bytes().len(), 0);
        assert!(MappedFile::open(dir.path()).is_err());
        assert!(MappedFile::open(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn released_pages_come_back_and_the_heap_stays_as_it_is() {
        let content: Vec<u8> = (0..40_000u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a");
        std::fs::write(&path, &content).expect("written");
        let map = MappedFile::open(&path).expect("mapped").into_bytes();
        for part in [&content[..], &map[..], &map[17..39_001], &map[5..6], &map[9..9]] {
            release(part);
        }
        assert_eq!(map, content);
        drop(map);
        let heap = vec![7u8; 40_000];
        release(&heap);
        assert!(heap.iter().all(|b| *b == 7));
    }
}
