//! Why a transfer of one shard with one node failed, and what that says about trying again.

use commonhold_protocol::ask::Refusal;

/// How one attempt with one node ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("it cannot be reached")]
    Unreachable,
    /// It made no progress for too long.
    #[error("it stopped answering")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// What it sent does not fit the shard's root, or breaks the protocol.
    #[error("what it sent is not what was asked for")]
    Wrong,
    /// It answered, and said no.
    #[error("{0}")]
    Refused(Refusal),
}

impl Failure {
    /// True if the same node may well say yes a moment later.
    pub fn is_passing(self) -> bool {
        match self {
            Self::Broken | Self::Refused(Refusal::Busy) => true,
            Self::Unreachable | Self::TimedOut | Self::Wrong | Self::Refused(_) => false,
        }
    }

    /// True if the node itself gave no proper answer, so that its other shards are better asked of others first.
    /// A refusal is a proper answer: it is about one shard, or about space.
    pub fn is_the_nodes(self) -> bool {
        match self {
            Self::Unreachable | Self::TimedOut | Self::Broken | Self::Wrong => true,
            Self::Refused(refusal) => refusal == Refusal::Stopping,
        }
    }
}
