//! What the auditor counts, for the status page and for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use commonhold_policy::audit::Outcome;
use commonhold_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct AuditFigures {
    challenges: AtomicU64,
    held: AtomicU64,
    wrong: AtomicU64,
    refused: AtomicU64,
    contradicted: AtomicU64,
    unreachable: AtomicU64,
    lost_holders: AtomicU64,
    repairs: AtomicU64,
    repairs_failed: AtomicU64,
    shards_rebuilt: AtomicU64,
    bytes_read: AtomicU64,
    bytes_sent: AtomicU64,
    /// In milliseconds since 1970; 0: none yet.
    last_repair_ms: AtomicU64,
}

/// What they were at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSnapshot {
    /// Challenges sent, repetitions included.
    pub challenges: u64,
    /// Shards proven.
    pub held: u64,
    /// Shards whose proof was wrong.
    pub wrong: u64,
    /// Shards that a holder refused to prove.
    pub refused: u64,
    /// Shards of another manifest that their owner signed for the same segment.
    pub contradicted: u64,
    /// Challenges that did not reach their holder.
    pub unreachable: u64,
    /// Holders given up.
    pub lost_holders: u64,
    /// Repairs that placed at least one shard.
    pub repairs: u64,
    /// Repairs that placed none.
    pub repairs_failed: u64,
    /// Shards rebuilt and claimed.
    pub shards_rebuilt: u64,
    /// Shard bytes read for repairs.
    pub bytes_read: u64,
    /// Shard bytes sent by repairs.
    pub bytes_sent: u64,
    /// When a repair last placed a shard, in milliseconds since 1970; none since the start.
    pub last_repair_ms: Option<u64>,
}

impl AuditFigures {
    pub(super) fn challenge(&self) {
        self.challenges.fetch_add(1, Relaxed);
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Held => &self.held,
            Outcome::Wrong => &self.wrong,
            Outcome::Refused => &self.refused,
            Outcome::Contradicted => &self.contradicted,
            Outcome::Unreachable => &self.unreachable,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn lost_holder(&self) {
        self.lost_holders.fetch_add(1, Relaxed);
    }

    /// Bytes count as they are moved: those of a repair that is stopped have been moved too.
    pub(super) fn repair_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Relaxed);
    }

    pub(super) fn repair_sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Relaxed);
    }

    pub(super) fn repaired(&self, now: Timestamp, shards: u64) {
        if shards > 0 {
            self.repairs.fetch_add(1, Relaxed);
            self.last_repair_ms.fetch_max(now.0, Relaxed);
        } else {
            self.repairs_failed.fetch_add(1, Relaxed);
        }
        self.shards_rebuilt.fetch_add(shards, Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> AuditSnapshot {
        AuditSnapshot {
            challenges: self.challenges.load(Relaxed),
            held: self.held.load(Relaxed),
            wrong: self.wrong.load(Relaxed),
            refused: self.refused.load(Relaxed),
            contradicted: self.contradicted.load(Relaxed),
            unreachable: self.unreachable.load(Relaxed),
            lost_holders: self.lost_holders.load(Relaxed),
            repairs: self.repairs.load(Relaxed),
            repairs_failed: self.repairs_failed.load(Relaxed),
            shards_rebuilt: self.shards_rebuilt.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            last_repair_ms: Some(self.last_repair_ms.load(Relaxed)).filter(|at| *at > 0),
        }
    }
}
