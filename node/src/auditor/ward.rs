//! One segment that this node is a steward of: its shards' states, and the order of its repair.

use std::sync::Arc;

use commonhold_policy::{
    repair::{self, Decision, Room, order::RepairOrder},
    segment_health::{ClaimState, SegmentHealth, Source},
};
use commonhold_protocol::{Manifest, NodeId, ShardIndex, Timestamp, Verified, ask::HealthReport};

/// A claim that was seen for the first time.
pub(super) struct NewClaim {
    pub(super) index: ShardIndex,
    pub(super) holder: NodeId,
}

/// The segment.
pub(super) struct Ward {
    pub(super) manifest: Arc<Verified<Manifest>>,
    pub(super) health: SegmentHealth,
    pub(super) order: RepairOrder,
    /// The moment that the order asked for.
    pub(super) due: Option<Timestamp>,
    /// All stewards of the record, ourselves among them, closest first.
    pub(super) stewards: Vec<NodeId>,
    pub(super) repaired_at: Option<Timestamp>,
    /// What was decided last, for the figures.
    pub(super) decision: Decision,
}

impl Ward {
    pub(super) fn new(manifest: Arc<Verified<Manifest>>, order: RepairOrder, stewards: Vec<NodeId>) -> Self {
        let health = SegmentHealth::new(manifest.coding);
        Self { manifest, health, order, due: None, stewards, repaired_at: None, decision: Decision::Whole }
    }

    /// Our place among the stewards.
    pub(super) fn rank(&self, own: &NodeId) -> usize {
        self.stewards.iter().position(|node| node == own).unwrap_or(self.stewards.len())
    }

    /// Takes in the claims of a record; gives those that are new and have to be audited.
    pub(super) fn take_in(
        &mut self,
        claims: impl Iterator<Item = (ShardIndex, NodeId)>,
        source: Source,
    ) -> Vec<NewClaim> {
        let mut new = Vec::new();
        for (index, holder) in claims {
            let mut evicted = None;
            if self.health.claim(index, holder, source, &mut evicted) {
                new.push(NewClaim { index, holder });
            }
        }
        new
    }

    /// What is needed now.
    pub(super) fn decide(&mut self, room: Room) -> Decision {
        self.decision = repair::decide(self.manifest.coding, self.health.counters(), room);
        self.decision
    }

    /// Claims by `holder` that stand or may stand again.
    pub(super) fn claims_of(&self, holder: NodeId) -> impl Iterator<Item = ShardIndex> + '_ {
        let its = self.health.claims().iter().filter(move |claim| claim.node == holder);
        its.filter(|claim| claim.state != ClaimState::Away).map(|claim| claim.index)
    }

    /// How it looks, for whoever asks.
    pub(super) fn report(&self) -> HealthReport {
        let counters = self.health.counters();
        HealthReport {
            healthy: counters.healthy,
            suspect: counters.suspect,
            lost: counters.lost.saturating_add(counters.unclaimed),
            repaired_at: self.repaired_at,
            repairing: self.order.is_repairing(),
        }
    }
}
