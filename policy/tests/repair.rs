//! Health and repair: what is lost comes back, and nobody's word alone makes a shard count, or go.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_policy::{
    Domain, Standing,
    audit::Outcome,
    budget::Budget,
    placement::Candidate,
    repair::{
        self, Decision, Room,
        plan::{self, Helper},
    },
    reputation::Trust,
    segment_health::{ClaimState, Counters, SegmentHealth, ShardState, Source},
    surplus::{self, Copy},
};
use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp, record::CLAIMS_PER_INDEX_MAX};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn coding(k: u8, n: u8) -> Coding {
    Coding::new(k, n).expect("a coding")
}

fn index(number: u8) -> ShardIndex {
    ShardIndex(number)
}

fn claim(health: &mut SegmentHealth, number: u8, holder: NodeId, source: Source) -> bool {
    health.claim(index(number), holder, source, &mut None)
}

/// Shard i at node i, audited.
fn whole(coding: Coding) -> SegmentHealth {
    let mut health = SegmentHealth::new(coding);
    for number in 0..coding.n() {
        claim(&mut health, number, node(number), Source::Own);
        health.audited(index(number), node(number), Outcome::Held);
    }
    health
}

fn counters(healthy: u8, suspect: u8, lost: u8, unclaimed: u8) -> Counters {
    Counters { healthy, suspect, lost, unclaimed }
}

#[test]
fn a_claim_is_healthy_only_after_an_audit_and_lost_at_once_by_a_wrong_answer() {
    let mut health = SegmentHealth::new(coding(2, 4));
    assert!(claim(&mut health, 0, node(0), Source::Own));
    assert_eq!(health.counters(), counters(0, 1, 0, 3));
    assert!(!health.audited(index(0), node(0), Outcome::Unreachable));
    assert!(health.audited(index(0), node(0), Outcome::Held));
    assert_eq!(health.counters(), counters(1, 0, 0, 3));
    assert!(!health.audited(index(0), node(9), Outcome::Wrong), "not its claim");
    assert!(health.audited(index(0), node(0), Outcome::Wrong));
    assert!(claim(&mut health, 1, node(1), Source::Own));
    assert!(health.audited(index(1), node(1), Outcome::Contradicted));
    assert_eq!(health.counters(), counters(0, 0, 2, 2), "what restores nothing here is lost");
    // Going away and coming back does not wash it clean.
    health.lost(node(0));
    health.returned(node(0));
    assert_eq!(health.counters(), counters(0, 0, 2, 2));
}

/// A stranger that signs claims for all n displaces nobody, is counted as nothing, and costs no place.
#[test]
fn a_stranger_cannot_displace_or_crowd_out_holders() {
    let mut health = whole(coding(2, 4));
    for number in 0..4 {
        assert!(!claim(&mut health, number, node(66), Source::Stranger));
    }
    // Once a holder is lost, its index is open; and the holder's claim is not forgotten by that.
    health.lost(node(1));
    assert!(claim(&mut health, 1, node(66), Source::Stranger));
    assert_eq!(health.state(index(1)), ShardState::Lost, "claimed, not proven");
    health.audited(index(1), node(66), Outcome::Held);
    assert!(!claim(&mut health, 1, node(67), Source::Stranger), "neither lost nor unclaimed");
    health.audited(index(1), node(66), Outcome::Refused);
    health.returned(node(1));
    health.audited(index(1), node(1), Outcome::Held);
    assert_eq!(health.counters(), counters(4, 0, 0, 0));
    assert!(!claim(&mut health, 200, node(1), Source::Steward), "there is no such shard");
}

#[test]
fn a_lying_steward_fills_places_and_only_lost_claims_make_room() {
    let mut health = whole(coding(2, 4));
    for liar in [66, 67] {
        assert!(claim(&mut health, 0, node(liar), Source::Steward));
    }
    assert!(!claim(&mut health, 0, node(68), Source::Steward), "three, and none is lost");
    health.audited(index(0), node(66), Outcome::Wrong);
    health.lost(node(67));
    let mut evicted = None;
    assert!(health.claim(index(0), node(68), Source::Steward, &mut evicted));
    assert_eq!(evicted, Some(node(66)), "the one that failed goes first");
    assert!(health.claims().iter().any(|claim| claim.node == node(0) && claim.state == ClaimState::Healthy));
}

