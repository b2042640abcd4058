//! What the swarm's task and the handles to it both look at. Locks are held for a few instructions, never across an
//! await.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use commonhold_protocol::NodeId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use crate::{book::AddressBook, observer::Observer};

/// When a byte last moved on a shard stream with one peer.
pub(crate) struct Heard {
    start: Instant,
    ms: AtomicU64,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), ms: AtomicU64::new(0) }
    }

    /// A byte moved.
    pub(crate) fn note(&self) {
        self.ms.store(self.start.elapsed().as_millis() as u64, Relaxed);
    }

    fn since(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.ms.load(Relaxed)))
    }
}

/// The state that needs no round trip to the swarm's task.
pub(crate) struct Shared {
    book: Mutex<AddressBook>,
    connected: Mutex<BTreeMap<NodeId, Multiaddr>>,
    routed: Mutex<BTreeMap<NodeId, Vec<Multiaddr>>>,
    heard: Mutex<HashMap<PeerId, Arc<Heard>>>,
    hanging: Mutex<BTreeSet<NodeId>>,
    /// Where we listen, without our id.
    pub(crate) listening: watch::Sender<Vec<Multiaddr>>,
    /// Who hears of all that is said.
    pub(crate) observer: Arc<dyn Observer>,
}

/// Locks, whatever happened to the last holder: what lies behind these locks is at worst a hint out of date.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self {
            book: Mutex::default(),
            connected: Mutex::default(),
            routed: Mutex::default(),
            heard: Mutex::default(),
            hanging: Mutex::default(),
            listening: watch::Sender::new(Vec::new()),
            observer,
        }
    }

    /// The address book.
    pub(crate) fn book(&self) -> MutexGuard<'_, AddressBook> {
        lock(&self.book)
    }

    /// Connected peers and the addresses at which we see them.
    pub(crate) fn connected(&self) -> MutexGuard<'_, BTreeMap<NodeId, Multiaddr>> {
        lock(&self.connected)
    }

    /// The routing table, mirrored.
    pub(crate) fn routed(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Multiaddr>>> {
        lock(&self.routed)
    }

    /// Nodes that are dialled in vain for so long that others have answered several times meanwhile.
    pub(crate) fn hanging(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        lock(&self.hanging)
    }

    /// The clock that streams of this peer set.
    pub(crate) fn heard(&self, peer: PeerId) -> Arc<Heard> {
        lock(&self.heard).entry(peer).or_insert_with(|| Arc::new(Heard::new())).clone()
    }

    /// True if bytes moved between us and this peer so short a time ago: it is alive, whatever else did not come.
    pub(crate) fn heard_within(&self, peer: &PeerId, time: Duration) -> bool {
        lock(&self.heard).get(peer).is_some_and(|heard| heard.since() < time)
    }

    /// The last connection to the peer has ended.
    pub(crate) fn disconnected(&self, peer: &PeerId) {
        lock(&self.heard).remove(peer);
    }
}
