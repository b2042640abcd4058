//! Who may watch what a peer says and hears once it is decrypted: for tests that prove what a node sees, and what not.

use commonhold_protocol::{
    NodeId,
    ask::{Request, Response},
    shard_stream::{ShardReply, ShardRequest},
};

/// Which way a message goes, and who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From this node to us.
    From(NodeId),
    /// From us to this node.
    To(NodeId),
}

/// Hears of each question, each answer, each header of a shard stream and all bytes of shards that a peer decodes or
/// sends, whichever side began. All methods do nothing by default; they are called in the middle of the work.
///
/// Not heard of is what never becomes such a message: nonsense, questions beyond a peer's share, which are refused unread,
/// answers that come too late to be read, what libp2p says to itself to find and to reach peers (ids, keys of Kademlia,
/// addresses), and what is relayed, which only its two ends can decrypt.
pub trait Observer: Send + Sync + 'static {
    /// A question.
    fn request(&self, _way: Way, _request: &Request) {}
    /// The answer to one.
    fn response(&self, _way: Way, _response: &Response) {}
    /// A shard is offered or asked for.
    fn shard_request(&self, _way: Way, _request: &ShardRequest) {}
    /// What a holder says to that.
    fn shard_reply(&self, _way: Way, _reply: &ShardReply) {}
    /// Bytes of a shard that is stored, or of a proven range that is read.
    fn shard_bytes(&self, _way: Way, _bytes: &[u8]) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
