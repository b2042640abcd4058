//! The fetch machine against simulated holders: it completes exactly when enough shards can be reached, and asks no
//! more than it must.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_policy::{
    Failure, Standing,
    fetch::{Action, Columns, Complete, Event, Fetch, Holders, SLOW_FIRST_MS, SLOW_MS, Unavailable, Want},
};
use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp, ask::Refusal};
use proptest::prelude::*;

/// How a node answers for one shard.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Gives {
        after_ms: u64,
    },
    Fails {
        after_ms: u64,
        failure: Failure,
    },
    /// The first ask breaks, later ones are answered.
    BreaksOnce,
}

impl Behaviour {
    fn gives_in_the_end(self) -> bool {
        matches!(self, Self::Gives { .. } | Self::BreaksOnce)
    }
}

/// Everything about one read: who is hinted, who else the stewards know, and how they all behave.
#[derive(Debug, Clone)]
struct Scene {
    want: Want,
    hints: Holders,
    stewards_know: Holders,
    behaviours: BTreeMap<(ShardIndex, NodeId), Behaviour>,
}

const STEWARDS_MS: u64 = 600;

#[derive(Debug)]
struct Run {
    outcome: Result<Complete, Unavailable>,
    asks: Vec<(ShardIndex, NodeId, Columns)>,
    got: Vec<(ShardIndex, Columns)>,
    cancelled_as_slow: BTreeSet<NodeId>,
    stewards_asked: bool,
    took_ms: u64,
}

impl Scene {
    /// Drives the machine to its end, checking what must hold at every step.
    fn run(&self) -> Run {
        let start = Timestamp(1_000_000);
        let (mut now, mut sequence) = (start, 0u64);
        let mut queue: BTreeMap<(Timestamp, u64), Event> = BTreeMap::new();
        let mut timer: Option<Timestamp> = None;
        let mut running: BTreeMap<(ShardIndex, NodeId), Columns> = BTreeMap::new();
        let mut breaks_left: BTreeMap<(ShardIndex, NodeId), u32> = BTreeMap::new();
        let (mut asks, mut got, mut cancelled_as_slow) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut failed: BTreeMap<(ShardIndex, NodeId), (Failure, u32)> = BTreeMap::new();
        let mut stewards_asked = false;
        let (mut machine, mut actions) = Fetch::start(self.want.clone(), self.hints.clone(), now);
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Ask { index, node, columns } => {
                        assert!(running.insert((index, node), columns).is_none(), "asked while it answers");
                        let gave = got.iter().any(|(from, given, node_of)| {
                            (*from, *node_of) == (index, node) && Columns::covers(*given, columns)
                        });
                        assert!(!gave, "asked again for what it gave");
                        if let Some((failure, times)) = failed.get(&(index, node)) {
                            assert!(failure.is_passing() && *times == 1, "asked again after {failure:?} x {times}");
                        }
                        asks.push((index, node, columns));
                        let (after_ms, event) = match self.behaviours[&(index, node)] {
                            Behaviour::Gives { after_ms } => (after_ms, Event::Got { index, node }),
                            Behaviour::Fails { after_ms, failure } => {
                                (after_ms, Event::Failed { index, node, failure })
                            }
                            Behaviour::BreaksOnce => {
                                let breaks = breaks_left.entry((index, node)).or_insert(1);
                                let failure = Failure::Broken;
                                match std::mem::take(breaks) {
                                    0 => (10, Event::Got { index, node }),
                                    _ => (10, Event::Failed { index, node, failure }),
                                }
                            }
                        };
                        sequence += 1;
                        queue.insert((now.after_ms(after_ms), sequence), event);
                    }
                    Action::Cancel { index, node, slow } => {
                        assert!(running.remove(&(index, node)).is_some(), "only what runs is cancelled");
                        cancelled_as_slow.extend(slow.then_some(node));
                    }
                    Action::AskStewards => {
                        assert!(!std::mem::replace(&mut stewards_asked, true), "stewards are asked once");
                        sequence += 1;
                        let answer = Event::HoldersLearned(self.stewards_know.clone());
                        queue.insert((now.after_ms(STEWARDS_MS), sequence), answer);
                    }
                    Action::Timer { at } => timer = Some(at),
                    Action::Complete(_) | Action::Unavailable(_) => {
                        assert!(running.is_empty(), "what still runs is cancelled first");
                        let got = got.into_iter().map(|(index, columns, _)| (index, columns)).collect();
                        let outcome = match action {
                            Action::Complete(complete) => Ok(complete),
                            Action::Unavailable(unavailable) => Err(unavailable),
                            _ => unreachable!("matched above"),
                        };
                        let took_ms = now.ms_since(start);
                        return Run { outcome, asks, got, cancelled_as_slow, stewards_asked, took_ms };
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
            match event {
                Event::Got { index, node } => {
                    let columns = running.remove(&(index, node)).expect("it was asked");
                    got.push((index, columns, node));
                }
                Event::Failed { index, node, failure } => {
                    running.remove(&(index, node));
                    failed.entry((index, node)).or_insert((failure, 0)).1 += 1;
                }
                Event::HoldersLearned(_) | Event::Timer => {}
            }
            actions = machine.handle(now, event);
        }
    }

