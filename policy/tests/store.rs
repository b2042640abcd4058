//! The store machine against a simulated network: it places what can be placed, and says so exactly when it cannot.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_policy::{
    Domain, Failure, Standing,
    placement::{Place, PlacementPlan},
    store::{Action, CUT_MS, CUT_WITHOUT_SPARE_MS, Event, Placed, Store, StoreFailed, UPLOADS_PER_SHARD_MAX},
};
use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp, ask::Refusal};
use proptest::prelude::*;

/// How a node takes uploads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Takes {
        after_ms: u64,
    },
    Fails {
        after_ms: u64,
        failure: Failure,
    },
    /// The first upload breaks, later ones are taken.
    BreaksOnce,
    /// Says nothing until the network gives up on it.
    Hangs,
}

const HANG_MS: u64 = 30_000;

fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8; 32])
}

/// Slots on nodes 0 to n - 1 and spares after them; domains as given, by node.
fn plan(coding: Coding, domains: &[u8]) -> PlacementPlan {
    let standing = Standing::Unknown;
    let domain = |number: usize| Domain::new(domains[number].to_string());
    let place = |number: usize| Place { node: node(number), domain: domain(number), standing };
    let n = usize::from(coding.n());
    PlacementPlan {
        slots: coding.indices().map(|index| (index, place(usize::from(index.0)))).collect(),
        spares: (n..domains.len()).map(place).collect(),
    }
}

#[derive(Debug)]
struct Run {
    outcome: Result<Placed, StoreFailed>,
    uploads: Vec<(ShardIndex, NodeId)>,
    ended_at: Timestamp,
}

/// Drives the machine to its end, checking what must hold at every step.
fn run(coding: Coding, plan: PlacementPlan, behaviours: &[Behaviour]) -> Run {
    let start = Timestamp(1_000_000);
    let (mut now, mut sequence) = (start, 0u64);
    let mut queue: BTreeMap<(Timestamp, u64), Event> = BTreeMap::new();
    let mut timer: Option<Timestamp> = None;
    let mut running: BTreeMap<ShardIndex, (NodeId, u64)> = BTreeMap::new();
    let mut uploads: Vec<(ShardIndex, NodeId)> = Vec::new();
    let (mut machine, mut actions) = Store::start(plan, coding, now);
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Upload { index, node: to } => {
                    assert!(!running.contains_key(&index), "shard {index} is uploaded twice at once");
                    uploads.push((index, to));
                    let of_shard = uploads.iter().filter(|(other, _)| *other == index).count();
                    assert!(of_shard <= UPLOADS_PER_SHARD_MAX as usize);
                    let before = uploads.iter().filter(|upload| **upload == (index, to)).count();
                    let behaviour = behaviours[usize::from(to.as_bytes()[0])];
                    assert!(before == 1 || (before == 2 && behaviour_may_pass(behaviour)), "retried in vain");
                    let claimed = Event::Claimed { index, node: to };
                    let failed = |failure| Event::Failed { index, node: to, failure };
                    let (after_ms, event) = match behaviour {
                        Behaviour::Takes { after_ms } => (after_ms, claimed),
                        Behaviour::Fails { after_ms, failure } => (after_ms, failed(failure)),
                        Behaviour::BreaksOnce if before == 1 => (10, failed(Failure::Broken)),
                        Behaviour::BreaksOnce => (10, claimed),
                        Behaviour::Hangs => (HANG_MS, failed(Failure::TimedOut)),
                    };
                    sequence += 1;
                    running.insert(index, (to, sequence));
                    queue.insert((now.after_ms(after_ms), sequence), event);
                }
                Action::Cancel { index, node, .. } => {
                    let (of, sequence) = running.remove(&index).expect("only what runs is cancelled");
                    assert_eq!(of, node);
                    queue.retain(|(_, other), _| *other != sequence);
                }
                Action::Timer { at } => timer = Some(at),
                Action::Done(placed) => {
                    assert!(running.is_empty());
                    return Run { outcome: Ok(placed), uploads, ended_at: Timestamp(now.ms_since(start)) };
                }
                Action::Failed(failed) => {
                    assert!(running.is_empty());
                    return Run { outcome: Err(failed), uploads, ended_at: Timestamp(now.ms_since(start)) };
                }
            }
        }
        let next = queue.first_key_value().map(|((at, _), _)| *at);
        let event = match (next, timer) {
            (None, None) => panic!("the machine waits for nothing"),
            (next, Some(at)) if next.is_none_or(|next| at < next) => {
                now = now.max(at);
                timer = None;
                Event::Timer
            }
            _ => {
                let ((at, _), event) = queue.pop_first().expect("there is a next one");
                now = at;
                event
            }
        };
        if let Event::Claimed { index, .. } | Event::Failed { index, .. } = event {
            running.remove(&index);
        }
        actions = machine.handle(now, event);
    }
}

