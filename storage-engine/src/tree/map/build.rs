//! Writes the nodes of a map in order of keys: one open node per level, closed where its entries say.

use bytes::Bytes;

use super::{KEY_BYTES_MAX, TreeRoot, VALUE_BYTES_MAX};
use crate::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSink, TreeError,
        node::{FAN_OUT_MAX, InnerDraft, LEVEL_MAX, LeafDraft},
    },
};

/// Where nodes end, in bytes of their entries: never below `least`; up to `usual` rarely, then soon; at `most` at
/// the latest. The entry that closes a node is in it, so that where it ends does not depend on what follows.
struct Sizes {
    least: usize,
    usual: usize,
    most: usize,
}

/// A leaf has at most `most` and one more entry: 28 + 4 + 32 = 64 KiB; 18 KiB on average.
const LEAF: Sizes = Sizes { least: 8 << 10, usual: 16 << 10, most: 28 << 10 };
/// Some 500 children of names of usual length.
const INNER: Sizes = Sizes { least: 16 << 10, usual: 32 << 10, most: 56 << 10 };

impl Sizes {
    /// True if the node ends with the item of `key`, which takes `item_bytes` of the `node_bytes` so far. The chance
    /// grows with the item, so that nodes are of the same size whatever their entries are.
    fn ends_with(&self, level: u8, key: &[u8], item_bytes: usize, node_bytes: usize) -> bool {
        if node_bytes < self.least {
            return false;
        }
        if node_bytes >= self.most {
            return true;
        }
        let one_in_bytes = if node_bytes < self.usual { self.usual * 2 } else { self.usual / 4 };
        // The level is hashed too: every separator has already ended a node below.
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[level]);
        hasher.update(key);
        let mut hash = [0; 8];
        hasher.finalize_xof().fill(&mut hash);
        u64::from_le_bytes(hash) % (one_in_bytes as u64) < item_bytes as u64
    }
}

/// A node that was read, to be used again if the same bytes are to be written.
pub(super) struct Known {
    pub(super) bytes: Bytes,
    pub(super) chunk: ChunkRef,
}

/// Where a node of the new version comes from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was closed here.
    #[default]
    Written,
    /// It is a node of the old version.
    Kept,
}

/// The open nodes of a map that is being written.
#[derive(Default)]
pub(super) struct Writer {
    leaf: LeafDraft,
    /// By level, from 1.
    inner: Vec<InnerDraft>,
    /// The last key written, as entry or as separator.
    last_key: Option<Vec<u8>>,
    /// By level: the node read last.
    known: Vec<Option<Known>>,
    /// Of the child that was added last, on any level.
    last_child: Origin,
}

impl Writer {
    /// True if no node is open on `level` or below.
    pub(super) fn is_clean(&self, level: u8) -> bool {
        self.leaf.is_empty() && self.inner.iter().take(level.into()).all(InnerDraft::is_empty)
    }

    /// A node that may turn out to be unchanged.
    pub(super) fn remember(&mut self, level: u8, known: Known) {
        let level = usize::from(level);
        if self.known.len() <= level {
            self.known.resize_with(level + 1, || None);
        }
        self.known[level] = Some(known);
    }

    fn advance_key<E>(&mut self, key: &[u8]) -> Result<(), TreeError<E>> {
        match &mut self.last_key {
            Some(last) if last.as_slice() >= key => return Err(TreeError::NotAscending),
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => self.last_key = Some(key.to_vec()),
        }
        Ok(())
    }

    /// The next entry.
    pub(super) fn entry<K: ChunkSink>(
        &mut self,
        sink: &mut K,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), TreeError<K::Error>> {
        for (what, bytes, bytes_max) in
            [("tree key", key.len(), KEY_BYTES_MAX), ("tree value", value.len(), VALUE_BYTES_MAX)]
        {
            if bytes > bytes_max {
                return Err(TreeError::TooLarge { what, bytes: bytes as u64, bytes_max: bytes_max as u64 });
            }
        }
        self.advance_key(key)?;
        let before = self.leaf.bytes();
        self.leaf.push(key, value);
        let bytes = self.leaf.bytes();
        if LEAF.ends_with(0, key, bytes - before, bytes) { self.close_leaf(sink, key) } else { Ok(()) }
    }

