//! The asker's side of a shard stream: one exchange on a pooled stream, begun again while nothing has been answered.

use std::time::Duration;

use bytes::Bytes;
use commonhold_protocol::{
    Claim, FormatError, NodeId,
    shard_stream::{GROUP_BYTES, GroupRange, HEADER_BYTES_MAX, ShardReply, ShardRequest},
};
use libp2p::PeerId;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    errors::TransferError,
    observer::Way,
    peer::Inner,
    pool::Slot,
    serve::RangeReply,
    stats::add,
    streams::OpenError,
    swarm::Command,
    wire::{Wire, WireError, Written},
};

/// Attempts at an exchange of which not a byte was answered: a pooled stream may have died, a new one been dropped by
/// a peer that was busy for a moment.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; it doubles each time.
const BACK_OFF: Duration = Duration::from_millis(25);
/// After its last byte a shard is synced together with others, on a disk that may be busy; so much longer that takes.
const SYNC_PATIENCE: u32 = 3;
/// Two parents of 64 bytes for each chunk group: no Bao response has more.
const PROOF_BYTES_PER_GROUP: u64 = 2 * 64;
/// The path from the root down to a range, of a tree of at most 1,024 groups, on both sides; and the length header.
const PROOF_BYTES_PER_RANGE: u64 = 2 * 11 * 64 + 8;

/// The bytes of a shard that is to be stored.
#[derive(Debug)]
pub enum ShardData {
    /// All of them.
    Whole(Bytes),
    /// As they come, [`None`] at their end: a channel that closes before that gives the shard up.
    Pieces(mpsc::Receiver<Option<Bytes>>),
    /// Nothing more comes; whether it was the end.
    Ended(bool),
}

impl From<Bytes> for ShardData {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl From<mpsc::Receiver<Option<Bytes>>> for ShardData {
    fn from(pieces: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self::Pieces(pieces)
    }
}

impl ShardData {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Ended(true);
                Some(bytes)
            }
            Self::Pieces(pieces) => {
                let piece = pieces.recv().await;
                match piece {
                    Some(Some(bytes)) => Some(bytes),
                    end => {
                        *self = Self::Ended(end.is_some());
                        None
                    }
                }
            }
            Self::Ended(_) => None,
        }
    }

    fn given_up(&self) -> bool {
        matches!(self, Self::Ended(false))
    }
}

/// An exchange that has its first reply.
struct Exchange {
    peer: PeerId,
    wire: Wire,
    reply: ShardReply,
    _slot: Slot,
}

