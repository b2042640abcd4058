//! Trees: how chunks become files and directories, and directories a vault's drive and its snapshots.
//!
//! Two kinds of copy-on-write B-tree, both made of chunks: a [`map`] from byte strings to byte strings (a
//! [`directory`] is one, from names to [`entry::Entry`]), and a [`mod@file`], a sequence of chunk refs and holes. A tree
//! is never changed: an edit writes the nodes that differ and gives a new root, so every old root stays a snapshot,
//! and the ref of a root opens all that is below it, and nothing else.
//!
//! All of it is synchronous and works on a [`ChunkSource`] and a [`ChunkSink`]; nothing here seals a chunk, knows
//! where segments lie, reads a clock, or holds more than a few nodes per level in memory. What comes out of a source
//! may have been written by a stranger (a share link is a tree too): lengths, order, levels and names are checked
//! before they are used, and every failure is a [`TreeError`].

use bytes::Bytes;
use commonhold_protocol::FormatError;

use crate::chunk_ref::ChunkRef;

pub mod directory;
pub mod entry;
pub mod file;
pub mod map;
pub mod merge;
pub mod name;
pub mod node;
pub mod packed_ref;
pub mod walk;

/// Where chunks are read from: fetches, opens and decompresses.
pub trait ChunkSource {
    /// Why a chunk could not be had.
    type Error;

    /// The plain bytes of a chunk.
    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Self::Error>;

    /// Chunks that are likely to be asked for next, in this order. A source may fetch them ahead, or do nothing.
    fn hint(&self, _soon: &[ChunkRef]) {}
}

/// Where chunks are written to: compresses, seals and appends to a segment.
///
/// A tree is written without reading back what the same call has put, so a sink need not be readable.
pub trait ChunkSink {
    /// Why a chunk could not be taken.
    type Error;

    /// Takes the plain bytes of a chunk and says where it will lie.
    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Self::Error>;
}

/// Why a tree could not be read or written. `E` is the error of the source and the sink.
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E> {
    /// The source or the sink failed: what it says decides whether to try again.
    #[error(transparent)]
    Chunk(E),
    /// The bytes of a node, an entry or a root are not what they should be.
    #[error("a tree is damaged: {0}")]
    Format(FormatError),
    /// A node is well formed but does not belong where it stands: its level, keys or length are not those that its
    /// parent states.
    #[error("a tree is damaged: a node's {what} is not what its parent states")]
    Misplaced {
        /// What does not match.
        what: &'static str,
    },
    /// What is to be written is larger than the format allows.
    #[error("{what}: {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Bytes given.
        bytes: u64,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// Keys have to be written in strictly ascending order.
    #[error("tree entries are not in ascending order")]
    NotAscending,
    /// The tree would have more levels, or directories lie deeper in each other, than is allowed.
    #[error("{what}: deeper than {depth_max} levels")]
    TooDeep {
        /// What is too deep.
        what: &'static str,
        /// Levels allowed.
        depth_max: usize,
    },
}

impl<E> From<FormatError> for TreeError<E> {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}
