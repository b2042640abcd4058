//! The simulated network: what happens when, with every decision taken by `policy`.
//!
//! A node's coming and going is played event by event, through `policy::life`; its shards are touched only when it
//! leaves for good, is given up or returns from that: the cost is per lost node. Audits are not played: when they
//! find a cheat is drawn from `policy::detection_delay`, the law that the auditor follows. All stewards of a segment
//! see the same, and the first in rank that is on acts: each that is off costs one back-off of some minutes.

mod ahead;
mod cheats;
mod holders;
mod incidents;
mod losses;
mod population;
mod repairs;
mod shards;
mod stewards;

use std::collections::{BTreeMap, BTreeSet};

use ahead::{Draws, Moved};
use commonhold_policy::{
    audit::schedule::Rate,
    life::{self, NodeLife},
    repair::{
        Aim,
        order::{RepairOrder, Times},
    },
    segment_health::SegmentHealth,
};
use commonhold_protocol::Timestamp;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use shards::{Held, List, Pool};
use stewards::{AllDuties, Reputations};

use crate::{
    memory::{self, prefetch},
    queue::Queue,
    scenario::{Population, Scenario},
    tally::Tally,
};

/// How often reads are tried in a run, and on how many segments each time.
const SAMPLES: u64 = 200;
const SAMPLED_SEGMENTS: u32 = 200;
/// So many segments are watched closely, for the estimate of losses too rare to be seen.
const WATCHED: u32 = 20_000;

/// Of fewer shards the processor knows the places of all pages anyway.
const GATHERED_SHARDS_MIN: u64 = 1 << 20;
/// So many events ahead is fetched what they touch, see [`World::look_ahead`].
const FAR: usize = 24;
const NEAR: usize = 8;

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Leaves { node: u32 },
    Off { node: u32 },
    On { node: u32 },
    OutageEnds { node: u32 },
    LifeTimer { node: u32 },
    RepairTimer { segment: u32 },
    Repaired { segment: u32, number: u16 },
    CheatFound { segment: u32, node: u32, index: u8 },
    Reviewed { steward: u32, node: u32 },
    AlsoFound { steward: u32, node: u32 },
    Incident { number: u32 },
    Sample,
}

const ON: u8 = 1;
const OUTAGE: u8 = 2;
const GONE: u8 = 4;
/// It does not hold what it claims.
const LIAR: u8 = 8;
/// It has been there since before the start.
const OLD: u8 = 16;

/// All nodes there ever were, by number: one array for each property, so that a walk over one touches nothing else.
#[derive(Debug, Default)]
struct Nodes {
    flags: Vec<u8>,
    population: Vec<u16>,
    domain: Vec<u32>,
    operator: Vec<u32>,
    region: Vec<u16>,
    zone: Vec<i8>,
    gone_at: Vec<u64>,
    life: Vec<NodeLife>,
    disk: Vec<Disk>,
    moved: Moved,
    /// Where it stands among the members.
    place: Vec<u32>,
}

impl Nodes {
    fn with_capacity(nodes: usize) -> Self {
        // The rest is small.
        Self { life: Vec::with_capacity(nodes), disk: Vec::with_capacity(nodes), ..Self::default() }
    }
}

/// A node's disk: what a repair touches of a node that it may move bytes to lies together.
#[derive(Debug)]
#[repr(align(64))]
struct Disk {
    /// Milliseconds; before the start for those that were there already.
    born: f64,
    free_bytes: u64,
    held: List,
}

/// A segment: what is touched together lies together, in two cache lines; its claims besides.
#[derive(Debug)]
#[repr(align(64))]
struct Segment {
    health: SegmentHealth<u32>,
    order: RepairOrder,
    /// The one repair that counts.
    repair: u16,
    /// The steward whose turn it has or waits for.
    steward: u32,
}

const _: () = assert!(size_of::<Segment>() == 2 * 64);

/// No steward.
const NOBODY: u32 = u32::MAX;

