//! Leases: the newest one of each vault, whoever brings it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{MutexGuard, PoisonError},
};

use commonhold_policy::leases::{self, LeaseRefusal};
use commonhold_protocol::{
    Lease, NodeId, SegmentId, Unverified, VaultId, Verified,
    ask::{Outcome, Refusal},
};

use super::{Sender, Steward, TAG_UNPROVEN, TAG_WANTED};
use crate::{
    auditor::News,
    records::{COMMIT_CHANGES_MAX, Change, Committed, ENTRY_BYTES, Kind, RecordsError, Summary},
};

/// Leases that came along and need not be looked at again.
const SEEN_LEASES_MAX: usize = 128;
/// (Node, vault) pairs of which we remember what we told; beyond it all are told again.
const TOLD_MAX: usize = 16 << 10;
/// Entries looked at in one step.
const PAGE: usize = 256;

/// A lease that a node has not heard from us.
#[derive(Debug)]
pub(crate) struct UntoldLease {
    vault: VaultId,
    sequence: u64,
    pub(crate) lease: Unverified<Lease>,
}

impl Steward {
    fn seen_leases(&self) -> MutexGuard<'_, VecDeque<[u8; 32]>> {
        self.seen_leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, BTreeSet<VaultId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told_leases(&self) -> MutexGuard<'_, BTreeMap<(NodeId, VaultId), u64>> {
        self.told_leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep_lease(&self, sender: &Sender, lease: Unverified<Lease>) -> Outcome {
        let lease = self.verifier.verify(lease).map_err(|_| Refusal::Invalid)?;
        let mut renewed = false;
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
            renewed = true;
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
        if kept.is_ok() && renewed {
            // Until the next look at all leases, which knows better.
            self.ended().remove(&lease.vault);
        }
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

    /// The lease of a vault, if it runs.
    pub(crate) fn running_lease(&self, vault: &VaultId) -> Option<Unverified<Lease>> {
        let lease = self.verifier.verify(self.kept_lease(vault).ok()??).ok()?;
        (lease.valid_until > self.clock.now()).then(|| lease.to_unverified())
    }

    /// Those leases of `vaults` that run and that `node` has not heard from us.
    pub(crate) fn untold_leases(&self, node: NodeId, vaults: &BTreeSet<VaultId>) -> Vec<UntoldLease> {
        let untold = vaults.iter().filter_map(|vault| {
            let sequence = self.records.summary(Kind::Lease, vault.as_bytes()).ok()??.sequence;
            if self.told_leases().get(&(node, *vault)) == Some(&sequence) {
                return None;
            }
            Some(UntoldLease { vault: *vault, sequence, lease: self.running_lease(vault)? })
        });
        untold.collect()
    }

    /// A node has heard of it now.
    pub(crate) fn told_lease(&self, node: NodeId, told: UntoldLease) {
        let mut leases = self.told_leases();
        if leases.len() >= TOLD_MAX {
            leases.clear();
        }
        leases.insert((node, told.vault), told.sequence);
    }

    /// The newest leases of those vaults whose lease and its grace are over. Forgets leases that ended so long ago that
    /// nobody waits for a word on them any more.
    pub(crate) fn ended_leases(&self, grace_ms: u64) -> Result<Vec<Verified<Lease>>, RecordsError> {
        let now = self.clock.now();
        let mut ended = Vec::new();
        self.each_page(Kind::Lease, |page| {
            for summary in page {
                let vault = VaultId::from_bytes(summary.key);
                let Some(lease) = self.kept_lease(&vault)?.and_then(|lease| self.verifier.verify(lease).ok()) else {
                    continue;
                };
                let nothing_else = self.admission().bytes_of(&vault) <= summary.bytes;
                if nothing_else && leases::is_over(Some(&lease), now, grace_ms.saturating_add(leases::REMEMBER_MS)) {
                    self.forget(Kind::Lease, vec![(*summary, vault)])?;
                } else if leases::is_over(Some(&lease), now, grace_ms) {
                    ended.push(lease);
                }
            }
            Ok(true)
        })?;
        Ok(ended)
    }

    /// Of these vaults nothing new is taken, and nothing is audited or repaired.
    pub(crate) fn set_ended(&self, vaults: BTreeSet<VaultId>) {
        *self.ended() = vaults;
    }

    /// True if a vault's lease and its grace are over, as far as we know.
    pub(crate) fn has_ended(&self, vault: &VaultId) -> bool {
        self.ended().contains(vault)
    }

    /// True if more than its lease is kept of a vault.
    pub(crate) fn keeps_records_of(&self, vault: &VaultId) -> bool {
        let lease = self.records.summary(Kind::Lease, vault.as_bytes()).ok().flatten();
        self.admission().bytes_of(vault) > lease.map_or(0, |lease| lease.bytes)
    }

    /// Some segments of a vault whose records are kept.
    pub(crate) fn segments_of(&self, vault: &VaultId, count_max: usize) -> Result<Vec<SegmentId>, RecordsError> {
        let mut found = Vec::new();
        self.each_page(Kind::Segment, |page| {
            for summary in page {
                if self.records.owner(Kind::Segment, &summary.key)? == Some(*vault) {
                    found.push(SegmentId::from_bytes(summary.key));
                }
            }
            Ok(found.len() < count_max)
        })?;
        found.truncate(count_max);
        Ok(found)
    }

    /// Forgets all that is kept of a vault but its lease, which is the word that others wait for; says how many entries.
    pub(crate) fn forget_vault(&self, vault: &VaultId) -> Result<usize, RecordsError> {
        let mut forgotten = 0;
        for kind in [Kind::Segment, Kind::Heads, Kind::Drop] {
            self.each_page(kind, |page| {
                let mut gone = Vec::new();
                for summary in page {
                    if self.records.owner(kind, &summary.key)? == Some(*vault) {
                        gone.push((*summary, *vault));
                    }
                }
                forgotten += self.forget(kind, gone)?;
                Ok(true)
            })?;
        }
        Ok(forgotten)
    }

    /// Removes entries, unless they have changed since; says how many.
    pub(crate) fn forget(&self, kind: Kind, gone: Vec<(Summary, VaultId)>) -> Result<usize, RecordsError> {
        let mut forgotten = 0;
        for gone in gone.chunks(COMMIT_CHANGES_MAX) {
            let removal = |(Summary { key, tag, sequence, .. }, owner): &(Summary, VaultId)| Change {
                kind,
                key: *key,
                owner: *owner,
                tag: *tag,
                body: None,
                expected: Some(*sequence),
            };
            let changes: Vec<Change> = gone.iter().map(removal).collect();
            let done = self.records.commit(&changes)?;
            for ((summary, owner), done) in gone.iter().zip(done) {
                if let Committed::Done { .. } = done {
                    let mut admission = self.admission();
                    admission.forget(*owner, summary.bytes);
                    if kind == Kind::Segment && summary.tag == TAG_UNPROVEN {
                        admission.count_unproven(-(summary.bytes as i64));
                    }
                    drop(admission);
                    forgotten += 1;
                    if kind == Kind::Segment
                        && let Some(auditor) = self.auditor.get()
                    {
                        let segment = SegmentId::from_bytes(summary.key);
                        auditor.tell(News::Record { segment, from: None });
                    }
                }
            }
        }
        Ok(forgotten)
    }

    /// Goes through all entries of a kind, page by page, while `visit` wants more.
    pub(crate) fn each_page(
        &self,
        kind: Kind,
        mut visit: impl FnMut(&[Summary]) -> Result<bool, RecordsError>,
    ) -> Result<(), RecordsError> {
        let mut after: Option<[u8; 32]> = None;
        loop {
            let page = self.records.list(kind, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key);
            if !visit(&page)? {
                return Ok(());
            }
        }
    }
}
