//! A vault's content in memory, sealed as it is anywhere: what tests read instead of a network.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    frame::{Compressor, DEFAULT_LEVEL},
    keys::{VaultKeys, VaultSecret},
    seal::seal,
    tree::{
        ChunkSink, ChunkSource,
        entry::{Entry, EntryKind, FileContent, FileTime, Xattrs},
        file::FileBuilder,
        map::Builder,
    },
};

use crate::{
    error::{Error, UnavailableSegment},
    reader::{ContentSource, Fetched, SealedRange, open},
};

/// Chunks in one segment: few, so that a test has several segments.
const SEGMENT_CHUNKS: usize = 5;

pub(crate) struct MemorySource {
    keys: VaultKeys,
    compressor: Compressor,
    segments: HashMap<SegmentId, Vec<u8>>,
    chunks: usize,
    /// Plain bytes of the chunks that were fetched for contents.
    pub(crate) fetched: Mutex<Vec<u32>>,
    /// Segments that nobody holds any more.
    pub(crate) lost: HashSet<SegmentId>,
}

impl MemorySource {
    pub(crate) fn new() -> Self {
        Self {
            keys: VaultKeys::derive(&VaultSecret::from_bytes([1; 32])),
            compressor: Compressor::new(DEFAULT_LEVEL).expect("a compressor"),
            segments: HashMap::new(),
            chunks: 0,
            fetched: Mutex::default(),
            lost: HashSet::new(),
        }
    }

    fn sealed(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        if self.lost.contains(&chunk.segment) {
            let lost = UnavailableSegment { segment: chunk.segment, reachable: 0, needed: 1 };
            return Err(Error::Unavailable { segments: vec![lost] });
        }
        let bytes = chunk.bytes();
        Ok(Bytes::copy_from_slice(&self.segments[&chunk.segment][bytes.start as usize..bytes.end as usize]))
    }

    /// A folder with these entries, in order of names. A name may be one that no writer would let through.
    pub(crate) fn folder(&mut self, entries: &[(&[u8], Entry)]) -> Entry {
        let mut builder = Builder::new();
        for (name, entry) in entries {
            builder.push(self, name, &entry.encode().expect("an entry")).expect("pushed");
        }
        entry(EntryKind::Directory(builder.finish(self).expect("a folder")))
    }

    /// A file of data, and of holes where there is a number.
    pub(crate) fn file(&mut self, extents: &[Result<&[u8], u64>]) -> Entry {
        let mut builder = FileBuilder::new();
        for extent in extents {
            match extent {
                Ok(data) => {
                    let chunk = self.put(data).expect("put");
                    builder.push(self, chunk).expect("pushed");
                }
                Err(hole) => builder.push_hole(*hole),
            }
        }
        entry(EntryKind::File(FileContent::Chunks(builder.finish(self).expect("a file"))))
    }
}

/// What lies in the entry itself.
pub(crate) fn small_file(bytes: &[u8]) -> Entry {
    entry(EntryKind::File(FileContent::Inline(Bytes::copy_from_slice(bytes))))
}

/// An entry that is ours, as a file system has it.
pub(crate) fn entry(kind: EntryKind) -> Entry {
    Entry {
        mode: if matches!(kind, EntryKind::Directory(_)) { 0o755 } else { 0o644 },
        kind,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        modified: FileTime::new(1_700_000_000, 123_456_789).expect("a time"),
        link_group: None,
        xattrs: Xattrs::default(),
    }
}

impl ChunkSink for MemorySource {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        let sealed = seal(self.compressor.frame(plain), plain.len() as u32, self.keys.convergence());
        let segment = SegmentId::from_bytes(*blake3::hash(&(self.chunks / SEGMENT_CHUNKS).to_le_bytes()).as_bytes());
        self.chunks += 1;
        let bytes = self.segments.entry(segment).or_default();
        let offset = bytes.len() as u32;
        bytes.extend_from_slice(&sealed.bytes);
        let (sealed_length, plain_length) = (sealed.bytes.len() as u32, sealed.plain_length);
        Ok(ChunkRef { segment, offset, sealed_length, plain_length, key: sealed.key })
    }
}

impl ChunkSource for MemorySource {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        open(chunk, self.sealed(chunk)?.into())
    }
}

impl ContentSource for MemorySource {
    type Fetching = Vec<ChunkRef>;

    fn fetch(&self, chunks: &[ChunkRef]) -> Result<Vec<ChunkRef>, Error> {
        self.fetched.lock().expect("no panic").extend(chunks.iter().map(|chunk| chunk.plain_length));
        Ok(chunks.to_vec())
    }

    fn wait(&self, chunks: Vec<ChunkRef>) -> Result<Fetched, Error> {
        let mut fetched = Fetched::default();
        for chunk in &chunks {
            let pieces = vec![self.sealed(chunk)?];
            fetched.add(chunk.segment, SealedRange { start: chunk.bytes().start, pieces });
        }
        Ok(fetched)
    }
}
