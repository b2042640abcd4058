//! From chunks to placed segments: **chunk → frame → sealed → segment → shards → placed → claimed → recorded**.
//!
//! Two segments are open at a time, one for file contents and one for trees, so that folders are read without the
//! files in them. A full segment goes to a thread that codes it and on to the network; as many are under way as fit
//! in [`UNDER_WAY_BYTES_MAX`], and whoever brings more waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc as threads},
    thread::JoinHandle,
};

use commonhold_policy::parameters::NoCoding;
use commonhold_protocol::{
    Coding, Drop as DropOrder, DropKind, Manifest, SegmentId, Unverified, Verified, drop::DROP_SEGMENTS_MAX,
    manifest::SEGMENT_BYTES_MAX,
};
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    frame::{Compressor, DEFAULT_LEVEL},
    keys::VaultKeys,
    seal::seal,
    segment::{CodedSegment, SegmentBuilder},
    tree::ChunkSink,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    dedup::DedupIndex,
    error::Error,
    home::Device,
    journal::{Journal, JournaledSegment},
    local_seal::LocalSeal,
    progress::Progress,
    reader::Reader,
    session::{Session, now},
    spool::{Slot, Spool, Spooled},
    table::{ChunkTag, PackedChunk, SEGMENT_CHUNKS_MAX},
    upload::{self, Placed},
    vault::Vault,
};

mod figures;

pub use figures::PackFigures;

/// Memory of segments being coded and sent: their bytes and their parity.
const UNDER_WAY_BYTES_MAX: usize = 112 << 20;
/// The unit in which that memory is counted, since a semaphore counts in u32.
const PERMIT_BYTES: usize = 64 << 10;

/// What a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The bytes of a file.
    File,
    /// A node of a tree or of the segment table.
    Tree,
}

/// A segment being filled.
struct OpenSegment {
    builder: SegmentBuilder,
    chunks: Vec<PackedChunk>,
}

/// A full segment on its way out, with the memory that it holds.
struct FullSegment {
    open: OpenSegment,
    coding: Coding,
    permit: OwnedSemaphorePermit,
    /// None if it is to be spooled yet.
    slot: Option<Slot>,
}

/// Packs chunks and has their segments placed.
pub(crate) struct Packer {
    session: Arc<Session>,
    keys: Arc<VaultKeys>,
    reader: Reader,
    /// An error if nothing can be sent: what is packed then is for reading it back in this process.
    coding: Result<Coding, NoCoding>,
    progress: Arc<Progress>,
    dedup: DedupIndex,
    journal: Journal,
    /// Segments that were under way when an earlier put ended.
    interrupted: Vec<Spooled>,
    /// Those of them that this put may go on with.
    spooled: BTreeMap<SegmentId, Spooled>,
    /// Those of them that it goes on with.
    resumed: BTreeSet<SegmentId>,
    seal: Arc<LocalSeal>,
    compressor: Compressor,
    files: Option<OpenSegment>,
    trees: Option<OpenSegment>,
    memory: Arc<Semaphore>,
    coder: Option<threads::SyncSender<FullSegment>>,
    coder_thread: Option<JoinHandle<()>>,
    uploads: CancellationToken,
    finished: mpsc::Receiver<Result<Placed, Error>>,
    under_way: usize,
    placed: Vec<JournaledSegment>,
    figures: PackFigures,
}

fn permits(length: u64, coding: Coding) -> u32 {
    let bytes = length as usize * usize::from(coding.n()) / usize::from(coding.k());
    bytes.div_ceil(PERMIT_BYTES).clamp(1, UNDER_WAY_BYTES_MAX / PERMIT_BYTES) as u32
}

