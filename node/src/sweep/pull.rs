//! Holders as a second source: the newest head and lease of each vault whose shards are held here.
//!
//! The stewards of a vault are eight; its holders and the stewards of its segments are many more, and chosen
//! independently. A while after shards of a vault came in, and now and then afterwards, its stewards are asked for heads
//! and lease, which are kept beside ours.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::stewards::STEWARDS;
use commonhold_protocol::{
    VaultId,
    ask::{Request, Response},
};
use tokio::time::Instant;

use super::{PATIENCE, blocking};
use crate::{neighbours::Neighbours, steward::Steward};

/// A put writes its head last: wait for it.
const AFTER_STORE: Duration = Duration::from_secs(30);
/// How often a vault's stewards are asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// The most vaults that are waited for.
const VAULTS_MAX: usize = 4096;
/// Vaults done in one go.
const AT_ONCE_MAX: usize = 32;

/// The vaults whose heads and leases are to be kept, and when to ask for them next.
#[derive(Debug, Default)]
pub struct ServedVaults {
    due: Mutex<BTreeMap<VaultId, Instant>>,
    /// When it was last looked which vaults there are at all.
    filled_at: Mutex<Option<Instant>>,
}

impl ServedVaults {
    /// A shard of this vault is held.
    pub fn serve(&self, vault: VaultId) {
        self.ask_at(vault, Instant::now() + AFTER_STORE);
    }

    fn ask_at(&self, vault: VaultId, soon: Instant) {
        let mut due = self.due();
        if due.len() < VAULTS_MAX || due.contains_key(&vault) {
            let at = due.entry(vault).or_insert(soon);
            *at = (*at).min(soon);
        }
    }

    /// Takes in the vaults of which the disk has something: those that were served before the last start, and those
    /// whose segments' steward we are. Spread over the time between two questions.
    async fn fill(&self, steward: &Arc<Steward>) {
        let now = Instant::now();
        {
            let mut filled_at = self.filled_at.lock().unwrap_or_else(PoisonError::into_inner);
            if filled_at.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER) {
                return;
            }
            *filled_at = Some(now);
        }
        let own = steward.clone();
        match blocking(move || own.vaults()).await {
            Ok(vaults) => {
                // One whose first shard is just coming in may not be listed yet.
                self.due().retain(|vault, at| *at <= now + AFTER_STORE * 2 || vaults.contains(vault));
                for vault in vaults {
                    self.ask_at(vault, now + AGAIN_AFTER.mul_f64(rand::random()));
                }
            }
            Err(error) => tracing::warn!(%error, "the vaults that are served cannot be listed"),
        }
    }

    fn due(&self) -> MutexGuard<'_, BTreeMap<VaultId, Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for those that are due.
    pub(super) async fn pull_due(&self, peer: &Peer, steward: &Arc<Steward>, neighbours: &Neighbours) {
        self.fill(steward).await;
        let now = Instant::now();
        let due: Vec<VaultId> = {
            let mut waiting = self.due();
            let due = waiting.iter().filter(|(_, at)| **at <= now).map(|(vault, _)| *vault);
            let due: Vec<VaultId> = due.take(AT_ONCE_MAX).collect();
            for vault in &due {
                waiting.insert(*vault, now + AGAIN_AFTER);
            }
            due
        };
        for vault in due {
            pull(peer, steward, neighbours, vault).await;
        }
    }
}

/// Asks all of the vault's stewards: one that has the newest head is enough, and some may lie or lag.
async fn pull(peer: &Peer, steward: &Arc<Steward>, neighbours: &Neighbours, vault: VaultId) {
    let Ok(closest) = peer.closest(*vault.as_bytes()).await else { return };
    let asked = closest.into_iter().map(|contact| contact.node).filter(|node| *node != peer.node_id()).take(STEWARDS);
    let asks = asked.map(|node| async move { (node, peer.ask(node, Request::FetchHeads { vault }, PATIENCE).await) });
    for (node, answer) in futures::future::join_all(asks).await {
        let Ok(Response::Heads { heads, lease }) = answer else { continue };
        let (own, sender) = (steward.clone(), neighbours.sender(node));
        blocking(move || {
            own.keep_lease_beside(&sender, lease);
            for head in heads {
                own.answer(&sender, Request::KeepHead { head, lease: None });
            }
        })
        .await;
    }
}
