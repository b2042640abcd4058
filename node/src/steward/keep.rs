//! Records of segments: verified part by part, merged with what is kept, written down in one batch.

use commonhold_policy::records::{Merged, RecordRefusal, RecordState, VerifiedRecord};
use commonhold_protocol::{
    Claim, Manifest, NodeId, Record, SegmentId, ShardIndex, Verified, VerifiedClaim,
    ask::{Outcome, Refusal},
};

use super::{ATTEMPTS_MAX, Admitted, KeepError, Sender, Steward, TAG_DROPPED, TAG_UNPROVEN};
use crate::records::{Change, ENTRY_BYTES, Kept, Kind, RecordsError};

/// What to do about one record that arrived.
enum Verdict {
    /// Nothing: it says nothing new.
    Known,
    /// Write it down.
    Write(Admitted),
}

/// A record from outside whose manifest and drop were verified; its claims are, once it is known which are new.
struct Arrived {
    manifest: Verified<Manifest>,
    drop: Option<Verified<commonhold_protocol::Drop>>,
    record: Record,
}

impl Steward {
    /// Merges records with those that are kept; one outcome each, once they are on disk.
    pub(super) fn keep_records(&self, sender: &Sender, records: Vec<Record>) -> Vec<Outcome> {
        if records.iter().all(|record| record.drop.is_none())
            && self.admission().is_used_up(self.clock.steady(), &sender.domain)
        {
            // A flood: to look at all of it would cost more than to refuse it.
            return vec![Err(Refusal::Busy); records.len()];
        }
        let arrived: Vec<Result<Arrived, Refusal>> = records.into_iter().map(|record| self.verify(record)).collect();
        for arrived in arrived.iter().flatten() {
            if let Some(drop) = &arrived.drop {
                self.hear_drop(sender, drop, &[arrived.manifest.id()]);
            }
        }
        if !sender.is_steward && self.admission().is_told(self.clock.steady(), &sender.domain) {
            let mut first_hand = self.first_hand();
            arrived.iter().flatten().for_each(|arrived| first_hand.note(arrived.manifest.id(), ()));
        }
        let mut outcomes: Vec<Option<Outcome>> = vec![None; arrived.len()];
        for _ in 0..ATTEMPTS_MAX {
            let (mut writes, mut places) = (Vec::new(), Vec::new());
            for (place, arrived) in arrived.iter().enumerate() {
                if outcomes[place].is_some() {
                    continue;
                }
                let verdict = match arrived {
                    Ok(arrived) => self.judge(sender, arrived),
                    Err(refusal) => Err((*refusal).into()),
                };
                match verdict {
                    Ok(Verdict::Known) => outcomes[place] = Some(Ok(())),
                    Ok(Verdict::Write(write)) => {
                        writes.push(write);
                        places.push(place);
                    }
                    Err(error) => outcomes[place] = Some(Err(error.refusal())),
                }
            }
            if writes.is_empty() {
                break;
            }
            match self.commit(sender, writes) {
                // What conflicts is judged again, against what is kept now.
                Ok(done) => {
                    for (place, _) in places.into_iter().zip(done).filter(|(_, done)| *done) {
                        outcomes[place] = Some(Ok(()));
                    }
                }
                Err(error) => {
                    let refusal = KeepError::from(error).refusal();
                    places.into_iter().for_each(|place| outcomes[place] = Some(Err(refusal)));
                }
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(Refusal::Busy))).collect()
    }

    fn verify(&self, record: Record) -> Result<Arrived, Refusal> {
        let manifest = self.verifier.verify(record.manifest.clone()).map_err(|_| Refusal::Invalid)?;
        let drop = record.drop.clone().map(|drop| self.verifier.verify(drop)).transpose();
        Ok(Arrived { manifest, drop: drop.map_err(|_| Refusal::Invalid)?, record })
    }

    fn judge(&self, sender: &Sender, arrived: &Arrived) -> Result<Verdict, KeepError> {
        let segment = arrived.manifest.id();
        let kept = self.kept_record(&segment)?;
        if kept.is_none() && self.has_ended(&arrived.manifest.vault) {
            return Err(Refusal::Expired.into());
        }
        let known: &[Claim] = kept.as_ref().map_or(&[], |(_, record)| &record.claims);
        let mut invalid = false;
        let fresh: Vec<VerifiedClaim> = arrived
            .record
            .claims
            .iter()
            .filter(|claim| !known.contains(claim))
            .filter_map(|claim| {
                let verified = self.verifier.verify_claim(claim.clone());
                invalid |= verified.is_err();
                verified.ok()
            })
            .filter(|claim| !self.was_released(claim))
            .collect();
        let offered = fresh.clone();
        let incoming = VerifiedRecord { manifest: arrived.manifest.clone(), claims: fresh, drop: arrived.drop.clone() };
        let says_nothing_new = incoming.claims.is_empty()
            && kept.as_ref().is_some_and(|(_, record)| {
                record.manifest == arrived.record.manifest
                    && (arrived.record.drop.is_none() || record.drop == arrived.record.drop)
            });
        if says_nothing_new {
            return if invalid { Err(Refusal::Invalid.into()) } else { Ok(Verdict::Known) };
        }
        let (state, merged) = match kept.as_ref().and_then(|(_, record)| self.state_of(record)) {
            Some(mut state) => {
                let merged = state.merge(incoming);
                (state, merged)
            }
            None => RecordState::first(incoming),
        };
        let tag = Self::tag_of(&state, kept.as_ref().map(|(kept, _)| kept.tag));
        // Where it has proven itself, a claim too many is one too many.
        let waits = tag == TAG_UNPROVEN && self.let_wait_for_room(&segment, &merged, offered);
        if !merged.changed {
            return if waits { Ok(Verdict::Known) } else { refused(&merged, invalid) };
        }
        let change = Change {
            kind: Kind::Segment,
            key: *segment.as_bytes(),
            owner: state.vault(),
            tag,
            body: Some(state.to_record().to_bytes()),
            expected: kept.as_ref().map(|(kept, _)| kept.sequence),
        };
        let before = kept.map_or(0, |(kept, _)| kept.body.len() as u64 + ENTRY_BYTES);
        Ok(Verdict::Write(self.admit(sender, change, before)?))
    }

