//! From the vault to this machine: plan what is needed next, fetch it ahead, open it and write it.
//!
//! A planner thread walks the tree and starts to fetch a few batches ahead; the caller's thread opens and writes them
//! in order. A batch covers what lies together in segments, whatever files it belongs to, so many small files are
//! fetched as fast as a large one.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    io::Write,
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc},
};

use bytes::Bytes;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSource, directory,
        entry::{Entry, EntryKind, FileContent, LinkGroup},
        file::{self, Extent},
    },
};

use crate::{
    error::Error,
    progress::Progress,
    put::EntryCounts,
    reader::{Fetching, Reader},
    restore::{NotRestored, OpenFile, OpenFolder, Restorer},
};

/// Sealed bytes in one batch. Several are under way at once, so this bounds memory.
const BATCH_BYTES_MAX: u64 = 12 << 20;
/// Entries in one batch: small files take memory too.
const BATCH_STEPS_MAX: usize = 4096;
/// Batches planned ahead of the one that is written.
const BATCHES_AHEAD: usize = 2;

/// How a get is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct GetOptions {
    /// Replace files that are there; enter folders that are there.
    pub overwrite: bool,
}

/// What a get did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct GetReport {
    /// What was restored.
    pub entries: EntryCounts,
    /// Bytes of file contents.
    pub bytes: u64,
    /// What could not be restored of it (owners, attributes, devices).
    pub not_restored: Vec<NotRestored>,
    /// How long it took.
    pub seconds: f64,
}

/// One thing to do on this machine.
enum Step {
    Enter(OsString, Box<Entry>),
    Leave(Box<Entry>),
    File(OsString, Box<Entry>),
    Data(ChunkRef),
    Hole(u64),
    EndFile(Box<Entry>),
    Special(OsString, Box<Entry>),
}

/// Steps in order, and the bytes that they need, on their way.
struct Batch {
    steps: Vec<Step>,
    fetching: Fetching,
}

struct Planner<'r> {
    reader: &'r Reader,
    progress: &'r Arc<Progress>,
    batches: mpsc::SyncSender<Result<Batch, Error>>,
    steps: Vec<Step>,
    bytes: u64,
    linked: HashSet<(LinkGroup, u64)>,
}

impl Planner<'_> {
    fn push(&mut self, step: Step) -> Result<(), Error> {
        if let Step::Data(chunk) = &step {
            self.bytes += u64::from(chunk.sealed_length);
        }
        self.steps.push(step);
        if self.bytes >= BATCH_BYTES_MAX || self.steps.len() >= BATCH_STEPS_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.progress.check()?;
        let steps = std::mem::take(&mut self.steps);
        let chunk = |step: &Step| if let Step::Data(chunk) = step { Some(chunk.clone()) } else { None };
        let chunks: Vec<ChunkRef> = steps.iter().filter_map(chunk).collect();
        self.bytes = 0;
        let fetching = self.reader.fetch(&chunks, Some(self.progress))?;
        self.batches.send(Ok(Batch { steps, fetching })).map_err(|_| Error::Interrupted)
    }

    fn entry(&mut self, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        match &entry.kind {
            EntryKind::Directory(tree) => {
                self.push(Step::Enter(name.to_owned(), Box::new(entry.clone())))?;
                for listed in directory::list(self.reader, tree, None) {
                    let (name, entry) = listed?;
                    self.entry(OsStr::from_bytes(name.as_bytes()), &entry)?;
                }
                self.push(Step::Leave(Box::new(entry.clone())))
            }
            EntryKind::File(content) => {
                self.push(Step::File(name.to_owned(), Box::new(entry.clone())))?;
                let further_name = entry.link_group.is_some_and(|group| !self.linked.insert((group, entry.size())));
                if further_name {
                    return Ok(());
                }
                self.progress.bytes_total.fetch_add(entry.size(), Ordering::Relaxed);
                if let FileContent::Chunks(root) = content {
                    for extent in file::extents(self.reader, root, 0) {
                        match extent?.1 {
                            Extent::Data(chunk) => self.push(Step::Data(chunk))?,
                            Extent::Hole(bytes) => self.push(Step::Hole(bytes))?,
                        }
                    }
                }
                self.push(Step::EndFile(Box::new(entry.clone())))
            }
            _ => self.push(Step::Special(name.to_owned(), Box::new(entry.clone()))),
        }
    }
}

