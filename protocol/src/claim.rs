//! A holder's signed statement "I hold shard i of segment s", signed up to 256 at once.
//!
//! The leaves of a batch (segment, index) are hashed into a binary Merkle tree, whose root the holder signs; a claim
//! carries its path to that root. A leaf without a sibling moves up as it is.

use bytes::Bytes;

use crate::{
    coding::ShardIndex,
    format::{self, FormatError, array},
    ids::{NodeId, SegmentId},
    network::NetworkName,
    sign::{SignedObject, SigningKey, Unverified, Verified, VerifyError},
    time::Timestamp,
};

/// The most claims that one signature covers.
pub const BATCH_CLAIMS_MAX: usize = 256;
const PATH_HASHES_MAX: usize = 8;

/// What one claim states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimLeaf {
    /// The segment.
    pub segment: SegmentId,
    /// Which of its shards.
    pub index: ShardIndex,
}

impl ClaimLeaf {
    fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 claim leaf v1");
        hasher.update(self.segment.as_bytes());
        hasher.update(&[self.index.0]);
        *hasher.finalize().as_bytes()
    }
}

fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 claim node v1");
    hasher.update(left);
    hasher.update(right);
    *hasher.finalize().as_bytes()
}

/// What a holder signs: the root over up to [`BATCH_CLAIMS_MAX`] leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimBatch {
    /// Who holds.
    pub holder: NodeId,
    /// When the holder signed, by its clock.
    pub signed_at: Timestamp,
    /// Leaves in the tree, 1 to 256.
    pub count: u32,
    /// The tree's root.
    pub root: [u8; 32],
}

#[derive(Clone, PartialEq, prost::Message)]
struct BatchWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    holder: Bytes,
    #[prost(uint64, tag = "3")]
    signed_at: u64,
    #[prost(uint32, tag = "4")]
    count: u32,
    #[prost(bytes = "bytes", tag = "5")]
    root: Bytes,
}

impl SignedObject for ClaimBatch {
    const WHAT: &'static str = "claim batch";
    const CONTEXT: &'static str = "commonhold 2026 claim batch v1";
    const BYTES_MAX: usize = 128;

    fn encode(&self) -> Vec<u8> {
        let wire = BatchWire {
            version: 1,
            holder: Bytes::copy_from_slice(self.holder.as_bytes()),
            signed_at: self.signed_at.0,
            count: self.count,
            root: Bytes::copy_from_slice(&self.root),
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let what = Self::WHAT;
        let wire: BatchWire = format::decode(what, payload, Self::BYTES_MAX, &[])?;
        format::check_version(what, wire.version, 1)?;
        if !(1..=BATCH_CLAIMS_MAX as u32).contains(&wire.count) {
            return Err(FormatError::Field { what, field: "count" });
        }
        Ok(Self {
            holder: NodeId::from_bytes(array(what, "holder", &wire.holder)?),
            signed_at: Timestamp(wire.signed_at),
            count: wire.count,
            root: array(what, "root", &wire.root)?,
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.holder.as_bytes()
    }
}

/// A claim as it travels: leaf, path and the signed batch. Not believed until [`Claim::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it states.
    pub leaf: ClaimLeaf,
    position: u32,
    path: Vec<[u8; 32]>,
    batch: Unverified<ClaimBatch>,
}

/// A claim that its holder signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClaim {
    /// Who holds.
    pub holder: NodeId,
    /// When the holder signed, by its clock.
    pub signed_at: Timestamp,
    /// The claim itself, to be handed on.
    pub claim: Claim,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClaimWire {
    #[prost(bytes = "bytes", tag = "1")]
    segment: Bytes,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(uint32, tag = "3")]
    position: u32,
    #[prost(bytes = "bytes", tag = "4")]
    path: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    batch: Bytes,
}

impl Claim {
    /// The fewest bytes of an encoded claim: its segment alone.
    pub(crate) const BYTES_MIN: usize = 34;
    /// The most bytes of an encoded claim.
    pub const BYTES_MAX: usize = 32 + PATH_HASHES_MAX * 32 + 128 + 80 + 48;