/// One message with three claims in made-up names, brought again and again, would keep a lost shard from being rebuilt.
#[test]
fn claims_that_come_later_count_for_nothing_before_an_audit() {
    for source in [Source::Steward, Source::Stranger] {
        let mut health = whole(coding(2, 4));
        health.lost(node(1));
        for made_up in [66, 67] {
            assert!(claim(&mut health, 1, node(made_up), source));
            health.silent(node(made_up));
        }
        assert_eq!(health.counters(), counters(3, 0, 1, 0));
        assert_eq!(health.missing().collect::<Vec<_>>(), [index(1)]);
        // Who is gone and comes back is no better.
        health.lost(node(66));
        health.returned(node(66));
        assert_eq!(health.counters(), counters(3, 0, 1, 0));
        // They give way to what we rebuilt ourselves, and to nobody else's word.
        health.release(index(1), node(1));
        assert!(claim(&mut health, 1, node(68), source));
        assert!(!claim(&mut health, 1, node(69), source));
        let mut evicted = None;
        assert!(health.claim(index(1), node(5), Source::Own, &mut evicted));
        assert_eq!((evicted, health.counters()), (Some(node(66)), counters(3, 1, 0, 0)));
        health.audited(index(1), node(5), Outcome::Held);
        assert_eq!(health.counters(), counters(4, 0, 0, 0));
    }
}

#[derive(Debug, Clone)]
enum Op {
    Claim(u8, u8, Source),
    Audited(u8, u8, bool),
    Silent(u8),
    Lost(u8),
    Returned(u8),
    Release(u8, u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let source = prop::sample::select(vec![Source::Own, Source::Steward, Source::Stranger]);
    let op = prop_oneof![
        4 => (0..6u8, 0..8u8, source).prop_map(|(index, node, source)| Op::Claim(index, node, source)),
        3 => (0..6u8, 0..8u8, any::<bool>()).prop_map(|(index, node, held)| Op::Audited(index, node, held)),
        1 => (0..8u8).prop_map(Op::Silent),
        1 => (0..8u8).prop_map(Op::Lost),
        1 => (0..8u8).prop_map(Op::Returned),
        1 => (0..6u8, 0..8u8).prop_map(|(index, node)| Op::Release(index, node)),
    ];
    prop::collection::vec(op, 0..80)
}

proptest! {
    /// The counters kept by steps are those of a fresh count, and no claim that is not lost ever disappears.
    #[test]
    fn counters_are_what_a_fresh_count_says(ops in ops()) {
        let n = 5;
        let mut health = SegmentHealth::new(coding(2, n));
        for op in ops {
            let before = health.clone();
            let released = if let Op::Release(index, node) = &op { Some((*index, *node)) } else { None };
            match op {
                Op::Claim(number, holder, source) => {
                    claim(&mut health, number, node(holder), source);
                }
                Op::Audited(number, holder, held) => {
                    let outcome = if held { Outcome::Held } else { Outcome::Wrong };
                    let changed = health.audited(index(number), node(holder), outcome);
                    prop_assert_eq!(changed, health.counters() != before.counters());
                }
                Op::Silent(holder) => { health.silent(node(holder)); }
                Op::Lost(holder) => {
                    // One shard after the other, as whoever knows which it holds does.
                    let mut each = before.clone();
                    (0..n).for_each(|number| { each.lost_shard(index(number), node(holder)); });
                    health.lost(node(holder));
                    prop_assert_eq!((each.claims(), each.counters()), (health.claims(), health.counters()));
                }
                Op::Returned(holder) => { health.returned(node(holder)); }
                Op::Release(number, holder) => { health.release(index(number), node(holder)); }
            }
            let mut fresh = Counters::default();
            for number in 0..n {
                let best = health.claims().iter().filter(|claim| claim.index.0 == number).map(|claim| claim.state).min();
                match best {
                    Some(ClaimState::Healthy) => fresh.healthy += 1,
                    Some(ClaimState::Silent | ClaimState::Unproven) => fresh.suspect += 1,
                    Some(ClaimState::Offered | ClaimState::Away | ClaimState::Failed) => fresh.lost += 1,
                    None => fresh.unclaimed += 1,
                }
            }
            prop_assert_eq!(health.counters(), fresh);
            let restored = SegmentHealth::restore(coding(2, n), health.claims().to_vec());
            prop_assert_eq!(restored.counters(), fresh);
            for number in 0..n {
                let claims = health.claims().iter().filter(|claim| claim.index.0 == number);
                prop_assert!(claims.count() <= CLAIMS_PER_INDEX_MAX);
            }
            for old in before.claims() {
                let gone = !health.claims().iter().any(|claim| claim.node == old.node && claim.index == old.index);
                let was_lost = !old.state.stands();
                let released = released.is_some_and(|(number, holder)| old.index.0 == number && old.node == node(holder));
                prop_assert!(!gone || was_lost || released);
            }
        }
    }
}

#[test]
fn a_shard_is_crowded_when_none_of_three_claims_stands() {
    let mut health = SegmentHealth::new(coding(2, 4));
    for (number, holder) in [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)] {
        assert!(claim(&mut health, number, node(holder), Source::Own));
    }
    for holder in [0, 1, 2, 3, 4, 5] {
        health.lost(node(holder));
    }
    assert_eq!(health.crowded().collect::<Vec<_>>(), [index(1)]);
}