/// What is truly there of a segment. By itself, since all that is held by a node that dies is counted down at once: a
/// segment is hundreds of bytes somewhere in gigabytes, this is two in a few megabytes.
#[derive(Debug, Clone, Copy)]
struct Truth {
    /// Indices of which a real shard is on the disk of a node that has not left for good.
    alive: u8,
    lost: bool,
    /// Some index may have more than one claim.
    doubled: bool,
}

/// From when on a segment that is watched is thin, and how it was at that moment.
#[derive(Debug, Clone, Copy)]
struct Since {
    /// Milliseconds.
    at: u64,
    /// Real shards on disks that are there.
    alive: u8,
    /// How often each of their holders leaves, in a millisecond.
    hazard: f64,
}

/// Since when a watched segment has to be repaired, or will have to be as soon as it is known who is gone.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    /// Fewer than n are there or seem to be.
    below_n: Option<Since>,
    /// No more than the threshold.
    at_threshold: Option<Since>,
}

/// One run.
pub(crate) struct World<'s> {
    scenario: &'s Scenario,
    aim: Aim,
    shard_bytes: u64,
    times: Times,
    rate: Rate,
    rng: ChaCha8Rng,
    /// Whom samples will look at.
    draws: Draws,
    queue: Queue<What>,
    now: u64,
    end: u64,
    nodes: Nodes,
    members: Vec<u32>,
    segments: Vec<Segment>,
    truth: Vec<Truth>,
    placed_at: Vec<u64>,
    /// Of those that are watched: one of `watch_each`.
    watched: Vec<Watched>,
    /// Watched segments by the shards that are there, over all moments at which they were looked at.
    alive_so_far: [u64; 256],
    looks: u32,
    pool: Pool,
    /// No two nodes share a domain.
    apart: bool,
    /// There are so many nodes and domains that each repair finds room.
    ample: bool,
    /// Segments that wait for room, where it is not ample.
    resting: BTreeSet<u32>,
    watch_each: u32,
    has_cheats: bool,
    /// Until then all is as whole as it was placed, and says little of later days.
    warm_at: u64,
    cheats: cheats::Cheats,
    reputations: Reputations,
    duties: AllDuties,
    /// Whom incidents struck that have a name.
    struck: BTreeMap<&'s str, BTreeSet<u32>>,
    /// The segments of the start are placed.
    is_placed: bool,
    tally: Tally,
}

impl<'s> World<'s> {
    /// The network at the start of run `run`.
    pub(crate) fn new(scenario: &'s Scenario, seed: u64, run: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(run));
        let coding = scenario.coding();
        let end = scenario.duration.get_ref().as_ms().max(1);
        let (node_count, segment_count) = (*scenario.network.nodes.get_ref(), *scenario.network.segments.get_ref());
        let times = Times::new(scenario.repair.top_up.as_ms(), scenario.audit.grace.as_ms());
        let mut world = Self {
            scenario,
            aim: Aim { coding, threshold: scenario.threshold() },
            shard_bytes: coding.shard_length(scenario.network.segment_size.0),
            times,
            rate: Rate { every_ms: scenario.audit.every.as_ms().max(1) },
            rng,
            draws: Draws::default(),
            queue: Queue::new(end),
            now: 0,
            end,
            // As many newcomers as there are members, before it has to move: that would scatter its pages again.
            nodes: Nodes::with_capacity(2 * node_count as usize),
            members: Vec::new(),
            segments: Vec::with_capacity(segment_count as usize),
            truth: Vec::with_capacity(segment_count as usize),
            placed_at: Vec::with_capacity(segment_count as usize),
            watched: Vec::new(),
            alive_so_far: [0; 256],
            looks: 0,
            pool: Pool::with_capacity(node_count as usize, segment_count as usize * usize::from(coding.n())),
            apart: scenario.population.iter().all(|population| *population.per_domain.get_ref() <= 1),
            ample: false,
            resting: BTreeSet::new(),
            watch_each: (segment_count / WATCHED).max(1),
            has_cheats: scenario.population.iter().any(|population| population.cheat.is_some()),
            warm_at: warm_at(scenario),
            cheats: cheats::Cheats::default(),
            reputations: Reputations::default(),
            duties: AllDuties::default(),
            struck: BTreeMap::new(),
            is_placed: false,
            tally: Tally::default(),
        };
        world.populate();
        // Side by side are no nodes of one population: neighbours are stewards together.
        world.members.shuffle(&mut world.rng);
        for (place, node) in (0..).zip(&world.members) {
            world.nodes.place[*node as usize] = place;
        }
        world.ample = node_count >= 3 * u32::from(coding.n()) && world.domain_count() >= 3 * usize::from(coding.n());
        for _ in 0..segment_count {
            world.place_segment();
        }
        if u64::from(segment_count) * u64::from(coding.n()) >= GATHERED_SHARDS_MIN {
            memory::gather();
        }
        world.draw_detections();
        for number in 0..scenario.incident.len() as u32 {
            world.queue.push(scenario.incident[number as usize].at.get_ref().as_ms(), What::Incident { number });
        }
        for sample in 1..=SAMPLES {
            world.queue.push(end / SAMPLES * sample, What::Sample);
        }
        world
    }

