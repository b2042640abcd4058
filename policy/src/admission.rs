//! What a node takes from strangers: limits per vault and per sending domain, before anything is written.

use std::collections::BTreeMap;

use commonhold_protocol::{Coding, Drop, Manifest, ShardIndex, Timestamp, VaultId, ask::Refusal};

use crate::{Domain, drops, segment_health::Counters};

/// One vault may use at most one part in this many of a steward's space for records.
pub const VAULT_PARTS: u64 = 4;
/// One domain may send at most one part in this many of that space as new records within [`WINDOW_MS`]: it takes a
/// flood hours to fill a steward, and the limit falls on its sender alone.
pub const DOMAIN_PARTS: u64 = 4;
/// Records that have not proven themselves may use at most one part in this many: however many domains they come from,
/// there is room for what repairs and fellow stewards bring of those that have.
pub const UNPROVEN_PARTS: u64 = 2;
/// Of what one domain brings, the first so many bytes within [`WINDOW_MS`] are told to other stewards at once, the records
/// of some eight full segments; the rest only once it has proven itself. Made-up records cost hardly anything, and would
/// cost all stewards what they cost the one to whom they are brought.
pub const TOLD_BYTES_MAX: u64 = 64 << 10;
/// The time over which a domain's new records are counted.
pub const WINDOW_MS: u64 = 60 * 60 * 1000;
/// No record is shorter.
const RECORD_BYTES_LEAST: u64 = 256;
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
    /// Audit its claims until then, those that are still to come too.
    Wait {
        /// When the time is over.
        until: Timestamp,
    },
    /// Forget it: records of made-up vaults cost nothing to sign, shards do.
    Forget,
}

/// Whether a record of `coding` that came at `since` is kept, by its audits so far; `within_ms` is [`PROVE_MS`] but in
/// tests. That many claims failed early on says nothing: whoever hears of a segment first can bring false ones, and the
/// true ones follow. A record that comes from a fellow steward whose holders happen to sleep is forgotten too: it is
/// offered again with the next sweep.
pub fn new_record(now: Timestamp, since: Timestamp, within_ms: u64, coding: Coding, counters: Counters) -> NewRecord {
    let until = since.after_ms(within_ms);
    if counters.healthy >= coding.k() {
        NewRecord::Keep
    } else if now < until {
        NewRecord::Wait { until }
    } else {
        NewRecord::Forget
    }
}

/// What is asked of a steward's space for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of the entry before; 0: it is new.
    pub before: u64,
    /// Bytes of it afterwards.
    pub after: u64,
    /// By how much more, or less, is then taken by records that have not proven themselves.
    pub unproven: i64,
}

impl Growth {
    /// Of an entry that needs no proof.
    pub fn proven(before: u64, after: u64) -> Self {
        Self { before, after, unproven: 0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    opened_at: Timestamp,
    bytes: u64,
}

/// What each domain sent within a time.
#[derive(Debug, Clone)]
struct Sent {
    window_ms: u64,
    domains: BTreeMap<Domain, Window>,
}

impl Sent {
    fn new(window_ms: u64) -> Self {
        Self { window_ms, domains: BTreeMap::new() }
    }

    fn by(&self, sender: &Domain, now: Timestamp) -> Window {
        let open = self.domains.get(sender).filter(|window| now.ms_since(window.opened_at) < self.window_ms);
        open.copied().unwrap_or(Window { opened_at: now, bytes: 0 })
    }

    fn count(&mut self, sender: &Domain, now: Timestamp, bytes: u64) {
        let sent = self.by(sender, now);
        let window = Window { bytes: sent.bytes.saturating_add(bytes), ..sent };
        if self.domains.insert(sender.clone(), window).is_none() && self.domains.len() > DOMAINS_MAX {
            let oldest = self.domains.iter().min_by_key(|(_, window)| window.opened_at);
            if let Some(oldest) = oldest.map(|(domain, _)| domain.clone()) {
                self.domains.remove(&oldest);
            }
        }
    }
}

/// One domain may place at most one part in this many of a pledge within [`SHARD_WINDOW_MS`], or as much as one vault
/// may place at all if that is more: vaults are made up for nothing, networks are not.
pub const SHARD_DOMAIN_PARTS: u64 = 8;
/// The time over which the shards of a domain are counted.
pub const SHARD_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// Counts a holder's new shards against the limits of those who send them.
#[derive(Debug, Clone)]
pub struct ShardAdmission {
    bytes_max: u64,
    sent: Sent,
}

impl ShardAdmission {
    /// For a pledge of so many bytes, of which one vault may use `vault_bytes_max`.
    pub fn new(pledge_bytes: u64, vault_bytes_max: u64) -> Self {
        let bytes_max = (pledge_bytes / SHARD_DOMAIN_PARTS).max(vault_bytes_max);
        Self { bytes_max, sent: Sent::new(SHARD_WINDOW_MS) }
    }

    /// Whether `sender` may place so many bytes more; counted if so.
    pub fn admit(&mut self, now: Timestamp, sender: &Domain, bytes: u64) -> Result<(), Refusal> {
        if self.sent.by(sender, now).bytes.saturating_add(bytes) > self.bytes_max {
            return Err(Refusal::Busy);
        }
        self.sent.count(sender, now, bytes);
        Ok(())
    }
}

/// Counts a steward's records against its limits.
#[derive(Debug, Clone)]
pub struct RecordAdmission {
    bytes_max: u64,
    bytes: u64,
    unproven: u64,
    vaults: BTreeMap<VaultId, u64>,
    sent: Sent,
}

impl RecordAdmission {
    /// Nothing kept yet, at most `bytes_max` to be kept (`[pledge] records`).
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, unproven: 0, vaults: BTreeMap::new(), sent: Sent::new(WINDOW_MS) }
    }

