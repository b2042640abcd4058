//! The decisions that are measured, each with what it may allocate: about twice what it does, or nothing where it does
//! not. Whoever measures says how.

use std::{collections::BTreeMap, hint::black_box};

use commonhold_policy::{
    Domain, Failure, Standing,
    audit::{
        Answer, Outcome,
        containment::{self, Containment},
        detection::DetectionParams,
        schedule::{self, Rate, Schedule},
    },
    detection_delay,
    fetch::{self, Columns, Fetch, Want},
    life::{self, NodeLife},
    parameters::{self, Churn, Nines},
    placement::{self, Candidate},
    repair::{self, plan::Helper},
    reputation::{Reputation, Trust},
    segment_health::{SegmentHealth, Source},
    stewards, store,
    sweep::{Entry, RangeDigest},
};
use commonhold_protocol::{Coding, NodeId, SegmentId, ShardIndex, Timestamp};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::allocations::Allocations;

/// Measures decisions one by one.
pub(crate) trait Measure {
    /// Measures `decide`, which takes what `prepare` makes and allocates no more than `most`.
    fn measure<I, O>(&mut self, name: &str, most: Allocations, prepare: impl FnMut() -> I, decide: impl FnMut(I) -> O);
}

/// No allocation at all.
const NONE: Allocations = most(0, 0);

const fn most(count: u64, bytes: u64) -> Allocations {
    Allocations { count, bytes }
}

/// All decisions.
pub(crate) fn measure_all(by: &mut impl Measure) {
    place(by);
    carry_out(by);
    audit(by);
    keep(by);
}

fn node(number: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    NodeId::from_bytes(bytes)
}

fn candidates(count: usize) -> Vec<Candidate> {
    let candidate = |number: usize| Candidate {
        node: node(number),
        domain: Domain::new(format!("domain-{}", number / 2)),
        free_bytes: 1 << 30,
        standing: Standing::KnownGood,
    };
    (0..count).map(candidate).collect()
}

fn coding() -> Coding {
    Coding::new(20, 40).expect("20 of 40 is a coding")
}

fn place(by: &mut impl Measure) {
    let all = candidates(200);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    by.measure(
        "placement 20/40 among 200 nodes",
        most(40, 90_000),
        || (),
        |()| placement::plan(&mut rng, coding(), 1 << 20, black_box(&all)),
    );
    let domains: Vec<(NodeId, Domain)> =
        all.iter().map(|candidate| (candidate.node, candidate.domain.clone())).collect();
    by.measure(
        "stewards among 20 nodes",
        most(26, 11_000),
        || (),
        |()| stewards::choose(black_box(&[7; 32]), &domains[..20]),
    );
    let target = Nines::new(9).expect("a target");
    by.measure(
        "the cheapest coding of nine nines",
        NONE,
        || (),
        |()| parameters::cheapest(black_box(target), 200, &Churn::ASSUMED),
    );
}

fn carry_out(by: &mut impl Measure) {
    let all = candidates(60);
    let plan = placement::plan(&mut ChaCha8Rng::seed_from_u64(1), coding(), 1 << 20, &all).expect("60 nodes suffice");
    by.measure(
        "store 20/40, all claimed",
        most(120, 62_000),
        || plan.clone(),
        |plan| {
            let (mut machine, mut actions) = store::Store::start(plan, coding(), Timestamp(0));
            let mut now = 0;
            while let Some(action) = actions.pop() {
                if let store::Action::Upload { index, node } = action {
                    now += 1;
                    actions.extend(machine.handle(Timestamp(now), store::Event::Claimed { index, node }));
                }
            }
            machine
        },
    );

    let whole = Columns { start: 0, end: 1 << 20 };
    let shards = coding().indices().take(20).map(|index| (index, whole)).collect();
    let want = Want { coding: coding(), shards };
    let hints: fetch::Holders =
        coding().indices().map(|index| (index, vec![(node(usize::from(index.0)), Standing::Connected)])).collect();
    let prepare = || (want.clone(), hints.clone());
    by.measure("fetch 20/40, every other holder dead", most(740, 150_000), prepare, |(want, hints)| {
        let (mut machine, mut actions) = Fetch::start(want, hints, Timestamp(0));
        let mut now = 0;
        while let Some(action) = actions.pop() {
            if let fetch::Action::Ask { index, node, .. } = action {
                now += 1;
                let event = match index.0 % 2 {
                    0 => fetch::Event::Got { index, node },
                    _ => fetch::Event::Failed { index, node, failure: Failure::Unreachable },
                };
                actions.extend(machine.handle(Timestamp(now), event));
            }
        }
        machine
    });
}

