//! Rebuilds shards of one segment: columns are read from k holders, verified as they arrive, coded, and sent on to the
//! new holders while the next ones come. Never a whole shard in memory, nothing on the disk.
//!
//! Whoever reads this node's memory learns nothing: shards are sealed. A new holder compares the root before it
//! commits, so a rebuild that dies half-way, or that was fed by an owner whose roots do not belong together, leaves
//! nothing behind.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use commonhold_network::{Peer, ShardService, TransferError};
use commonhold_protocol::{
    Lease, Manifest, NetworkName, NodeId, ShardIndex, Unverified, Verified, VerifiedClaim,
    shard_stream::{GROUP_BYTES, GroupRange},
};
use commonhold_storage_engine::{code::Coder, prove::decode_ranges};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{figures::AuditFigures, pace::Pace};
use crate::holder::Holder;

/// Memory of one rebuild: a column of each source, as it came and decoded, and of each target.
const COLUMN_BYTES_MAX: u64 = 8 << 20;
/// Columns on their way to one target.
const PIECES_QUEUED: usize = 1;

/// What is to be rebuilt, from whom, for whom.
pub(crate) struct Rebuild {
    pub(crate) peer: Peer,
    pub(crate) network: NetworkName,
    pub(crate) manifest: Arc<Verified<Manifest>>,
    /// Of the vault, if one that runs is known.
    pub(crate) lease: Option<Unverified<Lease>>,
    /// Holders to read from, the best first; more than k, if there are, to take the place of those that fail.
    pub(crate) sources: Vec<(ShardIndex, NodeId)>,
    /// The missing shards and who is to hold them.
    pub(crate) targets: Vec<(ShardIndex, NodeId)>,
    /// Our node and its shards, for when it is a source itself.
    pub(crate) own: (NodeId, Arc<Holder>),
    /// Awaited with the bytes of each column before they are read.
    pub(super) pace: Pace,
    /// What it counts.
    pub(super) figures: Arc<AuditFigures>,
}

/// How a source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceFault {
    /// It did not answer, or refused.
    Absent,
    /// What it sent of these chunk groups does not fit the owner-signed root.
    Wrong(GroupRange),
}

/// What came of a rebuild.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    /// The new holders' claims, each over the shard that it was given.
    pub(crate) claims: Vec<VerifiedClaim>,
    /// Targets that did not take their shard.
    pub(crate) refused: Vec<(ShardIndex, NodeId)>,
    /// Sources that failed.
    pub(crate) faults: Vec<(ShardIndex, NodeId, SourceFault)>,
    /// Bytes that were read, and bytes that were sent on.
    pub(crate) bytes_read: u64,
    pub(crate) bytes_sent: u64,
}

type Column = Vec<(ShardIndex, Bytes)>;
/// A shard's part of a column, as its holder gave it.
type ReadOne = (ShardIndex, NodeId, Result<Bytes, SourceFault>);

/// A new holder that is being sent its shard.
struct Target {
    index: ShardIndex,
    pieces: mpsc::Sender<Option<Bytes>>,
}

