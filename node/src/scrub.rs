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

use commonhold_protocol::{ClaimLeaf, SegmentId, ShardIndex};
use commonhold_storage_engine::store::{ShardStore, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::custody::colleagues::Colleagues;

/// Between two rounds; shorter where all is to be read in a short time.
const ROUND_MAX: Duration = Duration::from_secs(30);
const ROUND_MIN: Duration = Duration::from_millis(250);
/// Rounds in which all is read once, at least.
const ROUNDS_MIN: u32 = 16;
/// The most that is read in one round: a disk that is far behind is not hogged. 10 TB take two weeks.
const ROUND_BYTES_MAX: u64 = 256 << 20;
/// Shards released in one round.
const RELEASED_MAX: usize = 256;

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
    pub(crate) colleagues: Colleagues,
    pub(crate) store: Arc<ShardStore>,
    /// All is read once in this time.
    pub(crate) every: Duration,
    /// Damaged bytes are kept for this time once their stewards know.
    pub(crate) trash: Duration,
    pub(crate) figures: Arc<ScrubFigures>,
}

impl Scrub {
    /// Works until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let round = (self.every / ROUNDS_MIN).clamp(ROUND_MIN, ROUND_MAX);
        // From anywhere: a node that is switched off each night would read the same first ones each day.
        let mut after = Some(ClaimLeaf { segment: SegmentId::from_bytes(rand::random()), index: ShardIndex(0) });
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
    async fn release(&mut self, released: &mut BTreeMap<ClaimLeaf, Instant>) {
        let quarantined: BTreeSet<ClaimLeaf> = self.store.quarantined().into_iter().collect();
        // Stored anew, or removed.
        released.retain(|leaf, _| quarantined.contains(leaf));
        let news = quarantined.into_iter().filter(|leaf| !released.contains_key(leaf));
        let by_steward = self.colleagues.by_steward(news.take(RELEASED_MAX)).await;
        let told: BTreeSet<ClaimLeaf> = self.colleagues.release(by_steward).await.into_keys().collect();
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
