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
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc},
};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSource, directory,
        entry::{Entry, EntryKind, FileContent},
        file::{self, Extent},
    },
};

use crate::{
    error::{Error, IoContext},
    progress::Progress,
    put::EntryCounts,
    reader::{ContentSource, Fetched, GAP_BYTES_MAX, Reader},
    restore::{LINKED_MAX, NotRestored, OpenFile, OpenFolder, Restorer, SameFile},
    vault_path::DEPTH_MAX,
};

/// Sealed bytes in one batch. Several are under way at once, so this bounds memory.
const BATCH_BYTES_MAX: u64 = 12 << 20;
/// Entries in one batch: small files take memory too.
const BATCH_STEPS_MAX: usize = 4096;
/// Batches planned ahead of the one that is written.
const BATCHES_AHEAD: usize = 2;

/// Folders in each other: what can be put, twice, as a merge or a move may bring folders below others. Each takes an
/// open file.
const GET_DEPTH_MAX: usize = 2 * DEPTH_MAX;

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
    /// A further name of a file that comes before it.
    Link(OsString, Box<Entry>),
    Data(ChunkRef),
    Hole(u64),
    EndFile(Box<Entry>),
    Special(OsString, Box<Entry>),
}

/// Steps in order, and the bytes that they need, on their way.
struct Batch<F> {
    steps: Vec<Step>,
    fetching: F,
}

struct Planner<'r, S: ContentSource> {
    source: &'r S,
    progress: &'r Arc<Progress>,
    batches: mpsc::SyncSender<Result<Batch<S::Fetching>, Error>>,
    steps: Vec<Step>,
    /// Bytes that the batch will fetch, and where the last of them end.
    bytes: u64,
    last: Option<(SegmentId, u64)>,
    linked: HashSet<SameFile>,
}

impl<S: ContentSource> Planner<'_, S> {
    fn push(&mut self, step: Step) -> Result<(), Error> {
        if let Step::Data(chunk) = &step {
            self.bytes += self.fetched_bytes(chunk);
            self.last = Some((chunk.segment, chunk.bytes().end));
        }
        self.steps.push(step);
        if self.bytes >= BATCH_BYTES_MAX || self.steps.len() >= BATCH_STEPS_MAX { self.flush() } else { Ok(()) }
    }

    /// What a chunk adds to a batch: one that lies alone comes with the groups around it, or the gap before it.
    fn fetched_bytes(&self, chunk: &ChunkRef) -> u64 {
        let bytes = chunk.bytes();
        let follows = self.last == Some((chunk.segment, bytes.start));
        u64::from(chunk.sealed_length) + if follows { 0 } else { GAP_BYTES_MAX }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.progress.check()?;
        let steps = std::mem::take(&mut self.steps);
        let chunk = |step: &Step| if let Step::Data(chunk) = step { Some(chunk.clone()) } else { None };
        let chunks: Vec<ChunkRef> = steps.iter().filter_map(chunk).collect();
        (self.bytes, self.last) = (0, None);
        let fetching = self.source.fetch(&chunks)?;
        self.batches.send(Ok(Batch { steps, fetching })).map_err(|_| Error::Interrupted)
    }

    /// Plans an entry and all that is below it.
    fn entry(&mut self, name: OsString, entry: Entry) -> Result<(), Error> {
        // Folders lie as deep in each other as a stranger likes, so this is a stack of our own.
        let source = self.source;
        let mut open: Vec<(Box<Entry>, directory::Entries<'_, S>)> = Vec::new();
        let mut next = Some((name, entry));
        loop {
            if let Some((name, entry)) = next.take() {
                let entry = Box::new(entry);
                match &entry.kind {
                    EntryKind::Directory(tree) => {
                        if open.len() >= GET_DEPTH_MAX {
                            let reason = format!("more than {GET_DEPTH_MAX} folders lie in each other");
                            return Err(Error::TreeDamaged { reason });
                        }
                        let entries = directory::list(source, tree, None);
                        self.push(Step::Enter(name, entry.clone()))?;
                        open.push((entry, entries));
                    }
                    EntryKind::File(content) => self.file(name, &entry, content)?,
                    _ => self.push(Step::Special(name, entry))?,
                }
            }
            let Some((_, entries)) = open.last_mut() else { return Ok(()) };
            match entries.next().transpose()? {
                Some((name, entry)) => next = Some((OsStr::from_bytes(name.as_bytes()).to_owned(), entry)),
                None => {
                    if let Some((entry, _)) = open.pop() {
                        self.push(Step::Leave(entry))?;
                    }
                }
            }
        }
    }

    fn file(&mut self, name: OsString, entry: &Entry, content: &FileContent) -> Result<(), Error> {
        if let Some(same) = SameFile::of(entry) {
            if self.linked.contains(&same) {
                return self.push(Step::Link(name, Box::new(entry.clone())));
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert(same);
            }
        }
        self.push(Step::File(name, Box::new(entry.clone())))?;
        self.progress.bytes_total.fetch_add(entry.size(), Ordering::Relaxed);
        if let FileContent::Chunks(root) = content {
            for extent in file::extents(self.source, root, 0) {
                match extent?.1 {
                    Extent::Data(chunk) => self.push(Step::Data(chunk))?,
                    Extent::Hole(bytes) => self.push(Step::Hole(bytes))?,
                }
            }
        }
        self.push(Step::EndFile(Box::new(entry.clone())))
    }
}

