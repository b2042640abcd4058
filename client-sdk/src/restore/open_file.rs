//! A file while it is written: under a draft's name, in order, and without filling the page cache.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

use crate::error::{Error, IoContext};

/// After so many bytes, those written are sent to the disk, and those already there leave the page cache. Pages of a
/// restored file would each be a fresh one: in a virtual machine, whose host has to find the memory first, that costs
/// 2.3 to 3.8 s of system time per GiB, more than all else that a get does; with pages used again and again, 0.3.
const DROP_EVERY_BYTES: u64 = 8 << 20;
/// How far back pages are looked for that the disk had not taken in before. Nobody ever waits for it.
const DROP_BEHIND_BYTES: u64 = 64 << 20;

/// A file that is being restored.
pub(crate) struct OpenFile {
    file: File,
    draft: OsString,
    name: OsString,
    path: PathBuf,
    at: u64,
    /// Up to where the disk was told to take it in.
    sent: u64,
}

impl OpenFile {
    /// A file that was created as `draft`, and is to be `name` and `path`.
    pub(super) fn new(file: File, draft: OsString, name: OsString, path: PathBuf) -> Self {
        Self { file, draft, name, path, at: 0, sent: 0 }
    }

    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, self.at).doing("write", &self.path)?;
        self.at += bytes.len() as u64;
        if self.at - self.sent >= DROP_EVERY_BYTES {
            let from = self.sent.saturating_sub(DROP_BEHIND_BYTES);
            // Starts to write dirty pages and drops clean ones; a file system without a disk does neither.
            let _ = fadvise(&self.file, from, NonZeroU64::new(self.at - from), Advice::DontNeed);
            self.sent = self.at;
        }
        Ok(())
    }

    /// Leaves a hole.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.at += bytes;
    }

    /// Gives it its length, which must be what its entry says.
    pub(super) fn finish(&self, bytes: u64) -> Result<(), Error> {
        if self.at != bytes {
            let reason = format!("{}: {} bytes instead of {bytes}", self.path.display(), self.at);
            return Err(Error::TreeDamaged { reason });
        }
        // A hole at the end leaves the file too short.
        self.file.set_len(self.at).doing("set the length of", &self.path)
    }

    pub(super) fn as_file(&self) -> &File {
        &self.file
    }

    pub(super) fn draft(&self) -> &OsStr {
        &self.draft
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
