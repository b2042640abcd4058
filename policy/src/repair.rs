//! When a segment is repaired, by whom, and how.
//!
//! [`decide`] says what the counters ask for, [`order`] which of the stewards acts and when, [`turns`] what a steward
//! does first, [`plan`] which shards go where, [`refusals`] who is offered none for now. All of it goes by the steward's
//! own audits: nobody can call for a repair, so nobody can call for endless ones, and what a repair may cost is bounded
//! by [`crate::budget`]. A rebuilt shard fits the owner-signed root or is thrown away; that is the driver's check.

pub mod order;
pub mod plan;
pub mod refusals;
pub mod turns;

use commonhold_protocol::{Coding, Timestamp};

use crate::{defaults::ANNOUNCE_MS, segment_health::Counters};

/// What there is room for: nodes that could take a shard of the segment. They are up, trusted or vetting, have space,
/// and have never claimed a shard of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// How many.
    pub nodes: usize,
    /// How many domains they lie in that hold no standing shard of the segment.
    pub domains: usize,
}

/// What a segment needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All n shards stand.
    Whole,
    /// Repair at once: at the threshold, or below.
    Now,
    /// Repair once it has been like this for the top-up time: a holder that returns until then saves the work.
    TopUp,
    /// Nothing can be done: "degraded: `have` of n, no more nodes".
    Resting {
        /// Shards that stand: as many as there is room for.
        have: u8,
    },
    /// Fewer than k shards are healthy, so none can be rebuilt until some come back.
    OutOfReach {
        /// Shards that are healthy.
        healthy: u8,
    },
}

/// What is kept up of a segment, and at how few shards at once. That of a coding is its own; the simulator varies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// k and n.
    pub coding: Coding,
    /// At this many standing shards or fewer, it is repaired at once.
    pub threshold: u8,
}

impl From<Coding> for Aim {
    fn from(coding: Coding) -> Self {
        Self { coding, threshold: coding.threshold() }
    }
}

impl Aim {
    /// So few shards stand that there is no time to lose, and a second shard in a domain is better than none.
    pub fn is_thin(self, counters: Counters) -> bool {
        counters.standing() <= self.threshold
    }
}

/// What `counters` ask for, given who could take shards.
///
/// Suspects count as standing: they are lost only after the grace time, or half of a network that sleeps at night
/// would be rebuilt each evening. The goal is n, or as many as there are domains; of one that is thin, one above the
/// threshold, also where domains are shared for it.
pub fn decide(aim: impl Into<Aim>, counters: Counters, room: Room) -> Decision {
    let aim = aim.into();
    let (n, standing) = (usize::from(aim.coding.n()), usize::from(counters.standing()));
    if standing >= n {
        return Decision::Whole;
    }
    if goal(aim, counters, room) <= standing {
        Decision::Resting { have: counters.standing() }
    } else if counters.healthy < aim.coding.k() {
        Decision::OutOfReach { healthy: counters.healthy }
    } else if aim.is_thin(counters) {
        Decision::Now
    } else {
        Decision::TopUp
    }
}

/// How many shards can stand.
pub fn goal(aim: impl Into<Aim>, counters: Counters, room: Room) -> usize {
    let aim = aim.into();
    let standing = usize::from(counters.standing());
    let apart = standing + room.domains;
    let safe = (usize::from(aim.threshold) + 1).min(standing + room.nodes);
    apart.max(safe).min(aim.coding.n().into())
}

/// Until when shards that nobody claims are waited for, where a record is new with `claimed` shards claimed, for the
/// first time at `first_claimed`; none if it is one that a client or a steward brought, with about all that there are.
///
/// A record that all its stewards lost comes back claim by claim, each of them made anew, from holders that announce all
/// they have once in `announce_ms`, and sleep for less than `grace_ms`. Most of what is not claimed yet is there, and to
/// rebuild it would be to store the segment anew. An old claim tells of a record that was never lost, of which some shards
/// were given up: those are missing.
pub fn claims_awaited_until(
    coding: Coding,
    claimed: usize,
    first_claimed: Timestamp,
    announce_ms: u64,
    grace_ms: u64,
) -> Option<Timestamp> {
    // Others announce as they please: who does so once a year says nothing of them.
    let announce_ms = announce_ms.min(ANNOUNCE_MS);
    (claimed < usize::from(coding.placed_enough())).then(|| first_claimed.after_ms(announce_ms).after_ms(grace_ms))
}
