use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const SHARD: u64 = 1000;

fn candidate(number: u8, domain: u8, free_shards: u64, standing: Standing) -> Candidate {
    let domain = Domain::new(format!("rack-{domain}"));
    Candidate { node: NodeId::from_bytes([number; 32]), domain, free_bytes: free_shards * SHARD, standing }
}

fn candidates(count_max: u8) -> impl Strategy<Value = Vec<Candidate>> {
    let standing = prop_oneof![
        2 => Just(Standing::Connected),
        2 => Just(Standing::KnownGood),
        2 => Just(Standing::Unknown),
        1 => Just(Standing::RecentlyFailed),
    ];
    let one = (0..6u8, 0..6u64, standing);
    prop::collection::vec(one, 0..usize::from(count_max)).prop_map(|all| {
        let numbered = (0u8..).zip(all);
        numbered.map(|(number, (domain, free, standing))| candidate(number, domain, free, standing)).collect()
    })
}

fn codings() -> impl Strategy<Value = Coding> {
    (1..8u8, 0..8u8).prop_map(|(k, parity)| Coding::new(k, k + parity).unwrap())
}

/// The oracle of [`spread`]: again and again, look at all who are left for the one that is to come next.
fn spread_by_scanning(mut left: Vec<&Candidate>) -> Vec<&Candidate> {
    let mut ranked: Vec<&Candidate> = Vec::new();
    while !left.is_empty() {
        let in_domain = |candidate: &Candidate| ranked.iter().filter(|other| other.domain == candidate.domain).count();
        let failed = |candidate: &Candidate| candidate.standing == Standing::RecentlyFailed;
        let (next, _) = left
            .iter()
            .enumerate()
            .min_by_key(|(_, candidate)| (failed(candidate), in_domain(candidate)))
            .expect("someone is left");
        ranked.push(left.remove(next));
    }
    ranked
}

