//! Challenges over the wire: asks a holder, checks its signature and every proof, and keeps what convicts it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_network::Peer;
use commonhold_policy::audit::{
    Answer, Sample,
    deadline::deadline_ms,
    schedule::{proven_group_bytes, samples},
};
use commonhold_protocol::{
    Manifest, NetworkName, NodeId, SegmentId, ShardIndex, Verified,
    ask::{Request, Response},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    manifest::SEGMENT_BYTES_MAX,
    shard_stream::GroupRange,
};
use commonhold_storage_engine::prove::decode_ranges;
use tokio::sync::Semaphore;

use crate::{holder::Holder, leases, steward::Steward};

/// Where nothing is known of a link yet.
pub(super) const ROUND_TRIP_FIRST: Duration = Duration::from_millis(300);
/// Who takes longer is given no more time for it.
pub(super) const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);
/// Of an answer, at most: as if the shards were as long as they can be.
fn answer_bytes(challenge: &Challenge) -> u64 {
    challenge.groups() * proven_group_bytes(SEGMENT_BYTES_MAX)
}

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
    /// It was not asked: no record is kept any more of these segments.
    Gone(Vec<SegmentId>),
}

/// A signed answer that is wrong: whoever has the owner-signed manifest that the challenge names can see that.
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
            let named = manifest.id() == shard.segment && manifest.hash() == shard.manifest;
            named && judge(shard, &manifest, answer, network) == Answer::Wrong
        });
        wrong.then_some(holder)
    }
}

/// Challenges that are out at once, to all holders together: the answers to so many are some megabytes, which a home's
/// link takes in within their deadlines. As many more are being prepared.
const AT_ONCE: usize = 32;

/// Whose challenge is next.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    prepared: Arc<Semaphore>,
    out: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let [prepared, out] = [(), ()].map(|()| Arc::new(Semaphore::new(AT_ONCE)));
        Self { prepared, out }
    }
}

/// Who is asked, and how.
pub(super) struct Asking {
    pub(super) peer: Peer,
    pub(super) network: NetworkName,
    /// Keeps the manifests.
    pub(super) steward: Arc<Steward>,
    pub(super) holder: NodeId,
    /// Our own shards, if it is ourselves that are asked.
    pub(super) own: Option<Arc<Holder>>,
    pub(super) asked_before: u32,
    pub(super) round_trip: Duration,
}

impl Asking {
    /// Challenges the holder for these, when there is a turn: its time begins with that.
    pub(super) async fn ask(self, samples: Vec<Sample>, turns: Turns) -> Asked {
        let prepared = turns.prepared.acquire_owned().await;
        let steward = self.steward.clone();
        let read = tokio::task::spawn_blocking(move || {
            let known = |sample: Sample| match steward.manifest(&sample.segment) {
                Some(manifest) => Ok((sample, manifest)),
                None => Err(sample.segment),
            };
            samples.into_iter().map(known).collect::<Vec<_>>()
        });
        let Ok(read) = read.await else { return Asked::Unanswered };
        let gone: Vec<SegmentId> = read.iter().filter_map(|read| read.as_ref().err().copied()).collect();
        if !gone.is_empty() {
            return Asked::Gone(gone);
        }
        let (samples, manifests): (Vec<Sample>, Vec<Verified<Manifest>>) = read.into_iter().flatten().unzip();
        let shards = samples.iter().zip(&manifests).map(|(sample, manifest)| ChallengedShard {
            segment: sample.segment,
            index: sample.index,
            manifest: manifest.hash(),
            ranges: runs(&sample.groups),
        });
        let challenge = Challenge { nonce: rand::random(), shards: shards.collect() };
        if self.own.is_none() {
            let vaults = manifests.iter().map(|manifest| manifest.vault).collect();
            leases::carry(&self.peer, &self.steward, self.holder, vaults).await;
        }
        let _out = turns.out.acquire_owned().await;
        drop(prepared);
        self.send(challenge, manifests).await
    }

