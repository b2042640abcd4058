//! Which shards are due, the challenges to their holders, and what follows from the answers.

use commonhold_policy::{
    audit::{self, Outcome, Sample, containment},
    life,
};
use commonhold_protocol::{SegmentId, ShardIndex, Timestamp};
use rand::Rng;

use super::{
    Auditor, Done, Evidence, NodeNumber, TimerOf, WardNumber,
    challenges::{self, Asked},
    evidence,
};

/// A claim is audited for the first time within this.
const FIRST_AUDIT_MS_MAX: u64 = 60 * 60 * 1000;
/// Shards that are drawn for one holder at a time: a few challenges.
const DRAWN_AT_ONCE: usize = 4 * audit::CHALLENGE_MAX;

impl Auditor {
    /// An epoch begins: what is due in it?
    pub(super) fn epoch(&mut self) {
        self.forget_the_lost();
        let now = self.now();
        let epoch = self.schedule.epoch(now);
        let due =
            self.wards.iter().filter(|(_, segment, ward)| self.schedule.is_due(segment, ward.stewards.into(), epoch));
        for (number, _, ward) in due {
            for claim in ward.health.claims() {
                if let Some(holder) = self.holders.get_mut(claim.node) {
                    holder.due.push((number, claim.index));
                }
            }
        }
        let waiting = self.holders.iter().filter(|(_, _, holder)| !holder.due.is_empty());
        let moments: Vec<(Timestamp, NodeNumber)> =
            waiting.map(|(number, node, _)| (self.schedule.moment(node, epoch).max(now), number)).collect();
        for (at, node) in moments {
            self.wake(at, TimerOf::Moment(node));
        }
        let epoch_ms = self.schedule.rate().epoch_ms();
        self.wake(Timestamp((epoch + 1).saturating_mul(epoch_ms)), TimerOf::Epoch);
    }

    /// A claim that this steward has not audited yet.
    pub(super) fn audit_soon(&mut self, node: NodeNumber, ward: WardNumber, index: ShardIndex) {
        let now = self.now();
        let within = FIRST_AUDIT_MS_MAX.min(self.schedule.rate().epoch_ms() / 2).max(1);
        let Some(holder) = self.holders.get_mut(node) else { return };
        holder.due.push((ward, index));
        if !holder.moment_set {
            holder.moment_set = true;
            // All that comes until then shares its challenges.
            let at = now.after_ms(rand::rng().random_range(within / 4..=within));
            self.wake(at, TimerOf::Moment(node));
        }
    }

    /// The moment has come to challenge a holder for what is due of it.
    pub(super) fn moment(&mut self, node: NodeNumber) {
        let Some(holder) = self.holders.get_mut(node) else { return };
        holder.moment_set = false;
        holder.ready.append(&mut holder.due);
        holder.ready.sort_unstable();
        holder.ready.dedup();
        self.challenge(node);
    }

    /// All that a holder claims is due, now.
    pub(super) fn review(&mut self, node: NodeNumber) {
        let Some(holder) = self.holders.get(node) else { return };
        let wards = holder.wards.iter().filter_map(|ward| Some((*ward, self.wards.get(*ward)?)));
        let due: Vec<(WardNumber, ShardIndex)> =
            wards.flat_map(|(number, ward)| ward.claims_of(node).map(move |index| (number, index))).collect();
        if let Some(holder) = self.holders.get_mut(node) {
            holder.due = due;
        }
        self.moment(node);
    }

    /// Draws from what is due, if the holder has answered for all that it was asked for.
    fn challenge(&mut self, node: NodeNumber) {
        let Some(holder) = self.holders.get_mut(node).filter(|holder| holder.containment.is_idle()) else { return };
        let rest = holder.ready.len().saturating_sub(DRAWN_AT_ONCE);
        let drawn = holder.ready.split_off(rest);
        let groups = self.schedule.rate().groups(holder.wards.len() as u64);
        let mut rng = rand::rng();
        let samples: Vec<Sample> = drawn
            .into_iter()
            .filter_map(|(number, index)| {
                let ward = self.wards.get(number)?;
                // It may have been released, or may have made room for another, since it became due.
                ward.claims_of(node).find(|claimed| *claimed == index)?;
                let segment = self.wards.key(number)?;
                Some(audit::schedule::samples(&mut rng, segment, index, ward.shard_length, groups))
            })
            .flatten()
            .collect();
        if !samples.is_empty() {
            self.contain(node, containment::Event::Due(samples));
        } else if rest > 0 {
            self.challenge(node);
        }
    }

