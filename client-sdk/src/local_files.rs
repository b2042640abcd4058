//! Reading this machine's files for a put: names, attributes, and contents without their holes.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::{OFlags, SeekFrom, seek};

/// Holes smaller than this are stored as the zeros that they are.
const HOLE_BYTES_MIN: u64 = 64 << 10;

/// Names of one folder that are taken at once; while they are looked for, twice as many are in memory, at some 60 bytes
/// each: 30 MiB. A folder of more is read again for each so many: for a million files that takes seconds, and to store
/// them minutes.
const NAMES_AT_ONCE: usize = 1 << 18;

/// The names in a folder, in order of their bytes, however many there are.
pub(crate) struct Names {
    /// What comes next, in order.
    ready: std::vec::IntoIter<OsString>,
    /// The last of `ready`, if there may be names after it.
    last: Option<OsString>,
    at_once: usize,
}

impl Names {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        Self::read(dir, NAMES_AT_ONCE)
    }

    fn read(dir: &Path, at_once: usize) -> io::Result<Self> {
        let mut names = Self { ready: Vec::new().into_iter(), last: None, at_once };
        names.read_after(dir, None)?;
        Ok(names)
    }

    /// The next name in `dir`, which is the folder that these names are of.
    pub(crate) fn next_in(&mut self, dir: &Path) -> io::Result<Option<OsString>> {
        if self.ready.len() == 0
            && let Some(last) = self.last.take()
        {
            self.read_after(dir, Some(&last))?;
        }
        Ok(self.ready.next())
    }

    /// Takes the first names after `last`.
    fn read_after(&mut self, dir: &Path, last: Option<&OsString>) -> io::Result<()> {
        // Their memory, before others take as much.
        self.ready = Vec::new().into_iter();
        let mut names: Vec<OsString> = Vec::new();
        // The last name that can be among them, once there are too many. Names are compared by their bytes.
        let mut end: Option<OsString> = None;
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if last.is_some_and(|last| name <= *last) || end.as_ref().is_some_and(|end| name > *end) {
                continue;
            }
            names.push(name);
            if names.len() >= 2 * self.at_once {
                names.select_nth_unstable(self.at_once - 1);
                names.truncate(self.at_once);
                end = names.last().cloned();
            }
        }
        names.sort_unstable();
        if names.len() > self.at_once {
            names.truncate(self.at_once);
            end = names.last().cloned();
        }
        // A folder that changes while it is read may name an entry twice.
        names.dedup();
        self.ready = names.into_iter();
        self.last = end;
        Ok(())
    }
}

/// Opens a file for reading; refuses to follow a link that took its place, and never blocks on a pipe.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is no longer a regular file")) }
}

/// The extended attributes of a file, folder or link. A file system without them has none.
pub(crate) fn extended_attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names {
        // One that vanished meanwhile is not an error, one that may not be read is left out as it would be by others.
        if let Ok(Some(value)) = xattr::get(path, &name) {
            attributes.push((name.as_bytes().to_vec(), value));
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// Bytes to be read.
    Data(u64),
    /// Zeros that take no space.
    Hole(u64),
}

/// The stretches of a file, one after another from its start: never two of a kind in a row. A file system that knows
/// no holes has one stretch.
pub(crate) struct Stretches<'f> {
    file: &'f File,
    at: u64,
    length: u64,
    may_have_holes: bool,
}

/// The stretches of a file as long as `metadata` says; it ends earlier if it has been cut since.
pub(crate) fn stretches<'f>(file: &'f File, metadata: &Metadata) -> Stretches<'f> {
    let length = metadata.len();
    Stretches { file, at: 0, length, may_have_holes: metadata.blocks() * 512 < length }
}

impl Stretches<'_> {
    /// Where the next data starts; at the end of the file if there is none.
    fn next_data(&mut self, from: u64) -> u64 {
        match seek(self.file, SeekFrom::Data(from)) {
            Ok(data) => data.min(self.length),
            Err(rustix::io::Errno::NXIO) => {
                // Nothing but a hole up to the end, wherever that is now.
                let length = self.file.metadata().map_or(0, |metadata| metadata.len());
                self.length = self.length.min(length.max(from));
                self.length
            }
            // No holes that anybody could tell us of.
            Err(_) => from,
        }
    }

    fn next_hole(&self, from: u64) -> u64 {
        seek(self.file, SeekFrom::Hole(from)).map_or(self.length, |hole| hole.min(self.length))
    }
}

impl Iterator for Stretches<'_> {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        let start = self.at;
        if start >= self.length {
            return None;
        }
        if !self.may_have_holes {
            self.at = self.length;
            return Some(Stretch::Data(self.length - start));
        }
        let mut data = self.next_data(start);
        if data - start >= HOLE_BYTES_MIN {
            self.at = data;
            return Some(Stretch::Hole(data - start));
        }
        // Data up to the next hole that is worth it.
        while data < self.length {
            let hole = self.next_hole(data);
            if hole <= data {
                // A file system that contradicts itself.
                self.at = self.length;
                return Some(Stretch::Data(self.length - start));
            }
            data = self.next_data(hole);
            if data - hole >= HOLE_BYTES_MIN {
                self.at = hole;
                return Some(Stretch::Data(hole - start));
            }
        }
        self.at = self.length;
        (self.length > start).then(|| Stretch::Data(self.length - start))
    }
}

/// A part of a file, read without moving its position. It ends with the part, or where the file does.
pub(crate) struct Part<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl<'f> Part<'f> {
    pub(crate) fn new(file: &'f File, start: u64, bytes: u64) -> Self {
        Self { file, at: start, end: start.saturating_add(bytes) }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
