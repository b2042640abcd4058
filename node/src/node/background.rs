//! Slow work on the disk: emptying the trash, compacting record logs, reading all shards once in a while.

use std::{sync::Arc, time::Duration};

use commonhold_protocol::ClaimLeaf;
use commonhold_storage_engine::store::{ShardStore, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{holder::empty_trash, steward::Steward};

/// Between two rounds; less if the trash is to be emptied sooner.
const ROUND_MAX: Duration = Duration::from_secs(30);
const ROUND_MIN: Duration = Duration::from_millis(500);
/// Read and verified in one round: a pledge of 200 GiB is gone through in nine days, at a quarter of a MiB a second.
const SCRUB_BYTES: u64 = 8 << 20;
/// Nothing is forgotten for its age in the first day after a start: until then we may not have heard the news.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Works until `stop`, a little in each round.
pub(super) async fn run(store: Arc<ShardStore>, steward: Arc<Steward>, trash_ms: u64, stop: CancellationToken) {
    let round = Duration::from_millis(trash_ms / 2).clamp(ROUND_MIN, ROUND_MAX);
    let mut scrubbed = None;
    while stop.run_until_cancelled(tokio::time::sleep(round)).await.is_some() {
        let (store, steward) = (store.clone(), steward.clone());
        let work = move || one_round(&store, &steward, trash_ms, scrubbed);
        // A panic in here is logged by the runtime; the next round begins anew.
        scrubbed = tokio::task::spawn_blocking(work).await.unwrap_or_default();
    }
}

fn one_round(store: &ShardStore, steward: &Steward, trash_ms: u64, scrubbed: Option<ClaimLeaf>) -> Option<ClaimLeaf> {
    let clock = steward.clock();
    if clock.is_off() {
        tracing::warn!("our clock is far from that of the other nodes; nothing is removed for its age");
    } else {
        match empty_trash(store, steward, clock.now(), trash_ms) {
            Ok(report) if report.segments > 0 => tracing::info!(?report, "the trash was emptied"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the trash cannot be emptied"),
        }
        if clock.uptime() > FORGET_AFTER
            && let Err(error) = steward.forget_expired(clock.now())
        {
            tracing::warn!(%error, "old tombstones cannot be removed");
        }
    }
    if let Err(error) = steward.records().maintain() {
        tracing::warn!(%error, "the record logs cannot be compacted");
    }
    scrub(store, scrubbed).unwrap_or_else(|error| {
        tracing::warn!(%error, "the shards cannot be gone through");
        None
    })
}

/// Verifies the next few shards behind `after`; gives the last one, none at the end of all. The store quarantines what
/// is damaged.
fn scrub(store: &ShardStore, after: Option<ClaimLeaf>) -> Result<Option<ClaimLeaf>, StoreError> {
    let (mut last, mut bytes) = (None, 0);
    for held in store.held_after(after.as_ref()) {
        let held = held?;
        if let Err(error) = store.verify(held.leaf.segment, held.leaf.index) {
            tracing::warn!(%error, segment = %held.leaf.segment, index = %held.leaf.index, "a shard does not verify");
        }
        last = Some(held.leaf);
        bytes += held.bytes;
        if bytes >= SCRUB_BYTES {
            break;
        }
    }
    Ok(if bytes >= SCRUB_BYTES { last } else { None })
}
