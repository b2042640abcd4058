//! The bytes of a node: one chunk, a prost envelope with a version, and packed arrays inside.
//!
//! ```text
//! 1 version   1
//! 2 kind      1 leaf of a map, 2 inner node of a map, 3 node of a file
//! 3 level     0 for a leaf; an inner node is one above its children; a file node above its chunks is 1
//! 4 segments  32 bytes each: the ids that the refs count in
//! 5 refs      48 bytes each (see [`packed_ref`](super::packed_ref)): children, or a file's chunks and holes
//! 6 items     leaf:  key length u16 | value length u16 | key | value, in strictly ascending order of keys
//!             inner: key length u16 | key: the last key below each child, in the order of the refs
//! 7 spans     file nodes from level 2 on: bytes of the file below each child, u64 each
//! ```
//!
//! Decoding checks every count, length, index and order once, keeps the bytes as they came, and allocates no more
//! than a small multiple of the node. A node does not know its parent: that it stands where it belongs is checked
//! by who follows the ref.

use bytes::Bytes;
use commonhold_protocol::{
    FormatError,
    format::{check_length, check_version},
};
use prost::Message;

use super::packed_ref::{RefPacker, RefTable, Slot};
use crate::chunk_ref::ChunkRef;

/// The most bytes of a node: a chunk's.
pub const NODE_BYTES_MAX: usize = 512 << 10;
/// The most children of an inner node, and the most slots of a file node.
pub const FAN_OUT_MAX: usize = 1024;
/// The highest level: no tree is deeper than 16 nodes.
pub const LEVEL_MAX: u8 = 15;
/// The most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4096;
/// The most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 32 << 10;

const WHAT: &str = "tree node";
const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    level: u32,
    #[prost(bytes = "bytes", tag = "4")]
    segments: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    refs: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    items: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    spans: Bytes,
}

const KIND_LEAF: u32 = 1;
const KIND_INNER: u32 = 2;
const KIND_FILE: u32 = 3;

const fn field(field: &'static str) -> FormatError {
    FormatError::Field { what: WHAT, field }
}

/// A decoded node.
pub enum Node {
    /// Entries of a map.
    Leaf(Leaf),
    /// Children of a map.
    Inner(Inner),
    /// Chunks and holes of a file, or its file nodes one level below.
    File(FileNode),
}

impl Node {
    /// Reads a node; refuses whatever a writer would not have written.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        check_length(WHAT, &bytes, NODE_BYTES_MAX)?;
        let wire = Wire::decode(bytes).map_err(|_| FormatError::Encoding { what: WHAT })?;
        check_version(WHAT, wire.version, VERSION)?;
        let level = u8::try_from(wire.level).ok().filter(|level| *level <= LEVEL_MAX).ok_or(field("level"))?;
        match (wire.kind, level) {
            (KIND_LEAF, 0) => {
                let bare = wire.segments.is_empty() && wire.refs.is_empty() && wire.spans.is_empty();
                if !bare {
                    return Err(field("refs"));
                }
                Leaf::decode(wire.items).map(Self::Leaf)
            }
            (KIND_INNER, 1..) => {
                if !wire.spans.is_empty() {
                    return Err(field("spans"));
                }
                let table = RefTable::decode(WHAT, wire.segments, wire.refs, FAN_OUT_MAX, false)?;
                let keys = Keys::decode(wire.items)?;
                if keys.places.len() != table.len() {
                    return Err(field("items"));
                }
                Ok(Self::Inner(Inner { level, keys, table }))
            }
            (KIND_FILE, 1..) => {
                if !wire.items.is_empty() {
                    return Err(field("items"));
                }
                let table = RefTable::decode(WHAT, wire.segments, wire.refs, FAN_OUT_MAX, level == 1)?;
                FileNode::decode(level, table, wire.spans).map(Self::File)
            }
            _ => Err(field("kind")),
        }
    }
}

/// Reads a `u16` length and steps over it.
fn take_length(items: &[u8], at: &mut usize) -> Result<usize, FormatError> {
    let bytes = items.get(*at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(field("items"))?;
    *at += 2;
    Ok(usize::from(u16::from_le_bytes(*bytes)))
}

/// Steps over `length` bytes.
fn take_bytes(items: &[u8], at: &mut usize, length: usize) -> Result<(), FormatError> {
    if items.len() - *at < length {
        return Err(field("items"));
    }
    *at += length;
    Ok(())
}

/// Where an item lies in the packed array.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    key_length: u16,
    value_length: u16,
}

impl Place {
    fn key(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.key_length)
    }

    fn value(self) -> std::ops::Range<usize> {
        self.key().end..self.key().end + usize::from(self.value_length)
    }
}

