//! Which chunks the vault has already: the index that spares compressing, sealing and sending them again.
//!
//! Three places, asked in this order: segments being filled or sent now (in memory), segments placed by this home
//! (the cache, a sled database under a process lock), nothing. Who does not get the lock works without the cache.
//! In the cache, `tag → segment` in one tree and `segment → sealed chunk list` in another: short keys and values,
//! and no chunk key in the open.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs, io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use commonhold_protocol::SegmentId;
use commonhold_storage_engine::chunk_ref::ChunkRef;
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    home::Home,
    local_seal::LocalSeal,
    table::{ChunkTag, PlacedSegment},
};

const PURPOSE: &[u8] = b"dedup v1";
/// Memory for sled's page cache.
const CACHE_BYTES: u64 = 16 << 20;
/// Chunk lists of cached segments kept open: a file's chunks mostly lie in a row.
const OPEN_SEGMENTS_MAX: usize = 16;
/// Chunks remembered in memory; beyond it, new ones are simply not recognised.
const RECENT_CHUNKS_MAX: usize = 1 << 19;

/// The dedup index of one process.
pub(crate) struct DedupIndex {
    recent: HashMap<ChunkTag, ChunkRef>,
    cache: Option<Cache>,
    seal: Arc<LocalSeal>,
    open_order: VecDeque<SegmentId>,
    open: BTreeMap<SegmentId, HashMap<ChunkTag, ChunkRef>>,
}

struct Cache {
    db: sled::Db,
    tags: sled::Tree,
    segments: sled::Tree,
    /// Dropped last: who has it may remove the folder.
    _lock: fs::File,
}

impl Cache {
    /// None if another process has it, or if it cannot be opened even afresh: it only saves time.
    fn open(home: &Home) -> Option<Self> {
        let dir = home.cache_dir();
        let mut options = fs::OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(home.cache_lock()).ok()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            tracing::info!("working without the cache: another process has it");
            return None;
        }
        let opened = open_database(&dir).or_else(|error| {
            if !is_damage(&error) {
                return Err(error);
            }
            tracing::warn!("the cache in {} is damaged: starting a new one", dir.display());
            fs::remove_dir_all(&dir)?;
            open_database(&dir)
        });
        match opened {
            Ok((db, tags, segments)) => Some(Self { db, tags, segments, _lock: lock }),
            Err(error) => {
                tracing::info!("working without the cache: {error}");
                None
            }
        }
    }
}

impl Cache {
    /// Without its list no chunk of a segment is found; that the tags go too saves space.
    fn forget(&self, segment: &SegmentId, seal: &LocalSeal) -> Result<(), sled::Error> {
        let Some(sealed) = self.segments.remove(segment.as_bytes())? else { return Ok(()) };
        let opened = seal.open(PURPOSE, &sealed).and_then(|bytes| PlacedSegment::from_bytes(bytes).ok());
        for chunk in opened.iter().flat_map(|segment| &segment.chunks) {
            // Another segment may have the chunk by now.
            if self.tags.get(chunk.tag)?.is_some_and(|id| id.as_ref() == segment.as_bytes()) {
                self.tags.remove(chunk.tag)?;
            }
        }
        Ok(())
    }
}

/// sled can panic on a damaged folder: that is an error here.
fn open_database(dir: &Path) -> Result<(sled::Db, sled::Tree, sled::Tree), sled::Error> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
        let (tags, segments) = (db.open_tree("tags")?, db.open_tree("segments")?);
        Ok((db, tags, segments))
    }));
    opened.unwrap_or_else(|_| Err(sled::Error::ReportableBug("sled panicked".to_owned())))
}

/// True if a new database would do better, false if the system is to blame.
fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        _ => true,
    }
}

impl DedupIndex {
    pub(crate) fn open(home: &Home, seal: Arc<LocalSeal>) -> Self {
        Self {
            recent: HashMap::new(),
            cache: Cache::open(home),
            seal,
            open_order: VecDeque::new(),
            open: BTreeMap::new(),
        }
    }

