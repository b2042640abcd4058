//! How a peer is set up, and every limit that it keeps.

use std::time::Duration;

use commonhold_protocol::NetworkName;
use libp2p::Multiaddr;
use zeroize::Zeroizing;

/// What a peer is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers Kademlia queries and is found by them.
    Node,
    /// Asks, and is never listed by others.
    Client,
}

/// All that [`crate::Peer::start`] needs.
pub struct PeerConfig {
    /// The seed of the ed25519 key whose public half is our node id.
    pub identity_seed: Zeroizing<[u8; 32]>,
    /// The network's name: part of every protocol id and of the handshake.
    pub network: NetworkName,
    /// Makes the network private: nobody connects without it. TCP only.
    pub network_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to listen; may be empty for a client.
    pub listen: Vec<Multiaddr>,
    /// Node or client.
    pub role: Role,
    /// Find peers on the local network (mDNS) and open a port at the router (UPnP).
    pub local_discovery: bool,
    /// Learn whether we can be reached (AutoNAT v2), be reached through relays and punch holes (DCUtR); a node also
    /// relays for others.
    pub relay: bool,
    /// The limits.
    pub limits: Limits,
}

/// What a peer may use at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once, both directions.
    pub connections_max: u32,
    /// No new connections while the process uses more memory than this.
    pub memory_bytes_max: usize,
    /// Requests of others that wait for an answer or are being answered, as queued by [`crate::Inbound`].
    pub asks_queued_max: usize,
    /// What shard streams may use.
    pub streams: StreamLimits,
    /// Bytes that one relayed connection may carry; a relay that stops after a few shards is of no use.
    pub relayed_bytes_max: u64,
    /// Connections that we relay at once.
    pub relayed_connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            memory_bytes_max: 1 << 30,
            asks_queued_max: 256,
            streams: StreamLimits::default(),
            relayed_bytes_max: 4 << 30,
            relayed_connections_max: 16,
        }
    }
}

/// Limits of shard streams.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Streams that we open to one peer at once.
    pub opened_per_peer_max: usize,
    /// Streams that we open to all peers at once.
    pub opened_max: usize,
    /// Streams that one peer may have open to us. More than `opened_per_peer_max`, so that equals never collide.
    pub accepted_per_peer_max: usize,
    /// Streams that all peers together may have open to us.
    pub accepted_max: usize,
    /// A pooled stream that is not used for this long is closed.
    pub idle: Duration,
    /// A transfer fails when no byte moves for this long.
    pub progress: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            opened_per_peer_max: 8,
            opened_max: 256,
            accepted_per_peer_max: 24,
            accepted_max: 1024,
            idle: Duration::from_secs(30),
            progress: Duration::from_secs(10),
        }
    }
}