    /// Plays it to its end.
    pub(crate) fn run(mut self) -> Tally {
        while let Some(event) = self.queue.pop() {
            self.now = event.at.max(self.now);
            self.look_ahead();
            self.tally.events += 1;
            match event.what {
                What::Leaves { node } => self.leaves(node),
                What::Off { node } => self.off(node),
                What::On { node } => self.on(node),
                What::OutageEnds { node } => self.outage_ends(node),
                What::LifeTimer { node } => self.live(node, life::Event::Timer, u64::MAX),
                What::RepairTimer { segment } => self.repair_timer(segment),
                What::Repaired { segment, number } => self.repaired(segment, number),
                What::CheatFound { segment, node, index } => self.cheat_found(segment, node, index),
                What::Reviewed { steward, node } => self.reviewed(steward, node),
                What::AlsoFound { steward, node } => self.also_found(steward, node),
                What::Incident { number } => self.incident(number as usize),
                What::Sample => self.sample(),
            }
        }
        self.now = self.end;
        self.sum_up();
        self.tally
    }

    /// Has what comes later fetched from memory: first where it lies, then what that tells the place of.
    fn look_ahead(&self) {
        match self.queue.ahead(FAR).map(|event| event.what) {
            Some(What::RepairTimer { segment } | What::Repaired { segment, .. }) => self.fetch_segment(segment),
            Some(What::Leaves { node } | What::LifeTimer { node } | What::Off { node } | What::On { node }) => {
                self.fetch_node(node);
            }
            _ => {}
        }
        match self.queue.ahead(NEAR).map(|event| event.what) {
            Some(What::RepairTimer { segment }) => self.fetch_steward(segment),
            Some(What::Repaired { segment, .. }) => {
                self.fetch_steward(segment);
                prefetch(self.segments[segment as usize].health.claims());
            }
            _ => {}
        }
    }

    /// As [`Self::look_ahead`], while these shards are lost one after the other and the next is number `at`.
    fn look_ahead_at(&self, shards: &[Held], at: usize) {
        if at == 0 {
            shards.iter().take(FAR).for_each(|shard| self.fetch_segment(shard.segment));
        }
        if let Some(shard) = shards.get(at + FAR) {
            self.fetch_segment(shard.segment);
        }
        if let Some(shard) = shards.get(at + NEAR) {
            prefetch(&self.nodes.flags[self.first_steward(shard.segment) as usize]);
            if let Some(claim) = self.segments[shard.segment as usize].health.claims().get(usize::from(shard.index)) {
                prefetch(claim);
            }
        }
    }