impl Rebuild {
    /// Does it; none if it is stopped before all is sent. From then on nothing stops it: what holders have taken by now
    /// they claim, and a claim that nobody heard of would stand nowhere until they announce it.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Option<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        // Those that are sent to are given up when this is dropped.
        let mut sending = JoinSet::new();
        let mut targets = Vec::new();
        for (index, node) in std::mem::take(&mut self.targets) {
            let (pieces, queued) = mpsc::channel(PIECES_QUEUED);
            targets.push(Target { index, pieces });
            sending.spawn(self.send(index, node, queued));
        }
        if stop.run_until_cancelled(self.send_columns(&targets, &mut rebuilt)).await?.is_none() {
            // A channel that closes without an end gives its shard up.
            drop(targets);
        }
        while let Some(sent) = sending.join_next().await {
            match sent {
                Ok((_, _, Some(claim))) => rebuilt.claims.push(claim),
                Ok((index, node, None)) => rebuilt.refused.push((index, node)),
                Err(error) => tracing::error!(%error, "sending a rebuilt shard failed"),
            }
        }
        Some(rebuilt)
    }

    /// Column by column, to all targets; none if it ends early.
    async fn send_columns(&mut self, targets: &[Target], rebuilt: &mut Rebuilt) -> Option<()> {
        let shard_length = self.manifest.shard_length();
        let k = usize::from(self.manifest.coding.k());
        let mut spare = self.sources.split_off(k.min(self.sources.len())).into_iter();
        let mut sources = std::mem::take(&mut self.sources);
        let streams = (2 * k + targets.len()) as u64;
        let column_bytes = (COLUMN_BYTES_MAX / streams / GROUP_BYTES).max(1) * GROUP_BYTES;
        let mut start = 0;
        while start < shard_length {
            let end = (start + column_bytes).min(shard_length);
            self.pace.spend((end - start) * (k + targets.len()) as u64).await;
            let column = self.read_column(start..end, &mut sources, &mut spare, rebuilt).await?;
            let pieces = self.code(column, targets, end - start).await?;
            for (target, piece) in targets.iter().zip(pieces) {
                let bytes = piece.len() as u64;
                // A target that gave up has closed its end; the others go on.
                if target.pieces.send(Some(piece)).await.is_ok() {
                    rebuilt.bytes_sent += bytes;
                    self.figures.repair_sent(bytes);
                }
            }
            if targets.iter().all(|target| target.pieces.is_closed()) {
                return None;
            }
            start = end;
        }
        for target in targets {
            let _ = target.pieces.send(None).await;
        }
        Some(())
    }

    /// The same columns of k shards, each checked against its root; none if too few holders are left.
    async fn read_column(
        &self,
        columns: std::ops::Range<u64>,
        sources: &mut Vec<(ShardIndex, NodeId)>,
        spare: &mut impl Iterator<Item = (ShardIndex, NodeId)>,
        rebuilt: &mut Rebuilt,
    ) -> Option<Column> {
        let k = usize::from(self.manifest.coding.k());
        let mut read: Column = Vec::with_capacity(k);
        let mut reading: FuturesUnordered<BoxFuture<'_, ReadOne>> = FuturesUnordered::new();
        let ask = |(index, node): (ShardIndex, NodeId)| -> BoxFuture<'_, _> {
            let columns = columns.clone();
            Box::pin(async move { (index, node, self.read_one(index, node, columns).await) })
        };
        reading.extend(sources.iter().copied().map(ask));
        let mut failed = BTreeSet::new();
        while let Some((index, node, outcome)) = reading.next().await {
            match outcome {
                Ok(bytes) => {
                    rebuilt.bytes_read += bytes.len() as u64;
                    self.figures.repair_read(bytes.len() as u64);
                    read.push((index, bytes));
                }
                Err(fault) => {
                    rebuilt.faults.push((index, node, fault));
                    failed.insert(index);
                    if let Some(next) = spare.next() {
                        sources.push(next);
                        reading.push(ask(next));
                    }
                }
            }
        }
        drop(reading);
        sources.retain(|(index, _)| !failed.contains(index));
        (read.len() >= k).then_some(read)
    }

    async fn read_one(
        &self,
        index: ShardIndex,
        node: NodeId,
        columns: std::ops::Range<u64>,
    ) -> Result<Bytes, SourceFault> {
        let (wanted, shard_length) = (GroupRange::of_bytes(columns.start, columns.end), self.manifest.shard_length());
        let root = *self.manifest.root(index).ok_or(SourceFault::Wrong(wanted))?;
        let ranges = vec![wanted];
        let segment = self.manifest.id();
        let reply = if node == self.own.0 {
            self.own.1.read(node, segment, index, ranges.clone(), false).await.map_err(|_| SourceFault::Absent)?
        } else {
            let reply = self.peer.read_shard(node, segment, index, ranges.clone(), false).await;
            reply.map_err(|error| match error {
                TransferError::Nonsense { .. } => SourceFault::Wrong(wanted),
                _ => SourceFault::Absent,
            })?
        };
        let decode = move || {
            let decoded = decode_ranges(&root, shard_length, &ranges, &reply.encoded).ok()?;
            Some(decoded.first()?.concat())
        };
        let decoded = tokio::task::spawn_blocking(decode).await.map_err(|_| SourceFault::Absent)?;
        decoded.ok_or(SourceFault::Wrong(wanted))
    }

    /// The targets' pieces of a column, in their order.
    async fn code(&self, column: Column, targets: &[Target], bytes: u64) -> Option<Vec<Bytes>> {
        let wanted: Vec<ShardIndex> = targets.iter().map(|target| target.index).collect();
        let coding = self.manifest.coding;
        let code = move || {
            let present: Vec<(ShardIndex, &[u8])> = column.iter().map(|(index, bytes)| (*index, &**bytes)).collect();
            let mut pieces = vec![vec![0; bytes as usize]; wanted.len()];
            let mut out: Vec<&mut [u8]> = pieces.iter_mut().map(Vec::as_mut_slice).collect();
            Coder::new(coding).reconstruct(&present, &wanted, &mut out).ok()?;
            Some(pieces.into_iter().map(Bytes::from).collect())
        };
        tokio::task::spawn_blocking(code).await.ok()?
    }

    /// Sends one target its shard as it comes; its claim, if it took it.
    fn send(
        &self,
        index: ShardIndex,
        node: NodeId,
        pieces: mpsc::Receiver<Option<Bytes>>,
    ) -> impl Future<Output = (ShardIndex, NodeId, Option<VerifiedClaim>)> + use<> {
        let (peer, network, manifest) = (self.peer.clone(), self.network.clone(), self.manifest.clone());
        let lease = self.lease.clone();
        async move {
            let stored = peer.store_shard(node, manifest.to_unverified(), index, lease, pieces).await;
            let claim = match stored {
                Ok(claim) => claim.verify(&network).ok().filter(|claim| {
                    let leaf = claim.claim.leaf;
                    claim.holder == node && leaf.segment == manifest.id() && leaf.index == index
                }),
                Err(error) => {
                    tracing::debug!(%error, segment = %manifest.id(), %index, "a rebuilt shard was not taken");
                    None
                }
            };
            (index, node, claim)
        }
    }
}