    /// Feeds a holder's containment, and does what it says.
    pub(super) fn contain(&mut self, node: NodeNumber, event: containment::Event) {
        let now = self.now();
        let Some(holder) = self.holders.get_mut(node) else { return };
        for action in holder.containment.handle(now, event) {
            match action {
                containment::Action::Ask { samples, asked_before } => self.ask(node, samples, asked_before),
                containment::Action::Verdict { segment, index, outcome } => self.verdict(node, segment, index, outcome),
                containment::Action::Unreachable => {
                    self.parts.figures.outcome(Outcome::Unreachable);
                    self.live(node, life::Event::Silent);
                }
                containment::Action::Review => self.review(node),
                containment::Action::Timer { at } => {
                    if let Some(holder) = self.holders.get_mut(node) {
                        holder.challenge_due = Some(at);
                    }
                    self.wake(at, TimerOf::Challenge(node));
                }
            }
        }
        if self.holders.get(node).is_some_and(|holder| holder.containment.is_idle() && !holder.ready.is_empty()) {
            self.challenge(node);
        }
    }

    /// An audit of a shard has ended.
    pub(super) fn verdict(&mut self, number: NodeNumber, segment: SegmentId, index: ShardIndex, outcome: Outcome) {
        self.parts.figures.outcome(outcome);
        let Some(node) = self.holders.key(number) else { return };
        if outcome != Outcome::Held {
            tracing::warn!(%node, %segment, %index, ?outcome, "a holder failed an audit");
        }
        let disqualified = self.holders.get_mut(number).is_some_and(|holder| holder.reputation.count(outcome));
        if let Some(ward) = self.wards.number(&segment)
            && self.wards.get_mut(ward).is_some_and(|ward| ward.health.audited(index, number, outcome))
        {
            self.assess(&[ward]);
        }
        if disqualified {
            tracing::warn!(%node, "a holder is trusted with nothing more");
            self.each_ward_of(number, |health| health.lost(number));
        }
    }

    /// Sends a challenge.
    fn ask(&mut self, number: NodeNumber, samples: Vec<Sample>, asked_before: u32) {
        let Some(node) = self.holders.key(number) else { return };
        let round_trip = self.holders.get(number).map_or(challenges::ROUND_TRIP_FIRST, |holder| holder.round_trip);
        let (parts, done) = (&self.parts, self.done.clone());
        let asking = challenges::Asking {
            peer: parts.peer.clone(),
            network: parts.network.clone(),
            steward: parts.steward.clone(),
            holder: node,
            own: (node == self.own).then(|| parts.holder.clone()),
            asked_before,
            round_trip,
        };
        parts.figures.challenge();
        parts.tasks.spawn(async move {
            let asked = asking.ask(samples).await;
            let _ = done.send(Done::Challenged(number, asked)).await;
        });
    }

    pub(super) fn challenged(&mut self, node: NodeNumber, asked: Asked) {
        match asked {
            Asked::Answered { answers, evidence, round_trip } => {
                if let Some(holder) = self.holders.get_mut(node) {
                    holder.round_trip = (holder.round_trip * 3 + round_trip) / 4;
                }
                if let Some(evidence) = evidence {
                    self.keep_evidence(node, *evidence);
                }
                self.live(node, life::Event::Seen);
                self.contain(node, containment::Event::Answered(answers));
            }
            Asked::Unanswered => {
                let id = self.holders.key(node);
                let connected = self.parts.peer.connected().iter().any(|(peer, _)| Some(*peer) == id);
                self.contain(node, containment::Event::Unanswered { connected });
            }
            Asked::Gone(segments) => {
                for segment in segments {
                    self.forget(&segment);
                }
                // What is left is asked for again.
                self.contain(node, containment::Event::Answered(Vec::new()));
            }
        }
    }

    fn keep_evidence(&self, node: NodeNumber, found: Evidence) {
        let Some(node) = self.holders.key(node) else { return };
        let folder = self.parts.folder.clone();
        self.parts.tasks.spawn_blocking(move || {
            if let Err(error) = evidence::keep(&folder, node, &found) {
                tracing::warn!(%error, folder = %folder.display(), "evidence cannot be kept");
            }
        });
    }
}
