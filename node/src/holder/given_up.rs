//! Shards that are given up here since another node keeps them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use commonhold_protocol::{ClaimLeaf, ask::Refusal};
use commonhold_storage_engine::store::StoreError;

use super::{Holder, refusal};
use crate::recent::Recent;

/// Shards that are remembered to have been given up: a steward that did not hear of it asks within a few epochs.
const GIVEN_UP_MAX: usize = 1 << 16;

/// What was given up, until the node restarts.
#[derive(Debug)]
pub(super) struct GivenUp(Mutex<Recent<ClaimLeaf, ()>>);

impl Default for GivenUp {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(GIVEN_UP_MAX)))
    }
}

impl GivenUp {
    /// It is held again.
    pub(super) fn forget(&self, leaf: &ClaimLeaf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(leaf);
    }

    /// What a steward is told that wants to see a shard which cannot be read.
    pub(super) fn refusal(&self, leaf: &ClaimLeaf, error: &StoreError) -> Refusal {
        let given_up = || self.0.lock().unwrap_or_else(PoisonError::into_inner).get(leaf).is_some();
        if matches!(error, StoreError::NotHeld { .. }) && given_up() { Refusal::Released } else { refusal(error) }
    }
}

/// Shards that are about to be given up.
#[derive(Debug, Clone, Default)]
pub(super) struct GivingUp(Arc<Mutex<BTreeSet<ClaimLeaf>>>);

/// While it lives, a shard is proven and sent to nobody.
#[derive(Debug)]
pub(crate) struct Yielding {
    leaf: ClaimLeaf,
    all: GivingUp,
}

impl Drop for Yielding {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.leaf);
    }
}

impl GivingUp {
    fn begin(&self, leaf: ClaimLeaf) -> Option<Yielding> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(leaf);
        is_first.then(|| Yielding { leaf, all: self.clone() })
    }

    /// Refuses what is about to be given up, for a moment.
    pub(super) fn check(&self, leaf: &ClaimLeaf) -> Result<(), Refusal> {
        let is_kept = !self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(leaf);
        if is_kept { Ok(()) } else { Err(Refusal::Busy) }
    }
}

impl Holder {
    /// Begins to give a shard up: to be done before another's proof that it keeps the shard is asked for. Of two that give
    /// up in favour of each other at one moment, at least one gets no proof; and nobody borrows the proof from here. None:
    /// somebody does so already.
    pub(crate) fn yield_up(&self, leaf: ClaimLeaf) -> Option<Yielding> {
        self.giving_up.begin(leaf)
    }

    /// Removes a shard that most of its stewards were told is given up, and remembers that for those who were not: asked
    /// for it, we say so, instead of as one that has lost it. How many were removed: one, or none.
    pub(crate) async fn give_up(&self, leaf: ClaimLeaf) -> Result<usize, StoreError> {
        self.given_up.0.lock().unwrap_or_else(PoisonError::into_inner).note(leaf, ());
        let store = self.store.clone();
        // A panic in there is logged by the runtime.
        tokio::task::spawn_blocking(move || store.remove_all(&[leaf])).await.unwrap_or(Ok(0))
    }
}

#[cfg(test)]
mod tests {
    use commonhold_protocol::{SegmentId, ShardIndex};

    use super::*;

    #[test]
    fn what_is_being_given_up_is_proven_to_nobody_until_that_is_over() {
        let [leaf, other] =
            [1, 2].map(|of| ClaimLeaf { segment: SegmentId::from_bytes([of; 32]), index: ShardIndex(0) });
        let all = GivingUp::default();
        let yielding = all.begin(leaf).expect("nobody does so yet");
        assert!(all.begin(leaf).is_none(), "two at once would each believe that the other's proof still counts");
        assert_eq!((all.check(&leaf), all.check(&other)), (Err(Refusal::Busy), Ok(())));
        drop(yielding);
        assert_eq!(all.check(&leaf), Ok(()));
        assert!(all.begin(leaf).is_some());
    }
}
