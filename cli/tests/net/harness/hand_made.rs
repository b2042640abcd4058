//! A vault whose owner is a test itself: its segments go where the test wants them, and its leases end when it says.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use commonhold_protocol::{
    Claim, Coding, Lease, NodeId, Record, SegmentId, Timestamp, Unverified, Verified,
    ask::{Refusal, Request},
};
use commonhold_storage_engine::{
    keys::{VaultKeys, VaultSecret},
    segment::CodedSegment,
};

use super::{Spy, segment_of_noise};

const SEGMENT_BYTES: usize = 4 << 20;

/// The vault, and what was placed of it.
pub(crate) struct HandMadeVault<'s> {
    spy: &'s Spy,
    pub(crate) keys: VaultKeys,
    pub(crate) shards: Vec<(NodeId, SegmentId, u8, Bytes)>,
}

impl<'s> HandMadeVault<'s> {
    pub(crate) fn new(spy: &'s Spy) -> Self {
        Self { spy, keys: VaultKeys::derive(&VaultSecret::from_bytes(rand::random())), shards: Vec::new() }
    }

    pub(crate) fn lease(&self, counter: u64, valid_until: Timestamp) -> Unverified<Lease> {
        let lease = Lease { vault: self.keys.vault_id(), counter, valid_until };
        Verified::sign(lease, self.keys.signing(), &self.spy.network).to_unverified()
    }

    /// A new segment of `n` shards, any half of which restore it.
    pub(crate) fn segment(&self, n: usize) -> CodedSegment {
        let n = u8::try_from(n).unwrap();
        segment_of_noise(&self.keys, rand::random(), SEGMENT_BYTES, Coding::new((n / 2).max(1), n).unwrap())
    }

    /// Puts a shard of a new segment on each of `nodes`, and its record on all of them, under `lease`.
    pub(crate) fn place(&mut self, nodes: &[NodeId], lease: &Unverified<Lease>) {
        let record = self.place_on(self.segment(nodes.len()), nodes, lease);
        for node in nodes {
            self.keep(*node, &record, lease).unwrap();
        }
    }

    /// Puts a shard of a segment on each of `holders`, under `lease`; gives its record.
    pub(crate) fn place_on(&mut self, coded: CodedSegment, holders: &[NodeId], lease: &Unverified<Lease>) -> Record {
        let manifest = Verified::sign(coded.manifest, self.keys.signing(), &self.spy.network);
        let mut claims: Vec<Claim> = Vec::new();
        for ((shard, node), index) in coded.shards.into_iter().zip(holders).zip(0..) {
            let lease = Some(lease.clone());
            claims.push(self.spy.store_under(*node, manifest.to_unverified(), index, lease, shard.clone()).unwrap());
            self.shards.push((*node, manifest.id(), index, shard));
        }
        Record { manifest: manifest.to_unverified(), claims, drop: None }
    }

    /// Asks a steward to keep a record.
    pub(crate) fn keep(&self, steward: NodeId, record: &Record, lease: &Unverified<Lease>) -> Result<(), Refusal> {
        let request = Request::KeepRecords { records: vec![record.clone()], lease: Some(lease.clone()) };
        self.spy.keep(steward, request)
    }

    /// Every shard that was placed is still there, for whoever asks.
    pub(crate) fn assert_reads(&self, spy: &Spy) {
        for (node, segment, index, shard) in &self.shards {
            assert_eq!(spy.whole_shard(*node, *segment, *index).as_ref(), Ok(shard));
        }
    }

    pub(crate) fn bytes_placed(&self) -> u64 {
        self.shards.iter().map(|(.., shard)| shard.len() as u64).sum()
    }
}

/// So many milliseconds from now.
pub(crate) fn in_ms(ms: u64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(now.as_millis() as u64).after_ms(ms)
}
