//! The fourth stage: sealed chunks, one after another, make a segment; a segment is cut and coded into shards.
//!
//! A segment's id is known when it is begun, so refs into it can be handed out, and written into trees, while it is
//! still being filled. Its n shards are slices of two buffers: the segment itself, zero-padded, and the parity.

use bytes::Bytes;
use commonhold_protocol::{Coding, Manifest, SegmentId, ShardIndex, ShardRoot, VaultId, manifest::SEGMENT_BYTES_MAX};

use crate::{
    chunk_ref::ChunkRef,
    code::{CodeError, Coder},
    seal::Sealed,
};

/// Bytes that a segment's buffer takes at first.
const BUFFER_BYTES_FIRST: usize = 256 << 10;
/// And beyond that: a full segment and its padding, so that it is moved once at most. Memory that is not written to
/// is not taken from the system.
const BUFFER_BYTES_MAX: usize = SEGMENT_BYTES_MAX as usize + 255 * 64;

/// A segment that is being filled.
pub struct SegmentBuilder {
    vault: VaultId,
    salt: [u8; 16],
    id: SegmentId,
    bytes: Vec<u8>,
}

/// Why a sealed chunk was not appended, or a segment not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The segment has too little room left; begin another.
    #[error("a sealed chunk of {bytes} bytes in a segment with {free_bytes} bytes left")]
    Full {
        /// Bytes of the sealed chunk.
        bytes: usize,
        /// Bytes left.
        free_bytes: usize,
    },
    /// A segment holds a byte at least.
    #[error("segment {segment} is empty")]
    Empty {
        /// The segment.
        segment: SegmentId,
    },
    /// Shards that are not this segment's, or too few.
    #[error("coding segment {segment}")]
    Code {
        /// The segment.
        segment: SegmentId,
        /// What is wrong with the shards.
        source: CodeError,
    },
}

/// A segment, cut and coded.
pub struct CodedSegment {
    /// Its description, to be signed.
    pub manifest: Manifest,
    /// All n shards, by index.
    pub shards: Vec<Bytes>,
}

impl SegmentBuilder {
    /// An empty segment of `vault`; the salt must be random.
    pub fn new(vault: VaultId, salt: [u8; 16]) -> Self {
        Self { id: Manifest::segment_id(&vault, &salt), vault, salt, bytes: Vec::new() }
    }

    /// The segment that was described by `manifest` before, from its bytes; none if those are not of that segment.
    pub fn of_manifest(manifest: &Manifest, mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() as u64 != manifest.length {
            return None;
        }
        let shard_length = manifest.shard_length() as usize;
        bytes.reserve_exact(shard_length * usize::from(manifest.coding.k()) - bytes.len());
        // The data shards say it all: the others follow from them.
        bytes.resize(shard_length * usize::from(manifest.coding.k()), 0);
        let is_shard = |(shard, root): (&[u8], &ShardRoot)| blake3::hash(shard).as_bytes() == root.as_bytes();
        let is_whole = bytes.chunks_exact(shard_length).zip(&manifest.roots).all(is_shard);
        bytes.truncate(manifest.length as usize);
        is_whole.then(|| Self { vault: manifest.vault, salt: manifest.salt, id: manifest.id(), bytes })
    }

    /// The id that the segment will have.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// True while nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a sealed chunk of `length` bytes has room.
    pub fn fits(&self, length: usize) -> bool {
        length <= self.free_bytes()
    }

    fn free_bytes(&self) -> usize {
        SEGMENT_BYTES_MAX as usize - self.bytes.len()
    }

    /// Appends a sealed chunk and says where it lies.
    pub fn push(&mut self, sealed: &Sealed) -> Result<ChunkRef, SegmentError> {
        let bytes = sealed.bytes.len();
        if !self.fits(bytes) {
            return Err(SegmentError::Full { bytes, free_bytes: self.free_bytes() });
        }
        if self.bytes.capacity() - self.bytes.len() < bytes {
            let small = self.bytes.len() + bytes <= BUFFER_BYTES_FIRST;
            let buffer_bytes = if small { BUFFER_BYTES_FIRST } else { BUFFER_BYTES_MAX };
            self.bytes.reserve_exact(buffer_bytes - self.bytes.len());
        }
        let place = ChunkRef {
            segment: self.id,
            // Both are at most SEGMENT_BYTES_MAX.
            offset: self.bytes.len() as u32,
            sealed_length: bytes as u32,
            plain_length: sealed.plain_length,
            key: sealed.key.clone(),
        };
        self.bytes.extend_from_slice(&sealed.bytes);
        Ok(place)
    }

