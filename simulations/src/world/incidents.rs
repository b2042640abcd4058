//! What befalls many at once: a region is cut off, an operator leaves, a bad release stops half of the nodes.

use rand::{Rng, seq::IndexedRandom};

use super::World;
use crate::chain;

impl World<'_> {
    pub(super) fn incident(&mut self, number: usize) {
        let incident = &self.scenario.incident[number];
        // Whole operators: the same draw for all nodes of one.
        let salt: u64 = self.rng.random();
        let mut struck: Vec<u32> =
            self.members.iter().copied().filter(|node| self.is_struck(number, *node, salt)).collect();
        if let Some(count) = &incident.nodes {
            struck = struck.choose_multiple(&mut self.rng, *count.get_ref() as usize).copied().collect();
        }
        let until = incident.lasts.map(|lasts| self.later(lasts.ms()));
        if until.is_none() {
            self.expect_losses(struck.len() as f64 / self.members.len().max(1) as f64);
        }
        for node in struck {
            match until {
                Some(until) => self.outage(node, until),
                None => self.leaves_alone(node),
            }
        }
    }

    /// The part `share` of all nodes is about to go for good: how likely is each watched segment lost with them? Far too
    /// seldom to be seen, mostly.
    fn expect_losses(&mut self, share: f64) {
        let k = self.coding.k();
        let watched = (0..self.segments.len() as u32).filter(|segment| self.is_watched(*segment));
        let standing = watched.map(|segment| self.count_alive(segment)).filter(|alive| *alive >= k);
        let lost: f64 = standing.map(|alive| chain::binomial_tail(alive, alive - k + 1, share)).sum();
        self.tally.lost_at_once += lost;
    }

    /// Indices of which a real copy is on a disk that is there; of a lost segment there is none.
    fn count_alive(&self, segment: u32) -> u8 {
        let claims = self.segments[segment as usize].health.claims().iter();
        let mut alive: Vec<u8> = claims.filter(|claim| self.is_real(claim.node)).map(|claim| claim.index.0).collect();
        alive.sort_unstable();
        alive.dedup();
        alive.len() as u8
    }

    fn is_struck(&self, number: usize, node: u32, salt: u64) -> bool {
        let incident = &self.scenario.incident[number];
        let population = self.population(node);
        let region = population.regions.get(usize::from(self.nodes.region[node as usize]));
        let drawn = mix(salt ^ u64::from(self.nodes.operator[node as usize])) as f64 / u64::MAX as f64;
        incident.region.as_ref().is_none_or(|name| Some(name.get_ref()) == region)
            && incident.population.as_ref().is_none_or(|name| *name.get_ref() == population.name)
            && drawn < incident.share.0
    }
}

/// SplitMix64's finalizer (Steele et al., 2014): a number to a random-looking one.
pub(super) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