impl Inner {
    /// Sends a request and reads the first reply.
    async fn begin(&self, to: NodeId, request: &ShardRequest) -> Result<Exchange, TransferError> {
        let header = request.to_bytes();
        if header.len() > HEADER_BYTES_MAX {
            let (bytes, bytes_max) = (header.len(), HEADER_BYTES_MAX);
            return Err(TransferError::Request(FormatError::TooLong { what: "shard request", bytes, bytes_max }));
        }
        let peer = self.connect(to).await.ok_or_else(|| self.unreachable(to))?;
        let slot = self.pool.slot(peer).await.ok_or(TransferError::Stopped)?;
        self.shared.observer.shard_request(Way::To(to), request);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                add(&self.stats.streams_retried, 1);
                tokio::time::sleep(BACK_OFF * 2_u32.pow(attempt - 1)).await;
                self.connect(to).await.ok_or_else(|| self.unreachable(to))?;
            }
            let mut wire = match self.pool.take(&peer) {
                Some(wire) => wire,
                None => match self.open(peer, to).await? {
                    Some(wire) => wire,
                    None => continue,
                },
            };
            match self.request(&mut wire, &header).await {
                Ok(reply) => {
                    let reply = self.read_reply(to, reply)?;
                    return Ok(Exchange { peer, wire, reply, _slot: slot });
                }
                Err(WireError::Closed | WireError::Broken) => self.pool.forget(&peer),
                Err(error) => return Err(self.failed(peer, to, &error)),
            }
        }
        Err(TransferError::Broken { node: to })
    }

    fn read_reply(&self, from: NodeId, reply: Bytes) -> Result<ShardReply, TransferError> {
        let nonsense = |error: FormatError| TransferError::Nonsense { node: from, reason: error.to_string() };
        let reply = ShardReply::from_bytes(reply).map_err(nonsense)?;
        self.shared.observer.shard_reply(Way::From(from), &reply);
        Ok(reply)
    }

    async fn request(&self, wire: &mut Wire, header: &[u8]) -> Result<Bytes, WireError> {
        wire.write_header(header).await?;
        wire.read_header(self.limits.streams.progress).await
    }

    /// Opens a stream; none if the connection ended meanwhile.
    async fn open(&self, peer: PeerId, to: NodeId) -> Result<Option<Wire>, TransferError> {
        let (reply, opened) = oneshot::channel();
        self.commands.send(Command::Open { peer, reply }).await.map_err(|_| TransferError::Stopped)?;
        let progress = self.limits.streams.progress;
        match timeout(progress, opened).await {
            Ok(Ok(Ok(stream))) => {
                add(&self.stats.streams_opened, 1);
                Ok(Some(Wire::new(stream, progress, self.stats.clone(), self.shared.heard(peer))))
            }
            Ok(Ok(Err(OpenError::NotConnected)) | Err(_)) => Ok(None),
            Ok(Ok(Err(OpenError::Unsupported))) => {
                Err(TransferError::Nonsense { node: to, reason: "it does not take shard streams".to_owned() })
            }
            Ok(Ok(Err(OpenError::TimedOut))) | Err(_) => Err(self.failed(peer, to, &WireError::TimedOut)),
        }
    }

    fn unreachable(&self, node: NodeId) -> TransferError {
        if self.commands.is_closed() { TransferError::Stopped } else { TransferError::Unreachable { node } }
    }

    /// What a failed step means for the caller, and for a peer that has gone silent.
    fn failed(&self, peer: PeerId, node: NodeId, error: &WireError) -> TransferError {
        match error {
            WireError::TimedOut => {
                if !self.shared.heard_within(&peer, self.limits.streams.progress) {
                    // A full queue loses the report; the next transfer makes it again.
                    let _ = self.commands.try_send(Command::Silent { peer });
                }
                TransferError::TimedOut { node }
            }
            WireError::TooLong(bytes) => TransferError::Nonsense { node, reason: format!("a header of {bytes} bytes") },
            WireError::Closed | WireError::Broken => TransferError::Broken { node },
        }
    }

    /// Stores one shard; the claim is not verified. Of a shard that the holder has already, no byte is sent.
    pub(crate) async fn store(
        &self,
        to: NodeId,
        request: &ShardRequest,
        mut data: ShardData,
    ) -> Result<Claim, TransferError> {
        let Exchange { peer, mut wire, reply, _slot } = self.begin(to, request).await?;
        match reply {
            ShardReply::Go => {}
            ShardReply::Stored { claim } => {
                self.pool.put_back(peer, wire);
                return Ok(claim);
            }
            ShardReply::Refused(refusal) => {
                self.pool.put_back(peer, wire);
                return Err(TransferError::Refused { node: to, refusal });
            }
            ShardReply::Range { .. } => return Err(unexpected(to)),
        }
        let failed = |error| self.failed(peer, to, &error);
        let mut written = Written::All;
        while written == Written::All
            && let Some(piece) = data.next().await
        {
            self.shared.observer.shard_bytes(Way::To(to), &piece);
            written = wire.write_raw(&piece).await.map_err(failed)?;
        }
        if data.given_up() {
            return Err(TransferError::Stopped);
        }
        let patience = self.limits.streams.progress * SYNC_PATIENCE;
        let reply = wire.read_header(patience).await.map_err(failed)?;
        match self.read_reply(to, reply)? {
            ShardReply::Stored { claim } if written == Written::All => {
                self.pool.put_back(peer, wire);
                Ok(claim)
            }
            // The stream may hold bytes of the shard that nobody will read: it is not used again.
            ShardReply::Refused(refusal) => Err(TransferError::Refused { node: to, refusal }),
            _ => Err(unexpected(to)),
        }
    }

    /// Reads chunk groups of one shard; nothing in the reply is verified.
    pub(crate) async fn read(
        &self,
        to: NodeId,
        request: &ShardRequest,
        ranges: &[GroupRange],
    ) -> Result<RangeReply, TransferError> {
        let Exchange { peer, mut wire, reply, _slot } = self.begin(to, request).await?;
        match reply {
            ShardReply::Range { encoded_bytes, manifest } => {
                if encoded_bytes > answer_bytes_max(ranges) {
                    let reason = format!("{encoded_bytes} bytes for ranges that need fewer");
                    return Err(TransferError::Nonsense { node: to, reason });
                }
                let encoded =
                    wire.read_whole(encoded_bytes as usize).await.map_err(|error| self.failed(peer, to, &error))?;
                self.pool.put_back(peer, wire);
                self.shared.observer.shard_bytes(Way::From(to), &encoded);
                Ok(RangeReply { encoded, manifest })
            }
            ShardReply::Refused(refusal) => {
                self.pool.put_back(peer, wire);
                Err(TransferError::Refused { node: to, refusal })
            }
            ShardReply::Go | ShardReply::Stored { .. } => Err(unexpected(to)),
        }
    }
}

fn unexpected(node: NodeId) -> TransferError {
    TransferError::Nonsense { node, reason: "an answer to another question".to_owned() }
}

/// The most bytes that a Bao response for `ranges` can have; whoever announces more is not believed.
fn answer_bytes_max(ranges: &[GroupRange]) -> u64 {
    let groups: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
    groups * (GROUP_BYTES + PROOF_BYTES_PER_GROUP) + ranges.len() as u64 * PROOF_BYTES_PER_RANGE
}
