//! The holder's side of a shard stream: reads requests, asks a [`ShardService`], and sends what it answers.
//!
//! Decides nothing: whether a shard is taken, and which bytes answer a read, is the service's business. Enforced here:
//! header lengths, the exact length of a body, and that bytes keep moving.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use commonhold_protocol::{
    Claim, FormatError, Lease, Manifest, NodeId, SegmentId, ShardIndex, Unverified,
    ask::Refusal,
    shard_stream::{ENCODED_BYTES_MAX, GroupRange, ShardReply, ShardRequest},
};
use libp2p::Multiaddr;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    config::StreamLimits,
    observer::{Observer, Way},
    shared::Heard,
    stats::PeerStats,
    wire::{Wire, WireError, Written},
};

/// What a holder does for its peers.
pub trait ShardService: Send + Sync {
    /// Takes a shard. Check the manifest, make room, then [`StoreBody::go`] and read the pieces. Answer only when the
    /// shard is durable; at once, without a `go`, if it was before.
    fn store(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> impl Future<Output = Result<Claim, Refusal>> + Send;

    /// Reads chunk groups of a shard, with their proofs.
    fn read(
        &self,
        from: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> impl Future<Output = Result<RangeReply, Refusal>> + Send;
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeReply {
    /// A Bao response for the ranges that were asked for.
    pub encoded: Bytes,
    /// The manifest, if it was wanted.
    pub manifest: Option<Unverified<Manifest>>,
}

/// Why the bytes of a shard that is being stored do not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No byte came for too long.
    #[error("the sender has stopped sending")]
    TimedOut,
    /// The stream ended in the middle.
    #[error("the stream broke in the middle of a shard")]
    Broken,
    /// [`StoreBody::go`] was not called, or was called twice.
    #[error("the bytes of a shard were not asked for exactly once")]
    Order,
}

enum Body {
    Waiting,
    Receiving { remaining: u64 },
    Broken,
}

/// The bytes of a shard that someone wants to store. Not one of them is sent before [`StoreBody::go`].
pub struct StoreBody {
    wire: Wire,
    body: Body,
    from: NodeId,
    observer: Arc<dyn Observer>,
}

impl StoreBody {
    /// Tells the sender to send the `shard_length` bytes that the manifest promises.
    pub async fn go(&mut self, shard_length: u64) -> Result<(), BodyError> {
        if !matches!(self.body, Body::Waiting) {
            return Err(BodyError::Order);
        }
        let sent = self.reply(&ShardReply::Go).await;
        self.note(sent)?;
        self.body = Body::Receiving { remaining: shard_length };
        Ok(())
    }

    /// The next piece, at most 256 KiB; none after exactly the promised bytes.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        let remaining = match self.body {
            Body::Receiving { remaining: 0 } => return Ok(None),
            Body::Receiving { remaining } => remaining,
            Body::Broken => return Err(BodyError::Broken),
            Body::Waiting => return Err(BodyError::Order),
        };
        let piece = self.wire.read_piece(remaining).await;
        let piece = self.note(piece)?;
        self.observer.shard_bytes(Way::From(self.from), &piece);
        self.body = Body::Receiving { remaining: remaining - piece.len() as u64 };
        Ok(Some(piece))
    }

    async fn reply(&mut self, reply: &ShardReply) -> Result<(), WireError> {
        self.observer.shard_reply(Way::To(self.from), reply);
        self.wire.write_header(&reply.to_bytes()).await
    }

    fn note<T>(&mut self, result: Result<T, WireError>) -> Result<T, BodyError> {
        result.map_err(|error| {
            self.body = Body::Broken;
            if matches!(error, WireError::TimedOut) { BodyError::TimedOut } else { BodyError::Broken }
        })
    }
}

/// A stream that a peer opened to us.
pub struct InboundStream {
    /// Who opened it.
    pub from: NodeId,
    /// The address that its connection comes from, as we observe it; none if it ended meanwhile.
    pub from_addr: Option<Multiaddr>,
    pub(crate) stream: libp2p::Stream,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) strikes: crate::swarm::Strikes,
    /// The stream's share of the limits; given back when the stream is dropped.
    pub(crate) permits: [OwnedSemaphorePermit; 2],
}

