//! Audits: a steward's challenge, a holder's signed answer.
//!
//! A challenge names chunk groups of shards of one holder. The answer is their Bao responses, one for each shard, and
//! the holder's signature over (hash of the challenge, hash of the answers): a wrong answer is evidence that every
//! node can check, with nothing but the owner-signed manifest, which the challenge names by its hash. Without that, an
//! owner who signs two manifests for one segment could show an honest answer beside the other one.

use bytes::Bytes;

use crate::{
    ask::Refusal,
    coding::ShardIndex,
    format::{self, FormatError, Repeated, array, check_count},
    ids::{NodeId, SegmentId},
    manifest::Manifest,
    shard_stream::{GroupRange, ranges_from_wire, ranges_to_wire},
    sign::{SignedObject, Unverified},
};

/// The most shards in one challenge.
pub const CHALLENGE_SHARDS_MAX: usize = 32;
/// The most chunk groups in one challenge, over all its shards: their proofs fit one message.
pub const CHALLENGE_GROUPS_MAX: u64 = 32;
/// The most bytes of the answer for one shard: all groups of a challenge and their paths.
const PROOF_BYTES_MAX: usize = 640 << 10;

/// Chunk groups of one shard that are to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengedShard {
    /// The segment.
    pub segment: SegmentId,
    /// Which of its shards.
    pub index: ShardIndex,
    /// [`Manifest::hash`] of the manifest that the proof has to fit.
    pub manifest: [u8; 32],
    /// Ascending, not touching.
    pub ranges: Vec<GroupRange>,
}

/// "Prove that you hold these."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Random: no answer fits two challenges.
    pub nonce: [u8; 32],
    /// 1 to [`CHALLENGE_SHARDS_MAX`], of at most [`CHALLENGE_GROUPS_MAX`] groups together.
    pub shards: Vec<ChallengedShard>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChallengeWire {
    #[prost(bytes = "bytes", tag = "1")]
    nonce: Bytes,
    #[prost(message, repeated, tag = "2")]
    shards: Vec<ChallengedShardWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChallengedShardWire {
    #[prost(bytes = "bytes", tag = "1")]
    segment: Bytes,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(bytes = "bytes", tag = "3")]
    manifest: Bytes,
    /// first, count, first, count, …
    #[prost(uint32, repeated, tag = "4")]
    ranges: Vec<u32>,
}

/// What a challenge repeats.
pub(crate) const CHALLENGE_REPEATED: &[Repeated] =
    &[Repeated { tag: 2, count_max: CHALLENGE_SHARDS_MAX, bytes_min: 64, inner: &[] }];

impl Challenge {
    const WHAT: &'static str = "challenge";

    pub(crate) fn to_wire(&self) -> ChallengeWire {
        let shard = |shard: &ChallengedShard| ChallengedShardWire {
            segment: Bytes::copy_from_slice(shard.segment.as_bytes()),
            index: shard.index.0.into(),
            manifest: Bytes::copy_from_slice(&shard.manifest),
            ranges: ranges_to_wire(&shard.ranges),
        };
        ChallengeWire { nonce: Bytes::copy_from_slice(&self.nonce), shards: self.shards.iter().map(shard).collect() }
    }

    pub(crate) fn from_wire(wire: ChallengeWire) -> Result<Self, FormatError> {
        let what = Self::WHAT;
        let bad = |field| FormatError::Field { what, field };
        check_count(what, "shards", wire.shards.len(), CHALLENGE_SHARDS_MAX)?;
        let shard = |wire: ChallengedShardWire| {
            Ok(ChallengedShard {
                segment: SegmentId::from_bytes(array(what, "segment", &wire.segment)?),
                index: ShardIndex(u8::try_from(wire.index).map_err(|_| bad("index"))?),
                manifest: array(what, "manifest", &wire.manifest)?,
                ranges: ranges_from_wire(&wire.ranges).ok_or(bad("ranges"))?,
            })
        };
        let shards = wire.shards.into_iter().map(shard).collect::<Result<Vec<_>, FormatError>>()?;
        let challenge = Self { nonce: array(what, "nonce", &wire.nonce)?, shards };
        if challenge.shards.is_empty() || challenge.groups() > CHALLENGE_GROUPS_MAX {
            return Err(bad("shards"));
        }
        Ok(challenge)
    }

    /// Chunk groups that are asked for.
    pub fn groups(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.ranges).map(|range| u64::from(range.count)).sum()
    }

    /// What a signed answer names it by.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 challenge v1");
        hasher.update(&prost::Message::encode_to_vec(&self.to_wire()));
        *hasher.finalize().as_bytes()
    }
}

/// What a holder says of one challenged shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardAnswer {
    /// The Bao response of the groups.
    Proof(Bytes),
    /// It does not prove it, and says why.
    Refused(Refusal),
    /// It holds that shard of another manifest that the owner signed for the segment, and here it is.
    OtherManifest(Unverified<Manifest>),
}

