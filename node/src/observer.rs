//! Who may watch what reaches a node. The daemon itself watches nothing; a test that wants to prove that a node sees no
//! plaintext passes an observer that writes all of it down.

use commonhold_protocol::{
    Lease, Manifest, NodeId, ShardIndex, Unverified,
    ask::{Request, Response},
};

/// Hears of every message after transport decryption and decoding. All methods do nothing by default.
pub trait Observer: Send + Sync + 'static {
    /// A peer asked something.
    fn asked(&self, _from: NodeId, _request: &Request) {}
    /// We answered.
    fn answered(&self, _to: NodeId, _response: &Response) {}
    /// A peer offered a shard.
    fn offered(
        &self,
        _from: NodeId,
        _manifest: &Unverified<Manifest>,
        _index: ShardIndex,
        _lease: Option<&Unverified<Lease>>,
    ) {
    }
    /// Bytes of a shard came.
    fn received(&self, _from: NodeId, _piece: &[u8]) {}
    /// Bytes of a proven range were handed out.
    fn sent(&self, _to: NodeId, _encoded: &[u8]) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
