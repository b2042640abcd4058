//! Leases: the newest one of each vault, whoever brings it.

use std::{
    collections::VecDeque,
    sync::{MutexGuard, PoisonError},
};

use commonhold_policy::leases::{self, LeaseRefusal};
use commonhold_protocol::{
    Lease, Unverified, VaultId,
    ask::{Outcome, Refusal},
};

use super::{Sender, Steward, TAG_WANTED};
use crate::records::{Change, ENTRY_BYTES, Kind, RecordsError};

/// Leases that came along and need not be looked at again.
const SEEN_LEASES_MAX: usize = 128;

impl Steward {
    fn seen_leases(&self) -> MutexGuard<'_, VecDeque<[u8; 32]>> {
        self.seen_leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep_lease(&self, sender: &Sender, lease: Unverified<Lease>) -> Outcome {
        let lease = self.verifier.verify(lease).map_err(|_| Refusal::Invalid)?;
        let kept = self.change_one(sender, || {
            let before = match self.records.get(Kind::Lease, lease.vault.as_bytes()) {
                Err(RecordsError::Damaged { .. }) => None,
                kept => kept?,
            };
            let mut newest = before
                .as_ref()
                .and_then(|kept| Unverified::from_bytes(kept.body.clone().into()).ok())
                .and_then(|kept: Unverified<Lease>| self.verifier.verify(kept).ok());
            let changed = leases::merge(&mut newest, lease.clone()).map_err(|refused| match refused {
                LeaseRefusal::OtherVault => Refusal::Invalid,
                LeaseRefusal::Outdated => Refusal::Outdated,
            })?;
            if !changed {
                return Ok(None);
            }
            let change = Change {
                kind: Kind::Lease,
                key: *lease.vault.as_bytes(),
                owner: lease.vault,
                tag: TAG_WANTED,
                body: Some(lease.to_bytes().to_vec()),
                expected: before.as_ref().map(|kept| kept.sequence),
            };
            Ok(Some((change, before.map_or(0, |kept| kept.body.len() as u64 + ENTRY_BYTES))))
        });
        kept.map_err(|error| error.refusal())
    }

    /// A lease that came along with something else: kept if it is newer; nobody waits for its outcome.
    pub(crate) fn keep_lease_beside(&self, sender: &Sender, lease: Option<Unverified<Lease>>) {
        let Some(lease) = lease else { return };
        // Each shard of a put brings the same one: a hash costs a hundredth of a signature.
        let hash = *blake3::hash(&lease.to_bytes()).as_bytes();
        if self.seen_leases().contains(&hash) {
            return;
        }
        match self.keep_lease(sender, lease) {
            Ok(()) | Err(Refusal::Outdated) => {
                let mut seen = self.seen_leases();
                seen.push_back(hash);
                if seen.len() > SEEN_LEASES_MAX {
                    seen.pop_front();
                }
            }
            Err(refusal) => tracing::debug!(%refusal, from = %sender.node, "a lease that came along is not kept"),
        }
    }

    pub(super) fn kept_lease(&self, vault: &VaultId) -> Result<Option<Unverified<Lease>>, RecordsError> {
        match self.records.get(Kind::Lease, vault.as_bytes()) {
            Err(RecordsError::Damaged { .. }) => Ok(None),
            kept => Ok(kept?.and_then(|kept| Unverified::from_bytes(kept.body.into()).ok())),
        }
    }
}