/// A holder's answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditAnswer {
    /// One for each challenged shard, in order.
    pub answers: Vec<ShardAnswer>,
    /// The holder's word that this is its answer to that challenge.
    pub statement: Unverified<AuditStatement>,
}

/// What a holder signs: which challenge it answered, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStatement {
    /// Who holds.
    pub holder: NodeId,
    /// [`Challenge::hash`].
    pub challenge: [u8; 32],
    /// [`AuditAnswer::hash`].
    pub answers: [u8; 32],
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuditAnswerWire {
    #[prost(message, repeated, tag = "1")]
    answers: Vec<ShardAnswerWire>,
    #[prost(bytes = "bytes", tag = "2")]
    statement: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ShardAnswerWire {
    #[prost(oneof = "ShardAnswerKind", tags = "1, 2, 3")]
    kind: Option<ShardAnswerKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ShardAnswerKind {
    #[prost(bytes = "bytes", tag = "1")]
    Proof(Bytes),
    #[prost(uint32, tag = "2")]
    Refused(u32),
    #[prost(bytes = "bytes", tag = "3")]
    OtherManifest(Bytes),
}

/// What an answer repeats.
pub(crate) const ANSWER_REPEATED: &[Repeated] =
    &[Repeated { tag: 1, count_max: CHALLENGE_SHARDS_MAX, bytes_min: 2, inner: &[] }];

impl AuditAnswer {
    /// Over the answers to a challenge, each behind its kind and length.
    pub fn hash(answers: &[ShardAnswer]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 audit answers v1");
        for answer in answers {
            match answer {
                ShardAnswer::Proof(proof) => {
                    hasher.update(&[0]);
                    hasher.update(&(proof.len() as u32).to_le_bytes());
                    hasher.update(proof);
                }
                ShardAnswer::Refused(refusal) => {
                    hasher.update(&[1]);
                    hasher.update(&refusal.code().to_le_bytes());
                }
                ShardAnswer::OtherManifest(manifest) => {
                    let bytes = manifest.to_bytes();
                    hasher.update(&[2]);
                    hasher.update(&(bytes.len() as u32).to_le_bytes());
                    hasher.update(&bytes);
                }
            }
        }
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn to_wire(&self) -> AuditAnswerWire {
        let kind = |answer: &ShardAnswer| match answer {
            ShardAnswer::Proof(proof) => ShardAnswerKind::Proof(proof.clone()),
            ShardAnswer::Refused(refusal) => ShardAnswerKind::Refused(refusal.code()),
            ShardAnswer::OtherManifest(manifest) => ShardAnswerKind::OtherManifest(manifest.to_bytes()),
        };
        AuditAnswerWire {
            answers: self.answers.iter().map(|answer| ShardAnswerWire { kind: Some(kind(answer)) }).collect(),
            statement: self.statement.to_bytes(),
        }
    }

    pub(crate) fn from_wire(wire: AuditAnswerWire) -> Result<Self, FormatError> {
        let what = "audit answer";
        check_count(what, "answers", wire.answers.len(), CHALLENGE_SHARDS_MAX)?;
        let answer = |wire: ShardAnswerWire| match wire.kind {
            Some(ShardAnswerKind::Proof(proof)) => {
                format::check_length(what, &proof, PROOF_BYTES_MAX)?;
                Ok(ShardAnswer::Proof(proof))
            }
            Some(ShardAnswerKind::Refused(code)) => Ok(ShardAnswer::Refused(Refusal::from_code(code))),
            Some(ShardAnswerKind::OtherManifest(bytes)) => {
                Ok(ShardAnswer::OtherManifest(Unverified::from_bytes(bytes)?))
            }
            None => Err(FormatError::Field { what, field: "kind" }),
        };
        Ok(Self {
            answers: wire.answers.into_iter().map(answer).collect::<Result<_, _>>()?,
            statement: Unverified::from_bytes(wire.statement)?,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatementWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    holder: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    challenge: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    answers: Bytes,
}

impl SignedObject for AuditStatement {
    const WHAT: &'static str = "audit statement";
    const CONTEXT: &'static str = "commonhold 2026 audit statement v1";
    const BYTES_MAX: usize = 128;

    fn encode(&self) -> Vec<u8> {
        let wire = StatementWire {
            version: 1,
            holder: Bytes::copy_from_slice(self.holder.as_bytes()),
            challenge: Bytes::copy_from_slice(&self.challenge),
            answers: Bytes::copy_from_slice(&self.answers),
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let wire: StatementWire = format::decode(Self::WHAT, payload, Self::BYTES_MAX, &[])?;
        format::check_version(Self::WHAT, wire.version, 1)?;
        Ok(Self {
            holder: NodeId::from_bytes(array(Self::WHAT, "holder", &wire.holder)?),
            challenge: array(Self::WHAT, "challenge", &wire.challenge)?,
            answers: array(Self::WHAT, "answers", &wire.answers)?,
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.holder.as_bytes()
    }
}
