//! Shards that their holders gave up, by their own word: what follows for the segments.

use std::collections::BTreeSet;

use commonhold_policy::audit::containment;
use commonhold_protocol::{ClaimLeaf, NodeId, SegmentId, ShardIndex};

use super::{Auditor, NodeNumber, WardNumber, holders::Wanted};

impl Auditor {
    /// A holder answers that it gave a shard up, and we had missed that: its claim leaves the record, and then comes
    /// [`Self::released`].
    pub(super) fn hear_release(&self, holder: NodeNumber, leaf: ClaimLeaf) {
        let Some(node) = self.holders.key(holder) else { return };
        tracing::info!(%node, segment = %leaf.segment, index = %leaf.index, "a holder has given up a shard");
        let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(node));
        self.parts.tasks.spawn_blocking(move || {
            if let Err(refusal) = steward.forget_claims(&sender, &[leaf]) {
                tracing::warn!(%refusal, segment = %leaf.segment, "a claim that was given up cannot be forgotten");
            }
        });
    }

    /// A holder gave these up: its claims are gone from the records. Those of whoever was given the shards before that
    /// may have found no place beside them.
    pub(super) async fn released(&mut self, holder: NodeId, shards: Vec<ClaimLeaf>) {
        let Some(node) = self.holders.number(&holder) else { return };
        self.proven_is_stale = true;
        let mut thinner = Vec::new();
        for leaf in &shards {
            thinner.extend(self.release(node, &leaf.segment, leaf.index));
        }
        // What is surplus is given up by sound disks.
        if !thinner.is_empty() {
            self.rest_from(node);
        }
        let segments: BTreeSet<SegmentId> = thinner.iter().filter_map(|number| self.wards.segment(*number)).collect();
        self.load(segments.into_iter().map(|segment| (segment, true)).collect(), Some(holder)).await;
    }

    /// The segment, if it has a shard less now.
    fn release(&mut self, node: NodeNumber, segment: &SegmentId, index: ShardIndex) -> Option<WardNumber> {
        let number = self.wards.number(segment)?;
        let (claims, thinner) = self.change(number, |health| {
            let before = health.claims().len();
            let thinner = health.release(index, node);
            (before - health.claims().len(), thinner)
        })?;
        if let Some(holder) = self.holders.get_mut(node) {
            holder.claims = holder.claims.saturating_sub(claims as u32);
        }
        if !self.wards.is_claimed_by(number, node) {
            self.contain(node, containment::Event::Forget(*segment));
        }
        thinner.then_some(number)
    }

    /// Audits the claims of a segment that nobody has audited yet: it is to be repaired, which reads from healthy shards
    /// only, and rebuilds none that is offered and proves true. By themselves they would have some minutes.
    pub(super) fn prove_now(&mut self, number: WardNumber) {
        let Some(health) = self.health(number) else { return };
        let unproven = health.claims().iter().filter(|claim| claim.state.is_new());
        let holders: BTreeSet<NodeNumber> = unproven.map(|claim| claim.node).collect();
        for node in holders {
            self.moment(node, Wanted::Unproven);
        }
    }
}
