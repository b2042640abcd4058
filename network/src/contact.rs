//! A node and where it was last known to listen; and the two spellings of its id.

use commonhold_protocol::NodeId;
use libp2p::{Multiaddr, PeerId};

/// A node and the addresses to dial it at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub node: NodeId,
    /// Where, the likeliest first.
    pub addrs: Vec<Multiaddr>,
}

impl Contact {
    /// The likeliest address, with `/p2p/ID`: what others can enter the network by.
    pub fn dialable(&self) -> Option<Multiaddr> {
        self.addrs.first()?.clone().with_p2p(peer_id(self.node)?).ok()
    }
}

/// The libp2p spelling of a node id. None if the 32 bytes are no ed25519 key that libp2p takes.
pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.peer_id_bytes()).ok()
}

/// The node behind a libp2p peer id; none if its key is not ed25519.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}
