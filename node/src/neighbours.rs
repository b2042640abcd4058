//! The nodes that this one knows: their failure domains, whether they are stewards, when they were last there.
//!
//! Filled from connections and from answers to "about"; asks nobody by itself. A node counts as gone only after the
//! grace time: volunteers sleep at night.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use commonhold_network::{Multiaddr, domain_of};
use commonhold_policy::Domain;
use commonhold_protocol::NodeId;

use crate::steward::Sender;

/// The most nodes that are remembered; beyond it the one that was away longest is forgotten.
const NEIGHBOURS_MAX: usize = 4096;
/// What a node said of itself is asked again after this time.
const ABOUT_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
struct Neighbour {
    /// The domain of the address that its connection comes from.
    observed: Option<Domain>,
    /// The domain that it names itself.
    named: Option<Domain>,
    /// None: it has not said yet.
    steward: Option<bool>,
    about_at: Option<Instant>,
    seen_at: Instant,
    connected_at: Option<Instant>,
}

/// A steward that is not gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StewardPeer {
    /// Who.
    pub node: NodeId,
    /// Its failure domain.
    pub domain: Domain,
    /// Since when it is connected; none if it is not.
    pub connected_at: Option<Instant>,
}

/// The nodes that this one knows.
#[derive(Debug)]
pub struct Neighbours {
    own: NodeId,
    own_domain: Domain,
    /// Domains are configured names (private networks), not observed addresses.
    named: bool,
    known: Mutex<BTreeMap<NodeId, Neighbour>>,
}

impl Neighbours {
    /// Knows nobody yet. `named`: failure domains are names that nodes give themselves.
    pub fn new(own: NodeId, own_domain: Option<&str>, named: bool) -> Self {
        let own_domain = own_domain.map_or_else(|| Self::nameless(own), Domain::new);
        Self { own, own_domain, named, known: Mutex::default() }
    }

    /// Where domains are names, a node without one is a domain of its own: whoever runs the network trusts its nodes.
    fn nameless(node: NodeId) -> Domain {
        Domain::new(format!("{node:#}"))
    }

    /// Ourselves, as a steward among others.
    pub fn own(&self) -> (NodeId, Domain) {
        (self.own, self.own_domain.clone())
    }

    /// Takes over who is connected, each with the address that we observe.
    pub fn set_connected(&self, connected: &[(NodeId, Multiaddr)]) {
        let now = Instant::now();
        let connected: BTreeMap<NodeId, &Multiaddr> =
            connected.iter().map(|(node, address)| (*node, address)).collect();
        let mut known = self.known();
        for (node, neighbour) in known.iter_mut() {
            if neighbour.connected_at.is_some() {
                neighbour.seen_at = now;
                if !connected.contains_key(node) {
                    neighbour.connected_at = None;
                }
            }
        }
        for (node, address) in connected {
            let neighbour = known.entry(node).or_insert_with(|| Neighbour::seen(now));
            neighbour.seen_at = now;
            neighbour.connected_at.get_or_insert(now);
            neighbour.observed = domain_of(address).map(Domain::new).or(neighbour.observed.take());
        }
        Self::forget_some(&mut known);
    }

    fn forget_some(known: &mut BTreeMap<NodeId, Neighbour>) {
        while known.len() > NEIGHBOURS_MAX {
            let away_longest =
                known.iter().min_by_key(|(_, neighbour)| (neighbour.connected_at.is_some(), neighbour.seen_at));
            let Some(node) = away_longest.map(|(node, _)| *node) else { break };
            known.remove(&node);
        }
    }

    /// A peer is connected, from the address that we observe.
    pub fn connected(&self, node: NodeId, address: &Multiaddr) {
        let now = Instant::now();
        let mut known = self.known();
        let neighbour = known.entry(node).or_insert_with(|| Neighbour::seen(now));
        neighbour.seen_at = now;
        neighbour.connected_at.get_or_insert(now);
        neighbour.observed = domain_of(address).map(Domain::new).or(neighbour.observed.take());
        Self::forget_some(&mut known);
    }

    /// A node's connection has ended: even if it is back already, it may have missed something.
    pub fn disconnected(&self, node: NodeId) {
        if let Some(neighbour) = self.known().get_mut(&node) {
            neighbour.connected_at = None;
            neighbour.seen_at = Instant::now();
        }
    }

    /// What a node answered to "about".
    pub fn heard_about(&self, node: NodeId, steward: bool, domain: Option<String>) {
        let now = Instant::now();
        let mut known = self.known();
        let neighbour = known.entry(node).or_insert_with(|| Neighbour::seen(now));
        neighbour.seen_at = now;
        neighbour.about_at = Some(now);
        neighbour.steward = Some(steward);
        neighbour.named = domain.map(Domain::new);
    }

    /// True if a node was connected, or said something of itself.
    pub fn is_known(&self, node: &NodeId) -> bool {
        self.known().contains_key(node)
    }

    /// Since when a node is connected; none if it is not.
    pub fn connected_at(&self, node: &NodeId) -> Option<Instant> {
        self.known().get(node).and_then(|neighbour| neighbour.connected_at)
    }

    /// True if a node should be asked about itself.
    pub fn wants_about(&self, node: &NodeId) -> bool {
        self.known().get(node).and_then(|neighbour| neighbour.about_at).is_none_or(|at| at.elapsed() > ABOUT_EVERY)
    }

