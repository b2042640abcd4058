//! A node that nobody can dial asks relays to pass connections on. Does nothing while AutoNAT has not found us
//! unreachable, or once an address of ours is confirmed.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, Swarm, core::transport::ListenerId, identify, multiaddr::Protocol, relay};

use crate::{address::without_peer, behaviour::Behaviour};

/// Failed tests of our addresses before we believe that we are unreachable.
const FAILURES_MIN: u32 = 3;
/// Relays that we listen through.
const RELAYS: usize = 2;
/// Relays that we remember.
const RELAYS_KNOWN_MAX: usize = 16;

#[derive(Default)]
pub(crate) struct Reachability {
    confirmed: bool,
    failures: u32,
    relays: Vec<(PeerId, Multiaddr)>,
    reserved: HashMap<ListenerId, PeerId>,
}

impl Reachability {
    /// An address of ours was dialled successfully from outside.
    pub(crate) fn confirmed(&mut self) {
        self.confirmed = true;
    }

    /// A test of one of our addresses failed.
    pub(crate) fn unreachable(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Remembers peers that relay for others.
    pub(crate) fn identified(&mut self, peer: PeerId, info: &identify::Info, observed: &Multiaddr) {
        let through_relay = observed.iter().any(|part| part == Protocol::P2pCircuit);
        if through_relay || !info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            return;
        }
        let Some(address) = info.listen_addrs.iter().find(|claimed| crate::address::is_plausible(claimed, observed))
        else {
            return;
        };
        self.relays.retain(|(known, _)| *known != peer);
        if self.relays.len() < RELAYS_KNOWN_MAX {
            self.relays.push((peer, without_peer(address.clone())));
        }
    }

    /// A listener, perhaps one through a relay, has ended; [`Self::tick`] looks for another.
    pub(crate) fn listener_closed(&mut self, listener: ListenerId) {
        if let Some(peer) = self.reserved.remove(&listener) {
            self.relays.retain(|(known, _)| *known != peer);
        }
    }

    /// Sees to it that enough relays pass connections on to us, if we need them.
    pub(crate) fn tick(&mut self, swarm: &mut Swarm<Behaviour>) {
        if self.confirmed || self.failures < FAILURES_MIN {
            return;
        }
        while self.reserved.len() < RELAYS {
            let unused = self.relays.iter().find(|(peer, _)| !self.reserved.values().any(|used| used == peer));
            let Some((peer, address)) = unused.cloned() else { return };
            let address = address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
            match swarm.listen_on(address.clone()) {
                Ok(listener) => {
                    tracing::info!(%address, "nobody can dial us: listening through a relay");
                    self.reserved.insert(listener, peer);
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "cannot listen through this relay");
                    self.relays.retain(|(known, _)| *known != peer);
                }
            }
        }
    }
}
