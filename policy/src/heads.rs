//! Which heads of a vault are kept and believed, and when one counts as written.
//!
//! A head that another one covers is history; heads that do not cover each other are siblings and are all kept, until
//! a client that has seen them all writes one that covers them. Merging what is inside them is the client's work.

use commonhold_protocol::{Head, Verified, Version, ask::HEAD_SIBLINGS_MAX};

use crate::stewards::STEWARDS;

/// A head or record is written when this many stewards keep it, or all that answer if they are fewer: more than half of them.
pub const WRITE_ENOUGH: usize = STEWARDS / 2 + 1;
/// With fewer than this the only copy of the way into a vault could die with one node.
pub const WRITE_LEAST: usize = 2;

/// Why a head is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefusal {
    /// It belongs to another vault than those it was to be merged with.
    #[error("the head is another vault's")]
    OtherVault,
    /// A head that is kept covers it.
    #[error("a newer head is known")]
    Outdated,
    /// As many siblings are kept as may be. The writer has to read and cover them.
    #[error("too many heads that do not know of each other")]
    TooManySiblings,
}

/// Merges `new` into the heads `kept` of one vault, none of which covers another; true if that changed them.
///
/// At the limit the newcomer is refused: whoever wrote a kept one was told that it is kept. Two heads of the very same
/// version (a home that was copied) are siblings.
pub fn merge(kept: &mut Vec<Verified<Head>>, new: Verified<Head>) -> Result<bool, HeadRefusal> {
    if kept.iter().any(|head| head.vault != new.vault) {
        return Err(HeadRefusal::OtherVault);
    }
    if kept.iter().any(|head| head.payload() == new.payload()) {
        return Ok(false);
    }
    if kept.iter().any(|head| dominates(&head.version, &new.version)) {
        return Err(HeadRefusal::Outdated);
    }
    let covered = kept.iter().filter(|head| dominates(&new.version, &head.version)).count();
    if kept.len() - covered >= HEAD_SIBLINGS_MAX {
        return Err(HeadRefusal::TooManySiblings);
    }
    kept.retain(|head| !dominates(&new.version, &head.version));
    kept.push(new);
    sort(kept);
    Ok(true)
}

/// Those of `heads` that no other dominates, each once, in an order that depends on nothing else: every reader of the
/// same heads merges them the same way.
pub fn maximal(mut heads: Vec<Verified<Head>>) -> Vec<Verified<Head>> {
    sort(&mut heads);
    heads.dedup_by(|a, b| a.payload() == b.payload());
    let versions: Vec<Version> = heads.iter().map(|head| head.version.clone()).collect();
    heads.retain(|head| !versions.iter().any(|version| dominates(version, &head.version)));
    heads
}

/// The least version that covers all `heads`: what a head that merges them is the [`Version::next`] of.
pub fn join<'a>(heads: impl IntoIterator<Item = &'a Verified<Head>>) -> Version {
    heads.into_iter().fold(Version::default(), |joined, head| joined.join(&head.version))
}

/// True if `heads` together lack something that a client has already seen: someone serves an old state.
pub fn is_rollback<'a>(remembered: &Version, heads: impl IntoIterator<Item = &'a Verified<Head>>) -> bool {
    !join(heads).covers(remembered)
}

fn dominates(newer: &Version, older: &Version) -> bool {
    newer.covers(older) && !older.covers(newer)
}

fn sort(heads: &mut [Verified<Head>]) {
    heads.sort_by(|a, b| a.payload().cmp(b.payload()));
}

/// How a write to all stewards stands: of a head, or of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// Not enough answers yet.
    Open,
    /// Enough stewards keep it.
    Done,
    /// All that answered keep it, but they are fewer than [`WRITE_ENOUGH`]; to be said aloud.
    DoneThin {
        /// How many keep it.
        kept: usize,
    },
    /// Too few keep it.
    Failed {
        /// How many keep it.
        kept: usize,
        /// How many would have had to.
        need: usize,
    },
}

/// How a write stands when `kept` stewards keep the object, `refused` said no and `pending` have not answered.
/// A steward that cannot be reached counts in none of the three.
pub fn write_state(kept: usize, refused: usize, pending: usize) -> WriteState {
    let need = (kept + refused).clamp(WRITE_LEAST, WRITE_ENOUGH);
    if kept >= WRITE_ENOUGH {
        WriteState::Done
    } else if pending > 0 {
        WriteState::Open
    } else if kept >= need {
        WriteState::DoneThin { kept }
    } else {
        WriteState::Failed { kept, need }
    }
}