    /// The oracle: shards that some hinted or recorded holder gives in the end.
    fn reachable(&self) -> BTreeSet<ShardIndex> {
        let known = self.hints.iter().chain(&self.stewards_know);
        let pairs = known.flat_map(|(index, nodes)| nodes.iter().map(|(node, _)| (*index, *node)));
        pairs.filter(|pair| self.behaviours[pair].gives_in_the_end()).map(|(index, _)| index).collect()
    }
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn whole() -> Columns {
    Columns { start: 0, end: 1 << 20 }
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Connected),
        Just(Standing::KnownGood),
        Just(Standing::Unknown),
        Just(Standing::RecentlyFailed),
    ]
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let failure = prop_oneof![
        Just(Failure::Unreachable),
        Just(Failure::TimedOut),
        Just(Failure::Broken),
        Just(Failure::Wrong),
        Just(Failure::Refused(Refusal::Damaged)),
        Just(Failure::Refused(Refusal::Busy)),
    ];
    prop_oneof![
        4 => (1..300u64).prop_map(|after_ms| Behaviour::Gives { after_ms }),
        1 => (300..30_000u64).prop_map(|after_ms| Behaviour::Gives { after_ms }),
        3 => (1..15_000u64, failure).prop_map(|(after_ms, failure)| Behaviour::Fails { after_ms, failure }),
        1 => Just(Behaviour::BreaksOnce),
    ]
}

const NODES: u8 = 10;

fn holders(n: u8, per_shard_max: usize) -> impl Strategy<Value = Holders> {
    let of_one = prop::collection::btree_map(0..NODES, standings(), 0..=per_shard_max);
    prop::collection::vec(of_one, usize::from(n)).prop_map(|all| {
        let indices = (0u8..).map(ShardIndex);
        let lists = all.into_iter().map(|nodes| nodes.into_iter().map(|(number, it)| (node(number), it)).collect());
        indices.zip(lists).collect()
    })
}