    /// A whole node of another version, whose last key is `key`; nothing may be open on its level or below.
    pub(super) fn node<K: ChunkSink>(
        &mut self,
        sink: &mut K,
        level: u8,
        key: &[u8],
        chunk: &ChunkRef,
    ) -> Result<(), TreeError<K::Error>> {
        debug_assert!(self.is_clean(level));
        self.advance_key(key)?;
        self.child(sink, level, key, chunk, Origin::Kept)
    }

    fn child<K: ChunkSink>(
        &mut self,
        sink: &mut K,
        level: u8,
        key: &[u8],
        chunk: &ChunkRef,
        origin: Origin,
    ) -> Result<(), TreeError<K::Error>> {
        if level >= LEVEL_MAX {
            return Err(TreeError::TooDeep { what: "a tree", depth_max: usize::from(LEVEL_MAX) + 1 });
        }
        let at = usize::from(level);
        if self.inner.len() <= at {
            self.inner.resize_with(at + 1, InnerDraft::default);
        }
        let draft = &mut self.inner[at];
        let before = draft.bytes();
        draft.push(key, chunk);
        self.last_child = origin;
        let bytes = draft.bytes();
        if draft.len() >= FAN_OUT_MAX || INNER.ends_with(level + 1, key, bytes - before, bytes) {
            return self.close_inner(sink, level + 1, key);
        }
        Ok(())
    }

    fn close_leaf<K: ChunkSink>(&mut self, sink: &mut K, key: &[u8]) -> Result<(), TreeError<K::Error>> {
        let bytes = self.leaf.take();
        let chunk = self.put(sink, 0, &bytes)?;
        self.child(sink, 0, key, &chunk, Origin::Written)
    }

    fn close_inner<K: ChunkSink>(&mut self, sink: &mut K, level: u8, key: &[u8]) -> Result<(), TreeError<K::Error>> {
        let bytes = self.inner[usize::from(level) - 1].take(level);
        let chunk = self.put(sink, level, &bytes)?;
        self.child(sink, level, key, &chunk, Origin::Written)
    }

    fn put<K: ChunkSink>(&self, sink: &mut K, level: u8, bytes: &[u8]) -> Result<ChunkRef, TreeError<K::Error>> {
        match self.known.get(usize::from(level)) {
            Some(Some(known)) if known.bytes == bytes => Ok(known.chunk.clone()),
            _ => sink.put(bytes).map_err(TreeError::Chunk),
        }
    }

    /// Closes what is open. The top is the lowest node that stands alone on its level.
    pub(super) fn finish<K: ChunkSink>(mut self, sink: &mut K) -> Result<(TreeRoot, Origin), TreeError<K::Error>> {
        let nothing = (TreeRoot::EMPTY, Origin::Written);
        let Some(key) = self.last_key.take() else { return Ok(nothing) };
        if !self.leaf.is_empty() {
            if self.inner.iter().all(InnerDraft::is_empty) {
                let bytes = self.leaf.take();
                return Ok((TreeRoot::new(0, self.put(sink, 0, &bytes)?), Origin::Written));
            }
            self.close_leaf(sink, &key)?;
        }
        for level in 1..=LEVEL_MAX {
            let at = usize::from(level) - 1;
            let Some(draft) = self.inner.get(at) else { break };
            if draft.is_empty() {
                continue;
            }
            if self.inner[at + 1..].iter().all(InnerDraft::is_empty) {
                if let Some(only) = draft.only_child() {
                    return Ok((TreeRoot::new(level - 1, only.clone()), self.last_child));
                }
                let bytes = self.inner[at].take(level);
                return Ok((TreeRoot::new(level, self.put(sink, level, &bytes)?), Origin::Written));
            }
            self.close_inner(sink, level, &key)?;
        }
        Ok(nothing)
    }
}

/// Builds a map from entries in strictly ascending order of keys; holds one open node per level.
#[derive(Default)]
pub struct Builder(Writer);

impl Builder {
    /// A builder of an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next entry; its key is greater than the one before.
    pub fn push<K: ChunkSink>(&mut self, sink: &mut K, key: &[u8], value: &[u8]) -> Result<(), TreeError<K::Error>> {
        self.0.entry(sink, key, value)
    }

    /// Writes the nodes that are still open.
    pub fn finish<K: ChunkSink>(self, sink: &mut K) -> Result<TreeRoot, TreeError<K::Error>> {
        Ok(self.0.finish(sink)?.0)
    }
}
