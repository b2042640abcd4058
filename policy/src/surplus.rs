//! Shards that are held twice, after holders came back from being lost or a partition healed: who keeps, who gives up.
//!
//! The newest claim stays: it was taken in only because the older one counted as lost, and whoever was lost once may
//! be so again, so a node that comes and goes costs one repair for each shard and not one each time. Among claims of
//! one moment the smaller id stays. A copy whose claim nobody took in, since another's stood (a client or a repair had
//! given its holder up, and it took the shard all the same), keeps nothing. A steward only says so; a holder gives up a shard only if most stewards say it
//! *and* it has itself audited the one that keeps. Two copies of one shard cannot both go: a steward never calls both
//! surplus at once, two majorities share a steward, and what has gone proves nothing any more.

use commonhold_protocol::{NodeId, Timestamp};

use crate::{repair::Aim, segment_health::Counters};

/// A healthy holder of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Who.
    pub holder: NodeId,
    /// When it signed its claim.
    pub signed_at: Timestamp,
}

/// Which of the healthy holders of one shard keeps it; all the others are surplus, and so is who holds the shard and whose
/// claim is counted nowhere.
pub fn keeper(healthy: &[Copy]) -> Option<Copy> {
    healthy.iter().max_by_key(|copy| (copy.signed_at, std::cmp::Reverse(copy.holder))).copied()
}

/// True if a steward should speak of surplus at all: not while the segment has to be repaired at once. Who is silent
/// stands: half of all nodes may sleep, and the one that keeps the shard has to prove it anyway.
pub fn may_shrink(aim: impl Into<Aim>, counters: Counters) -> bool {
    !aim.into().is_thin(counters)
}

/// True if a holder may give up its copy: more than half of the record's `stewards` call it surplus, and the keeper
/// that they name has just proven to this holder that it holds the shard.
pub fn may_release(call_it_surplus: usize, stewards: usize, keeper_proved: bool) -> bool {
    stewards > 0 && call_it_surplus * 2 > stewards && keeper_proved
}