#[test]
fn when_a_segment_is_repaired() {
    let coding = coding(10, 20);
    let room = Room { nodes: 5, domains: 5 };
    let decide = |counters| repair::decide(coding, counters, room);
    assert_eq!(decide(counters(20, 0, 0, 0)), Decision::Whole);
    assert_eq!(decide(counters(12, 8, 0, 0)), Decision::Whole, "suspects are not lost");
    assert_eq!(decide(counters(18, 0, 2, 0)), Decision::TopUp);
    assert_eq!(decide(counters(17, 0, 2, 1)), Decision::Now);
    assert_eq!(decide(counters(9, 0, 11, 0)), Decision::OutOfReach { healthy: 9 });
    assert_eq!(decide(counters(9, 6, 5, 0)), Decision::OutOfReach { healthy: 9 });
    let none = Room::default();
    assert_eq!(repair::decide(coding, counters(17, 0, 3, 0), none), Decision::Resting { have: 17 });
    // No new domain: at the threshold a second shard in a domain is better than none, above it is not.
    let shared = Room { nodes: 5, domains: 0 };
    assert_eq!(repair::decide(coding, counters(17, 0, 3, 0), shared), Decision::Now);
    assert_eq!(repair::goal(coding, counters(15, 0, 5, 0), shared), 18);
    assert_eq!(repair::decide(coding, counters(18, 0, 2, 0), shared), Decision::Resting { have: 18 });
}

#[test]
fn what_nobody_has_claimed_yet_is_awaited_where_a_record_comes_back_claim_by_claim() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (coding, now) = (coding(20, 40), Timestamp(7));
    let until = |claimed| repair::claims_awaited_until(coding, claimed, now, 7 * DAY_MS, DAY_MS / 2);
    assert_eq!(until(20), Some(now.after_ms(7 * DAY_MS + DAY_MS / 2)));
    assert_eq!(repair::claims_awaited_until(coding, 20, now, 365 * DAY_MS, DAY_MS / 2), until(20), "ours, not others'");
    assert_eq!([until(usize::from(coding.placed_enough())), until(40)], [None, None], "a client's or a steward's");

    let mut some = SegmentHealth::new(coding);
    for number in 0..20 {
        claim(&mut some, number, node(number), Source::Own);
        some.audited(index(number), node(number), Outcome::Held);
    }
    let room = Room { nodes: 40, domains: 40 };
    let decide = |health: &SegmentHealth| repair::decide(coding, health.counters(), room);
    assert_eq!((some.counters(), decide(&some)), (counters(20, 0, 0, 20), Decision::Now));
    let awaiting = some.clone().awaiting_claims(coding);
    assert_eq!((awaiting.counters(), decide(&awaiting)), (counters(20, 20, 0, 0), Decision::Whole));
    assert_eq!(awaiting.missing().count(), 0);
    // Names that prove nothing do not call for a repair either.
    let mut offered = some.clone();
    (20..40).for_each(|number| assert!(claim(&mut offered, number, node(number), Source::Stranger)));
    assert_eq!((offered.counters(), decide(&offered)), (counters(20, 0, 20, 0), Decision::Now));
    let awaiting = offered.awaiting_claims(coding);
    assert_eq!((awaiting.counters(), awaiting.missing().count()), (counters(20, 20, 0, 0), 0));

    // One that is lost where few are left: not the moment to wait.
    let mut few = some.clone();
    for number in 20..22 {
        claim(&mut few, number, node(number), Source::Stranger);
        few.audited(index(number), node(number), Outcome::Held);
    }
    few.lost(node(7));
    assert_eq!(few.clone().awaiting_claims(coding).counters(), few.counters());
    assert_eq!(decide(&few.awaiting_claims(coding)), Decision::Now);
    // With a quarter of the parity it is: what is known to be lost is lost, and that alone is rebuilt.
    let mut enough = some;
    for number in 20..31 {
        claim(&mut enough, number, node(number), Source::Stranger);
        enough.audited(index(number), node(number), Outcome::Held);
    }
    (0..6).for_each(|number| assert!(enough.lost(node(number))));
    let awaiting = enough.awaiting_claims(coding);
    assert_eq!((awaiting.counters(), decide(&awaiting)), (counters(25, 9, 6, 0), Decision::Now));
    assert_eq!(awaiting.missing().collect::<Vec<_>>(), (0..6).map(ShardIndex).collect::<Vec<_>>());
    let renamed = awaiting.map_nodes(|node| node);
    assert_eq!((renamed.counters(), renamed.missing().count()), (counters(25, 9, 6, 0), 6));
}

