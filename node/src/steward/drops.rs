//! Drops and undrops: for the records that are kept, and for the shards that are held here.
//!
//! A drop counts for a segment only if the vault that signed it is the segment's, which the kept manifest or the held
//! shard says. Of a held segment the newest word is kept beside the shards, with the moment at which it arrived: the
//! time in the trash is counted from there.

use commonhold_policy::drops::{self, DropRefusal};
use commonhold_protocol::{
    Drop, SegmentId, Timestamp, Unverified, Verified,
    ask::{Outcome, Refusal},
};

use super::{KeepError, Sender, Steward, TAG_DROPPED, TAG_WANTED};
use crate::records::{Change, ENTRY_BYTES, Kept, Kind, RecordsError};

/// The tag of a drop whose shards were removed: nothing is left in the trash.
pub(crate) const TAG_EMPTIED: u8 = 2;

/// The newest word on a held segment, and when it arrived.
#[derive(Debug, Clone)]
pub(crate) struct HeldDrop {
    pub(crate) arrived_at: Timestamp,
    pub(crate) drop: Verified<Drop>,
}

impl Steward {
    pub(super) fn keep_drop(&self, sender: &Sender, drop: Unverified<Drop>) -> Outcome {
        let drop = self.verifier.verify(drop).map_err(|_| Refusal::Invalid)?;
        let in_records = drop.segments.iter().map(|segment| self.drop_record(sender, &drop, segment));
        let mut outcomes: Vec<Outcome> = in_records.collect();
        outcomes.extend(self.hear_drop(sender, &drop, &drop.segments));
        // What another change came between is to be told again, though the rest is kept: a holder whose record heard of an
        // undrop and whose shard did not would serve it no more.
        if outcomes.contains(&Err(Refusal::Busy)) {
            return Err(Refusal::Busy);
        }
        // Kept if it counts for any of its segments; else the first reason that is more than "not known here".
        match outcomes.iter().find(|outcome| outcome.is_ok()) {
            Some(_) => Ok(()),
            None => {
                outcomes.into_iter().find(|outcome| *outcome != Err(Refusal::Unknown)).unwrap_or(Err(Refusal::Unknown))
            }
        }
    }

    /// Merges a drop into the record of one segment.
    fn drop_record(&self, sender: &Sender, drop: &Verified<Drop>, segment: &SegmentId) -> Outcome {
        let kept = self.change_one(sender, || {
            let Some((kept, record)) = self.kept_record(segment)? else { return Err(Refusal::Unknown.into()) };
            if kept.owner != drop.vault {
                return Err(Refusal::Invalid.into());
            }
            if record.drop.as_ref() == Some(&drop.to_unverified()) {
                return Ok(None);
            }
            let Some(mut state) = self.state_of(&record) else { return Err(Refusal::Unknown.into()) };
            if !state.merge_drop(drop.clone()).map_err(|refused| refused.refusal())? {
                return Ok(None);
            }
            let change = Change {
                kind: Kind::Segment,
                key: *segment.as_bytes(),
                owner: kept.owner,
                tag: Self::tag_of(&state, Some(kept.tag)),
                body: Some(state.to_record().to_bytes()),
                expected: Some(kept.sequence),
            };
            Ok(Some((change, kept.body.len() as u64 + ENTRY_BYTES)))
        });
        kept.map_err(|error| error.refusal())
    }

    /// Keeps a drop for those of `segments` of which shards are held here.
    pub(super) fn hear_drop(&self, sender: &Sender, drop: &Verified<Drop>, segments: &[SegmentId]) -> Vec<Outcome> {
        segments.iter().map(|segment| self.hear_drop_of(sender, drop, segment)).collect()
    }