    /// Signs `leaves` as one batch; the claims come back in their order. At most [`BATCH_CLAIMS_MAX`] leaves.
    pub fn sign_batch(
        leaves: &[ClaimLeaf],
        signed_at: Timestamp,
        key: &SigningKey,
        network: &NetworkName,
    ) -> Vec<Self> {
        assert!(leaves.len() <= BATCH_CLAIMS_MAX, "a batch holds at most {BATCH_CLAIMS_MAX} claims");
        if leaves.is_empty() {
            return Vec::new();
        }
        let mut paths: Vec<Vec<[u8; 32]>> = vec![Vec::new(); leaves.len()];
        let mut level: Vec<[u8; 32]> = leaves.iter().map(ClaimLeaf::hash).collect();
        let mut width = 1;
        while level.len() > 1 {
            for (leaf, path) in paths.iter_mut().enumerate() {
                if let Some(sibling) = level.get((leaf / width) ^ 1) {
                    path.push(*sibling);
                }
            }
            level =
                level.chunks(2).map(|pair| pair.get(1).map_or(pair[0], |right| hash_pair(&pair[0], right))).collect();
            width *= 2;
        }
        let batch = ClaimBatch {
            holder: NodeId::from_bytes(key.public()),
            signed_at,
            count: leaves.len() as u32,
            root: level[0],
        };
        let batch = Verified::sign(batch, key, network).to_unverified();
        leaves
            .iter()
            .zip(paths)
            .enumerate()
            .map(|(position, (leaf, path))| Self { leaf: *leaf, position: position as u32, path, batch: batch.clone() })
            .collect()
    }

    /// Checks the holder's signature for `network` and the path from this leaf to the signed root.
    pub fn verify(self, network: &NetworkName) -> Result<VerifiedClaim, VerifyError> {
        let batch = self.batch.clone().verify(network)?;
        self.verify_in(&batch)
    }

    pub(crate) fn batch(&self) -> &Unverified<ClaimBatch> {
        &self.batch
    }

    /// Checks the path from this leaf to the root of `batch`, which is this claim's.
    pub(crate) fn verify_in(self, batch: &Verified<ClaimBatch>) -> Result<VerifiedClaim, VerifyError> {
        let broken = VerifyError::Signature { what: "claim" };
        if self.position >= batch.count {
            return Err(broken);
        }
        let (mut hash, mut position, mut width) = (self.leaf.hash(), self.position, batch.count);
        let mut path = self.path.iter();
        while width > 1 {
            let alone = position == width - 1 && width % 2 == 1;
            if !alone {
                let Some(sibling) = path.next() else { return Err(broken) };
                hash = if position % 2 == 0 { hash_pair(&hash, sibling) } else { hash_pair(sibling, &hash) };
            }
            position /= 2;
            width = width.div_ceil(2);
        }
        if path.next().is_some() || hash != batch.root {
            return Err(broken);
        }
        Ok(VerifiedClaim { holder: batch.holder, signed_at: batch.signed_at, claim: self })
    }

    pub(crate) fn to_wire(&self) -> ClaimWire {
        ClaimWire {
            segment: Bytes::copy_from_slice(self.leaf.segment.as_bytes()),
            index: self.leaf.index.0.into(),
            position: self.position,
            path: self.path.iter().flatten().copied().collect::<Vec<u8>>().into(),
            batch: self.batch.to_bytes(),
        }
    }

    pub(crate) fn from_wire(wire: ClaimWire) -> Result<Self, FormatError> {
        let what = "claim";
        let field = |field| FormatError::Field { what, field };
        let (path, rest) = wire.path.as_chunks::<32>();
        if path.len() > PATH_HASHES_MAX || !rest.is_empty() {
            return Err(field("path"));
        }
        Ok(Self {
            leaf: ClaimLeaf {
                segment: SegmentId::from_bytes(array(what, "segment", &wire.segment)?),
                index: ShardIndex(u8::try_from(wire.index).map_err(|_| field("index"))?),
            },
            position: wire.position,
            path: path.to_vec(),
            batch: Unverified::from_bytes(wire.batch)?,
        })
    }

    /// The claim's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_wire())
    }

    /// Reads a claim of at most [`Claim::BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        Self::from_wire(format::decode("claim", bytes, Self::BYTES_MAX, &[])?)
    }
}
