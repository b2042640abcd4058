//! Who waits for a connection to whom.

use std::collections::HashMap;

use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use crate::{
    address::{peer_of, without_peer},
    behaviour::Behaviour,
    shared::Shared,
};

/// Callers that wait for one peer at once; more are told that it cannot be reached.
const WAITING_PER_PEER_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Dials {
    waiting: HashMap<PeerId, Vec<oneshot::Sender<bool>>>,
    to_address: HashMap<ConnectionId, oneshot::Sender<Option<PeerId>>>,
}

impl Dials {
    /// Answers true once there is a connection, false when dialling has failed.
    pub(crate) fn connect(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerId, reply: oneshot::Sender<bool>) {
        if swarm.is_connected(&peer) {
            let _ = reply.send(true);
            return;
        }
        let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
        match swarm.dial(dial) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {
                let waiting = self.waiting.entry(peer).or_default();
                if waiting.len() < WAITING_PER_PEER_MAX {
                    waiting.push(reply);
                }
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "not dialled");
                let _ = reply.send(false);
            }
        }
    }

    /// Dials one address, even if it failed a moment ago, and answers who is there.
    pub(crate) fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        shared: &Shared,
        address: Multiaddr,
        reply: oneshot::Sender<Option<PeerId>>,
    ) {
        let peer = peer_of(&address);
        if let Some(peer) = peer {
            if swarm.is_connected(&peer) {
                let _ = reply.send(Some(peer));
                return;
            }
            shared.book().learn(peer, [address.clone()], std::time::Instant::now());
        }
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Disconnected)
                .addresses(vec![without_peer(address)])
                .build(),
            None => DialOpts::unknown_peer_id().address(address).build(),
        };
        let id = options.connection_id();
        match swarm.dial(options) {
            Ok(()) => {
                self.to_address.insert(id, reply);
            }
            Err(error) => {
                tracing::debug!(%error, "not dialled");
                let _ = reply.send(None);
            }
        }
    }

    pub(crate) fn established(&mut self, peer: PeerId, id: ConnectionId) {
        for reply in self.waiting.remove(&peer).unwrap_or_default() {
            let _ = reply.send(true);
        }
        if let Some(reply) = self.to_address.remove(&id) {
            let _ = reply.send(Some(peer));
        }
    }

    pub(crate) fn failed(&mut self, swarm: &Swarm<Behaviour>, peer: Option<PeerId>, id: ConnectionId) {
        if let Some(reply) = self.to_address.remove(&id) {
            let _ = reply.send(None);
        }
        // Another dial to the same peer, or one of the peer's own, may have been faster.
        let Some(peer) = peer.filter(|peer| !swarm.is_connected(peer)) else { return };
        for reply in self.waiting.remove(&peer).unwrap_or_default() {
            let _ = reply.send(false);
        }
    }
}
