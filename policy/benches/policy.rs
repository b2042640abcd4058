//! How long decisions take. Each is made per segment, so at 18 segments a second (290 MiB/s) even a millisecond would
//! be too much for one of them.

use std::hint::black_box;

use commonhold_policy::{
    Domain, Standing,
    fetch::{self, Columns, Fetch, Want},
    placement::{self, Candidate},
    stewards, store,
};
use commonhold_protocol::{Coding, NodeId, Timestamp};
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

criterion_group!(benches, place, carry_out);
criterion_main!(benches);
