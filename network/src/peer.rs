//! The handle to a running peer; cheap to clone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use commonhold_protocol::{
    Claim, FormatError, Lease, Manifest, NodeId, SegmentId, ShardIndex, Unverified,
    ask::{ASK_BYTES_MAX, Request, Response},
    shard_stream::{GroupRange, READ_RANGES_MAX, ShardRequest},
};
use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::{Multiaddr, PeerId, Swarm, identity, multiaddr::Protocol};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};

use crate::{
    behaviour,
    book::{Candidates, FAILED_FOR},
    config::{Limits, PeerConfig},
    contact::{Contact, node_id, peer_id},
    errors::{AskError, NetworkError, TransferError},
    inbound::Inbound,
    observer::{NoObserver, Observer, Way},
    pool::Pool,
    routing::kad_protocol,
    serve::RangeReply,
    shared::{Shared, lock},
    stats::PeerStats,
    swarm::{self, AskFailure, Command, Parts, Task},
    transfer::ShardData,
    transport::{self, TransportConfig, is_quic},
};

/// The nodes that a walk to a key gives, where there are as many.
pub const CLOSEST_MAX: usize = libp2p::kad::K_VALUE.get();
/// An idle connection is kept for so long: setting one up costs handshakes, keeping it 50 KiB.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(60);
/// Streams of others that wait to be taken.
const STREAMS_QUEUED_MAX: usize = 256;
/// Events that wait to be taken.
const EVENTS_QUEUED_MAX: usize = 256;
/// Addresses that one bootstrap dials.
const BOOTSTRAP_ADDRESSES_MAX: usize = 64;
/// Every bootstrap address has so long to answer.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(5);
/// Once one of them has answered, the others have so long.
const BOOTSTRAP_GRACE: Duration = Duration::from_millis(500);
/// The first look around takes at most this.
const REFRESH_PATIENCE: Duration = Duration::from_secs(5);
/// Every dial ends before this, one through a relay included.
const DIAL_PATIENCE: Duration = Duration::from_secs(20);
/// Looking for a peer that is not where we thought takes at most this.
const FIND_PATIENCE: Duration = Duration::from_secs(3);
/// Peers of which we remember that we looked for them.
const FINDING_MAX: usize = 4096;
/// How often pooled streams are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A running peer. Clones share it; it runs until [`Peer::shutdown`], or until the last clone is dropped.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

/// When a peer was last looked for, behind a lock that whoever looks for it holds.
type Finding = Arc<tokio::sync::Mutex<Option<Instant>>>;

pub(crate) struct Inner {
    node: NodeId,
    peer: PeerId,
    listens: bool,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) limits: Limits,
    pub(crate) pool: Pool,
    finding: Mutex<HashMap<PeerId, Finding>>,
}

impl Peer {
    /// Starts a peer on the current tokio runtime. Fails if an address cannot be listened on.
    pub fn start(config: PeerConfig) -> Result<(Self, Inbound), NetworkError> {
        Self::start_observed(config, Arc::new(NoObserver))
    }

