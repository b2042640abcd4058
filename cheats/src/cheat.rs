//! The place between a network and an honest node, where a cheat changes what is said.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use commonhold_network::{RangeReply, ShardService, StoreBody};
use commonhold_node::{NodeService, Service, clock::Clock};
use commonhold_protocol::{
    AuditStatement, Claim, ClaimLeaf, Lease, Manifest, NetworkName, NodeId, SegmentId, ShardIndex, SigningKey,
    Unverified, Verified,
    ask::{Refusal, Request, Response},
    audit::{AuditAnswer, Challenge, ShardAnswer},
    shard_stream::{GROUP_BYTES, GroupRange},
};

use crate::{
    kind::{DELETED_PARTS, Kind},
    silence::{SILENCE, Silences},
};

/// A node that cheats, in front of the honest one that it is otherwise.
pub struct Cheat {
    kind: Kind,
    pub(crate) honest: Arc<NodeService>,
    pub(crate) key: SigningKey,
    pub(crate) network: NetworkName,
    /// The first answer for each shard; as many as the pledge has room for.
    first: Mutex<HashMap<ClaimLeaf, Bytes>>,
    silences: Mutex<Silences>,
    /// Segments whose shards were claimed.
    pub(crate) claimed: Mutex<HashSet<SegmentId>>,
}

/// Whether a chunk group is among those that [`Kind::Deletes`], [`Kind::HangsUp`] and [`Kind::Silent`] have deleted.
pub fn is_deleted(shard: &ClaimLeaf, group: u32) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(shard.segment.as_bytes()).update(&[shard.index.0]).update(&group.to_le_bytes());
    let mut drawn = [0; 8];
    hasher.finalize_xof().fill(&mut drawn);
    u64::from_le_bytes(drawn) % DELETED_PARTS == 0
}

fn is_any_deleted(shard: &ClaimLeaf, ranges: &[GroupRange]) -> bool {
    ranges.iter().any(|range| (range.first..range.first + range.count).any(|group| is_deleted(shard, group)))
}

impl Cheat {
    pub(crate) fn new(kind: Kind, honest: NodeService, key: SigningKey, network: NetworkName) -> Self {
        let (first, silences, claimed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { kind, honest: Arc::new(honest), key, network, first, silences, claimed }
    }

    /// What is sent instead of an honest answer.
    fn alter(&self, shard: ClaimLeaf, ranges: &[GroupRange], honest: Bytes) -> Bytes {
        match self.kind {
            Kind::Deletes if is_any_deleted(&shard, ranges) => {
                // Of one group, the last bytes are the data, and the rest its path to the root. Of more, some of the
                // data: that is as wrong.
                let mut bytes = BytesMut::from(&honest[..]);
                let data = bytes.len().saturating_sub(GROUP_BYTES as usize);
                bytes[data..].fill(0);
                bytes.freeze()
            }
            Kind::Flips => {
                let mut bytes = BytesMut::from(&honest[..]);
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                bytes.freeze()
            }
            Kind::Stale => {
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                first.entry(shard).or_insert(honest).clone()
            }
            Kind::Deletes | Kind::Forgets | Kind::Invents | Kind::Refuses | Kind::HangsUp | Kind::Silent => honest,
        }
    }

    async fn audited(&self, from: NodeId, challenge: Challenge) -> Option<Response> {
        let shard = |number: usize| {
            let shard = &challenge.shards[number];
            (ClaimLeaf { segment: shard.segment, index: shard.index }, shard.ranges.as_slice())
        };
        let shards = challenge.shards.len();
        let lacks = |number| {
            let (leaf, ranges) = shard(number);
            is_any_deleted(&leaf, ranges)
        };
        let answers = match self.kind {
            Kind::Refuses => vec![ShardAnswer::Refused(Refusal::Busy); shards],
            Kind::HangsUp if (0..shards).any(lacks) => return None,
            Kind::Silent if (0..shards).any(lacks) => {
                let waited = self.silences.lock().unwrap_or_else(PoisonError::into_inner).next(from, &challenge);
                tokio::time::sleep(waited).await;
                return None;
            }
            _ => {
                let honest = self.honest.answer(from, Request::Audit(challenge.clone())).await?;
                let Response::Audited(honest) = honest else { return Some(honest) };
                let alter = |(number, answer)| match answer {
                    ShardAnswer::Proof(proof) => {
                        let (leaf, ranges) = shard(number);
                        ShardAnswer::Proof(self.alter(leaf, ranges, proof))
                    }
                    other => other,
                };
                honest.answers.into_iter().enumerate().map(alter).collect()
            }
        };
        let statement = AuditStatement {
            holder: NodeId::from_bytes(self.key.public()),
            challenge: challenge.hash(),
            answers: AuditAnswer::hash(&answers),
        };
        let statement = Verified::sign(statement, &self.key, &self.network).to_unverified();
        Some(Response::Audited(AuditAnswer { answers, statement }))
    }

    /// Takes a shard's bytes in and lets go of them.
    async fn forget(
        &self,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        let manifest = manifest.verify(&self.network).map_err(|_| Refusal::Invalid)?;
        body.go(manifest.shard_length()).await.map_err(|_| Refusal::Invalid)?;
        while body.next_piece().await.map_err(|_| Refusal::Invalid)?.is_some() {}
        let leaf = ClaimLeaf { segment: manifest.id(), index };
        self.claim(&[leaf]).pop().ok_or(Refusal::Other)
    }

    /// Signed claims, true or not.
    pub(crate) fn claim(&self, leaves: &[ClaimLeaf]) -> Vec<Claim> {
        Claim::sign_batch(leaves, Clock::default().now(), &self.key, &self.network)
    }
}

impl Service for Cheat {
    async fn answer(&self, from: NodeId, request: Request) -> Option<Response> {
        match request {
            Request::Audit(challenge) => self.audited(from, challenge).await,
            request if self.kind == Kind::Invents => {
                let heard_of = crate::inventing::segments_in(&request, &self.network);
                let answer = self.honest.answer(from, request).await;
                self.invent(heard_of).await;
                answer
            }
            Request::About if self.kind == Kind::Silent => match self.honest.answer(from, Request::About).await? {
                Response::About { shards, clock, steward, domain, .. } => {
                    Some(Response::About { free_bytes: 0, shards, clock, steward, domain })
                }
                other => Some(other),
            },
            request => self.honest.answer(from, request).await,
        }
    }
}

impl ShardService for Cheat {
    async fn store(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        match self.kind {
            Kind::Forgets => self.forget(manifest, index, body).await,
            Kind::Silent => Err(Refusal::PledgeFull),
            _ => self.honest.store(from, manifest, index, lease, body).await,
        }
    }

    async fn read(
        &self,
        from: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, Refusal> {
        let leaf = ClaimLeaf { segment, index };
        if self.kind == Kind::HangsUp && is_any_deleted(&leaf, &ranges) {
            tokio::time::sleep(SILENCE).await;
            return Err(Refusal::Busy);
        }
        // Here it is not silent: the repairs of what others held would wait for it.
        if self.kind == Kind::Silent && is_any_deleted(&leaf, &ranges) {
            return Err(Refusal::Busy);
        }
        let honest = self.honest.read(from, segment, index, ranges.clone(), want_manifest).await?;
        Ok(RangeReply { encoded: self.alter(leaf, &ranges, honest.encoded), ..honest })
    }
}