    fn fetch_segment(&self, segment: u32) {
        prefetch(&self.truth[segment as usize]);
        prefetch(&self.segments[segment as usize]);
        prefetch(&self.members[self.first_place(segment)]);
    }

    /// Of a segment that was fetched.
    fn fetch_steward(&self, segment: u32) {
        let steward = self.first_steward(segment) as usize;
        prefetch(&self.nodes.flags[steward]);
        prefetch(&self.nodes.disk[steward]);
    }

    fn fetch_node(&self, node: u32) {
        let at = node as usize;
        prefetch(&self.nodes.flags[at]);
        prefetch(&self.nodes.life[at]);
        prefetch(&self.nodes.disk[at]);
        prefetch(&self.nodes.gone_at[at]);
        prefetch(&self.nodes.place[at]);
    }

    fn moment(&self) -> Timestamp {
        Timestamp(self.now)
    }

    fn population(&self, node: u32) -> &'s Population {
        &self.scenario.population[usize::from(self.nodes.population[node as usize])]
    }

    fn is_online(&self, node: u32) -> bool {
        self.nodes.flags[node as usize] & (ON | OUTAGE | GONE) == ON
    }

    /// Whether what the node claims is on its disk, and the disk is there.
    fn is_real(&self, node: u32) -> bool {
        self.nodes.flags[node as usize] & (GONE | LIAR) == 0
    }

    fn is_watched(&self, segment: u32) -> bool {
        segment.is_multiple_of(self.watch_each)
    }

    /// A node's failure domain.
    fn domain(&self, node: u32) -> u32 {
        if self.apart { own_domain(node) } else { self.nodes.domain[node as usize] }
    }

    fn domain_count(&self) -> usize {
        let mut domains: Vec<u32> = self.members.iter().map(|node| self.domain(*node)).collect();
        domains.sort_unstable();
        domains.dedup();
        domains.len()
    }

    fn later(&self, ms: f64) -> u64 {
        // The cast saturates: what never happens lies beyond any horizon.
        self.now.saturating_add(ms as u64)
    }

    /// Reads of some segments, at a random choice: can each be restored from the nodes that are on?
    fn sample(&mut self) {
        if self.now >= self.warm_at {
            self.look_at_watched();
        }
        let count = self.segments.len() as u32;
        let (mut failed, mut tried) = (0, 0);
        for _ in 0..SAMPLED_SEGMENTS.min(count) {
            let segment = self.rng.random_range(0..count);
            if self.truth[segment as usize].lost {
                continue;
            }
            tried += 1;
            failed += u64::from(self.readable(segment) < self.aim.coding.k());
        }
        self.tally.reads.push((failed, tried));
        let on = self.members.iter().step_by(self.members.len().div_ceil(1000)).filter(|node| self.is_online(**node));
        self.tally.online_sampled.0 += on.count() as u64;
        self.tally.online_sampled.1 += self.members.iter().step_by(self.members.len().div_ceil(1000)).count() as u64;
    }

    /// Indices of which a real shard is on a node that is on.
    fn readable(&self, segment: u32) -> u8 {
        let mut last = None;
        let mut count = 0;
        for claim in self.segments[segment as usize].health.claims() {
            if last != Some(claim.index) && self.is_online(claim.node) && self.is_real(claim.node) {
                last = Some(claim.index);
                count += 1;
            }
        }
        count
    }
}

/// When a network that was whole has been thinned by as many departures as later on: after a top-up, but before the first
/// incident is half-way.
fn warm_at(scenario: &Scenario) -> u64 {
    let top_up = scenario.audit.grace.as_ms().saturating_add(scenario.repair.top_up.as_ms());
    let incidents = scenario.incident.iter().filter(|incident| incident.lasts.is_none());
    let first = incidents.map(|incident| incident.at.get_ref().as_ms()).min();
    first.map_or(top_up, |first| top_up.min(first / 2))
}

/// The domain of a node that shares with nobody: above all groups' numbers.
fn own_domain(node: u32) -> u32 {
    u32::MAX - node
}