/// Checks a new item's key against the one before it.
fn check_ascending(items: &[u8], places: &[Place], place: Place) -> Result<(), FormatError> {
    match places.last() {
        Some(before) if items[before.key()] >= items[place.key()] => Err(field("key order")),
        _ => Ok(()),
    }
}

/// The entries of a map that stand in one leaf: at least one, keys strictly ascending.
pub struct Leaf {
    items: Bytes,
    places: Vec<Place>,
}

impl Leaf {
    fn decode(items: Bytes) -> Result<Self, FormatError> {
        let mut places = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let key_length = take_length(&items, &mut at)?;
            let value_length = take_length(&items, &mut at)?;
            if key_length > KEY_BYTES_MAX || value_length > VALUE_BYTES_MAX {
                return Err(field("items"));
            }
            // At most NODE_BYTES_MAX, and both lengths were read from a u16.
            let place = Place { start: at as u32, key_length: key_length as u16, value_length: value_length as u16 };
            take_bytes(&items, &mut at, key_length + value_length)?;
            check_ascending(&items, &places, place)?;
            places.push(place);
        }
        if places.is_empty() { Err(field("items")) } else { Ok(Self { items, places }) }
    }

    /// How many entries.
    #[allow(clippy::len_without_is_empty, reason = "a leaf is never empty")]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The key of entry `at`, below [`Self::len`].
    pub fn key(&self, at: usize) -> &[u8] {
        &self.items[self.places[at].key()]
    }

    /// The value of entry `at`, below [`Self::len`].
    pub fn value(&self, at: usize) -> &[u8] {
        &self.items[self.places[at].value()]
    }

    /// Key and value of entry `at`, below [`Self::len`], without copying.
    pub fn entry(&self, at: usize) -> (Bytes, Bytes) {
        let place = self.places[at];
        (self.items.slice(place.key()), self.items.slice(place.value()))
    }

    /// Where `key` stands, or would stand.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.places.binary_search_by(|place| self.items[place.key()].cmp(key))
    }

    pub(crate) fn last_key(&self) -> &[u8] {
        self.key(self.len() - 1)
    }
}

/// The separators of an inner node.
struct Keys {
    items: Bytes,
    places: Vec<Place>,
}

impl Keys {
    fn decode(items: Bytes) -> Result<Self, FormatError> {
        let mut places = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let key_length = take_length(&items, &mut at)?;
            if key_length > KEY_BYTES_MAX || places.len() == FAN_OUT_MAX {
                return Err(field("items"));
            }
            let place = Place { start: at as u32, key_length: key_length as u16, value_length: 0 };
            take_bytes(&items, &mut at, key_length)?;
            check_ascending(&items, &places, place)?;
            places.push(place);
        }
        Ok(Self { items, places })
    }
}

/// The children of an inner node: 1 to [`FAN_OUT_MAX`], each with the last key below it.
pub struct Inner {
    level: u8,
    keys: Keys,
    table: RefTable,
}

impl Inner {
    /// The level: one above that of the children.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// How many children.
    #[allow(clippy::len_without_is_empty, reason = "an inner node is never empty")]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// The last key below child `at`, below [`Self::len`].
    pub fn key(&self, at: usize) -> &[u8] {
        &self.keys.items[self.keys.places[at].key()]
    }

    /// The ref of child `at`, below [`Self::len`].
    pub fn child(&self, at: usize) -> ChunkRef {
        self.table.chunk(at)
    }

    /// The first child that can hold `key`; none if all keys below are smaller.
    pub fn search(&self, key: &[u8]) -> Option<usize> {
        let at = self.keys.places.partition_point(|place| &self.keys.items[place.key()] < key);
        (at < self.len()).then_some(at)
    }

    pub(crate) fn last_key(&self) -> &[u8] {
        self.key(self.len() - 1)
    }
}

/// One slot of a file node.
pub enum FileSlot {
    /// A chunk of the file (level 1), or a file node one level below.
    Ref(ChunkRef),
    /// A hole, at level 1 only.
    Hole,
}

/// 1 to [`FAN_OUT_MAX`] slots of a file; knows the bytes of the file below each.
pub struct FileNode {
    level: u8,
    table: RefTable,
    /// Where each slot ends, from the start of this node: strictly ascending.
    ends: Vec<u64>,
}