    async fn send(self, challenge: Challenge, manifests: Vec<Verified<Manifest>>) -> Asked {
        let bytes = answer_bytes(&challenge);
        let round_trip_ms = u64::try_from(self.round_trip.as_millis()).unwrap_or(u64::MAX);
        let patience = Duration::from_millis(deadline_ms(round_trip_ms, bytes, self.asked_before));
        let (holder, network) = (self.holder, self.network);
        let began = Instant::now();
        let asked = match self.own {
            Some(own) => Ok(own.prove(holder, challenge.clone()).await),
            None => self.peer.ask(holder, Request::Audit(challenge.clone()), patience).await,
        };
        let round_trip = began.elapsed();
        let answer = match asked {
            Ok(Response::Audited(answer)) => answer,
            Ok(Response::Refused(refusal)) => {
                // Unsigned, so nobody else's evidence; for us it is an answer all the same.
                let answers = vec![Answer::Refused(refusal); challenge.shards.len()];
                return Asked::Answered { answers, evidence: None, round_trip };
            }
            Ok(_) => return Asked::Answered { answers: Vec::new(), evidence: None, round_trip },
            Err(error) => {
                tracing::debug!(%error, %holder, "a challenge was not answered");
                return Asked::Unanswered;
            }
        };
        match tokio::task::spawn_blocking(move || check(challenge, answer, &manifests, holder, &network)).await {
            Ok((answers, evidence)) => Asked::Answered { answers, evidence: evidence.map(Box::new), round_trip },
            Err(_) => Asked::Unanswered,
        }
    }
}

/// Groups that a holder is asked for before it is believed that it keeps a shard that we give up.
const PROVED_GROUPS: u32 = 8;

/// Whether a node proves, now and to us, that it holds a shard.
pub(crate) async fn proves(
    peer: &Peer,
    network: &NetworkName,
    manifest: &Verified<Manifest>,
    index: ShardIndex,
    holder: NodeId,
) -> bool {
    let drawn = samples(&mut rand::rng(), manifest.id(), index, manifest.shard_length(), PROVED_GROUPS);
    let shards = drawn.iter().map(|sample| ChallengedShard {
        segment: sample.segment,
        index,
        manifest: manifest.hash(),
        ranges: runs(&sample.groups),
    });
    let challenge = Challenge { nonce: rand::random(), shards: shards.collect() };
    let round_trip_ms = u64::try_from(ROUND_TRIP_FIRST.as_millis()).unwrap_or(u64::MAX);
    let patience = Duration::from_millis(deadline_ms(round_trip_ms, answer_bytes(&challenge), 0));
    let Ok(Response::Audited(answer)) = peer.ask(holder, Request::Audit(challenge.clone()), patience).await else {
        return false;
    };
    let (manifests, network) = (vec![manifest.clone(); challenge.shards.len()], network.clone());
    let checked = tokio::task::spawn_blocking(move || check(challenge, answer, &manifests, holder, &network).0).await;
    checked.is_ok_and(|answers| !answers.is_empty() && answers.iter().all(|answer| *answer == Answer::Held))
}

/// What a signed answer says of each challenged shard, and what convicts the holder if one is wrong.
fn check(
    challenge: Challenge,
    answer: AuditAnswer,
    manifests: &[Verified<Manifest>],
    holder: NodeId,
    network: &NetworkName,
) -> (Vec<Answer>, Option<Evidence>) {
    // Someone else's signature, or one over another answer, is no answer.
    if signer(&challenge, &answer, network) != Some(holder) {
        return (Vec::new(), None);
    }
    let shards = challenge.shards.iter().zip(&answer.answers).zip(manifests);
    let judged = shards.map(|((shard, answer), manifest)| judge(shard, manifest, answer, network));
    let answers: Vec<Answer> = judged.collect();
    let wrong = answers.contains(&Answer::Wrong);
    let manifests = manifests.iter().map(Verified::to_unverified).collect();
    let evidence = wrong.then_some(Evidence { challenge, answer, manifests });
    (answers, evidence)
}

/// Who signed this answer to this challenge.
fn signer(challenge: &Challenge, answer: &AuditAnswer, network: &NetworkName) -> Option<NodeId> {
    let statement = answer.statement.clone().verify(network).ok()?;
    let fits = statement.challenge == challenge.hash() && statement.answers == AuditAnswer::hash(&answer.answers);
    fits.then_some(statement.holder)
}

/// `manifest` is the one that the challenge names.
fn judge(shard: &ChallengedShard, manifest: &Manifest, answer: &ShardAnswer, network: &NetworkName) -> Answer {
    let proof = match answer {
        ShardAnswer::Proof(proof) => proof,
        ShardAnswer::Refused(refusal) => return Answer::Refused(*refusal),
        ShardAnswer::OtherManifest(other) => {
            let other = other.clone().verify(network);
            let is_other = other.is_ok_and(|other| other.id() == shard.segment && other.hash() != shard.manifest);
            // A holder shows what it has checked, so anything else is a lie.
            return if is_other { Answer::Contradicted } else { Answer::Wrong };
        }
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

#[cfg(test)]
mod tests;
