//! The record store: what this node keeps for others besides shards, in append-only logs that sled indexes.
//!
//! The logs are the truth; the index is rebuilt from them when it is missing, broken or behind. A change counts when
//! the log is synced, with one `fdatasync` for all that wait together; only then does the index learn of it and the
//! caller get its answer. Nothing here verifies a signature or knows what a record means: bodies are bytes.
//!
//! All calls block; async callers use `spawn_blocking`.

#[cfg(any(test, feature = "fuzzing"))]
pub mod any_bytes;
mod compact;
mod entry;
mod index;
mod open;
mod sync;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use commonhold_protocol::{VaultId, ask::Refusal};

pub use self::{entry::Kind, open::OpenReport};
use self::{
    entry::{BODY_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, FILE_HEADER_BYTES, TAG_REMOVED, file_header},
    index::{FILE_NUMBER_MAX, Index, Key, Location, Position},
};
use crate::data_dir::sync_folder;

/// The most changes in one commit: all records of a message, each with a drop, and the vault's lease.
pub const COMMIT_CHANGES_MAX: usize = 512;

/// What an entry takes on disk besides its body.
pub const ENTRY_BYTES: u64 = ENTRY_HEADER_BYTES as u64;

/// Why the record store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index fails.
    #[error("the index of the records: {0}")]
    Index(#[from] sled::Error),
    /// The space for records is used up.
    #[error("the space for records is used up ({bytes_max} bytes)")]
    Full {
        /// The limit.
        bytes_max: u64,
    },
    /// A body is longer than the format allows.
    #[error("a record of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// A log of a newer format.
    #[error("{}: format version {version} is not known here; a newer commonhold wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An earlier sync failed: nobody knows what is on the disk, so nothing more is written until a restart.
    #[error("the record logs could not be synced before; restart the node when its disk works again")]
    Broken,
    /// The bytes on disk are not what was written.
    #[error("{}: damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u32,
    },
}

impl RecordsError {
    /// What a peer is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Full { .. } | Self::TooLong { .. } => Refusal::RecordLimit,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Refusal::DiskFull,
            Self::Damaged { .. } => Refusal::Damaged,
            Self::Io { .. } | Self::Index(_) | Self::Version { .. } | Self::Broken => Refusal::DiskError,
        }
    }
}

/// An entry that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose.
    pub owner: VaultId,
    /// See [`Change::tag`].
    pub tag: u8,
    /// Names this state of the entry; every change gives a higher number.
    pub sequence: u64,
    /// What was kept.
    pub body: Vec<u8>,
}

/// What is known of an entry without reading its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The segment or vault.
    pub key: [u8; 32],
    /// See [`Change::tag`].
    pub tag: u8,
    /// Names this state of the entry; every change gives a higher number.
    pub sequence: u64,
    /// On disk.
    pub bytes: u64,
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is about.
    pub kind: Kind,
    /// The segment or vault.
    pub key: [u8; 32],
    /// Whose.
    pub owner: VaultId,
    /// A number below 255 that can be asked without reading the body.
    pub tag: u8,
    /// The new body; none removes the entry.
    pub body: Option<Vec<u8>>,
    /// The state that the change was made from: if another is kept by now, the change is not done.
    pub expected: Option<u64>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// On disk, synced.
    Done {
        /// The entry's state now.
        sequence: u64,
    },
    /// The entry changed meanwhile: read it again.
    Conflict,
}

/// Entries and bytes kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Records of segments.
    pub segments: u64,
    /// Vaults with heads.
    pub heads: u64,
    /// Vaults with a lease.
    pub leases: u64,
    /// Segments held here with a drop or undrop.
    pub drops: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct FileUse {
    bytes: u64,
    live: u64,
}

/// All that a writer needs; whoever holds its lock may append.
#[derive(Debug)]
struct Writer {
    active: Arc<File>,
    /// Where the next entry goes.
    end: Position,
    /// Appended, but not yet synced and indexed, in the order of the log. Bounded by what callers wait for.
    unsynced: VecDeque<Location>,
    /// The newest of them for each key.
    pending: BTreeMap<Key, Location>,
    files: BTreeMap<u32, (Arc<File>, FileUse)>,
    counts: [u64; Kind::ALL.len()],
    broken: bool,
}

#[derive(Debug)]
struct SyncState {
    synced: Position,
    running: bool,
    broken: bool,
}

/// The record store.
#[derive(Debug)]
pub struct RecordStore {
    folder: PathBuf,
    bytes_max: u64,
    roll_bytes: u64,
    writer: Mutex<Writer>,
    sync: Mutex<SyncState>,
    synced: Condvar,
    index: Index,
    /// Bytes on disk, for the pledge.
    used: Arc<AtomicU64>,
    compacting: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

impl RecordStore {
    /// Bytes on disk, logs and index: a counter that the shard store counts against the pledge.
    pub fn used_bytes(&self) -> Arc<AtomicU64> {
        self.used.clone()
    }

