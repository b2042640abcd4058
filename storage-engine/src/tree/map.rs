//! A map from byte strings to byte strings, as an immutable B-tree of chunks.
//!
//! **Where nodes end depends on their entries alone** (a hash of the last key, weighed by size, between a least and
//! a most number of bytes), never on the order of edits. So a map has one shape: building it from its entries and
//! editing it into being give the same nodes, two devices that arrive at the same entries arrive at the same tree,
//! and after an edit the old nodes fit again one or two nodes further on. One change among 100,000 entries rewrites
//! the nodes on one path.
//!
//! Values that hold refs hold the segment ids too ([`packed_ref`]), so that a map need not know what its values mean;
//! the ids repeat within a leaf and compress away.
//!
//! The names in a stranger's directory can be chosen such that no hash ends a node; nodes then end at the most bytes,
//! and an edit may rewrite the nodes after it too, as it would in a plain sorted file. Nothing else comes of it.

use std::ops::Bound;

use bytes::Bytes;
use commonhold_protocol::{FormatError, format};
use prost::Message;

use super::{
    ChunkSource, TreeError,
    node::{LEVEL_MAX, Node},
    packed_ref,
};
use crate::chunk_ref::ChunkRef;

mod build;
mod cursor;
mod diff;
mod edit;
mod merge;

pub use build::Builder;
pub use cursor::Cursor;
pub use diff::{Change, Diff};
pub use edit::{Editor, apply};
pub use merge::{Conflict, Resolution, merge};
pub(super) use merge::{Conflicts, Resolved, unopposed};

pub use super::node::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The most bytes of an encoded [`TreeRoot`].
pub const TREE_ROOT_BYTES_MAX: usize = 96;

const WHAT: &str = "tree root";

/// A map: nothing, or the ref of its top node. Whoever has it can read all of the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeRoot {
    top: Option<(u8, ChunkRef)>,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    level: u32,
    #[prost(bytes = "bytes", tag = "3")]
    top: Bytes,
}

impl TreeRoot {
    /// The map without entries; it takes no chunk.
    pub const EMPTY: Self = Self { top: None };

    pub(super) fn new(level: u8, chunk: ChunkRef) -> Self {
        Self { top: Some((level, chunk)) }
    }

    /// True if the map has no entries.
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// The top node, if there is one: what opens the whole map.
    pub fn chunk(&self) -> Option<&ChunkRef> {
        self.top.as_ref().map(|(_, chunk)| chunk)
    }

    /// The level of the top node; 0 if it is a leaf or nothing.
    pub fn level(&self) -> u8 {
        self.top.as_ref().map_or(0, |(level, _)| *level)
    }

    pub(super) fn top(&self) -> Option<&(u8, ChunkRef)> {
        self.top.as_ref()
    }

    /// The root's bytes, at most [`TREE_ROOT_BYTES_MAX`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let top = self.chunk().map(|chunk| Bytes::copy_from_slice(&packed_ref::encode_whole(chunk)));
        Wire { version: 1, level: self.level().into(), top: top.unwrap_or_default() }.encode_to_vec()
    }

    /// Reads a root.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        format::check_length(WHAT, bytes, TREE_ROOT_BYTES_MAX)?;
        let wire = Wire::decode(bytes).map_err(|_| FormatError::Encoding { what: WHAT })?;
        format::check_version(WHAT, wire.version, 1)?;
        let level = u8::try_from(wire.level).ok().filter(|level| *level <= LEVEL_MAX);
        let level = level.ok_or(FormatError::Field { what: WHAT, field: "level" })?;
        match (level, wire.top.is_empty()) {
            (0, true) => Ok(Self::EMPTY),
            (_, true) => Err(FormatError::Field { what: WHAT, field: "level" }),
            (_, false) => Ok(Self::new(level, packed_ref::decode_whole(WHAT, &wire.top)?)),
        }
    }
}

/// A node as its parent describes it.
pub(super) struct Place<'a> {
    pub(super) chunk: &'a ChunkRef,
    pub(super) level: u8,
    /// The last key below it; none for the top node.
    pub(super) last_key: Option<&'a [u8]>,
}

/// Fetches a map's node and checks that it is the one which its parent describes.
pub(super) fn open<S: ChunkSource>(source: &S, place: &Place<'_>) -> Result<(Bytes, Node), TreeError<S::Error>> {
    let bytes = source.get(place.chunk).map_err(TreeError::Chunk)?;
    let node = Node::decode(bytes.clone())?;
    let (level, last_key) = match &node {
        Node::Leaf(leaf) => (0, leaf.last_key()),
        Node::Inner(inner) => (inner.level(), inner.last_key()),
        Node::File(_) => return Err(TreeError::Misplaced { what: "kind" }),
    };
    if level != place.level {
        return Err(TreeError::Misplaced { what: "level" });
    }
    if place.last_key.is_some_and(|stated| stated != last_key) {
        return Err(TreeError::Misplaced { what: "last key" });
    }
    Ok((bytes, node))
}

/// The value of `key`: reads one node per level.
pub fn get<S: ChunkSource>(source: &S, root: &TreeRoot, key: &[u8]) -> Result<Option<Bytes>, TreeError<S::Error>> {
    let Some((mut level, mut chunk)) = root.top().cloned() else { return Ok(None) };
    let mut last_key: Option<Vec<u8>> = None;
    loop {
        let (_, node) = open(source, &Place { chunk: &chunk, level, last_key: last_key.as_deref() })?;
        match node {
            Node::Leaf(leaf) => return Ok(leaf.search(key).ok().map(|at| leaf.entry(at).1)),
            Node::Inner(inner) => {
                let Some(at) = inner.search(key) else { return Ok(None) };
                last_key = Some(inner.key(at).to_vec());
                chunk = inner.child(at);
                level -= 1;
            }
            Node::File(_) => return Err(TreeError::Misplaced { what: "kind" }),
        }
    }
}

/// The entries from `start` on, in order of keys; a key is a cursor that stays good in any other version of the map.
pub fn range<'s, S: ChunkSource>(source: &'s S, root: &TreeRoot, start: Bound<&[u8]>) -> Cursor<'s, S> {
    Cursor::new(source, root, start)
}

/// What differs between two maps, in order of keys, without reading the nodes that they share.
pub fn diff<'s, S: ChunkSource>(source: &'s S, before: &TreeRoot, after: &TreeRoot) -> Diff<'s, S> {
    Diff::new(source, before, after)
}
