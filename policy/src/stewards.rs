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
    choose_of(by_distance.into_values().map(|(node, domain)| (*node, domain)))
}

/// As [`choose`], of candidates that come closest first. No more of them are looked at than it takes.
pub fn choose_of<N, D: Ord>(closest_first: impl IntoIterator<Item = (N, D)>) -> Vec<N> {
    let mut domains = BTreeSet::new();
    let (mut chosen, mut further) = (Vec::with_capacity(STEWARDS), Vec::new());
    for (place, (node, domain)) in closest_first.into_iter().enumerate() {
        let kind = if domains.insert(domain) { &mut chosen } else { &mut further };
        kind.push((place, node));
        if chosen.len() == STEWARDS {
            break;
        }
    }
    chosen.extend(further.into_iter().take(STEWARDS - chosen.len()));
    chosen.sort_unstable_by_key(|(place, _)| *place);
    chosen.into_iter().map(|(_, node)| node).collect()
}

/// The nodes that were found closest to one key, for the keys around it: who goes through keys in the order of
/// [`NodeId::place_of`] needs one walk for each neighbourhood, not for each key.
#[derive(Debug, Clone)]
pub struct Neighbourhood {
    place: [u8; 32],
    nodes: Vec<(NodeId, Domain)>,
    /// All nodes within this many low bits of the distance are among them; 256: all that there are.
    bits: u32,
}

impl Neighbourhood {
    /// What a walk to `key` found, and ourselves among it; `asked_for` is how many nodes a walk gives where there are as
    /// many.
    pub fn new(key: [u8; 32], found: &[(NodeId, Domain)], own: (NodeId, Domain), asked_for: usize) -> Self {
        let bits = if found.len() < asked_for {
            256
        } else {
            let farthest = found.iter().map(|(node, _)| node.distance(&key)).max().unwrap_or_default();
            bits_of(&farthest).saturating_sub(1)
        };
        let nodes = found.iter().filter(|(node, _)| *node != own.0).cloned().chain([own.clone()]).collect();
        Self { place: NodeId::place_of(&key), nodes, bits }
    }

    /// The stewards of a key, if the walk says who they are.
    pub fn stewards_of(&self, key: &[u8; 32]) -> Option<Vec<NodeId>> {
        let place = NodeId::place_of(key);
        let apart: [u8; 32] = std::array::from_fn(|at| self.place[at] ^ place[at]);
        let chosen = choose(key, &self.nodes);
        let farthest = chosen.iter().map(|node| bits_of(&node.distance(key))).max().unwrap_or(0);
        let is_sure = self.bits == 256 || place == self.place || bits_of(&apart).max(farthest) <= self.bits;
        is_sure.then_some(chosen)
    }
}

/// Of a number, without the zeros that it begins with.
fn bits_of(distance: &[u8; 32]) -> u32 {
    let zeros: u32 = match distance.iter().position(|byte| *byte != 0) {
        Some(at) => at as u32 * 8 + distance[at].leading_zeros(),
        None => 256,
    };
    256 - zeros
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

    proptest! {
        /// Whatever a neighbourhood is sure of is what a walk to that very key would say.
        #[test]
        fn a_neighbourhood_says_what_a_walk_would_say_or_nothing(
            nodes in prop::collection::btree_set(any::<[u8; 32]>(), 1..60),
            key: [u8; 32],
            near: [u8; 32],
        ) {
            const ASKED_FOR: usize = 20;
            let all: Vec<(NodeId, Domain)> = nodes
                .into_iter()
                .map(|id| (NodeId::from_bytes(id), Domain::new(format!("{:?}", &id[..4]))))
                .collect();
            let walk = |key: &[u8; 32]| {
                let mut found = all[1..].to_vec();
                found.sort_by_key(|(node, _)| node.distance(key));
                found.truncate(ASKED_FOR);
                found
            };
            let said = Neighbourhood::new(key, &walk(&key), all[0].clone(), ASKED_FOR).stewards_of(&near);
            if let Some(said) = said {
                prop_assert_eq!(said, choose(&near, &all));
            } else {
                prop_assert!(all.len() > ASKED_FOR && near != key);
            }
        }
    }

    #[test]
    fn keys_in_their_order_take_a_walk_for_each_neighbourhood() {
        let all: Vec<(NodeId, Domain)> = (0..300_u32)
            .map(|number| {
                let id = blake3::hash(&number.to_le_bytes());
                (NodeId::from_bytes(*id.as_bytes()), Domain::new(number.to_string()))
            })
            .collect();
        let mut keys: Vec<[u8; 32]> =
            (0..2_000_u32).map(|number| *blake3::hash(&number.to_be_bytes()).as_bytes()).collect();
        keys.sort_unstable_by_key(NodeId::place_of);
        let (mut near, mut walks) = (None::<Neighbourhood>, 0);
        for key in keys {
            if near.as_ref().and_then(|near| near.stewards_of(&key)).is_some() {
                continue;
            }
            let mut found = all[1..].to_vec();
            found.sort_by_cached_key(|(node, _)| node.distance(&key));
            found.truncate(20);
            near = Some(Neighbourhood::new(key, &found, all[0].clone(), 20));
            walks += 1;
        }
        assert!(walks < 200, "{walks} walks for 2,000 keys");
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