fn scenes() -> impl Strategy<Value = Scene> {
    let coding = (1..7u8, 0..7u8).prop_map(|(k, parity)| Coding::new(k, k + parity).unwrap());
    let scene = coding.prop_flat_map(|coding| {
        let narrow = (0..1000u64, 1..1000u64).prop_map(|(start, bytes)| Columns { start, end: start + bytes });
        let columns = prop_oneof![Just(whole()), narrow];
        let shards = prop::collection::btree_map((0..coding.k()).prop_map(ShardIndex), columns, 1..=3);
        let pairs = usize::from(coding.n()) * usize::from(NODES);
        let all = prop::collection::vec(behaviours(), pairs);
        (Just(coding), shards, holders(coding.n(), 2), holders(coding.n(), 3), all)
    });
    scene.prop_map(|(coding, shards, hints, stewards_know, all)| {
        let pairs = coding.indices().flat_map(|index| (0..NODES).map(move |number| (index, node(number))));
        Scene { want: Want { coding, shards }, hints, stewards_know, behaviours: pairs.zip(all).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn it_completes_exactly_when_enough_can_be_reached(scene in scenes()) {
        let k = usize::from(scene.want.coding.k());
        let reachable = scene.reachable();
        let direct = scene.want.shards.keys().all(|index| reachable.contains(index));
        let run = scene.run();
        let has = |index: &ShardIndex, wanted: Columns| {
            run.got.iter().any(|(from, columns)| from == index && columns.covers(wanted))
        };
        match &run.outcome {
            Ok(Complete::Direct) => {
                prop_assert!(scene.want.shards.iter().all(|(index, columns)| has(index, *columns)));
            }
            Ok(Complete::Decode { missing, columns, from }) => {
                let distinct: BTreeSet<&ShardIndex> = from.iter().collect();
                prop_assert_eq!(distinct.len(), k);
                prop_assert_eq!(from.len(), k);
                prop_assert!(from.iter().all(|index| has(index, *columns)));
                for (index, wanted) in &scene.want.shards {
                    prop_assert_eq!(missing.contains(index), !has(index, *wanted));
                    prop_assert!(has(index, *wanted) || columns.covers(*wanted));
                }
            }
            Err(unavailable) => {
                prop_assert!(!direct && reachable.len() < k, "{reachable:?} were reachable: {unavailable:?}");
                prop_assert!(run.stewards_asked);
                prop_assert_eq!((unavailable.reachable, unavailable.needed), (reachable.len(), k));
            }
        }
        prop_assert!(run.outcome.is_ok() == (direct || reachable.len() >= k));
        // 140 holders at most, each asked twice at most, and no answer takes more than 30 s; in fact they run side by
        // side, and those of a shard one after another.
        prop_assert!(run.took_ms < 8 * 30_000, "took {} ms", run.took_ms);
    }
}

/// `n` shards, shard i on node i alone, all hinted and quick.
fn calm(k: u8, n: u8, wanted: &[u8]) -> Scene {
    let coding = Coding::new(k, n).unwrap();
    let holders: Holders = coding.indices().map(|index| (index, vec![(node(index.0), Standing::Connected)])).collect();
    let quick = |index: ShardIndex| ((index, node(index.0)), Behaviour::Gives { after_ms: 5 });
    Scene {
        want: Want { coding, shards: wanted.iter().map(|index| (ShardIndex(*index), whole())).collect() },
        hints: holders.clone(),
        stewards_know: holders,
        behaviours: coding.indices().map(quick).collect(),
    }
}

impl Scene {
    fn set(&mut self, index: u8, behaviour: Behaviour) {
        self.behaviours.insert((ShardIndex(index), node(index)), behaviour);
    }

    fn set_standing(&mut self, index: u8, standing: Standing) {
        self.hints.insert(ShardIndex(index), vec![(node(index), standing)]);
    }
}

const HANGS: Behaviour = Behaviour::Fails { after_ms: 30_000, failure: Failure::TimedOut };
const DEAD: Behaviour = Behaviour::Fails { after_ms: 1, failure: Failure::Unreachable };

#[test]
fn without_trouble_only_the_wanted_shards_are_asked() {
    let run = calm(7, 14, &[2, 3]).run();
    assert_eq!(run.outcome, Ok(Complete::Direct));
    assert_eq!(run.asks, [(ShardIndex(2), node(2), whole()), (ShardIndex(3), node(3), whole())]);
    assert!(!run.stewards_asked);
}

#[test]
fn a_dead_holder_costs_one_read_from_k_others() {
    let mut scene = calm(7, 14, &[2]);
    scene.set(2, DEAD);
    let run = scene.run();
    let Ok(Complete::Decode { missing, columns, .. }) = run.outcome else { panic!("{:?}", run.outcome) };
    assert_eq!((missing, columns), (vec![ShardIndex(2)], whole()));
    assert_eq!(run.asks.len(), 1 + 7);
    assert!(!run.stewards_asked, "hints sufficed");
    assert_eq!(run.took_ms, 1 + 5);
}

#[test]
fn a_holder_that_failed_lately_is_not_waited_for() {
    let mut scene = calm(7, 14, &[2]);
    scene.set(2, HANGS);
    scene.set_standing(2, Standing::RecentlyFailed);
    let run = scene.run();
    assert_eq!(run.took_ms, 5);
    assert!(run.asks.iter().all(|(index, ..)| *index != ShardIndex(2)));
}

#[test]
fn when_nobody_else_is_left_even_those_that_failed_lately_are_asked() {
    let mut scene = calm(7, 14, &[2]);
    for index in 0..14 {
        scene.set_standing(index, Standing::RecentlyFailed);
    }
    assert_eq!(scene.run().outcome, Ok(Complete::Direct));
}

#[test]
fn the_only_holder_asked_is_slow_and_others_are_asked_after_a_while() {
    let mut scene = calm(7, 14, &[2]);
    scene.want.shards.insert(ShardIndex(2), Columns { start: 0, end: 256 });
    scene.set(2, HANGS);
    let run = scene.run();
    assert!(matches!(run.outcome, Ok(Complete::Decode { .. })));
    assert_eq!(run.took_ms, SLOW_FIRST_MS + 1 + 5);
    assert_eq!(run.cancelled_as_slow, BTreeSet::from([node(2)]));
}

#[test]
fn one_slow_holder_among_quick_ones_is_replaced_by_one_other() {
    let mut scene = calm(7, 14, &[0, 1, 2, 3, 4, 5, 6]);
    scene.set(2, HANGS);
    let run = scene.run();
    assert!(matches!(run.outcome, Ok(Complete::Decode { .. })));
    assert_eq!(run.asks.len(), 7 + 1);
    assert_eq!(run.took_ms, SLOW_MS + 5);
}

/// Asking others as well because our own line is slow would double what it has to carry.
#[test]
fn on_a_slow_line_no_more_is_asked_than_needed() {
    let mut scene = calm(7, 14, &[0, 1, 2, 3, 4, 5, 6]);
    for index in 0..14 {
        scene.set(index, Behaviour::Gives { after_ms: 4_000 + 200 * u64::from(index) });
    }
    let run = scene.run();
    assert_eq!(run.outcome, Ok(Complete::Direct));
    assert_eq!(run.asks.len(), 7);
}

/// Before anything has arrived, a slow line looks like so many slow holders.
#[test]
fn on_a_line_that_seems_dead_only_a_few_more_are_asked() {
    let mut scene = calm(7, 14, &[0, 1, 2, 3, 4, 5, 6]);
    for index in 0..14 {
        scene.set(index, Behaviour::Gives { after_ms: 10_000 });
    }
    assert_eq!(scene.run().asks.len(), 7 + 2);
}

#[test]
fn hints_that_just_suffice_spare_the_stewards_even_if_one_failed_lately() {
    let mut scene = calm(7, 14, &[2]);
    scene.hints.retain(|index, _| *index != ShardIndex(2) && index.0 < 8);
    scene.set_standing(3, Standing::RecentlyFailed);
    let run = scene.run();
    assert!(matches!(run.outcome, Ok(Complete::Decode { .. })));
    assert!(!run.stewards_asked);
}

#[test]
fn stewards_are_asked_when_hints_do_not_suffice() {
    let mut scene = calm(7, 14, &[2]);
    scene.hints = BTreeMap::new();
    let run = scene.run();
    assert_eq!(run.outcome, Ok(Complete::Direct));
    assert!(run.stewards_asked);
    assert_eq!(run.asks.len(), 1, "what the stewards know suffices to read directly");
    assert_eq!(run.took_ms, STEWARDS_MS + 5);
}

#[test]
fn with_eight_of_fourteen_dead_it_says_how_many_are_reachable() {
    let mut scene = calm(7, 14, &[0, 1, 2, 3, 4, 5, 6]);
    for index in 0..8 {
        scene.set(index, DEAD);
    }
    let run = scene.run();
    let unavailable = run.outcome.unwrap_err();
    assert_eq!((unavailable.reachable, unavailable.needed, unavailable.failures.len()), (6, 7, 8));
    assert_eq!(unavailable.to_string(), "6 shards can be reached, but 7 are needed");
}

#[test]
fn with_seven_of_fourteen_dead_and_a_connection_that_breaks_once_it_still_reads() {
    let mut scene = calm(7, 14, &[0, 1, 2, 3, 4, 5, 6]);
    for index in 0..7 {
        scene.set(index, DEAD);
    }
    scene.set(9, Behaviour::BreaksOnce);
    assert!(matches!(scene.run().outcome, Ok(Complete::Decode { .. })));
}

/// A node that failed for one shard is not tried for its next one while others stand by.
#[test]
fn a_dead_nodes_other_shards_are_asked_of_others_first() {
    let mut scene = calm(2, 6, &[0, 1]);
    let dead = node(0);
    for index in [0, 1, 2] {
        scene.hints.insert(ShardIndex(index), vec![(dead, Standing::Connected)]);
        scene.behaviours.insert((ShardIndex(index), dead), DEAD);
    }
    let run = scene.run();
    assert!(matches!(run.outcome, Ok(Complete::Decode { .. })));
    assert!(!run.asks.iter().any(|(index, node, _)| *index == ShardIndex(2) && *node == dead));
}