impl Packer {
    /// A packer that goes on where an earlier put was cut off: the segments in the journal are placed already, and
    /// those in the spool half.
    pub(crate) fn open(
        vault: &Vault,
        reader: Reader,
        coding: Result<Coding, NoCoding>,
        progress: Arc<Progress>,
        device: &Device,
    ) -> Result<Self, Error> {
        let (home, seal) = (&vault.home, vault.seal.clone());
        let (session, keys) = (vault.session.clone(), vault.keys.clone());
        let mut dedup = DedupIndex::open(home, seal.clone());
        let mut placed = Vec::new();
        let journal = Journal::open(home, device, &seal, &mut |segment, journaled| {
            placed.push(journaled);
            dedup.placed(segment)
        })?;
        let (coder, full) = threads::sync_channel(1);
        let (spool, mut interrupted) =
            Spool::open(home, device, &journal.taken_over(), seal.clone(), session.network());
        let is_placed = |spooled: &mut Spooled| placed.iter().any(|segment| segment.id == spooled.id());
        for spooled in interrupted.extract_if(.., is_placed) {
            spooled.slot.free()?;
        }
        // A report for each segment that can be under way.
        let (report, finished) = mpsc::channel(UNDER_WAY_BYTES_MAX / PERMIT_BYTES + 2);
        let uploads = CancellationToken::new();
        let upload = UploadStage {
            session: session.clone(),
            keys: keys.clone(),
            progress: progress.clone(),
            report,
            uploads: uploads.clone(),
            records: upload::RecordQueues::new(session.clone()),
            spool,
        };
        let coder_thread = std::thread::Builder::new()
            .name("coding".to_owned())
            .spawn(move || upload.run(&full))
            .map_err(|_| Error::Stopped)?;
        Ok(Self {
            session,
            keys,
            reader,
            coding,
            progress,
            dedup,
            journal,
            interrupted,
            spooled: BTreeMap::new(),
            resumed: BTreeSet::new(),
            seal,
            compressor: Compressor::new(DEFAULT_LEVEL).map_err(|source| Error::Io {
                action: "set up compression in",
                path: home.dir().to_owned(),
                source,
            })?,
            files: None,
            trees: None,
            memory: Arc::new(Semaphore::new(UNDER_WAY_BYTES_MAX / PERMIT_BYTES)),
            coder: Some(coder),
            coder_thread: Some(coder_thread),
            uploads,
            finished,
            under_way: 0,
            placed,
            figures: PackFigures::default(),
        })
    }