fn helper(number: u8, domain: u8, trust: Trust) -> Helper {
    let candidate = Candidate {
        node: node(number),
        domain: Domain::new(domain.to_string()),
        free_bytes: 1 << 30,
        standing: Standing::KnownGood,
    };
    Helper { candidate, trust }
}

proptest! {
    /// Whatever is claimed by whom: no two shards of a segment on one node, no node of bad repute, domains shared
    /// only where safety asks for it, and room, decision and plan agree.
    #[test]
    fn a_plan_never_puts_two_shards_on_one_node(
        ops in ops(), seed: u64, helpers in prop::collection::vec((0..30u8, 0..12u8, 0..3u8), 0..30),
    ) {
        let coding = coding(2, 6);
        let mut health = SegmentHealth::new(coding);
        for op in ops {
            match op {
                Op::Claim(number, holder, source) => { claim(&mut health, number, node(holder), source); }
                Op::Audited(number, holder, held) => {
                    health.audited(index(number), node(holder), if held { Outcome::Held } else { Outcome::Wrong });
                }
                Op::Silent(holder) => { health.silent(node(holder)); }
                Op::Lost(holder) => { health.lost(node(holder)); }
                Op::Returned(holder) => { health.returned(node(holder)); }
                Op::Release(number, holder) => { health.release(index(number), node(holder)); }
            }
        }
        let helpers: Vec<Helper> = helpers.into_iter().map(|(number, domain, trust)| {
            helper(number, domain, [Trust::Trusted, Trust::Vetting, Trust::Disqualified][usize::from(trust)])
        }).collect();
        let domains: BTreeMap<NodeId, Domain> = (0..8).map(|number| (node(number), Domain::new(number.to_string()))).collect();
        let domain_of = |holder: &NodeId| domains.get(holder).cloned();
        let room = plan::room(&health, 1_000, &helpers, domain_of);
        let decision = repair::decide(coding, health.counters(), room);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let planned = plan::plan(&mut rng, coding, &health, 1_000, &helpers, domain_of);
        prop_assert_eq!(planned.is_some(), matches!(decision, Decision::Now | Decision::TopUp));
        let Some(planned) = planned else { return Ok(()) };

        let goal = repair::goal(coding, health.counters(), room);
        prop_assert_eq!(planned.targets.len(), goal - usize::from(health.counters().standing()));
        let mut nodes: BTreeSet<NodeId> = health.claims().iter().map(|claim| claim.node).collect();
        for place in planned.targets.values() {
            prop_assert!(nodes.insert(place.node), "a second shard, or planned twice");
            prop_assert!(helpers.iter().any(|helper| helper.candidate.node == place.node && helper.trust != Trust::Disqualified));
        }
        for index in planned.targets.keys() {
            prop_assert!(matches!(health.state(*index), ShardState::Lost | ShardState::Unclaimed));
        }
        let distinct: BTreeSet<&ShardIndex> = planned.sources.iter().map(|(index, _)| index).collect();
        prop_assert!(distinct.len() == planned.sources.len() && distinct.len() >= usize::from(coding.k()));
        prop_assert_eq!(planned.bytes, 1_000 * (u64::from(coding.k()) + planned.targets.len() as u64));
        if planned.targets.len() <= room.domains {
            let new: BTreeSet<&Domain> = planned.targets.values().map(|place| &place.domain).collect();
            prop_assert_eq!(new.len(), planned.targets.len(), "a domain is shared without need");
        }
    }

    /// One node comes and goes as it likes, others never: each of its shards is rebuilt once and never again, since
    /// the newest claim stays.
    #[test]
    fn a_node_that_comes_and_goes_costs_one_repair(visits in prop::collection::vec(any::<bool>(), 1..40)) {
        let coding = coding(3, 6);
        let mut health = whole(coding);
        let mut signed: BTreeMap<NodeId, Timestamp> = (0..6).map(|number| (node(number), Timestamp(0))).collect();
        let mut next = 100;
        let mut repairs = 0;
        for (step, releases) in (1..).zip(visits) {
            health.silent(node(0));
            health.lost(node(0));
            let room = Room { nodes: 1, domains: 1 };
            if repair::decide(coding, health.counters(), room) != Decision::Whole {
                repairs += 1;
                claim(&mut health, 0, node(next), Source::Steward);
                health.audited(index(0), node(next), Outcome::Held);
                signed.insert(node(next), Timestamp(step));
                next += 1;
            }
            health.returned(node(0));
            health.audited(index(0), node(0), Outcome::Held);
            let copies: Vec<Copy> = health.claims().iter()
                .filter(|claim| claim.index == index(0) && claim.state == ClaimState::Healthy)
                .map(|claim| Copy { holder: claim.node, signed_at: signed[&claim.node] })
                .collect();
            let Some(keeper) = surplus::keeper(&copies).filter(|_| releases) else { continue };
            for copy in copies.iter().filter(|copy| **copy != keeper) {
                health.release(index(0), copy.holder);
            }
        }
        prop_assert_eq!(repairs, 1);
        prop_assert_eq!(health.counters().standing(), 6);
    }
}