/// Why a stream was given up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer does not keep to the protocol.
    #[error("node {from} sent nonsense: {reason}")]
    Nonsense {
        /// The peer.
        from: NodeId,
        /// What was wrong.
        reason: FormatError,
    },
    /// No byte moved for too long in the middle of an exchange.
    #[error("node {from} has stopped in the middle of an exchange")]
    TimedOut {
        /// The peer.
        from: NodeId,
    },
    /// The stream broke in the middle of an exchange.
    #[error("the stream of node {from} broke in the middle of an exchange")]
    Broken {
        /// The peer.
        from: NodeId,
    },
}

/// A header that announces too many bytes, as an error of the format.
fn too_long(bytes: usize) -> FormatError {
    FormatError::TooLong {
        what: "shard request",
        bytes,
        bytes_max: commonhold_protocol::shard_stream::HEADER_BYTES_MAX,
    }
}

/// Serves one exchange after another until the peer closes the stream or leaves it unused.
pub async fn serve_stream<S: ShardService>(
    stream: InboundStream,
    service: &S,
    limits: StreamLimits,
) -> Result<(), ServeError> {
    let InboundStream { from, from_addr: _, stream, stats, heard, observer, strikes, permits } = stream;
    let wire = Wire::new(stream, limits.progress, stats, heard);
    let body = StoreBody { wire, body: Body::Waiting, from, observer };
    let served = serve(body, service, limits.idle).await;
    if let Err(ServeError::Nonsense { .. }) = &served {
        strikes.report();
    }
    drop(permits);
    served
}

async fn serve<S: ShardService>(mut body: StoreBody, service: &S, idle: Duration) -> Result<(), ServeError> {
    let from = body.from;
    let broken = |error: WireError| match error {
        WireError::TimedOut => ServeError::TimedOut { from },
        _ => ServeError::Broken { from },
    };
    loop {
        // The opener closes first: our patience is twice its own, so that it never writes into a stream we just closed.
        let header = match body.wire.read_header(idle * 2).await {
            Ok(header) => header,
            Err(WireError::Closed | WireError::TimedOut) => return Ok(()),
            Err(WireError::TooLong(bytes)) => return Err(ServeError::Nonsense { from, reason: too_long(bytes) }),
            Err(WireError::Broken) => return Err(ServeError::Broken { from }),
        };
        let request = ShardRequest::from_bytes(header).map_err(|reason| ServeError::Nonsense { from, reason })?;
        body.observer.shard_request(Way::From(from), &request);
        match request {
            ShardRequest::Store { manifest, index, lease } => {
                body.body = Body::Waiting;
                let outcome = service.store(from, manifest, index, lease, &mut body).await;
                let reply = match outcome {
                    Ok(claim) => ShardReply::Stored { claim },
                    Err(refusal) => ShardReply::Refused(refusal),
                };
                let whole = match body.body {
                    Body::Waiting => true,
                    Body::Receiving { remaining } => remaining == 0,
                    Body::Broken => return Err(ServeError::Broken { from }),
                };
                body.reply(&reply).await.map_err(broken)?;
                if !whole {
                    // What the sender still sends cannot be told from the next header.
                    body.wire.close().await;
                    return Ok(());
                }
            }
            ShardRequest::Read { segment, index, ranges, want_manifest } => {
                match service.read(from, segment, index, ranges, want_manifest).await {
                    Ok(RangeReply { encoded, manifest }) if encoded.len() as u64 <= ENCODED_BYTES_MAX => {
                        let reply = ShardReply::Range { encoded_bytes: encoded.len() as u64, manifest };
                        body.observer.shard_reply(Way::To(from), &reply);
                        body.wire.queue_header(&reply.to_bytes()).await.map_err(broken)?;
                        body.observer.shard_bytes(Way::To(from), &encoded);
                        match body.wire.write_raw(&encoded).await.map_err(broken)? {
                            Written::All => {}
                            Written::Interrupted => return Err(ServeError::Broken { from }),
                        }
                    }
                    Ok(_) => body.reply(&ShardReply::Refused(Refusal::Invalid)).await.map_err(broken)?,
                    Err(refusal) => body.reply(&ShardReply::Refused(refusal)).await.map_err(broken)?,
                }
            }
        }
    }
}
