//! Where a sealed chunk lies and the key that opens it: a read capability for that chunk, and for nothing else.
//!
//! A ref is what trees, the vault's root and share links hold. Whoever has one can read that chunk; trees are chunks
//! too, so the ref of a tree opens everything below it. Keys are never printed.

use std::fmt;

use commonhold_protocol::SegmentId;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key that one sealed chunk opens with; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkKey([u8; 32]);

impl ChunkKey {
    /// The key with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A sealed chunk inside a segment, and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Its first byte in the segment.
    pub offset: u32,
    /// Bytes as sealed.
    pub sealed_length: u32,
    /// Bytes of the chunk itself.
    pub plain_length: u32,
    /// What opens it.
    pub key: ChunkKey,
}

impl ChunkRef {
    /// The bytes of the segment that the sealed chunk takes.
    pub fn bytes(&self) -> std::ops::Range<u64> {
        let offset = u64::from(self.offset);
        offset..offset + u64::from(self.sealed_length)
    }
}

/// Shows the place, never the key.
impl fmt::Debug for ChunkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkRef")
            .field("segment", &self.segment)
            .field("offset", &self.offset)
            .field("sealed_length", &self.sealed_length)
            .field("plain_length", &self.plain_length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_ref_does_not_show_its_key() {
        let shown = format!(
            "{:?}",
            ChunkRef {
                segment: SegmentId::from_bytes([1; 32]),
                offset: 7,
                sealed_length: 33,
                plain_length: 16,
                key: ChunkKey::from_bytes([0xab; 32]),
            }
        );
        assert!(shown.contains("offset: 7"));
        assert!(!shown.contains("key") && !shown.contains("171") && !shown.contains("ab, ab"));
    }
}
