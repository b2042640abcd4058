//! The bytes of refs: 48 each inside a node, which has a table of the segments it refers to; 76 where one stands
//! alone, in a root or a directory entry. All numbers are little-endian.
//!
//! ```text
//! packed (48):  segment's place in the node's table u32 | offset u32 | sealed length u32 | plain length u32 | key 32
//! hole   (48):  0xffff_ffff                             | length u64              | 36 zero bytes
//! whole  (76):  segment id 32 | offset u32 | sealed length u32 | plain length u32 | key 32
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use commonhold_protocol::{FormatError, SegmentId, manifest::SEGMENT_BYTES_MAX};

use crate::chunk_ref::{ChunkKey, ChunkRef};

/// Bytes of a ref that stands alone.
pub const WHOLE_REF_BYTES: usize = 76;
/// Bytes of a ref, or of a hole, in a node.
pub const PACKED_REF_BYTES: usize = 48;
/// The most plain bytes of a chunk.
pub const PLAIN_BYTES_MAX: u32 = 512 << 10;
/// The fewest bytes of a sealed chunk: a codec tag and the seal's 16 bytes.
const SEALED_BYTES_MIN: u32 = 17;
/// The most bytes of a sealed chunk: what does not compress is framed raw, so a page above the plain bytes is ample.
const SEALED_BYTES_MAX: u32 = PLAIN_BYTES_MAX + 4096;
/// In the place of a table index: the slot is a hole.
const HOLE: u32 = u32::MAX;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Offset, lengths and key: the 44 bytes that both forms end with.
fn decode_tail(segment: SegmentId, tail: &[u8; 44]) -> ChunkRef {
    ChunkRef {
        segment,
        offset: u32_at(tail, 0),
        sealed_length: u32_at(tail, 4),
        plain_length: u32_at(tail, 8),
        key: ChunkKey::from_bytes(std::array::from_fn(|i| tail[12 + i])),
    }
}

fn encode_tail(chunk: &ChunkRef) -> [u8; 44] {
    let mut tail = [0; 44];
    tail[..4].copy_from_slice(&chunk.offset.to_le_bytes());
    tail[4..8].copy_from_slice(&chunk.sealed_length.to_le_bytes());
    tail[8..12].copy_from_slice(&chunk.plain_length.to_le_bytes());
    tail[12..].copy_from_slice(chunk.key.as_bytes());
    tail
}

/// Refuses what no segment can hold, before anyone asks the network for it.
fn check_lengths(what: &'static str, tail: &[u8; 44]) -> Result<(), FormatError> {
    let (offset, sealed, plain) = (u32_at(tail, 0), u32_at(tail, 4), u32_at(tail, 8));
    let inside = u64::from(offset) + u64::from(sealed) <= SEGMENT_BYTES_MAX;
    let sized = (SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&sealed) && (1..=PLAIN_BYTES_MAX).contains(&plain);
    if inside && sized { Ok(()) } else { Err(FormatError::Field { what, field: "ref" }) }
}

/// A ref that stands alone.
pub fn encode_whole(chunk: &ChunkRef) -> [u8; WHOLE_REF_BYTES] {
    let mut bytes = [0; WHOLE_REF_BYTES];
    bytes[..32].copy_from_slice(chunk.segment.as_bytes());
    bytes[32..].copy_from_slice(&encode_tail(chunk));
    bytes
}

/// Reads a ref that stands alone, as a part of `what`.
pub fn decode_whole(what: &'static str, bytes: &[u8]) -> Result<ChunkRef, FormatError> {
    let wrong = FormatError::Field { what, field: "ref" };
    let (segment, tail) = bytes.split_first_chunk::<32>().ok_or(wrong.clone())?;
    let tail: &[u8; 44] = tail.try_into().map_err(|_| wrong)?;
    check_lengths(what, tail)?;
    Ok(decode_tail(SegmentId::from_bytes(*segment), tail))
}

/// One slot of a node.
pub(crate) enum Slot {
    /// A chunk.
    Ref(ChunkRef),
    /// So many bytes that are zero.
    Hole(u64),
}

