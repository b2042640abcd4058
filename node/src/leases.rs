//! Leases travel along: whoever is sent records of a vault, or is audited for shards of it, hears of its newest lease
//! first, unless we told it before. So a vault's stewards are not the only ones who know until when it is kept.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use commonhold_network::Peer;
use commonhold_protocol::{NodeId, VaultId, ask::Request};

use crate::steward::Steward;

/// Nothing waits for it for longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells a node the leases of these vaults that it has not heard from us.
pub(crate) async fn carry(peer: &Peer, steward: &Arc<Steward>, to: NodeId, vaults: BTreeSet<VaultId>) {
    let own = steward.clone();
    let Ok(news) = tokio::task::spawn_blocking(move || own.untold_leases(to, &vaults)).await else { return };
    for untold in news {
        let request = Request::KeepLease { lease: untold.lease.clone() };
        if peer.ask(to, request, PATIENCE).await.is_err() {
            return;
        }
        steward.told_lease(to, untold);
    }
}