impl FileNode {
    fn decode(level: u8, table: RefTable, spans: Bytes) -> Result<Self, FormatError> {
        let (spans, rest) = spans.as_chunks::<8>();
        let spans_wanted = if level == 1 { 0 } else { table.len() };
        if !rest.is_empty() || spans.len() != spans_wanted {
            return Err(field("spans"));
        }
        let mut ends = Vec::with_capacity(table.len());
        let mut end = 0_u64;
        for at in 0..table.len() {
            let span = match table.slot(at) {
                Slot::Hole(length) => length,
                Slot::Ref(chunk) if level == 1 => u64::from(chunk.plain_length),
                Slot::Ref(_) => spans.get(at).map_or(0, |span| u64::from_le_bytes(*span)),
            };
            let next = end.checked_add(span).filter(|next| *next > end && *next <= i64::MAX as u64);
            end = next.ok_or(field("spans"))?;
            ends.push(end);
        }
        Ok(Self { level, table, ends })
    }

    /// The level: 1 directly above the chunks.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// How many slots.
    #[allow(clippy::len_without_is_empty, reason = "a file node is never empty")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the file below this node.
    pub fn span(&self) -> u64 {
        self.ends[self.ends.len() - 1]
    }

    /// The bytes of slot `at`, below [`Self::len`], counted from the start of this node.
    pub fn bytes(&self, at: usize) -> std::ops::Range<u64> {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        start..self.ends[at]
    }

    /// Slot `at`, below [`Self::len`].
    pub fn slot(&self, at: usize) -> FileSlot {
        match self.table.slot(at) {
            Slot::Ref(chunk) => FileSlot::Ref(chunk),
            Slot::Hole(_) => FileSlot::Hole,
        }
    }

    /// The slot that holds the byte `offset` of this node; [`Self::len`] if it lies behind the end.
    pub fn search(&self, offset: u64) -> usize {
        self.ends.partition_point(|end| *end <= offset)
    }
}

/// A leaf being filled.
#[derive(Default)]
pub(crate) struct LeafDraft {
    items: Vec<u8>,
    count: usize,
}

impl LeafDraft {
    /// Lengths are checked by the caller.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.items.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.items.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.items.extend_from_slice(key);
        self.items.extend_from_slice(value);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.items.len()
    }

    /// The node's bytes; the draft is empty again.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.count = 0;
        let items = std::mem::take(&mut self.items).into();
        Wire { version: VERSION, kind: KIND_LEAF, items, ..Wire::default() }.encode_to_vec()
    }
}

/// An inner node being filled.
#[derive(Default)]
pub(crate) struct InnerDraft {
    items: Vec<u8>,
    refs: RefPacker,
    last: Option<ChunkRef>,
}

impl InnerDraft {
    pub(crate) fn push(&mut self, key: &[u8], child: &ChunkRef) {
        self.items.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.items.extend_from_slice(key);
        self.refs.push(child);
        self.last = Some(child.clone());
    }

    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes without the segment table: what does not depend on where the children lie.
    pub(crate) fn bytes(&self) -> usize {
        self.items.len() + self.len() * super::packed_ref::PACKED_REF_BYTES
    }

    /// The only child, if there is just one.
    pub(crate) fn only_child(&self) -> Option<&ChunkRef> {
        self.last.as_ref().filter(|_| self.len() == 1)
    }

    /// The node's bytes; the draft is empty again.
    pub(crate) fn take(&mut self, level: u8) -> Vec<u8> {
        self.last = None;
        let items = std::mem::take(&mut self.items).into();
        let (segments, refs) = self.refs.take();
        let level = u32::from(level);
        Wire { version: VERSION, kind: KIND_INNER, level, segments, refs, items, ..Wire::default() }.encode_to_vec()
    }
}

/// A file node being filled.
#[derive(Default)]
pub(crate) struct FileDraft {
    refs: RefPacker,
    spans: Vec<u8>,
}

impl FileDraft {
    /// A chunk of the file, at level 1.
    pub(crate) fn push_chunk(&mut self, chunk: &ChunkRef) {
        self.refs.push(chunk);
    }

    /// A hole, at level 1.
    pub(crate) fn push_hole(&mut self, length: u64) {
        self.refs.push_hole(length);
    }

    /// A file node, from level 2 on.
    pub(crate) fn push_node(&mut self, node: &ChunkRef, span: u64) {
        self.refs.push(node);
        self.spans.extend_from_slice(&span.to_le_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    /// The node's bytes; the draft is empty again.
    pub(crate) fn take(&mut self, level: u8) -> Vec<u8> {
        let (segments, refs) = self.refs.take();
        let spans = std::mem::take(&mut self.spans).into();
        let level = u32::from(level);
        Wire { version: VERSION, kind: KIND_FILE, level, segments, refs, spans, ..Wire::default() }.encode_to_vec()
    }
}
