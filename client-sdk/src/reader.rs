//! **fetched → verified → opened**: chunks by their refs, for trees and for files.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    keys::VaultKeys,
    seal,
    tree::{ChunkSource, TreeError, map},
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    catalog::Catalog,
    download::Download,
    error::Error,
    progress::Progress,
    session::Session,
    table::{self, NodeHint, SegmentInfo},
};

/// Plain chunks kept in memory: the upper nodes of trees, and what a reader goes back to.
const CACHE_BYTES_MAX: usize = 24 << 20;
/// Chunks fetched ahead of a scan at once; what is never asked for stays until the vault is closed.
const AHEAD_MAX: usize = 64;
/// Two chunks of a segment that lie no farther apart are fetched in one go: proofs go by 16 KiB anyway.
pub(crate) const GAP_BYTES_MAX: u64 = 32 << 10;

/// Reads chunks of one vault. Clones share all that they know.
#[derive(Clone)]
pub(crate) struct Reader {
    session: Arc<Session>,
    keys: Arc<VaultKeys>,
    catalog: Arc<Catalog>,
    cache: Arc<Mutex<ChunkCache>>,
    ahead: Arc<Mutex<HashMap<Place, Ahead>>>,
    /// Whom this one reads for: counts what is moved, and ends a wait.
    progress: Option<Arc<Progress>>,
}

/// Sealed bytes that somebody will ask for soon, on their way; nothing if it failed.
type Ahead = Shared<BoxFuture<'static, Option<SealedRange>>>;

/// Which sealed bytes hold a chunk: the same place has the same content for ever.
type Place = (SegmentId, u32);

#[derive(Default)]
struct ChunkCache {
    chunks: HashMap<Place, Bytes>,
    order: VecDeque<Place>,
    bytes: usize,
}

impl ChunkCache {
    fn insert(&mut self, place: Place, chunk: Bytes) {
        self.bytes += chunk.len();
        if let Some(old) = self.chunks.insert(place, chunk) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(place);
        }
        while self.bytes > CACHE_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.chunks.remove(&oldest).map_or(0, |chunk| chunk.len());
        }
    }
}

/// Where a get takes a vault's content from: nodes of trees one by one, the contents of files many chunks at once.
pub(crate) trait ContentSource: ChunkSource<Error = Error> + Sync {
    /// Chunks on their way.
    type Fetching: Send;

    /// Starts to fetch what holds these chunks.
    fn fetch(&self, chunks: &[ChunkRef]) -> Result<Self::Fetching, Error>;

    /// Waits until all of it is here.
    fn wait(&self, fetching: Self::Fetching) -> Result<Fetched, Error>;
}

/// A range of a segment on its way; the download ends with whoever waits for it.
type Downloading = AbortOnDropHandle<Result<SealedRange, Error>>;

/// Sealed bytes on their way: some ranges of some segments.
pub(crate) struct Fetching(Vec<(SegmentId, Downloading)>);

/// Sealed bytes that are here, verified.
#[derive(Default)]
pub(crate) struct Fetched(BTreeMap<SegmentId, Vec<SealedRange>>);

/// A range of a segment in the pieces that it came in: few chunks lie in two of them, so joining all would copy in vain.
#[derive(Clone)]
pub(crate) struct SealedRange {
    /// Where in the segment the first piece starts.
    pub(crate) start: u64,
    /// One after another.
    pub(crate) pieces: Vec<Bytes>,
}

impl SealedRange {
    /// These bytes of the segment; none if not all of them are here.
    fn get(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let range = range.start.checked_sub(self.start)?..range.end.checked_sub(self.start)?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let slices = slices(&self.pieces, range)?;
        let mut bytes = Vec::with_capacity(length);
        slices.for_each(|slice| bytes.extend_from_slice(&slice));
        Some(bytes)
    }
}

/// The bytes `range` of `parts`, which lie one after another; none if they end before.
pub(crate) fn slices(parts: &[Bytes], range: Range<u64>) -> Option<impl Iterator<Item = Bytes>> {
    let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let mut at = 0;
    let slice = move |part: &Bytes| {
        let part_range = at..at + part.len() as u64;
        at = part_range.end;
        let (from, to) = (range.start.max(part_range.start), range.end.min(part_range.end));
        // Both lie in the part.
        (from < to).then(|| part.slice((from - part_range.start) as usize..(to - part_range.start) as usize))
    };
    (range.start <= range.end && range.end <= bytes).then(|| parts.iter().filter_map(slice))
}

