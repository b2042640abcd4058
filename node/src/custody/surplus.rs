//! Shards that another node keeps by now, after we came back from being lost or a partition healed: given up by the
//! rules of [`commonhold_policy::surplus`].

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use commonhold_policy::surplus::may_release;
use commonhold_protocol::{ClaimLeaf, NodeId};
use commonhold_storage_engine::store::{Held, ShardStore};

use super::{CustodyFigures, announce::Heard, colleagues::Colleagues};
use crate::auditor::proves;

/// Gives up those that most of their stewards call surplus, and whose keeper proves to us that it keeps them.
pub(super) async fn give_up(
    colleagues: &Colleagues,
    store: &Arc<ShardStore>,
    figures: &CustodyFigures,
    heard: BTreeMap<ClaimLeaf, Heard>,
    held: &BTreeMap<ClaimLeaf, Held>,
) {
    let own = colleagues.own();
    for (leaf, Heard { stewards, surplus, .. }) in heard {
        let Some((keeper, call_it_surplus)) = named_most(&surplus) else { continue };
        if keeper == own.peer.node_id() || !may_release(call_it_surplus, stewards.len(), true) {
            continue;
        }
        let (from, index) = (store.clone(), leaf);
        let read = tokio::task::spawn_blocking(move || from.manifest(index.segment, index.index)).await;
        let Ok(Ok(manifest)) = read else { continue };
        let Ok(manifest) = own.steward.verifier().verify(manifest) else { continue };
        let Some(_yielding) = own.holder.yield_up(leaf) else { continue };
        let proved = proves(&own.peer, own.steward.verifier().network(), &manifest, leaf.index, keeper).await;
        if !may_release(call_it_surplus, stewards.len(), proved) {
            tracing::debug!(segment = %leaf.segment, index = %leaf.index, %keeper, "a keeper does not prove its shard");
            continue;
        }
        let total = stewards.len();
        let by_steward = stewards.into_iter().map(|node| (node, vec![leaf])).collect();
        let released = colleagues.release(by_steward).await;
        // One that has not heard of it would look for the shard here, and blame us for it.
        let heard_by = released.get(&leaf).map_or(0, std::collections::BTreeSet::len);
        if heard_by * 2 <= total {
            continue;
        }
        match own.holder.give_up(leaf).await {
            Ok(removed) => {
                let bytes = held.get(&leaf).map_or(0, |held| held.bytes);
                tracing::info!(segment = %leaf.segment, index = %leaf.index, %keeper, "a shard that is held twice is given up");
                figures.surplus_released.fetch_add(removed as u64, Relaxed);
                figures.surplus_bytes.fetch_add(bytes, Relaxed);
            }
            Err(error) => tracing::warn!(%error, "a shard cannot be given up"),
        }
    }
}

/// The keeper that most stewards name, and how many do.
fn named_most(surplus: &[(NodeId, NodeId)]) -> Option<(NodeId, usize)> {
    let mut named: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (_, keeper) in surplus {
        *named.entry(*keeper).or_default() += 1;
    }
    named.into_iter().max_by_key(|(_, times)| *times)
}