fn behaviour_may_pass(behaviour: Behaviour) -> bool {
    match behaviour {
        Behaviour::BreaksOnce => true,
        Behaviour::Fails { failure, .. } => failure.is_passing(),
        Behaviour::Takes { .. } | Behaviour::Hangs => false,
    }
}

fn failures() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Unreachable),
        Just(Failure::TimedOut),
        Just(Failure::Broken),
        Just(Failure::Wrong),
        Just(Failure::Refused(Refusal::PledgeFull)),
        Just(Failure::Refused(Refusal::Busy)),
    ]
}

fn codings() -> impl Strategy<Value = Coding> {
    (1..8u8, 0..8u8).prop_map(|(k, parity)| Coding::new(k, k + parity).unwrap())
}

/// A coding, and for each of its nodes and of some spares a domain and a behaviour.
fn scenes(
    behaviour: impl Strategy<Value = Behaviour> + Clone,
    spares_max: usize,
) -> impl Strategy<Value = (Coding, Vec<u8>, Vec<Behaviour>)> {
    (codings(), 0..=spares_max).prop_flat_map(move |(coding, spares)| {
        let nodes = usize::from(coding.n()) + spares;
        let domains = prop::collection::vec(0..12u8, nodes);
        (Just(coding), domains, prop::collection::vec(behaviour.clone(), nodes))
    })
}

fn decided() -> impl Strategy<Value = Behaviour> + Clone {
    let takes = (1..900u64).prop_map(|after_ms| Behaviour::Takes { after_ms });
    let fails = (1..900u64, failures()).prop_map(|(after_ms, failure)| Behaviour::Fails { after_ms, failure });
    prop_oneof![3 => takes, 1 => fails].boxed()
}

fn any_behaviour() -> impl Strategy<Value = Behaviour> + Clone {
    let takes = (1..60_000u64).prop_map(|after_ms| Behaviour::Takes { after_ms });
    prop_oneof![6 => decided(), 1 => takes, 1 => Just(Behaviour::BreaksOnce), 1 => Just(Behaviour::Hangs)].boxed()
}