    /// Stores a chunk, unless the vault has it.
    pub(crate) fn put(&mut self, content: Content, chunk: &[u8]) -> Result<ChunkRef, Error> {
        self.progress.check()?;
        self.collect_finished()?;
        let whole_tag = self.keys.dedup_tag(chunk).0;
        let mut tag: ChunkTag = [0; 16];
        tag.copy_from_slice(&whole_tag[..16]);
        if let Some(known) = self.dedup.find(&tag).filter(|known| known.plain_length as usize == chunk.len()) {
            self.figures.chunks_known += 1;
            if content == Content::File {
                Progress::add(&self.progress.bytes_known, chunk.len() as u64);
            }
            self.resume(&known.segment)?;
            if content == Content::Tree && self.resumed.contains(&known.segment) {
                self.reader.remember(&known, chunk);
            }
            return Ok(known);
        }
        let frame = self.compressor.frame(chunk);
        let sealed = seal(frame, chunk.len() as u32, self.keys.convergence());
        if self.filling(content).as_ref().is_some_and(|open| !open.builder.fits(sealed.bytes.len())) {
            self.close(content)?;
        }
        let vault = self.keys.vault_id();
        let slot = self.filling(content);
        if slot.is_none() {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).map_err(|_| Error::NoRandomness)?;
            *slot = Some(OpenSegment { builder: SegmentBuilder::new(vault, salt), chunks: Vec::new() });
        }
        let Some(open) = slot else { return Err(Error::Stopped) };
        let chunk_ref = open
            .builder
            .push(&sealed)
            .map_err(|error| Error::Damaged { segment: open.builder.id(), reason: error.to_string() })?;
        open.chunks.push(PackedChunk {
            tag,
            offset: chunk_ref.offset,
            sealed_length: chunk_ref.sealed_length,
            plain_length: chunk_ref.plain_length,
            key: chunk_ref.key.clone(),
        });
        let full = u64::from(chunk_ref.offset) + u64::from(chunk_ref.sealed_length) >= SEGMENT_BYTES_MAX
            || open.chunks.len() >= SEGMENT_CHUNKS_MAX;
        self.dedup.insert(tag, chunk_ref.clone());
        if content == Content::Tree {
            // An edit may come back to a node that is not placed yet.
            self.reader.remember(&chunk_ref, chunk);
        }
        self.figures.chunks_new += 1;
        self.figures.bytes_new += chunk.len() as u64;
        self.figures.bytes_sealed += u64::from(chunk_ref.sealed_length);
        if full {
            self.close(content)?;
        }
        Ok(chunk_ref)
    }

    /// The next chunks are of another file: what was learned of how well the last one compresses is forgotten.
    pub(crate) fn begin_file(&mut self) {
        self.compressor.begin_file();
    }

    fn filling(&mut self, content: Content) -> &mut Option<OpenSegment> {
        match content {
            Content::File => &mut self.files,
            Content::Tree => &mut self.trees,
        }
    }

    /// Sends an open segment off, full or not.
    fn close(&mut self, content: Content) -> Result<(), Error> {
        let Some(open) = self.filling(content).take() else { return Ok(()) };
        let coding = self.coding?;
        self.send(open, coding, None)
    }

    /// Goes on with a segment that was under way when an earlier put ended.
    fn resume(&mut self, segment: &SegmentId) -> Result<(), Error> {
        let Some(spooled) = self.spooled.remove(segment) else { return Ok(()) };
        self.resumed.insert(*segment);
        let builder = spooled.segment()?;
        let Spooled { manifest, chunks, slot, .. } = spooled;
        self.send(OpenSegment { builder, chunks }, manifest.coding, Some(slot))
    }

    /// Waits for memory and has a segment coded and placed.
    fn send(&mut self, open: OpenSegment, coding: Coding, slot: Option<Slot>) -> Result<(), Error> {
        let permits = permits(open.builder.length(), coding);
        let mut memory = std::pin::pin!(self.memory.clone().acquire_many_owned(permits));
        let permit = loop {
            let waited = self.session.wait_for(&self.progress, async {
                tokio::select! {
                    biased;
                    Some(finished) = self.finished.recv() => Waited::Finished(finished),
                    permit = &mut memory => Waited::Memory(permit),
                }
            })?;
            match waited {
                Waited::Finished(finished) => self.keep(finished)?,
                Waited::Memory(permit) => break permit.map_err(|_| Error::Stopped)?,
            }
        };
        let coder = self.coder.as_ref().ok_or(Error::Stopped)?;
        coder.send(FullSegment { open, coding, permit, slot }).map_err(|_| Error::Stopped)?;
        self.under_way += 1;
        Ok(())
    }

    /// Notes what has been placed meanwhile, soon: should we be killed, it need not be sent again.
    fn collect_finished(&mut self) -> Result<(), Error> {
        while let Ok(finished) = self.finished.try_recv() {
            self.keep(finished)?;
        }
        Ok(())
    }

    fn keep(&mut self, finished: Result<Placed, Error>) -> Result<(), Error> {
        self.under_way -= 1;
        let Placed { segment, holders, bytes_placed, shared, missing, slot } = finished?;
        let catalog = self.reader.catalog();
        catalog.learn_info(segment.id, segment.info.clone());
        // Else the head that is to come would hint holders whom it does not name, and its readers would need stewards.
        holders.iter().for_each(|node| catalog.learn_node(*node));
        let journaled = self.journal.append(&segment, &self.seal)?;
        slot.map_or(Ok(()), Slot::free)?;
        self.dedup.placed(&segment)?;
        self.figures.segments += 1;
        self.figures.bytes_placed += bytes_placed;
        self.figures.shards_sharing += shared as u64;
        self.figures.shards_missing += missing as u64;
        self.placed.push(journaled);
        Ok(())
    }

    /// Sends what is open and waits until all of it is placed and recorded.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.settle_files()?;
        self.close(Content::Tree)?;
        self.wait()
    }

    /// The same, but for the segment of trees that is open: the table's nodes can go into it too.
    pub(crate) fn settle_files(&mut self) -> Result<(), Error> {
        self.close(Content::File)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Error> {
        while self.under_way > 0 {
            let finished = self.session.wait_for(&self.progress, self.finished.recv())?;
            self.keep(finished.ok_or(Error::Stopped)?)?;
        }
        Ok(())
    }

    /// The segments placed since the last call, and those that an earlier put left behind.
    pub(crate) fn take_placed(&mut self) -> Vec<JournaledSegment> {
        std::mem::take(&mut self.placed)
    }

    pub(crate) fn coding(&self) -> Result<Coding, Error> {
        Ok(self.coding?)
    }

    pub(crate) fn figures(&self) -> PackFigures {
        self.figures
    }

    /// The segments that an earlier put left behind, or this one has placed, and the table has not taken in yet.
    pub(crate) fn placed(&self) -> impl Iterator<Item = SegmentId> {
        self.placed.iter().map(|segment| segment.id)
    }

    /// Forgets segments that are being dropped: nothing new refers to them, and the table does not take them in.
    pub(crate) fn forget(&mut self, segments: &BTreeSet<SegmentId>) {
        self.dedup.forget(segments);
        self.placed.retain(|segment| !segments.contains(&segment.id));
    }

    pub(crate) fn dedup(&mut self) -> &mut DedupIndex {
        &mut self.dedup
    }

    /// The segments that were under way when an earlier put ended, to be told apart: [`Self::offer`] those that no
    /// head refers to, free the others.
    pub(crate) fn take_interrupted(&mut self) -> Vec<Spooled> {
        std::mem::take(&mut self.interrupted)
    }

    /// A segment that this put may go on with. If it does not, its shards are dropped in the end.
    pub(crate) fn offer(&mut self, spooled: Spooled) {
        let id = spooled.id();
        for chunk in spooled.chunks.iter().filter(|_| spooled.is_whole) {
            self.dedup.insert(chunk.tag, chunk.chunk_ref(id));
        }
        self.spooled.insert(id, spooled);
    }

    /// Has all who may have shards of what nobody went on with drop them.
    fn drop_leftovers(&mut self) -> Result<(), Error> {
        let leftovers: Vec<Spooled> = std::mem::take(&mut self.spooled).into_values().collect();
        for leftovers in leftovers.chunks(DROP_SEGMENTS_MAX) {
            for leftover in leftovers {
                leftover.slot.give_up()?;
            }
            let ids: Vec<SegmentId> = leftovers.iter().map(Spooled::id).collect();
            let drop = drop_of(ids.clone(), &self.keys, &self.session);
            let nodes = leftovers.iter().flat_map(|leftover| leftover.slot.nodes()).collect();
            self.session.block_on(upload::drop_segments(&self.session, &ids, &drop, nodes));
        }
        leftovers.into_iter().try_for_each(|leftover| leftover.slot.free())
    }

    /// A head refers to all that was placed, and the cache knows all of `table`, if one is given.
    pub(crate) fn committed(&mut self, table: Option<&[u8]>) -> Result<(), Error> {
        if let Some(table) = table {
            self.dedup.set_table_seen(table)?;
        }
        self.drop_leftovers()?;
        self.journal.clear()
    }

    /// This packer as a sink for one kind of content.
    pub(crate) fn sink(&mut self, content: Content) -> Sink<'_> {
        Sink { packer: self, content }
    }
}