    fn hear_drop_of(&self, sender: &Sender, drop: &Verified<Drop>, segment: &SegmentId) -> Outcome {
        let Some(vault) = self.holdings.vault_of(segment) else { return Err(Refusal::Unknown) };
        let kept = self.change_one(sender, || {
            let (before, mut newest) = match self.held_drop(segment)? {
                Some((kept, held)) => (Some(kept), Some(held.drop)),
                None => (None, None),
            };
            let changed =
                drops::merge(&mut newest, drop.clone(), segment, &vault).map_err(|refused| match refused {
                    DropRefusal::OtherVault | DropRefusal::OtherSegment => Refusal::Invalid,
                    DropRefusal::Outdated => Refusal::Outdated,
                })?;
            if !changed {
                return Ok(None);
            }
            let mut body = self.clock.now().0.to_le_bytes().to_vec();
            body.extend_from_slice(&drop.to_bytes());
            let change = Change {
                kind: Kind::Drop,
                key: *segment.as_bytes(),
                owner: vault,
                tag: if drops::is_dropped(newest.as_deref()) { TAG_DROPPED } else { TAG_WANTED },
                body: Some(body),
                expected: before.as_ref().map(|kept| kept.sequence),
            };
            Ok(Some((change, before.map_or(0, |kept| kept.body.len() as u64 + ENTRY_BYTES))))
        });
        kept.map_err(|error: KeepError| error.refusal())
    }

    /// The newest drop or undrop that is kept for a segment of which shards are (or were) held here.
    pub(crate) fn held_drop(&self, segment: &SegmentId) -> Result<Option<(Kept, HeldDrop)>, RecordsError> {
        let kept = match self.records.get(Kind::Drop, segment.as_bytes()) {
            Err(RecordsError::Damaged { .. }) => None,
            kept => kept?,
        };
        Ok(kept.and_then(|kept| {
            let (arrived_at, drop) = kept.body.split_first_chunk()?;
            let drop = self.verifier.verify(Unverified::from_bytes(bytes::Bytes::copy_from_slice(drop)).ok()?).ok()?;
            let arrived_at = Timestamp(u64::from_le_bytes(*arrived_at));
            Some((kept, HeldDrop { arrived_at, drop }))
        }))
    }

    /// The newest drop or undrop of a segment, whether its record is kept here or shards of it are held.
    pub(crate) fn newest_drop(&self, segment: &SegmentId) -> Result<Option<Verified<Drop>>, RecordsError> {
        // Nearly no segment has one: two look-ups in the index settle that.
        let held = self.records.summary(Kind::Drop, segment.as_bytes())?;
        let recorded = self.records.summary(Kind::Segment, segment.as_bytes())?;
        if held.is_none() && recorded.is_none_or(|recorded| recorded.tag != TAG_DROPPED) {
            return Ok(None);
        }
        let mut newest = self.held_drop(segment)?.map(|(_, held)| held.drop);
        let recorded = match self.kept_record(segment) {
            Ok(kept) => kept.and_then(|(_, record)| self.verifier.verify(record.drop?).ok()),
            Err(KeepError::Records(error)) => return Err(error),
            Err(KeepError::Refused(_)) => None,
        };
        if let Some(recorded) = recorded {
            let vault = recorded.vault;
            // An older one than is held changes nothing, as it should.
            let _ = drops::merge(&mut newest, recorded, segment, &vault);
        }
        Ok(newest)
    }

    /// True if the owner's newest word is that the segment is not wanted.
    pub(crate) fn is_dropped(&self, segment: &SegmentId) -> Result<bool, RecordsError> {
        Ok(drops::is_dropped(self.newest_drop(segment)?.as_deref()))
    }
}

impl Steward {
    /// Notes that the shards of a dropped segment are gone from here. Nothing is noted if an undrop came between.
    pub(crate) fn note_emptied(&self, segment: &SegmentId) -> Result<(), RecordsError> {
        let Some((kept, _)) = self.held_drop(segment)? else { return Ok(()) };
        if kept.tag != TAG_DROPPED {
            return Ok(());
        }
        let change = Change {
            kind: Kind::Drop,
            key: *segment.as_bytes(),
            owner: kept.owner,
            tag: TAG_EMPTIED,
            body: Some(kept.body),
            expected: Some(kept.sequence),
        };
        self.records.commit(&[change]).map(drop)
    }
}