    /// The most bytes of logs.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Above all sequences that were given so far.
    pub fn sequence(&self) -> u64 {
        lock(&self.writer).end.sequence()
    }

    /// How many entries are kept.
    pub fn counts(&self) -> RecordCounts {
        let [segments, heads, leases, drops] = lock(&self.writer).counts;
        RecordCounts { segments, heads, leases, drops }
    }

    /// An entry, as it was last committed; also one whose commit still waits for its sync.
    pub fn get(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<Kept>, RecordsError> {
        let Some((location, file)) = self.locate(kind, key)? else { return Ok(None) };
        let mut bytes = vec![0; location.length as usize];
        self.read(&file, &location, &mut bytes)?;
        let (entry, body) = Entry::decode(&bytes).ok_or_else(|| self.damaged(&location))?;
        if (entry.kind, entry.key, entry.tag) != (kind, *key, location.tag) {
            return Err(self.damaged(&location));
        }
        let Entry { owner, tag, .. } = entry;
        Ok(Some(Kept { owner, tag, sequence: location.at.sequence(), body: body.to_vec() }))
    }

    /// Whose an entry is, without reading its body.
    pub fn owner(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<VaultId>, RecordsError> {
        let Some((location, file)) = self.locate(kind, key)? else { return Ok(None) };
        self.owner_at(&file, &location).map(Some)
    }

    fn owner_at(&self, file: &File, location: &Location) -> Result<VaultId, RecordsError> {
        let mut header = [0; ENTRY_HEADER_BYTES];
        self.read(file, location, &mut header)?;
        Ok(Entry::owner_in(&header))
    }

    fn read(&self, file: &File, location: &Location, bytes: &mut [u8]) -> Result<(), RecordsError> {
        file.read_exact_at(bytes, location.at.offset.into()).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(location),
            _ => RecordsError::Io { path: log_path(&self.folder, location.at.file), source },
        })
    }

    fn damaged(&self, location: &Location) -> RecordsError {
        RecordsError::Damaged { path: log_path(&self.folder, location.at.file), offset: location.at.offset }
    }

