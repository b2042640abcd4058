//! Segments that one of two states has dropped, and the other may use.
//!
//! Which of them are used is told by what the merged state refers to. Those are taken back: holders still have them in
//! the trash, and are told so before the head is written that counts on it.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
};

use bytes::Bytes;
use commonhold_protocol::{DropKind, NodeId, SegmentId, drop::DROP_SEGMENTS_MAX};
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSink, ChunkSource,
        map::TreeRoot,
        walk::{self, Part},
    },
};

use super::Transaction;
use crate::{
    error::Error,
    health::stewards_and_claimants,
    packer::Sink,
    prune::holders,
    reader::Reader,
    session::now,
    tombstones::{self, Tombstones},
    upload,
};

/// The segments with a tombstone in only one of two tables, and the counters of their drops.
pub(super) struct Disputes(Tombstones);

impl Disputes {
    pub(super) fn between(reader: &Reader, [ours, theirs]: [&TreeRoot; 2]) -> Result<Self, Error> {
        let (ours, theirs) = (tombstones::read(reader, ours)?, tombstones::read(reader, theirs)?);
        let disputed = tombstones::disputed(&ours, &theirs);
        Ok(Self(ours.into_iter().chain(theirs).filter(|(id, _)| disputed.contains(id)).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn segments(&self) -> BTreeSet<SegmentId> {
        self.0.keys().copied().collect()
    }

    pub(super) fn without(&self, wanted: &BTreeSet<SegmentId>) -> BTreeSet<SegmentId> {
        self.0.keys().filter(|id| !wanted.contains(id)).copied().collect()
    }

    /// Those that hold anything of the drive below `root`, or of either table: what a table of both is made of.
    pub(super) fn wanted<S>(
        &self,
        source: &S,
        root: &TreeRoot,
        tables: [&TreeRoot; 2],
    ) -> Result<BTreeSet<SegmentId>, Error>
    where
        S: ChunkSource<Error = Error>,
    {
        let mut wanted = BTreeSet::new();
        if self.is_empty() {
            return Ok(wanted);
        }
        let mut seen = HashSet::new();
        let mut note = |chunk: &ChunkRef, part: Part| {
            if self.0.contains_key(&chunk.segment) {
                wanted.insert(chunk.segment);
            }
            part == Part::Data || seen.insert((chunk.segment, chunk.offset))
        };
        walk::directory(source, root, &mut note)?;
        for table in tables {
            walk::map(source, table, |chunk| note(chunk, Part::Node))?;
        }
        Ok(wanted)
    }
}

impl Transaction<'_> {
    /// Tells stewards and holders that segments are wanted after all.
    pub(super) fn take_back(&self, disputes: &Disputes, wanted: &BTreeSet<SegmentId>) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        let session = &self.vault.session;
        let holders = holders(&self.reader, wanted)?;
        // With the drop, records lost their claims: who else has shards since a repair, only the holders know.
        let others: Vec<NodeId> = session.wait_for(&self.progress, session.nodes())??.into_keys().collect();
        let wanted: Vec<SegmentId> = wanted.iter().copied().collect();
        for ids in wanted.chunks(DROP_SEGMENTS_MAX) {
            let dropped = ids.iter().filter_map(|id| disputes.0.get(id)).max().copied().unwrap_or_default();
            // Newer than the drop, whatever the clock of whoever dropped them said.
            let counter = now().0.max(dropped.saturating_add(1));
            let order = upload::order(DropKind::Undrop, counter, ids.to_vec(), &self.vault.keys, session);
            let mut nodes = stewards_and_claimants(session, ids, &self.progress)?;
            nodes.extend(ids.iter().filter_map(|id| holders.get(id)).flatten().chain(&others));
            if session.wait_for(&self.progress, upload::tell(session, &order, nodes))? == 0 {
                let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
                tracing::warn!("nobody has heard that these segments are wanted after all: {}", names.join(", "));
            }
        }
        Ok(())
    }
}

/// A reader that remembers what is packed beside it: nodes that a merge has just made lie in no segment yet that could
/// be read, and a walk through all of a large drive would push them out of the reader's own memory.
pub(super) struct Remembering {
    reader: Reader,
    made: Option<RefCell<HashMap<(SegmentId, u32), Bytes>>>,
}

impl Remembering {
    /// Remembers nothing unless it is `needed`.
    pub(super) fn new(reader: Reader, needed: bool) -> Self {
        Self { reader, made: needed.then(RefCell::default) }
    }

    pub(super) fn sink<'p>(&'p self, sink: Sink<'p>) -> RememberingSink<'p> {
        RememberingSink { sink, source: self }
    }
}

impl ChunkSource for Remembering {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        let made = self.made.as_ref().and_then(|made| made.borrow().get(&(chunk.segment, chunk.offset)).cloned());
        made.map_or_else(|| self.reader.get(chunk), Ok)
    }

    fn hint(&self, soon: &[ChunkRef]) {
        self.reader.hint(soon);
    }
}

/// The sink of a [`Remembering`].
pub(super) struct RememberingSink<'p> {
    sink: Sink<'p>,
    source: &'p Remembering,
}

impl ChunkSink for RememberingSink<'_> {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        let chunk = self.sink.put(plain)?;
        if let Some(made) = &self.source.made {
            made.borrow_mut().insert((chunk.segment, chunk.offset), Bytes::copy_from_slice(plain));
        }
        Ok(chunk)
    }
}
