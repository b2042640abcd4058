//! Which shards a repair reads from whom, and which it rebuilds for whom.

use std::collections::BTreeMap;

use commonhold_protocol::{NodeId, ShardIndex};
use rand::Rng;

use super::{Aim, Room, goal};
use crate::{
    Domain, Standing,
    placement::{self, Candidate, Place},
    reputation::Trust,
    segment_health::{ClaimState, SegmentHealth},
};

/// A node that might take a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper<N = NodeId, D = Domain> {
    /// The node, its domain and space.
    pub candidate: Candidate<N, D>,
    /// What is thought of it.
    pub trust: Trust,
}

/// How one segment is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan<N = NodeId, D = Domain> {
    /// Holders of healthy shards in random order, so that the load is spread; any k of them will do.
    pub sources: Vec<(ShardIndex, N)>,
    /// Each shard that is rebuilt, with the node that gets it.
    pub targets: BTreeMap<ShardIndex, Place<N, D>>,
    /// Bytes that it moves: k shards in, the rebuilt ones out.
    pub bytes: u64,
}

/// Who of `helpers` could take a shard of the segment; nodes that ever claimed one are left out, lost or not: were
/// such a node to return, it would hold two. `domain_of` knows the domains of holders.
pub fn room<N: Copy + Ord, D: Clone + Ord>(
    health: &SegmentHealth<N>,
    shard_bytes: u64,
    helpers: &[Helper<N, D>],
    domain_of: impl Fn(&N) -> Option<D>,
) -> Room {
    room_beside(&taken_domains(health, domain_of), &able(health, shard_bytes, helpers))
}

fn room_beside<N, D: Ord>(taken: &[D], able: &[&Helper<N, D>]) -> Room {
    let mut domains: Vec<&D> = able.iter().map(|helper| &helper.candidate.domain).collect();
    domains.sort_unstable();
    domains.dedup();
    domains.retain(|domain| !is_among(taken.iter(), *domain));
    Room { nodes: able.len(), domains: domains.len() }
}

/// Plans the repair of all shards that are lost or unclaimed, as far as there is room; none if nothing can be done.
pub fn plan<N: Copy + Ord, D: Clone + Ord>(
    rng: &mut impl Rng,
    aim: impl Into<Aim>,
    health: &SegmentHealth<N>,
    shard_bytes: u64,
    helpers: &[Helper<N, D>],
    domain_of: impl Fn(&N) -> Option<D>,
) -> Option<RepairPlan<N, D>> {
    let aim = aim.into();
    let k = aim.coding.k();
    let mut sources: Vec<(ShardIndex, N)> = Vec::with_capacity(health.claims().len());
    for claim in health.claims().iter().filter(|claim| claim.state == ClaimState::Healthy) {
        if sources.last().is_none_or(|(index, _)| *index != claim.index) {
            sources.push((claim.index, claim.node));
        }
    }
    if sources.len() < usize::from(k) {
        return None;
    }
    rand::seq::SliceRandom::shuffle(sources.as_mut_slice(), rng);

    let taken = taken_domains(health, domain_of);
    let able = able(health, shard_bytes, helpers);
    let room = room_beside(&taken, &able);
    let weighed: Vec<Candidate<N, D>> = able
        .into_iter()
        .map(|helper| {
            let mut candidate = helper.candidate.clone();
            candidate.free_bytes = (candidate.free_bytes as f64 * helper.trust.weight()) as u64;
            candidate
        })
        .collect();
    let count = goal(aim, health.counters(), room).saturating_sub(health.counters().standing().into());
    let places = placement::order_beside(rng, weighed.iter(), |domain| is_among(taken.iter(), domain));
    let targets: BTreeMap<ShardIndex, Place<N, D>> = health.missing().zip(places.take(count)).collect();
    let shards = usize::from(k) + targets.len();
    let bytes = shard_bytes.saturating_mul(shards as u64);
    (!targets.is_empty()).then_some(RepairPlan { sources, targets, bytes })
}

/// Those that could take a shard, by node, each once: of those that are named twice the last.
fn able<'a, N: Copy + Ord, D>(
    health: &SegmentHealth<N>,
    shard_bytes: u64,
    helpers: &'a [Helper<N, D>],
) -> Vec<&'a Helper<N, D>> {
    let mut able: Vec<&Helper<N, D>> = Vec::with_capacity(helpers.len());
    able.extend(helpers.iter().filter(|helper| {
        helper.trust != Trust::Disqualified
            && helper.candidate.standing != Standing::RecentlyFailed
            && helper.candidate.free_bytes >= shard_bytes
            && !is_among(health.claims().iter().map(|claim| &claim.node), &helper.candidate.node)
    }));
    able.sort_by_key(|helper| helper.candidate.node);
    able.dedup_by(|later, earlier| {
        let is_same = later.candidate.node == earlier.candidate.node;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    able
}

/// Domains of the holders that stand.
fn taken_domains<N: Copy + Eq, D>(health: &SegmentHealth<N>, domain_of: impl Fn(&N) -> Option<D>) -> Vec<D> {
    let standing = health.claims().iter().filter(|claim| claim.state.stands());
    let mut taken = Vec::with_capacity(health.claims().len());
    taken.extend(standing.filter_map(|claim| domain_of(&claim.node)));
    taken
}

/// Some dozens are looked through faster than sorted; and faster to the end, several at a time, than up to the first.
fn is_among<'a, T: Eq + 'a>(things: impl Iterator<Item = &'a T>, thing: &T) -> bool {
    things.fold(false, |found, other| found | (other == thing))
}
