//! What a node takes from strangers: limits per vault and per sending domain, before anything is written.

use std::collections::BTreeMap;

use commonhold_protocol::{Coding, Drop, Manifest, ShardIndex, Timestamp, VaultId, ask::Refusal};

use crate::{Domain, drops, segment_health::Counters};

/// One vault may use at most one part in this many of a steward's space for records.
pub const VAULT_PARTS: u64 = 4;
/// One domain may send at most one part in this many of that space as new records within [`WINDOW_MS`]: it takes a
/// flood hours to fill a steward, and the limit falls on its sender alone.
pub const DOMAIN_PARTS: u64 = 4;
/// The time over which a domain's new records are counted.
pub const WINDOW_MS: u64 = 60 * 60 * 1000;
/// The most domains whose sending is counted at once. Beyond it the oldest window is closed early, which favours its
/// sender by at most one more part; an attacker with as many domains needs no such favour.
pub const DOMAINS_MAX: usize = 4096;

/// Whether a holder takes a shard: it must exist according to the manifest, and be wanted. Its root is compared as
/// the bytes arrive, its length is the manifest's, and space is the store's business.
pub fn admit_shard(manifest: &Manifest, index: ShardIndex, newest_drop: Option<&Drop>) -> Result<(), Refusal> {
    let ours = newest_drop.filter(|drop| drop.vault == manifest.vault && drop.segments.contains(&manifest.id()));
    if manifest.root(index).is_none() {
        Err(Refusal::Invalid)
    } else if drops::is_dropped(ours) {
        Err(Refusal::Dropped)
    } else {
        Ok(())
    }
}

/// How long the claims of a new record may take to prove themselves.
pub const PROVE_MS: u64 = 60 * 60 * 1000;

/// What a steward does with a record that it has not kept before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewRecord {
    /// At least k of its shards were audited: it can be restored, so it is worth keeping.
    Keep,
    /// Audit its claims until then.
    Wait {
        /// When the time is over.
        until: Timestamp,
    },
    /// Forget it: records of made-up vaults cost nothing to sign, shards do.
    Forget,
}

