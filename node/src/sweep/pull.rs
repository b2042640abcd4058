//! Holders as a second source: the newest head and lease of each vault whose shards are held here.
//!
//! The stewards of a vault are eight; its holders are many more, and chosen independently. A while after shards of a
//! vault came in, and now and then afterwards, its stewards are asked for heads and lease, which are kept beside ours.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commonhold_network::Peer;
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
/// Stewards asked each time, and answers with a head that are enough: two guard against one that lags.
const ASKED_MAX: usize = 3;
const ANSWERS_ENOUGH: usize = 2;
/// The most vaults that are waited for.
const VAULTS_MAX: usize = 4096;
/// Vaults done in one go.
const AT_ONCE_MAX: usize = 32;

/// The vaults whose heads and leases are to be kept, and when to ask for them next.
#[derive(Debug, Default)]
pub struct ServedVaults(Mutex<BTreeMap<VaultId, Instant>>);

impl ServedVaults {
    /// A shard of this vault is held.
    pub fn serve(&self, vault: VaultId) {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if due.len() < VAULTS_MAX || due.contains_key(&vault) {
            let soon = Instant::now() + AFTER_STORE;
            let at = due.entry(vault).or_insert(soon);
            *at = (*at).min(soon);
        }
    }

    /// Asks for those that are due.
    pub(super) async fn pull_due(&self, peer: &Peer, steward: &Arc<Steward>, neighbours: &Neighbours) {
        let now = Instant::now();
        let due: Vec<VaultId> = {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

async fn pull(peer: &Peer, steward: &Arc<Steward>, neighbours: &Neighbours, vault: VaultId) {
    let Ok(closest) = peer.closest(*vault.as_bytes()).await else { return };
    let mut answers = 0;
    for contact in closest.into_iter().take(ASKED_MAX) {
        let answer = peer.ask(contact.node, Request::FetchHeads { vault }, PATIENCE).await;
        let Ok(Response::Heads { heads, lease }) = answer else { continue };
        answers += usize::from(!heads.is_empty());
        let (own, sender) = (steward.clone(), neighbours.sender(contact.node));
        blocking(move || {
            own.keep_lease_beside(&sender, lease);
            for head in heads {
                own.answer(&sender, Request::KeepHead { head, lease: None });
            }
        })
        .await;
        if answers >= ANSWERS_ENOUGH {
            return;
        }
    }
}