    /// The chunk with this tag, if the vault has it.
    pub(crate) fn find(&mut self, tag: &ChunkTag) -> Option<ChunkRef> {
        if let Some(found) = self.recent.get(tag) {
            return Some(found.clone());
        }
        let id: [u8; 32] = self.cache.as_ref()?.tags.get(tag).ok()??.as_ref().try_into().ok()?;
        let id = SegmentId::from_bytes(id);
        if !self.open.contains_key(&id) {
            self.open_segment(id)?;
        }
        self.open.get(&id)?.get(tag).cloned()
    }

    fn open_segment(&mut self, id: SegmentId) -> Option<()> {
        let sealed = self.cache.as_ref()?.segments.get(id.as_bytes()).ok()??;
        let segment = PlacedSegment::from_bytes(self.seal.open(PURPOSE, &sealed)?).ok()?;
        if self.open_order.len() >= OPEN_SEGMENTS_MAX
            && let Some(oldest) = self.open_order.pop_front()
        {
            self.open.remove(&oldest);
        }
        let chunks = segment.chunks.iter().map(|chunk| (chunk.tag, chunk.chunk_ref(id))).collect();
        self.open_order.push_back(id);
        self.open.insert(id, chunks);
        Some(())
    }

    /// A chunk of a segment that is being filled.
    pub(crate) fn insert(&mut self, tag: ChunkTag, chunk: ChunkRef) {
        if self.recent.len() < RECENT_CHUNKS_MAX {
            self.recent.insert(tag, chunk);
        }
    }

    /// Segments that the network holds: from memory to the cache.
    pub(crate) fn placed(&mut self, segment: &PlacedSegment) -> Result<(), Error> {
        let Some(cache) = &self.cache else {
            for chunk in &segment.chunks {
                self.insert(chunk.tag, chunk.chunk_ref(segment.id));
            }
            return Ok(());
        };
        let sealed = self.seal.seal(PURPOSE, &Zeroizing::new(segment.to_bytes()))?;
        let mut tags = sled::Batch::default();
        for chunk in &segment.chunks {
            tags.insert(&chunk.tag, segment.id.as_bytes());
        }
        let kept = cache.segments.insert(segment.id.as_bytes(), sealed).and_then(|_| cache.tags.apply_batch(tags));
        if let Err(error) = kept {
            tracing::warn!("the cache cannot be written: {error}");
            return Ok(());
        }
        for chunk in &segment.chunks {
            self.recent.remove(&chunk.tag);
        }
        Ok(())
    }

    /// Forgets segments that are being dropped, so that nothing new refers to them.
    pub(crate) fn forget(&mut self, segments: &BTreeSet<SegmentId>) {
        self.recent.retain(|_, chunk| !segments.contains(&chunk.segment));
        self.open.retain(|id, _| !segments.contains(id));
        self.open_order.retain(|id| !segments.contains(id));
        let Some(cache) = &self.cache else { return };
        if let Err(error) = segments.iter().try_for_each(|id| cache.forget(id, &self.seal)) {
            // It would find what is not there any more. The next process reads the tombstones again.
            tracing::warn!("working without the cache, which cannot be written: {error}");
            self.cache = None;
        }
    }

    /// The segments in the cache.
    pub(crate) fn cached(&self) -> impl Iterator<Item = SegmentId> {
        let keys = self.cache.iter().flat_map(|cache| cache.segments.iter().keys());
        keys.filter_map(|key| Some(SegmentId::from_bytes(key.ok()?.as_ref().try_into().ok()?)))
    }

    /// The table that the cache was last brought up to; none if it never was.
    pub(crate) fn table_seen(&self) -> Option<Vec<u8>> {
        let sealed = self.cache.as_ref()?.db.get("table").ok()??;
        self.seal.open(PURPOSE, &sealed).map(|bytes| bytes.to_vec())
    }

    /// Notes that the cache has all of this table, and writes it out.
    pub(crate) fn set_table_seen(&self, table: &[u8]) -> Result<(), Error> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let sealed = self.seal.seal(PURPOSE, table)?;
        let kept = cache.db.insert("table", sealed).and_then(|_| cache.db.flush());
        if let Err(error) = kept {
            tracing::warn!("the cache cannot be written: {error}");
        }
        Ok(())
    }

    /// True if there is a cache to bring up to date.
    pub(crate) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }
}

#[cfg(test)]
mod tests;
