//! The codec of small messages: a length (u32, little-endian), then that many bytes. Too long a message is refused
//! before anything is allocated for it. What the bytes mean is decoded by `commonhold_protocol::ask`, elsewhere.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use commonhold_protocol::ask::ASK_BYTES_MAX;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stats::{PeerStats, add};

/// Memory for the questions of others, in all, from the first byte until they are answered: a peer may open hundreds of
/// streams, and send nearly all of a MiB on each.
const QUESTION_BYTES_MAX: usize = 64 << 20;
/// Shorter questions need no such memory to be free, so that who fills it does not keep everybody from asking.
const QUESTION_BYTES_FREE: usize = 4 << 10;
/// Permits are counted in KiB.
const PERMIT_BYTES: usize = 1 << 10;

/// Frames requests and responses alike.
#[derive(Clone)]
pub(crate) struct AskCodec {
    stats: Arc<PeerStats>,
    questions: Arc<Semaphore>,
}

/// A question, and the memory that it takes.
struct Question {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Question {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AskCodec {
    pub(crate) fn new(stats: Arc<PeerStats>) -> Self {
        Self { stats, questions: Arc::new(Semaphore::new(QUESTION_BYTES_MAX / PERMIT_BYTES)) }
    }

    async fn read_length<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<usize> {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ASK_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(length)
    }

    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T, length: usize) -> io::Result<Bytes> {
        let mut message = BytesMut::zeroed(length);
        io.read_exact(&mut message).await?;
        add(&self.stats.ask_bytes_received, 4 + length as u64);
        Ok(message.freeze())
    }

    async fn write<T: AsyncWrite + Unpin + Send>(&self, io: &mut T, message: &[u8]) -> io::Result<()> {
        if message.len() > ASK_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        io.write_all(&(message.len() as u32).to_le_bytes()).await?;
        io.write_all(message).await?;
        add(&self.stats.ask_bytes_sent, 4 + message.len() as u64);
        io.close().await
    }
}

impl request_response::Codec for AskCodec {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let length = self.read_length(io).await?;
        if length <= QUESTION_BYTES_FREE {
            return self.read(io, length).await;
        }
        let permits = length.div_ceil(PERMIT_BYTES) as u32;
        let permit = self.questions.clone().acquire_many_owned(permits).await.map_err(io::Error::other)?;
        let bytes = self.read(io, length).await?;
        Ok(Bytes::from_owner(Question { bytes, _permit: permit }))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let length = self.read_length(io).await?;
        self.read(io, length).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &response).await
    }
}