/// After a partition both sides rebuilt what the other held. All stewards name the same one to stay, so two copies
/// cannot both go, and liars cannot make a holder drop what nobody else can prove.
#[test]
fn of_two_copies_the_newest_stays_and_only_against_proof() {
    let copy = |number, at| Copy { holder: node(number), signed_at: Timestamp(at) };
    assert_eq!(surplus::keeper(&[copy(1, 10), copy(2, 20)]), Some(copy(2, 20)));
    assert_eq!(surplus::keeper(&[copy(2, 20), copy(1, 20), copy(3, 20)]), Some(copy(1, 20)));
    assert_eq!(surplus::keeper(&[copy(1, 10)]), Some(copy(1, 10)));
    assert_eq!(surplus::keeper(&[]), None);
    assert!(surplus::may_release(5, 8, true));
    assert!(!surplus::may_release(4, 8, true), "half is not most");
    assert!(!surplus::may_release(8, 8, false), "no proof");
    assert!(!surplus::may_release(0, 0, true));
    assert!(surplus::may_shrink(coding(10, 20), counters(12, 6, 2, 0)), "who sleeps stands");
    assert!(!surplus::may_shrink(coding(10, 20), counters(17, 0, 3, 0)));
}

proptest! {
    /// Over any time, no more is spent than was saved and came in, but for the last piece.
    #[test]
    fn the_budget_holds(spends in prop::collection::vec((0..60_000u64, 0..3_000_000u64), 1..100), rate in 1..10_000u64) {
        let mut budget = Budget::new(Timestamp(0), rate);
        let (mut now, mut spent, mut largest) = (0, 0, 0);
        for (wait_ms, bytes) in spends {
            now += wait_ms;
            if let Err(at) = budget.spend(Timestamp(now), bytes) {
                let at = at.expect("the rate is not 0");
                prop_assert!(budget.spend(Timestamp(at.0 - 1), bytes).is_err(), "no later than it must be");
                now = at.0;
                prop_assert_eq!(budget.spend(at, bytes), Ok(()), "and no earlier");
            }
            spent += bytes;
            largest = largest.max(bytes);
            prop_assert!(spent <= rate * 600 + rate * now / 1000 + largest + 1);
        }
    }
}

#[test]
fn a_budget_of_nothing_spends_nothing_and_what_was_not_used_comes_back() {
    let mut none = Budget::new(Timestamp(0), 0);
    assert_eq!(none.spend(Timestamp(u64::MAX), 1), Err(None));
    let mut budget = Budget::new(Timestamp(0), 1_000);
    assert_eq!(budget.spend(Timestamp(0), 600_000), Ok(()));
    assert_eq!(budget.spend(Timestamp(0), 1_000), Err(Some(Timestamp(1_000))));
    budget.refund(1_000);
    assert_eq!(budget.spend(Timestamp(0), 1_000), Ok(()));
}

/// Nobody needs to remember one that is.
#[test]
fn a_budget_is_as_a_new_one_when_all_is_saved_up() {
    assert!(Budget::new(Timestamp(5), 0).is_saved_up(Timestamp(5)));
    let mut budget = Budget::new(Timestamp(0), 1_000);
    assert!(budget.is_saved_up(Timestamp(0)));
    assert_eq!(budget.spend(Timestamp(0), 30_000), Ok(()));
    assert!(!budget.is_saved_up(Timestamp(29_999)));
    assert!(budget.is_saved_up(Timestamp(30_000)));
    let mut new = Budget::new(Timestamp(30_000), 1_000);
    for (at, bytes) in [(30_000, 600_000), (30_500, 1), (40_000, 20_000)] {
        assert_eq!(budget.spend(Timestamp(at), bytes), new.spend(Timestamp(at), bytes));
    }
}
