//! Slow work on the disk: emptying the trash, compacting record logs.

use std::{sync::Arc, time::Duration};

use commonhold_storage_engine::store::ShardStore;
use tokio_util::sync::CancellationToken;

use crate::{holder::empty_trash, steward::Steward};

/// Between two rounds; less if the trash is to be emptied sooner.
const ROUND_MAX: Duration = Duration::from_secs(30);
const ROUND_MIN: Duration = Duration::from_millis(500);

/// Works until `stop`, a little in each round. `time_is_doubtful`: how long something has been in the trash cannot be told.
pub(super) async fn run(
    store: Arc<ShardStore>,
    steward: Arc<Steward>,
    trash_ms: u64,
    time_is_doubtful: impl Fn() -> bool,
    stop: CancellationToken,
) {
    let round = Duration::from_millis(trash_ms / 2).clamp(ROUND_MIN, ROUND_MAX);
    while stop.run_until_cancelled(tokio::time::sleep(round)).await.is_some() {
        let (store, steward) = (store.clone(), steward.clone());
        let trash_ms = (!time_is_doubtful()).then_some(trash_ms);
        // A panic in here is logged by the runtime; the next round begins anew.
        let _ = tokio::task::spawn_blocking(move || one_round(&store, &steward, trash_ms)).await;
    }
}

fn one_round(store: &ShardStore, steward: &Steward, trash_ms: Option<u64>) {
    if let Some(trash_ms) = trash_ms {
        match empty_trash(store, steward, steward.clock().now(), trash_ms) {
            Ok(report) if report.segments > 0 => tracing::info!(?report, "the trash was emptied"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the trash cannot be emptied"),
        }
    }
    if let Err(error) = steward.records().maintain() {
        tracing::warn!(%error, "the record logs cannot be compacted");
    }
}