/// Whether a record of `coding` that came at `since` is kept, by its audits so far; `within_ms` is [`PROVE_MS`] but in
/// tests. A record that comes from a fellow steward whose holders happen to sleep is forgotten too: it is offered again
/// with the next sweep.
pub fn new_record(now: Timestamp, since: Timestamp, within_ms: u64, coding: Coding, counters: Counters) -> NewRecord {
    let until = since.after_ms(within_ms);
    if counters.healthy >= coding.k() {
        NewRecord::Keep
    } else if now < until && counters.standing() >= coding.k() {
        NewRecord::Wait { until }
    } else {
        NewRecord::Forget
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    opened_at: Timestamp,
    bytes: u64,
}

/// Counts a steward's records against its limits.
#[derive(Debug, Clone)]
pub struct RecordAdmission {
    bytes_max: u64,
    bytes: u64,
    vaults: BTreeMap<VaultId, u64>,
    domains: BTreeMap<Domain, Window>,
}

impl RecordAdmission {
    /// Nothing kept yet, at most `bytes_max` to be kept (`[pledge] records`).
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, vaults: BTreeMap::new(), domains: BTreeMap::new() }
    }

    /// Bytes of records in all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of what is kept of one vault.
    pub fn bytes_of(&self, vault: &VaultId) -> u64 {
        self.vaults.get(vault).copied().unwrap_or(0)
    }

    /// Counts a record that is on disk already, without judging it.
    pub fn count(&mut self, vault: VaultId, bytes: u64) {
        let kept = self.vaults.entry(vault).or_default();
        *kept = kept.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes back what [`Self::count`] or [`Self::admit`] counted.
    pub fn forget(&mut self, vault: VaultId, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(kept) = self.vaults.get_mut(&vault) {
            *kept = kept.saturating_sub(bytes);
            if *kept == 0 {
                self.vaults.remove(&vault);
            }
        }
    }

    /// Whether a record of `vault` may grow from `before` bytes (0: it is new) to `after`, sent from `sender`; counted
    /// if so. What does not grow is always taken: a drop must get through to a full steward.
    pub fn admit(
        &mut self,
        now: Timestamp,
        sender: &Domain,
        vault: VaultId,
        before: u64,
        after: u64,
    ) -> Result<(), Refusal> {
        let Some(growth) = after.checked_sub(before).filter(|growth| *growth > 0) else {
            self.forget(vault, before - after);
            return Ok(());
        };
        let vault_bytes = self.vaults.get(&vault).copied().unwrap_or(0);
        let sent = self.sent_by(sender, now);
        if self.bytes.saturating_add(growth) > self.bytes_max {
            Err(Refusal::RecordLimit)
        } else if vault_bytes.saturating_add(growth) > self.bytes_max / VAULT_PARTS {
            Err(Refusal::VaultLimit)
        } else if sent.bytes.saturating_add(growth) > self.bytes_max / DOMAIN_PARTS {
            Err(Refusal::Busy)
        } else {
            self.count(vault, growth);
            let window = Window { bytes: sent.bytes + growth, ..sent };
            if self.domains.insert(sender.clone(), window).is_none() && self.domains.len() > DOMAINS_MAX {
                let oldest = self.domains.iter().min_by_key(|(_, window)| window.opened_at);
                if let Some(oldest) = oldest.map(|(domain, _)| domain.clone()) {
                    self.domains.remove(&oldest);
                }
            }
            Ok(())
        }
    }

    fn sent_by(&self, sender: &Domain, now: Timestamp) -> Window {
        let open = self.domains.get(sender).filter(|window| now.ms_since(window.opened_at) < WINDOW_MS);
        open.copied().unwrap_or(Window { opened_at: now, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1_000;
    const NOW: Timestamp = Timestamp(1_000_000);

    fn vault(number: u8) -> VaultId {
        VaultId::from_bytes([number; 32])
    }

    fn domain(number: u32) -> Domain {
        Domain::new(number.to_string())
    }

    #[test]
    fn a_new_record_is_kept_once_k_of_its_shards_were_audited_within_the_hour() {
        let coding = Coding::new(4, 8).unwrap();
        let judge = |at, healthy, suspect| {
            let counters = Counters { healthy, suspect, ..Counters::default() };
            new_record(NOW.after_ms(at), NOW, PROVE_MS, coding, counters)
        };
        let until = NOW.after_ms(PROVE_MS);
        assert_eq!(judge(0, 0, 8), NewRecord::Wait { until });
        assert_eq!(judge(PROVE_MS - 1, 3, 1), NewRecord::Wait { until });
        assert_eq!(judge(1, 4, 0), NewRecord::Keep);
        assert_eq!(judge(PROVE_MS, 3, 5), NewRecord::Forget, "the hour is over");
        assert_eq!(judge(1, 0, 3), NewRecord::Forget, "too many claims have failed already");
    }

    #[test]
    fn one_vault_cannot_fill_a_steward() {
        let mut admission = RecordAdmission::new(MAX);
        assert_eq!(admission.admit(NOW, &domain(1), vault(1), 0, MAX / VAULT_PARTS), Ok(()));
        assert_eq!(admission.admit(NOW, &domain(2), vault(1), 0, 1), Err(Refusal::VaultLimit));
        assert_eq!(admission.admit(NOW, &domain(2), vault(2), 0, 1), Ok(()));
    }

    #[test]
    fn one_domain_cannot_fill_a_steward_with_many_vaults_within_an_hour() {
        let mut admission = RecordAdmission::new(MAX);
        for number in 0..10 {
            assert_eq!(admission.admit(NOW, &domain(1), vault(number), 0, MAX / DOMAIN_PARTS / 10), Ok(()));
        }
        assert_eq!(admission.admit(NOW, &domain(1), vault(10), 0, 1), Err(Refusal::Busy));
        assert_eq!(admission.admit(NOW, &domain(2), vault(10), 0, 1), Ok(()));
        assert_eq!(admission.admit(NOW.after_ms(WINDOW_MS), &domain(1), vault(10), 0, 1), Ok(()));
    }

    #[test]
    fn a_full_steward_takes_nothing_new_but_still_takes_what_shrinks() {
        let mut admission = RecordAdmission::new(MAX);
        admission.count(vault(1), MAX);
        assert_eq!(admission.admit(NOW, &domain(1), vault(2), 0, 1), Err(Refusal::RecordLimit));
        assert_eq!(admission.admit(NOW, &domain(1), vault(1), 600, 100), Ok(()));
        assert_eq!(admission.bytes(), 500);
        assert_eq!(admission.admit(NOW, &domain(1), vault(2), 0, 1), Ok(()));
        admission.forget(vault(1), 500);
        admission.forget(vault(2), 1);
        assert_eq!((admission.bytes(), admission.vaults.len()), (0, 0));
    }

    #[test]
    fn the_memory_of_senders_is_bounded() {
        let mut admission = RecordAdmission::new(u64::MAX);
        for number in 0..DOMAINS_MAX as u32 + 10 {
            let now = NOW.after_ms(u64::from(number));
            assert_eq!(admission.admit(now, &domain(number), vault(1), 0, 1), Ok(()));
        }
        assert_eq!(admission.domains.len(), DOMAINS_MAX);
        assert!(!admission.domains.contains_key(&domain(0)));
    }
}
