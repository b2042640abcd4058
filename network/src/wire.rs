//! Headers and raw bytes on one shard stream: lengths are checked before anything is allocated, and every step fails
//! when no byte moves for too long. Knows nothing of what the headers mean.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use commonhold_protocol::shard_stream::{HEADER_BYTES_MAX, PIECE_BYTES};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::{
    buffers::Buffer,
    shared::Heard,
    stats::{PeerStats, add},
};

/// A piece may take so many times the time that a byte may take: whoever sends a byte now and then would otherwise
/// hold a stream, and room on a disk, for weeks. With the usual 10 seconds that is 2 KiB/s.
const PIECE_PATIENCE: u32 = 12;

/// How a step on a stream failed.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The other side ended the stream between two exchanges.
    Closed,
    /// No byte moved for too long.
    TimedOut,
    /// The stream broke.
    Broken,
    /// A header announced more bytes than one may have.
    TooLong(usize),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "a shard stream broke");
        Self::Broken
    }
}

/// How writing raw bytes ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of them are on their way.
    All,
    /// The other side began to answer before it had them all.
    Interrupted,
}

/// One shard stream.
pub(crate) struct Wire<S = libp2p::Stream> {
    stream: S,
    progress: Duration,
    stats: Arc<PeerStats>,
    heard: Arc<Heard>,
    /// A byte of the next header that was read while we wrote.
    peeked: Option<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S, progress: Duration, stats: Arc<PeerStats>, heard: Arc<Heard>) -> Self {
        Self { stream, progress, stats, heard, peeked: None }
    }

    /// Reads the next header; its first byte may take `patience`, the others the usual time.
    pub(crate) async fn read_header(&mut self, patience: Duration) -> Result<Bytes, WireError> {
        let mut length = [0; 4];
        let mut filled = 0;
        if let Some(byte) = self.peeked.take() {
            length[0] = byte;
            filled = 1;
        }
        while filled < length.len() {
            let wait = if filled == 0 { patience } else { self.progress };
            match timeout(wait, self.stream.read(&mut length[filled..])).await {
                Err(_) => return Err(WireError::TimedOut),
                Ok(Ok(0)) if filled == 0 => return Err(WireError::Closed),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(Ok(count)) => filled += count,
                Ok(Err(error)) => return Err(error.into()),
            }
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(WireError::TooLong(length));
        }
        let mut header = BytesMut::zeroed(length);
        self.fill(&mut header).await?;
        Ok(header.freeze())
    }

    /// Writes a header and sends it on its way.
    pub(crate) async fn write_header(&mut self, header: &[u8]) -> Result<(), WireError> {
        self.queue_header(header).await?;
        self.flush().await
    }

    /// Writes a header that raw bytes follow at once.
    pub(crate) async fn queue_header(&mut self, header: &[u8]) -> Result<(), WireError> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(WireError::TooLong(header.len()));
        }
        let mut framed = Vec::with_capacity(4 + header.len());
        framed.extend_from_slice(&(header.len() as u32).to_le_bytes());
        framed.extend_from_slice(header);
        let mut rest = framed.as_slice();
        while !rest.is_empty() {
            match timeout(self.progress, self.stream.write(rest)).await {
                Err(_) => return Err(WireError::TimedOut),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => rest = &rest[written?..],
            }
        }
        Ok(())
    }

    /// Reads one piece: `remaining` bytes, or [`PIECE_BYTES`] of them.
    pub(crate) async fn read_piece(&mut self, remaining: u64) -> Result<Bytes, WireError> {
        let length = usize::try_from(remaining).map_or(PIECE_BYTES, |remaining| remaining.min(PIECE_BYTES));
        let mut piece = Buffer::take(length);
        self.fill(piece.as_mut_slice()).await?;
        add(&self.stats.shard_bytes_received, length as u64);
        Ok(piece.freeze())
    }

    /// Reads `length` raw bytes, which the caller has bounded, into one buffer.
    pub(crate) async fn read_whole(&mut self, length: usize) -> Result<Bytes, WireError> {
        let mut whole = Buffer::take(length);
        for piece in whole.as_mut_slice().chunks_mut(PIECE_BYTES) {
            self.fill(piece).await?;
            add(&self.stats.shard_bytes_received, piece.len() as u64);
        }
        Ok(whole.freeze())
    }

    /// Writes raw bytes and sends them on their way. Stops when the other side begins to answer: a holder whose disk
    /// fills up in the middle does not take in the rest, so whoever only wrote would wait for ever.
    pub(crate) async fn write_raw(&mut self, raw: &[u8]) -> Result<Written, WireError> {
        for piece in raw.chunks(PIECE_BYTES) {
            let deadline = Instant::now() + self.progress * PIECE_PATIENCE;
            let mut rest = piece;
            while !rest.is_empty() {
                if Instant::now() > deadline {
                    return Err(WireError::TimedOut);
                }
                match timeout(self.progress, self.write_or_peek(rest)).await {
                    Err(_) => return Err(WireError::TimedOut),
                    Ok(Ok(0)) => return Ok(Written::Interrupted),
                    Ok(count) => rest = &rest[count?..],
                }
            }
            self.heard.note(); // what the other side takes in shows that it is there, as what it sends does
            add(&self.stats.shard_bytes_sent, piece.len() as u64);
        }
        self.flush().await?;
        Ok(Written::All)
    }

    /// Writes some of `raw`, or 0 if a byte of an answer came instead, which is then kept.
    async fn write_or_peek(&mut self, raw: &[u8]) -> io::Result<usize> {
        if self.peeked.is_some() {
            return Ok(0);
        }
        poll_fn(|cx| {
            if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, raw) {
                return Poll::Ready(match written {
                    Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                    written => written,
                });
            }
            let mut byte = [0];
            match Pin::new(&mut self.stream).poll_read(cx, &mut byte) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {
                    self.peeked = Some(byte[0]);
                    Poll::Ready(Ok(0))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Ends our side, so that what was written arrives before the stream is gone.
    pub(crate) async fn close(&mut self) {
        let _ = timeout(self.progress, self.stream.close()).await;
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        match timeout(self.progress, self.stream.flush()).await {
            Err(_) => Err(WireError::TimedOut),
            Ok(flushed) => Ok(flushed?),
        }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), WireError> {
        let deadline = Instant::now() + self.progress * PIECE_PATIENCE;
        let mut filled = 0;
        while filled < buffer.len() {
            if Instant::now() > deadline {
                return Err(WireError::TimedOut);
            }
            match timeout(self.progress, self.stream.read(&mut buffer[filled..])).await {
                Err(_) => return Err(WireError::TimedOut),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count?,
            }
        }
        self.heard.note();
        Ok(())
    }
}
