//! What the auditor knows of one holder.

use std::time::Duration;

use commonhold_policy::{
    audit::{containment::Containment, schedule::Rate},
    life::NodeLife,
    reputation::Reputation,
};
use commonhold_protocol::{SegmentId, ShardIndex, Timestamp};

use super::challenges::ROUND_TRIP_FIRST;

/// One holder; also a node that only might become one.
pub(super) struct HolderState {
    pub(super) life: NodeLife,
    pub(super) life_due: Option<Timestamp>,
    pub(super) containment: Containment,
    pub(super) challenge_due: Option<Timestamp>,
    pub(super) reputation: Reputation,
    /// To be asked for at its next moment.
    pub(super) due: Vec<(SegmentId, ShardIndex)>,
    /// A moment for that is set.
    pub(super) moment_set: bool,
    pub(super) round_trip: Duration,
    pub(super) probing: bool,
    pub(super) probe_due: Option<Timestamp>,
    /// What it would still take, by its own word.
    pub(super) free_bytes: u64,
}

impl HolderState {
    pub(super) fn new(now: Timestamp, grace_ms: u64, rate: Rate) -> Self {
        Self {
            life: NodeLife::new(grace_ms),
            life_due: None,
            containment: Containment::new(rate),
            challenge_due: None,
            reputation: Reputation::new(now),
            due: Vec::new(),
            moment_set: false,
            round_trip: ROUND_TRIP_FIRST,
            probing: false,
            probe_due: None,
            free_bytes: 0,
        }
    }
}
