//! What a holder is told of its shards: whether its claims are known here, and which of them are held twice.

use std::{collections::BTreeSet, sync::Arc};

use commonhold_policy::{
    segment_health::ClaimState,
    surplus::{self, Copy},
};
use commonhold_protocol::{
    ClaimLeaf, NodeId, ShardIndex, VerifiedClaim, ask::ClaimStanding, record::CLAIMS_PER_INDEX_MAX,
};

use super::{Auditor, NodeNumber, WardNumber};
use crate::{cpu_time, steward::Steward};

/// Shards of one question that are looked up in the records though their asker is counted as no holder of them. Of the
/// others it hears in another round.
const UNCOUNTED_MAX: usize = 64;

/// What is known of a shard that somebody says to hold, as far as the auditor's tables say.
#[derive(Debug)]
pub enum Known {
    /// Its holder's claim is not counted.
    Lacking,
    /// Nobody else is known to hold it, or none may be spared.
    Alone,
    /// These hold it, all of them healthy, its holder among them.
    Shared(Vec<NodeId>),
    /// These hold it, all of them healthy, and its holder's claim is not counted beside theirs.
    Elsewhere(Vec<NodeId>),
}

impl Auditor {
    /// What the tables say of a holder's shards.
    pub(super) fn announced(&self, holder: NodeId, shards: Vec<ClaimLeaf>) -> Vec<(ClaimLeaf, Known)> {
        let mut uncounted = BTreeSet::new();
        let known = |leaf| {
            let known = match self.known(&holder, &leaf) {
                Known::Elsewhere(_) if uncounted.len() >= UNCOUNTED_MAX || !uncounted.insert(leaf) => Known::Lacking,
                known => known,
            };
            (leaf, known)
        };
        shards.into_iter().map(known).collect()
    }

    fn known(&self, holder: &NodeId, leaf: &ClaimLeaf) -> Known {
        let Some(ward) = self.wards.number(&leaf.segment) else { return Known::Lacking };
        // Who is not known here is one whose claim is not counted.
        let node = self.holders.number(holder);
        let claims = self.wards.claims(ward).filter(|claim| claim.index == leaf.index);
        let claims: Vec<NodeNumber> = claims.map(|claim| claim.node).collect();
        match claims.as_slice() {
            [] => Known::Lacking,
            [one] if Some(*one) == node => Known::Alone,
            _ => match node.filter(|node| claims.contains(node)) {
                Some(node) => self
                    .healthy(ward, leaf.index)
                    .filter(|healthy| healthy.contains(&node))
                    .map_or(Known::Alone, |healthy| Known::Shared(self.names(healthy))),
                None => self
                    .healthy(ward, leaf.index)
                    .map_or(Known::Lacking, |healthy| Known::Elsewhere(self.names(healthy))),
            },
        }
    }

    /// The healthy holders of a shard, where one of them may be spared.
    fn healthy(&self, ward: WardNumber, index: ShardIndex) -> Option<Vec<NodeNumber>> {
        let health = self.health(ward)?;
        let coding = self.wards.get(ward)?.coding;
        let healthy = health.claims().iter().filter(|claim| claim.index == index && claim.state == ClaimState::Healthy);
        // What is only waited for does not make a segment thick enough.
        let may_shrink = !self.awaited.contains_key(&ward) && surplus::may_shrink(coding, health.counters());
        may_shrink.then(|| healthy.map(|claim| claim.node).collect())
    }

    fn names(&self, nodes: Vec<NodeNumber>) -> Vec<NodeId> {
        nodes.into_iter().filter_map(|node| self.holders.key(node)).collect()
    }
}

/// Answers a holder: from memory, but for shards that are held twice, of which the record says who claimed them last.
pub(super) async fn standings(
    steward: Arc<Steward>,
    holder: NodeId,
    known: Vec<(ClaimLeaf, Known)>,
) -> Option<Vec<ClaimStanding>> {
    let answers = move || known.into_iter().map(|(leaf, known)| standing(&steward, &holder, &leaf, known)).collect();
    cpu_time::blocking(answers).await.ok()
}

fn standing(steward: &Steward, holder: &NodeId, leaf: &ClaimLeaf, known: Known) -> ClaimStanding {
    match known {
        Known::Lacking => ClaimStanding::Lacking,
        Known::Alone => ClaimStanding::Known,
        Known::Shared(healthy) => match keeper(&claims(steward, leaf), leaf, &healthy) {
            Some(keeper) if keeper != *holder => ClaimStanding::Surplus { keeper },
            _ => ClaimStanding::Known,
        },
        // It sends its claim before it hears that nobody needs it: perhaps it is counted then.
        Known::Elsewhere(healthy) => {
            let claims = claims(steward, leaf);
            let here = claims.iter().filter(|claim| claim.claim.leaf == *leaf);
            let has_spoken = here.clone().any(|claim| claim.holder == *holder);
            let found_no_place = here.count() >= CLAIMS_PER_INDEX_MAX;
            let keeper = keeper(&claims, leaf, &healthy).filter(|_| has_spoken || found_no_place);
            keeper.map_or(ClaimStanding::Lacking, |keeper| ClaimStanding::Surplus { keeper })
        }
    }
}

/// All claims of a segment's record.
fn claims(steward: &Steward, leaf: &ClaimLeaf) -> Vec<VerifiedClaim> {
    let record = steward.wanted_record(&leaf.segment);
    record.map(|(_, record, _)| record.claims().values().flatten().cloned().collect()).unwrap_or_default()
}

/// Which of these keeps the shard; nobody who claims others of the same segment: one that reads what it claims from others
/// proves it as long as they hold it.
fn keeper(claims: &[VerifiedClaim], leaf: &ClaimLeaf, holders: &[NodeId]) -> Option<NodeId> {
    let holds_others = |node: &NodeId| claims.iter().any(|claim| claim.holder == *node && claim.claim.leaf != *leaf);
    let here = claims.iter().filter(|claim| claim.claim.leaf == *leaf);
    let kept = here.filter(|claim| holders.contains(&claim.holder) && !holds_others(&claim.holder));
    let copies: Vec<Copy> = kept.map(|claim| Copy { holder: claim.holder, signed_at: claim.signed_at }).collect();
    surplus::keeper(&copies).map(|copy| copy.holder)
}
