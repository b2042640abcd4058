//! What can fail, so that a caller knows whether to ask another, to try again or to give up.

use commonhold_protocol::{FormatError, NodeId, ask::Refusal};
use libp2p::Multiaddr;

/// The peer as a whole cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The key has no such spelling as an ed25519 identity.
    #[error("the identity seed gives no ed25519 key")]
    Identity,
    /// QUIC has no pre-shared keys: a private network that listened on it would be open.
    #[error("{address}: a private network can listen on TCP only")]
    PrivateNeedsTcp {
        /// The address that was to be listened on.
        address: Multiaddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// A part of the network stack could not be set up.
    #[error("cannot set up {part}: {reason}")]
    SetUp {
        /// The part.
        part: &'static str,
        /// What it says.
        reason: String,
    },
    /// Too many walks are under way.
    #[error("too many searches are under way")]
    Busy,
    /// The peer has been shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection; remembered for a while, so that asking again costs nothing.
    #[error("node {node} cannot be reached")]
    Unreachable {
        /// Whom we asked.
        node: NodeId,
    },
    /// No answer in time.
    #[error("node {node} did not answer in time")]
    TimedOut {
        /// Whom we asked.
        node: NodeId,
    },
    /// The connection ended before the answer.
    #[error("the connection to node {node} broke")]
    Broken {
        /// Whom we asked.
        node: NodeId,
    },
    /// The answer cannot be read, or is longer than allowed.
    #[error("node {node} answered nonsense")]
    Nonsense {
        /// Whom we asked.
        node: NodeId,
    },
    /// What was to be sent is longer than a message may be.
    #[error("a request of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The peer has been shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// Why a shard did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// No connection; remembered for a while, so that trying again costs nothing.
    #[error("node {node} cannot be reached")]
    Unreachable {
        /// The other side.
        node: NodeId,
    },
    /// The other side answered that it will not.
    #[error("node {node} refuses: {refusal}")]
    Refused {
        /// The other side.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// No byte moved for too long.
    #[error("node {node} has stopped answering")]
    TimedOut {
        /// The other side.
        node: NodeId,
    },
    /// The stream ended in the middle.
    #[error("the stream to node {node} broke")]
    Broken {
        /// The other side.
        node: NodeId,
    },
    /// The other side does not keep to the protocol.
    #[error("node {node} answered nonsense: {reason}")]
    Nonsense {
        /// The other side.
        node: NodeId,
        /// What was wrong.
        reason: String,
    },
    /// Our own request is not one that can be sent.
    #[error("not a request that can be sent: {0}")]
    Request(FormatError),
    /// The peer has been shut down.
    #[error("the network is shut down")]
    Stopped,
}