/// Plans on a thread of its own, and gives the batches to `each` on this one.
fn run_batches(
    reader: &Reader,
    progress: &Arc<Progress>,
    plan: impl FnOnce(&mut Planner<'_>) -> Result<(), Error> + Send,
    mut each: impl FnMut(Batch) -> Result<(), Error>,
) -> Result<(), Error> {
    let (batches, planned) = mpsc::sync_channel(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let failed = batches.clone();
            let (steps, linked) = (Vec::new(), HashSet::new());
            let mut planner = Planner { reader, progress, batches, steps, bytes: 0, linked };
            if let Err(error) = plan(&mut planner).and_then(|()| planner.flush()) {
                let _ = failed.send(Err(error));
            }
        });
        // Moved in, so that an early end hangs up on the planner.
        let planned = planned;
        planned.iter().try_for_each(|batch| each(batch?))
    })
}

/// Restores `entry` as `target`.
pub(crate) fn get(
    reader: &Reader,
    entry: &Entry,
    target: &Path,
    options: &GetOptions,
    progress: &Arc<Progress>,
) -> Result<GetReport, Error> {
    let start = std::time::Instant::now();
    let target = std::path::absolute(target)
        .map_err(|source| Error::Io { action: "find", path: target.to_owned(), source })?;
    let no_name = || Error::TargetExists { path: target.clone() };
    let name = target.file_name().ok_or_else(no_name)?.to_owned();
    if !options.overwrite && target.symlink_metadata().is_ok() {
        return Err(Error::TargetExists { path: target });
    }
    let parent = target.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let mut writer = Writer {
        restorer: Restorer::new(options.overwrite),
        folders: vec![Restorer::open_parent(&parent)?],
        file: None,
        counts: EntryCounts::default(),
        bytes: 0,
        progress,
    };
    let plan = |planner: &mut Planner<'_>| planner.entry(&name, entry);
    run_batches(reader, progress, plan, |batch| writer.write(batch))?;
    Ok(GetReport {
        entries: writer.counts,
        bytes: writer.bytes,
        not_restored: writer.restorer.into_not_restored(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

struct Writer<'p> {
    restorer: Restorer,
    folders: Vec<OpenFolder>,
    file: Option<OpenFile>,
    counts: EntryCounts,
    bytes: u64,
    progress: &'p Arc<Progress>,
}

impl Writer<'_> {
    fn write(&mut self, batch: Batch) -> Result<(), Error> {
        let fetched = batch.fetching.wait()?;
        for step in batch.steps {
            let parent = self.folders.last().ok_or(Error::Stopped)?;
            match step {
                Step::Enter(name, entry) => {
                    let folder = self.restorer.folder(parent, &name)?;
                    self.folders.push(folder);
                    self.counts.count(&entry.kind);
                }
                Step::Leave(entry) => {
                    if let Some(folder) = self.folders.pop() {
                        self.restorer.finish_folder(folder, &entry);
                    }
                    Progress::add(&self.progress.entries_done, 1);
                }
                Step::File(name, entry) => {
                    self.counts.count(&entry.kind);
                    self.file = self.restorer.file(parent, &name, &entry)?;
                    if let (Some(file), EntryKind::File(FileContent::Inline(bytes))) = (&mut self.file, &entry.kind) {
                        file.write(bytes)?;
                        self.bytes += bytes.len() as u64;
                        Progress::add(&self.progress.bytes_done, bytes.len() as u64);
                    }
                }
                Step::Data(chunk) => {
                    if let Some(file) = &mut self.file {
                        file.write(&fetched.open(&chunk)?)?;
                        self.bytes += u64::from(chunk.plain_length);
                        Progress::add(&self.progress.bytes_done, u64::from(chunk.plain_length));
                    }
                }
                Step::Hole(bytes) => {
                    if let Some(file) = &mut self.file {
                        file.skip(bytes);
                        self.bytes += bytes;
                        Progress::add(&self.progress.bytes_done, bytes);
                    }
                }
                Step::EndFile(entry) => {
                    if let Some(file) = self.file.take() {
                        self.restorer.finish_file(file, &entry)?;
                    }
                    Progress::add(&self.progress.entries_done, 1);
                }
                Step::Special(name, entry) => {
                    self.counts.count(&entry.kind);
                    self.restorer.special(parent, &name, &entry)?;
                    Progress::add(&self.progress.entries_done, 1);
                }
            }
        }
        Ok(())
    }
}

/// Writes the bytes `range` of a file to `out`, as far as there are any.
pub(crate) fn cat(
    reader: &Reader,
    content: &FileContent,
    range: Range<u64>,
    out: &mut dyn Write,
    progress: &Arc<Progress>,
) -> Result<u64, Error> {
    let range = range.start..range.end.min(content.length());
    if range.is_empty() {
        return Ok(0);
    }
    let root = match content {
        FileContent::Inline(bytes) => {
            let part = &bytes[range.start as usize..range.end as usize];
            out.write_all(part).map_err(Error::Output)?;
            return Ok(part.len() as u64);
        }
        FileContent::Chunks(root) => root,
    };
    progress.bytes_total.fetch_add(range.end - range.start, Ordering::Relaxed);
    let first = Mutex::new(None);
    let plan = |planner: &mut Planner<'_>| {
        for extent in file::extents(planner.reader, root, range.start) {
            let (offset, extent) = extent?;
            if offset >= range.end {
                break;
            }
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(offset);
            match extent {
                Extent::Data(chunk) => planner.push(Step::Data(chunk))?,
                Extent::Hole(bytes) => planner.push(Step::Hole(bytes))?,
            }
        }
        Ok(())
    };
    let mut at: Option<u64> = None;
    let mut written = 0;
    run_batches(reader, progress, plan, |batch| {
        let fetched = batch.fetching.wait()?;
        for step in batch.steps {
            let start = *at.get_or_insert_with(|| first.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0));
            let bytes = match step {
                Step::Data(chunk) => fetched.open(&chunk)?,
                Step::Hole(bytes) => {
                    let end = start + bytes;
                    written += write_zeros(out, range.end.min(end).saturating_sub(range.start.max(start)))?;
                    at = Some(end);
                    continue;
                }
                _ => continue,
            };
            let end = start + bytes.len() as u64;
            let part = &bytes[clamp(&range, start, end)];
            out.write_all(part).map_err(Error::Output)?;
            written += part.len() as u64;
            Progress::add(&progress.bytes_done, part.len() as u64);
            at = Some(end);
        }
        Ok(())
    })?;
    Ok(written)
}

