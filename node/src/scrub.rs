//! The scrub: reads all shards that are held, slowly and again and again, and tells the stewards of those that are
//! rotten, so that they are rebuilt elsewhere before an audit finds them missing.
//!
//! The store quarantines what does not fit its root, whoever read it; whatever lies in quarantine is released here, also
//! what a client or an audit stumbled over, or what went with a volume. Nobody is blamed for rot that he reports. The
//! damaged bytes stay for the time of the trash, to be looked at, and then give their space back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::{Domain, stewards};
use commonhold_protocol::{
    ClaimLeaf, NodeId, SegmentId,
    ask::{ASK_IDS_MAX, Request, Response},
};
use commonhold_storage_engine::store::{ShardStore, StoreError};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{neighbours::Neighbours, steward::Steward};

/// Between two rounds; shorter where all is to be read in a short time.
const ROUND_MAX: Duration = Duration::from_secs(30);
const ROUND_MIN: Duration = Duration::from_millis(250);
/// Rounds in which all is read once, at least.
const ROUNDS_MIN: u32 = 16;
/// The most that is read in one round: a disk that is far behind is not hogged.
const ROUND_BYTES_MAX: u64 = 64 << 20;
/// Shards released in one round.
const RELEASED_MAX: usize = 256;
/// How long a steward may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the scrub did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubSnapshot {
    /// Shards that were read and fit their root.
    pub verified: u64,
    /// Shards that were read and did not.
    pub rotten: u64,
    /// Shards in quarantine whose stewards were told.
    pub released: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub struct ScrubFigures {
    verified: AtomicU64,
    rotten: AtomicU64,
    released: AtomicU64,
}

impl ScrubFigures {
    /// As it stands.
    pub fn snapshot(&self) -> ScrubSnapshot {
        ScrubSnapshot {
            verified: self.verified.load(Relaxed),
            rotten: self.rotten.load(Relaxed),
            released: self.released.load(Relaxed),
        }
    }
}

/// The scrub.
pub(crate) struct Scrub {
    pub(crate) peer: Peer,
    pub(crate) store: Arc<ShardStore>,
    pub(crate) steward: Arc<Steward>,
    pub(crate) neighbours: Arc<Neighbours>,
    /// All is read once in this time.
    pub(crate) every: Duration,
    /// Damaged bytes are kept for this time once their stewards know.
    pub(crate) trash: Duration,
    pub(crate) figures: Arc<ScrubFigures>,
}

impl Scrub {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let round = (self.every / ROUNDS_MIN).clamp(ROUND_MIN, ROUND_MAX);
        let mut after = None;
        let mut released = BTreeMap::new();
        while stop.run_until_cancelled(tokio::time::sleep(round)).await.is_some() {
            let (store, figures) = (self.store.clone(), self.figures.clone());
            let share = round.as_secs_f64() / self.every.as_secs_f64().max(f64::MIN_POSITIVE);
            let read = move || read_some(&store, &figures, share, after);
            // A panic in there is logged by the runtime; the next round begins anew.
            after = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            if stop.run_until_cancelled(self.release(&mut released)).await.is_none() {
                return;
            }
        }
    }

    /// Tells stewards of what is in quarantine, and gives back what they have known for long.
    async fn release(&self, released: &mut BTreeMap<ClaimLeaf, Instant>) {
        let quarantined: BTreeSet<ClaimLeaf> = self.store.quarantined().into_iter().collect();
        // Stored anew, or removed.
        released.retain(|leaf, _| quarantined.contains(leaf));
        let news = quarantined.into_iter().filter(|leaf| !released.contains_key(leaf));
        let told = self.tell(news.take(RELEASED_MAX).collect()).await;
        self.figures.released.fetch_add(told.len() as u64, Relaxed);
        released.extend(told.into_iter().map(|leaf| (leaf, Instant::now())));
        let old: Vec<ClaimLeaf> =
            released.iter().filter(|(_, at)| at.elapsed() > self.trash).map(|(leaf, _)| *leaf).collect();
        if !old.is_empty() {
            let store = self.store.clone();
            let removed = tokio::task::spawn_blocking(move || store.remove_all(&still_damaged(&store, old)));
            if let Ok(Err(error)) = removed.await {
                tracing::warn!(%error, "damaged shards cannot be removed");
            }
        }
    }

    /// Those of the shards of which a steward was told.
    async fn tell(&self, leaves: Vec<ClaimLeaf>) -> BTreeSet<ClaimLeaf> {
        let mut by_steward: BTreeMap<NodeId, Vec<ClaimLeaf>> = BTreeMap::new();
        for leaf in leaves {
            for node in self.stewards_of(&leaf.segment).await {
                by_steward.entry(node).or_default().push(leaf);
            }
        }
        let told = by_steward.into_iter().map(async |(node, leaves)| {
            let mut told = Vec::new();
            for part in leaves.chunks(ASK_IDS_MAX) {
                if self.ask(node, Request::Release { shards: part.to_vec() }).await {
                    told.extend_from_slice(part);
                }
            }
            told
        });
        join_all(told).await.into_iter().flatten().collect()
    }

    async fn stewards_of(&self, segment: &SegmentId) -> Vec<NodeId> {
        let closest = self.peer.closest(*segment.as_bytes()).await.unwrap_or_default();
        let others = closest.into_iter().map(|contact| (contact.node, self.neighbours.domain(contact.node)));
        let candidates: Vec<(NodeId, Domain)> = others.chain([self.neighbours.own()]).collect();
        stewards::choose(segment.as_bytes(), &candidates)
    }

    /// Whether a steward, which may be ourselves, did what it was asked.
    async fn ask(&self, node: NodeId, request: Request) -> bool {
        let answer = if node == self.neighbours.own().0 {
            let (steward, sender) = (self.steward.clone(), self.neighbours.sender(node));
            tokio::task::spawn_blocking(move || steward.answer(&sender, request)).await.ok()
        } else {
            self.peer.ask(node, request, PATIENCE).await.ok()
        };
        matches!(answer, Some(Response::Kept(outcomes)) if outcomes.iter().all(Result::is_ok))
    }
}

/// Those that are still in quarantine: one may just have been stored anew.
fn still_damaged(store: &ShardStore, mut leaves: Vec<ClaimLeaf>) -> Vec<ClaimLeaf> {
    leaves.retain(|leaf| matches!(store.holds(leaf), Ok(false)));
    leaves
}

/// Reads a share of all shards, from the one behind `after` on; gives the last one, none at the end of all.
fn read_some(store: &ShardStore, figures: &ScrubFigures, share: f64, after: Option<ClaimLeaf>) -> Option<ClaimLeaf> {
    let bytes_max = ((store.used().bytes as f64 * share) as u64).min(ROUND_BYTES_MAX);
    let mut bytes = 0;
    for held in store.held_after(after.as_ref()) {
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "the shards cannot be gone through");
                return None;
            }
        };
        match store.verify(held.leaf.segment, held.leaf.index) {
            Ok(()) => figures.verified.fetch_add(1, Relaxed),
            // The store says so in the log.
            Err(StoreError::Damaged { .. }) => figures.rotten.fetch_add(1, Relaxed),
            // Removed meanwhile, or a disk that may work the next time.
            Err(error) => {
                tracing::debug!(%error, "a shard cannot be read");
                0
            }
        };
        bytes += held.bytes;
        if bytes >= bytes_max {
            return Some(held.leaf);
        }
    }
    None
}
