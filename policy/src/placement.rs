//! Which node gets which shard of a segment, and who stands by.
//!
//! One shard per node, and one per domain while there are enough; nodes with more free pledge are drawn more often, so
//! that pledges fill up evenly; nodes that failed lately come last. Where that is not possible the plan says how often
//! nodes and domains are shared. Nothing is sent here: [`crate::store`] carries a plan out.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::{Coding, NodeId, ShardIndex};
use rand::{Rng, seq::SliceRandom};

use crate::{Domain, Standing};

/// Nodes that a client looks for before it places segments: with so many to choose from, those of one domain are no part
/// of a segment but by one shard, unless nearly all nodes are theirs.
pub const CANDIDATES: u8 = 120;

/// A node that may take shards. `N` names nodes and `D` domains: numbers where millions of repairs are simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<N = NodeId, D = Domain> {
    /// The node.
    pub node: N,
    /// Its failure domain.
    pub domain: D,
    /// Bytes that it would still take.
    pub free_bytes: u64,
    /// What we have seen of it lately.
    pub standing: Standing,
}

/// A node that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<N = NodeId, D = Domain> {
    /// The node.
    pub node: N,
    /// Its failure domain.
    pub domain: D,
    /// What we had seen of it when it was chosen.
    pub standing: Standing,
}

/// Where the shards of one segment go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementPlan<N = NodeId, D = Domain> {
    /// Each shard with its node, by index. An index is missing only if no node had space for a second shard.
    pub slots: BTreeMap<ShardIndex, Place<N, D>>,
    /// Nodes that get no shard unless another fails, best first.
    pub spares: Vec<Place<N, D>>,
}

impl<N: Ord, D: Ord> PlacementPlan<N, D> {
    /// Shards that lie on a node which has another of this segment: with that node, both are lost.
    pub fn nodes_shared(&self) -> usize {
        shared(self.slots.values().map(|place| &place.node))
    }

    /// Shards that lie in a domain which has another of this segment.
    pub fn domains_shared(&self) -> usize {
        shared(self.slots.values().map(|place| &place.domain))
    }
}

impl PlacementPlan {
    /// The same places, but shards that were sent once before go to the nodes they were sent to, as far as those are in
    /// the plan: whoever has its shard already need not be sent it again.
    pub fn resuming(mut self, sent: &BTreeMap<ShardIndex, NodeId>) -> Self {
        let mut settled = BTreeSet::new();
        for (index, node) in sent {
            let Some(place) = self.slots.get(index).cloned() else { continue };
            if place.node == *node {
                settled.insert(*index);
                continue;
            }
            let slots = self.slots.iter_mut().filter(|(other, _)| !settled.contains(*other)).map(|(_, place)| place);
            if let Some(other) = slots.chain(&mut self.spares).find(|other| other.node == *node) {
                let back = std::mem::replace(other, place);
                self.slots.insert(*index, back);
                settled.insert(*index);
            }
        }
        self
    }
}

/// How many of `things` are there beyond one of each.
fn shared<T: Ord>(things: impl ExactSizeIterator<Item = T>) -> usize {
    let all = things.len();
    all - things.collect::<BTreeSet<_>>().len()
}

/// Why a segment cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Too few nodes have space for a shard.
    #[error("{have} of {known} nodes have space for a shard of {shard_bytes} bytes, but {need} are needed")]
    TooFewNodes {
        /// Nodes with space.
        have: usize,
        /// Nodes that were looked at.
        known: usize,
        /// Nodes that a put needs to succeed.
        need: usize,
        /// Bytes of a shard.
        shard_bytes: u64,
    },
}

/// Chooses nodes for a segment of `coding` whose shards have `shard_bytes` bytes each.
///
/// Fewer nodes with space than [`Coding::placed_enough`] are refused: doubling up on them would report a success that
/// does not survive the losses that the coding promises to survive. From there up to n, the indices that are left
/// over go once more around the nodes.
///
/// Connected nodes are not preferred over other good ones, or all segments of a session would heap up on the first
/// nodes that it met.
pub fn plan<N: Copy + Ord, D: Clone + Ord>(
    rng: &mut impl Rng,
    coding: Coding,
    shard_bytes: u64,
    candidates: &[Candidate<N, D>],
) -> Result<PlacementPlan<N, D>, PlacementError> {
    let known = by_node(candidates);
    let ranked = rank(rng, known.iter().copied().filter(|candidate| candidate.free_bytes >= shard_bytes));
    let need = usize::from(coding.placed_enough());
    if ranked.len() < need {
        return Err(PlacementError::TooFewNodes { have: ranked.len(), known: known.len(), need, shard_bytes });
    }

    let n = usize::from(coding.n());
    let (chosen, spares) = ranked.split_at(ranked.len().min(n));
    let mut chosen: Vec<&Candidate<N, D>> = chosen.to_vec();
    // Reads ask the holders of the first k shards before all others: who they are must not follow from the ranking,
    // which favours the large, except that those who failed lately come last.
    let good = chosen.partition_point(|candidate| candidate.standing != Standing::RecentlyFailed);
    chosen[..good].shuffle(rng);
    let roomy = chosen.iter().filter(|candidate| candidate.free_bytes / 2 >= shard_bytes);
    let slots = chosen.iter().chain(roomy).take(n).map(|candidate| place(candidate));
    Ok(PlacementPlan {
        slots: coding.indices().zip(slots).collect(),
        spares: spares.iter().map(|candidate| place(candidate)).collect(),
    })
}