    /// Lets those of the claims `offered` wait for which the record has no room; true if these are all that it refused.
    fn let_wait_for_room(&self, segment: &SegmentId, merged: &Merged, offered: Vec<VerifiedClaim>) -> bool {
        let full = |refused: &RecordRefusal| match refused {
            RecordRefusal::ClaimsFull { index, holder, .. } => Some((*index, *holder)),
            _ => None,
        };
        let refused: Vec<(ShardIndex, NodeId)> = merged.refused.iter().filter_map(full).collect();
        let waits = |claim: &VerifiedClaim| refused.contains(&(claim.claim.leaf.index, claim.holder));
        self.let_wait(*segment, offered.into_iter().filter(waits).collect());
        !refused.is_empty() && refused.len() == merged.refused.len()
    }

    /// Makes room in a record for a claim of each of these shards, at the cost of none of those that stand. Those that
    /// wait for it come first.
    pub(crate) fn make_room(
        &self,
        sender: &Sender,
        segment: &SegmentId,
        shards: &[ShardIndex],
        standing: &[(ShardIndex, NodeId)],
        is_known: impl Fn(&NodeId) -> bool,
    ) {
        let waiting = self.take_waiting(segment, is_known);
        let made = self.change_one(sender, || {
            let Some((kept, record)) = self.kept_record(segment)? else { return Ok(None) };
            let Some(mut state) = self.state_of(&record).filter(|state| !state.is_dropped()) else { return Ok(None) };
            let mut changed = false;
            for index in shards {
                changed |= state.make_room(*index, |node| standing.contains(&(*index, *node)));
            }
            changed |= Self::let_in(&mut state, &waiting);
            let change = Change {
                kind: Kind::Segment,
                key: *segment.as_bytes(),
                owner: state.vault(),
                tag: kept.tag,
                body: Some(state.to_record().to_bytes()),
                expected: Some(kept.sequence),
            };
            // What found no room waits on.
            let left = waiting.iter().filter(|claim| !Self::is_in(&state, claim));
            self.let_wait(*segment, left.cloned().collect());
            Ok(changed.then_some((change, kept.body.len() as u64 + ENTRY_BYTES)))
        });
        if let Err(error) = made {
            tracing::debug!(refusal = %error.refusal(), %segment, "a record has no room for new claims");
        }
    }

    /// What is kept of a segment. A record that cannot be read any more is replaced by the next that arrives.
    pub(super) fn kept_record(&self, segment: &SegmentId) -> Result<Option<(Kept, Record)>, KeepError> {
        match self.records.get(Kind::Segment, segment.as_bytes()) {
            Ok(kept) => Ok(kept.and_then(|kept| {
                let record = Record::from_bytes(kept.body.clone().into()).ok()?;
                Some((kept, record))
            })),
            Err(error @ RecordsError::Damaged { .. }) => {
                tracing::warn!(%segment, %error, "a record is damaged; other stewards have it");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The record of a segment that its owner wants, its lease not over, and its sequence, if one is kept and can be
    /// read; and whether it has yet to prove itself.
    pub(crate) fn wanted_record(&self, segment: &SegmentId) -> Option<(u64, RecordState, bool)> {
        let (kept, record) = self.kept_record(segment).ok()??;
        let state = self.state_of(&record).filter(|state| !state.is_dropped() && !self.has_ended(&state.vault()))?;
        Some((kept.sequence, state, kept.tag == TAG_UNPROVEN))
    }

    /// The manifest of a segment that its owner wants, its lease not over, if its record is kept and can be read.
    pub(crate) fn manifest(&self, segment: &SegmentId) -> Option<Verified<Manifest>> {
        let (kept, record) = self.kept_record(segment).ok()??;
        if kept.tag == TAG_DROPPED || self.has_ended(&kept.owner) {
            return None;
        }
        self.verifier.verify(record.manifest).ok()
    }

    /// A kept record as the rules see it. What does not verify (any more) is left out.
    pub(super) fn state_of(&self, record: &Record) -> Option<RecordState> {
        let manifest = self.verifier.verify(record.manifest.clone()).ok()?;
        let drop = record.drop.clone().and_then(|drop| self.verifier.verify(drop).ok());
        let claims = record.claims.iter().filter_map(|claim| self.verifier.verify_claim(claim.clone()).ok()).collect();
        Some(RecordState::first(VerifiedRecord { manifest, claims, drop }).0)
    }
}

/// The outcome of a merge that changed nothing.
fn refused(merged: &Merged, invalid: bool) -> Result<Verdict, KeepError> {
    match merged.refused.first() {
        Some(refused) => {
            tracing::debug!(%refused, "part of a record is not kept");
            Err(refused.refusal().into())
        }
        None if invalid => Err(Refusal::Invalid.into()),
        None => Ok(Verdict::Known),
    }
}
