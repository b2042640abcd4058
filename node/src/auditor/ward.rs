//! One segment that this node is a steward of: its shards' states, and the order of its repair. There are tens of
//! thousands: nodes are numbers here, and the manifest stays in the record.

use commonhold_policy::{
    repair::order::{RepairOrder, Times},
    segment_health::{ClaimState, SegmentHealth},
};
use commonhold_protocol::{Coding, ShardIndex, Timestamp, ask::HealthReport};

use super::NodeNumber;

/// The segment.
pub(super) struct Ward {
    pub(super) coding: Coding,
    /// Bytes of one shard.
    pub(super) shard_length: u64,
    /// Of the record, as it was read last.
    pub(super) sequence: u64,
    pub(super) health: SegmentHealth<NodeNumber>,
    /// Our place among the record's stewards, 0 first, and how many there are.
    pub(super) rank: u8,
    pub(super) stewards: u8,
    pub(super) repaired_at: Option<Timestamp>,
    /// None: it needs no repair.
    pub(super) order: Option<Box<Ordered>>,
}

/// The order of a repair, and the moment that it asked for.
pub(super) struct Ordered {
    pub(super) machine: RepairOrder,
    pub(super) due: Option<Timestamp>,
}

impl Ordered {
    pub(super) fn new(times: Times) -> Box<Self> {
        Box::new(Self { machine: RepairOrder::new(times), due: None })
    }
}

impl Ward {
    /// Shards that a node claims and that stand, or may stand again.
    pub(super) fn claims_of(&self, node: NodeNumber) -> impl Iterator<Item = ShardIndex> + '_ {
        let its = self.health.claims().iter().filter(move |claim| claim.node == node);
        its.filter(|claim| claim.state != ClaimState::Away).map(|claim| claim.index)
    }

    pub(super) fn is_claimed_by(&self, node: NodeNumber) -> bool {
        self.health.claims().iter().any(|claim| claim.node == node)
    }

    /// How it looks, for whoever asks; `resting`: there is no node to take what is missing.
    pub(super) fn report(&self, resting: bool) -> HealthReport {
        let counters = self.health.counters();
        HealthReport {
            healthy: counters.healthy,
            suspect: counters.suspect,
            lost: counters.lost.saturating_add(counters.unclaimed),
            repaired_at: self.repaired_at,
            repairing: self.order.as_ref().is_some_and(|order| order.machine.is_repairing()),
            resting,
        }
    }
}