    /// Cuts and codes the segment; `coding` is the vault's, a small segment takes fewer data shards.
    pub fn finish(self, coding: Coding) -> Result<CodedSegment, SegmentError> {
        let length = self.length();
        if length == 0 {
            return Err(SegmentError::Empty { segment: self.id });
        }
        let coding = coding.for_length(length);
        let shard_length = coding.shard_length(length) as usize;

        let mut data = self.bytes;
        data.resize(shard_length * usize::from(coding.k()), 0);
        let mut parity = vec![0; shard_length * usize::from(coding.parity())];
        let inputs: Vec<&[u8]> = data.chunks_exact(shard_length).collect();
        let mut outputs: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_length).collect();
        Coder::new(coding)
            .encode(&inputs, &mut outputs)
            .map_err(|source| SegmentError::Code { segment: self.id, source })?;

        let shards: Vec<Bytes> =
            [data, parity].into_iter().flat_map(|buffer| slices(buffer.into(), shard_length)).collect();
        let roots = shards.iter().map(|shard| ShardRoot::from_bytes(*blake3::hash(shard).as_bytes())).collect();
        let manifest = Manifest { vault: self.vault, salt: self.salt, coding, length, roots };
        Ok(CodedSegment { manifest, shards })
    }
}

fn slices(buffer: Bytes, length: usize) -> impl Iterator<Item = Bytes> {
    (0..buffer.len() / length).map(move |at| buffer.slice(at * length..(at + 1) * length))
}

/// The bytes of a segment, from k or more of its whole shards (each checked against its root by the caller).
pub fn restore(manifest: &Manifest, shards: &[(ShardIndex, Bytes)]) -> Result<Bytes, SegmentError> {
    let shard_length = manifest.shard_length() as usize;
    check_shard_length(manifest, shards, shard_length)?;
    let mut segment = vec![0; shard_length * usize::from(manifest.coding.k())];
    let wanted: Vec<ShardIndex> = manifest.coding.indices().take(manifest.coding.k().into()).collect();
    let mut outputs: Vec<&mut [u8]> = segment.chunks_exact_mut(shard_length).collect();
    reconstruct(manifest, shards, &wanted, &mut outputs)?;
    segment.truncate(manifest.length as usize);
    Ok(segment.into())
}

/// A byte range of the shard `wanted`, from the same byte range of k or more other shards.
pub fn restore_columns(
    manifest: &Manifest,
    wanted: ShardIndex,
    columns: &[(ShardIndex, Bytes)],
) -> Result<Bytes, SegmentError> {
    let mut restored = vec![0; columns.first().map_or(0, |(_, column)| column.len())];
    reconstruct(manifest, columns, &[wanted], &mut [&mut restored])?;
    Ok(restored.into())
}

fn reconstruct(
    manifest: &Manifest,
    present: &[(ShardIndex, Bytes)],
    wanted: &[ShardIndex],
    outputs: &mut [&mut [u8]],
) -> Result<(), SegmentError> {
    let present: Vec<(ShardIndex, &[u8])> = present.iter().map(|(index, bytes)| (*index, bytes.as_ref())).collect();
    Coder::new(manifest.coding)
        .reconstruct(&present, wanted, outputs)
        .map_err(|source| SegmentError::Code { segment: manifest.id(), source })
}

fn check_shard_length(
    manifest: &Manifest,
    shards: &[(ShardIndex, Bytes)],
    expected: usize,
) -> Result<(), SegmentError> {
    match shards.iter().find(|(_, shard)| shard.len() != expected) {
        None => Ok(()),
        Some((_, odd)) => {
            let source = CodeError::Length { bytes: odd.len(), expected };
            Err(SegmentError::Code { segment: manifest.id(), source })
        }
    }
}

#[cfg(test)]
mod tests;