/// What came while a segment waited for memory.
enum Waited {
    Finished(Result<Placed, Error>),
    Memory(Result<OwnedSemaphorePermit, tokio::sync::AcquireError>),
}

impl Drop for Packer {
    /// Ends the uploads that nobody will wait for, and notes those that are done.
    fn drop(&mut self) {
        self.uploads.cancel();
        drop(self.coder.take());
        if let Some(thread) = self.coder_thread.take() {
            let _ = thread.join();
        }
        while let Ok(finished) = self.finished.try_recv() {
            // What ended the put is reported; here a failure only means that more is sent again.
            if let Err(error) = self.keep(finished) {
                tracing::debug!("after the end of a put: {error}");
            }
        }
    }
}

/// Chunks of one kind of content, into a packer.
pub(crate) struct Sink<'p> {
    packer: &'p mut Packer,
    content: Content,
}

impl ChunkSink for Sink<'_> {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        self.packer.put(self.content, plain)
    }
}

/// The owner's word that segments are not wanted.
fn drop_of(segments: Vec<SegmentId>, keys: &VaultKeys, session: &Session) -> Unverified<DropOrder> {
    upload::order(DropKind::Drop, now().0, segments, keys, session)
}

/// The coding thread: codes, signs, and starts each upload on the network's runtime.
struct UploadStage {
    session: Arc<Session>,
    keys: Arc<VaultKeys>,
    progress: Arc<Progress>,
    report: mpsc::Sender<Result<Placed, Error>>,
    uploads: CancellationToken,
    records: upload::RecordQueues,
    spool: Spool,
}

impl UploadStage {
    fn run(self, full: &threads::Receiver<FullSegment>) {
        while let Ok(FullSegment { open, coding, permit, slot }) = full.recv() {
            if self.uploads.is_cancelled() {
                return;
            }
            let id: SegmentId = open.builder.id();
            let CodedSegment { manifest, shards } = match open.builder.finish(coding) {
                Ok(coded) => coded,
                Err(error) => {
                    let _ = self.report.blocking_send(Err(Error::Damaged { segment: id, reason: error.to_string() }));
                    continue;
                }
            };
            let manifest: Verified<Manifest> = Verified::sign(manifest, self.keys.signing(), self.session.network());
            let undo = drop_of(vec![id], &self.keys, &self.session);
            let slot = slot.or_else(|| self.spool.write(&manifest, &open.chunks, &shards));
            let upload = upload::SegmentUpload { id, manifest, shards, chunks: open.chunks, undo, slot };
            let (session, records, report) = (self.session.clone(), self.records.clone(), self.report.clone());
            let (progress, uploads) = (self.progress.clone(), self.uploads.clone());
            self.session.handle().spawn(async move {
                let placed = upload::run(&session, &records, upload, &progress);
                let Some(placed) = uploads.run_until_cancelled(placed).await else { return };
                drop(permit);
                let _ = report.send(placed).await;
            });
        }
    }
}
