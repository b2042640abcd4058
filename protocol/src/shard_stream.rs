//! What travels on a shard stream: a small header each way, then the bytes of a shard or of a proven range.
//!
//! A stream carries one exchange after another, so that it can stay open. A header is framed by its length (u32,
//! little-endian, at most [`HEADER_BYTES_MAX`]); raw bytes follow a header that announces how many.
//!
//! Store: `Store` → `Go` | `Stored` | `Refused`; after `Go`, `shard length` raw bytes → `Stored` | `Refused`.
//! Read: `Read` → `Range`, then `encoded_bytes` raw bytes (a Bao response in 16 KiB chunk groups) | `Refused`.

use bytes::Bytes;

use crate::{
    ask::Refusal,
    claim::{Claim, ClaimWire},
    coding::ShardIndex,
    format::{self, FormatError, array, check_count},
    ids::SegmentId,
    lease::Lease,
    manifest::Manifest,
    sign::Unverified,
};

/// The most bytes of a header.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Raw bytes are sent in pieces of at most this many.
pub const PIECE_BYTES: usize = 256 << 10;
/// A chunk group of the Bao trees: the unit of range reads and audits.
pub const GROUP_BYTES: u64 = 16 << 10;
/// The most ranges in one read.
pub const READ_RANGES_MAX: usize = 64;

/// A run of chunk groups of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupRange {
    /// The first group, from 0.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

impl GroupRange {
    /// The groups that hold the bytes `start..end` of a shard; `start < end`.
    pub fn of_bytes(start: u64, end: u64) -> Self {
        let first = start / GROUP_BYTES;
        Self { first: first as u32, count: (end.div_ceil(GROUP_BYTES) - first) as u32 }
    }

    /// All groups of a shard of `shard_length` bytes.
    pub fn whole(shard_length: u64) -> Self {
        Self::of_bytes(0, shard_length.max(1))
    }

    /// The bytes of a shard of `shard_length` bytes that the run covers.
    pub fn bytes(self, shard_length: u64) -> std::ops::Range<u64> {
        let start = u64::from(self.first) * GROUP_BYTES;
        let end = (u64::from(self.first) + u64::from(self.count)) * GROUP_BYTES;
        start.min(shard_length)..end.min(shard_length)
    }
}

/// What the opener of a stream asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardRequest {
    /// Take this shard; its bytes follow if the holder says [`ShardReply::Go`].
    Store {
        /// The segment's manifest; index, root and length must match what follows.
        manifest: Unverified<Manifest>,
        /// Which shard.
        index: ShardIndex,
        /// The vault's newest lease, if the sender has one.
        lease: Option<Unverified<Lease>>,
    },
    /// Send these chunk groups of a shard with their proofs.
    Read {
        /// The segment.
        segment: SegmentId,
        /// Which shard.
        index: ShardIndex,
        /// 1 to [`READ_RANGES_MAX`] runs, ascending, not touching.
        ranges: Vec<GroupRange>,
        /// Send the manifest along: the reader does not know the roots yet.
        want_manifest: bool,
    },
}

/// What a holder answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardReply {
    /// Send the shard's bytes.
    Go,
    /// The shard is on disk, synced; here is the claim. Instead of [`ShardReply::Go`]: it was there already, exactly as
    /// offered, and its bytes are not to be sent.
    Stored {
        /// The claim.
        claim: Claim,
    },
    /// A Bao response follows.
    Range {
        /// Raw bytes that follow.
        encoded_bytes: u64,
        /// The manifest, if it was wanted.
        manifest: Option<Unverified<Manifest>>,
    },
    /// Not done; the stream can go on with the next request.
    Refused(Refusal),
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "RequestKind", tags = "2, 3")]
    kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum RequestKind {
    #[prost(message, tag = "2")]
    Store(StoreWire),
    #[prost(message, tag = "3")]
    Read(ReadWire),
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoreWire {
    #[prost(bytes = "bytes", tag = "1")]
    manifest: Bytes,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    lease: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadWire {
    #[prost(bytes = "bytes", tag = "1")]
    segment: Bytes,
    #[prost(uint32, tag = "2")]
    index: u32,
    /// first, count, first, count, …
    #[prost(uint32, repeated, tag = "3")]
    ranges: Vec<u32>,
    #[prost(bool, tag = "4")]
    want_manifest: bool,
}

fn index(what: &'static str, value: u32) -> Result<ShardIndex, FormatError> {
    u8::try_from(value).map(ShardIndex).map_err(|_| FormatError::Field { what, field: "index" })
}

impl ShardRequest {
    /// The header's bytes, without the length that frames them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::Store { manifest, index, lease } => RequestKind::Store(StoreWire {
                manifest: manifest.to_bytes(),
                index: index.0.into(),
                lease: lease.as_ref().map(Unverified::to_bytes),
            }),
            Self::Read { segment, index, ranges, want_manifest } => RequestKind::Read(ReadWire {
                segment: Bytes::copy_from_slice(segment.as_bytes()),
                index: index.0.into(),
                ranges: ranges_to_wire(ranges),
                want_manifest: *want_manifest,
            }),
        };
        prost::Message::encode_to_vec(&RequestWire { version: 1, kind: Some(kind) })
    }

    /// Reads a header of at most [`HEADER_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let what = "shard request";
        let wire: RequestWire = format::decode(what, bytes, HEADER_BYTES_MAX, &[])?;
        format::check_version(what, wire.version, 1)?;
        Ok(match wire.kind.ok_or(FormatError::Field { what, field: "kind" })? {
            RequestKind::Store(store) => Self::Store {
                manifest: Unverified::from_bytes(store.manifest)?,
                index: index(what, store.index)?,
                lease: store.lease.map(Unverified::from_bytes).transpose()?,
            },
            RequestKind::Read(read) => Self::Read {
                segment: SegmentId::from_bytes(array(what, "segment", &read.segment)?),
                index: index(what, read.index)?,
                ranges: ranges_from_wire(&read.ranges).ok_or(FormatError::Field { what, field: "ranges" })?,
                want_manifest: read.want_manifest,
            },
        })
    }
}

