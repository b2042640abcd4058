//! A store of chunks in memory, with counters: the same bytes always get the same ref, so that equal trees have equal
//! roots, unless they were written under another salt (another device's segments).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{ChunkSink, ChunkSource, node::NODE_BYTES_MAX},
};

#[derive(Debug, thiserror::Error)]
#[error("no such chunk")]
pub(crate) struct Missing;

/// Handles of one store share its chunks and counters.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    chunks: Rc<RefCell<HashMap<[u8; 32], Bytes>>>,
    puts: Rc<Cell<usize>>,
    gets: Rc<Cell<usize>>,
    hinted: Rc<Cell<usize>>,
    salt: u8,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same chunks, for a device that writes to other segments.
    pub(crate) fn device(&self, salt: u8) -> Self {
        Self { salt, ..self.clone() }
    }

    /// What is in it now; later chunks are missing there. To prove that nothing new is read back.
    pub(crate) fn frozen(&self) -> Self {
        Self { chunks: Rc::new(RefCell::new(self.chunks.borrow().clone())), ..self.clone() }
    }

    pub(crate) fn reset(&self) {
        self.puts.set(0);
        self.gets.set(0);
        self.hinted.set(0);
    }

    pub(crate) fn puts(&self) -> usize {
        self.puts.get()
    }

    pub(crate) fn gets(&self) -> usize {
        self.gets.get()
    }

    pub(crate) fn hinted(&self) -> usize {
        self.hinted.get()
    }

    /// Different chunks in it.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.borrow().len()
    }

    /// A ref, as a segment under this salt would give it.
    pub(crate) fn refer(&self, plain: &[u8]) -> ChunkRef {
        let key = *blake3::hash(plain).as_bytes();
        ChunkRef {
            segment: SegmentId::from_bytes([self.salt.wrapping_mul(16).wrapping_add(key[31] % 3); 32]),
            offset: u32::from(u16::from_le_bytes([key[29], key[30]])) * 64,
            sealed_length: plain.len() as u32 + 17,
            plain_length: plain.len() as u32,
            key: ChunkKey::from_bytes(key),
        }
    }

    /// Other bytes under a ref: what a stranger's tree may hold.
    pub(crate) fn forge(&self, chunk: &ChunkRef, bytes: impl Into<Bytes>) {
        self.chunks.borrow_mut().insert(*chunk.key.as_bytes(), bytes.into());
    }

    pub(crate) fn bytes(&self, chunk: &ChunkRef) -> Bytes {
        self.chunks.borrow()[chunk.key.as_bytes()].clone()
    }
}

impl ChunkSource for Memory {
    type Error = Missing;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Missing> {
        self.gets.set(self.gets.get() + 1);
        self.chunks.borrow().get(chunk.key.as_bytes()).cloned().ok_or(Missing)
    }

    fn hint(&self, soon: &[ChunkRef]) {
        self.hinted.set(self.hinted.get() + soon.len());
    }
}

impl ChunkSink for Memory {
    type Error = Missing;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Missing> {
        assert!((1..=NODE_BYTES_MAX).contains(&plain.len()));
        self.puts.set(self.puts.get() + 1);
        let chunk = self.refer(plain);
        self.chunks.borrow_mut().insert(*chunk.key.as_bytes(), Bytes::copy_from_slice(plain));
        Ok(chunk)
    }
}
