//! Shards that their holders gave up: the steward forgets the claims.

use std::collections::BTreeMap;

use commonhold_protocol::{
    ClaimLeaf, SegmentId, ShardIndex,
    ask::{Outcome, Refusal},
};

use super::{ATTEMPTS_MAX, Admitted, KeepError, Sender, Steward};
use crate::{
    auditor::News,
    records::{Change, ENTRY_BYTES, Kind},
};

impl Steward {
    /// Forgets the sender's claims to these shards, in one write.
    pub(super) fn forget_claims(&self, sender: &Sender, shards: &[ClaimLeaf]) -> Outcome {
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
