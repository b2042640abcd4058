//! What a holder is told of its shards: whether its claims are known here, and which of them are held twice.

use commonhold_policy::{
    segment_health::ClaimState,
    surplus::{self, Copy},
};
use commonhold_protocol::{ClaimLeaf, NodeId, ShardIndex, ask::ClaimStanding};
use tokio::sync::oneshot;

use super::{Auditor, NodeNumber, WardNumber};
use crate::steward::Steward;

/// A claim, as far as the auditor's tables say.
enum Known {
    Lacking,
    /// Nobody else is known to hold the shard, or none may be spared.
    Alone,
    /// These are healthy holders of it, the asker among them or not counted beside them.
    Shared(Vec<NodeId>),
}

impl Auditor {
    /// Answers a holder: from memory, but for shards that are held twice, of which the record says who claimed them last.
    pub(super) fn announced(&self, holder: NodeId, shards: Vec<ClaimLeaf>, reply: oneshot::Sender<Vec<ClaimStanding>>) {
        let known: Vec<(ClaimLeaf, Known)> =
            shards.into_iter().map(|leaf| (leaf, self.known(&holder, &leaf))).collect();
        let steward = self.parts.steward.clone();
        self.parts.tasks.spawn_blocking(move || {
            let standings = known.into_iter().map(|(leaf, known)| match known {
                Known::Lacking => ClaimStanding::Lacking,
                Known::Alone => ClaimStanding::Known,
                Known::Shared(holders) => match keeper(&steward, &leaf, &holders) {
                    Some(keeper) if keeper != holder => ClaimStanding::Surplus { keeper },
                    _ => ClaimStanding::Known,
                },
            });
            let _ = reply.send(standings.collect());
        });
    }

    fn known(&self, holder: &NodeId, leaf: &ClaimLeaf) -> Known {
        let Some(ward) = self.wards.number(&leaf.segment) else { return Known::Lacking };
        // Who is not known here is the one whose claim is not counted.
        let node = self.holders.number(holder);
        let claims = self.wards.claims(ward).filter(|claim| claim.index == leaf.index);
        let claims: Vec<NodeNumber> = claims.map(|claim| claim.node).collect();
        match claims.as_slice() {
            [] => Known::Lacking,
            [one] if Some(*one) == node => Known::Alone,
            claims => {
                let counted = node.filter(|node| claims.contains(node));
                let otherwise = if counted.is_some() { Known::Alone } else { Known::Lacking };
                self.shared(ward, leaf.index, counted).map_or(otherwise, Known::Shared)
            }
        }
    }

    /// The healthy holders of a shard, `counted` among them if there is one, where one may be spared.
    fn shared(&self, ward: WardNumber, index: ShardIndex, counted: Option<NodeNumber>) -> Option<Vec<NodeId>> {
        let (health, known) = (self.health(ward)?, self.wards.get(ward)?);
        let healthy = health.claims().iter().filter(|claim| claim.index == index && claim.state == ClaimState::Healthy);
        let healthy: Vec<NodeNumber> = healthy.map(|claim| claim.node).collect();
        if counted.is_some_and(|node| !healthy.contains(&node)) || !surplus::may_shrink(known.coding, health.counters())
        {
            return None;
        }
        let holders: Vec<NodeId> = healthy.into_iter().filter_map(|node| self.holders.key(node)).collect();
        (!holders.is_empty()).then_some(holders)
    }
}

/// Which of these keeps the shard.
fn keeper(steward: &Steward, leaf: &ClaimLeaf, holders: &[NodeId]) -> Option<NodeId> {
    let (_, record, _) = steward.wanted_record(&leaf.segment)?;
    let claims = record.claims().get(&leaf.index)?.iter().filter(|claim| holders.contains(&claim.holder));
    let copies: Vec<Copy> = claims.map(|claim| Copy { holder: claim.holder, signed_at: claim.signed_at }).collect();
    surplus::keeper(&copies).map(|copy| copy.holder)
}
