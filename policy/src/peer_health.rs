//! Whom to ask first: what we have seen of peers lately. Orders, and never excludes: a peer that failed is asked last.

use std::collections::BTreeMap;

use commonhold_protocol::{NodeId, Timestamp};

/// The most peers remembered; beyond it the one that was heard of longest ago is forgotten. About 0.5 MiB.
pub const PEERS_MAX: usize = 4096;
/// A first failure is held against a peer for this long: about what the network waits before it dials again.
pub const FAILURE_MS: u64 = 20_000;
/// Each failure in a row doubles that time, up to this: a peer that came back is used again within five minutes
/// even if nobody else tells us.
pub const FAILURE_MS_MAX: u64 = 300_000;

/// How promising a peer is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// A connection is open.
    Connected,
    /// It has answered since it last failed.
    KnownGood,
    /// Nothing is known, or what was known has been forgotten.
    Unknown,
    /// It failed a short while ago.
    RecentlyFailed,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    connected: bool,
    good: bool,
    /// In a row.
    failures: u32,
    failed_at: Timestamp,
    heard_of_at: Timestamp,
}

impl Peer {
    fn standing(&self, now: Timestamp) -> Standing {
        let held_against_ms = match self.failures {
            0 => 0,
            failures => (FAILURE_MS << (failures - 1).min(16)).min(FAILURE_MS_MAX),
        };
        if self.failures > 0 && now < self.failed_at.after_ms(held_against_ms) {
            Standing::RecentlyFailed
        } else if self.connected {
            Standing::Connected
        } else if self.good {
            Standing::KnownGood
        } else {
            Standing::Unknown
        }
    }
}

/// What is remembered of peers; at most [`PEERS_MAX`] of them.
#[derive(Debug, Clone, Default)]
pub struct PeerHealth {
    peers: BTreeMap<NodeId, Peer>,
}

impl PeerHealth {
    /// Nothing known of anyone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection was opened. Whatever failed before, it can be reached now.
    pub fn connected(&mut self, node: NodeId, now: Timestamp) {
        let peer = self.peer(node, now);
        peer.connected = true;
        peer.failures = 0;
    }

    /// Its last connection was closed. That alone is no failure: idle connections are closed too.
    pub fn disconnected(&mut self, node: NodeId, now: Timestamp) {
        self.peer(node, now).connected = false;
    }

    /// It did what it was asked.
    pub fn succeeded(&mut self, node: NodeId, now: Timestamp) {
        let peer = self.peer(node, now);
        peer.good = true;
        peer.failures = 0;
    }

    /// It could not be reached, gave no proper answer, or was so slow that others were asked instead.
    pub fn failed(&mut self, node: NodeId, now: Timestamp) {
        let peer = self.peer(node, now);
        // One dead peer fails many transfers at once; only a failure after the last was forgiven is a further one.
        if peer.standing(now) != Standing::RecentlyFailed {
            peer.failures = peer.failures.saturating_add(1);
            peer.failed_at = now;
        }
        peer.good = false;
    }

    /// How promising `node` is now.
    pub fn standing(&self, node: &NodeId, now: Timestamp) -> Standing {
        self.peers.get(node).map_or(Standing::Unknown, |peer| peer.standing(now))
    }

    fn peer(&mut self, node: NodeId, now: Timestamp) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&node) {
            let idle = self.peers.iter().min_by_key(|(_, peer)| (peer.connected, peer.heard_of_at));
            if let Some(idle) = idle.map(|(node, _)| *node) {
                self.peers.remove(&idle);
            }
        }
        let peer = self.peers.entry(node).or_default();
        peer.heard_of_at = now;
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn better_known_peers_come_first() {
        let mut health = PeerHealth::new();
        let now = Timestamp(1_000);
        health.failed(node(0), now);
        health.succeeded(node(2), now);
        health.connected(node(3), now);
        let mut order = [node(0), node(1), node(2), node(3)];
        order.sort_by_key(|node| health.standing(node, now));
        assert_eq!(order, [node(3), node(2), node(1), node(0)]);
        health.disconnected(node(3), now);
        assert_eq!(health.standing(&node(3), now), Standing::Unknown);
    }

    #[test]
    fn a_failure_is_forgotten_after_a_while_and_later_the_more_often_it_repeats() {
        let mut health = PeerHealth::new();
        let mut now = Timestamp(1_000);
        for held_against_ms in [20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
            // Those that fail together with the first, since they ran side by side, do not count.
            for _ in 0..10 {
                health.failed(node(1), now);
            }
            now = now.after_ms(held_against_ms - 1);
            assert_eq!(health.standing(&node(1), now), Standing::RecentlyFailed);
            now = now.after_ms(1);
            assert_eq!(health.standing(&node(1), now), Standing::Unknown);
        }
    }

    #[test]
    fn a_new_connection_or_success_clears_failures() {
        let mut health = PeerHealth::new();
        let now = Timestamp(1_000);
        health.failed(node(1), now);
        health.connected(node(1), now);
        assert_eq!(health.standing(&node(1), now), Standing::Connected);
        health.failed(node(1), now);
        assert_eq!(health.standing(&node(1), now), Standing::RecentlyFailed, "connected, and yet it fails");
        health.succeeded(node(1), now);
        assert_eq!(health.standing(&node(1), now), Standing::Connected);
    }

    #[test]
    fn memory_is_bounded_and_keeps_those_that_are_connected() {
        let mut health = PeerHealth::new();
        health.connected(node(0), Timestamp(0));
        for number in 1..=PEERS_MAX as u32 {
            health.succeeded(node(number), Timestamp(u64::from(number)));
        }
        assert_eq!(health.peers.len(), PEERS_MAX);
        let now = Timestamp(10_000);
        assert_eq!(health.standing(&node(0), now), Standing::Connected);
        assert_eq!(health.standing(&node(1), now), Standing::Unknown);
        assert_eq!(health.standing(&node(2), now), Standing::KnownGood);
    }
}
