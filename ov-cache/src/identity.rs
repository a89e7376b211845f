//! Records by file identity: what spares a hit from reading the model again, and its weights from being hashed again.
//!
//! A record says: when these files had these inode numbers, sizes and time stamps, their content had this key (or was
//! sound). It is only written when that implication is safe: the stamps were read before hashing began, were the same
//! afterwards, and either the kernel gives a new stamp to every change after a stamp was read (Linux 6.13 on), or the
//! stamps were older than the coarsest clock when hashing began.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ov_core::{
    blob::{Decoder, Encoder},
    io::{FileSystem, file_system},
};

use crate::{
    BlobKey,
    files::{self, temporary_name},
};

/// What `stat` says of a file, as far as changes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    len: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let ns = |seconds: i64, ns: i64| seconds.checked_mul(1_000_000_000)?.checked_add(ns);
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec())?,
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec())?,
        })
    }

    /// Other systems have no stamp that only the system can set, so nothing is recorded there.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Option<Self> {
        None
    }

    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().filter(Metadata::is_file).and_then(|m| Self::of(&m))
    }

    fn encode(&self, e: &mut Encoder) {
        [self.device, self.inode, self.len].into_iter().for_each(|v| e.u64(v));
        [self.modified_ns, self.changed_ns].into_iter().for_each(|v| e.i64(v));
    }

    fn decode(d: &mut Decoder<'_>) -> ov_core::Result<Self> {
        Ok(Self {
            device: d.u64()?,
            inode: d.u64()?,
            len: d.u64()?,
            modified_ns: d.i64()?,
            changed_ns: d.i64()?,
        })
    }
}

/// Files with their identities when a thing was found to be true of them; `None` for one that was missing.
pub(crate) type Files = Vec<(PathBuf, Option<FileId>)>;

/// The identities of files now, or `None` when they must not be relied on.
pub(crate) fn identities(paths: &[PathBuf]) -> Option<Files> {
    let mut files = Vec::new();
    for path in paths {
        let id = FileId::at(path);
        if id.is_some() && file_system(&File::open(path).ok()?) != FileSystem::Local {
            return None;
        }
        files.push((path.clone(), id));
    }
    Some(files)
}

/// Whether what was read from now on (`start`) holds for as long as the files keep these identities.
pub(crate) fn may_be_recorded(before: &Files, start: SystemTime) -> bool {
    let after: Files = before.iter().map(|(p, _)| (p.clone(), FileId::at(p))).collect();
    let start = i64::try_from(since_epoch(start).as_nanos()).unwrap_or(0);
    let margin = if stamps_are_exact() { i64::MIN } else { MARGIN_NS };
    let old = |id: &FileId| margin == i64::MIN || start.saturating_sub(id.changed_ns) > margin;
    after == *before && before.iter().filter_map(|(_, id)| id.as_ref()).all(old)
}

/// Coarse stamps: FAT's two seconds.
const MARGIN_NS: i64 = 2_000_000_000;

/// Whether a change after a stamp was read always gets another stamp: multigrain time stamps, Linux 6.13.
fn stamps_are_exact() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 13),
        _ => false,
    }
}

pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// What the content of the files is known by.
    pub(crate) key: BlobKey,
    pub(crate) files: Files,
    /// Seconds since 1970 when it was found out.
    pub(crate) found: u64,
}

const MAGIC: [u8; 8] = *b"ovident1";
const DOMAIN: &str = "ov-cache identity record v1";
/// Far above any record: a model has few files.
const MAX_LEN: u64 = 1 << 20;

impl Record {
    fn encode(&self) -> Option<Vec<u8>> {
        let mut e = Encoder::new();
        e.raw(&MAGIC);
        e.raw(&self.key.0);
        e.u64(self.found);
        let paths: Option<Vec<&str>> = self.files.iter().map(|(p, _)| p.to_str()).collect();
        e.list(paths?.into_iter().zip(&self.files), |e, (path, (_, id))| {
            e.text(path);
            e.bool(id.is_some());
            if let Some(id) = id {
                id.encode(e);
            }
        });
        let mut bytes = e.into_bytes();
        let hash = blake3::derive_key(DOMAIN, &bytes);
        bytes.extend(hash);
        Some(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if blake3::derive_key(DOMAIN, content) != *hash {
            return None;
        }
        let mut d = Decoder::new(content);
        let mut read = || -> ov_core::Result<Option<Self>> {
            if d.array::<8>()? != MAGIC {
                return Ok(None);
            }
            let (key, found) = (BlobKey(d.array()?), d.u64()?);
            let files = d.list(|d| {
                let path = PathBuf::from(d.text()?);
                let there = d.bool()?;
                Ok((path, if there { Some(FileId::decode(d)?) } else { None }))
            })?;
            d.end()?;
            Ok(Some(Self { key, files, found }))
        };
        read().ok().flatten()
    }

    /// The record at `path`, if there is a whole one whose files are as they were.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let file = files::open_private(path, MAX_LEN).ok()?;
        let record = Self::decode(&files::read_all(&file).ok()?)?;
        record.files.iter().all(|(path, id)| FileId::at(path) == *id).then_some(record)
    }

    /// Stores it; a record that cannot be stored costs time only.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let bytes = self.encode().ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        files::create_private(folder)?;
        let temporary = folder.join(temporary_name());
        let written = File::create_new(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            files::remove(&temporary);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let model = dir.path().join("model");
        fs::write(&model, b"abc").expect("written");
        let missing = dir.path().join("missing");
        let Some(files) = identities(&[model.clone(), missing]) else { return };
        let record = Record { key: BlobKey([7; 32]), files, found: 5 };
        let path = dir.path().join("records/r");
        record.store(&path).expect("stored");
        assert_eq!(Record::load(&path), Some(record.clone()));
        let good = record.encode().expect("UTF-8");
        let mut refused = 0;
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(Record::decode(&bad), None, "bit {bit} of byte {at}");
                refused += 1;
            }
        }
        for len in 0..good.len() {
            assert_eq!(Record::decode(&good[..len]), None, "cut to {len}");
        }
        assert!(refused > 500);
        fs::write(&model, b"abd").expect("written");
        assert_eq!(Record::load(&path), None, "the file has changed");
    }
}