fn audit(by: &mut impl Measure) {
    let rate = Rate::default();
    let schedule = Schedule::new([1; 32], rate);
    let mut epoch = 0;
    by.measure(
        "is a segment due",
        NONE,
        || (),
        |()| {
            epoch += 1;
            schedule.is_due(black_box(&SegmentId::from_bytes([3; 32])), 8, epoch)
        },
    );
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    by.measure(
        "sample one of 64 groups",
        most(8, 180),
        || (),
        |()| schedule::samples(&mut rng, SegmentId::from_bytes([3; 32]), ShardIndex(1), 1 << 20, 1),
    );
    let due: Vec<_> = (0..32u8)
        .flat_map(|i| schedule::samples(&mut rng, SegmentId::from_bytes([i; 32]), ShardIndex(1), 1 << 20, 1))
        .collect();
    by.measure(
        "challenge of 32 shards, asked and held",
        most(90, 22_000),
        || due.clone(),
        |due| {
            let mut machine = Containment::new(rate);
            let asked = machine.handle(Timestamp(0), containment::Event::Due(due));
            let held = containment::Event::Answered(vec![Answer::Held; 32]);
            (asked, machine.handle(Timestamp(1), held))
        },
    );
    let mut reputation = Reputation::new(Timestamp(0));
    by.measure("count an audit", NONE, || (), |()| reputation.count(black_box(Outcome::Held)));
    let params = DetectionParams {
        rate,
        stewards: 8,
        shards: 1_000,
        auditors: 5_000,
        groups_asked: 1,
        shard_groups: 64,
        lost: 0.05,
        contained_ms: 0,
    };
    by.measure("draw a detection delay", NONE, || (), |()| detection_delay(&mut rng, black_box(&params)));
}

fn whole<N: Copy + Eq>(name: impl Fn(usize) -> N) -> SegmentHealth<N> {
    let mut health = SegmentHealth::new(coding());
    for index in coding().indices() {
        let holder = name(index.0.into());
        health.claim(index, holder, Source::Steward, &mut None);
        health.audited(index, holder, Outcome::Held);
    }
    health
}

fn keep(by: &mut impl Measure) {
    let mut life = NodeLife::new(12 * 3_600_000);
    let mut now = 0;
    by.measure(
        "a night's sleep of a node",
        most(4, 100),
        || (),
        |()| {
            now += 86_400_000;
            let silent = life.handle(Timestamp(now), life::Event::Silent { heard_at: Timestamp(now) });
            (silent, life.handle(Timestamp(now + 28_800_000), life::Event::Seen))
        },
    );
    let mut numbered = whole(|number| number as u32);
    by.measure(
        "a holder of a 20/40 segment silent and back, nodes by number",
        NONE,
        || (),
        |()| (numbered.silent(black_box(17)), numbered.returned(17)),
    );
    let mut named = whole(node);
    by.measure(
        "a holder of a 20/40 segment silent and back, nodes by id",
        NONE,
        || (),
        |()| (named.silent(black_box(node(17))), named.returned(node(17))),
    );

    for lost in 0..15 {
        named.lost(node(lost));
    }
    let all = candidates(200);
    let helpers: Vec<Helper> =
        all[40..].iter().map(|candidate| Helper { candidate: candidate.clone(), trust: Trust::Trusted }).collect();
    let domains: BTreeMap<NodeId, Domain> =
        all.iter().map(|candidate| (candidate.node, candidate.domain.clone())).collect();
    let domain_of = |holder: &NodeId| domains.get(holder).cloned();
    let room = repair::plan::room(&named, 1 << 20, &helpers, domain_of);
    by.measure("decide on a repair", NONE, || (), |()| repair::decide(coding(), named.counters(), black_box(room)));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    by.measure(
        "plan a repair of 15 of 40 among 160 nodes",
        most(45, 60_000),
        || (),
        |()| repair::plan::plan(&mut rng, coding(), &named, 1 << 20, &helpers, domain_of),
    );
    let entries: Vec<Entry> = (0..256).map(|i| Entry { key: *node(i).as_bytes(), version: [1; 32] }).collect();
    by.measure("digest of 256 records", NONE, || (), |()| RangeDigest::of(black_box(&entries)));
}
