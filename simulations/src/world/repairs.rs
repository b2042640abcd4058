//! Segments are placed and repaired, by `policy`'s plans.

use commonhold_policy::{
    Standing,
    audit::Outcome,
    placement::{self, Candidate, Place},
    repair::{
        self, Decision, Room,
        order::{Action, Event, RepairOrder},
        plan::{self, Helper, RepairPlan},
    },
    reputation::Trust,
    segment_health::{ClaimState, Claimed, Counters, SegmentHealth, ShardState, Source},
    surplus,
};
use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp};

use super::{GONE, Held, NOBODY, Segment, Truth, Watched, What, World, own_domain};
use crate::memory::prefetch;

/// So many candidates are looked at for each shard that is missing, and some more: what a node finds by walking a few
/// random keys.
const HELPERS_EACH: usize = 2;
const HELPERS_MORE: usize = 4;

impl World<'_> {
    /// A new segment, placed by policy.
    pub(super) fn place_segment(&mut self) {
        let segment = self.segments.len() as u32;
        let mut nodes = self.sample_online(placement::CANDIDATES.into());
        // Policy goes by them in order, and finds them in order faster than it sorts them.
        nodes.sort_unstable();
        let candidates: Vec<Candidate<u32, u32>> = nodes.iter().map(|node| self.candidate(*node)).collect();
        let placed = placement::plan(&mut self.rng, self.aim.coding, self.shard_bytes, &candidates);
        let slots = placed.map(|plan| plan.slots).unwrap_or_default();
        self.tally.unplaced += u64::from(slots.is_empty());
        // The stewards audit each of them at once.
        let claimed = |(index, place): (ShardIndex, Place<u32, u32>)| Claimed {
            index,
            state: ClaimState::Healthy,
            node: place.node,
        };
        let claims: Vec<Claimed<u32>> = slots.into_iter().map(claimed).collect();
        let unplaced = claims.is_empty();
        let real = claims.iter().filter(|claim| self.is_real(claim.node)).count() as u8;
        self.segments.push(Segment {
            health: SegmentHealth::restore(self.aim.coding, claims),
            order: RepairOrder::new(self.times),
            repair: 0,
            steward: NOBODY,
        });
        self.truth.push(Truth { alive: real, lost: unplaced, doubled: false });
        self.placed_at.push(self.now);
        if self.is_watched(segment) {
            self.watched.push(Watched::default());
        }
        for at in 0..self.segments[segment as usize].health.claims().len() {
            let claim = self.segments[segment as usize].health.claims()[at];
            self.store(segment, claim.index, claim.node);
        }
        if real < self.aim.coding.k() && !unplaced {
            self.segment_lost(segment);
        } else if !unplaced {
            self.assess(segment);
        }
    }

    /// A node takes a shard, or says so.
    fn store(&mut self, segment: u32, index: ShardIndex, node: u32) {
        let at = node as usize;
        let disk = &mut self.nodes.disk[at];
        self.pool.push(&mut disk.held, Held { segment, index: index.0 });
        disk.free_bytes = disk.free_bytes.saturating_sub(self.shard_bytes);
        // Those of the start are drawn when all are placed: how much is asked depends on how much is held.
        if self.is_placed {
            self.draw_detection(segment, index.0, node);
        }
    }

    fn candidate(&self, node: u32) -> Candidate<u32, u32> {
        Candidate {
            node,
            domain: self.domain(node),
            free_bytes: self.nodes.disk[node as usize].free_bytes,
            standing: Standing::KnownGood,
        }
    }

    /// Up to `count` different nodes that are on, at random; all of them if there are hardly more.
    fn sample_online(&mut self, count: usize) -> Vec<u32> {
        let members = self.members.len();
        if members <= 3 * count {
            return self.members.iter().copied().filter(|node| self.is_online(*node)).collect();
        }
        let mut sampled: Vec<u32> = Vec::with_capacity(count);
        // In a network that sleeps, most that are drawn are off.
        for _ in 0..20 * count {
            let node = self.draw();
            // To the end, several at a time, is faster than up to the first.
            let is_sampled = sampled.iter().fold(false, |found, other| found | (*other == node));
            if self.is_online(node) && !is_sampled {
                sampled.push(node);
            }
            if sampled.len() == count {
                break;
            }
        }
        sampled
    }

    /// Any member.
    fn draw(&mut self) -> u32 {
        let (members, nodes) = (&self.members, &self.nodes);
        let fetch_node = |place| {
            let node = members[place as usize] as usize;
            prefetch(&nodes.flags[node]);
            prefetch(&nodes.disk[node]);
        };
        let fetch_place = |place| prefetch(&members[place as usize]);
        members[self.draws.next(&mut self.rng, members.len(), fetch_place, fetch_node) as usize]
    }

    /// Whom a steward could give a shard to.
    fn helpers(&mut self, steward: u32, missing: usize) -> Vec<Helper<u32, u32>> {
        let nodes = self.sample_online(missing * HELPERS_EACH + HELPERS_MORE);
        let helper = |node| Helper { candidate: self.candidate(node), trust: self.trust(steward, node) };
        nodes.into_iter().map(helper).collect()
    }

    fn decide(&mut self, steward: u32, segment: u32) -> Decision {
        let counters = self.segments[segment as usize].health.counters();
        let n = usize::from(self.aim.coding.n());
        let room = if self.ample || usize::from(counters.standing()) >= n {
            // More than n changes nothing.
            Room { nodes: n, domains: n }
        } else {
            let helpers = self.helpers(steward, self.members.len());
            let health = &self.segments[segment as usize].health;
            plan::room(health, self.shard_bytes, &helpers, |node| Some(self.domain(*node)))
        };
        repair::decide(self.aim, counters, room)
    }

    /// The counters of a segment have changed.
    pub(super) fn assess(&mut self, segment: u32) {
        if self.truth[segment as usize].lost {
            return;
        }
        let (rank, steward) = self.acting_steward(segment);
        // A time that is given is all that a repair takes, head starts too.
        let rank = if self.scenario.repair.time.is_some() { 0 } else { rank };
        let decision = self.decide(steward, segment);
        if matches!(decision, Decision::Resting { .. }) {
            self.resting.insert(segment);
        } else if !self.ample {
            self.resting.remove(&segment);
        }
        self.order(segment, Event::Assessed { decision, rank });
    }

    /// There may be room now, at `node`, for segments that rest below n: not for those that have a shard in its domain
    /// already, unless they are so thin that a second one there is better than none.
    pub(super) fn room_grew(&mut self, node: u32) {
        if self.resting.is_empty() {
            return;
        }
        let domain = self.domain(node);
        let may_use = |segment: &u32| {
            let health = &self.segments[*segment as usize].health;
            let holds = |claim: &Claimed<u32>| claim.state.stands() && self.domain(claim.node) == domain;
            self.aim.is_thin(health.counters()) || !health.claims().iter().any(holds)
        };
        let waiting: Vec<u32> = self.resting.iter().copied().filter(may_use).collect();
        for segment in waiting {
            self.resting.remove(&segment);
            self.assess(segment);
        }
    }

    pub(super) fn repair_timer(&mut self, segment: u32) {
        let at = segment as usize;
        if self.segments[at].order.due() == Some(self.moment()) && !self.truth[at].lost {
            self.order(segment, Event::Timer);
        }
    }

    /// Tells a segment's order of repair of `event`, and does what it says.
    fn order(&mut self, segment: u32, event: Event) {
        let at = segment as usize;
        let now = self.moment();
        for action in self.segments[at].order.handle(now, event) {
            match action {
                Action::Timer { at } => self.queue.push(at.0, What::RepairTimer { segment }),
                Action::Look { urgent } => self.wait_for_turn(segment, urgent),
                Action::Hurry => {
                    if let Some(duties) = self.duties.get_mut(self.segments[at].steward) {
                        duties.turns.hurry(&segment);
                    }
                }
                Action::Repair => self.begin_repair(segment),
                Action::Stop => {
                    self.segments[at].repair = self.segments[at].repair.wrapping_add(1);
                    self.end_turn(segment);
                }
            }
        }
    }

    fn wait_for_turn(&mut self, segment: u32, urgent: bool) {
        let (_, steward) = self.acting_steward(segment);
        self.segments[segment as usize].steward = steward;
        if !self.is_online(steward) {
            // All eight are off.
            self.order(segment, Event::Failed);
        } else if self.scenario.repair.time.is_some() {
            // A time that is given is all that a repair takes.
            let decision = self.decide(steward, segment);
            self.order(segment, Event::Looked { decision, busy: None });
        } else if self.duties_of(steward).turns.wait(segment, urgent) {
            self.next_turns(steward);
        } else {
            self.order(segment, Event::Failed);
        }
    }

    /// Has a steward do what it has time for. To look costs nothing: all stewards see the same.
    fn next_turns(&mut self, steward: u32) {
        while let Some(segment) = self.duties_of(steward).turns.take_next() {
            let decision = self.decide(steward, segment);
            self.order(segment, Event::Looked { decision, busy: None });
            let state = &mut self.segments[segment as usize];
            if !state.order.is_repairing() {
                state.steward = NOBODY;
                self.duties_of(steward).turns.end(&segment);
            }
        }
    }

    /// A segment neither has a turn any more nor waits for one.
    pub(super) fn end_turn(&mut self, segment: u32) {
        let steward = std::mem::replace(&mut self.segments[segment as usize].steward, NOBODY);
        if let Some(duties) = self.duties.get_mut(steward) {
            duties.turns.leave(&segment);
            if duties.turns.end(&segment) {
                self.next_turns(steward);
            }
        }
    }

    /// A node is off or gone: the next steward of each segment that it was about to repair does that in its place.
    pub(super) fn steward_goes(&mut self, node: u32) {
        for segment in self.duties.drop_turns(node) {
            let segment_state = &mut self.segments[segment as usize];
            segment_state.repair = segment_state.repair.wrapping_add(1);
            segment_state.steward = NOBODY;
            self.order(segment, Event::Failed);
        }
    }

    fn begin_repair(&mut self, segment: u32) {
        let at = segment as usize;
        let missing = self.aim.coding.n() - self.segments[at].health.counters().standing();
        let steward = self.segments[at].steward;
        let lasts = match &self.scenario.repair.time {
            Some(law) => law.draw(&mut self.rng),
            None => {
                let shards = u64::from(self.aim.coding.k()) + u64::from(missing);
                let begins = self.may_move(steward, shards * self.shard_bytes);
                let beside = self.duties_of(steward).turns.running() as f64;
                (begins - self.now) as f64
                    + beside * self.scenario.repair_ms(self.aim.coding, self.population(steward), missing)
            }
        };
        self.segments[at].repair = self.segments[at].repair.wrapping_add(1);
        self.queue.push(self.later(lasts), What::Repaired { segment, number: self.segments[at].repair });
    }

    pub(super) fn repaired(&mut self, segment: u32, number: u16) {
        let at = segment as usize;
        if self.segments[at].repair != number || self.truth[at].lost {
            return;
        }
        let missing = self.aim.coding.n().saturating_sub(self.segments[at].health.counters().standing());
        self.forget_the_dead(segment);
        // Where room is scarce, what a few random walks find would seldom be what there is room at.
        let steward = self.segments[at].steward;
        let helpers = self.helpers(steward, if self.ample { missing.into() } else { self.members.len() });
        let (apart, domains) = (self.apart, &self.nodes.domain);
        let health = &self.segments[at].health;
        let domain_of = |node: &u32| Some(if apart { own_domain(*node) } else { domains[*node as usize] });
        let plan = plan::plan(&mut self.rng, self.aim, health, self.shard_bytes, &helpers, domain_of);
        // Which of the sources are on, and have what they claim, is seen when they are asked.
        let k = usize::from(self.aim.coding.k());
        let mut lacking = Vec::new();
        let plan = plan.and_then(|mut plan| {
            let mut answered = 0;
            plan.sources.retain(|(index, node)| {
                let is_asked = answered < k && self.is_online(*node);
                let answers = is_asked && self.is_real(*node);
                if is_asked && !answers && *node != steward && self.sends_wrong(*node) {
                    lacking.push((*index, *node));
                }
                answered += usize::from(answers);
                answers
            });
            (plan.sources.len() == k).then_some(plan)
        });
        for (index, node) in lacking {
            self.is_found(steward, segment, node, index.0);
        }
        let Some(plan) = plan else {
            self.tally.repairs_failed += 1;
            self.order(segment, Event::Failed);
            self.end_turn(segment);
            return;
        };
        self.execute(segment, steward, &plan);
        self.order(segment, Event::Repaired);
        self.end_turn(segment);
        self.assess(segment);
    }

    /// Nobody knows that they never come back; but their claims, lost as they are, are as good as none.
    fn forget_the_dead(&mut self, segment: u32) {
        let health = &mut self.segments[segment as usize].health;
        let lost = health.claims().iter().filter(|claim| claim.state.is_lost());
        let dead = lost.filter(|claim| self.nodes.flags[claim.node as usize] & GONE != 0);
        for claim in dead.copied().collect::<Vec<_>>() {
            health.release(claim.index, claim.node);
        }
    }

    /// Carries a plan out whose sources are k that are on.
    fn execute(&mut self, segment: u32, steward: u32, plan: &RepairPlan<u32, u32>) {
        let at = segment as usize;
        self.window_ends(segment, false);
        for (_, source) in &plan.sources {
            self.nodes.moved.note(*source, 1);
        }
        self.nodes.moved.note(steward, (plan.sources.len() + plan.targets.len()) as u32);
        for (index, place) in &plan.targets {
            let is_unclaimed = self.segments[at].health.state(*index) == ShardState::Unclaimed;
            let was_alive = !is_unclaimed && self.is_alive(segment, index.0);
            let mut evicted = None;
            let health = &mut self.segments[at].health;
            if !health.claim(*index, place.node, Source::Own, &mut evicted) {
                continue;
            }
            health.audited(*index, place.node, Outcome::Held);
            self.truth[at].doubled |= health.claims().len() > claimed(self.aim.coding, health.counters());
            if let Some(node) = evicted {
                // No record knows of its copy any more.
                let mut held = self.held(node);
                held.retain(|held| held.segment != segment || held.index != index.0);
                self.pool.replace(&mut self.nodes.disk[node as usize].held, &held);
            }
            self.nodes.moved.note(place.node, 1);
            self.store(segment, *index, place.node);
            if !was_alive && self.is_real(place.node) {
                self.truth[at].alive += 1;
            }
        }
        // Who died unnoticed is missing still.
        self.watch(segment);
        self.tally.repairs += 1;
        self.tally.shards_rebuilt += plan.targets.len() as u64;
        self.tally.repair_bytes += plan.bytes;
    }

    /// A shard of a node that was lost: true if it counts again, false if it was rebuilt meanwhile and is given up.
    pub(super) fn counts_again(&mut self, segment: u32, index: u8, node: u32) -> bool {
        if self.trust(self.acting_steward(segment).1, node) == Trust::Disqualified {
            self.segments[segment as usize].health.release(ShardIndex(index), node);
            return false;
        }
        let health = &mut self.segments[segment as usize].health;
        health.returned(node);
        // What comes back is audited at once.
        health.audited(ShardIndex(index), node, Outcome::Held);
        let here = health.claims().iter().zip(0..).filter(|(claim, _)| claim.index.0 == index);
        let healthy = here.filter(|(claim, _)| claim.state == ClaimState::Healthy);
        // In the order in which they came, so a claim's place tells which is newer.
        let copies: Vec<surplus::Copy> = healthy
            .map(|(claim, order)| surplus::Copy { holder: node_id(claim.node), signed_at: Timestamp(order) })
            .collect();
        if !copies.iter().any(|copy| copy.holder == node_id(node)) {
            return false;
        }
        let keeps = surplus::keeper(&copies).is_none_or(|keeper| keeper.holder == node_id(node));
        if !keeps && surplus::may_shrink(self.aim, health.counters()) {
            health.release(ShardIndex(index), node);
            return false;
        }
        true
    }
}

/// Indices that somebody claims.
pub(super) fn claimed(coding: Coding, counters: Counters) -> usize {
    usize::from(coding.n() - counters.unclaimed)
}

fn node_id(node: u32) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&node.to_be_bytes());
    NodeId::from_bytes(bytes)
}
