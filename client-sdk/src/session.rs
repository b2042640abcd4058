//! Our place in the network while a vault is open: one thread with a runtime that runs the peer and all transfers.
//!
//! Everything else of this crate is synchronous and runs on the caller's threads, so that hashing and sealing never
//! hold up a socket.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Mutex,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use commonhold_network::{Limits, Multiaddr, Peer, PeerConfig, Role, domain_of};
use commonhold_policy::{
    Domain, leases,
    peer_health::PeerHealth,
    placement::{self, Candidate},
    stewards,
};
use commonhold_protocol::{
    Lease, NetworkName, NodeId, Timestamp, Verified,
    ask::{Request, Response},
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{runtime::Handle, sync::oneshot};
use zeroize::Zeroizing;

use crate::{error::Error, progress::Progress, table::NodeHint};

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Once most have answered, how much longer the others are waited for.
const ASK_STRAGGLERS: Duration = Duration::from_millis(1500);
/// How long what nodes said of themselves is taken for true.
const CANDIDATES_KEPT: Duration = Duration::from_secs(30);
/// Random keys walked to find candidates, at most.
const CANDIDATE_WALKS_MAX: usize = 8;
/// Clocks that ours is compared with, at most.
const CLOCKS_MAX: usize = 32;

/// An open connection to the network.
pub(crate) struct Session {
    handle: Handle,
    peer: Peer,
    network: NetworkName,
    /// Domains as nodes name them are believed: the network is private, or a local one of `commonhold dev`.
    named_domains: bool,
    health: Mutex<PeerHealth>,
    /// The newest lease of the vault that it serves.
    lease: Mutex<Option<Verified<Lease>>>,
    candidates: Mutex<Option<(Instant, Vec<Candidate>)>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What it takes to open a session.
pub(crate) struct SessionConfig {
    pub(crate) network: NetworkName,
    pub(crate) network_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) local_discovery: bool,
    pub(crate) bootstrap: Vec<Multiaddr>,
}

/// Now, by the system's clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

impl Session {
    /// Starts the peer and reaches at least one node.
    pub(crate) fn open(config: SessionConfig) -> Result<Self, Error> {
        let SessionConfig { network, network_key, local_discovery, bootstrap } = config;
        let named_domains = network_key.is_some() || network.as_str().starts_with("dev-");
        let mut identity_seed = Zeroizing::new([0; 32]);
        getrandom::fill(identity_seed.as_mut()).map_err(|_| Error::NoRandomness)?;
        let peer_config = PeerConfig {
            identity_seed,
            network: network.clone(),
            network_key,
            listen: Vec::new(),
            role: Role::Client,
            local_discovery,
            relay: !named_domains,
            limits: Limits::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || run(peer_config, &started, stopped))
            .map_err(|_| Error::Stopped)?;
        let (peer, handle) = start.recv().map_err(|_| Error::Stopped)??;
        let session = Self {
            handle,
            peer,
            network,
            named_domains,
            health: Mutex::new(PeerHealth::default()),
            lease: Mutex::default(),
            candidates: Mutex::new(None),
            stop: Some(stop),
            thread: Some(thread),
        };
        let reached = session.block_on(async { session.peer.bootstrap(&bootstrap).await })?;
        if reached == 0 {
            let network = session.network.to_string();
            return Err(Error::NoNetwork { network, tried: bootstrap.len() });
        }
        Ok(session)
    }

    /// Waits for a future on the caller's thread; sockets and timers go on on the runtime's.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// The same, until the user wants to stop.
    pub(crate) fn wait_for<F: Future>(&self, progress: &Progress, future: F) -> Result<F::Output, Error> {
        self.block_on(async {
            tokio::select! {
                biased;
                () = progress.interrupted() => Err(Error::Interrupted),
                output = future => Ok(output),
            }
        })
    }

    /// The runtime of the peer.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn network(&self) -> &NetworkName {
        &self.network
    }

    /// What we know of the peers' reliability.
    pub(crate) fn health<T>(&self, look: impl FnOnce(&mut PeerHealth) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The newest lease of the vault that is known: what is placed carries it.
    pub(crate) fn lease(&self) -> Option<Verified<Lease>> {
        self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Remembers a lease if it is newer than the one that is known.
    pub(crate) fn learn_lease(&self, lease: Verified<Lease>) {
        // An older one, or another vault's, is no news.
        let _ = leases::merge(&mut self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner), lease);
    }

    /// Makes hinted addresses dialable.
    pub(crate) fn learn(&self, hint: &NodeHint) {
        self.peer.add_addresses(hint.node, hint.addresses.clone());
    }

    /// The nodes closest to a record's key that answered, closest first.
    pub(crate) async fn closest(&self, key: [u8; 32]) -> Result<Vec<NodeId>, Error> {
        let contacts = self.peer.closest(key).await?;
        let mut nodes: Vec<NodeId> = contacts.iter().map(|contact| contact.node).collect();
        nodes.sort_by_cached_key(|node| node.distance(&key));
        Ok(nodes)
    }

    /// The stewards of a record: of the closest nodes that answer, one per domain while possible.
    pub(crate) async fn stewards(&self, key: [u8; 32]) -> Result<Vec<NodeId>, Error> {
        let known: BTreeMap<NodeId, Domain> =
            self.known_candidates().into_iter().map(|candidate| (candidate.node, candidate.domain)).collect();
        let contacts = self.peer.closest(key).await?;
        let with_domain: Vec<(NodeId, Domain)> = contacts
            .iter()
            .map(|contact| {
                let by_address = || self.address_domain(contact.node, &contact.addrs);
                (contact.node, known.get(&contact.node).cloned().unwrap_or_else(by_address))
            })
            .collect();
        Ok(stewards::choose(&key, &with_domain))
    }

    fn address_domain(&self, node: NodeId, addresses: &[Multiaddr]) -> Domain {
        let by_address = addresses.iter().filter(|_| !self.named_domains).find_map(domain_of);
        Domain::new(by_address.unwrap_or_else(|| format!("node {node:#}")))
    }

    fn known_candidates(&self) -> Vec<Candidate> {
        let known = self.candidates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.as_ref().map(|(_, candidates)| candidates.clone()).unwrap_or_default()
    }

    /// Asks several nodes the same at once; the answers come in the order of the nodes.
    pub(crate) async fn ask_all(&self, nodes: &[NodeId], request: &Request) -> Vec<(NodeId, Option<Response>)> {
        let answers = self.ask_each(nodes.iter().map(|node| (*node, request.clone())).collect()).await;
        nodes.iter().copied().zip(answers).collect()
    }

    /// Asks several nodes the same at once, and those that were silent once more, for as long as they may take, unless
    /// `enough` says, of the answers that came and the number of the silent, that no more are needed: whoever lies is
    /// quick, and the one that does not may be slow.
    pub(crate) async fn ask_until(
        &self,
        nodes: &[NodeId],
        request: &Request,
        mut enough: impl FnMut(Vec<(NodeId, Response)>, usize) -> bool,
    ) -> bool {
        let mut silent = nodes.to_vec();
        for stragglers in [ASK_STRAGGLERS, ASK_TIMEOUT] {
            let asks = silent.iter().map(|node| (*node, request.clone())).collect();
            let answers = self.ask_each_within(asks, stragglers).await;
            let (answered, still): (Vec<_>, Vec<_>) =
                silent.into_iter().zip(answers).partition(|(_, answer)| answer.is_some());
            let answered = answered.into_iter().filter_map(|(node, answer)| Some((node, answer?)));
            silent = still.into_iter().map(|(node, _)| node).collect();
            if enough(answered.collect(), silent.len()) {
                return true;
            }
            if silent.is_empty() {
                break;
            }
        }
        false
    }

    /// Asks nodes at once, each its own question; the answers come in the order of the questions. Stragglers are dropped
    /// some time after all but a few have answered.
    pub(crate) async fn ask_each(&self, asks: Vec<(NodeId, Request)>) -> Vec<Option<Response>> {
        self.ask_each_within(asks, ASK_STRAGGLERS).await
    }

    async fn ask_each_within(&self, asks: Vec<(NodeId, Request)>, stragglers: Duration) -> Vec<Option<Response>> {
        let mut answers = vec![None; asks.len()];
        let (mut answered, enough) = (0, asks.len() * 3);
        let ask = |(at, (node, request))| async move { (at, node, self.peer.ask(node, request, ASK_TIMEOUT).await) };
        let mut asked: FuturesUnordered<_> = asks.into_iter().enumerate().map(ask).collect();
        let mut patience = std::pin::pin!(tokio::time::sleep(ASK_TIMEOUT * 2));
        loop {
            let next = tokio::select! {
                next = asked.next() => next,
                () = &mut patience => None,
            };
            let Some((at, node, answer)) = next else { break };
            let time = now();
            self.health(|health| match &answer {
                Ok(_) => health.succeeded(node, time),
                Err(_) => health.failed(node, time),
            });
            answers[at] = answer.ok();
            answered += 1;
            if answered * 4 >= enough {
                patience.as_mut().reset(tokio::time::Instant::now() + stragglers);
            }
        }
        answers
    }

    /// Nodes that can take shards, with what they said of themselves within the last half minute.
    pub(crate) async fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        if let Some((asked_at, candidates)) =
            &*self.candidates.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
            && asked_at.elapsed() < CANDIDATES_KEPT
        {
            return Ok(candidates.clone());
        }
        let nodes = self.sample_nodes().await?;
        let ids: Vec<NodeId> = nodes.keys().copied().collect();
        let mut candidates = Vec::new();
        for (node, answer) in self.ask_all(&ids, &Request::About).await {
            let Some(Response::About { free_bytes, domain, .. }) = answer else { continue };
            let addresses = nodes.get(&node).map(Vec::as_slice).unwrap_or_default();
            let named = domain.filter(|_| self.named_domains).map(Domain::new);
            let domain = named.unwrap_or_else(|| self.address_domain(node, addresses));
            let standing = self.health(|health| health.standing(&node, now()));
            candidates.push(Candidate { node, domain, free_bytes, standing });
        }
        *self.candidates.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some((Instant::now(), candidates.clone()));
        Ok(candidates)
    }

    /// All nodes that a few walks find, with their addresses.
    pub(crate) async fn nodes(&self) -> Result<BTreeMap<NodeId, Vec<Multiaddr>>, Error> {
        self.sample_nodes().await
    }

    /// How far the clocks of some nodes are ahead of ours, in milliseconds, to within half a round trip; sorted.
    pub(crate) async fn clock_offsets(&self) -> Result<Vec<i64>, Error> {
        let nodes = self.sample_nodes().await?;
        let asked = nodes.keys().take(CLOCKS_MAX).map(|node| async move {
            let asked_at = now();
            let answer = self.peer.ask(*node, Request::About, ASK_TIMEOUT).await;
            let Ok(Response::About { clock, .. }) = answer else { return None };
            Some(clock_offset(clock, asked_at, now()))
        });
        let mut offsets: Vec<i64> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    /// An address of each known node, with its id.
    pub(crate) fn node_addresses(&self) -> Vec<String> {
        let contacts = self.peer.known_contacts();
        contacts.iter().filter_map(|contact| contact.dialable().map(|address| address.to_string())).collect()
    }

    /// Walks random keys until they bring nothing new.
    async fn sample_nodes(&self) -> Result<BTreeMap<NodeId, Vec<Multiaddr>>, Error> {
        let mut nodes = BTreeMap::new();
        for contact in self.peer.known_contacts() {
            nodes.insert(contact.node, contact.addrs);
        }
        for _ in 0..CANDIDATE_WALKS_MAX {
            let before = nodes.len();
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|_| Error::NoRandomness)?;
            for contact in self.peer.closest(key).await? {
                nodes.entry(contact.node).or_insert(contact.addrs);
            }
            if nodes.len() >= placement::CANDIDATES.into() || (nodes.len() == before && before > 0) {
                break;
            }
        }
        Ok(nodes)
    }

    /// Where a node can be dialled, as far as we know: what the vault's table hints.
    pub(crate) fn addresses_of(&self, nodes: &[NodeId]) -> Vec<NodeHint> {
        let known: BTreeMap<NodeId, Vec<Multiaddr>> =
            self.peer.known_contacts().into_iter().map(|contact| (contact.node, contact.addrs)).collect();
        nodes
            .iter()
            .map(|node| NodeHint { node: *node, addresses: known.get(node).cloned().unwrap_or_default() })
            .collect()
    }
}

