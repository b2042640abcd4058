//! How long decisions take. Each is made per segment, so at 18 segments a second (290 MiB/s) even a millisecond would
//! be too much for one of them.

use std::hint::black_box;

use commonhold_policy::{
    Domain, Standing,
    audit::{
        Answer, Outcome,
        containment::{self, Containment},
        detection::DetectionParams,
        schedule::{self, Rate, Schedule},
    },
    detection_delay,
    fetch::{self, Columns, Fetch, Want},
    life::{self, NodeLife},
    placement::{self, Candidate},
    repair::{self, plan::Helper},
    reputation::{Reputation, Trust},
    segment_health::{SegmentHealth, Source},
    stewards, store,
    sweep::{Entry, RangeDigest},
};
use commonhold_protocol::{Coding, NodeId, SegmentId, ShardIndex, Timestamp};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

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

fn place(c: &mut Criterion) {
    let all = candidates(200);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    c.bench_function("placement 20/40 among 200 nodes", |b| {
        b.iter(|| placement::plan(&mut rng, coding(), 1 << 20, black_box(&all)));
    });
    let domains: Vec<(NodeId, Domain)> =
        all.iter().map(|candidate| (candidate.node, candidate.domain.clone())).collect();
    c.bench_function("stewards among 20 nodes", |b| {
        b.iter(|| stewards::choose(black_box(&[7; 32]), &domains[..20]));
    });
}

fn carry_out(c: &mut Criterion) {
    let all = candidates(60);
    let plan = placement::plan(&mut ChaCha8Rng::seed_from_u64(1), coding(), 1 << 20, &all).expect("60 nodes suffice");
    c.bench_function("store 20/40, all claimed", |b| {
        b.iter_batched(
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
            BatchSize::SmallInput,
        );
    });

    let whole = Columns { start: 0, end: 1 << 20 };
    let shards = coding().indices().take(20).map(|index| (index, whole)).collect();
    let want = Want { coding: coding(), shards };
    let hints: fetch::Holders =
        coding().indices().map(|index| (index, vec![(node(usize::from(index.0)), Standing::Connected)])).collect();
    c.bench_function("fetch 20/40, every other holder dead", |b| {
        b.iter_batched(
            || (want.clone(), hints.clone()),
            |(want, hints)| {
                let (mut machine, mut actions) = Fetch::start(want, hints, Timestamp(0));
                let mut now = 0;
                while let Some(action) = actions.pop() {
                    if let fetch::Action::Ask { index, node, .. } = action {
                        now += 1;
                        let failure = commonhold_policy::Failure::Unreachable;
                        let event = match index.0 % 2 {
                            0 => fetch::Event::Got { index, node },
                            _ => fetch::Event::Failed { index, node, failure },
                        };
                        actions.extend(machine.handle(Timestamp(now), event));
                    }
                }
                machine
            },
            BatchSize::SmallInput,
        );
    });
}

fn audit(c: &mut Criterion) {
    let rate = Rate::default();
    let schedule = Schedule::new([1; 32], rate);
    let mut epoch = 0;
    c.bench_function("is a segment due", |b| {
        b.iter(|| {
            epoch += 1;
            schedule.is_due(black_box(&SegmentId::from_bytes([3; 32])), 8, epoch)
        });
    });
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    c.bench_function("sample one of 64 groups", |b| {
        b.iter(|| schedule::samples(&mut rng, SegmentId::from_bytes([3; 32]), ShardIndex(1), 1 << 20, 1));
    });
    let due: Vec<_> = (0..32u8)
        .flat_map(|i| schedule::samples(&mut rng, SegmentId::from_bytes([i; 32]), ShardIndex(1), 1 << 20, 1))
        .collect();
    c.bench_function("challenge of 32 shards, asked and held", |b| {
        b.iter_batched(
            || due.clone(),
            |due| {
                let mut machine = Containment::new(rate);
                let asked = machine.handle(Timestamp(0), containment::Event::Due(due));
                let held = containment::Event::Answered(vec![Answer::Held; 32]);
                (asked, machine.handle(Timestamp(1), held))
            },
            BatchSize::SmallInput,
        );
    });
    let mut reputation = Reputation::new(Timestamp(0));
    c.bench_function("count an audit", |b| b.iter(|| reputation.count(black_box(Outcome::Held))));
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
    c.bench_function("draw a detection delay", |b| b.iter(|| detection_delay(&mut rng, black_box(&params))));
}

fn whole<N: std::marker::Copy + Eq>(name: impl Fn(usize) -> N) -> SegmentHealth<N> {
    let mut health = SegmentHealth::new(coding());
    for index in coding().indices() {
        let holder = name(index.0.into());
        health.claim(index, holder, Source::Steward, &mut None);
        health.audited(index, holder, Outcome::Held);
    }
    health
}

fn keep(c: &mut Criterion) {
    c.bench_function("a night's sleep of a node", |b| {
        let mut node = NodeLife::new(12 * 3_600_000);
        let mut now = 0;
        b.iter(|| {
            now += 86_400_000;
            let silent = node.handle(Timestamp(now), life::Event::Silent);
            (silent, node.handle(Timestamp(now + 28_800_000), life::Event::Seen))
        });
    });
    let mut numbered = whole(|number| number as u32);
    c.bench_function("a holder of a 20/40 segment silent and back, nodes by number", |b| {
        b.iter(|| (numbered.silent(black_box(17)), numbered.returned(17)));
    });
    let mut named = whole(node);
    c.bench_function("a holder of a 20/40 segment silent and back, nodes by id", |b| {
        b.iter(|| (named.silent(black_box(node(17))), named.returned(node(17))));
    });

    for lost in 0..15 {
        named.lost(node(lost));
    }
    let all = candidates(200);
    let helpers: Vec<Helper> =
        all[40..].iter().map(|candidate| Helper { candidate: candidate.clone(), trust: Trust::Trusted }).collect();
    let domains: std::collections::BTreeMap<NodeId, Domain> =
        all.iter().map(|candidate| (candidate.node, candidate.domain.clone())).collect();
    let domain_of = |holder: &NodeId| domains.get(holder).cloned();
    let room = repair::plan::room(&named, 1 << 20, &helpers, domain_of);
    c.bench_function("decide on a repair", |b| b.iter(|| repair::decide(coding(), named.counters(), black_box(room))));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    c.bench_function("plan a repair of 15 of 40 among 160 nodes", |b| {
        b.iter(|| repair::plan::plan(&mut rng, coding(), &named, 1 << 20, &helpers, domain_of));
    });
    let entries: Vec<Entry> = (0..256).map(|i| Entry { key: *node(i).as_bytes(), version: [1; 32] }).collect();
    c.bench_function("digest of 256 records", |b| b.iter(|| RangeDigest::of(black_box(&entries))));
}

criterion_group!(benches, place, carry_out, audit, keep);
criterion_main!(benches);
