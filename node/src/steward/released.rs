//! Shards that their holders gave up: the steward forgets the claims, and does not take them again from a steward that
//! has not heard of it yet.

use std::{collections::BTreeMap, sync::PoisonError};

use commonhold_protocol::{
    ClaimLeaf, NodeId, SegmentId, ShardIndex, Timestamp, VerifiedClaim,
    ask::{Outcome, Refusal},
};

use super::{ATTEMPTS_MAX, Admitted, KeepError, Sender, Steward};
use crate::{
    auditor::News,
    recent::Recent,
    records::{Change, ENTRY_BYTES, Kind},
};

/// Released claims that are remembered: what is released at once, by several nodes.
const RELEASED_MAX: usize = 1 << 16;

/// Claims that were taken back, for as long as another steward may still have them: in memory, since the sweeps of a few
/// hours settle it.
#[derive(Debug)]
pub(super) struct Released {
    /// When the claim that was taken back had been signed.
    signed_at: Recent<(ClaimLeaf, NodeId), Timestamp>,
}

impl Default for Released {
    fn default() -> Self {
        Self { signed_at: Recent::new(RELEASED_MAX) }
    }
}

impl Released {
    fn covers(&self, claim: &VerifiedClaim) -> bool {
        self.signed_at.get(&(claim.claim.leaf, claim.holder)).is_some_and(|at| claim.signed_at <= *at)
    }
}

impl Steward {
    /// True if the holder took this very claim back, or an older one than the one it took back. A newer one, made when it
    /// was given the shard again, counts.
    pub(super) fn was_released(&self, claim: &VerifiedClaim) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).covers(claim)
    }

    /// Forgets the sender's claims to these shards, in one write.
    pub(crate) fn forget_claims(&self, sender: &Sender, shards: &[ClaimLeaf]) -> Outcome {
        let mut left: BTreeMap<SegmentId, Vec<ShardIndex>> = BTreeMap::new();
        for leaf in shards {
            left.entry(leaf.segment).or_default().push(leaf.index);
        }
        let tried = self.try_forget_claims(sender, &mut left);
        if let Some(auditor) = self.auditor.get() {
            auditor.tell(News::Released { holder: sender.node, shards: shards.to_vec() });
        }
        tried.map_err(|error| error.refusal())
    }

    fn try_forget_claims(
        &self,
        sender: &Sender,
        left: &mut BTreeMap<SegmentId, Vec<ShardIndex>>,
    ) -> Result<(), KeepError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writes = Vec::new();
            for (segment, indexes) in &*left {
                writes.extend(self.without_claims(sender, segment, indexes)?);
            }
            if writes.is_empty() {
                return Ok(());
            }
            let segments: Vec<[u8; 32]> = writes.iter().map(|write| write.change.key).collect();
            let done = self.commit(sender, writes)?;
            // What was changed meanwhile is looked at again, with all that needed no change.
            for (segment, _) in segments.into_iter().zip(done).filter(|(_, done)| *done) {
                left.remove(&SegmentId::from_bytes(segment));
            }
        }
        Err(Refusal::Busy.into())
    }

    fn without_claims(
        &self,
        sender: &Sender,
        segment: &SegmentId,
        indexes: &[ShardIndex],
    ) -> Result<Option<Admitted>, KeepError> {
        let Some((kept, record)) = self.kept_record(segment)? else { return Ok(None) };
        let Some(mut state) = self.state_of(&record) else { return Ok(None) };
        for (index, claims) in state.claims() {
            let its = claims.iter().find(|claim| claim.holder == sender.node && indexes.contains(index));
            if let Some(claim) = its {
                let leaf = ClaimLeaf { segment: *segment, index: *index };
                let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
                released.signed_at.note((leaf, sender.node), claim.signed_at);
            }
        }
        let removed = indexes.iter().filter(|index| state.remove_claim(**index, &sender.node)).count();
        if removed == 0 {
            return Ok(None);
        }
        let change = Change {
            kind: Kind::Segment,
            key: *segment.as_bytes(),
            owner: kept.owner,
            tag: kept.tag,
            body: Some(state.to_record().to_bytes()),
            expected: Some(kept.sequence),
        };
        Ok(Some(self.admit(sender, change, kept.body.len() as u64 + ENTRY_BYTES)?))
    }
}