/// How far a node's clock is ahead of ours, in milliseconds, if it was read half-way between question and answer. What
/// the node says may be anything.
fn clock_offset(clock: Timestamp, asked_at: Timestamp, answered_at: Timestamp) -> i64 {
    let signed = |Timestamp(ms)| i64::try_from(ms).unwrap_or(i64::MAX);
    let (asked, answered) = (signed(asked_at), signed(answered_at));
    signed(clock).saturating_sub(asked.saturating_add((answered.saturating_sub(asked)) / 2))
}

fn run(
    config: PeerConfig,
    started: &std::sync::mpsc::SyncSender<Result<(Peer, Handle), Error>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = Error::Io { action: "start the runtime of", path: "the network thread".into(), source };
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match Peer::start(config) {
            // A client answers nobody: what arrives unasked is dropped with its receivers.
            Ok((peer, _inbound)) => {
                let _ = started.send(Ok((peer.clone(), Handle::current())));
                let _ = stopped.await;
                peer.shutdown().await;
            }
            Err(error) => {
                let _ = started.send(Err(error.into()));
            }
        }
    });
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The last one to let go may be a task on that very thread; it ends with it.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_question_and_answer() {
        let offset = |clock, asked, answered| clock_offset(Timestamp(clock), Timestamp(asked), Timestamp(answered));
        assert_eq!(offset(5_000, 1_000, 1_200), 3_900);
        assert_eq!(offset(0, 1_000, 1_200), -1_100);
        assert_eq!(offset(u64::MAX, 0, 0), i64::MAX);
        // Our own clock was set back meanwhile.
        assert_eq!(offset(1_000, 1_200, 1_000), -100);
    }
}