    /// A node's failure domain.
    pub fn domain(&self, node: NodeId) -> Domain {
        let known = self.known();
        let neighbour = known.get(&node);
        if self.named {
            neighbour.and_then(|neighbour| neighbour.named.clone()).unwrap_or_else(|| Self::nameless(node))
        } else {
            neighbour.and_then(|neighbour| neighbour.observed.clone()).unwrap_or_else(Domain::unknown)
        }
    }

    /// A peer that asks something of us. What a stranger calls itself does not count: its limits follow the address
    /// that it comes from, unless it is a node of a private network.
    pub fn sender(&self, node: NodeId) -> Sender {
        let known = self.known();
        let neighbour = known.get(&node);
        let named = neighbour.filter(|_| self.named).and_then(|neighbour| neighbour.named.clone());
        let domain = named.or_else(|| neighbour?.observed.clone()).unwrap_or_else(Domain::unknown);
        Sender { node, domain, is_steward: neighbour.is_some_and(|neighbour| neighbour.steward == Some(true)) }
    }

    /// The nodes that say they are stewards and were there within `grace`.
    pub fn stewards(&self, grace: Duration) -> Vec<StewardPeer> {
        let present: Vec<(NodeId, Option<Instant>)> = {
            let known = self.known();
            let stewards = known.iter().filter(|(_, neighbour)| {
                let there = neighbour.connected_at.is_some() || neighbour.seen_at.elapsed() <= grace;
                neighbour.steward == Some(true) && there
            });
            stewards.map(|(node, neighbour)| (*node, neighbour.connected_at)).collect()
        };
        let peer = |(node, connected_at)| StewardPeer { node, domain: self.domain(node), connected_at };
        present.into_iter().map(peer).collect()
    }

    /// The nodes that said something of themselves, stewards or not, and were there within `grace`.
    pub fn present(&self, grace: Duration) -> Vec<NodeId> {
        let known = self.known();
        let present = known.iter().filter(|(_, neighbour)| {
            neighbour.steward.is_some() && (neighbour.connected_at.is_some() || neighbour.seen_at.elapsed() <= grace)
        });
        present.map(|(node, _)| *node).collect()
    }

    /// How many failure domains besides our own there are nodes in that said something of themselves and were there
    /// within `grace`.
    pub fn domains(&self, grace: Duration) -> usize {
        let own = self.own().1;
        let others: BTreeSet<Domain> = self.present(grace).into_iter().map(|node| self.domain(node)).collect();
        others.into_iter().filter(|domain| *domain != own).count()
    }

    /// Those that keep records, ourselves among them: what the stewards of a key are chosen from.
    pub fn steward_candidates(&self, grace: Duration) -> Vec<(NodeId, Domain)> {
        let others = self.stewards(grace).into_iter().map(|peer| (peer.node, peer.domain));
        others.chain([self.own()]).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeId, Neighbour>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour {
    fn seen(now: Instant) -> Self {
        Self { observed: None, named: None, steward: None, about_at: None, seen_at: now, connected_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn at(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    #[test]
    fn in_the_open_network_the_address_decides_and_not_the_name() {
        let neighbours = Neighbours::new(node(0), None, false);
        neighbours.set_connected(&[(node(1), at("/ip4/203.0.113.7/tcp/1")), (node(2), at("/ip4/203.0.113.9/tcp/1"))]);
        neighbours.heard_about(node(1), true, Some("far-away".to_owned()));
        assert_eq!(neighbours.domain(node(1)).as_str(), "203.0.113.0/24");
        assert_eq!(neighbours.domain(node(1)), neighbours.domain(node(2)));
        assert_eq!(neighbours.sender(node(3)).domain, Domain::unknown());
    }

    #[test]
    fn in_a_private_network_the_name_decides() {
        let neighbours = Neighbours::new(node(0), Some("rack-1"), true);
        neighbours.set_connected(&[(node(1), at("/ip4/127.0.0.1/tcp/1")), (node(2), at("/ip4/127.0.0.1/tcp/2"))]);
        neighbours.heard_about(node(1), true, Some("rack-2".to_owned()));
        neighbours.heard_about(node(2), true, None);
        assert_eq!(neighbours.domain(node(1)).as_str(), "rack-2");
        assert_ne!(neighbours.domain(node(2)), neighbours.domain(node(1)));
        assert_eq!(neighbours.own().1.as_str(), "rack-1");
    }

    #[test]
    fn a_steward_is_gone_after_the_grace_time_and_not_before() {
        let neighbours = Neighbours::new(node(0), None, false);
        neighbours.set_connected(&[(node(1), at("/ip4/203.0.113.7/tcp/1"))]);
        assert!(neighbours.stewards(Duration::ZERO).is_empty(), "it has not said that it is a steward");
        neighbours.heard_about(node(1), true, None);
        assert!(neighbours.stewards(Duration::ZERO)[0].connected_at.is_some());
        neighbours.set_connected(&[]);
        assert_eq!(neighbours.stewards(Duration::from_secs(60))[0].connected_at, None);
        assert!(neighbours.stewards(Duration::ZERO).is_empty());
    }

    #[test]
    fn the_number_of_nodes_that_are_remembered_is_bounded() {
        let neighbours = Neighbours::new(node(0), None, false);
        for number in 0..NEIGHBOURS_MAX as u32 + 100 {
            let node = NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
            neighbours.set_connected(&[(node, at("/ip4/203.0.113.7/tcp/1"))]);
        }
        assert_eq!(neighbours.known().len(), NEIGHBOURS_MAX);
    }
}
