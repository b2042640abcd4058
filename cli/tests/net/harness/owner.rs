//! What only the owner of a vault can do, done by hand: its head rewritten as no command would write it.

use bytes::Bytes;
use commonhold_network::Multiaddr;
use commonhold_protocol::{
    Claim, DeviceId, Head, Lease, Manifest, NodeId, Record, ShardIndex, Unverified, Verified, Version, ask::Request,
};
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    frame::{Compressor, DEFAULT_LEVEL},
    keys::VaultKeys,
    seal::{open_head, seal, seal_head},
    segment::SegmentBuilder,
    tree::ChunkSink,
};
use prost::Message;

use super::{Network, Spy, hex_id};

/// What a head's sealed payload says, without the hints (docs/FORMAT.md).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeadContent {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) root: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    table: Bytes,
    #[prost(uint32, tag = "4")]
    k: u32,
    #[prost(uint32, tag = "5")]
    n: u32,
    #[prost(bytes = "bytes", tag = "9")]
    device: Bytes,
    #[prost(uint64, tag = "10")]
    written_at: u64,
}
