//! The public, owner-signed description of a segment.

use bytes::Bytes;

use crate::{
    coding::{Coding, ShardIndex},
    format::{self, FormatError, array},
    ids::{SegmentId, ShardRoot, VaultId},
    sign::SignedObject,
};

/// The most plain bytes of a segment: 16 MiB of sealed frames.
pub const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// What holders, stewards and readers need to know of a segment; holds no key and no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whose segment.
    pub vault: VaultId,
    /// Random; with the vault it makes the segment's id.
    pub salt: [u8; 16],
    /// The shape of its code.
    pub coding: Coding,
    /// Bytes of sealed frames, 1 to [`SEGMENT_BYTES_MAX`].
    pub length: u64,
    /// The root of each shard, by index.
    pub roots: Vec<ShardRoot>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    vault: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    salt: Bytes,
    #[prost(uint32, tag = "4")]
    k: u32,
    #[prost(uint32, tag = "5")]
    n: u32,
    #[prost(uint64, tag = "6")]
    length: u64,
    #[prost(bytes = "bytes", tag = "7")]
    roots: Bytes,
}

impl Manifest {
    /// The id of the segment that `vault` made with `salt`.
    pub fn segment_id(vault: &VaultId, salt: &[u8; 16]) -> SegmentId {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 segment id v1");
        hasher.update(vault.as_bytes());
        hasher.update(salt);
        SegmentId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// This segment's id.
    pub fn id(&self) -> SegmentId {
        Self::segment_id(&self.vault, &self.salt)
    }

    /// What a challenge names it by: the same for all that say the same, however often they were signed.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 manifest hash v1");
        hasher.update(&self.encode());
        *hasher.finalize().as_bytes()
    }

    /// Bytes of each shard.
    pub fn shard_length(&self) -> u64 {
        self.coding.shard_length(self.length)
    }

    /// The root of one shard; none if the index is not below n.
    pub fn root(&self, index: ShardIndex) -> Option<&ShardRoot> {
        self.roots.get(usize::from(index.0))
    }
}

impl SignedObject for Manifest {
    const WHAT: &'static str = "manifest";
    const CONTEXT: &'static str = "commonhold 2026 manifest v1";
    const BYTES_MAX: usize = 255 * 32 + 128;

    fn encode(&self) -> Vec<u8> {
        let roots: Vec<u8> = self.roots.iter().flat_map(|root| *root.as_bytes()).collect();
        let wire = Wire {
            version: 1,
            vault: Bytes::copy_from_slice(self.vault.as_bytes()),
            salt: Bytes::copy_from_slice(&self.salt),
            k: self.coding.k().into(),
            n: self.coding.n().into(),
            length: self.length,
            roots: roots.into(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let what = Self::WHAT;
        let wire: Wire = format::decode(what, payload, Self::BYTES_MAX, &[])?;
        format::check_version(what, wire.version, 1)?;
        let field = |field| FormatError::Field { what, field };
        let k = u8::try_from(wire.k).map_err(|_| field("k"))?;
        let n = u8::try_from(wire.n).map_err(|_| field("n"))?;
        let coding = Coding::new(k, n).map_err(|_| field("k"))?;
        if !(1..=SEGMENT_BYTES_MAX).contains(&wire.length) {
            return Err(field("length"));
        }
        let (roots, rest) = wire.roots.as_chunks::<32>();
        if roots.len() != usize::from(n) || !rest.is_empty() {
            return Err(field("roots"));
        }
        Ok(Self {
            vault: VaultId::from_bytes(array(what, "vault", &wire.vault)?),
            salt: array(what, "salt", &wire.salt)?,
            coding,
            length: wire.length,
            roots: roots.iter().copied().map(ShardRoot::from_bytes).collect(),
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.vault.as_bytes()
    }
}
