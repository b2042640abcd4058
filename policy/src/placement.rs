//! Which node gets which shard of a segment, and who stands by.
//!
//! One shard per node, and one per domain while there are enough; nodes with more free pledge are drawn more often, so
//! that pledges fill up evenly; nodes that failed lately come last. Where that is not possible the plan says how often
//! nodes and domains are shared. Nothing is sent here: [`crate::store`] carries a plan out.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::{Coding, NodeId, ShardIndex};
use rand::{Rng, seq::SliceRandom};

use crate::{Domain, Standing};

/// A node that may take shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its failure domain.
    pub domain: Domain,
    /// Bytes that it would still take.
    pub free_bytes: u64,
    /// What we have seen of it lately.
    pub standing: Standing,
}

/// A node that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its failure domain.
    pub domain: Domain,
    /// What we had seen of it when it was chosen.
    pub standing: Standing,
}

/// Where the shards of one segment go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementPlan {
    /// Each shard with its node, by index. An index is missing only if no node had space for a second shard.
    pub slots: BTreeMap<ShardIndex, Place>,
    /// Nodes that get no shard unless another fails, best first.
    pub spares: Vec<Place>,
}

impl PlacementPlan {
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
pub fn plan(
    rng: &mut impl Rng,
    coding: Coding,
    shard_bytes: u64,
    candidates: &[Candidate],
) -> Result<PlacementPlan, PlacementError> {
    let known: BTreeMap<NodeId, &Candidate> = candidates.iter().map(|candidate| (candidate.node, candidate)).collect();
    let ranked = rank(rng, known.values().copied().filter(|candidate| candidate.free_bytes >= shard_bytes));
    let need = usize::from(coding.placed_enough());
    if ranked.len() < need {
        return Err(PlacementError::TooFewNodes { have: ranked.len(), known: known.len(), need, shard_bytes });
    }

    let n = usize::from(coding.n());
    let (chosen, spares) = ranked.split_at(ranked.len().min(n));
    let mut chosen: Vec<&Candidate> = chosen.to_vec();
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
pub fn order<'a>(
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = &'a Candidate>,
    taken: &BTreeSet<Domain>,
) -> Vec<Place> {
    let mut places: Vec<(bool, Place)> = Vec::new();
    let mut seen: BTreeSet<&Domain> = taken.iter().collect();
    for candidate in rank(rng, candidates) {
        let apart = seen.insert(&candidate.domain);
        places.push((!apart, place(candidate)));
    }
    places.sort_by_key(|(shares, _)| *shares);
    places.into_iter().map(|(_, place)| place).collect()
}

fn place(candidate: &Candidate) -> Place {
    Place { node: candidate.node, domain: candidate.domain.clone(), standing: candidate.standing }
}

/// All candidates, best first: those that did not fail lately, then one of each domain before a second of any, then
/// as drawn.
fn rank<'a>(rng: &mut impl Rng, candidates: impl Iterator<Item = &'a Candidate>) -> Vec<&'a Candidate> {
    let mut drawn = draw(rng, candidates);
    drawn.sort_by_key(|candidate| candidate.standing == Standing::RecentlyFailed);
    spread(drawn)
}

/// Draws all candidates one after another, with chances in proportion to their free bytes.
fn draw<'a>(rng: &mut impl Rng, candidates: impl Iterator<Item = &'a Candidate>) -> Vec<&'a Candidate> {
    // That is the same as sorting by exponential variates (Efraimidis and Spirakis, 2006).
    let mut drawn: Vec<(f64, &Candidate)> = candidates
        .map(|candidate| {
            let uniform: f64 = rng.random();
            (-(1.0 - uniform).ln() / candidate.free_bytes.max(1) as f64, candidate)
        })
        .collect();
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    drawn.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Among those of like standing, puts the first of each domain before the second of any, and so on.
fn spread(drawn: Vec<&Candidate>) -> Vec<&Candidate> {
    let mut seen: BTreeMap<&Domain, u32> = BTreeMap::new();
    let mut ranked: Vec<(bool, u32, &Candidate)> = drawn
        .into_iter()
        .map(|candidate| {
            let in_domain = seen.entry(&candidate.domain).or_default();
            *in_domain += 1;
            (candidate.standing == Standing::RecentlyFailed, *in_domain, candidate)
        })
        .collect();
    // Stable, so the draw decides among equals.
    ranked.sort_by_key(|(failed, in_domain, _)| (*failed, *in_domain));
    ranked.into_iter().map(|(_, _, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests;