/// The refs of a node, checked when it was decoded, unpacked one at a time.
pub(crate) struct RefTable {
    segments: Bytes,
    slots: Bytes,
}

impl RefTable {
    /// Checks every slot: at most `slots_max`, table indexes in range, lengths possible, holes only where `holes`.
    pub(crate) fn decode(
        what: &'static str,
        segments: Bytes,
        slots: Bytes,
        slots_max: usize,
        holes: bool,
    ) -> Result<Self, FormatError> {
        let field = |field| FormatError::Field { what, field };
        let (ids, ids_rest) = segments.as_chunks::<32>();
        let (packed, packed_rest) = slots.as_chunks::<PACKED_REF_BYTES>();
        if !packed_rest.is_empty() || packed.is_empty() || packed.len() > slots_max {
            return Err(field("refs"));
        }
        if !ids_rest.is_empty() || ids.len() > packed.len() {
            return Err(field("segments"));
        }
        for slot in packed {
            let index = u32_at(slot, 0);
            if index == HOLE && holes {
                if hole_length(slot) == 0 || slot[12..].iter().any(|byte| *byte != 0) {
                    return Err(field("hole"));
                }
                continue;
            }
            if usize::try_from(index).map_or(true, |index| index >= ids.len()) {
                return Err(field("refs"));
            }
            let (_, tail) = slot.split_last_chunk::<44>().ok_or_else(|| field("refs"))?;
            check_lengths(what, tail)?;
        }
        Ok(Self { segments, slots })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() / PACKED_REF_BYTES
    }

    /// Slot `at`, which must be below [`Self::len`].
    pub(crate) fn slot(&self, at: usize) -> Slot {
        let slot = &self.slots.as_chunks::<PACKED_REF_BYTES>().0[at];
        match u32_at(slot, 0) {
            HOLE => Slot::Hole(hole_length(slot)),
            index => Slot::Ref(self.unpack(index, slot)),
        }
    }

    /// The ref in slot `at`, which must be below [`Self::len`], of a table that was decoded without holes.
    pub(crate) fn chunk(&self, at: usize) -> ChunkRef {
        let slot = &self.slots.as_chunks::<PACKED_REF_BYTES>().0[at];
        self.unpack(u32_at(slot, 0), slot)
    }

    fn unpack(&self, index: u32, slot: &[u8; PACKED_REF_BYTES]) -> ChunkRef {
        let segment = self.segments.as_chunks::<32>().0[index as usize];
        decode_tail(SegmentId::from_bytes(segment), &std::array::from_fn(|i| slot[4 + i]))
    }
}

fn hole_length(slot: &[u8; PACKED_REF_BYTES]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| slot[4 + i]))
}

/// Packs the refs of one node; the table has each segment once, in order of first use.
#[derive(Default)]
pub(crate) struct RefPacker {
    places: HashMap<SegmentId, u32>,
    segments: Vec<u8>,
    slots: Vec<u8>,
}

impl RefPacker {
    pub(crate) fn push(&mut self, chunk: &ChunkRef) {
        let fresh = self.places.len() as u32;
        let index = *self.places.entry(chunk.segment).or_insert(fresh);
        if index == fresh {
            self.segments.extend_from_slice(chunk.segment.as_bytes());
        }
        self.slots.extend_from_slice(&index.to_le_bytes());
        self.slots.extend_from_slice(&encode_tail(chunk));
    }

    pub(crate) fn push_hole(&mut self, length: u64) {
        self.slots.extend_from_slice(&HOLE.to_le_bytes());
        self.slots.extend_from_slice(&length.to_le_bytes());
        self.slots.extend_from_slice(&[0; 36]);
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() / PACKED_REF_BYTES
    }

    /// The segment table and the slots; the packer is empty again.
    pub(crate) fn take(&mut self) -> (Bytes, Bytes) {
        self.places.clear();
        (std::mem::take(&mut self.segments).into(), std::mem::take(&mut self.slots).into())
    }
}