/// Plans on a thread of its own, and gives the batches to `each` on this one.
fn run_batches<S: ContentSource>(
    source: &S,
    progress: &Arc<Progress>,
    plan: impl FnOnce(&mut Planner<'_, S>) -> Result<(), Error> + Send,
    mut each: impl FnMut(Vec<Step>, &Fetched) -> Result<(), Error>,
) -> Result<(), Error> {
    let (batches, planned) = mpsc::sync_channel::<Result<Batch<S::Fetching>, Error>>(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        let planning = move || {
            let failed = batches.clone();
            let (steps, linked) = (Vec::new(), HashSet::new());
            let mut planner = Planner { source, progress, batches, steps, bytes: 0, last: None, linked };
            if let Err(error) = plan(&mut planner).and_then(|()| planner.flush()) {
                let _ = failed.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("planning".to_owned())
            .spawn_scoped(scope, planning)
            .map_err(|_| Error::Stopped)?;
        // Moved in, so that an early end hangs up on the planner.
        let planned = planned;
        planned.iter().try_for_each(|batch| {
            let Batch { steps, fetching } = batch?;
            each(steps, &source.wait(fetching)?)
        })
    })
}

/// Restores `entry` as `target`.
pub(crate) fn get<S: ContentSource>(
    source: &S,
    entry: &Entry,
    target: &Path,
    options: &GetOptions,
    progress: &Arc<Progress>,
) -> Result<GetReport, Error> {
    let start = std::time::Instant::now();
    let target = std::path::absolute(target).doing("find", target)?;
    let no_name = || Error::TargetExists { path: target.clone() };
    let name = target.file_name().ok_or_else(no_name)?.to_owned();
    if !options.overwrite && target.symlink_metadata().is_ok() {
        return Err(Error::TargetExists { path: target });
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    let (restorer, parent) = Restorer::open(parent, options.overwrite)?;
    let mut writer =
        Writer { restorer, folders: vec![parent], file: None, counts: EntryCounts::default(), bytes: 0, progress };
    let plan = |planner: &mut Planner<'_, S>| planner.entry(name, entry.clone());
    let written = run_batches(source, progress, plan, |steps, fetched| writer.write(steps, fetched));
    if let (Some(file), Some(folder)) = (writer.file.take(), writer.folders.last()) {
        // A part of a file under its name would pass for the file.
        writer.restorer.discard(folder, file);
    }
    written?;
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
    progress: &'p Progress,
}

impl Writer<'_> {
    fn write(&mut self, steps: Vec<Step>, fetched: &Fetched) -> Result<(), Error> {
        for step in steps {
            self.step(step, fetched)?;
        }
        Ok(())
    }

    fn step(&mut self, step: Step, fetched: &Fetched) -> Result<(), Error> {
        let parent = self.folders.last().ok_or(Error::Stopped)?;
        match step {
            Step::Enter(name, entry) => {
                let folder = self.restorer.folder(parent, &name)?;
                self.folders.push(folder);
                self.counts.count(&entry.kind);
            }
            Step::Leave(entry) => {
                if let Some(folder) = self.folders.pop() {
                    self.restorer.finish_folder(&folder, &entry);
                }
                self.done(1, 0);
            }
            Step::File(name, entry) => {
                self.counts.count(&entry.kind);
                let file = self.file.insert(self.restorer.file(parent, &name, &entry)?);
                if let EntryKind::File(FileContent::Inline(bytes)) = &entry.kind {
                    file.write(bytes)?;
                    self.done(0, bytes.len() as u64);
                }
            }
            Step::Link(name, entry) => {
                self.counts.count(&entry.kind);
                self.restorer.link(parent, &name, &entry)?;
                self.done(1, 0);
            }
            Step::Data(chunk) => {
                let file = self.file.as_mut().ok_or(Error::Stopped)?;
                file.write(&fetched.open(&chunk)?)?;
                self.done(0, chunk.plain_length.into());
            }
            Step::Hole(bytes) => {
                self.file.as_mut().ok_or(Error::Stopped)?.skip(bytes);
                self.done(0, bytes);
            }
            Step::EndFile(entry) => {
                let file = self.file.as_ref().ok_or(Error::Stopped)?;
                self.restorer.finish_file(file, &entry)?;
                self.file = None;
                self.done(1, 0);
            }
            Step::Special(name, entry) => {
                self.counts.count(&entry.kind);
                self.restorer.special(parent, &name, &entry)?;
                self.done(1, 0);
            }
        }
        Ok(())
    }

    fn done(&mut self, entries: u64, bytes: u64) {
        self.bytes += bytes;
        Progress::add(&self.progress.entries_done, entries);
        Progress::add(&self.progress.bytes_done, bytes);
    }
}

/// Writes the bytes `range` of a file to `out`, as far as there are any.
pub(crate) fn cat<S: ContentSource>(
    source: &S,
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
    // The first extent may begin before the range; the planner, which finds it, is another thread.
    let first = Mutex::new(None);
    let plan = |planner: &mut Planner<'_, S>| {
        for extent in file::extents(planner.source, root, range.start) {
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
    run_batches(source, progress, plan, |steps, fetched| {
        for step in steps {
            let start = *at.get_or_insert_with(|| first.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0));
            let bytes = match step {
                Step::Data(chunk) => fetched.open(&chunk)?,
                Step::Hole(bytes) => {
                    let end = start + bytes;
                    let zeros = range.end.min(end).saturating_sub(range.start.max(start));
                    write_zeros(out, zeros, progress)?;
                    written += zeros;
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

/// A hole can be far longer than anybody wants to wait.
fn write_zeros(out: &mut dyn Write, mut bytes: u64, progress: &Progress) -> Result<(), Error> {
    let zeros = [0; 64 << 10];
    while bytes > 0 {
        progress.check()?;
        let part = bytes.min(zeros.len() as u64);
        out.write_all(&zeros[..part as usize]).map_err(Error::Output)?;
        Progress::add(&progress.bytes_done, part);
        bytes -= part;
    }
    Ok(())
}

/// A file that is read here and there.
pub struct OpenedFile {
    reader: Reader,
    content: FileContent,
}

impl OpenedFile {
    pub(crate) fn new(reader: Reader, content: FileContent) -> Self {
        Self { reader, content }
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.content.length()
    }

    /// The bytes from `offset` on, at most `length`, fewer only at the end: fetches the chunks that hold them and their
    /// proofs, nothing else.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        read_at(&self.reader, &self.content, offset, length)
    }
}

/// The bytes of a file from `offset` on, at most `length`, fewer only at the end.
pub(crate) fn read_at<S>(source: &S, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error>
where
    S: ChunkSource<Error = Error>,
{
    let range = offset..offset.saturating_add(length as u64).min(content.length());
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let root = match content {
        FileContent::Inline(bytes) => return Ok(bytes.slice(range.start as usize..range.end as usize)),
        FileContent::Chunks(root) => root,
    };
    let mut read = Vec::with_capacity(length.min(1 << 20));
    for extent in file::extents(source, root, range.start) {
        let (start, extent) = extent?;
        if start >= range.end {
            break;
        }
        let end = start + extent.length();
        match extent {
            Extent::Data(chunk) => read.extend_from_slice(&source.get(&chunk)?[clamp(&range, start, end)]),
            Extent::Hole(_) => read.resize(read.len() + clamp(&range, start, end).len(), 0),
        }
    }
    Ok(read.into())
}

#[cfg(test)]
mod tests;
