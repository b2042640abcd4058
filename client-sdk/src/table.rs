//! The vault's segment table: which segments there are, who holds their shards, and which chunks lie where.
//!
//! One B-tree, kept in segments itself, with four kinds of keys:
//! `s ‖ segment id` → coding, length and holders; `c ‖ segment id ‖ part (u32 BE)` → up to [`PART_CHUNKS_MAX`] chunks;
//! `d ‖ segment id` → the counter of the drop that took the segment out; `n ‖ node key` → a node's id and addresses.
//! Everything in it is a hint or can be found out again: a wrong holder
//! costs a refusal, never data.

use bytes::Bytes;
use commonhold_network::Multiaddr;
use commonhold_protocol::{Coding, NodeId, SegmentId, ShardIndex};
use commonhold_storage_engine::chunk_ref::{ChunkKey, ChunkRef};

use crate::error::Error;

/// Chunks in one part: their 60 bytes each stay well below the largest value of a tree.
const PART_CHUNKS_MAX: usize = 400;
const CHUNK_BYTES: usize = 60;
/// The most chunks that are packed into one segment: of chunks far below a KiB, a segment takes fewer bytes, so that
/// its chunk list stays small in memory, journal and cache.
pub(crate) const SEGMENT_CHUNKS_MAX: usize = 1 << 14;
/// The most addresses remembered of a node.
pub(crate) const NODE_ADDRESSES_MAX: usize = 8;

/// A short name for a node in holder lists: the first 8 bytes of its id. A collision costs one refused read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey([u8; 8]);

impl NodeKey {
    const NOBODY: Self = Self([0; 8]);

    pub(crate) fn of(node: &NodeId) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(&node.as_bytes()[..8]);
        Self(key)
    }
}

/// The equality of chunks within a vault: 16 bytes of the keyed hash of a chunk's plain bytes.
pub(crate) type ChunkTag = [u8; 16];

/// A chunk in a segment.
#[derive(Clone)]
pub(crate) struct PackedChunk {
    pub(crate) tag: ChunkTag,
    pub(crate) offset: u32,
    pub(crate) sealed_length: u32,
    pub(crate) plain_length: u32,
    pub(crate) key: ChunkKey,
}

impl PackedChunk {
    pub(crate) fn chunk_ref(&self, segment: SegmentId) -> ChunkRef {
        ChunkRef {
            segment,
            offset: self.offset,
            sealed_length: self.sealed_length,
            plain_length: self.plain_length,
            key: self.key.clone(),
        }
    }
}

/// Where a segment's shards were placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) coding: Coding,
    pub(crate) length: u64,
    /// By shard index; none where nobody took the shard.
    pub(crate) holders: Vec<Option<NodeKey>>,
}

impl SegmentInfo {
    /// For a segment whose chunks alone matter.
    pub(crate) fn unknown() -> Self {
        Self { coding: Coding::ONE, length: 1, holders: vec![None] }
    }

    pub(crate) fn holder(&self, index: ShardIndex) -> Option<NodeKey> {
        *self.holders.get(usize::from(index.0))?
    }
}

/// A node and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeHint {
    pub(crate) node: NodeId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// A segment that was placed and recorded: all that the table, the journal and the dedup index say of it.
