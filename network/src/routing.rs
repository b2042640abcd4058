//! Kademlia, with the address book in front of it: dials go where the book says, a peer that is down is not dialled,
//! and peers that misbehaved are kept out for a while.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use commonhold_protocol::NetworkName;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    kad,
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};

use crate::{
    address::without_peer, book::Candidates, config::Role, contact::node_id, hanging::Hanging, shared::Shared,
};

/// A walk that takes longer gives what it found by then.
const WALK_TIMEOUT: Duration = Duration::from_secs(10);
/// A connected peer that does not answer a step of a walk in this time is passed over.
const STEP_TIMEOUT: Duration = Duration::from_secs(4);
/// Steps of a walk at once, which is also the number of disjoint paths.
const WALK_PARALLELISM: NonZeroUsize = NonZeroUsize::new(5).unwrap();
/// How often the routing table is refreshed.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// How long a peer that misbehaved is kept out.
const BANNED_FOR: Duration = Duration::from_secs(60);
/// Peers kept out at once, at most.
const BANNED_MAX: usize = 1024;

/// Why our own side does not want a connection.
#[derive(Debug, thiserror::Error)]
enum Unwanted {
    #[error("every address of the peer failed a moment ago")]
    Down,
    #[error("the peer misbehaved a moment ago")]
    Banned,
}

/// Kademlia behind the address book.
pub(crate) struct Routing {
    pub(crate) kad: kad::Behaviour<kad::store::MemoryStore>,
    shared: Arc<Shared>,
    banned: HashMap<PeerId, Instant>,
    hanging: Hanging,
}

/// The name of our Kademlia protocol: only peers that speak it enter the routing table.
pub(crate) fn kad_protocol(network: &NetworkName) -> Result<StreamProtocol, libp2p::swarm::InvalidProtocol> {
    StreamProtocol::try_from_owned(format!("/commonhold/{network}/kad/1"))
}

impl Routing {
    pub(crate) fn new(local: PeerId, protocol: StreamProtocol, role: Role, shared: Arc<Shared>) -> Self {
        let mut config = kad::Config::new(protocol);
        config
            .set_query_timeout(WALK_TIMEOUT)
            .set_substreams_timeout(STEP_TIMEOUT)
            .set_parallelism(WALK_PARALLELISM)
            .disjoint_query_paths(true)
            .set_periodic_bootstrap_interval(Some(REFRESH_EVERY))
            // Records travel by our own protocol: nothing is stored here, whoever sends it.
            .set_record_filtering(kad::StoreInserts::FilterBoth)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_caching(kad::Caching::Disabled);
        let mut kad = kad::Behaviour::with_config(local, kad::store::MemoryStore::new(local), config);
        // Left to itself Kademlia answers nobody until an external address is confirmed: never, on a local network.
        kad.set_mode(Some(match role {
            Role::Node => kad::Mode::Server,
            Role::Client => kad::Mode::Client,
        }));
        Self { kad, shared, banned: HashMap::new(), hanging: Hanging::default() }
    }

    /// Keeps a peer out for a while.
    pub(crate) fn ban(&mut self, peer: PeerId, now: Instant) {
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() < BANNED_MAX {
            self.banned.insert(peer, now + BANNED_FOR);
        }
        self.kad.remove_peer(&peer);
    }

    fn check_banned(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        match self.banned.get(peer) {
            Some(until) if *until > Instant::now() => Err(ConnectionDenied::new(Unwanted::Banned)),
            _ => Ok(()),
        }
    }

    /// The addresses of a peer in the routing table.
    pub(crate) fn addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let Some(bucket) = self.kad.kbucket(peer) else { return Vec::new() };
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
        entry.map(|entry| entry.node.value.iter().cloned().map(without_peer).collect()).unwrap_or_default()
    }

    /// The peer says that it listens on these addresses and on no others.
    pub(crate) fn identified(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let mut stale = self.addresses(peer);
        stale.retain(|known| !addresses.contains(known));
        for address in addresses {
            self.kad.add_address(&peer, address.clone());
        }
        for address in stale {
            self.kad.remove_address(&peer, &address);
        }
    }

    /// Has walks go on without the peers whose dials hang: one of them would otherwise hold up a path until the dial
    /// fails, and the next one that the path comes to does so again.
    fn pass_over(&mut self, cx: &mut Context<'_>) {
        let Poll::Ready(hanging) = self.hanging.poll(cx) else { return };
        for peer in &hanging {
            self.kad.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(*peer),
                error: &DialError::Aborted,
                // Of a dial that still goes on; Kademlia only looks at the peer.
                connection_id: ConnectionId::new_unchecked(0),
            }));
        }
        *self.shared.hanging() = hanging.into_iter().filter_map(|peer| node_id(&peer)).collect();
    }

    fn note(&mut self, event: &FromSwarm) {
        let now = Instant::now();
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, endpoint, failed_addresses, .. }) => {
                self.hanging.connected(peer_id, now);
                let mut book = self.shared.book();
                let dialled = match endpoint {
                    ConnectedPoint::Dialer { address, .. } => Some(address),
                    ConnectedPoint::Listener { .. } => None,
                };
                book.connected(*peer_id, dialled, now);
                failed_addresses.iter().for_each(|address| book.failed(*peer_id, address, now));
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. }) => match error {
                // Another dial to the peer goes on.
                DialError::DialPeerConditionFalse(_) => {}
                DialError::Transport(failures) => {
                    self.hanging.failed(peer);
                    let mut book = self.shared.book();
                    failures.iter().for_each(|(address, _)| book.failed(*peer, address, now));
                }
                DialError::WrongPeerId { address, .. } => {
                    self.hanging.failed(peer);
                    self.shared.book().remove(*peer, address);
                }
                _ => self.hanging.failed(peer),
            },
            _ => {}
        }
    }
}

impl NetworkBehaviour for Routing {
    type ConnectionHandler = <kad::Behaviour<kad::store::MemoryStore> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.kad.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_banned(&peer)?;
        self.kad.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let found = self.kad.handle_pending_outbound_connection(id, peer, addresses, role)?;
        let Some(peer) = peer else { return Ok(found) };
        self.check_banned(&peer)?;
        let now = Instant::now();
        match self.shared.book().candidates(&peer, found, now) {
            Candidates::Dial(addresses) => {
                self.hanging.dialled(peer, now);
                Ok(addresses)
            }
            // Whoever names an address wants it tried.
            Candidates::Down if addresses.is_empty() => Err(ConnectionDenied::new(Unwanted::Down)),
            Candidates::Down | Candidates::Unknown => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_banned(&peer)?;
        self.kad.handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.note(&event);
        if let FromSwarm::DialFailure(DialFailure {
            peer_id: Some(peer),
            error: DialError::WrongPeerId { address, .. },
            ..
        }) = &event
        {
            self.kad.remove_address(peer, address);
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kad.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.pass_over(cx);
        self.kad.poll(cx)
    }
}
