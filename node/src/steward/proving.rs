//! Records that have to prove themselves: to sign claims for segments of made-up vaults costs nothing, so a new record
//! is kept for good only once enough of its shards have passed an audit of this node's
//! ([`commonhold_policy::admission::new_record`]); the auditor says so. Until then its tag says that it is on trial,
//! over restarts too, and it counts against all limits.
//!
//! Whoever hears of a segment first can fill all places for its claims with false ones before the owner's true ones
//! arrive. So what finds no room waits, and takes the places of claims that come to nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{MutexGuard, PoisonError},
};

use commonhold_policy::{records::RecordState, stewards::STEWARDS};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, VerifiedClaim, record::CLAIMS_PER_INDEX_MAX};

use super::{KeepError, Sender, Steward, TAG_DROPPED, TAG_UNPROVEN, TAG_WANTED};
use crate::{
    recent::Recent,
    records::{COMMIT_CHANGES_MAX, Change, Committed, ENTRY_BYTES, Kind, RecordsError, Summary},
};

/// Claims that wait, of all segments; each takes about half a KiB. Beyond it, those of the segment go that waits longest.
const WAITING_MAX: usize = 16 << 10;

/// Claims of one shard that wait: as many as all of a record's stewards could bring.
const WAITING_PER_SHARD_MAX: usize = STEWARDS * CLAIMS_PER_INDEX_MAX;

/// Claims for which their records have no room now.
#[derive(Default)]
pub(super) struct WaitingClaims {
    claims: BTreeMap<SegmentId, Vec<VerifiedClaim>>,
    order: VecDeque<SegmentId>,
    count: usize,
}

