//! What a put has placed so far, so that a put that was killed does not send it again.
//!
//! Each device of a home appends the segments that it placed to a log of its own: `length u32 LE ‖ sealed segment`.
//! A tail that a crash cut off is ignored. The next writer takes over the logs of devices that nobody holds, and
//! they are removed once a head refers to the table that has taken their segments in.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use commonhold_protocol::SegmentId;
use zeroize::Zeroizing;

use crate::{
    error::{Error, IoContext},
    home::{Device, Home},
    local_seal::LocalSeal,
    table::{PlacedSegment, SegmentInfo},
};

pub(crate) const PURPOSE: &[u8] = b"journal v1";
/// The most bytes of one entry. [`SEGMENT_CHUNKS_MAX`](crate::table::SEGMENT_CHUNKS_MAX) chunks take a MiB.
const ENTRY_BYTES_MAX: u32 = 16 << 20;

/// A segment in the journal, without its chunk list: that stays on disk until the table takes it in.
#[derive(Clone)]
pub(crate) struct JournaledSegment {
    pub(crate) id: SegmentId,
    pub(crate) info: SegmentInfo,
    file: Arc<fs::File>,
    at: u64,
    bytes: u32,
}

impl JournaledSegment {
    /// The segment with its chunks, read back.
    pub(crate) fn read(&self, seal: &LocalSeal, home: &Home) -> Result<PlacedSegment, Error> {
        let dir = home.journal_dir();
        let mut sealed = vec![0; self.bytes as usize];
        self.file.read_exact_at(&mut sealed, self.at).doing("read", &dir)?;
        let changed = || io::Error::other("the journal was changed by someone else");
        PlacedSegment::from_bytes(seal.open(PURPOSE, &sealed).ok_or_else(changed).doing("read", &dir)?)
    }
}

/// The log of our device, open for appending, and those that were left behind.
pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<fs::File>,
    length: u64,
    /// Devices whose logs we took over, with their locks, until the logs are removed.
    taken_over: Vec<(usize, PathBuf, fs::File)>,
}

impl Journal {
    /// Opens our device's log and takes over abandoned ones; gives back the segments found in them.
    pub(crate) fn open(
        home: &Home,
        device: &Device,
        seal: &LocalSeal,
        each: &mut dyn FnMut(&PlacedSegment, JournaledSegment) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let dir = home.journal_dir();
        let path = log_path(&dir, device.number);
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).read(true).append(true).mode(0o600).open(&path).doing("open", &path)?;
        // So that the name is there after a power cut, as what is appended will be.
        fs::File::open(&dir).and_then(|dir| dir.sync_all()).doing("sync", &dir)?;
        let file = Arc::new(file);
        let length = read_log(&file, seal, each)?;
        // What a crash cut off must not stand between this and what is appended.
        file.set_len(length).doing("shorten", &path)?;
        let mut taken_over = Vec::new();
        for (number, path) in logs(&dir)? {
            if number == device.number {
                continue;
            }
            let Some(lock) = home.try_lock_device_number(number)? else { continue };
            match fs::File::open(&path) {
                // Another's, who is done with it by now; or not this home's.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => read_log(&Arc::new(file.doing("open", &path)?), seal, each)?,
            };
            taken_over.push((number, path, lock));
        }
        Ok(Self { path, file, length, taken_over })
    }

    /// The devices whose logs were taken over: their locks are ours until [`Self::clear`].
    pub(crate) fn taken_over(&self) -> Vec<usize> {
        self.taken_over.iter().map(|(number, ..)| *number).collect()
    }

    /// Notes a segment that is placed and recorded.
    pub(crate) fn append(&mut self, segment: &PlacedSegment, seal: &LocalSeal) -> Result<JournaledSegment, Error> {
        let sealed = seal.seal(PURPOSE, &Zeroizing::new(segment.to_bytes()))?;
        let entry = [(sealed.len() as u32).to_le_bytes().as_slice(), &sealed].concat();
        let written = (&*self.file).write_all(&entry).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half an entry would end the log for what is appended after it. If this fails too, just that happens.
            let _ = self.file.set_len(self.length);
        }
        written.doing("write", &self.path)?;
        let at = self.length + 4;
        self.length += entry.len() as u64;
        let (file, bytes) = (self.file.clone(), sealed.len() as u32);
        Ok(JournaledSegment { id: segment.id, info: segment.info.clone(), file, at, bytes })
    }

    /// Forgets all of it: a head has taken it in.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.file.set_len(0).doing("empty", &self.path)?;
        self.length = 0;
        self.taken_over.drain(..).try_for_each(|(_, path, _lock)| remove(&path))
    }
}

/// Removes the log of a device that was another home's.
pub(crate) fn forget(home: &Home, device: usize) -> Result<(), Error> {
    remove(&log_path(&home.journal_dir(), device))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing("remove", path),
        _ => Ok(()),
    }
}

fn log_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number}.log"))
}

fn logs(dir: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).doing("list", dir)? {
        let path = entry.doing("list", dir)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Hands on each whole entry; gives the length of the part that is whole.
pub(crate) fn read_log(
    file: &Arc<fs::File>,
    seal: &LocalSeal,
    each: &mut dyn FnMut(&PlacedSegment, JournaledSegment) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut reader = io::BufReader::new(&**file);
    let mut at = 0;
    loop {
        let mut length = [0; 4];
        if reader.read_exact(&mut length).is_err() {
            return Ok(at);
        }
        let bytes = u32::from_le_bytes(length);
        if bytes > ENTRY_BYTES_MAX {
            return Ok(at);
        }
        // As much as there is, whatever the length says.
        let mut sealed = Vec::new();
        let read = (&mut reader).take(bytes.into()).read_to_end(&mut sealed);
        if read.is_err() || sealed.len() < bytes as usize {
            return Ok(at);
        }
        let Some(plain) = seal.open(PURPOSE, &sealed) else { return Ok(at) };
        let segment = PlacedSegment::from_bytes(plain)?;
        let (id, info) = (segment.id, segment.info.clone());
        each(&segment, JournaledSegment { id, info, file: file.clone(), at: at + 4, bytes })?;
        at += 4 + u64::from(bytes);
    }
}

#[cfg(test)]
mod tests;
