//! The law of detection, from which the simulator draws, against a small network in which every audit is played: with
//! the schedule and the containment that a node's auditor follows.

use std::{collections::BTreeMap, path::Path};

use commonhold_policy::{
    Domain,
    audit::{
        Answer, Outcome,
        containment::{Action, Containment, Event},
        detection::{DetectionParams, contained_ms, detection_chance},
        schedule::{self, Rate, Schedule},
    },
    detection_delay,
    stewards::{self, STEWARDS},
};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp, shard_stream::GROUP_BYTES};
use commonhold_simulations::{Scenario, run};
use rand::{Rng, SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

const NODES: usize = 24;
const SEGMENTS: usize = 40;
const SHARDS: usize = 10;
const GROUPS: u32 = 40;
/// Level 0.001 of the test by Kolmogorov and Smirnov, two samples of one size.
const CRITICAL: f64 = 1.9495;

struct Network {
    rate: Rate,
    schedules: BTreeMap<NodeId, Schedule>,
    /// Each shard of the cheat, with the stewards of its segment.
    held: Vec<(SegmentId, Vec<NodeId>)>,
    cheat: NodeId,
}

impl Network {
    /// Nodes and segments at random places of the key space, the stewards those that policy names.
    fn new(rng: &mut ChaCha8Rng, rate: Rate) -> Self {
        let ids: Vec<NodeId> = (0..NODES).map(|_| NodeId::from_bytes(rng.random())).collect();
        let cheat = ids[0];
        let candidates: Vec<(NodeId, Domain)> =
            ids.iter().zip(0..).map(|(id, number): (_, u32)| (*id, Domain::new(number.to_string()))).collect();
        let mut held = Vec::new();
        for _ in 0..SEGMENTS {
            let segment = SegmentId::from_bytes(rng.random());
            if index::sample(rng, NODES, SHARDS).into_iter().any(|holder| holder == 0) {
                let keepers = stewards::choose(segment.as_bytes(), &candidates[1..]);
                held.push((segment, keepers));
            }
        }
        let schedules = ids.iter().map(|id| (*id, Schedule::new(rng.random(), rate))).collect();
        Self { rate, schedules, held, cheat }
    }

    /// The cheat loses these groups of each of its shards at a random moment. When does somebody know of `watched`
    /// shards of it, the first of all if none is given? Every audit of every steward is played until then.
    fn play(&self, rng: &mut ChaCha8Rng, lost_groups: u32, watched: Option<usize>) -> u64 {
        let lost_at = Timestamp(rng.random_range(0..self.rate.epoch_ms()));
        let mut first: Option<u64> = None;
        for epoch in 0.. {
            for (steward, schedule) in &self.schedules {
                let moment = schedule.moment(&self.cheat, epoch);
                if moment < lost_at {
                    continue;
                }
                let mut due = Vec::new();
                for (number, (segment, keepers)) in self.held.iter().enumerate() {
                    let is_asked = watched.is_none_or(|watched| watched == number) && keepers.contains(steward);
                    if is_asked && schedule.is_due(segment, keepers.len(), epoch) {
                        let groups = self.rate.groups(self.held.len() as u64);
                        let bytes = u64::from(GROUPS) * GROUP_BYTES;
                        due.extend(schedule::samples(rng, *segment, ShardIndex(0), bytes, groups));
                    }
                }
                if let Some(found) = self.audit(moment, due, lost_groups) {
                    let delay = found.ms_since(lost_at);
                    first = Some(first.map_or(delay, |first| first.min(delay)));
                }
            }
            // What is found in the next epoch is found later: each waits as long from the first asking.
            if let Some(first) = first {
                return first;
            }
        }
        unreachable!("epochs do not end")
    }

    /// One steward's challenges to the cheat, which leaves out what it has lost; the moment of the first verdict.
    fn audit(
        &self,
        moment: Timestamp,
        due: Vec<commonhold_policy::audit::Sample>,
        lost_groups: u32,
    ) -> Option<Timestamp> {
        let (mut machine, mut now) = (Containment::new(self.rate), moment);
        let mut actions = machine.handle(now, Event::Due(due));
        loop {
            let failed = |action: &Action| matches!(action, Action::Verdict { outcome: Outcome::Refused, .. });
            if actions.iter().any(failed) {
                return Some(now);
            }
            let event = match actions.last()? {
                Action::Ask { samples, .. } => {
                    let answer = |groups: &[u32]| {
                        if groups.iter().any(|group| *group < lost_groups) { Answer::Missing } else { Answer::Held }
                    };
                    Event::Answered(samples.iter().map(|sample| answer(&sample.groups)).collect())
                }
                Action::Timer { at } => {
                    now = *at;
                    Event::Timer
                }
                _ => return None,
            };
            actions = machine.handle(now, event);
        }
    }
}

/// The largest distance between the two distributions.
fn distance(mut a: Vec<u64>, mut b: Vec<u64>) -> f64 {
    a.sort_unstable();
    b.sort_unstable();
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].partition_point(|other| *other <= value);
        j += b[j..].partition_point(|other| *other <= value);
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

/// As the simulator draws it: for each shard by itself, by its own eight stewards.
fn params(rate: Rate, held: usize, lost: f64) -> DetectionParams {
    DetectionParams {
        rate,
        stewards: STEWARDS,
        shards: 1,
        auditors: STEWARDS as u64,
        groups_asked: rate.groups(held as u64),
        shard_groups: GROUPS,
        lost,
        contained_ms: contained_ms(rate),
    }
}

#[test]
fn one_shard_of_a_network_is_found_as_the_simulator_draws_it() {
    const DRAWS: usize = 4_000;
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    // 100 groups a day would be all of a shard each time; of a larger holder one group is asked.
    for (every_ms, lost_groups) in [(7 * 86_400_000, GROUPS), (600_000, 8)] {
        let rate = Rate { every_ms };
        let (mut played, mut drawn) = (Vec::new(), Vec::new());
        while played.len() < DRAWS {
            let network = Network::new(&mut rng, rate);
            let Some(watched) = network.held.len().checked_sub(1) else { continue };
            played.push(network.play(&mut rng, lost_groups, Some(watched)));
            let law = params(rate, network.held.len(), f64::from(lost_groups) / f64::from(GROUPS));
            drawn.push(detection_delay(&mut rng, &law).expect("something is lost").as_millis() as u64);
        }
        let (apart, allowed) = (distance(played, drawn), CRITICAL * (2.0 / DRAWS as f64).sqrt());
        println!("every {every_ms} ms, {lost_groups} groups lost: {apart:.4} apart, {allowed:.4} allowed");
        assert!(apart < allowed, "every {every_ms} ms: {apart} apart, {allowed} allowed");
    }
}

/// The first that is found of all that a cheat holds is the earliest of draws for each of its shards.
#[test]
fn a_cheat_is_found_first_as_the_simulator_draws_it() {
    const DRAWS: usize = 4_000;
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let rate = Rate { every_ms: 600_000 };
    let (mut played, mut drawn) = (Vec::new(), Vec::new());
    while played.len() < DRAWS {
        let network = Network::new(&mut rng, rate);
        if network.held.is_empty() {
            continue;
        }
        played.push(network.play(&mut rng, 4, None));
        let law = params(rate, network.held.len(), 0.1);
        let delays = (0..network.held.len()).filter_map(|_| detection_delay(&mut rng, &law));
        drawn.push(delays.min().expect("something is lost").as_millis() as u64);
    }
    let (apart, allowed) = (distance(played, drawn), CRITICAL * (2.0 / DRAWS as f64).sqrt());
    println!("first of all: {apart:.4} apart, {allowed:.4} allowed");
    assert!(apart < allowed, "{apart} apart, {allowed} allowed");
}

/// The simulator itself, not only the law that it draws from: a cheat in the same small network.
#[test]
fn a_simulated_network_finds_a_cheat_as_one_does_in_which_every_audit_is_played() {
    const PLAYED: usize = 4_000;
    const RUNS: usize = 3_000;
    let text = format!(
        "name = \"cheat\"\nsource = \"assumed\"\nduration = \"1 d\"\nruns = {RUNS}\n\
         [network]\nnodes = {NODES}\nsegments = {SEGMENTS}\nsegment-size = \"{} KiB\"\ncoding = \"5/{SHARDS}\"\n\
         [audit]\nevery = \"600 s\"\n\
         [[population]]\nname = \"honest\"\nshare = {honest}\nlifetime = {{ law = \"never\" }}\n\
         [[population]]\nname = \"cheat\"\nshare = {}\nlifetime = {{ law = \"never\" }}\n\
         cheat = {{ kind = \"drop\", lost = 0.1 }}\n",
        5 * u64::from(GROUPS) * GROUP_BYTES / 1024,
        1.0 - honest(),
        honest = honest(),
    );
    let scenario = Scenario::parse(&text, Path::new("cheat.toml"), Path::new(".")).expect("a good scenario");
    let found = run(&scenario, 11).cheats.expect("there is one").first_days;
    assert_eq!(found.count as usize, RUNS, "each was found");

    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let rate = Rate { every_ms: 600_000 };
    let mut played = Vec::new();
    while played.len() < PLAYED {
        let network = Network::new(&mut rng, rate);
        if !network.held.is_empty() {
            played.push(network.play(&mut rng, 4, None) as f64 / 86_400_000.0);
        }
    }
    let allowed = CRITICAL * (1.0 / PLAYED as f64 + 1.0 / RUNS as f64).sqrt();
    for (number, below) in found.twentieths.into_iter().enumerate() {
        let share = played.iter().filter(|delay| **delay <= below).count() as f64 / PLAYED as f64;
        let apart = share - number as f64 / 20.0;
        println!("{number} twentieths below {:.0} s, of those that were played {share:.3}", below * 86_400.0);
        assert!(apart.abs() < allowed, "{number} twentieths: {share}, {allowed} allowed");
    }
}

/// The part of the nodes that is honest: all but one.
fn honest() -> f64 {
    1.0 - 1.0 / NODES as f64
}

/// 1 - (1 - f)^c, with what an auditor draws: groups of many shards, one of each.
#[test]
fn groups_of_many_shards_find_what_the_closed_form_says() {
    const TRIALS: u32 = 20_000;
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (lost_groups, shards) in [(1u32, 10u32), (1, 60), (2, 44), (8, 7)] {
        let mut found = 0;
        for _ in 0..TRIALS {
            let mut samples = (0..shards).flat_map(|shard| {
                let segment = SegmentId::from_bytes([shard as u8; 32]);
                schedule::samples(&mut rng, segment, ShardIndex(0), u64::from(GROUPS) * GROUP_BYTES, 1)
            });
            found += u32::from(samples.any(|sample| sample.groups.iter().any(|group| *group < lost_groups)));
        }
        let expected = detection_chance(f64::from(lost_groups) / f64::from(GROUPS), u64::from(shards));
        let error = (expected * (1.0 - expected) / f64::from(TRIALS)).sqrt();
        let found = f64::from(found) / f64::from(TRIALS);
        assert!(
            (found - expected).abs() < 3.5 * error,
            "{lost_groups} of {GROUPS}, {shards}: {found} against {expected}"
        );
    }
}
