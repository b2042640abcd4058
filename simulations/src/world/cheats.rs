//! Shards that are not what their holders claim, and when audits find that: drawn from the law that the auditor follows.

use std::collections::BTreeMap;

use commonhold_policy::{
    audit::{
        CHALLENGE_MAX, Outcome,
        detection::{self, DetectionParams},
        schedule,
    },
    detection_delay,
    segment_health::{ClaimState, Claimed},
    stewards::STEWARDS,
};
use commonhold_protocol::ShardIndex;
use rand::Rng;

use super::{GONE, Held, LIAR, What, World};
use crate::scenario::{Answers, Cheat};

/// What is remembered of cheats, to say how long they went unnoticed.
#[derive(Debug, Default)]
pub(super) struct Cheats {
    /// When each took its first shard; none once it was found out.
    since: BTreeMap<u32, Option<u64>>,
    /// When each shard was taken: by node, segment and index.
    taken: BTreeMap<(u32, u32, u8), u64>,
}

impl World<'_> {
    /// Draws when each shard is found that a cheat holds at the start.
    pub(super) fn draw_detections(&mut self) {
        self.is_placed = true;
        for place in 0..self.members.len() {
            let node = self.members[place];
            if let Some(Cheat::Drop { .. }) = self.population(node).cheat {
                for held in self.held(node) {
                    self.draw_detection(held.segment, held.index, node);
                }
            }
        }
    }

    /// Draws when it is found that a shard is not what it should be, if its holder cheats and audits can find it.
    pub(super) fn draw_detection(&mut self, segment: u32, index: u8, node: u32) {
        if self.nodes.flags[node as usize] & LIAR == 0 {
            return;
        }
        let Some(Cheat::Drop { lost, answers }) = self.population(node).cheat else { return };
        self.cheats.since.entry(node).or_insert(Some(self.now));
        self.cheats.taken.insert((node, segment, index), self.now);
        if let Some(delay) = self.asked_after(node, lost.0) {
            self.queue.push(self.later(delay + self.contained_ms(answers)), What::CheatFound { segment, node, index });
        }
    }

    /// Milliseconds from being asked for what it lacks to the verdict.
    fn contained_ms(&self, answers: Answers) -> f64 {
        if answers == Answers::Wrong { 0.0 } else { detection::contained_ms(self.rate) as f64 }
    }

    /// Milliseconds until the first of a shard's eight stewards asks for what its holder lacks, none if none ever does. What
    /// each of them knows of this holder besides is found in the review that follows.
    fn asked_after(&mut self, node: u32, lost: f64) -> Option<f64> {
        let params = DetectionParams {
            rate: self.rate,
            stewards: STEWARDS,
            shards: 1,
            auditors: STEWARDS as u64,
            groups_asked: self.rate.groups(self.nodes.disk[node as usize].held.len().into()),
            shard_groups: schedule::shard_groups(self.shard_bytes),
            lost,
            contained_ms: 0,
        };
        detection_delay(&mut self.rng, &params).map(|delay| delay.as_millis() as f64)
    }

    /// An audit has found that a shard is not what it should be: the steward makes all due that it knows of the holder.
    pub(super) fn cheat_found(&mut self, segment: u32, node: u32, index: u8) {
        let at = node as usize;
        let Some(steward) = self.finder(segment, node) else { return };
        if self.nodes.flags[at] & GONE != 0 || !self.is_found(steward, segment, node, index) {
            return;
        }
        if let Some(Cheat::Drop { answers, .. }) = self.population(node).cheat {
            self.queue.push(self.later(self.contained_ms(answers)), What::Reviewed { steward, node });
        }
    }

    /// A steward has asked a holder for all that it knows of it, and judges what it answered.
    pub(super) fn reviewed(&mut self, steward: u32, node: u32) {
        let Some(Cheat::Drop { answers, .. }) = self.population(node).cheat else { return };
        if (self.nodes.flags[node as usize] | self.nodes.flags[steward as usize]) & GONE != 0 {
            return;
        }
        let asked: Vec<Held> =
            self.held(node).into_iter().filter(|shard| self.is_asked(steward, node, shard)).collect();
        let finds = self.failure_chance(node);
        let groups = self.rate.groups(self.nodes.disk[node as usize].held.len().into());
        let groups = groups.min(schedule::shard_groups(self.shard_bytes)) as usize;
        // They are repeated one after the other; here, together.
        for challenge in asked.chunks((CHALLENGE_MAX / groups.max(1)).max(1)) {
            let lacks: Vec<bool> = challenge.iter().map(|_| self.rng.random_bool(finds)).collect();
            let all_fail = answers == Answers::Nothing && lacks.contains(&true);
            let mut failed: Vec<Held> =
                challenge.iter().zip(lacks).filter(|(_, lacks)| *lacks || all_fail).map(|(shard, _)| *shard).collect();
            // All that one answer says is judged before it has any consequence.
            failed.retain(|shard| self.fails(shard.segment, node, shard.index));
            for shard in failed {
                self.follow_up(steward, shard.segment, node);
            }
        }
    }

    /// Whether a steward looks after a shard, and has not found out yet that its holder does not have it.
    fn is_asked(&self, steward: u32, node: u32, shard: &Held) -> bool {
        let stands = |claim: &Claimed<u32>| {
            claim.node == node && claim.index.0 == shard.index && claim.state != ClaimState::Failed
        };
        self.segments[shard.segment as usize].health.claims().iter().any(stands)
            && self.stewards(shard.segment).contains(&steward)
    }

    /// Whether a node sends something else for what it lacks: whoever reads a whole shard notices. One that refuses is just
    /// not read from.
    pub(super) fn sends_wrong(&self, node: u32) -> bool {
        matches!(self.population(node).cheat, Some(Cheat::Drop { answers: Answers::Wrong, .. }))
    }

    /// The chance that a cheat fails an audit of one of its shards.
    fn failure_chance(&self, node: u32) -> f64 {
        let Some(Cheat::Drop { lost, .. }) = self.population(node).cheat else { return 0.0 };
        let asked = self.rate.groups(self.nodes.disk[node as usize].held.len().into());
        detection::detection_chance(lost.0, u64::from(asked))
    }

    /// Counts a shard as lost, by what a steward found; false if it was already, or is held no more.
    pub(super) fn is_found(&mut self, steward: u32, segment: u32, node: u32, index: u8) -> bool {
        let fails = self.fails(segment, node, index);
        if fails {
            self.follow_up(steward, segment, node);
        }
        fails
    }

    fn fails(&mut self, segment: u32, node: u32, index: u8) -> bool {
        let health = &mut self.segments[segment as usize].health;
        if self.truth[segment as usize].lost || !health.audited(ShardIndex(index), node, Outcome::Refused) {
            return false;
        }
        self.tally.cheats_found += 1;
        if let Some(since) = self.cheats.since.get_mut(&node).and_then(Option::take) {
            self.tally.cheats_first_found.push((self.now - since) as f32);
        }
        if let Some(taken) = self.cheats.taken.remove(&(node, segment, index)) {
            self.tally.cheat_delays.push((self.now - taken) as f32);
        }
        true
    }

    /// What follows from a shard's being found.
    fn follow_up(&mut self, steward: u32, segment: u32, node: u32) {
        self.watch(segment);
        self.counts_against(steward, node);
        self.others_find(steward, segment, node);
        self.assess(segment);
    }

    /// The other stewards go on to audit what one has found, each by itself: one of eight takes eight times as long as the
    /// first of them.
    fn others_find(&mut self, finder: u32, segment: u32, node: u32) {
        let Some(Cheat::Drop { lost, answers }) = self.population(node).cheat else { return };
        for steward in self.stewards(segment).into_iter().filter(|steward| ![finder, node].contains(steward)) {
            if let Some(delay) = self.asked_after(node, lost.0) {
                let delay = delay * STEWARDS as f64 + self.contained_ms(answers);
                self.queue.push(self.later(delay), What::AlsoFound { steward, node });
            }
        }
    }

    /// A steward has found what another had found before.
    pub(super) fn also_found(&mut self, steward: u32, node: u32) {
        if (self.nodes.flags[node as usize] | self.nodes.flags[steward as usize]) & GONE == 0 {
            self.counts_against(steward, node);
        }
    }

    fn counts_against(&mut self, steward: u32, node: u32) {
        self.count_failure(steward, node, 1.0 - self.failure_chance(node));
    }
}