proptest! {
    /// The oracle: with nodes that either take a shard or never do, and no more spares than one shard may try, exactly
    /// as many shards are placed as there are nodes that take one.
    #[test]
    fn it_places_as_many_shards_as_nodes_take_one((coding, domains, behaviours) in scenes(decided(), 7)) {
        let taking = behaviours.iter().filter(|behaviour| matches!(behaviour, Behaviour::Takes { .. })).count();
        let placeable = taking.min(usize::from(coding.n()));
        let Run { outcome, .. } = run(coding, plan(coding, &domains), &behaviours);
        match outcome {
            Ok(placed) => {
                prop_assert!(placeable >= usize::from(coding.placed_enough()));
                prop_assert_eq!(placed.claimed.len(), placeable);
                prop_assert_eq!(placed.claimed.len() + placed.missing.len(), usize::from(coding.n()));
            }
            Err(failed) => {
                prop_assert!(placeable < usize::from(coding.placed_enough()), "{placeable} {failed:?}");
                prop_assert_eq!(failed.placed, failed.claimed.len());
            }
        }
    }

    #[test]
    fn whatever_nodes_do_it_ends_with_enough_or_with_reasons(
        (coding, domains, behaviours) in scenes(any_behaviour(), 12),
    ) {
        let Run { outcome, uploads, ended_at } = run(coding, plan(coding, &domains), &behaviours);
        // Every upload ends after 60 s at most, and no shard has more than a few.
        prop_assert!(ended_at.0 <= 61_000 * u64::from(UPLOADS_PER_SHARD_MAX), "took {ended_at}");
        let mut shards_of: BTreeMap<NodeId, BTreeSet<ShardIndex>> = BTreeMap::new();
        for (index, node) in &uploads {
            shards_of.entry(*node).or_default().insert(*index);
        }
        prop_assert!(shards_of.values().all(|shards| shards.len() == 1), "a node was sent two shards");
        match outcome {
            Ok(placed) => {
                let claimed: BTreeSet<ShardIndex> = placed.claimed.iter().map(|(index, _)| *index).collect();
                prop_assert!(claimed.len() >= usize::from(coding.placed_enough()));
                prop_assert!(placed.missing.iter().all(|index| !claimed.contains(index)));
                prop_assert_eq!(claimed.len() + placed.missing.len(), usize::from(coding.n()));
            }
            Err(failed) => {
                prop_assert!(failed.placed < failed.need);
                prop_assert!(!failed.failures.is_empty());
            }
        }
    }
}

fn taking(count: usize) -> Vec<Behaviour> {
    vec![Behaviour::Takes { after_ms: 100 }; count]
}

#[test]
fn without_trouble_each_shard_is_sent_once() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..20).collect();
    let done = run(coding, plan(coding, &domains), &taking(20));
    assert_eq!(done.uploads.len(), 14);
    assert_eq!(done.outcome.unwrap().missing, []);
    assert_eq!(done.ended_at, Timestamp(100));
}

#[test]
fn a_full_nodes_shard_goes_to_a_spare_in_a_domain_of_its_own() {
    let coding = Coding::new(2, 4).unwrap();
    let mut behaviours = taking(7);
    behaviours[1] = Behaviour::Fails { after_ms: 5, failure: Failure::Refused(Refusal::PledgeFull) };
    // The first two spares lie in domains that have a shard already.
    let done = run(coding, plan(coding, &[0, 1, 2, 3, 2, 3, 6]), &behaviours);
    assert!(done.outcome.unwrap().claimed.contains(&(ShardIndex(1), node(6))));
}

#[test]
fn a_slow_node_is_cut_off_and_its_shard_given_to_a_spare() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..15).collect();
    let mut behaviours = taking(15);
    behaviours[3] = Behaviour::Hangs;
    let done = run(coding, plan(coding, &domains), &behaviours);
    assert_eq!(done.outcome.unwrap().missing, []);
    assert_eq!(done.ended_at, Timestamp(CUT_MS + 100));
}

/// One shard's bad luck does not hold up the segment for as long as there are spares.
#[test]
fn a_shard_whose_spare_is_slow_too_is_given_up() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..18).collect();
    let mut behaviours = taking(18);
    for slow in [3, 14, 15, 16, 17] {
        behaviours[slow] = Behaviour::Hangs;
    }
    let done = run(coding, plan(coding, &domains), &behaviours);
    assert_eq!(done.outcome.unwrap().missing, [ShardIndex(3)]);
    assert_eq!(done.uploads.len(), 14 + 1);
    assert_eq!(done.ended_at, Timestamp(2 * CUT_MS));
}

#[test]
fn without_a_spare_a_slow_node_gets_more_time_and_is_then_cut_off() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..14).collect();
    let mut behaviours = taking(14);
    behaviours[3] = Behaviour::Takes { after_ms: CUT_WITHOUT_SPARE_MS - 1 };
    assert_eq!(run(coding, plan(coding, &domains), &behaviours).outcome.unwrap().missing, []);

    behaviours[3] = Behaviour::Hangs;
    let done = run(coding, plan(coding, &domains), &behaviours);
    assert_eq!(done.outcome.unwrap().missing, [ShardIndex(3)]);
    assert_eq!(done.ended_at, Timestamp(CUT_WITHOUT_SPARE_MS));
}