#[derive(Clone)]
pub(crate) struct PlacedSegment {
    pub(crate) id: SegmentId,
    pub(crate) info: SegmentInfo,
    pub(crate) chunks: Vec<PackedChunk>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InfoWire {
    #[prost(uint32, tag = "1")]
    k: u32,
    #[prost(uint32, tag = "2")]
    n: u32,
    #[prost(uint64, tag = "3")]
    length: u64,
    #[prost(bytes = "bytes", tag = "4")]
    holders: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeWire {
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    addresses: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PlacedWire {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(message, tag = "2")]
    info: Option<InfoWire>,
    #[prost(bytes = "bytes", tag = "3")]
    chunks: Bytes,
}

fn damaged(what: &str) -> Error {
    Error::TreeDamaged { reason: format!("segment table: bad {what}") }
}

impl SegmentInfo {
    pub(crate) fn to_wire(&self) -> InfoWire {
        let holders: Vec<u8> = self.holders.iter().flat_map(|key| key.unwrap_or(NodeKey::NOBODY).0).collect();
        InfoWire { k: self.coding.k().into(), n: self.coding.n().into(), length: self.length, holders: holders.into() }
    }

    pub(crate) fn from_wire(wire: InfoWire) -> Result<Self, Error> {
        let byte = |number: u32| u8::try_from(number).map_err(|_| damaged("coding"));
        let coding = Coding::new(byte(wire.k)?, byte(wire.n)?).map_err(|_| damaged("coding"))?;
        let (keys, rest) = wire.holders.as_chunks::<8>();
        if keys.len() != usize::from(coding.n()) || !rest.is_empty() {
            return Err(damaged("holders"));
        }
        if !(1..=commonhold_protocol::manifest::SEGMENT_BYTES_MAX).contains(&wire.length) {
            return Err(damaged("length"));
        }
        let holders = keys.iter().map(|key| Some(NodeKey(*key)).filter(|key| *key != NodeKey::NOBODY)).collect();
        Ok(Self { coding, length: wire.length, holders })
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, Error> {
        Self::from_wire(prost::Message::decode(value).map_err(|_| damaged("segment"))?)
    }
}

impl NodeHint {
    pub(crate) fn to_wire(&self) -> NodeWire {
        NodeWire {
            node: Bytes::copy_from_slice(self.node.as_bytes()),
            addresses: self.addresses.iter().take(NODE_ADDRESSES_MAX).map(|address| address.to_vec().into()).collect(),
        }
    }

    pub(crate) fn from_wire(wire: NodeWire) -> Result<Self, Error> {
        let node = wire.node.as_ref().try_into().map(NodeId::from_bytes).map_err(|_| damaged("node"))?;
        let addresses = wire.addresses.iter().take(NODE_ADDRESSES_MAX);
        Ok(Self { node, addresses: addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect() })
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, Error> {
        Self::from_wire(prost::Message::decode(value).map_err(|_| damaged("node"))?)
    }
}

/// The chunks of one part, or of a whole segment.
pub(crate) fn pack(chunks: &[PackedChunk]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(chunks.len() * CHUNK_BYTES);
    for chunk in chunks {
        packed.extend_from_slice(&chunk.tag);
        packed.extend_from_slice(&chunk.offset.to_le_bytes());
        packed.extend_from_slice(&chunk.sealed_length.to_le_bytes());
        packed.extend_from_slice(&chunk.plain_length.to_le_bytes());
        packed.extend_from_slice(chunk.key.as_bytes());
    }
    packed
}

/// Reads the packed chunks of one part.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<PackedChunk>, Error> {
    let (chunks, rest) = packed.as_chunks::<CHUNK_BYTES>();
    if !rest.is_empty() {
        return Err(damaged("chunks"));
    }
    let field = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| damaged("chunk"));
    let chunk = |bytes: &[u8; CHUNK_BYTES]| {
        Ok(PackedChunk {
            tag: bytes[..16].try_into().map_err(|_| damaged("chunk"))?,
            offset: field(&bytes[16..20])?,
            sealed_length: field(&bytes[20..24])?,
            plain_length: field(&bytes[24..28])?,
            key: ChunkKey::from_bytes(bytes[28..].try_into().map_err(|_| damaged("chunk"))?),
        })
    };
    chunks.iter().map(chunk).collect()
}

/// The key of a segment's entry.
pub(crate) fn segment_key(id: &SegmentId) -> Vec<u8> {
    [b"s", id.as_bytes().as_slice()].concat()
}

/// The key of a node's entry.
pub(crate) fn node_key(key: NodeKey) -> Vec<u8> {
    [b"n", key.0.as_slice()].concat()
}

/// Where the parts of all segments' chunks begin.
pub(crate) const CHUNKS_FROM: &[u8] = b"c";
/// Where the segments begin: the last kind of key.
pub(crate) const SEGMENTS_FROM: &[u8] = b"s";

/// The segment of a segment's entry.
pub(crate) fn segment_of_key(key: &[u8]) -> Result<SegmentId, Error> {
    let id = key.strip_prefix(b"s").and_then(|id| id.try_into().ok());
    id.map(SegmentId::from_bytes).ok_or_else(|| damaged("key"))
}

/// Where they end.
pub(crate) const CHUNKS_TO: &[u8] = TOMBSTONES_FROM;

/// Where the tombstones of dropped segments begin.
pub(crate) const TOMBSTONES_FROM: &[u8] = b"d";
/// Where they end.
pub(crate) const TOMBSTONES_TO: &[u8] = b"e";

/// The key of a dropped segment's tombstone.
pub(crate) fn tombstone_key(id: &SegmentId) -> Vec<u8> {
    [TOMBSTONES_FROM, id.as_bytes().as_slice()].concat()
}

/// The counter of the drop, as a tombstone has it.
pub(crate) fn tombstone_value(counter: u64) -> [u8; 8] {
    counter.to_be_bytes()
}

/// The segment of a tombstone, and the counter of the drop.
pub(crate) fn tombstone(key: &[u8], value: &[u8]) -> Result<(SegmentId, u64), Error> {
    let id = key.strip_prefix(TOMBSTONES_FROM).and_then(|id| id.try_into().ok());
    let id = id.map(SegmentId::from_bytes).ok_or_else(|| damaged("tombstone"))?;
    Ok((id, value.try_into().map(u64::from_be_bytes).map_err(|_| damaged("tombstone"))?))
}

/// True for the key of a tombstone.
pub(crate) fn is_tombstone(key: &[u8]) -> bool {
    (TOMBSTONES_FROM..TOMBSTONES_TO).contains(&key)
}

/// Where a segment's chunks begin.
pub(crate) fn parts_from(id: &SegmentId) -> Vec<u8> {
    [CHUNKS_FROM, id.as_bytes().as_slice()].concat()
}

/// The segment that an entry is about; none if that is not a segment, or if it is a tombstone.
pub(crate) fn described_by(key: &[u8]) -> Result<Option<SegmentId>, Error> {
    match key.first() {
        Some(b'c') => segment_of_part(key).map(Some),
        Some(b's') => segment_of_key(key).map(Some),
        _ => Ok(None),
    }
}

/// The segment that a part of chunks belongs to.
pub(crate) fn segment_of_part(key: &[u8]) -> Result<SegmentId, Error> {
    let id = key.get(1..33).and_then(|id| id.try_into().ok());
    id.map(SegmentId::from_bytes).ok_or_else(|| damaged("part"))
}

/// A change of the table: a key and its value.
pub(crate) type Edit = (Vec<u8>, Vec<u8>);

/// The parts that hold a segment's chunks, ascending.
pub(crate) fn chunk_edits(segment: &PlacedSegment) -> impl Iterator<Item = Edit> {
    segment.chunks.chunks(PART_CHUNKS_MAX).enumerate().map(|(part, chunks)| {
        ([b"c", segment.id.as_bytes().as_slice(), &(part as u32).to_be_bytes()].concat(), pack(chunks))
    })
}

/// A node's entry.
pub(crate) fn node_edit(hint: &NodeHint) -> Edit {
    (node_key(NodeKey::of(&hint.node)), prost::Message::encode_to_vec(&hint.to_wire()))
}

/// A segment's entry.
pub(crate) fn segment_edit(id: &SegmentId, info: &SegmentInfo) -> Edit {
    (segment_key(id), prost::Message::encode_to_vec(&info.to_wire()))
}

impl PlacedSegment {
    /// As the journal keeps it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let wire = PlacedWire {
            id: Bytes::copy_from_slice(self.id.as_bytes()),
            info: Some(self.info.to_wire()),
            chunks: pack(&self.chunks).into(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    /// Reads what the journal kept.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let wire: PlacedWire = prost::Message::decode(bytes).map_err(|_| damaged("journal entry"))?;
        Ok(Self {
            id: wire.id.as_ref().try_into().map(SegmentId::from_bytes).map_err(|_| damaged("journal entry"))?,
            info: SegmentInfo::from_wire(wire.info.ok_or_else(|| damaged("journal entry"))?)?,
            chunks: unpack(&wire.chunks)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
