//! Until when a vault is kept: one lease for all of it, merged by maximum by everyone who sees one.

use commonhold_protocol::{Lease, Timestamp, VaultId, Verified};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a lease runs.
pub const LEASE_MS: u64 = 365 * DAY_MS;
/// A lease is renewed by whichever client runs, but not more than once a day: each renewal is a write to all stewards.
pub const RENEW_EVERY_MS: u64 = DAY_MS;
/// How long after a lease's end everything is still kept.
pub const GRACE_MS: u64 = 30 * DAY_MS;
/// How long a lease itself is remembered once that time is over: it is the word that others wait for before they give
/// their space back, and whoever was away for a year asks late.
pub const REMEMBER_MS: u64 = LEASE_MS;

/// Why a lease is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefusal {
    /// It belongs to another vault.
    #[error("the lease is another vault's")]
    OtherVault,
    /// The one that is kept is newer.
    #[error("a newer lease is known")]
    Outdated,
}

/// Keeps the newer of two leases of one vault; true if that is `new`. The same lease again changes nothing.
pub fn merge(kept: &mut Option<Verified<Lease>>, new: Verified<Lease>) -> Result<bool, LeaseRefusal> {
    if let Some(kept) = kept {
        if kept.vault != new.vault {
            return Err(LeaseRefusal::OtherVault);
        }
        if kept.newer_than(&new) {
            return Err(LeaseRefusal::Outdated);
        }
        if !new.newer_than(kept) {
            return Ok(false);
        }
    }
    *kept = Some(new);
    Ok(true)
}

/// The lease that the owner should sign now; none if the one that is kept is fresh enough.
pub fn renewal(kept: Option<&Lease>, vault: VaultId, now: Timestamp) -> Option<Lease> {
    let valid_until = now.after_ms(LEASE_MS);
    let fresh = kept.is_some_and(|kept| kept.valid_until.after_ms(RENEW_EVERY_MS) > valid_until);
    let counter = kept.map_or(0, |kept| kept.counter).saturating_add(1);
    (!fresh).then_some(Lease { vault, counter, valid_until })
}

/// True if nothing of the vault needs to be kept any more as far as this lease says: it ended, and `grace_ms`
/// ([`GRACE_MS`] but in tests) too. That it is the newest is for [`crate::expiry`] to find out. Without a lease it is
/// never so: silence means keep.
pub fn is_over(lease: Option<&Lease>, now: Timestamp, grace_ms: u64) -> bool {
    lease.is_some_and(|lease| lease.valid_until.after_ms(grace_ms) < now)
}
