//! The codec of small messages: a length (u32, little-endian), then that many bytes. Too long a message is refused
//! before anything is allocated for it. What the bytes mean is decoded by `commonhold_protocol::ask`, elsewhere.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use commonhold_protocol::ask::ASK_BYTES_MAX;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

use crate::stats::{PeerStats, add};

/// Frames requests and responses alike.
#[derive(Clone)]
pub(crate) struct AskCodec {
    stats: Arc<PeerStats>,
}

impl AskCodec {
    pub(crate) fn new(stats: Arc<PeerStats>) -> Self {
        Self { stats }
    }

    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<Bytes> {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ASK_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
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
        self.read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
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