    /// As [`Self::start`], with someone who hears of all that is said.
    pub fn start_observed(config: PeerConfig, observer: Arc<dyn Observer>) -> Result<(Self, Inbound), NetworkError> {
        if config.network_key.is_some()
            && let Some(address) = config.listen.iter().find(|address| is_quic(address))
        {
            return Err(NetworkError::PrivateNeedsTcp { address: address.clone() });
        }
        let mut seed = config.identity_seed.clone();
        let identity =
            identity::Keypair::ed25519_from_bytes(seed.as_mut_slice()).map_err(|_| NetworkError::Identity)?;
        let peer = identity.public().to_peer_id();
        let node = node_id(&peer).ok_or(NetworkError::Identity)?;

        let (shared, stats) = (Arc::new(Shared::new(observer)), Arc::new(PeerStats::default()));
        let (transport, relay_client) = transport::build(&TransportConfig {
            identity: &identity,
            network: &config.network,
            network_key: config.network_key.as_ref().map(|key| **key),
            relay: config.relay,
        })?;
        let behaviour = behaviour::build(&config, &identity, relay_client, shared.clone(), stats.clone())?;
        let swarm_config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(CONNECTION_IDLE);
        let mut swarm = Swarm::new(transport, behaviour, peer, swarm_config);
        for address in &config.listen {
            swarm
                .listen_on(address.clone())
                .map_err(|error| NetworkError::Listen { address: address.clone(), reason: error.to_string() })?;
        }

        let (commands_sender, commands) = mpsc::channel(swarm::COMMANDS_MAX);
        let (asks_sender, asks) = mpsc::channel(config.limits.asks_queued_max);
        let (streams_sender, streams) = mpsc::channel(STREAMS_QUEUED_MAX);
        let (events_sender, events) = mpsc::channel(EVENTS_QUEUED_MAX);
        let kad_protocol = kad_protocol(&config.network)
            .map_err(|error| NetworkError::SetUp { part: "protocol names", reason: error.to_string() })?;
        let task = Task::new(Parts {
            swarm,
            network_version: behaviour::network_version(&config),
            kad_protocol,
            shared: shared.clone(),
            stats: stats.clone(),
            limits: config.limits.clone(),
            commands,
            commands_weak: commands_sender.downgrade(),
            asks: asks_sender,
            streams: streams_sender,
            events: events_sender,
        });
        tokio::spawn(task.run());

        let inner = Arc::new(Inner {
            node,
            peer,
            listens: !config.listen.is_empty(),
            commands: commands_sender,
            shared,
            stats,
            pool: Pool::new(config.limits.streams),
            limits: config.limits,
            finding: Mutex::default(),
        });
        let swept = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(inner) = swept.upgrade() else { return };
                inner.pool.sweep(Instant::now());
            }
        });
        Ok((Self { inner }, Inbound { asks, streams, events }))
    }

    /// Our id.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
    }

    /// What moved so far.
    pub fn stats(&self) -> &PeerStats {
        &self.inner.stats
    }

    /// Our addresses, each with `/p2p/ID`; waits until at least one listener is up, if there is to be one.
    pub async fn listen_addrs(&self) -> Vec<Multiaddr> {
        let mut listening = self.inner.shared.listening.subscribe();
        if self.inner.listens {
            // Fails only when the sender is gone, which `self` holds.
            let _ = listening.wait_for(|addresses| !addresses.is_empty()).await;
        }
        let addresses = listening.borrow();
        addresses.iter().map(|address| address.clone().with(Protocol::P2p(self.inner.peer))).collect()
    }

    /// Connects to these addresses and looks around in their network; returns how many of them answered. Takes a few
    /// seconds at most, however many are dead.
    pub async fn bootstrap(&self, addresses: &[Multiaddr]) -> Result<usize, NetworkError> {
        let mut dials = FuturesUnordered::new();
        for address in addresses.iter().take(BOOTSTRAP_ADDRESSES_MAX) {
            let (reply, dialled) = oneshot::channel();
            self.inner.command(Command::Dial { address: address.clone(), reply }).await?;
            dials.push(dialled);
        }
        let mut reached = std::collections::BTreeSet::new();
        let mut deadline = tokio::time::Instant::now() + BOOTSTRAP_PATIENCE;
        loop {
            tokio::select! {
                dialled = dials.next() => match dialled {
                    None => break,
                    Some(Ok(Some(peer))) => {
                        if reached.is_empty() {
                            deadline = deadline.min(tokio::time::Instant::now() + BOOTSTRAP_GRACE);
                        }
                        reached.insert(peer);
                    }
                    Some(Ok(None) | Err(_)) => {}
                },
                () = sleep_until(deadline) => break,
            }
        }
        if !reached.is_empty() {
            self.refresh().await?;
        }
        // Whoever turned out to be of another network has been disconnected by now.
        let connected = self.inner.shared.connected();
        Ok(reached.iter().filter_map(node_id).filter(|node| connected.contains_key(node)).count())
    }

    /// Looks around in the network, as [`Self::bootstrap`] does at its end: two that joined through the same node at the
    /// same moment may not have been told of each other. Takes a few seconds at most.
    pub async fn refresh(&self) -> Result<(), NetworkError> {
        let (reply, refreshed) = oneshot::channel();
        self.inner.command(Command::Refresh { reply }).await?;
        let _ = timeout(REFRESH_PATIENCE, refreshed).await;
        Ok(())
    }

    /// Remembers where a node is said to listen.
    pub fn add_addresses(&self, node: NodeId, addresses: Vec<Multiaddr>) {
        if let Some(peer) = peer_id(node) {
            self.inner.shared.book().learn(peer, addresses, Instant::now());
        }
    }

    /// The nodes closest to a key that answered, the closest first: at most [`CLOSEST_MAX`], and never ourselves.
    pub async fn closest(&self, key: [u8; 32]) -> Result<Vec<Contact>, NetworkError> {
        let (reply, found) = oneshot::channel();
        self.inner.command(Command::Closest { key: key.to_vec(), reply }).await?;
        let mut found = found
            .await
            .map_err(|_| if self.inner.commands.is_closed() { NetworkError::Stopped } else { NetworkError::Busy })?;
        found.retain(|contact| contact.node != self.inner.node);
        found.sort_by_cached_key(|contact| contact.node.distance(&key));
        Ok(found)
    }

    /// Asks a node a question, connecting to it if need be.
    pub async fn ask(&self, to: NodeId, request: Request, patience: Duration) -> Result<Response, AskError> {
        let bytes = request.to_bytes();
        if bytes.len() > ASK_BYTES_MAX {
            return Err(AskError::TooLong { bytes: bytes.len(), bytes_max: ASK_BYTES_MAX });
        }
        let observer = &self.inner.shared.observer;
        observer.request(Way::To(to), &request);
        let asked = self.inner.ask(to, bytes.into());
        let answer = timeout(patience, asked).await.unwrap_or(Err(AskError::TimedOut { node: to }))?;
        let response = Response::from_bytes(answer).map_err(|_| AskError::Nonsense { node: to })?;
        observer.response(Way::From(to), &response);
        Ok(response)
    }

    /// Stores a shard with a node. The claim is not verified, nor is `data` compared with the manifest; a shard that is
    /// given up on the way is none for the node.
    pub async fn store_shard(
        &self,
        to: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        data: impl Into<ShardData>,
    ) -> Result<Claim, TransferError> {
        self.inner.store(to, &ShardRequest::Store { manifest, index, lease }, data.into()).await
    }

    /// Reads chunk groups of a shard, with their proofs. Nothing in the reply is verified.
    pub async fn read_shard(
        &self,
        to: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, TransferError> {
        if ranges.is_empty() || ranges.len() > READ_RANGES_MAX {
            return Err(TransferError::Request(FormatError::Field { what: "shard request", field: "ranges" }));
        }
        let request = ShardRequest::Read { segment, index, ranges: ranges.clone(), want_manifest };
        self.inner.read(to, &request, &ranges).await
    }

    /// The nodes in our routing table.
    pub fn known_contacts(&self) -> Vec<Contact> {
        let routed = self.inner.shared.routed().clone();
        routed.into_iter().map(|(node, addrs)| Contact { node, addrs }).collect()
    }

    /// Who is connected, and at which address we see them; see [`crate::domain_of`].
    pub fn connected(&self) -> Vec<(NodeId, Multiaddr)> {
        self.inner.shared.connected().clone().into_iter().collect()
    }

    /// False if a dial to the node hangs, or has failed a moment ago: better to ask others first.
    pub fn seems_up(&self, node: NodeId) -> bool {
        let shared = &self.inner.shared;
        let Some(peer) = peer_id(node).filter(|_| !shared.connected().contains_key(&node)) else { return true };
        !shared.hanging().contains(&node)
            && shared.book().candidates(&peer, Vec::new(), Instant::now()) != Candidates::Down
    }

    /// Closes all connections and stops listening.
    pub async fn shutdown(&self) {
        self.inner.pool.close();
        let (reply, stopped) = oneshot::channel();
        if self.inner.command(Command::Shutdown { reply }).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

impl Inner {
    async fn command(&self, command: Command) -> Result<(), NetworkError> {
        self.commands.send(command).await.map_err(|_| NetworkError::Stopped)
    }

    /// Sees to a connection to `node`; none if it cannot be had.
    ///
    /// If nobody is where we thought, those near the node in the network may know better: it may have moved. That is
    /// asked once in a while; all who want the node wait for the one that asks.
    pub(crate) async fn connect(&self, node: NodeId) -> Option<PeerId> {
        let peer = peer_id(node)?;
        if self.shared.connected().contains_key(&node) || self.dial(peer).await {
            return Some(peer);
        }
        let finding = {
            let mut finding = lock(&self.finding);
            if finding.len() >= FINDING_MAX {
                finding.retain(|_, searched| Arc::strong_count(searched) > 1);
            }
            finding.entry(peer).or_default().clone()
        };
        let mut searched = finding.lock().await;
        if searched.is_none_or(|at| at.elapsed() >= FAILED_FOR) {
            let (reply, found) = oneshot::channel();
            self.command(Command::Find { peer, reply }).await.ok()?;
            let _ = timeout(FIND_PATIENCE, found).await;
            *searched = Some(Instant::now());
        }
        drop(searched);
        let worth_a_try = self.shared.connected().contains_key(&node)
            || matches!(self.shared.book().candidates(&peer, Vec::new(), Instant::now()), Candidates::Dial(_));
        (worth_a_try && self.dial(peer).await).then_some(peer)
    }

    async fn dial(&self, peer: PeerId) -> bool {
        let (reply, connected) = oneshot::channel();
        if self.command(Command::Connect { peer, reply }).await.is_err() {
            return false;
        }
        matches!(timeout(DIAL_PATIENCE, connected).await, Ok(Ok(true)))
    }

    async fn ask(&self, to: NodeId, request: Bytes) -> Result<Bytes, AskError> {
        let Some(peer) = self.connect(to).await else {
            return Err(if self.commands.is_closed() { AskError::Stopped } else { AskError::Unreachable { node: to } });
        };
        let slot = self.pool.ask_slot(peer).await.ok_or(AskError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        self.command(Command::Ask { peer, request, slot, reply }).await.map_err(|_| AskError::Stopped)?;
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(AskFailure::Unreachable)) => Err(AskError::Unreachable { node: to }),
            Ok(Err(AskFailure::TimedOut)) => Err(AskError::TimedOut { node: to }),
            Ok(Err(AskFailure::Broken)) => Err(AskError::Broken { node: to }),
            Ok(Err(AskFailure::Nonsense)) => Err(AskError::Nonsense { node: to }),
            Err(_) => Err(AskError::Stopped),
        }
    }
}
