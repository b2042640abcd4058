//! Who acts for a segment, what that steward has to do besides and may move, and what it thinks of holders.

use std::collections::BTreeMap;

use commonhold_policy::{
    audit::Outcome,
    budget::{Budget, REPAIR_BYTES_PER_SECOND},
    repair::turns::Turns,
    reputation::{Reputation, Trust},
    stewards::{self, STEWARDS},
};
use commonhold_protocol::{ShardIndex, Timestamp};
use rand::seq::IndexedRandom;

use super::{OLD, World, incidents::mix};

/// More audits than this that were passed leave a reputation as it is: 0.999 to this power is nothing.
const PASSED_MAX: u32 = 10_000;
/// Of so few stewards the duties are kept whatever they do.
const DUTIES_MIN: usize = 64;

/// What a node does as a steward.
#[derive(Debug)]
pub(super) struct Duties {
    /// Repairs, by segment.
    pub(super) turns: Turns<u32>,
    budget: Budget,
}

impl Duties {
    fn new(now: Timestamp, bytes_per_second: u64) -> Self {
        Self { turns: Turns::default(), budget: Budget::new(now, bytes_per_second) }
    }

    /// What those of one that does nothing and has just come would be too.
    fn are_new(&self, now: Timestamp) -> bool {
        self.turns.is_empty() && self.budget.is_saved_up(now)
    }

    /// When so many bytes may be moved, from `now` on; they are spent then.
    fn spend(&mut self, now: Timestamp, bytes: u64) -> Timestamp {
        let mut at = now;
        // More than once where what is spent ahead is not saved yet.
        while let Err(until) = self.budget.spend(at, bytes) {
            let Some(until) = until else { return Timestamp(u64::MAX) };
            at = until;
        }
        at
    }
}

/// The duties of all stewards, but for those that do nothing and have not done anything of late: there are so few others at
/// a time that they stay in the processor's cache.
#[derive(Debug, Default)]
pub(super) struct AllDuties {
    by_node: BTreeMap<u32, Duties>,
    /// With so many it is looked for those that need not be kept.
    most: usize,
}

impl AllDuties {
    /// Of one that may have some.
    pub(super) fn get_mut(&mut self, node: u32) -> Option<&mut Duties> {
        self.by_node.get_mut(&node)
    }

    /// All segments whose turn it was at this node, or that waited for it: not any more.
    pub(super) fn drop_turns(&mut self, node: u32) -> Vec<u32> {
        self.get_mut(node).map(|duties| std::mem::take(&mut duties.turns).all()).unwrap_or_default()
    }
}

/// What stewards think of those that failed audits; of all others it follows from their time and their shards.
#[derive(Debug, Default)]
pub(super) struct Reputations(BTreeMap<(u32, u32), Reputation>);

