//! What libp2p reports, and what follows from it.

use std::{io, time::Instant};

use libp2p::{
    PeerId, identify, kad, mdns, ping,
    request_response::{self, InboundFailure, Message},
    swarm::{DialError, StreamUpgradeError, SwarmEvent},
    upnp,
};

use super::{Task, asks::Taken};
use crate::{
    address::is_plausible,
    behaviour::BehaviourEvent,
    contact::{Contact, node_id},
    inbound::PeerEvent,
    stats::add,
};

/// Addresses that one peer may name.
const ADDRESSES_MAX: usize = 8;

impl Task {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                add(&self.stats.connections_made, 1);
                self.dials.established(peer_id, connection_id);
                let Some(node) = node_id(&peer_id) else {
                    let _ = self.swarm.disconnect_peer_id(peer_id); // not an ed25519 key: no node of ours
                    return;
                };
                let address = endpoint.get_remote_address().clone();
                // A direct connection says more about a peer than one through a relay.
                if num_established.get() == 1 || !endpoint.is_relayed() {
                    self.shared.connected().insert(node, address.clone());
                }
                if num_established.get() == 1 {
                    self.tell(PeerEvent::Connected { node, address });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.shared.disconnected(&peer_id);
                self.identified.remove(&peer_id);
                if let Some(node) = node_id(&peer_id) {
                    self.shared.connected().remove(&node);
                    self.tell(PeerEvent::Disconnected { node });
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                add(&self.stats.dials_failed, 1);
                tracing::debug!(peer = ?peer_id, %error, "dial failed");
                self.dials.failed(&self.swarm, peer_id, connection_id);
                if let (Some(peer), DialError::Transport(_)) = (peer_id, &error) {
                    self.forget_if_dead(peer);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.shared.listening.send_modify(|listening| {
                    if !listening.contains(&address) {
                        listening.push(address.clone());
                    }
                });
                self.tell(PeerEvent::Listening { address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.listening.send_modify(|listening| listening.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed { addresses, reason, listener_id } => {
                if let Err(error) = reason {
                    tracing::warn!(?addresses, %error, "a listener ended");
                }
                self.reachability.listener_closed(listener_id);
            }
            SwarmEvent::ExternalAddrConfirmed { .. } => self.reachability.confirmed(),
            _ => {}
        }
    }

    /// Takes a peer that cannot be dialled out of the routing table, where others would get its address from us. Not
    /// when nobody at all is connected: then it is our own network that is down.
    fn forget_if_dead(&mut self, peer: PeerId) {
        let alone = self.swarm.connected_peers().next().is_none();
        if alone || self.swarm.is_connected(&peer) {
            return;
        }
        if self.swarm.behaviour_mut().routing.kad.remove_peer(&peer).is_some() {
            self.unrouted(peer);
        }
    }

    fn unrouted(&mut self, peer: PeerId) {
        if let Some(node) = node_id(&peer) {
            self.shared.routed().remove(&node);
            self.tell(PeerEvent::LostContact { node });
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Routing(event) => self.on_kad(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.identified(peer_id, info),
            // Who does not speak the protocol is none of ours, and no other attempt will change that.
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. })
                if !matches!(error, StreamUpgradeError::NegotiationFailed) =>
            {
                self.unidentified(peer_id, &error.to_string());
            }
            BehaviourEvent::Ping(ping::Event { peer, result: Err(failure), .. }) => {
                let unsupported = matches!(failure, ping::Failure::Unsupported);
                if !unsupported && !self.shared.heard_within(&peer, self.limits.streams.progress) {
                    self.silence(peer);
                }
            }
            BehaviourEvent::Asks(event) => self.on_ask(event),
            BehaviourEvent::Streams(accepted) => self.accept(accepted),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let now = Instant::now();
                for (peer, address) in found {
                    if self.shared.book().learn(peer, [address], now) && !self.swarm.is_connected(&peer) {
                        let _ = self.swarm.dial(peer);
                    }
                }
            }
            BehaviourEvent::Upnp(event) => match event {
                upnp::Event::NewExternalAddr { external_addr, .. } => {
                    tracing::info!(address = %external_addr, "the router forwards a port");
                }
                upnp::Event::ExpiredExternalAddr { external_addr, .. } => {
                    tracing::info!(address = %external_addr, "the router no longer forwards the port");
                }
                upnp::Event::GatewayNotFound | upnp::Event::NonRoutableGateway => {
                    tracing::debug!("no router that would forward a port");
                }
            },
            BehaviourEvent::AutonatClient(event) if event.result.is_err() => self.reachability.unreachable(),
            BehaviourEvent::Dcutr(event) => match event.result {
                Ok(_) => tracing::debug!(peer = %event.remote_peer_id, "punched a hole"),
                Err(error) => tracing::debug!(peer = %event.remote_peer_id, %error, "could not punch a hole"),
            },
            BehaviourEvent::RelayClient(event) => tracing::debug!(?event, "relay"),
            BehaviourEvent::Relay(event) => tracing::trace!(?event, "relaying"),
            _ => {}
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.walks.progressed(&self.shared, id, result, step.last);
            }
            kad::Event::RoutingUpdated { peer, is_new_peer, old_peer, .. } => {
                if let Some(old) = old_peer {
                    self.unrouted(old);
                }
                let Some(node) = node_id(&peer) else { return };
                // As they are now: the event may be older than what the peer has said of itself meanwhile.
                let addrs = self.swarm.behaviour_mut().routing.addresses(peer);
                if addrs.is_empty() {
                    return;
                }
                self.shared.book().learn(peer, addrs.clone(), Instant::now());
                self.shared.routed().insert(node, addrs);
                self.tell(PeerEvent::NewContact(self.contact(node, &peer)));
                if is_new_peer {
                    self.walks.routed(self.swarm.behaviour_mut());
                }
            }
            _ => {}
        }
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        if self.swarm.is_connected(&peer) {
            self.identified.insert(peer);
        }
        if info.protocol_version != self.network_version {
            tracing::debug!(%peer, version = %info.protocol_version, "of another network: disconnecting");
            self.ban(peer);
            return;
        }
        let Some(node) = node_id(&peer) else { return };
        let Some(observed) = self.shared.connected().get(&node).cloned() else { return };
        self.reachability.identified(peer, &info, &observed);
        if !info.protocols.contains(&self.kad_protocol) {
            return; // a client: nobody dials it
        }
        let addrs: Vec<_> = info
            .listen_addrs
            .into_iter()
            .filter(|claimed| is_plausible(claimed, &observed))
            .map(crate::address::without_peer)
            .take(ADDRESSES_MAX)
            .collect();
        if addrs.is_empty() {
            return;
        }
        self.shared.book().replace(peer, addrs.clone(), Instant::now());
        self.swarm.behaviour_mut().routing.identified(peer, &addrs);
        let changed = {
            let mut routed = self.shared.routed();
            match routed.get_mut(&node) {
                Some(known) if *known != addrs => {
                    known.clone_from(&addrs);
                    true
                }
                _ => false,
            }
        };
        if changed {
            self.tell(PeerEvent::NewContact(Contact { node, addrs }));
        }
    }

    /// Who has not said where it listens since it connected, is in no routing table and moves no shards either, would be
    /// asked again only minutes later: better to begin anew.
    fn unidentified(&mut self, peer: PeerId, error: &str) {
        let is_heard = self.shared.heard_within(&peer, self.limits.streams.progress);
        let is_routed = node_id(&peer).is_some_and(|node| self.shared.routed().contains_key(&node));
        if !self.identified.contains(&peer) && !is_routed && !is_heard && self.swarm.is_connected(&peer) {
            tracing::debug!(%peer, error, "connected, but does not say who it is: disconnecting");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_ask(&mut self, event: request_response::Event<bytes::Bytes, bytes::Bytes>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Response { request_id, response } => self.asks.response(request_id, response),
                Message::Request { request, channel, .. } => {
                    let Some(from) = node_id(&peer) else { return };
                    let from_addr = self.shared.connected().get(&from).cloned();
                    let behaviour = &mut self.swarm.behaviour_mut().asks;
                    match self.asks.question(behaviour, from, from_addr, request, channel) {
                        Taken::In | Taken::Full => {}
                        Taken::Excess => self.exceed(peer),
                        Taken::Nonsense(error) => {
                            tracing::debug!(%peer, %error, "a question that cannot be read");
                            self.strike(peer);
                        }
                    }
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => self.asks.failed(request_id, &error),
            request_response::Event::InboundFailure { peer, error, .. } => {
                if matches!(&error, InboundFailure::Io(error) if error.kind() == io::ErrorKind::InvalidData) {
                    tracing::debug!(%peer, "a question longer than a message may be");
                    self.strike(peer);
                }
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }
}
