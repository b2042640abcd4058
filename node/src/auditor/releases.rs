//! Shards that their holders gave up, by their own word: what follows for the segments.

use commonhold_policy::segment_health::ClaimState;
use commonhold_protocol::{ClaimLeaf, NodeId, SegmentId, ShardIndex};

use super::{Auditor, NodeNumber, WardNumber};

impl Auditor {
    /// A holder gave these up: its claims are gone from the records.
    pub(super) fn released(&mut self, holder: NodeId, shards: &[ClaimLeaf]) {
        let Some(node) = self.holders.number(&holder) else { return };
        let mut thinner = Vec::new();
        for leaf in shards {
            thinner.extend(self.release(node, &leaf.segment, leaf.index));
        }
        self.assess(&thinner);
    }

    /// The segment, if it has a shard less now.
    fn release(&mut self, node: NodeNumber, segment: &SegmentId, index: ShardIndex) -> Option<WardNumber> {
        let number = self.wards.number(segment)?;
        let ward = self.wards.get_mut(number)?;
        let thinner = ward.health.release(index, node);
        if !ward.is_claimed_by(node)
            && let Some(holder) = self.holders.get_mut(node)
        {
            holder.wards.remove(&number);
        }
        thinner.then_some(number)
    }

    /// Audits the claims of a segment that nobody has audited yet: it is to be repaired, and reads from healthy shards
    /// only. By themselves they would have an hour.
    pub(super) fn prove_now(&mut self, number: WardNumber) {
        let Some(ward) = self.wards.get(number) else { return };
        let unproven = ward.health.claims().iter().filter(|claim| claim.state == ClaimState::Unproven);
        let unproven: Vec<(NodeNumber, ShardIndex)> = unproven.map(|claim| (claim.node, claim.index)).collect();
        for (node, index) in unproven {
            if let Some(holder) = self.holders.get_mut(node) {
                holder.due.push((number, index));
            }
            self.moment(node);
        }
    }
}
