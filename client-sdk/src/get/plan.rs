//! What a get does, step by step, and the threads that do it: one walks the tree and starts to fetch a few batches
//! ahead, one waits for them and opens the chunks, and the caller's own writes.
//!
//! A batch covers what lies together in segments, whatever files it belongs to, so many small files are fetched as
//! fast as a large one.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{Builder, Scope},
};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::{
        directory,
        entry::{Entry, EntryKind, FileContent},
        file::{self, Extent},
    },
};

use crate::{
    error::Error,
    progress::Progress,
    reader::{ContentSource, GAP_BYTES_MAX},
    restore::{LINKED_MAX, SameFile},
    vault_path::DEPTH_MAX,
};

/// Sealed bytes in the first batch: the sooner it is here, the sooner a reader has something. Each further one may be
/// twice as large.
const BATCH_BYTES_FIRST: u64 = 256 << 10;
/// Sealed bytes in one batch. Several are under way at once, so this bounds memory.
const BATCH_BYTES_MAX: u64 = 12 << 20;
/// Entries in one batch: small files take memory too.
const BATCH_STEPS_MAX: usize = 4096;
/// Batches planned ahead of the one that is opened.
const BATCHES_AHEAD: usize = 2;
/// Bytes of opened chunks that are handed to the writer together.
const PORTION_BYTES: usize = 1 << 20;
/// Portions opened ahead of the one that is written: enough that both threads always have something to do.
const PORTIONS_AHEAD: usize = 4;

/// Folders in each other: what can be put, twice, as a merge or a move may bring folders below others. Each takes an
/// open file.
pub(super) const GET_DEPTH_MAX: usize = 2 * DEPTH_MAX;

/// One thing to do on this machine.
pub(super) enum Step {
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

pub(super) struct Planner<'r, S: ContentSource> {
    pub(super) source: &'r S,
    progress: &'r Arc<Progress>,
    batches: mpsc::SyncSender<Result<Batch<S::Fetching>, Error>>,
    steps: Vec<Step>,
    /// Bytes that the batch will fetch, how many it may, and where the last of them end.
    bytes: u64,
    bytes_max: u64,
    last: Option<(SegmentId, u64)>,
    linked: HashSet<SameFile>,
}

impl<S: ContentSource> Planner<'_, S> {
    pub(super) fn push(&mut self, step: Step) -> Result<(), Error> {
        if let Step::Data(chunk) = &step {
            self.bytes += self.fetched_bytes(chunk);
            self.last = Some((chunk.segment, chunk.bytes().end));
        }
        self.steps.push(step);
        if self.bytes >= self.bytes_max || self.steps.len() >= BATCH_STEPS_MAX { self.flush() } else { Ok(()) }
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
        self.bytes_max = (self.bytes_max * 2).min(BATCH_BYTES_MAX);
        let fetching = self.source.fetch(&chunks)?;
        self.batches.send(Ok(Batch { steps, fetching })).map_err(|_| Error::Interrupted)
    }

    /// Plans an entry and all that is below it.
    pub(super) fn entry(&mut self, name: OsString, entry: Entry) -> Result<(), Error> {
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

/// Plans and opens on threads of their own, and gives the steps in order to `each` on this one, each with the bytes of
/// the file that it brings.
pub(super) fn run<S: ContentSource>(
    source: &S,
    progress: &Arc<Progress>,
    plan: impl FnOnce(&mut Planner<'_, S>) -> Result<(), Error> + Send,
    mut each: impl FnMut(Step, Bytes) -> Result<(), Error>,
) -> Result<(), Error> {
    let (batches, planned) = mpsc::sync_channel(BATCHES_AHEAD);
    let (portions, opened) = mpsc::sync_channel(PORTIONS_AHEAD);
    std::thread::scope(|scope| {
        let planning = move || {
            let failed = batches.clone();
            let (steps, linked, bytes_max) = (Vec::new(), HashSet::new(), BATCH_BYTES_FIRST);
            let mut planner = Planner { source, progress, batches, steps, bytes: 0, bytes_max, last: None, linked };
            if let Err(error) = plan(&mut planner).and_then(|()| planner.flush()) {
                let _ = failed.send(Err(error));
            }
        };
        let opening = move || {
            if let Err(error) = planned.into_iter().try_for_each(|batch| open(source, batch?, &portions)) {
                let _ = portions.send(Err(error));
            }
        };
        spawn(scope, "planning", planning)?;
        spawn(scope, "opening", opening)?;
        // Moved in, so that an early end hangs up on whoever opens, and so on the planner.
        let opened = opened;
        opened.into_iter().try_for_each(|portion| portion?.into_iter().try_for_each(|(step, bytes)| each(step, bytes)))
    })
}

/// Steps in order, each with the bytes of the file that it brings.
type Portion = Vec<(Step, Bytes)>;

/// Waits for a batch, and opens its chunks.
fn open<S: ContentSource>(
    source: &S,
    batch: Batch<S::Fetching>,
    portions: &mpsc::SyncSender<Result<Portion, Error>>,
) -> Result<(), Error> {
    let fetched = source.wait(batch.fetching)?;
    let (mut portion, mut portion_bytes) = (Portion::new(), 0);
    for step in batch.steps {
        let bytes = if let Step::Data(chunk) = &step { fetched.open(chunk)? } else { Bytes::new() };
        portion_bytes += bytes.len();
        portion.push((step, bytes));
        if portion_bytes >= PORTION_BYTES {
            portion_bytes = 0;
            portions.send(Ok(std::mem::take(&mut portion))).map_err(|_| Error::Interrupted)?;
        }
    }
    portions.send(Ok(portion)).map_err(|_| Error::Interrupted)
}

fn spawn<'s>(scope: &'s Scope<'s, '_>, name: &str, run: impl FnOnce() + Send + 's) -> Result<(), Error> {
    let spawned = Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
    spawned.map(drop).map_err(|_| Error::Stopped)
}
