//! Which shards a repair reads from whom, and which it rebuilds for whom.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::{Coding, NodeId, ShardIndex};
use rand::Rng;

use super::{Room, goal};
use crate::{
    Domain, Standing,
    placement::{self, Candidate, Place},
    reputation::Trust,
    segment_health::{ClaimState, SegmentHealth, ShardState},
};

/// A node that might take a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// The node, its domain and space.
    pub candidate: Candidate,
    /// What is thought of it.
    pub trust: Trust,
}

/// How one segment is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    /// Holders of healthy shards in random order, so that the load is spread; any k of them will do.
    pub sources: Vec<(ShardIndex, NodeId)>,
    /// Each shard that is rebuilt, with the node that gets it.
    pub targets: BTreeMap<ShardIndex, Place>,
    /// Nodes that take over from a target that fails, best first.
    pub spares: Vec<Place>,
    /// Bytes that it moves: k shards in, the rebuilt ones out.
    pub bytes: u64,
}

/// Who of `helpers` could take a shard of the segment; nodes that ever claimed one are left out, lost or not: were
/// such a node to return, it would hold two. `domain_of` knows the domains of holders.
pub fn room(
    health: &SegmentHealth,
    shard_bytes: u64,
    helpers: &[Helper],
    domain_of: impl Fn(&NodeId) -> Option<Domain>,
) -> Room {
    let taken = taken_domains(health, domain_of);
    let able: BTreeMap<NodeId, &Domain> =
        able(health, shard_bytes, helpers).map(|helper| (helper.candidate.node, &helper.candidate.domain)).collect();
    let domains: BTreeSet<&Domain> = able.values().copied().filter(|domain| !taken.contains(*domain)).collect();
    Room { nodes: able.len(), domains: domains.len() }
}

/// Plans the repair of all shards that are lost or unclaimed, as far as there is room; none if nothing can be done.
pub fn plan(
    rng: &mut impl Rng,
    coding: Coding,
    health: &SegmentHealth,
    shard_bytes: u64,
    helpers: &[Helper],
    domain_of: impl Fn(&NodeId) -> Option<Domain>,
) -> Option<RepairPlan> {
    let mut sources: Vec<(ShardIndex, NodeId)> = Vec::new();
    for claim in health.claims().iter().filter(|claim| claim.state == ClaimState::Healthy) {
        if sources.last().is_none_or(|(index, _)| *index != claim.index) {
            sources.push((claim.index, claim.node));
        }
    }
    if sources.len() < usize::from(coding.k()) {
        return None;
    }
    rand::seq::SliceRandom::shuffle(sources.as_mut_slice(), rng);

    let taken = taken_domains(health, &domain_of);
    let weighed: BTreeMap<NodeId, Candidate> = able(health, shard_bytes, helpers)
        .map(|helper| {
            let mut candidate = helper.candidate.clone();
            candidate.free_bytes = (candidate.free_bytes as f64 * helper.trust.weight()) as u64;
            (candidate.node, candidate)
        })
        .collect();
    let room = room(health, shard_bytes, helpers, domain_of);
    let count = goal(coding, health.counters(), room).saturating_sub(health.counters().standing().into());
    let mut places = placement::order(rng, weighed.values(), &taken);
    let mut spares = places.split_off(count.min(places.len()));
    // A spare in a domain that has a shard would only do where the plan itself has to share domains.
    if count <= room.domains {
        let used: BTreeSet<&Domain> = places.iter().map(|place| &place.domain).chain(&taken).collect();
        spares.retain(|spare| !used.contains(&spare.domain));
    }
    let missing =
        coding.indices().filter(|index| matches!(health.state(*index), ShardState::Lost | ShardState::Unclaimed));
    let targets: BTreeMap<ShardIndex, Place> = missing.zip(places).collect();
    let shards = usize::from(coding.k()) + targets.len();
    let bytes = shard_bytes.saturating_mul(shards as u64);
    (!targets.is_empty()).then_some(RepairPlan { sources, targets, spares, bytes })
}

fn able<'a>(health: &SegmentHealth, shard_bytes: u64, helpers: &'a [Helper]) -> impl Iterator<Item = &'a Helper> {
    let claimants: BTreeSet<NodeId> = health.claims().iter().map(|claim| claim.node).collect();
    helpers.iter().filter(move |helper| {
        helper.trust != Trust::Disqualified
            && helper.candidate.standing != Standing::RecentlyFailed
            && helper.candidate.free_bytes >= shard_bytes
            && !claimants.contains(&helper.candidate.node)
    })
}

fn taken_domains(health: &SegmentHealth, domain_of: impl Fn(&NodeId) -> Option<Domain>) -> BTreeSet<Domain> {
    let standing = health.claims().iter().filter(|claim| !matches!(claim.state, ClaimState::Away | ClaimState::Failed));
    standing.filter_map(|claim| domain_of(&claim.node)).collect()
}
