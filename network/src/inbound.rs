//! What others want of us: questions, shard streams, and news of who is there. Bounded queues; the owner empties them.

use commonhold_protocol::{
    NodeId,
    ask::{Request, Response},
};
use libp2p::Multiaddr;
use tokio::sync::{mpsc, oneshot};

use crate::{contact::Contact, serve::InboundStream};

/// Everything that reaches a peer from outside.
///
/// Each queue is bounded. When `asks` or `streams` is full, the newest is refused, and the other side tries again or
/// asks another; when `events` is full, an event is lost: they are hints, and [`crate::Peer::connected`] has the state.
pub struct Inbound {
    /// Questions.
    pub asks: mpsc::Receiver<InboundAsk>,
    /// Streams on which a peer wants to store or read shards; hand each to [`crate::serve_stream`] in a task.
    pub streams: mpsc::Receiver<InboundStream>,
    /// Who came, went or became known.
    pub events: mpsc::Receiver<PeerEvent>,
}

/// A question, and where the answer goes.
#[derive(Debug)]
pub struct InboundAsk {
    /// Who asks.
    pub from: NodeId,
    /// The address that its connection comes from, as we observe it.
    pub from_addr: Option<Multiaddr>,
    /// What it asks.
    pub request: Request,
    /// Where the answer goes; dropped without one, the asker sees a broken stream.
    pub reply: AskReply,
}

/// The way back to whoever asked.
#[derive(Debug)]
pub struct AskReply(pub(crate) oneshot::Sender<Response>);

impl AskReply {
    /// Sends the answer. It is lost if the asker has gone.
    pub fn send(self, response: Response) {
        let _ = self.0.send(response);
    }
}

/// A change of who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The first connection to a peer of our network.
    Connected {
        /// Who.
        node: NodeId,
        /// Its address, as we observe it.
        address: Multiaddr,
    },
    /// The last connection to a peer has ended.
    Disconnected {
        /// Who.
        node: NodeId,
    },
    /// A node entered the routing table, or is now known at other addresses.
    NewContact(Contact),
    /// A node left the routing table because it cannot be reached.
    LostContact {
        /// Who.
        node: NodeId,
    },
    /// We now listen on this address.
    Listening {
        /// The address.
        address: Multiaddr,
    },
}
