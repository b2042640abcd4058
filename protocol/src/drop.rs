//! The owner's word that segments are no longer wanted, or wanted again; the higher counter wins.

use bytes::Bytes;

use crate::{
    format::{self, FormatError, array, check_count},
    ids::{SegmentId, VaultId},
    sign::SignedObject,
};

/// The most segments that one drop names.
pub const DROP_SEGMENTS_MAX: usize = 256;

/// Drop, or take a drop back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropKind {
    /// The segments are dead.
    Drop,
    /// They are wanted after all.
    Undrop,
}

/// An owner-signed drop. Ids never recur, so an old one cannot hit new data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    /// Whose segments.
    pub vault: VaultId,
    /// Rises with every drop and undrop of the vault.
    pub counter: u64,
    /// Which way.
    pub kind: DropKind,
    /// Which segments, 1 to [`DROP_SEGMENTS_MAX`].
    pub segments: Vec<SegmentId>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    vault: Bytes,
    #[prost(uint64, tag = "3")]
    counter: u64,
    #[prost(uint32, tag = "4")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "5")]
    segments: Bytes,
}

impl SignedObject for Drop {
    const WHAT: &'static str = "drop";
    const CONTEXT: &'static str = "commonhold 2026 drop v1";
    const BYTES_MAX: usize = DROP_SEGMENTS_MAX * 32 + 80;

    fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: 1,
            vault: Bytes::copy_from_slice(self.vault.as_bytes()),
            counter: self.counter,
            kind: match self.kind {
                DropKind::Drop => 1,
                DropKind::Undrop => 2,
            },
            segments: self.segments.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>().into(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let what = Self::WHAT;
        let wire: Wire = format::decode(what, payload, Self::BYTES_MAX, &[])?;
        format::check_version(what, wire.version, 1)?;
        let kind = match wire.kind {
            1 => DropKind::Drop,
            2 => DropKind::Undrop,
            _ => return Err(FormatError::Field { what, field: "kind" }),
        };
        let (segments, rest) = wire.segments.as_chunks::<32>();
        if segments.is_empty() || !rest.is_empty() {
            return Err(FormatError::Field { what, field: "segments" });
        }
        check_count(what, "segments", segments.len(), DROP_SEGMENTS_MAX)?;
        Ok(Self {
            vault: VaultId::from_bytes(array(what, "vault", &wire.vault)?),
            counter: wire.counter,
            kind,
            segments: segments.iter().copied().map(SegmentId::from_bytes).collect(),
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.vault.as_bytes()
    }
}