impl World<'_> {
    /// All nodes, those closest to a segment's id first: they stand side by side.
    fn closest(&self, segment: u32) -> impl Iterator<Item = u32> {
        let first = self.first_place(segment);
        self.members[first..].iter().chain(&self.members[..first]).copied()
    }

    /// Where the first of a segment's stewards stands among the members.
    pub(super) fn first_place(&self, segment: u32) -> usize {
        mix(u64::from(segment)) as usize % self.members.len()
    }

    /// The first of a segment's stewards, on or not.
    pub(super) fn first_steward(&self, segment: u32) -> u32 {
        self.members[self.first_place(segment)]
    }

    /// A segment's stewards, by rank.
    pub(super) fn stewards(&self, segment: u32) -> Vec<u32> {
        if self.apart {
            return self.closest(segment).take(STEWARDS).collect();
        }
        stewards::choose_of(self.closest(segment).map(|node| (node, self.domain(node))))
    }

    /// The rank and the node of the first of a segment's stewards that is on and has its record; of none, the first.
    pub(super) fn acting_steward(&self, segment: u32) -> (usize, u32) {
        let acts = |node: &u32| self.keeps_records(*node);
        // Most often it is the very first, who is a steward whatever its domain.
        let first = self.first_steward(segment);
        if acts(&first) {
            return (0, first);
        }
        let stewards = self.stewards(segment);
        stewards.into_iter().enumerate().find(|(_, node)| acts(node)).unwrap_or((0, first))
    }

    /// Who has just joined is a steward, but hears of what is kept by sweeps: taken to be as long as the grace time.
    fn keeps_records(&self, node: u32) -> bool {
        let at = node as usize;
        let hears = || self.nodes.disk[at].born + self.scenario.audit.grace.ms() < self.now as f64;
        self.is_online(node) && (self.nodes.flags[at] & OLD != 0 || hears())
    }

    pub(super) fn duties_of(&mut self, node: u32) -> &mut Duties {
        let now = self.moment();
        let AllDuties { by_node, most } = &mut self.duties;
        if by_node.len() > *most {
            by_node.retain(|_, duties| !duties.are_new(now));
            *most = 2 * by_node.len() + DUTIES_MIN;
        }
        let given = self.scenario.repair.rate.map(|rate| rate.0 as u64);
        by_node.entry(node).or_insert_with(|| Duties::new(now, given.unwrap_or(REPAIR_BYTES_PER_SECOND)))
    }

    /// When a steward may begin a repair that moves so many bytes.
    pub(super) fn may_move(&mut self, steward: u32, bytes: u64) -> u64 {
        let now = self.moment();
        self.duties_of(steward).spend(now, bytes).0
    }

    /// What a steward thinks of a node.
    pub(super) fn trust(&self, steward: u32, node: u32) -> Trust {
        let known = if self.reputations.0.is_empty() { None } else { self.reputations.0.get(&(node, steward)) };
        let reputation = known.copied().unwrap_or_else(|| self.unblemished(node));
        reputation.trust(self.moment())
    }

    /// Of a node that failed no audit.
    fn unblemished(&self, node: u32) -> Reputation {
        let since = Timestamp(self.nodes.disk[node as usize].born.max(0.0) as u64);
        Reputation { audits: self.audits_by_one(node), ..Reputation::new(since) }
    }

    /// Audits of a node by each of its stewards, on average, since it is there. Each shard has one in `every`, and eight
    /// stewards of all nodes.
    fn audits_by_one(&self, node: u32) -> u32 {
        let disk = &self.nodes.disk[node as usize];
        let here = self.now as f64 - disk.born.max(0.0);
        let shared = f64::from(disk.held.len()) / self.members.len() as f64;
        // The cast saturates.
        (shared * here / self.rate.every_ms as f64) as u32
    }

    /// Which of a segment's stewards finds what its holder `node` lacks; none where it is its only steward.
    pub(super) fn finder(&mut self, segment: u32, node: u32) -> Option<u32> {
        let mut stewards = self.stewards(segment);
        stewards.retain(|steward| *steward != node);
        stewards.choose(&mut self.rng).copied()
    }

    /// A steward found a shard that is not what it should be. If it trusts the holder no more, it counts all that it claims
    /// as lost. `passes` is the chance that an audit of the holder is passed.
    pub(super) fn count_failure(&mut self, steward: u32, node: u32, passes: f64) {
        let until_now = self.audits_by_one(node);
        let fresh = Reputation { audits: 0, ..self.unblemished(node) };
        let reputation = self.reputations.0.entry((node, steward)).or_insert(fresh);
        let passed = (f64::from(until_now.saturating_sub(reputation.audits)) * passes).round() as u32;
        for _ in 0..passed.min(PASSED_MAX) {
            reputation.count(Outcome::Held);
        }
        if reputation.count(Outcome::Refused) {
            self.tally.disqualified += 1;
            self.disqualified(steward, node);
        }
    }

    /// All that a node claims of the segments that this steward looks after is lost.
    fn disqualified(&mut self, steward: u32, node: u32) {
        for shard in self.held(node) {
            if self.truth[shard.segment as usize].lost || !self.stewards(shard.segment).contains(&steward) {
                continue;
            }
            let health = &mut self.segments[shard.segment as usize].health;
            if health.audited(ShardIndex(shard.index), node, Outcome::Refused) {
                self.watch(shard.segment);
                self.assess(shard.segment);
            }
        }
    }
}
