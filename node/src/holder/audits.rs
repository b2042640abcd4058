//! Answers audits: the groups that are asked for with their proofs, and our signature that this is our answer.

use commonhold_protocol::{
    AuditStatement, ClaimLeaf, Manifest, NodeId, Unverified, Verified, Verifier,
    ask::{Refusal, Response},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    shard_stream::GroupRange,
};
use commonhold_storage_engine::store::StoreError;

use super::{Holder, blocking, refusal};

impl Holder {
    /// Proves what a steward asks to see. Reads are under the same limits as those of clients.
    pub async fn prove(&self, from: NodeId, challenge: Challenge) -> Response {
        match self.try_prove(from, challenge).await {
            Ok(answer) => Response::Audited(answer),
            Err(refusal) => Response::Refused(refusal),
        }
    }

    async fn try_prove(&self, from: NodeId, challenge: Challenge) -> Result<AuditAnswer, Refusal> {
        self.check_running()?;
        let all: Vec<GroupRange> = challenge.shards.iter().flat_map(|shard| shard.ranges.iter().copied()).collect();
        let _permits = self.limits.read(from, &all).await?;
        let (store, steward) = (self.store.clone(), self.steward.clone());
        let (given_up, giving_up) = (self.given_up.clone(), self.giving_up.clone());
        let hash = challenge.hash();
        let answers = blocking(move || {
            let prove = |shard: &ChallengedShard| {
                let leaf = ClaimLeaf { segment: shard.segment, index: shard.index };
                giving_up.check(&leaf)?;
                if steward.is_dropped(&shard.segment).map_err(|error| error.refusal())? {
                    return Err(Refusal::Dropped);
                }
                match store.read(shard.segment, shard.index, &shard.ranges) {
                    Ok(read) => {
                        let other = other_manifest(read.manifest, shard, steward.verifier())?;
                        Ok(other.unwrap_or(ShardAnswer::Proof(read.encoded.into())))
                    }
                    // A shard of another manifest may be shorter.
                    Err(error @ StoreError::Ranges) => {
                        let first = GroupRange { first: 0, count: 1 };
                        let held = store.read(shard.segment, shard.index, &[first]).map_err(|error| refusal(&error))?;
                        other_manifest(held.manifest, shard, steward.verifier())?.ok_or_else(|| refusal(&error))
                    }
                    Err(error) => Err(given_up.refusal(&leaf, &error)),
                }
            };
            let answer = |shard| prove(shard).unwrap_or_else(ShardAnswer::Refused);
            Ok(challenge.shards.iter().map(answer).collect::<Vec<_>>())
        })
        .await?;
        let statement = AuditStatement {
            holder: NodeId::from_bytes(self.key.public()),
            challenge: hash,
            answers: AuditAnswer::hash(&answers),
        };
        let statement = Verified::sign(statement, &self.key, &self.network).to_unverified();
        if let Some(rate) = &self.upload {
            rate.take(answers.iter().map(answer_bytes).sum()).await;
        }
        Ok(AuditAnswer { answers, statement })
    }
}

fn answer_bytes(answer: &ShardAnswer) -> u64 {
    match answer {
        ShardAnswer::Proof(proof) => proof.len() as u64,
        ShardAnswer::Refused(_) | ShardAnswer::OtherManifest(_) => 0,
    }
}

/// The manifest of the shard that we hold, if it is not the one that the challenge names: the owner signed two. We
/// prove nothing then, since whoever has the other manifest would see a wrong proof with our signature.
fn other_manifest(
    held: Unverified<Manifest>,
    shard: &ChallengedShard,
    verifier: &Verifier,
) -> Result<Option<ShardAnswer>, Refusal> {
    let held = verifier.verify(held).map_err(|_| Refusal::Damaged)?;
    Ok((held.hash() != shard.manifest).then(|| ShardAnswer::OtherManifest(held.to_unverified())))
}
