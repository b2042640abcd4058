//! What is truly there, which no node knows; and what is learned of losses too rare to be seen.

use commonhold_policy::segment_health::Claimed;

use super::{GONE, LIAR, Since, Watched, World, repairs::claimed};
use crate::{
    distribution::Distribution,
    scenario::DAY_MS,
    tally::{Thin, Window},
};

/// Over so long it is looked at most how often holders leave.
const HAZARD_MS_MAX: f64 = 90.0 * DAY_MS;

/// What happens with this chance within `ms`, as a rate.
fn rate(chance: f64, ms: f64) -> f64 {
    -(-chance).ln_1p() / ms
}

impl World<'_> {
    /// Whether a real copy of the shard is on a disk that is still there, counted or not.
    pub(super) fn is_alive(&self, segment: u32, index: u8) -> bool {
        let claims = self.segments[segment as usize].health.claims();
        claims.iter().any(|claim| claim.index.0 == index && self.is_real(claim.node))
    }

    /// A real shard is gone with its node.
    pub(super) fn shard_died(&mut self, segment: u32, index: u8) {
        let at = segment as usize;
        if self.truth[at].lost {
            return;
        }
        // Where each index has one claim there is no other copy, and the claims need not be looked through.
        if self.truth[at].doubled {
            let health = &self.segments[at].health;
            self.truth[at].doubled = health.claims().len() > claimed(self.aim.coding, health.counters());
            if self.is_alive(segment, index) {
                return;
            }
        }
        self.truth[at].alive -= 1;
        self.tally.shards_died += 1;
        self.watch(segment);
        let alive = self.truth[at].alive;
        if alive < self.aim.coding.k() {
            self.segment_lost(segment);
        }
    }

    /// Notes whether a watched segment is thin now.
    pub(super) fn watch(&mut self, segment: u32) {
        if !self.is_watched(segment) {
            return;
        }
        let (alive, false_shards) = (self.truth[segment as usize].alive, self.false_shards(segment));
        let (n, threshold) = (u16::from(self.aim.coding.n()), u16::from(self.aim.threshold));
        let seen = u16::from(alive) + u16::from(false_shards);
        let Watched { below_n, at_threshold } = self.watched[(segment / self.watch_each) as usize];
        // What many that go at once leave is what there is from then on.
        let begins = |since: Option<Since>| since.is_none_or(|since| since.at == self.now);
        let since = |ms| Since { at: self.now, alive, hazard: self.hazard(segment, ms) };
        let grace_ms = self.scenario.audit.grace.ms().max(1.0);
        let below_n = if seen < n && begins(below_n) {
            // No longer than a life is remembered, where segments are never topped up.
            Some(since((grace_ms + self.scenario.repair.top_up.ms()).min(HAZARD_MS_MAX)))
        } else {
            below_n
        };
        let at_threshold = if seen <= threshold && begins(at_threshold) { Some(since(grace_ms)) } else { at_threshold };
        self.watched[(segment / self.watch_each) as usize] = Watched { below_n, at_threshold };
    }

    pub(super) fn segment_lost(&mut self, segment: u32) {
        self.window_ends(segment, true);
        let at = segment as usize;
        self.truth[at].lost = true;
        self.tally.lost += 1;
        self.tally.at_risk_ms += (self.now - self.placed_at[at]) as f64;
        let claims = std::mem::replace(
            &mut self.segments[at].health,
            commonhold_policy::segment_health::SegmentHealth::new(self.aim.coding),
        );
        for claim in claims.claims() {
            if self.nodes.flags[claim.node as usize] & GONE == 0 {
                self.nodes.disk[claim.node as usize].free_bytes += self.shard_bytes;
            }
        }
        self.end_turn(segment);
        if self.scenario.network.renew_lost {
            self.place_segment();
        }
    }

    /// The time in which a watched segment was thin is over: it is repaired; or it is cut short, by a loss or the run's end.
    pub(super) fn window_ends(&mut self, segment: u32, cut: bool) {
        if !self.is_watched(segment) {
            return;
        }
        // A window is counted once, though a repair that finds too little room may leave the segment thin.
        let watched = std::mem::take(&mut self.watched[(segment / self.watch_each) as usize]);
        let Some(below_n) = watched.below_n.map(|since| self.thin(since)) else { return };
        let at_threshold = watched.at_threshold.map(|since| self.thin(since));
        let false_shards = self.false_shards(segment);
        self.tally.windows.push(Window { below_n, at_threshold, false_shards, cut });
    }

    fn thin(&self, Since { at, alive, hazard }: Since) -> Thin {
        // At least a millisecond, as all times are whole ones.
        Thin { alive, hazard, lasted: (self.now - at).max(1) as f64 }
    }

    /// Indices that count though nobody has them: whoever claims them lies.
    fn false_shards(&self, segment: u32) -> u8 {
        if !self.has_cheats {
            return 0;
        }
        let claims = self.segments[segment as usize].health.claims();
        let of_index = claims.chunk_by(|one, next| one.index == next.index);
        let is_false = |claims: &&[Claimed<u32>]| {
            let lies = |claim: &Claimed<u32>| claim.state.stands() && self.nodes.flags[claim.node as usize] & LIAR != 0;
            claims.iter().any(lies) && !claims.iter().any(|claim| self.is_real(claim.node))
        };
        of_index.filter(is_false).count() as u8
    }

    /// How often each of a segment's real holders leaves in a millisecond, over the next `ms`.
    fn hazard(&self, segment: u32, ms: f64) -> f64 {
        // Where no life remembers its age, all holders of a population are alike.
        if let [population] = self.scenario.population.as_slice()
            && let Distribution::Exponential { .. } = population.lifetime.get_ref()
        {
            return rate(population.lifetime.get_ref().ends_within(0.0, ms), ms);
        }
        let (mut sum, mut count) = (0.0, 0.0);
        for claim in self.segments[segment as usize].health.claims().iter().filter(|claim| self.is_real(claim.node)) {
            let age = (self.now as f64 - self.nodes.disk[claim.node as usize].born).max(0.0);
            sum += self.population(claim.node).lifetime.get_ref().ends_within(age, ms);
            count += 1.0;
        }
        if count > 0.0 { rate(sum / count, ms) } else { 0.0 }
    }

    /// What is known only at the end.
    pub(super) fn sum_up(&mut self) {
        let end = self.end as f64;
        for segment in 0..self.segments.len() as u32 {
            self.window_ends(segment, true);
        }
        for at in 0..self.segments.len() {
            self.tally.segments += 1;
            if !self.truth[at].lost {
                let holders =
                    self.segments[at].health.claims().iter().map(|claim| self.nodes.flags[claim.node as usize]);
                self.tally.shards_on_disks += holders.filter(|flags| flags & GONE == 0).count() as u64;
                self.tally.at_risk_ms += end - self.placed_at[at] as f64;
                self.tally.alive_at_end[usize::from(self.truth[at].alive)] += 1;
                self.tally.standing_at_end += u64::from(self.segments[at].health.counters().standing());
            }
        }
        for place in 0..self.members.len() {
            let node = self.members[place];
            let disk = &self.nodes.disk[node as usize];
            let here = end - disk.born.max(0.0);
            let moved = u64::from(self.nodes.moved.of(node)) * self.shard_bytes;
            self.tally.node_traffic(moved, here);
            self.tally.shards_held += u64::from(disk.held.len());
        }
        self.tally.nodes_at_end = self.members.len() as u64;
        self.tally.watched = u64::from(self.segments.len() as u32).div_ceil(u64::from(self.watch_each));
    }
}
