//! What befalls many at once: a region is cut off, an operator leaves, a bad release stops half of the nodes.

use std::collections::BTreeSet;

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
        if let Some(count) = &incident.operators {
            let operators: BTreeSet<u32> = struck.iter().map(|node| self.nodes.operator[*node as usize]).collect();
            let operators: Vec<u32> = operators.into_iter().collect();
            let drawn: BTreeSet<u32> =
                operators.choose_multiple(&mut self.rng, *count.get_ref() as usize).copied().collect();
            struck.retain(|node| drawn.contains(&self.nodes.operator[*node as usize]));
        }
        if let Some(count) = &incident.nodes {
            struck = struck.choose_multiple(&mut self.rng, *count.get_ref() as usize).copied().collect();
        }
        if let Some(name) = &incident.name {
            self.struck.insert(name.get_ref(), struck.iter().copied().collect());
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
    /// seldom to be seen, mostly; and what of it there is hangs on a few that are thin at that moment, so all moments so
    /// far at which segments were looked at count, as if it could have been any of them.
    fn expect_losses(&mut self, share: f64) {
        self.look_at_watched();
        let k = self.aim.coding.k();
        let looked_at = (k..=u8::MAX).zip(&self.alive_so_far[usize::from(k)..]);
        let lost: f64 =
            looked_at.map(|(alive, seen)| *seen as f64 * chain::binomial_tail(alive, alive - k + 1, share)).sum();
        self.tally.lost_at_once += lost / self.looks as f64;
    }

    /// Counts the watched segments that are not lost by the real shards that are there.
    pub(super) fn look_at_watched(&mut self) {
        self.looks += 1;
        for truth in self.truth.iter().step_by(self.watch_each as usize).filter(|truth| !truth.lost) {
            self.alive_so_far[usize::from(truth.alive)] += 1;
        }
    }

    fn is_struck(&self, number: usize, node: u32, salt: u64) -> bool {
        let incident = &self.scenario.incident[number];
        let population = self.population(node);
        let region = population.regions.get(usize::from(self.nodes.region[node as usize]));
        let drawn = mix(salt ^ u64::from(self.nodes.operator[node as usize])) as f64 / u64::MAX as f64;
        let was_struck = |by: &str| self.struck.get(by).is_some_and(|nodes| nodes.contains(&node));
        incident.of.as_ref().is_none_or(|name| was_struck(name.get_ref()))
            && incident.region.as_ref().is_none_or(|name| Some(name.get_ref()) == region)
            && incident.population.as_ref().is_none_or(|name| *name.get_ref() == population.name)
            && incident.share.as_ref().is_none_or(|share| drawn < share.get_ref().0)
    }
}

/// SplitMix64's finalizer (Steele et al., 2014): a number to a random-looking one.
pub(super) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
