//! Drops and undrops: which of two counts, and what a drop applies to.
//!
//! A segment id holds a random salt and never recurs, so an old drop cannot hit new data. The state that a drop leaves
//! is kept as a tombstone, above all claims, so that a steward which was away cannot bring the record back, until the
//! vault's lease and its grace are over ([`crate::leases::is_over`]) and nobody else may still keep the record.

use commonhold_protocol::{Drop, DropKind, SegmentId, VaultId, Verified};

/// Why a drop or undrop is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DropRefusal {
    /// The segment belongs to another vault than the one that signed.
    #[error("the drop is signed by another vault than the segment's")]
    OtherVault,
    /// It does not name the segment.
    #[error("the drop does not name the segment")]
    OtherSegment,
    /// The one that is kept is newer.
    #[error("a newer drop or undrop is known")]
    Outdated,
}

/// Merges `new` into what is kept for `segment` of `vault`; true if that changed it.
///
/// The higher counter wins. At the same counter (two devices that did not know of each other) the undrop wins, since
/// what was kept too long can be dropped again; and then the greater bytes, so that all stewards end with the same.
pub fn merge(
    kept: &mut Option<Verified<Drop>>,
    new: Verified<Drop>,
    segment: &SegmentId,
    vault: &VaultId,
) -> Result<bool, DropRefusal> {
    if new.vault != *vault {
        return Err(DropRefusal::OtherVault);
    }
    if !new.segments.contains(segment) {
        return Err(DropRefusal::OtherSegment);
    }
    if let Some(kept) = kept {
        match order(&new).cmp(&order(kept)) {
            std::cmp::Ordering::Less => return Err(DropRefusal::Outdated),
            std::cmp::Ordering::Equal => return Ok(false),
            std::cmp::Ordering::Greater => {}
        }
    }
    *kept = Some(new);
    Ok(true)
}

fn order(drop: &Verified<Drop>) -> (u64, bool, &[u8]) {
    (drop.counter, drop.kind == DropKind::Undrop, drop.payload())
}

/// True if the newest word on a segment is that it is not wanted.
pub fn is_dropped(newest: Option<&Drop>) -> bool {
    newest.is_some_and(|drop| drop.kind == DropKind::Drop)
}
