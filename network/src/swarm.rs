//! The task that owns the swarm: takes commands, polls libp2p, and hands on what comes of it. Decides nothing.

mod asks;
mod dials;
mod events;
mod reachability;
mod walks;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use commonhold_protocol::NodeId;
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    behaviour::Behaviour,
    config::Limits,
    contact::{Contact, node_id},
    inbound::{InboundAsk, PeerEvent},
    serve::InboundStream,
    shared::Shared,
    stats::PeerStats,
    streams::{Accepted, OpenReply},
};

pub(crate) use self::asks::AskFailure;
use self::{asks::Asks, dials::Dials, reachability::Reachability, walks::Walks};

/// Commands that wait for the task.
pub(crate) const COMMANDS_MAX: usize = 256;
/// Nonsense from one peer within [`STRIKES_FOR`] that is still put down to accident.
const STRIKES_MAX: u32 = 3;
const STRIKES_FOR: Duration = Duration::from_secs(600);
/// Peers whose nonsense is counted at once.
const STRIKING_PEERS_MAX: usize = 1024;
/// Streams and questions of one peer beyond its limits, within [`EXCESS_FOR`], that are refused one by one. A peer of ours
/// keeps to far less than the limits, but what it cancels takes us a while to notice.
const EXCESS_MAX: u32 = 500;
const EXCESS_FOR: Duration = Duration::from_secs(10);
/// How often what is no longer needed is let go.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// What a handle wants of the task.
pub(crate) enum Command {
    /// Have a connection to this peer.
    Connect { peer: PeerId, reply: oneshot::Sender<bool> },
    /// Dial this address, whatever is remembered of it; answers who is there.
    Dial { address: Multiaddr, reply: oneshot::Sender<Option<PeerId>> },
    /// Send a question to a connected peer.
    Ask {
        peer: PeerId,
        request: Bytes,
        /// Given back when libp2p is done with the question, which may be long after the asker's patience.
        slot: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Bytes, AskFailure>>,
    },
    /// Open a shard stream to a connected peer.
    Open { peer: PeerId, reply: OpenReply },
    /// Walk to the nodes closest to a key.
    Closest { key: Vec<u8>, reply: oneshot::Sender<Vec<Contact>> },
    /// Walk to the nodes closest to a peer, which meets the peer itself if anybody near it knows where it is now.
    Find { peer: PeerId, reply: oneshot::Sender<Vec<Contact>> },
    /// Fill the routing table.
    Refresh { reply: oneshot::Sender<()> },
    /// The peer is connected and says nothing.
    Silent { peer: PeerId },
    /// The peer sent nonsense on a shard stream.
    Strike { peer: PeerId },
    /// Close everything and end.
    Shutdown { reply: oneshot::Sender<()> },
}

/// Where to report a peer that sends nonsense.
pub(crate) struct Strikes {
    peer: PeerId,
    commands: mpsc::WeakSender<Command>,
}

impl Strikes {
    /// Reports it once.
    pub(crate) fn report(&self) {
        if let Some(commands) = self.commands.upgrade() {
            // A full queue loses the report: the stream is gone all the same.
            let _ = commands.try_send(Command::Strike { peer: self.peer });
        }
    }
}

/// Everything the task is made of.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) network_version: String,
    pub(crate) kad_protocol: libp2p::StreamProtocol,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) limits: Limits,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) commands_weak: mpsc::WeakSender<Command>,
    pub(crate) asks: mpsc::Sender<InboundAsk>,
    pub(crate) streams: mpsc::Sender<InboundStream>,
    pub(crate) events: mpsc::Sender<PeerEvent>,
}

