//! New records on trial: kept for good once k of their shards have passed an audit here, forgotten if they have not in
//! time. Decided by [`commonhold_policy::admission::new_record`]; what is on disk is the steward's
//! (`steward/proving.rs`).

use commonhold_policy::{
    admission::{self, NewRecord},
    segment_health::ClaimState,
};
use commonhold_protocol::{NodeId, ShardIndex};

use super::{Auditor, TimerOf, WardNumber};

impl Auditor {
    /// What the record says of itself, when it is read. After a restart it has all of its time again.
    pub(super) fn set_trial(&mut self, number: WardNumber, unproven: bool) {
        if !unproven {
            self.trials.remove(&number);
        } else if !self.trials.contains_key(&number) {
            let now = self.now();
            self.trials.insert(number, now);
            self.wake(now.after_ms(self.prove_ms), TimerOf::Trial(number));
        }
    }

    /// Whether a record has proven itself by now.
    pub(super) fn try_record(&mut self, number: WardNumber) {
        let Some(since) = self.trials.get(&number).copied() else { return };
        let (Some(ward), Some(segment), Some(health)) =
            (self.wards.get(number), self.wards.segment(number), self.health(number))
        else {
            return;
        };
        let now = self.now();
        match admission::new_record(now, since, self.prove_ms, ward.coding, health.counters()) {
            NewRecord::Keep => {
                self.trials.remove(&number);
                self.proven.push(segment);
                // It was no business of ours to repair it until now.
                self.assess(&[number]);
            }
            NewRecord::Wait { .. } => {}
            // Whoever is cut off cannot tell a true claim from a false one.
            NewRecord::Forget if self.is_cut_off() => {
                self.trials.remove(&number);
                self.set_trial(number, true);
            }
            NewRecord::Forget => {
                let healthy = health.claims().iter().filter(|claim| claim.state == ClaimState::Healthy);
                let proven: Vec<(ShardIndex, NodeId)> =
                    healthy.filter_map(|claim| Some((claim.index, self.holders.key(claim.node)?))).collect();
                // If other claims take the places of these, it is read again as if it were new, and has its time again.
                self.forget(&segment);
                let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(self.own));
                let neighbours = self.parts.neighbours.clone();
                let fail = move || steward.fail(&sender, &segment, &proven, |node| neighbours.is_known(node));
                self.parts.tasks.spawn_blocking(fail);
            }
        }
    }

    /// Writes down which records have proven themselves; those that an answer to a challenge proved together, in one
    /// write.
    pub(super) fn write_proven(&mut self) {
        if self.proven.is_empty() {
            return;
        }
        let (steward, proven) = (self.parts.steward.clone(), std::mem::take(&mut self.proven));
        self.parts.tasks.spawn_blocking(move || {
            if let Err(error) = steward.prove(&proven) {
                tracing::warn!(%error, "records that have proven themselves stay on trial until the next start");
            }
        });
    }
}
