//! Audits: which shards a steward challenges when, with which chunk groups, and what follows from the answers.
//!
//! [`schedule`] says which segments are due in an epoch, [`containment`] carries the challenges to one holder through
//! and judges them, [`deadline`] says how long an answer may take, and [`detection`] is the law that all of it follows.
//! What an outcome means for the shard is [`crate::segment_health`]'s, what it means for the holder
//! [`crate::reputation`]'s.

pub mod containment;
pub mod deadline;
pub mod detection;
pub mod schedule;

use commonhold_protocol::{SegmentId, ShardIndex, ask::Refusal};

/// The most shards, and the most chunk groups over all of them, in one challenge: the proofs fit one message.
pub const CHALLENGE_MAX: usize = 32;

/// Chunk groups of one shard that are to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The segment.
    pub segment: SegmentId,
    /// Which of its shards.
    pub index: ShardIndex,
    /// 16 KiB chunk groups, ascending, each once; 1 to [`CHALLENGE_MAX`].
    pub groups: Vec<u32>,
}

impl Sample {
    /// True if both are of one shard.
    pub fn is_of_shard(&self, other: &Self) -> bool {
        self.segment == other.segment && self.index == other.index
    }
}

/// What a holder answered to one sample of a challenge, its signature and proof checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The proof is right.
    Held,
    /// Signed, and not a proof of what was asked.
    Wrong,
    /// It says no.
    Refused(Refusal),
    /// It shows that the owner signed another manifest for the segment, and holds a shard of that one.
    Contradicted,
    /// The answer leaves it out.
    Missing,
}

/// How the audit of one shard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It holds the shard.
    Held,
    /// A bad proof, signed by the holder: portable evidence. The shard is lost at once.
    Wrong,
    /// It is there, claims the shard and does not prove it: it said that it has lost it, or it said no or nothing as
    /// often as it is asked. The shard is lost at once, and the holder's reputation falls as for [`Self::Wrong`]:
    /// were saying no any cheaper, it would be what every cheat says.
    Refused,
    /// The owner signed two manifests for one segment, and the holder has the shard of the other: lost, since it
    /// restores nothing here, and no fault of the holder. Were it one, an owner could have any holder thrown out; and
    /// since it takes the owner's signature, no cheat can say it of another's data.
    Contradicted,
    /// It is not there. Its shards are suspect; its reputation is not touched.
    Unreachable,
}
