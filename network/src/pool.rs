//! Open streams to peers that can carry another exchange, and how many streams and questions there may be at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{behaviour::ASKS_PER_PEER_MAX, config::StreamLimits, shared::lock, wire::Wire};

struct PeerPool {
    slots: Arc<Semaphore>,
    asks: Arc<Semaphore>,
    idle: Vec<(Wire, Instant)>,
}

/// The right to use one stream to one peer.
pub(crate) struct Slot {
    _permits: [OwnedSemaphorePermit; 2],
}

/// Streams by peer.
pub(crate) struct Pool {
    peers: Mutex<HashMap<PeerId, PeerPool>>,
    slots: Arc<Semaphore>,
    limits: StreamLimits,
}

impl Pool {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self { peers: Mutex::default(), slots: Arc::new(Semaphore::new(limits.opened_max)), limits }
    }

    /// Waits for the right to use a stream to `peer`; none once the pool is closed.
    pub(crate) async fn slot(&self, peer: PeerId) -> Option<Slot> {
        let slots = lock(&self.peers).entry(peer).or_insert_with(|| self.peer_pool()).slots.clone();
        // The peer's own limit first: whoever waits for a busy peer takes nothing from the others.
        let own = slots.acquire_owned().await.ok()?;
        let shared = self.slots.clone().acquire_owned().await.ok()?;
        Some(Slot { _permits: [own, shared] })
    }

    /// Waits for the right to ask `peer` a question; none once the pool is closed.
    pub(crate) async fn ask_slot(&self, peer: PeerId) -> Option<OwnedSemaphorePermit> {
        let asks = lock(&self.peers).entry(peer).or_insert_with(|| self.peer_pool()).asks.clone();
        asks.acquire_owned().await.ok()
    }

    fn peer_pool(&self) -> PeerPool {
        PeerPool {
            slots: Arc::new(Semaphore::new(self.limits.opened_per_peer_max)),
            asks: Arc::new(Semaphore::new(ASKS_PER_PEER_MAX)),
            idle: Vec::new(),
        }
    }

    /// The stream that was used last, if one is open.
    pub(crate) fn take(&self, peer: &PeerId) -> Option<Wire> {
        lock(&self.peers).get_mut(peer)?.idle.pop().map(|(wire, _)| wire)
    }

    /// Keeps a stream after a complete exchange.
    pub(crate) fn put_back(&self, peer: PeerId, wire: Wire) {
        if self.slots.is_closed() {
            return;
        }
        let mut peers = lock(&self.peers);
        let pool = peers.entry(peer).or_insert_with(|| self.peer_pool());
        if pool.idle.len() < self.limits.opened_per_peer_max {
            pool.idle.push((wire, Instant::now()));
        }
    }

    /// Closes the idle streams to a peer: one of them turned out to be dead, and the others are as old.
    pub(crate) fn forget(&self, peer: &PeerId) {
        if let Some(pool) = lock(&self.peers).get_mut(peer) {
            pool.idle.clear();
        }
    }

    /// Closes streams that were not used for long.
    pub(crate) fn sweep(&self, now: Instant) {
        lock(&self.peers).retain(|_, pool| {
            pool.idle.retain(|(_, since)| now.saturating_duration_since(*since) < self.limits.idle);
            !pool.idle.is_empty() || Arc::strong_count(&pool.slots) > 1 || Arc::strong_count(&pool.asks) > 1
        });
    }

    /// Closes everything, now and for good.
    pub(crate) fn close(&self) {
        self.slots.close();
        lock(&self.peers).clear();
    }
}