/// Runs as they travel: first, count, first, count, …
pub(crate) fn ranges_to_wire(ranges: &[GroupRange]) -> Vec<u32> {
    ranges.iter().flat_map(|range| [range.first, range.count]).collect()
}

/// Runs that are not empty, ascending and apart, within what a segment can have.
pub(crate) fn ranges_from_wire(numbers: &[u32]) -> Option<Vec<GroupRange>> {
    let groups_max = (crate::manifest::SEGMENT_BYTES_MAX / GROUP_BYTES) as u32 + 1;
    let (pairs, rest) = numbers.as_chunks::<2>();
    check_count("shard request", "ranges", pairs.len(), READ_RANGES_MAX).ok()?;
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut free_from = 0;
    for &[first, count] in pairs {
        let end = first.checked_add(count)?;
        if count == 0 || first < free_from || end > groups_max {
            return None;
        }
        free_from = end + 1;
    }
    Some(pairs.iter().map(|&[first, count]| GroupRange { first, count }).collect())
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReplyWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "ReplyKind", tags = "2, 3, 4, 5")]
    kind: Option<ReplyKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ReplyKind {
    #[prost(message, tag = "2")]
    Go(GoWire),
    #[prost(message, tag = "3")]
    Stored(ClaimWire),
    #[prost(message, tag = "4")]
    Range(RangeWire),
    #[prost(uint32, tag = "5")]
    Refused(u32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct GoWire {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeWire {
    #[prost(uint64, tag = "1")]
    encoded_bytes: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    manifest: Option<Bytes>,
}

/// The most raw bytes that a range can announce: a whole segment and its tree, generously.
pub const ENCODED_BYTES_MAX: u64 = crate::manifest::SEGMENT_BYTES_MAX + (1 << 20);

impl ShardReply {
    /// The header's bytes, without the length that frames them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::Go => ReplyKind::Go(GoWire {}),
            Self::Stored { claim } => ReplyKind::Stored(claim.to_wire()),
            Self::Range { encoded_bytes, manifest } => ReplyKind::Range(RangeWire {
                encoded_bytes: *encoded_bytes,
                manifest: manifest.as_ref().map(Unverified::to_bytes),
            }),
            Self::Refused(refusal) => ReplyKind::Refused(refusal.code()),
        };
        prost::Message::encode_to_vec(&ReplyWire { version: 1, kind: Some(kind) })
    }

    /// Reads a header of at most [`HEADER_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let what = "shard reply";
        let wire: ReplyWire = format::decode(what, bytes, HEADER_BYTES_MAX, &[])?;
        format::check_version(what, wire.version, 1)?;
        Ok(match wire.kind.ok_or(FormatError::Field { what, field: "kind" })? {
            ReplyKind::Go(GoWire {}) => Self::Go,
            ReplyKind::Stored(claim) => Self::Stored { claim: Claim::from_wire(claim)? },
            ReplyKind::Range(RangeWire { encoded_bytes, manifest }) => {
                if encoded_bytes > ENCODED_BYTES_MAX {
                    return Err(FormatError::Field { what, field: "encoded_bytes" });
                }
                Self::Range { encoded_bytes, manifest: manifest.map(Unverified::from_bytes).transpose()? }
            }
            ReplyKind::Refused(code) => Self::Refused(Refusal::from_code(code)),
        })
    }
}