/// The part of `start..end` that lies in `range`, counted from `start`.
fn clamp(range: &Range<u64>, start: u64, end: u64) -> Range<usize> {
    let from = range.start.clamp(start, end) - start;
    let to = range.end.clamp(start, end) - start;
    from as usize..to as usize
}

fn write_zeros(out: &mut dyn Write, mut bytes: u64) -> Result<u64, Error> {
    let zeros = [0; 64 << 10];
    let all = bytes;
    while bytes > 0 {
        let part = bytes.min(zeros.len() as u64);
        out.write_all(&zeros[..part as usize]).map_err(Error::Output)?;
        bytes -= part;
    }
    Ok(all)
}

/// A file that is read here and there.
pub struct OpenedFile {
    reader: Arc<Reader>,
    content: FileContent,
}

impl OpenedFile {
    pub(crate) fn new(reader: Arc<Reader>, content: FileContent) -> Self {
        Self { reader, content }
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.content.length()
    }

    /// The bytes from `offset` on, at most `length`, fewer only at the end: fetches the chunks that hold them and their
    /// proofs, nothing else.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        let range = offset..offset.saturating_add(length as u64).min(self.content.length());
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let root = match &self.content {
            FileContent::Inline(bytes) => return Ok(bytes.slice(range.start as usize..range.end as usize)),
            FileContent::Chunks(root) => root,
        };
        let mut read = Vec::with_capacity(length.min(1 << 20));
        for extent in file::extents(&*self.reader, root, range.start) {
            let (start, extent) = extent?;
            if start >= range.end {
                break;
            }
            let end = start + extent.length();
            match extent {
                Extent::Data(chunk) => read.extend_from_slice(&self.reader.get(&chunk)?[clamp(&range, start, end)]),
                Extent::Hole(_) => read.resize(read.len() + clamp(&range, start, end).len(), 0),
            }
        }
        Ok(read.into())
    }
}
