//! Who keeps the record of a key: the closest nodes, at most one per domain while the network allows.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::NodeId;

use crate::Domain;

/// How many nodes keep a record.
pub const STEWARDS: usize = 8;

/// The stewards of `key` among those that answered, closest first; all candidates if they are no more than
/// [`STEWARDS`].
///
/// Node ids near a key can be ground out in seconds, addresses in many domains cannot: so the closest node of each
/// domain comes before the second of any, and only then does closeness decide.
pub fn choose(key: &[u8; 32], candidates: &[(NodeId, Domain)]) -> Vec<NodeId> {
    let by_distance: BTreeMap<[u8; 32], &(NodeId, Domain)> =
        candidates.iter().map(|candidate| (candidate.0.distance(key), candidate)).collect();
    let mut domains = BTreeSet::new();
    let (first, further): (Vec<_>, Vec<_>) =
        by_distance.into_iter().partition(|(_, (_, domain))| domains.insert(domain));
    let mut chosen: Vec<_> = first.into_iter().chain(further).take(STEWARDS).collect();
    chosen.sort_by_key(|(distance, _)| *distance);
    chosen.into_iter().map(|(_, (node, _))| *node).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates() -> impl Strategy<Value = Vec<(NodeId, Domain)>> {
        let one = (any::<[u8; 32]>(), 0..14u8);
        prop::collection::vec(one, 0..30).prop_map(|all| {
            let named = |(id, domain): ([u8; 32], u8)| (NodeId::from_bytes(id), Domain::new(domain.to_string()));
            all.into_iter().map(named).collect()
        })
    }

    /// The oracle: sort by distance; walk down taking new domains; walk down again taking anyone.
    fn choose_by_sorting(key: &[u8; 32], candidates: &[(NodeId, Domain)]) -> Vec<NodeId> {
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|(node, _)| node.distance(key));
        let mut taken: Vec<(NodeId, Domain)> = Vec::new();
        for any_domain in [false, true] {
            for candidate in &sorted {
                let fits = any_domain || taken.iter().all(|(_, domain)| *domain != candidate.1);
                if taken.len() < STEWARDS && fits && !taken.contains(candidate) {
                    taken.push(candidate.clone());
                }
            }
        }
        taken.sort_by_key(|(node, _)| node.distance(key));
        taken.into_iter().map(|(node, _)| node).collect()
    }

    proptest! {
        #[test]
        fn the_choice_equals_the_oracles_and_does_not_depend_on_order(
            (all, shuffled) in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            key: [u8; 32],
        ) {
            let chosen = choose(&key, &all);
            prop_assert_eq!(&chosen, &choose_by_sorting(&key, &all));
            prop_assert_eq!(chosen, choose(&key, &shuffled));
        }
    }

    /// Eight node ids ground out next to a key, all on one machine, are one steward and no more.
    #[test]
    fn ids_ground_out_in_one_domain_become_one_steward() {
        let key = [7; 32];
        let mut nodes: Vec<NodeId> = (0..=255).map(|i| NodeId::from_bytes([i; 32])).collect();
        nodes.sort_by_key(|node| node.distance(&key));
        let attackers = nodes.drain(..8).map(|node| (node, Domain::new("198.51.100.0/24"))).collect::<Vec<_>>();
        let honest = nodes.iter().zip(0..).map(|(node, i)| (*node, Domain::new(format!("203.0.{i}.0/24"))));
        let all: Vec<_> = attackers.iter().cloned().chain(honest).collect();
        let chosen = choose(&key, &all);
        assert_eq!(chosen.len(), STEWARDS);
        assert_eq!(chosen.iter().filter(|node| attackers.iter().any(|(attacker, _)| attacker == *node)).count(), 1);
    }
}