impl Reader {
    pub(crate) fn new(session: Arc<Session>, keys: Arc<VaultKeys>, catalog: Arc<Catalog>) -> Self {
        Self { session, keys, catalog, cache: Arc::default(), ahead: Arc::default(), progress: None }
    }

    /// This reader, for one operation: its waits end when the user wants to stop.
    pub(crate) fn for_operation(&self, progress: &Arc<Progress>) -> Self {
        Self { progress: Some(progress.clone()), ..self.clone() }
    }

    /// Keeps a chunk that was just packed at hand.
    pub(crate) fn remember(&self, chunk: &ChunkRef, plain: &[u8]) {
        let place = (chunk.segment, chunk.offset);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(place, Bytes::copy_from_slice(plain));
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Waits for a future, unless the user wants to stop before it ends.
    fn wait_for<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        match &self.progress {
            Some(progress) => self.session.wait_for(progress, future),
            None => Ok(self.session.block_on(future)),
        }
    }

    fn download(&self, segment: SegmentId, range: Range<u64>, progress: Option<Arc<Progress>>) -> Download {
        Download {
            session: self.session.clone(),
            catalog: self.catalog.clone(),
            vault: self.keys.vault_id(),
            segment,
            range,
            progress,
        }
    }

    /// Learns from the vault's table where a segment is, if it is not known yet.
    pub(crate) fn locate(&self, segment: SegmentId) -> Result<(), Error> {
        if self.catalog.info(&segment).is_some() {
            return Ok(());
        }
        for table in self.catalog.tables() {
            let Some(value) = self.look_up(&table, &table::segment_key(&segment))? else { continue };
            let info = SegmentInfo::decode(value)?;
            for key in self.catalog.unknown_nodes(&info) {
                if let Some(value) = self.look_up(&table, &table::node_key(key))? {
                    let hint = NodeHint::decode(value)?;
                    self.session.learn(&hint);
                    self.catalog.learn_node(hint.node);
                }
            }
            self.catalog.learn_info(segment, info);
            break;
        }
        Ok(())
    }

    /// A table that cannot be read now says nothing: that costs a walk to the stewards, no more.
    fn look_up(&self, table: &map::TreeRoot, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match map::get(&TableSource(self), table, key) {
            Ok(value) => Ok(value),
            Err(TreeError::Chunk(Error::Interrupted)) => Err(Error::Interrupted),
            Err(_) => Ok(None),
        }
    }

    /// A chunk that is needed now, from memory or the network.
    fn chunk(&self, chunk: &ChunkRef, locate: bool) -> Result<Bytes, Error> {
        let place = (chunk.segment, chunk.offset);
        if let Some(plain) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).chunks.get(&place) {
            return Ok(plain.clone());
        }
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
        let ahead = ahead.map(|ahead| self.wait_for(ahead)).transpose()?.flatten();
        let sealed = match ahead {
            Some(sealed) => sealed,
            None => {
                if locate {
                    self.locate(chunk.segment)?;
                }
                self.wait_for(self.download(chunk.segment, chunk.bytes(), None).run())??
            }
        };
        let sealed = sealed.get(chunk.bytes()).ok_or_else(|| not_fetched(chunk))?;
        let plain = open(chunk, sealed)?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(place, plain.clone());
        Ok(plain)
    }
}

impl ContentSource for Reader {
    type Fetching = Fetching;

    /// Each range of a segment in one go.
    fn fetch(&self, chunks: &[ChunkRef]) -> Result<Fetching, Error> {
        let mut wanted: BTreeMap<SegmentId, Vec<Range<u64>>> = BTreeMap::new();
        for chunk in chunks {
            wanted.entry(chunk.segment).or_default().push(chunk.bytes());
        }
        let mut ranges = Vec::new();
        for (segment, segment_ranges) in wanted {
            self.locate(segment)?;
            for range in joined(segment_ranges) {
                let download = self.download(segment, range, self.progress.clone());
                let download = AbortOnDropHandle::new(self.session.handle().spawn(download.run()));
                ranges.push((segment, download));
            }
        }
        Ok(Fetching(ranges))
    }

