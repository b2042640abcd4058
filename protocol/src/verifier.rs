//! Verifies for one network, and remembers for a while what it verified.
//!
//! One signature is met again and again: a holder signs up to 256 claims at once, a record that changes brings all its
//! claims along, a manifest comes with a shard and with its record. A check costs some 50 µs, looking it up one.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    claim::{Claim, VerifiedClaim},
    network::NetworkName,
    sign::{SignedObject, Unverified, Verified, VerifyError},
};

/// Signatures in one generation; two are remembered, which take about 0.7 MiB.
const GENERATION_MAX: usize = 8192;

/// What was signed, by whom, and the signature, as one hash.
type Fingerprint = [u8; 32];

/// A verifier that remembers. Only what was verified is remembered, so nobody can push anything out with nonsense.
#[derive(Debug)]
pub struct Verifier {
    network: NetworkName,
    recent: Mutex<Recent>,
    checked: AtomicU64,
}

impl Verifier {
    /// A verifier for `network`.
    pub fn new(network: NetworkName) -> Self {
        Self { network, recent: Mutex::default(), checked: AtomicU64::new(0) }
    }

    /// The network.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// As [`Unverified::verify`].
    pub fn verify<T: SignedObject>(&self, unverified: Unverified<T>) -> Result<Verified<T>, VerifyError> {
        let fingerprint = unverified.fingerprint();
        if self.recent().contains(&fingerprint) {
            return unverified.verified_before();
        }
        self.checked.fetch_add(1, Relaxed);
        let verified = unverified.verify(&self.network)?;
        self.recent().insert(fingerprint);
        Ok(verified)
    }

    /// As [`Claim::verify`]; the signature of a batch is checked once for all its claims.
    pub fn verify_claim(&self, claim: Claim) -> Result<VerifiedClaim, VerifyError> {
        let batch = self.verify(claim.batch().clone())?;
        claim.verify_in(&batch)
    }

    /// How many signatures were checked; what was remembered does not count.
    pub fn signatures_checked(&self) -> u64 {
        self.checked.load(Relaxed)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest fingerprints, in two generations: when the younger is full, the older is forgotten.
#[derive(Debug, Default)]
struct Recent {
    younger: HashSet<Fingerprint>,
    older: HashSet<Fingerprint>,
}

impl Recent {
    /// Whether it is known; what is used stays young.
    fn contains(&mut self, fingerprint: &Fingerprint) -> bool {
        if self.younger.contains(fingerprint) {
            return true;
        }
        let known = self.older.remove(fingerprint);
        if known {
            self.insert(*fingerprint);
        }
        known
    }

    fn insert(&mut self, fingerprint: Fingerprint) {
        if self.younger.len() >= GENERATION_MAX {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_remembered_and_memory_is_bounded() {
        let fingerprint = |number: usize| {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&number.to_le_bytes());
            fingerprint
        };
        let mut recent = Recent::default();
        for number in 0..5 * GENERATION_MAX {
            recent.insert(fingerprint(number));
            assert!(recent.contains(&fingerprint(0)), "used all the time, forgotten at {number}");
            assert!(recent.younger.len() + recent.older.len() <= 2 * GENERATION_MAX);
        }
        assert!(recent.contains(&fingerprint(5 * GENERATION_MAX - 1)));
        assert!(!recent.contains(&fingerprint(1)), "never used again");
    }
}
