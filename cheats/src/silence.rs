//! How long a node says nothing to a challenge: for as long as it is waited for.
//!
//! And no longer: a node works on a few questions of one peer at a time, those that it is silent about too, and one that
//! is to be there for everything else must have some to spare.

use std::{collections::HashMap, time::Duration};

use commonhold_protocol::{
    NodeId,
    audit::{Challenge, ChallengedShard},
};

/// Nobody waits for an answer for longer than this.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// A challenge that is asked for the first time is waited for this long, on any link that this is used on, ...
const FIRST: Duration = Duration::from_secs(3);
/// ... and so many times longer each time that it is asked again.
const LONGER: u32 = 4;

/// What each node was left without an answer to, and how often in a row.
#[derive(Default)]
pub(crate) struct Silences(HashMap<NodeId, (Vec<ChallengedShard>, u32)>);

impl Silences {
    /// For how long the asker of this challenge waits for an answer.
    pub(crate) fn next(&mut self, from: NodeId, challenge: &Challenge) -> Duration {
        let (shards, asked) = self.0.entry(from).or_default();
        *asked = if *shards == challenge.shards { *asked + 1 } else { 0 };
        shards.clone_from(&challenge.shards);
        FIRST.saturating_mul(LONGER.saturating_pow(*asked)).min(SILENCE)
    }
}
