//! Challenges over the wire: asks a holder, checks its signature and every proof, and keeps what convicts it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_network::Peer;
use commonhold_policy::audit::{Answer, Sample, deadline::deadline_ms};
use commonhold_protocol::{
    Manifest, NetworkName, NodeId, Verified,
    ask::{Request, Response},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    shard_stream::{GROUP_BYTES, GroupRange},
};
use commonhold_storage_engine::prove::decode_ranges;

use crate::holder::Holder;

/// Where nothing is known of a link yet.
pub(super) const ROUND_TRIP_FIRST: Duration = Duration::from_millis(300);
/// A group and the path to it.
const BYTES_PER_GROUP: u64 = GROUP_BYTES + 11 * 64;

/// What came of a challenge.
pub(super) enum Asked {
    /// The holder answered; one answer for each sample.
    Answered {
        answers: Vec<Answer>,
        /// The challenge and the signed answer, if part of it is wrong.
        evidence: Option<Box<Evidence>>,
        round_trip: Duration,
    },
    /// It did not, in time or at all.
    Unanswered,
}

/// A signed answer that is wrong: whoever has the manifest's owner-signed roots can see that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What was asked.
    pub challenge: Challenge,
    /// What was answered.
    pub answer: AuditAnswer,
    /// The manifests of the challenged shards, in their order.
    pub manifests: Vec<commonhold_protocol::Unverified<Manifest>>,
}

impl Evidence {
    /// Checks it from nothing but itself: the holder whom it convicts, if it does.
    pub fn convicts(&self, network: &NetworkName) -> Option<NodeId> {
        let holder = signer(&self.challenge, &self.answer, network)?;
        let answers = self.answer.answers.iter();
        let mut shards = self.challenge.shards.iter().zip(answers).zip(&self.manifests);
        let wrong = shards.any(|((shard, answer), manifest)| {
            let Ok(manifest) = manifest.clone().verify(network) else { return false };
            manifest.id() == shard.segment && judge(shard, &manifest, answer) == Answer::Wrong
        });
        wrong.then_some(holder)
    }
}

/// Asks `holder` (ourselves, if `own` is given) for these samples, whose manifests are given in their order.
pub(super) async fn ask(
    peer: Peer,
    network: NetworkName,
    holder: NodeId,
    own: Option<Arc<Holder>>,
    samples: Vec<(Sample, Arc<Verified<Manifest>>)>,
    asked_before: u32,
    round_trip: Duration,
) -> Asked {
    let shards = samples.iter().map(|(sample, _)| ChallengedShard {
        segment: sample.segment,
        index: sample.index,
        ranges: runs(&sample.groups),
    });
    let challenge = Challenge { nonce: rand::random(), shards: shards.collect() };
    let bytes = challenge.groups() * BYTES_PER_GROUP;
    let round_trip_ms = u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX);
    let patience = Duration::from_millis(deadline_ms(round_trip_ms, bytes, asked_before));
    let began = Instant::now();
    let asked = match own {
        Some(own) => Ok(own.prove(holder, challenge.clone()).await),
        None => peer.ask(holder, Request::Audit(challenge.clone()), patience).await,
    };
    let answer = match asked {
        Ok(Response::Audited(answer)) => answer,
        Ok(Response::Refused(refusal)) => {
            // Unsigned, so nobody else's evidence; for us it is an answer all the same.
            let answers = vec![Answer::Refused(refusal); samples.len()];
            return Asked::Answered { answers, evidence: None, round_trip: began.elapsed() };
        }
        Ok(_) => return Asked::Answered { answers: Vec::new(), evidence: None, round_trip: began.elapsed() },
        Err(error) => {
            tracing::debug!(%error, %holder, "a challenge was not answered");
            return Asked::Unanswered;
        }
    };
    let round_trip = began.elapsed();
    let manifests: Vec<Arc<Verified<Manifest>>> = samples.into_iter().map(|(_, manifest)| manifest).collect();
    let check = move || {
        // Someone else's signature, or one over another answer, is no answer.
        if signer(&challenge, &answer, &network) != Some(holder) {
            return (Vec::new(), None);
        }
        let shards = challenge.shards.iter().zip(&answer.answers).zip(&manifests);
        let answers: Vec<Answer> = shards.map(|((shard, answer), manifest)| judge(shard, manifest, answer)).collect();
        let wrong = answers.contains(&Answer::Wrong);
        let manifests = manifests.iter().map(|manifest| manifest.to_unverified()).collect();
        let evidence = wrong.then_some(Evidence { challenge, answer, manifests });
        (answers, evidence)
    };
    match tokio::task::spawn_blocking(check).await {
        Ok((answers, evidence)) => Asked::Answered { answers, evidence: evidence.map(Box::new), round_trip },
        Err(_) => Asked::Unanswered,
    }
}

/// Who signed this answer to this challenge.
fn signer(challenge: &Challenge, answer: &AuditAnswer, network: &NetworkName) -> Option<NodeId> {
    let statement = answer.statement.clone().verify(network).ok()?;
    let fits = statement.challenge == challenge.hash() && statement.answers == AuditAnswer::hash(&answer.answers);
    fits.then_some(statement.holder)
}

fn judge(shard: &ChallengedShard, manifest: &Manifest, answer: &ShardAnswer) -> Answer {
    let proof = match answer {
        ShardAnswer::Proof(proof) => proof,
        ShardAnswer::Refused(refusal) => return Answer::Refused(*refusal),
    };
    let Some(root) = manifest.root(shard.index) else { return Answer::Missing };
    match decode_ranges(root, manifest.shard_length(), &shard.ranges, proof) {
        Ok(_) => Answer::Held,
        Err(_) => Answer::Wrong,
    }
}

/// Ascending groups as runs.
fn runs(groups: &[u32]) -> Vec<GroupRange> {
    let mut runs: Vec<GroupRange> = Vec::new();
    for group in groups {
        match runs.last_mut() {
            Some(run) if run.first + run.count == *group => run.count += 1,
            _ => runs.push(GroupRange { first: *group, count: 1 }),
        }
    }
    runs
}
