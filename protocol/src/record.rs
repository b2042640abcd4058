//! What stewards keep of a segment: its manifest and claims, or its tombstone.

use bytes::Bytes;

use crate::{
    claim::{Claim, ClaimWire},
    drop::Drop,
    format::{self, FormatError, Repeated, check_count},
    manifest::Manifest,
    sign::{SignedObject, Unverified},
};

/// The most claims that a record holds for one shard index: it bounds the record, and how many wrong holders a reader may
/// have to try.
pub const CLAIMS_PER_INDEX_MAX: usize = 3;
/// The most claims of one record.
pub const RECORD_CLAIMS_MAX: usize = 255 * CLAIMS_PER_INDEX_MAX;
/// The most bytes of an encoded record.
pub const RECORD_BYTES_MAX: usize =
    Manifest::BYTES_MAX + Drop::BYTES_MAX + 256 + RECORD_CLAIMS_MAX * (Claim::BYTES_MAX + 4);

/// A record as it travels and is stored; nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The segment's manifest.
    pub manifest: Unverified<Manifest>,
    /// Who says to hold which shard.
    pub claims: Vec<Claim>,
    /// The newest drop or undrop that names the segment.
    pub drop: Option<Unverified<Drop>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RecordWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    manifest: Bytes,
    #[prost(message, repeated, tag = "3")]
    claims: Vec<ClaimWire>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    drop: Option<Bytes>,
}

/// What a record repeats.
pub(crate) const REPEATED: &[Repeated] =
    &[Repeated { tag: 3, count_max: RECORD_CLAIMS_MAX, bytes_min: Claim::BYTES_MIN, inner: &[] }];

impl Record {
    pub(crate) fn to_wire(&self) -> RecordWire {
        RecordWire {
            version: 1,
            manifest: self.manifest.to_bytes(),
            claims: self.claims.iter().map(Claim::to_wire).collect(),
            drop: self.drop.as_ref().map(Unverified::to_bytes),
        }
    }

    pub(crate) fn from_wire(wire: RecordWire) -> Result<Self, FormatError> {
        format::check_version("record", wire.version, 1)?;
        check_count("record", "claims", wire.claims.len(), RECORD_CLAIMS_MAX)?;
        Ok(Self {
            manifest: Unverified::from_bytes(wire.manifest)?,
            claims: wire.claims.into_iter().map(Claim::from_wire).collect::<Result<_, _>>()?,
            drop: wire.drop.map(Unverified::from_bytes).transpose()?,
        })
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_wire())
    }

    /// Reads a record of at most [`RECORD_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        Self::from_wire(format::decode("record", bytes, RECORD_BYTES_MAX, REPEATED)?)
    }
}