    /// If some segments are unavailable, the error names all of them.
    fn wait(&self, fetching: Fetching) -> Result<Fetched, Error> {
        let mut fetched = Fetched::default();
        let mut unavailable = Vec::new();
        for (segment, download) in fetching.0 {
            match self.wait_for(download)?.map_err(|_| Error::Stopped)? {
                Ok(sealed) => fetched.add(segment, sealed),
                Err(Error::Unavailable { segments }) => unavailable.extend(segments),
                Err(error) => return Err(error),
            }
        }
        if unavailable.is_empty() { Ok(fetched) } else { Err(Error::Unavailable { segments: unavailable }) }
    }
}

impl ChunkSource for Reader {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        self.chunk(chunk, true)
    }

    fn hint(&self, soon: &[ChunkRef]) {
        let mut wanted: BTreeMap<SegmentId, Vec<&ChunkRef>> = BTreeMap::new();
        {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            let room = AHEAD_MAX.saturating_sub(ahead.len());
            for chunk in soon.iter().take(room) {
                let place = (chunk.segment, chunk.offset);
                if !cache.chunks.contains_key(&place) && !ahead.contains_key(&place) {
                    wanted.entry(chunk.segment).or_default().push(chunk);
                }
            }
        }
        for (segment, chunks) in wanted {
            // Finding out where a segment is would make whoever hints wait.
            if self.catalog.info(&segment).is_none() {
                continue;
            }
            for range in joined(chunks.iter().map(|chunk| chunk.bytes()).collect()) {
                let download = self.session.handle().spawn(self.download(segment, range.clone(), None).run());
                let sealed = async move { download.await.ok()?.ok() }.boxed().shared();
                let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in chunks.iter().filter(|chunk| range.contains(&chunk.bytes().start)) {
                    let place = (segment, chunk.offset);
                    ahead.insert(place, sealed.clone());
                }
            }
        }
    }
}

/// Reads the table itself: its segments are hinted by the head, or found through their stewards, never by the table.
struct TableSource<'r>(&'r Reader);

impl ChunkSource for TableSource<'_> {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        self.0.chunk(chunk, false)
    }
}

/// Opens a sealed chunk.
pub(crate) fn open(chunk: &ChunkRef, sealed: Vec<u8>) -> Result<Bytes, Error> {
    let damaged = |reason: String| Error::Damaged { segment: chunk.segment, reason };
    let frame = seal::open(sealed, &chunk.key).map_err(|error| damaged(error.to_string()))?;
    frame.open(chunk.plain_length).map_err(|error| damaged(error.to_string()))
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP_BYTES_MAX => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

impl Fetched {
    /// Takes in a range of a segment.
    pub(crate) fn add(&mut self, segment: SegmentId, sealed: SealedRange) {
        self.0.entry(segment).or_default().push(sealed);
    }

    /// Opens a chunk that was fetched.
    pub(crate) fn open(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        let ranges = self.0.get(&chunk.segment).into_iter().flatten();
        let sealed = ranges.filter_map(|range| range.get(chunk.bytes())).next();
        open(chunk, sealed.ok_or_else(|| not_fetched(chunk))?)
    }
}

fn not_fetched(chunk: &ChunkRef) -> Error {
    Error::Damaged { segment: chunk.segment, reason: "a chunk was not fetched".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_fetched_in_one_go() {
        assert_eq!(joined(vec![50..60, 0..10, 10..20]), vec![0..60]);
        let far = 20 + GAP_BYTES_MAX + 1;
        assert_eq!(joined(vec![0..20, far..far + 5]), vec![0..20, far..far + 5]);
        assert_eq!(joined(vec![0..100, 20..30]), vec![0..100]);
    }

    #[test]
    fn bytes_are_found_in_one_piece_or_across_several() {
        let whole: Vec<u8> = (0..100).collect();
        let pieces = [&whole[10..30], &whole[30..31], &whole[31..90]].map(Bytes::copy_from_slice);
        let sealed = SealedRange { start: 10, pieces: pieces.to_vec() };
        for start in 0..100 {
            for end in start + 1..=100 {
                let there = start >= 10 && end <= 90;
                let expected = there.then(|| whole[start..end].to_vec());
                assert_eq!(sealed.get(start as u64..end as u64), expected, "{start}..{end}");
            }
        }
    }
}
