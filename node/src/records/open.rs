//! Opening the record store: the index where it is good, the logs where it is not.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU64},
};

use serde::Serialize;

use super::{
    FileUse, RecordStore, RecordsError, SyncState, Writer, create_log,
    entry::{ENTRY_HEADER_BYTES, Entry, FILE_HEADER_BYTES, Kind, TAG_REMOVED, file_header, scan, unknown_version},
    index::{Index, Location, Position},
    log_path,
};

/// A log file is one part in this many of the space for records, so that compacting one needs little room.
const LOG_PARTS: u64 = 16;
const LOG_BYTES_MIN: u64 = 256 << 10;
/// Below 4 GiB, so that offsets fit 32 bits whatever a single entry adds.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// What was found while opening.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OpenReport {
    /// True if the index was missing or unusable, and was rebuilt from all logs.
    pub rebuilt: bool,
    /// Entries read from the logs.
    pub entries_read: u64,
    /// Damaged bytes between good entries; what they held is lost here, other stewards have it.
    pub damaged_bytes: u64,
    /// Bytes cut off behind the last good entry: a write that was never answered for.
    pub cut_bytes: u64,
    /// Entries kept.
    pub kept: u64,
}

impl RecordStore {
    /// Opens the records in `folder`, of which the logs may use `bytes_max`.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<(Arc<Self>, OpenReport), RecordsError> {
        Self::open_with(folder, bytes_max, false)
    }

    /// Opens the records with a fresh index, made from the logs.
    pub fn rebuild(folder: &Path, bytes_max: u64) -> Result<(Arc<Self>, OpenReport), RecordsError> {
        Self::open_with(folder, bytes_max, true)
    }

    fn open_with(folder: &Path, bytes_max: u64, fresh: bool) -> Result<(Arc<Self>, OpenReport), RecordsError> {
        fs::create_dir_all(folder).map_err(|source| RecordsError::Io { path: folder.to_owned(), source })?;
        let mut files = open_logs(folder)?;
        let index_folder = folder.join("index");
        let mut index = if fresh { Index::create(&index_folder)? } else { Index::open(&index_folder)? };
        let checkpoint = match index.checkpoint()?.filter(|checkpoint| is_within(checkpoint, &files)) {
            Some(checkpoint) => checkpoint,
            None if files.is_empty() && index.is_empty() => Position::default(),
            None => {
                // Without a checkpoint that fits these logs nothing in the index can be relied on.
                drop(index);
                index = Index::create(&index_folder)?;
                Position::default()
            }
        };
        let rebuilt = checkpoint == Position::default() && !files.is_empty();
        let mut report = OpenReport { rebuilt, ..OpenReport::default() };
        let mut cut: Option<(u32, u32)> = None;
        for (&number, file) in files.range(checkpoint.file..) {
            let from = if number == checkpoint.file { checkpoint.offset } else { 0 };
            let path = log_path(folder, number);
            let failed = |source| RecordsError::Io { path: path.clone(), source };
            if let Some(version) = unknown_version(file).map_err(failed)? {
                return Err(RecordsError::Version { path, version });
            }
            let scanned = scan(file, &path, from, |offset, entry, body| {
                report.entries_read += 1;
                let Entry { kind, tag, key, .. } = entry;
                let length = (ENTRY_HEADER_BYTES + body.len()) as u32;
                // What comes later in the logs counts; compaction keeps to that.
                if tag == TAG_REMOVED {
                    index.remove(kind, &key)?;
                } else {
                    index.put(&Location { at: Position { file: number, offset }, length, kind, key, tag })?;
                }
                Ok(())
            })?;
            report.damaged_bytes += scanned.damaged_bytes;
            cut = Some((number, scanned.end));
        }
        let end = match (files.last_key_value(), cut) {
            (Some((&last, file)), Some((number, good))) if last == number => {
                let failed = |source| RecordsError::Io { path: log_path(folder, last), source };
                let length = file.metadata().map_err(failed)?.len();
                if length < FILE_HEADER_BYTES as u64 {
                    // Killed while it was being created.
                    file.write_all_at(&file_header(last), 0).map_err(failed)?;
                } else if length > u64::from(good) {
                    report.cut_bytes = length - u64::from(good);
                    file.set_len(good.into()).and_then(|()| file.sync_all()).map_err(failed)?;
                }
                Position { file: last, offset: good }
            }
            _ => Position { file: 1, offset: FILE_HEADER_BYTES as u32 },
        };
        if files.is_empty() {
            files.insert(end.file, create_log(folder, end.file)?);
        }
        let store = Self {
            folder: folder.to_owned(),
            bytes_max,
            roll_bytes: (bytes_max / LOG_PARTS).clamp(LOG_BYTES_MIN, LOG_BYTES_MAX).min(bytes_max / 4),
            writer: Mutex::new(writer_of(folder, &index, files, end)?),
            sync: Mutex::new(SyncState { synced: end, running: false, broken: false }),
            synced: Condvar::new(),
            index,
            used: Arc::new(AtomicU64::new(0)),
            compacting: Mutex::new(()),
        };
        let counts = store.counts();
        report.kept = counts.segments + counts.heads + counts.leases + counts.drops;
        store.checkpoint()?;
        Ok((Arc::new(store), report))
    }
}

/// All log files by number.
fn open_logs(folder: &Path) -> Result<BTreeMap<u32, Arc<File>>, RecordsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| RecordsError::Io { path, source }
    };
    let mut files = BTreeMap::new();
    for item in fs::read_dir(folder).map_err(failed(folder))? {
        let path = item.map_err(failed(folder))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<u32>().ok())
            .filter(|number| log_path(folder, *number) == path);
        if let Some(number) = number {
            let file = File::options().read(true).write(true).open(&path).map_err(failed(&path))?;
            files.insert(number, Arc::new(file));
        }
    }
    Ok(files)
}

/// True if the place that a checkpoint names exists.
fn is_within(checkpoint: &Position, files: &BTreeMap<u32, Arc<File>>) -> bool {
    let length = files.get(&checkpoint.file).and_then(|file| Some(file.metadata().ok()?.len()));
    length.is_some_and(|length| u64::from(checkpoint.offset) <= length)
}

/// The writer's state: who lives where is counted from the index.
fn writer_of(
    folder: &Path,
    index: &Index,
    files: BTreeMap<u32, Arc<File>>,
    end: Position,
) -> Result<Writer, RecordsError> {
    let mut used: BTreeMap<u32, (Arc<File>, FileUse)> = BTreeMap::new();
    for (number, file) in files {
        let failed = |source| RecordsError::Io { path: log_path(folder, number), source };
        let bytes = file.metadata().map_err(failed)?.len();
        used.insert(number, (file, FileUse { bytes, live: 0 }));
    }
    let mut counts = [0; Kind::ALL.len()];
    for kind in Kind::ALL {
        for location in index.iter(kind, None) {
            let location = location?;
            counts[kind as usize] += 1;
            if let Some((_, used)) = used.get_mut(&location.at.file) {
                used.live += u64::from(location.length);
            }
        }
    }
    let (active, _) = used.get(&end.file).ok_or_else(|| RecordsError::Io {
        path: log_path(folder, end.file),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    Ok(Writer {
        active: active.clone(),
        end,
        unsynced: VecDeque::new(),
        pending: BTreeMap::new(),
        files: used,
        counts,
        broken: false,
    })
}