/// All candidates in the order in which they should get one shard each of a segment that lies in the `taken` domains
/// already: as in a [`plan`], and those in new domains before all others.
pub fn order<'a, N: Copy + 'a, D: Clone + Ord + 'a>(
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = &'a Candidate<N, D>>,
    taken: &BTreeSet<D>,
) -> Vec<Place<N, D>> {
    order_beside(rng, candidates, |domain| taken.contains(domain)).collect()
}

/// As [`order`], with the taken domains told by a function.
pub(crate) fn order_beside<'a, N: Copy + 'a, D: Clone + Ord + 'a>(
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = &'a Candidate<N, D>>,
    is_taken: impl Fn(&D) -> bool,
) -> impl Iterator<Item = Place<N, D>> {
    let mut drawn = draw(rng, candidates);
    // Asked once of each: a sort would ask again with each comparison.
    for drawn in &mut drawn {
        drawn.shares = drawn.in_domain > 1 || is_taken(&drawn.candidate.domain);
    }
    // Stable, so the draw decides among equals.
    drawn.sort_by_key(|drawn| (drawn.shares, drawn.failed, drawn.in_domain));
    drawn.into_iter().map(|drawn| place(drawn.candidate))
}

fn place<N: Copy, D: Clone>(candidate: &Candidate<N, D>) -> Place<N, D> {
    Place { node: candidate.node, domain: candidate.domain.clone(), standing: candidate.standing }
}

/// Candidates by node, each once; of those that are named twice the last.
fn by_node<N: Copy + Ord, D>(candidates: &[Candidate<N, D>]) -> Vec<&Candidate<N, D>> {
    let mut known: Vec<&Candidate<N, D>> = candidates.iter().collect();
    known.sort_by_key(|candidate| candidate.node);
    known.dedup_by(|later, earlier| {
        let is_same = later.node == earlier.node;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    known
}

/// All candidates, best first: those that did not fail lately, then one of each domain before a second of any, then
/// as drawn.
fn rank<'a, N, D: Ord>(
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = &'a Candidate<N, D>>,
) -> Vec<&'a Candidate<N, D>> {
    spread(draw(rng, candidates))
}

/// Among those of like standing, puts the first of each domain before the second of any, and so on.
fn spread<N, D>(mut drawn: Vec<Drawn<'_, N, D>>) -> Vec<&Candidate<N, D>> {
    // Stable, so the draw decides among equals.
    drawn.sort_by_key(|drawn| (drawn.failed, drawn.in_domain));
    drawn.into_iter().map(|drawn| drawn.candidate).collect()
}

/// A candidate as it was drawn.
struct Drawn<'a, N, D> {
    failed: bool,
    /// Its domain has a shard already.
    shares: bool,
    /// Its place among those of its domain, from 1.
    in_domain: u32,
    key: f64,
    candidate: &'a Candidate<N, D>,
}

/// Draws all candidates one after another, with chances in proportion to their free bytes; those that failed lately
/// come last.
fn draw<'a, N, D: Ord>(
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = &'a Candidate<N, D>>,
) -> Vec<Drawn<'a, N, D>> {
    // That is the same as sorting by exponential variates (Efraimidis and Spirakis, 2006).
    let mut drawn: Vec<Drawn<'_, N, D>> = candidates
        .map(|candidate| {
            let uniform: f64 = rng.random();
            let key = -(1.0 - uniform).ln() / candidate.free_bytes.max(1) as f64;
            Drawn {
                failed: candidate.standing == Standing::RecentlyFailed,
                shares: false,
                in_domain: 1,
                key,
                candidate,
            }
        })
        .collect();
    drawn.sort_by(|a, b| a.failed.cmp(&b.failed).then(a.key.total_cmp(&b.key)));
    count_in_domains(&mut drawn);
    drawn
}

fn count_in_domains<N, D: Ord>(drawn: &mut [Drawn<'_, N, D>]) {
    // Sorted rather than kept in a map: a simulated year asks this for some ten million repairs.
    let mut domains: Vec<(&D, usize)> = drawn.iter().map(|drawn| &drawn.candidate.domain).zip(0..).collect();
    domains.sort_unstable();
    for pair in domains.windows(2) {
        if pair[0].0 == pair[1].0 {
            drawn[pair[1].1].in_domain = drawn[pair[0].1].in_domain + 1;
        }
    }
}

#[cfg(test)]
mod tests;
