//! Answers audits: the groups that are asked for with their proofs, and our signature that this is our answer.

use bytes::Bytes;
use commonhold_protocol::{
    AuditStatement, NodeId, Verified,
    ask::{Refusal, Response},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    shard_stream::GroupRange,
};

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
        let hash = challenge.hash();
        let answers = blocking(move || {
            let prove = |shard: &ChallengedShard| {
                if steward.is_dropped(&shard.segment).map_err(|error| error.refusal())? {
                    return Err(Refusal::Dropped);
                }
                let read = store.read(shard.segment, shard.index, &shard.ranges);
                read.map(|read| Bytes::from(read.encoded)).map_err(|error| refusal(&error))
            };
            let answer = |shard| prove(shard).map_or_else(ShardAnswer::Refused, ShardAnswer::Proof);
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
        ShardAnswer::Refused(_) => 0,
    }
}