pub(crate) struct Task {
    swarm: Swarm<Behaviour>,
    network_version: String,
    kad_protocol: libp2p::StreamProtocol,
    shared: Arc<Shared>,
    stats: Arc<PeerStats>,
    limits: Limits,
    commands: mpsc::Receiver<Command>,
    commands_weak: mpsc::WeakSender<Command>,
    streams: mpsc::Sender<InboundStream>,
    events: mpsc::Sender<PeerEvent>,
    asks: Asks,
    dials: Dials,
    walks: Walks,
    reachability: Reachability,
    strikes: HashMap<PeerId, (u32, Instant)>,
    excess: HashMap<PeerId, (u32, Instant)>,
    /// The connected peers that have said who they are.
    identified: HashSet<PeerId>,
    accepted: Arc<Semaphore>,
    accepted_per_peer: HashMap<PeerId, Arc<Semaphore>>,
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            swarm,
            network_version,
            kad_protocol,
            shared,
            stats,
            limits,
            commands,
            commands_weak,
            asks,
            streams,
            events,
        } = parts;
        let asks = Asks::new(asks, limits.asks_queued_max, shared.observer.clone());
        Self {
            swarm,
            network_version,
            kad_protocol,
            shared,
            stats,
            commands,
            commands_weak,
            streams,
            events,
            asks,
            dials: Dials::default(),
            walks: Walks::default(),
            reachability: Reachability::default(),
            strikes: HashMap::new(),
            excess: HashMap::new(),
            identified: HashSet::new(),
            accepted: Arc::new(Semaphore::new(limits.streams.accepted_max)),
            accepted_per_peer: HashMap::new(),
            limits,
        }
    }

    /// Runs until it is told to stop, or until nobody is left who could tell it.
    pub(crate) async fn run(mut self) {
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopped = loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    None => break None,
                    Some(Command::Shutdown { reply }) => break Some(reply),
                    Some(command) => self.on_command(command),
                },
                Some(answer) = self.asks.answered() => {
                    let asks = &mut self.swarm.behaviour_mut().asks;
                    self.asks.send(asks, answer);
                }
                _ = tidy.tick() => self.tidy(),
            }
        };
        // The swarm closes its connections when it is dropped; whoever waits for that is told afterwards.
        drop(self);
        if let Some(reply) = stopped {
            let _ = reply.send(());
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Connect { peer, reply } => self.dials.connect(&mut self.swarm, peer, reply),
            Command::Dial { address, reply } => self.dials.dial(&mut self.swarm, &self.shared, address, reply),
            Command::Ask { peer, request, slot, reply } => {
                self.asks.ask(&mut self.swarm.behaviour_mut().asks, peer, request, (reply, slot));
            }
            Command::Open { peer, reply } => self.swarm.behaviour_mut().streams.open(peer, reply),
            Command::Closest { key, reply } => self.walks.closest(self.swarm.behaviour_mut(), key, reply),
            Command::Find { peer, reply } => self.walks.find(self.swarm.behaviour_mut(), peer, reply),
            Command::Refresh { reply } => self.walks.refresh(self.swarm.behaviour_mut(), reply),
            Command::Silent { peer } => self.silence(peer),
            Command::Strike { peer } => self.strike(peer),
            Command::Shutdown { .. } => {} // ends the loop before it gets here
        }
    }

    /// Gives up a peer that is connected and no longer answers: better to dial it anew than to wait for it each time.
    fn silence(&mut self, peer: PeerId) {
        tracing::debug!(%peer, "connected, but silent: disconnecting");
        self.shared.book().silenced(peer, Instant::now());
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Counts nonsense from a peer; too much of it, and the peer is kept out for a while.
    fn strike(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.strikes.retain(|_, (_, since)| now.saturating_duration_since(*since) < STRIKES_FOR);
        if self.strikes.len() >= STRIKING_PEERS_MAX && !self.strikes.contains_key(&peer) {
            return;
        }
        let (count, _) = self.strikes.entry(peer).or_insert((0, now));
        *count += 1;
        if *count > STRIKES_MAX {
            tracing::info!(%peer, "keeps sending nonsense: kept out for a while");
            self.strikes.remove(&peer);
            self.ban(peer);
        }
    }

    /// Counts what a peer wants beyond its limits. Each costs us a little though it is refused, so whoever goes on is kept
    /// out.
    fn exceed(&mut self, peer: PeerId) {
        let now = Instant::now();
        let (count, since) = self.excess.entry(peer).or_insert((0, now));
        if now.saturating_duration_since(*since) > EXCESS_FOR {
            (*count, *since) = (0, now);
        }
        *count += 1;
        if *count > EXCESS_MAX {
            tracing::info!(%peer, "wants far more than its share: kept out for a while");
            self.excess.remove(&peer);
            self.ban(peer);
        }
    }

    fn ban(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().routing.ban(peer, Instant::now());
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Hands a stream on, if the peer and all peers together are within their limits.
    fn accept(&mut self, Accepted { peer, stream }: Accepted) {
        let Some(from) = node_id(&peer) else { return };
        let per_peer_max = self.limits.streams.accepted_per_peer_max;
        let per_peer = self.accepted_per_peer.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(per_peer_max)));
        let Ok(own) = per_peer.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "a stream beyond the peer's limits: dropped");
            self.exceed(peer);
            return;
        };
        let Ok(shared) = self.accepted.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "a stream beyond the limits: dropped");
            return;
        };
        crate::stats::add(&self.stats.streams_accepted, 1);
        let stream = InboundStream {
            from,
            from_addr: self.shared.connected().get(&from).cloned(),
            stream,
            stats: self.stats.clone(),
            heard: self.shared.heard(peer),
            observer: self.shared.observer.clone(),
            strikes: Strikes { peer, commands: self.commands_weak.clone() },
            permits: [own, shared],
        };
        if self.streams.try_send(stream).is_err() {
            tracing::debug!(%peer, "a stream that nobody takes: dropped");
        }
    }

    /// Events are hints: one that does not fit in the queue is lost.
    fn tell(&self, event: PeerEvent) {
        let _ = self.events.try_send(event);
    }

    fn contact(&self, node: NodeId, peer: &PeerId) -> Contact {
        Contact { node, addrs: self.shared.book().addresses(peer, Instant::now()) }
    }

    fn tidy(&mut self) {
        let per_peer_max = self.limits.streams.accepted_per_peer_max;
        self.accepted_per_peer.retain(|_, own| own.available_permits() < per_peer_max);
        let now = Instant::now();
        self.excess.retain(|_, (_, since)| now.saturating_duration_since(*since) <= EXCESS_FOR);
        self.reachability.tick(&mut self.swarm);
    }
}
