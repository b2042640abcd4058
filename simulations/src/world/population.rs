//! Who joins, in which group and for how long, and when it is on.

use commonhold_policy::life::NodeLife;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Disk, LIAR, List, OLD, ON, What, World, own_domain};
use crate::{
    distribution::Distribution,
    scenario::{DAY_MS, Population},
};

impl World<'_> {
    pub(super) fn populate(&mut self) {
        let counts = self.scenario.node_counts();
        for ((population, number), count) in self.scenario.population.iter().zip(0u16..).zip(counts) {
            let lives = Lives::of(population, &mut self.rng);
            for _ in 0..count {
                let (age, rest) = lives.meet(&mut self.rng);
                self.join(number, age, rest, true);
            }
        }
    }

    /// A node joins: at the start one in the middle of its life, later a newcomer.
    /// `age` and `rest` of its life in milliseconds.
    fn join(&mut self, number: u16, age: f64, rest: f64, at_start: bool) -> u32 {
        let population = &self.scenario.population[usize::from(number)];
        let node = self.nodes.flags.len() as u32;
        let peers = f64::from(*self.scenario.network.nodes.get_ref()) * population.share.get_ref().0;
        let group = |rng: &mut ChaCha8Rng, size: u32| {
            let groups = ((peers / f64::from(size)).ceil() as u32).max(1);
            (u32::from(number) << 24) | rng.random_range(0..groups)
        };
        let own = own_domain(node);
        let (per_domain, per_operator) = (*population.per_domain.get_ref(), *population.per_operator.get_ref());
        let domain = if per_domain > 1 { group(&mut self.rng, per_domain) } else { own };
        let operator = if per_operator > 1 { group(&mut self.rng, per_operator) } else { own };
        let region = self.rng.random_range(0..population.regions.len().max(1)) as u16;
        let zone = population.night.as_ref().map_or(0, |night| {
            let zones = &night.get_ref().zones;
            zones[self.rng.random_range(0..zones.len())]
        });

        // The first of an operator's nodes takes all with it: the disk's life, not the shortest of many.
        let rest = if population.one_disk { rest * f64::from(per_operator) } else { rest };
        let liar = if population.cheat.is_some() { LIAR } else { 0 };
        let old = if at_start { OLD } else { 0 };
        self.nodes.flags.push(ON | liar | old);
        self.nodes.population.push(number);
        self.nodes.domain.push(domain);
        self.nodes.operator.push(operator);
        self.nodes.region.push(region);
        self.nodes.zone.push(zone);
        self.nodes.gone_at.push(u64::MAX);
        self.nodes.life.push(NodeLife::new(self.scenario.audit.grace.as_ms()));
        let born = self.now as f64 - age;
        self.nodes.disk.push(Disk { born, free_bytes: population.disk.0, held: List::EMPTY });
        self.nodes.moved.join();
        self.nodes.place.push(self.members.len() as u32);
        self.members.push(node);
        self.queue.push(self.later(rest), What::Leaves { node });
        self.first_session(node, at_start);
        node
    }

    /// A node of this population joins, its life ahead of it.
    pub(super) fn newcomer(&mut self, number: u16) -> u32 {
        let rest = self.scenario.population[usize::from(number)].lifetime.get_ref().draw(&mut self.rng);
        self.join(number, 0.0, rest, false)
    }

    fn first_session(&mut self, node: u32, at_start: bool) {
        let population = self.population(node);
        if let (Some(online), Some(offline)) = (&population.online, &population.offline) {
            let (on, off) = (online.get_ref().mean(), offline.get_ref().mean());
            let is_off = at_start && off.is_finite() && self.rng.random::<f64>() * (on + off) < off;
            if is_off {
                self.off(node);
            } else {
                let lasts = online.get_ref().draw(&mut self.rng);
                let ends = self.later(lasts);
                self.queue.push(ends, What::Off { node });
            }
        } else if let Some(night) = &population.night
            && self.rng.random::<f64>() < night.get_ref().share.0
        {
            let falls_asleep = self.falls_asleep(node);
            self.queue.push(falls_asleep, What::Off { node });
        }
    }

    /// The next 23:00 of a node's local time, half an hour more or less.
    pub(super) fn falls_asleep(&mut self, node: u32) -> u64 {
        let local = 23.0 - f64::from(self.nodes.zone[node as usize]);
        let jitter = self.rng.random::<f64>() - 0.5;
        let in_day = (local + jitter).rem_euclid(24.0) / 24.0 * DAY_MS;
        let today = (self.now as f64 / DAY_MS).floor() * DAY_MS;
        // At least an hour awake, or the jitter would put a node to sleep twice in one night.
        let next = (0..).map(|days| today + f64::from(days) * DAY_MS + in_day);
        next.into_iter().find(|at| *at > self.now as f64 + DAY_MS / 24.0).map_or(u64::MAX, |at| at as u64)
    }
}

/// Lives of one population, to meet nodes in the middle of: long lives are met more often.
#[derive(Debug)]
enum Lives<'s> {
    /// Whatever has passed, what is to come is the same: exact, where the others carry the noise of what was drawn.
    Memoryless(&'s Distribution),
    /// Drawn and added up, in milliseconds.
    Drawn(Vec<f64>),
}

impl<'s> Lives<'s> {
    /// So many that what they leave out of a law's tail does not matter.
    const COUNT: usize = 1 << 16;

    fn of(population: &'s Population, rng: &mut ChaCha8Rng) -> Self {
        let law = population.lifetime.get_ref();
        if matches!(law, Distribution::Exponential { .. }) {
            return Self::Memoryless(law);
        }
        let mut sum = 0.0;
        let add = |_| {
            sum += law.draw(rng);
            sum
        };
        Self::Drawn((0..Self::COUNT).map(add).collect())
    }

    /// How old a node is that is met at a random moment, and how long it still stays.
    fn meet(&self, rng: &mut ChaCha8Rng) -> (f64, f64) {
        let upto = match self {
            Self::Memoryless(law) => return (law.draw(rng), law.draw(rng)),
            Self::Drawn(upto) => upto,
        };
        let all = upto[Self::COUNT - 1];
        if !all.is_finite() {
            return (0.0, f64::INFINITY);
        }
        let moment = rng.random::<f64>() * all;
        let at = upto.partition_point(|end| *end <= moment).min(Self::COUNT - 1);
        let begin = if at == 0 { 0.0 } else { upto[at - 1] };
        (moment - begin, upto[at] - moment)
    }
}