#[test]
fn a_stopped_node_that_failed_lately_costs_no_more_than_with_a_spare() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..14).collect();
    let mut plan = plan(coding, &domains);
    plan.slots.get_mut(&ShardIndex(3)).unwrap().standing = Standing::RecentlyFailed;
    let mut behaviours = taking(14);
    behaviours[3] = Behaviour::Hangs;
    assert_eq!(run(coding, plan, &behaviours).ended_at, Timestamp(CUT_MS));
}

#[test]
fn on_a_slow_line_nobody_is_cut_off() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..20).collect();
    let behaviours: Vec<Behaviour> = (0..20).map(|i| Behaviour::Takes { after_ms: 30_000 + 2_000 * i }).collect();
    let done = run(coding, plan(coding, &domains), &behaviours);
    assert_eq!(done.uploads.len(), 14);
    assert_eq!(done.outcome.unwrap().missing, []);
}

#[test]
fn a_connection_that_breaks_once_costs_no_shard_even_without_spares() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..14).collect();
    let done = run(coding, plan(coding, &domains), &[Behaviour::BreaksOnce; 14]);
    assert_eq!(done.outcome.unwrap().missing, []);
}

#[test]
fn too_few_takers_fail_with_each_ones_reason() {
    let coding = Coding::new(7, 14).unwrap();
    let domains: Vec<u8> = (0..14).collect();
    let mut behaviours = taking(14);
    let full = Failure::Refused(Refusal::PledgeFull);
    for behaviour in &mut behaviours[..2] {
        *behaviour = Behaviour::Fails { after_ms: 500, failure: full };
    }
    let failed = run(coding, plan(coding, &domains), &behaviours).outcome.unwrap_err();
    assert_eq!((failed.placed, failed.need), (12, 13));
    assert_eq!(failed.failures, [(ShardIndex(0), node(0), full), (ShardIndex(1), node(1), full)]);
    assert_eq!(failed.to_string(), "12 of 14 shards could be placed, but at least 13 are needed");
}

/// A cut node may have had the shard all but stored: its claim counts, and the spare's upload is called off.
#[test]
fn a_claim_that_comes_after_the_cut_counts() {
    let coding = Coding::new(1, 2).unwrap();
    let (mut machine, _) = Store::start(plan(coding, &[0, 1, 2]), coding, Timestamp(0));
    let claimed = |index, holder| Event::Claimed { index: ShardIndex(index), node: node(holder) };
    assert_eq!(coding.placed_enough(), 2);
    let failed = Event::Failed { index: ShardIndex(1), node: node(1), failure: Failure::Broken };
    let moved = machine.handle(Timestamp(5), failed);
    assert_eq!(moved, [Action::Upload { index: ShardIndex(1), node: node(2) }]);
    let called_off = machine.handle(Timestamp(6), claimed(1, 1));
    assert_eq!(called_off, [Action::Cancel { index: ShardIndex(1), node: node(2), slow: false }]);
    let both = vec![(ShardIndex(1), node(1)), (ShardIndex(0), node(0))];
    let done = machine.handle(Timestamp(7), claimed(0, 0));
    assert_eq!(done, [Action::Done(Placed { claimed: both, missing: vec![] })]);
    assert_eq!(machine.handle(Timestamp(8), claimed(1, 2)), []);
}

#[test]
fn a_failure_reported_after_the_claim_undoes_nothing() {
    let coding = Coding::new(1, 2).unwrap();
    let (mut machine, _) = Store::start(plan(coding, &[0, 1, 2]), coding, Timestamp(0));
    let (index, node) = (ShardIndex(0), node(0));
    assert_eq!(machine.handle(Timestamp(1), Event::Claimed { index, node }), []);
    let failure = Failure::Broken;
    assert_eq!(machine.handle(Timestamp(2), Event::Failed { index, node, failure }), []);
}