proptest! {
    #[test]
    fn a_plan_that_goes_on_has_the_same_places_and_sends_each_shard_where_it_was_sent_before(
        all in candidates(20), coding in codings(), seed: u64,
        sent in prop::collection::btree_map((0..16u8).prop_map(ShardIndex), 0..25u8, 0..16),
    ) {
        let Ok(before) = plan(&mut ChaCha8Rng::seed_from_u64(seed), coding, SHARD, &all) else { return Ok(()) };
        let sent = sent.into_iter().map(|(index, node)| (index, NodeId::from_bytes([node; 32]))).collect();
        let after = before.clone().resuming(&sent);
        let places = |plan: &PlacementPlan| {
            let mut nodes: Vec<NodeId> =
                plan.slots.values().chain(&plan.spares).map(|place| place.node).collect();
            nodes.sort();
            nodes
        };
        prop_assert_eq!(places(&before), places(&after));
        prop_assert!(before.slots.keys().eq(after.slots.keys()));
        // Of several shards that were sent to one node, as many stay there as the plan has places on it.
        for node in sent.values() {
            let wanted = sent.iter().filter(|(index, to)| *to == node && after.slots.contains_key(index));
            let kept = wanted.clone().filter(|(index, to)| after.slots[*index].node == **to).count();
            let offered = places(&before).iter().filter(|place| *place == node).count();
            prop_assert_eq!(kept, wanted.count().min(offered));
        }
    }

    #[test]
    fn spreading_by_sorting_equals_spreading_by_scanning(all in candidates(30)) {
        let mut drawn: Vec<&Candidate> = all.iter().collect();
        drawn.sort_by_key(|candidate| candidate.standing == Standing::RecentlyFailed);
        let mut counted: Vec<Drawn<'_, NodeId, Domain>> = drawn
            .iter()
            .map(|candidate| Drawn {
                failed: candidate.standing == Standing::RecentlyFailed,
                shares: false,
                in_domain: 1,
                key: 0.0,
                candidate: *candidate,
            })
            .collect();
        count_in_domains(&mut counted);
        prop_assert_eq!(spread(counted), spread_by_scanning(drawn));
    }

    #[test]
    fn a_plan_shares_nodes_and_domains_only_as_far_as_it_must(
        all in candidates(20), coding in codings(), seed: u64,
    ) {
        let n = usize::from(coding.n());
        let with_space: Vec<&Candidate> = all.iter().filter(|candidate| candidate.free_bytes >= SHARD).collect();
        let result = plan(&mut ChaCha8Rng::seed_from_u64(seed), coding, SHARD, &all);
        if with_space.len() < usize::from(coding.placed_enough()) {
            let need = usize::from(coding.placed_enough());
            let refusal = PlacementError::TooFewNodes { have: with_space.len(), known: all.len(), need, shard_bytes: SHARD };
            prop_assert_eq!(result, Err(refusal));
            return Ok(());
        }
        let plan = result.unwrap();
        let of = |place: &Place| all.iter().find(|candidate| candidate.node == place.node).unwrap();
        let failed = |place: &Place| of(place).standing == Standing::RecentlyFailed;

        // Space: nobody gets more than it has room for.
        let mut load: BTreeMap<NodeId, u64> = BTreeMap::new();
        for place in plan.slots.values() {
            *load.entry(place.node).or_default() += 1;
            prop_assert!(load[&place.node] * SHARD <= of(place).free_bytes);
            prop_assert_eq!(&place.domain, &of(place).domain);
        }
        // Nodes: one shard each while there are enough, two at most where there are not.
        prop_assert_eq!(load.len(), with_space.len().min(n));
        prop_assert!(load.values().all(|shards| *shards <= 2));
        prop_assert_eq!(plan.nodes_shared(), plan.slots.len() - load.len());
        let room_for_two = with_space.iter().filter(|candidate| candidate.free_bytes >= 2 * SHARD).count();
        prop_assert_eq!(plan.slots.len(), n.min(with_space.len() + room_for_two));
        // Standing: nobody who failed lately while a good node stands by.
        if plan.slots.values().any(failed) {
            prop_assert!(plan.spares.iter().all(failed));
        }
        // Domains: moving one shard to a spare of like standing would not spread them better.
        let mut loads: BTreeMap<&Domain, usize> = BTreeMap::new();
        for place in plan.slots.values() {
            *loads.entry(&place.domain).or_default() += 1;
        }
        for (slot, spare) in plan.slots.values().flat_map(|slot| plan.spares.iter().map(move |spare| (slot, spare))) {
            if failed(slot) == failed(spare) {
                prop_assert!(loads[&slot.domain] <= loads.get(&spare.domain).copied().unwrap_or(0) + 1);
            }
        }
        prop_assert_eq!(plan.domains_shared(), plan.slots.len() - loads.len());
        // Spares: all others, each once.
        let mut everyone: Vec<NodeId> = load.keys().copied().chain(plan.spares.iter().map(|spare| spare.node)).collect();
        everyone.sort_unstable();
        let mut expected: Vec<NodeId> = with_space.iter().map(|candidate| candidate.node).collect();
        expected.sort_unstable();
        prop_assert_eq!(everyone, expected);
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_whatever_the_order_of_candidates(
        all in candidates(20).prop_shuffle(), coding in codings(), seed: u64,
    ) {
        let mut sorted = all.clone();
        sorted.sort_by_key(|candidate| candidate.node);
        let mut plans = [all, sorted].map(|all| plan(&mut ChaCha8Rng::seed_from_u64(seed), coding, SHARD, &all));
        let [first, second] = &mut plans;
        prop_assert_eq!(first, second);
    }
}

#[test]
fn pledges_fill_up_evenly() {
    let all = [candidate(1, 1, 300, Standing::Unknown), candidate(2, 2, 100, Standing::Connected)];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let one_copy = Coding::new(1, 1).unwrap();
    let placed_on_larger = (0..10_000)
        .filter(|_| plan(&mut rng, one_copy, SHARD, &all).unwrap().slots[&ShardIndex(0)].node == all[0].node)
        .count();
    assert!((7_300..7_700).contains(&placed_on_larger), "{placed_on_larger} of 10000, expected three quarters");
}

/// Data shards serve the reads: were they to follow the draw, the largest pledges would serve nearly all of them.
#[test]
fn which_shard_a_node_gets_does_not_follow_from_its_pledge() {
    let all: Vec<Candidate> =
        (0..10).map(|i| candidate(i, i, if i == 0 { 1_000_000 } else { 10 }, Standing::Unknown)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let coding = Coding::new(5, 10).unwrap();
    let data_shards = (0..2_000)
        .filter(|_| {
            let plan = plan(&mut rng, coding, SHARD, &all).unwrap();
            plan.slots.iter().any(|(index, place)| index.0 < 5 && place.node == all[0].node)
        })
        .count();
    assert!((900..1_100).contains(&data_shards), "{data_shards} of 2000, expected half");
}