    /// What can be said of an entry without reading it.
    pub fn summary(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<Summary>, RecordsError> {
        Ok(self.locate(kind, key)?.map(|(location, _)| summary(&location)))
    }

    /// Up to `count_max` entries of a kind in order of their keys, from the first behind `after`. Those whose commit
    /// still waits for its sync may be missing.
    pub fn list(&self, kind: Kind, after: Option<&[u8; 32]>, count_max: usize) -> Result<Vec<Summary>, RecordsError> {
        self.index.iter(kind, after).take(count_max).map(|item| item.map(|location| summary(&location))).collect()
    }

    /// Every entry of a kind with its owner, its tag and its bytes on disk, one after another, without holding them all. One
    /// that cannot be read is left out.
    pub fn for_each(&self, kind: Kind, mut visit: impl FnMut(VaultId, u8, u64)) -> Result<(), RecordsError> {
        for location in self.index.iter(kind, None) {
            let location = location?;
            match self.owner(kind, &location.key) {
                Ok(Some(owner)) => visit(owner, location.tag, location.length.into()),
                Ok(None) => {}
                Err(error @ RecordsError::Damaged { .. }) => tracing::warn!(%error, "an entry is not counted"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn locate(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<(Location, Arc<File>)>, RecordsError> {
        // Under the lock, so that compaction cannot remove the file between the two look-ups.
        let writer = lock(&self.writer);
        Ok(self.newest(&writer, kind, key)?.and_then(|location| {
            let (file, _) = writer.files.get(&location.at.file)?;
            Some((location, file.clone()))
        }))
    }

    /// The newest entry of a key that is not a removal.
    fn newest(&self, writer: &Writer, kind: Kind, key: &[u8; 32]) -> Result<Option<Location>, RecordsError> {
        let location = match writer.pending.get(&(kind, *key)) {
            Some(location) => Some(*location),
            None => self.index.get(kind, key)?,
        };
        Ok(location.filter(|location| location.tag != TAG_REMOVED))
    }

    /// Does all `changes` whose expectation still holds, and returns when they are durable.
    pub fn commit(&self, changes: &[Change]) -> Result<Vec<Committed>, RecordsError> {
        debug_assert!(changes.len() <= COMMIT_CHANGES_MAX);
        for change in changes {
            let bytes = change.body.as_ref().map_or(0, Vec::len);
            if bytes > BODY_BYTES_MAX {
                return Err(RecordsError::TooLong { bytes, bytes_max: BODY_BYTES_MAX });
            }
        }
        let bytes: usize =
            changes.iter().map(|change| ENTRY_HEADER_BYTES + change.body.as_ref().map_or(0, Vec::len)).sum();
        self.make_room(bytes as u64)?;
        let (done, places, end) = {
            let mut writer = lock(&self.writer);
            let (mut batch, mut entries) = (Vec::with_capacity(bytes), Vec::with_capacity(changes.len()));
            let mut done = Vec::with_capacity(changes.len());
            for change in changes {
                let kept = self.newest(&writer, change.kind, &change.key)?;
                let twice = |(entry, _): &(Entry, u32)| (entry.kind, entry.key) == (change.kind, change.key);
                let stands = kept.map(|location| location.at.sequence()) == change.expected;
                done.push(stands && !entries.iter().any(twice));
                if done.last() == Some(&true) {
                    let tag = if change.body.is_some() { change.tag } else { TAG_REMOVED };
                    let entry = Entry { kind: change.kind, tag, key: change.key, owner: change.owner };
                    let before = batch.len();
                    entry.encode(change.body.as_deref().unwrap_or_default(), &mut batch);
                    entries.push((entry, (batch.len() - before) as u32));
                }
            }
            let places = self.append(&mut writer, &entries, &batch)?;
            (done, places, writer.end)
        };
        self.sync_until(end)?;
        let mut places = places.into_iter();
        let outcome = |done| match done {
            true => places.next().map_or(Committed::Conflict, |at| Committed::Done { sequence: at.sequence() }),
            false => Committed::Conflict,
        };
        Ok(done.into_iter().map(outcome).collect())
    }

    /// Appends encoded entries to the active log, beginning a new one if it is full. Says where each lies.
    fn append(
        &self,
        writer: &mut Writer,
        entries: &[(Entry, u32)],
        batch: &[u8],
    ) -> Result<Vec<Position>, RecordsError> {
        if writer.broken {
            return Err(RecordsError::Broken);
        }
        let end = u64::from(writer.end.offset);
        if end + batch.len() as u64 > self.roll_bytes && end > FILE_HEADER_BYTES as u64 {
            self.roll(writer)?;
        }
        let start = writer.end.offset;
        writer.active.write_all_at(batch, start.into()).map_err(|source| {
            // Half of a batch may be there; the next one is written over it.
            let _ = writer.active.set_len(start.into());
            RecordsError::Io { path: log_path(&self.folder, writer.end.file), source }
        })?;
        let mut places = Vec::with_capacity(entries.len());
        for &(Entry { kind, tag, key, .. }, length) in entries {
            let location = Location { at: writer.end, length, kind, key, tag };
            places.push(location.at);
            writer.unsynced.push_back(location);
            writer.pending.insert((kind, key), location);
            writer.end.offset += length;
        }
        if let Some((_, used)) = writer.files.get_mut(&writer.end.file) {
            used.bytes += batch.len() as u64;
        }
        self.used.fetch_add(batch.len() as u64, Relaxed);
        Ok(places)
    }

    /// Begins a new log file. The old one is synced first: a position in a later file implies all earlier ones.
    fn roll(&self, writer: &mut Writer) -> Result<(), RecordsError> {
        if let Err(error) = writer.active.sync_data() {
            writer.broken = true;
            tracing::error!(%error, "a record log cannot be synced");
            return Err(RecordsError::Broken);
        }
        let number = writer.end.file + 1;
        if number > FILE_NUMBER_MAX {
            return Err(RecordsError::Full { bytes_max: self.bytes_max });
        }
        let file = create_log(&self.folder, number)?;
        writer.active = file.clone();
        writer.end = Position { file: number, offset: FILE_HEADER_BYTES as u32 };
        writer.files.insert(number, (file, FileUse { bytes: FILE_HEADER_BYTES as u64, live: 0 }));
        self.used.fetch_add(FILE_HEADER_BYTES as u64, Relaxed);
        Ok(())
    }
}

/// Creates a log file with its header, durably.
fn create_log(folder: &Path, number: u32) -> Result<Arc<File>, RecordsError> {
    let path = log_path(folder, number);
    let created = File::options().read(true).write(true).create(true).truncate(true).open(&path).and_then(|file| {
        file.write_all_at(&file_header(number), 0)?;
        file.sync_all()?;
        sync_folder(folder)?;
        Ok(file)
    });
    created.map(Arc::new).map_err(|source| RecordsError::Io { path, source })
}

fn summary(location: &Location) -> Summary {
    let Location { at, length, key, tag, .. } = *location;
    Summary { key, tag, sequence: at.sequence(), bytes: length.into() }
}
