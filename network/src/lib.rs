//! The peer: what a node and a client share of the network. libp2p carries it; nothing here decides anything.
//!
//! A [`Peer`] finds the nodes that are closest to a key, asks small questions and moves shards; what others ask of us
//! comes out of [`Inbound`]. It never verifies a signature, keeps a record or chooses a holder: what arrives is handed
//! on as `Unverified`, and callers judge it.
//!
//! Everything runs on the tokio runtime that [`Peer::start`] is called on: one task drives the swarm, and libp2p gives
//! each connection a task of its own.

mod address;
mod ask;
mod behaviour;
mod book;
mod buffers;
mod config;
mod contact;
mod domain;
mod errors;
mod hanging;
mod inbound;
mod observer;
mod peer;
mod pool;
mod ports;
mod routing;
mod serve;
mod shared;
mod stats;
mod streams;
mod swarm;
mod transfer;
mod transport;
mod wire;

pub use config::{Limits, PeerConfig, Role, StreamLimits};
pub use contact::Contact;
pub use domain::domain_of;
pub use errors::{AskError, NetworkError, TransferError};
pub use inbound::{AskReply, Inbound, InboundAsk, PeerEvent};
pub use libp2p::Multiaddr;
pub use observer::{NoObserver, Observer, Way};
pub use peer::{CLOSEST_MAX, CONNECTION_IDLE, Peer};
pub use ports::with_last_ports;
pub use serve::{BodyError, InboundStream, RangeReply, ServeError, ShardService, StoreBody, serve_stream};
pub use stats::{PeerStats, StatsSnapshot};
pub use transfer::ShardData;
pub use transport::tcp_transport;
