//! Counters of what a peer moved, so that a test or a dashboard can count the bytes of a put.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Running counters; read them with [`PeerStats::snapshot`].
#[derive(Debug, Default)]
pub struct PeerStats {
    pub(crate) shard_bytes_sent: AtomicU64,
    pub(crate) shard_bytes_received: AtomicU64,
    pub(crate) ask_bytes_sent: AtomicU64,
    pub(crate) ask_bytes_received: AtomicU64,
    pub(crate) streams_opened: AtomicU64,
    pub(crate) streams_accepted: AtomicU64,
    pub(crate) streams_retried: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) connections_made: AtomicU64,
}

/// The counters at one moment. All count from the start of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatsSnapshot {
    /// Raw bytes of shards and proven ranges sent, without headers.
    pub shard_bytes_sent: u64,
    /// Raw bytes of shards and proven ranges received, without headers.
    pub shard_bytes_received: u64,
    /// Bytes of requests and responses sent.
    pub ask_bytes_sent: u64,
    /// Bytes of requests and responses received.
    pub ask_bytes_received: u64,
    /// Shard streams that we opened.
    pub streams_opened: u64,
    /// Shard streams that others opened to us.
    pub streams_accepted: u64,
    /// Exchanges that were begun again on another stream because the first gave no reply.
    pub streams_retried: u64,
    /// Attempts to connect that failed.
    pub dials_failed: u64,
    /// Connections that were set up, whoever dialled; those that have ended count too.
    pub connections_made: u64,
}

impl PeerStats {
    /// The counters now.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            shard_bytes_sent: self.shard_bytes_sent.load(Relaxed),
            shard_bytes_received: self.shard_bytes_received.load(Relaxed),
            ask_bytes_sent: self.ask_bytes_sent.load(Relaxed),
            ask_bytes_received: self.ask_bytes_received.load(Relaxed),
            streams_opened: self.streams_opened.load(Relaxed),
            streams_accepted: self.streams_accepted.load(Relaxed),
            streams_retried: self.streams_retried.load(Relaxed),
            dials_failed: self.dials_failed.load(Relaxed),
            connections_made: self.connections_made.load(Relaxed),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
