//! A vault's content in memory, sealed as it is anywhere: what tests read instead of a network.

use std::{collections::HashMap, sync::Mutex};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    frame::{Compressor, DEFAULT_LEVEL},
    keys::{VaultKeys, VaultSecret},
    seal::seal,
    tree::{ChunkSink, ChunkSource},
};

use crate::{
    error::Error,
    reader::{ContentSource, Fetched, open},
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
}

impl MemorySource {
    pub(crate) fn new() -> Self {
        Self {
            keys: VaultKeys::derive(&VaultSecret::from_bytes([1; 32])),
            compressor: Compressor::new(DEFAULT_LEVEL).expect("a compressor"),
            segments: HashMap::new(),
            chunks: 0,
            fetched: Mutex::default(),
        }
    }

    fn sealed(&self, chunk: &ChunkRef) -> Bytes {
        let bytes = chunk.bytes();
        Bytes::copy_from_slice(&self.segments[&chunk.segment][bytes.start as usize..bytes.end as usize])
    }
}

impl ChunkSink for MemorySource {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        let sealed = seal(self.compressor.frame(plain), plain.len() as u32, self.keys.convergence());
        let segment = SegmentId::from_bytes([(self.chunks / SEGMENT_CHUNKS) as u8; 32]);
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
        open(chunk, &self.sealed(chunk))
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
        chunks.iter().for_each(|chunk| fetched.add(chunk.segment, chunk.bytes(), self.sealed(chunk)));
        Ok(fetched)
    }
}
