//! What the auditor knows of one node that holds shards, or might.

use std::{collections::BTreeSet, time::Duration};

use commonhold_policy::{
    audit::{containment::Containment, schedule::Rate},
    life::NodeLife,
    reputation::Reputation,
};
use commonhold_protocol::{ShardIndex, Timestamp};

use super::{WardNumber, challenges::ROUND_TRIP_FIRST};

/// One holder; also a node that only might become one.
pub(super) struct HolderState {
    /// The segments that it claims shards of.
    pub(super) wards: BTreeSet<WardNumber>,
    pub(super) life: NodeLife,
    pub(super) life_due: Option<Timestamp>,
    pub(super) containment: Containment,
    pub(super) challenge_due: Option<Timestamp>,
    pub(super) reputation: Reputation,
    /// To be asked for from its next moment on.
    pub(super) due: Vec<(WardNumber, ShardIndex)>,
    /// To be asked for now, as soon as it has answered for what it was asked before.
    pub(super) ready: Vec<(WardNumber, ShardIndex)>,
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
            wards: BTreeSet::new(),
            life: NodeLife::new(grace_ms),
            life_due: None,
            containment: Containment::new(rate),
            challenge_due: None,
            reputation: Reputation::new(now),
            due: Vec::new(),
            ready: Vec::new(),
            moment_set: false,
            round_trip: ROUND_TRIP_FIRST,
            probing: false,
            probe_due: None,
            free_bytes: 0,
        }
    }
}
