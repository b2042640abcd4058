//! How much of the node shard streams may use at once: in all, and each peer.
//!
//! Who is over the limit waits, which holds its stream back; who waits too long is told that we are busy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use commonhold_protocol::{
    NodeId,
    ask::Refusal,
    shard_stream::{GROUP_BYTES, GroupRange, PIECE_BYTES},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes of a shard that are hashed and written in one go, off the runtime's thread.
pub(super) const WRITE_BYTES: u64 = 512 << 10;
/// Shards received at once; each has so much in memory, and one piece of at most 256 KiB.
const STORES_MAX: usize = 32;
/// Shards received at once from one peer: as many streams as a peer of ours opens to one node. Whoever opens more gets
/// no more done than others do.
const STORES_PER_PEER_MAX: usize = 8;
/// Ranges read at once for one peer.
const READS_PER_PEER_MAX: usize = 8;
/// Memory for ranges that are being read or sent, in all.
const READ_BYTES_MAX: u64 = 48 << 20;
/// Of one peer; a longer range has to be the only one.
const READ_BYTES_PER_PEER_MAX: u64 = READ_BYTES_MAX / 3;
/// The longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// Permits are counted in KiB, since a semaphore counts 32 bits at a time.
const PERMIT_BYTES: u64 = 1 << 10;

const _: () = assert!(STORES_MAX * (WRITE_BYTES as usize + PIECE_BYTES) <= 24 << 20);

#[derive(Debug)]
struct PeerShare {
    stores: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    read_bytes: Arc<Semaphore>,
}

impl PeerShare {
    fn is_idle(&self) -> bool {
        let Self { stores, reads, read_bytes } = self;
        [stores, reads, read_bytes].into_iter().all(|share| Arc::strong_count(share) == 1)
    }
}

/// The limits.
#[derive(Debug)]
pub(super) struct ExchangeLimits {
    stores: Arc<Semaphore>,
    read_bytes: Arc<Semaphore>,
    /// Of those peers that have an exchange right now, and some that had one.
    peers: Mutex<BTreeMap<NodeId, PeerShare>>,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self {
            stores: Arc::new(Semaphore::new(STORES_MAX)),
            read_bytes: Arc::new(Semaphore::new((READ_BYTES_MAX / PERMIT_BYTES) as usize)),
            peers: Mutex::default(),
        }
    }
}

/// A turn; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Turn {
    /// Ties the turn to the bytes that were read, until they are sent.
    pub(super) fn attach(self, bytes: Vec<u8>) -> Bytes {
        struct Held {
            bytes: Vec<u8>,
            _turn: Turn,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Held { bytes, _turn: self })
    }
}

impl ExchangeLimits {
    /// A turn to receive a shard.
    pub(super) async fn store(&self, from: NodeId) -> Result<Turn, Refusal> {
        let own = self.share(from, |share| share.stores.clone());
        take(vec![(own, 1), (self.stores.clone(), 1)]).await
    }

    /// A turn to read these ranges.
    pub(super) async fn read(&self, from: NodeId, ranges: &[GroupRange]) -> Result<Turn, Refusal> {
        let (own, own_bytes) = self.share(from, |share| (share.reads.clone(), share.read_bytes.clone()));
        let groups: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
        // A group's proof is a few hashes; an eighth more is plenty.
        let bytes = (groups * GROUP_BYTES / 8 * 9).min(READ_BYTES_MAX);
        let permits = |bytes: u64| bytes.div_ceil(PERMIT_BYTES) as u32;
        // A peer's own limits first: whoever waits for these takes nothing from the others.
        let of_peer = permits(bytes.min(READ_BYTES_PER_PEER_MAX));
        take(vec![(own, 1), (own_bytes, of_peer), (self.read_bytes.clone(), permits(bytes))]).await
    }

    /// Waits until no shard is being received.
    pub(super) async fn idle(&self) {
        // An error means that the semaphore is closed: then nobody has a turn either.
        let _ = self.stores.acquire_many(STORES_MAX as u32).await;
    }

    fn share<T>(&self, from: NodeId, pick: impl FnOnce(&PeerShare) -> T) -> T {
        const KEPT_IDLE_MAX: usize = 256;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() > KEPT_IDLE_MAX {
            peers.retain(|_, share| !share.is_idle());
        }
        pick(peers.entry(from).or_insert_with(|| PeerShare {
            stores: Arc::new(Semaphore::new(STORES_PER_PEER_MAX)),
            reads: Arc::new(Semaphore::new(READS_PER_PEER_MAX)),
            read_bytes: Arc::new(Semaphore::new((READ_BYTES_PER_PEER_MAX / PERMIT_BYTES) as usize)),
        }))
    }
}

async fn take(wanted: Vec<(Arc<Semaphore>, u32)>) -> Result<Turn, Refusal> {
    let all = async move {
        let mut permits = Vec::with_capacity(wanted.len());
        for (semaphore, count) in wanted {
            permits.push(semaphore.acquire_many_owned(count).await.map_err(|_| Refusal::Stopping)?);
        }
        Ok(Turn { _permits: permits })
    };
    timeout(WAIT_MAX, all).await.unwrap_or(Err(Refusal::Busy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_all_of_its_share_waits_while_others_do_not() {
        let limits = ExchangeLimits::default();
        let (greedy, other) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let mut turns = Vec::new();
        for _ in 0..STORES_PER_PEER_MAX {
            turns.push(limits.store(greedy).await.unwrap());
        }
        assert_eq!(limits.store(greedy).await.unwrap_err(), Refusal::Busy);
        limits.store(other).await.unwrap();
        turns.pop();
        limits.store(greedy).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_all_that_it_may_leaves_memory_to_others() {
        let limits = ExchangeLimits::default();
        let (greedy, other) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let whole = [GroupRange::whole(8 << 20)];
        let turn = limits.read(greedy, &whole).await.unwrap();
        assert_eq!(limits.read(greedy, &whole).await.unwrap_err(), Refusal::Busy);
        limits.read(other, &whole).await.unwrap();
        drop(turn);
        limits.read(greedy, &whole).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_counts_until_its_bytes_are_gone() {
        let limits = ExchangeLimits::default();
        let whole = [GroupRange::whole(16 << 20)];
        let mut sent = Vec::new();
        for peer in 0..2 {
            let turn = limits.read(NodeId::from_bytes([peer; 32]), &whole).await.unwrap();
            sent.push(turn.attach(vec![0; 16 << 20]));
        }
        let third = NodeId::from_bytes([3; 32]);
        assert_eq!(limits.read(third, &whole).await.unwrap_err(), Refusal::Busy);
        limits.read(third, &[GroupRange { first: 0, count: 1 }]).await.unwrap();
        sent.pop();
        limits.read(third, &whole).await.unwrap();
    }
}
