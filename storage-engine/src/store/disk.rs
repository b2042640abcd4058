//! What the store needs of a file system, behind two small traits, so that a disk that fails or loses power can be
//! put in its place.
//!
//! Decides nothing: the store says what to write, sync, punch and delete. Offsets and lengths are in bytes.
//!
//! Long aligned pieces go past the page cache (`O_DIRECT`): a shard is written once and hardly ever read soon after, so
//! its pages would only drive out what the volunteer's machine needs, and filling them costs more time than the disk
//! takes (2.3 to 3.8 s of system time per GiB on a virtual machine, against 0.05). Linux keeps both ways coherent.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::record::UNIT_BYTES;

/// Shorter pieces go through the page cache: there the disk's latency, not copying, is what counts, and the kernel
/// gathers small writes until the next sync.
pub(crate) const DIRECT_BYTES_MIN: usize = 128 << 10;

/// A volume file's number; never used twice while anything refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeNumber(pub u32);

impl fmt::Display for VolumeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// Whether a punched hole gave its space back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punched {
    /// The bytes read as zeros and take no space.
    Yes,
    /// This file system cannot; nothing was changed.
    Unsupported,
}

/// The folder of volume files.
pub trait Disk: Send + Sync {
    /// The volumes that exist.
    fn volumes(&self) -> io::Result<Vec<VolumeNumber>>;
    /// Makes a volume of `bytes` zeros, its space reserved where the file system can, its name durable.
    fn create(&self, volume: VolumeNumber, bytes: u64) -> io::Result<Arc<dyn VolumeFile>>;
    /// Opens a volume. `NotFound` means that this file is gone, not that the whole folder is.
    fn open(&self, volume: VolumeNumber) -> io::Result<Arc<dyn VolumeFile>>;
    /// Deletes a volume.
    fn delete(&self, volume: VolumeNumber) -> io::Result<()>;
    /// Bytes that the file system has left for us.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open volume file.
pub trait VolumeFile: Send + Sync {
    /// The file's length.
    fn length(&self) -> io::Result<u64>;
    /// The bytes that it takes on the disk.
    fn disk_bytes(&self) -> io::Result<u64>;
    /// When the file was written to last, in nanoseconds of whatever clock: other after a write than before.
    fn modified(&self) -> io::Result<u64>;
    /// Fills the buffer, or fails.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of it, or fails.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Makes a range of blocks zeros and keeps its space reserved, where the file system can; elsewhere nothing is changed.
    fn clear(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives a range of blocks back.
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<Punched>;
    /// Returns once everything written before is durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether the volume's name still leads to this file; not after someone deleted or replaced it.
    fn is_current(&self) -> io::Result<bool>;
}

/// The real thing: a folder.
pub struct FolderDisk {
    folder: PathBuf,
    /// The file system does no direct I/O, or not in our units.
    direct_refused: Arc<AtomicBool>,
}

const EXTENSION: &str = "volume";

impl FolderDisk {
    /// The volumes in `folder`, which is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        Ok(Self { folder: folder.to_owned(), direct_refused: Arc::default() })
    }

    fn path(&self, volume: VolumeNumber) -> PathBuf {
        self.folder.join(format!("{volume}.{EXTENSION}"))
    }

    fn file(&self, volume: VolumeNumber, file: File) -> io::Result<Arc<dyn VolumeFile>> {
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        let (path, direct_refused) = (self.path(volume), self.direct_refused.clone());
        Ok(Arc::new(FolderFile { file, path, identity, direct: OnceLock::new(), direct_refused }))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // An empty path is the current folder's parent-less name.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Whether an error means that there is no space, not that something is broken.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Disk for FolderDisk {
    fn volumes(&self) -> io::Result<Vec<VolumeNumber>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(number) = stem.and_then(|stem| stem.parse().ok())
            {
                volumes.push(VolumeNumber(number));
            }
        }
        volumes.sort_unstable();
        Ok(volumes)
    }

    fn create(&self, volume: VolumeNumber, bytes: u64) -> io::Result<Arc<dyn VolumeFile>> {
        let path = self.path(volume);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let reserved = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
            other => other.map_err(io::Error::from),
        };
        let made = reserved.and_then(|()| file.sync_all()).and_then(|()| sync_folder(&self.folder));
        if let Err(error) = made {
            // What could be reserved before the disk was full must not stay reserved; the error itself matters more.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.file(volume, file)
    }

    fn open(&self, volume: VolumeNumber) -> io::Result<Arc<dyn VolumeFile>> {
        match OpenOptions::new().read(true).write(true).open(self.path(volume)) {
            Ok(file) => self.file(volume, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.folder.is_dir() => {
                Err(io::Error::other("the folder of volumes is gone: is its disk mounted?"))
            }
            Err(error) => Err(error),
        }
    }

    fn delete(&self, volume: VolumeNumber) -> io::Result<()> {
        fs::remove_file(self.path(volume))?;
        sync_folder(&self.folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = statvfs(&self.folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

struct FolderFile {
    file: File,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// The same file, opened for direct I/O when that is first of use.
    direct: OnceLock<File>,
    /// Of the whole folder.
    direct_refused: Arc<AtomicBool>,
}

/// Whether direct I/O could move so many bytes from or to this offset and address, and is worth it.
fn is_direct(offset: u64, bytes: &[u8]) -> bool {
    let unit = UNIT_BYTES as usize;
    bytes.len() >= DIRECT_BYTES_MIN
        && bytes.len().is_multiple_of(unit)
        && offset.is_multiple_of(UNIT_BYTES)
        && bytes.as_ptr().addr().is_multiple_of(unit)
}

/// Whether an error says that there is no direct I/O of this kind here, rather than that something is broken.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

impl FolderFile {
    /// The descriptor for direct I/O, if there can be one.
    fn direct(&self) -> Option<&File> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(direct) = self.direct.get() {
            return Some(direct);
        }
        match OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&self.path) {
            // Another file may have taken the name; then ours goes on without.
            Ok(direct) => match direct.metadata() {
                Ok(found) if (found.dev(), found.ino()) == self.identity => Some(self.direct.get_or_init(|| direct)),
                _ => None,
            },
            Err(error) => {
                self.note_refusal(&error);
                None
            }
        }
    }

    /// Remembers that this file system does no direct I/O, if that is what the error says.
    fn note_refusal(&self, error: &io::Error) -> bool {
        let refused = is_refusal(error);
        if refused && !self.direct_refused.swap(true, Ordering::Relaxed) {
            tracing::info!(path = %self.path.display(), "no direct I/O here; volumes go through the page cache");
        }
        refused
    }
}

impl VolumeFile for FolderFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn modified(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        // Wraps for times before 1970; only equality is asked for.
        Ok((metadata.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec() as u64))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if is_direct(offset, buffer)
            && let Some(direct) = self.direct()
        {
            match direct.read_at(buffer, offset) {
                Ok(bytes) if bytes == buffer.len() => return Ok(()),
                // Cut short or interrupted: the other way says what is the matter.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted || self.note_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if is_direct(offset, bytes)
            && let Some(direct) = self.direct()
        {
            match direct.write_all_at(bytes, offset) {
                Err(error) if self.note_refusal(&error) => {}
                other => return other,
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn clear(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<Punched> {
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) => Ok(Punched::Yes),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(Punched::Unsupported),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_current(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino()) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