    /// Bytes of records in all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of what is kept of one vault.
    pub fn bytes_of(&self, vault: &VaultId) -> u64 {
        self.vaults.get(vault).copied().unwrap_or(0)
    }

    /// Bytes of records that have not proven themselves.
    pub fn unproven(&self) -> u64 {
        self.unproven
    }

    /// Counts so many bytes more, or less, as not proven.
    pub fn count_unproven(&mut self, bytes: i64) {
        self.unproven = self.unproven.saturating_add_signed(bytes);
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

    /// Whether a record of `vault` may grow so, as `sender` wants it; counted if so. What does not grow is always taken:
    /// a drop must get through to a full steward.
    pub fn admit(
        &mut self,
        now: Timestamp,
        sender: &Domain,
        vault: VaultId,
        Growth { before, after, unproven }: Growth,
    ) -> Result<(), Refusal> {
        let Some(growth) = after.checked_sub(before).filter(|growth| *growth > 0) else {
            self.forget(vault, before - after);
            self.count_unproven(unproven);
            return Ok(());
        };
        let vault_bytes = self.vaults.get(&vault).copied().unwrap_or(0);
        let trials_full =
            unproven > 0 && self.unproven.saturating_add_signed(unproven) > self.bytes_max / UNPROVEN_PARTS;
        let sender_full = self.sent.by(sender, now).bytes.saturating_add(growth) > self.bytes_max / DOMAIN_PARTS;
        if self.bytes.saturating_add(growth) > self.bytes_max {
            Err(Refusal::RecordLimit)
        } else if vault_bytes.saturating_add(growth) > self.bytes_max / VAULT_PARTS {
            Err(Refusal::VaultLimit)
        } else if trials_full || sender_full {
            Err(Refusal::Busy)
        } else {
            self.count(vault, growth);
            self.count_unproven(unproven);
            self.sent.count(sender, now, growth);
            Ok(())
        }
    }

    /// Whether what `sender` brings now is told to other stewards before it has proven itself.
    pub fn is_told(&self, now: Timestamp, sender: &Domain) -> bool {
        self.sent.by(sender, now).bytes <= TOLD_BYTES_MAX
    }

    /// True if nothing new is taken of `sender` now, whatever it is: there is no need to look at it.
    pub fn is_used_up(&self, now: Timestamp, sender: &Domain) -> bool {
        self.sent.by(sender, now).bytes.saturating_add(RECORD_BYTES_LEAST) > self.bytes_max / DOMAIN_PARTS
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
        assert_eq!(judge(1, 0, 3), NewRecord::Wait { until }, "others may bring better claims");
        assert_eq!(judge(PROVE_MS, 3, 5), NewRecord::Forget, "the hour is over");
    }

    #[test]
    fn one_vault_cannot_fill_a_steward() {
        let mut admission = RecordAdmission::new(MAX);
        assert_eq!(admission.admit(NOW, &domain(1), vault(1), Growth::proven(0, MAX / VAULT_PARTS)), Ok(()));
        assert_eq!(admission.admit(NOW, &domain(2), vault(1), Growth::proven(0, 1)), Err(Refusal::VaultLimit));
        assert_eq!(admission.admit(NOW, &domain(2), vault(2), Growth::proven(0, 1)), Ok(()));
    }

    #[test]
    fn of_what_a_domain_brings_within_an_hour_the_first_is_told_to_others_before_it_is_proven() {
        let mut admission = RecordAdmission::new(1 << 30);
        assert!(admission.is_told(NOW, &domain(1)));
        assert_eq!(admission.admit(NOW, &domain(1), vault(1), Growth::proven(0, TOLD_BYTES_MAX)), Ok(()));
        assert!(admission.is_told(NOW, &domain(1)));
        assert_eq!(admission.admit(NOW, &domain(1), vault(2), Growth::proven(0, 1)), Ok(()));
        assert!(!admission.is_told(NOW.after_ms(WINDOW_MS - 1), &domain(1)));
        assert!(admission.is_told(NOW.after_ms(WINDOW_MS), &domain(1)));
        assert!(admission.is_told(NOW, &domain(2)), "others are not meant");
    }

    #[test]
    fn one_domain_cannot_fill_a_steward_with_many_vaults_within_an_hour() {
        let mut admission = RecordAdmission::new(MAX);
        for number in 0..10 {
            assert_eq!(
                admission.admit(NOW, &domain(1), vault(number), Growth::proven(0, MAX / DOMAIN_PARTS / 10)),
                Ok(())
            );
        }
        assert_eq!(admission.admit(NOW, &domain(1), vault(10), Growth::proven(0, 1)), Err(Refusal::Busy));
        assert_eq!(admission.admit(NOW, &domain(2), vault(10), Growth::proven(0, 1)), Ok(()));
        assert_eq!(admission.admit(NOW.after_ms(WINDOW_MS), &domain(1), vault(10), Growth::proven(0, 1)), Ok(()));
    }

    #[test]
    fn a_full_steward_takes_nothing_new_but_still_takes_what_shrinks() {
        let mut admission = RecordAdmission::new(MAX);
        admission.count(vault(1), MAX);
        assert_eq!(admission.admit(NOW, &domain(1), vault(2), Growth::proven(0, 1)), Err(Refusal::RecordLimit));
        assert_eq!(admission.admit(NOW, &domain(1), vault(1), Growth::proven(600, 100)), Ok(()));
        assert_eq!(admission.bytes(), 500);
        assert_eq!(admission.admit(NOW, &domain(1), vault(2), Growth::proven(0, 1)), Ok(()));
        admission.forget(vault(1), 500);
        admission.forget(vault(2), 1);
        assert_eq!((admission.bytes(), admission.vaults.len()), (0, 0));
    }

    #[test]
    fn what_has_not_proven_itself_takes_half_however_many_domains_it_comes_from() {
        let mut admission = RecordAdmission::new(MAX);
        let unproven = |bytes| Growth { before: 0, after: bytes, unproven: bytes as i64 };
        for number in 0..5 {
            assert_eq!(admission.admit(NOW, &domain(number), vault(number as u8), unproven(100)), Ok(()));
        }
        assert_eq!(admission.admit(NOW, &domain(5), vault(5), unproven(1)), Err(Refusal::Busy));
        assert_eq!(admission.admit(NOW, &domain(5), vault(5), Growth::proven(0, 100)), Ok(()));
        // One proves itself, another is forgotten.
        admission.count_unproven(-100);
        assert_eq!(
            admission.admit(NOW, &domain(1), vault(1), Growth { before: 100, after: 0, unproven: -100 }),
            Ok(())
        );
        assert_eq!(admission.unproven(), 300);
        assert_eq!(admission.admit(NOW, &domain(6), vault(6), unproven(200)), Ok(()));
    }

    #[test]
    fn one_domain_fills_a_pledge_with_made_up_vaults_in_days_and_not_at_once() {
        let mut admission = ShardAdmission::new(8_000, 500);
        for _ in 0..10 {
            assert_eq!(admission.admit(NOW, &domain(1), 100), Ok(()));
        }
        assert_eq!(admission.admit(NOW, &domain(1), 1), Err(Refusal::Busy));
        assert_eq!(admission.admit(NOW, &domain(2), 1_000), Ok(()));
        assert_eq!(admission.admit(NOW.after_ms(SHARD_WINDOW_MS), &domain(1), 1_000), Ok(()));
        // A small pledge is no reason to refuse what one vault may place.
        assert_eq!(ShardAdmission::new(800, 500).admit(NOW, &domain(1), 500), Ok(()));
    }

    #[test]
    fn the_memory_of_senders_is_bounded() {
        let mut admission = RecordAdmission::new(u64::MAX);
        for number in 0..DOMAINS_MAX as u32 + 10 {
            let now = NOW.after_ms(u64::from(number));
            assert_eq!(admission.admit(now, &domain(number), vault(1), Growth::proven(0, 1)), Ok(()));
        }
        assert_eq!(admission.sent.domains.len(), DOMAINS_MAX);
        assert!(!admission.sent.domains.contains_key(&domain(0)));
    }
}