impl WaitingClaims {
    /// Takes in claims of one segment.
    pub(super) fn add(&mut self, segment: SegmentId, claims: Vec<VerifiedClaim>) {
        if !self.claims.contains_key(&segment) {
            self.order.push_back(segment);
        }
        let waiting = self.claims.entry(segment).or_default();
        for claim in claims {
            let of_index = waiting.iter().filter(|other| other.claim.leaf.index == claim.claim.leaf.index);
            if of_index.clone().count() < WAITING_PER_SHARD_MAX && of_index.clone().all(|of| of.holder != claim.holder)
            {
                waiting.push(claim);
                self.count += 1;
            }
        }
        while self.count > WAITING_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.count -= self.claims.remove(&oldest).map_or(0, |claims| claims.len());
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Takes out all of a segment's.
    pub(super) fn take(&mut self, segment: &SegmentId) -> Vec<VerifiedClaim> {
        let Some(claims) = self.claims.remove(segment) else { return Vec::new() };
        self.order.retain(|other| other != segment);
        self.count -= claims.len();
        claims
    }
}

impl Steward {
    pub(super) fn first_hand(&self) -> MutexGuard<'_, Recent<SegmentId, ()>> {
        self.first_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record on trial is told to other stewards: if its owner brought it, and no flood. One that
    /// came from a steward ends with its trial here; handed on, it would be new to those who have just forgotten it, and
    /// no made-up record would ever end.
    pub(crate) fn tells_on_trial(&self, segment: &SegmentId) -> bool {
        self.first_hand().get(segment).is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingClaims> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims that a record has no room for: they may have it later.
    pub(super) fn let_wait(&self, segment: SegmentId, claims: Vec<VerifiedClaim>) {
        if !claims.is_empty() {
            self.waiting().add(segment, claims);
        }
    }

    /// The claims of a segment that wait, those by nodes that are known first: others need not exist. Who takes them puts
    /// back what finds no room now.
    pub(super) fn take_waiting(&self, segment: &SegmentId, is_known: impl Fn(&NodeId) -> bool) -> Vec<VerifiedClaim> {
        let mut waiting = self.waiting().take(segment);
        waiting.sort_by_cached_key(|claim| !is_known(&claim.holder));
        waiting
    }

    /// Gives those that wait what room there is; true if that changed the record.
    pub(super) fn let_in(state: &mut RecordState, waiting: &[VerifiedClaim]) -> bool {
        waiting.iter().filter(|claim| state.merge_claim((*claim).clone()) == Ok(true)).count() > 0
    }

    pub(super) fn is_in(state: &RecordState, claim: &VerifiedClaim) -> bool {
        let of_index = state.claims().get(&claim.claim.leaf.index);
        of_index.is_some_and(|claims| claims.iter().any(|kept| kept.holder == claim.holder))
    }

    /// The tag of a record after a change: `kept` is the tag before, none of a record that is new. One that was dropped
    /// and is wanted again has to prove itself, or a drop and its undrop would be proof enough.
    pub(super) fn tag_of(state: &RecordState, kept: Option<u8>) -> u8 {
        match kept {
            _ if state.is_dropped() => TAG_DROPPED,
            Some(TAG_WANTED) => TAG_WANTED,
            _ => TAG_UNPROVEN,
        }
    }

    /// By how much a change lets grow what has not proven itself.
    pub(super) fn unproven_growth(&self, change: &Change, before: u64, after: u64) -> i64 {
        if change.kind != Kind::Segment {
            return 0;
        }
        // If it changes meanwhile, the change will not be done.
        let kept = self.records.summary(Kind::Segment, &change.key).ok().flatten();
        let was = if kept.is_some_and(|kept| kept.tag == TAG_UNPROVEN) { before } else { 0 };
        let will_be = if change.tag == TAG_UNPROVEN { after } else { 0 };
        will_be as i64 - was as i64
    }

    /// Bytes of records that are on trial.
    pub(crate) fn unproven_bytes(&self) -> u64 {
        self.admission().unproven()
    }

    /// The records of these segments have proven themselves.
    pub(crate) fn prove(&self, segments: &[SegmentId]) -> Result<(), RecordsError> {
        for some in segments.chunks(COMMIT_CHANGES_MAX) {
            let mut changes = Vec::with_capacity(some.len());
            for segment in some {
                match self.records.get(Kind::Segment, segment.as_bytes()) {
                    Ok(Some(kept)) if kept.tag == TAG_UNPROVEN => changes.push(Change {
                        kind: Kind::Segment,
                        key: *segment.as_bytes(),
                        owner: kept.owner,
                        tag: TAG_WANTED,
                        body: Some(kept.body),
                        expected: Some(kept.sequence),
                    }),
                    Ok(_) | Err(RecordsError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let done = self.records.commit(&changes)?;
            for (change, _) in changes.iter().zip(done).filter(|(_, done)| matches!(done, Committed::Done { .. })) {
                let bytes = change.body.as_ref().map_or(0, |body| body.len() as u64 + ENTRY_BYTES);
                self.admission().count_unproven(-(bytes as i64));
            }
        }
        Ok(())
    }

    /// The record of a segment has not proven itself in time: it is forgotten, unless claims wait that found no room in
    /// it. Those take the places of all but the `proven` ones, and the record is on trial anew.
    pub(crate) fn fail(
        &self,
        sender: &Sender,
        segment: &SegmentId,
        proven: &[(ShardIndex, NodeId)],
        is_known: impl Fn(&NodeId) -> bool,
    ) {
        let waiting = self.take_waiting(segment, is_known);
        let mut unproven = None;
        let tried = self.change_one(sender, || {
            unproven = None;
            let Some((kept, record)) = self.kept_record(segment)?.filter(|(kept, _)| kept.tag == TAG_UNPROVEN) else {
                return Ok(None);
            };
            let bytes = kept.body.len() as u64 + ENTRY_BYTES;
            let summary = Summary { key: *segment.as_bytes(), tag: kept.tag, sequence: kept.sequence, bytes };
            unproven = Some((summary, kept.owner));
            if waiting.is_empty() {
                return Ok(None);
            }
            let Some(mut state) = self.state_of(&record) else { return Ok(None) };
            let came_to_nothing: Vec<(ShardIndex, NodeId)> = state
                .claims()
                .iter()
                .flat_map(|(index, of)| of.iter().map(|claim| (*index, claim.holder)))
                .filter(|claim| !proven.contains(claim))
                .collect();
            for (index, holder) in came_to_nothing {
                state.remove_claim(index, &holder);
            }
            if !Self::let_in(&mut state, &waiting) {
                return Ok(None);
            }
            unproven = None;
            let left = waiting.iter().filter(|claim| !Self::is_in(&state, claim));
            self.let_wait(*segment, left.cloned().collect());
            let change = Change {
                kind: Kind::Segment,
                key: *segment.as_bytes(),
                owner: kept.owner,
                tag: TAG_UNPROVEN,
                body: Some(state.to_record().to_bytes()),
                expected: Some(kept.sequence),
            };
            Ok(Some((change, bytes)))
        });
        let forgotten = match (tried, unproven) {
            (Ok(()), Some(unproven)) => self.forget(Kind::Segment, vec![unproven]).map_err(KeepError::from),
            (tried, _) => tried.map(|()| 0),
        };
        match forgotten {
            Ok(0) => tracing::debug!(%segment, "a record is on trial anew, with other claims"),
            Ok(_) => tracing::debug!(%segment, "a record has not proven itself and is forgotten"),
            Err(error) => tracing::debug!(refusal = %error.refusal(), %segment, "a record on trial stays for now"),
        }
    }
}
