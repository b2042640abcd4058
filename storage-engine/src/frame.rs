//! The second stage: a chunk becomes a frame, a one-byte codec tag and the chunk, compressed where that helps.
//!
//! A frame is what gets sealed, and the sealing key derives from its exact bytes: two versions of a compressor make
//! two frames, never two messages under one key. Opening is bounded by the length that the chunk's ref states.

use std::{cell::RefCell, io};

use bytes::Bytes;
use zstd::bulk::Decompressor;

use crate::chunk::CHUNK_BYTES_MAX;

/// The chunk as it is.
const TAG_RAW: u8 = 0;
/// One zstd frame.
const TAG_ZSTD: u8 = 1;

/// Bytes that sealing appends: frames leave room for them, so that sealing works in place.
pub(crate) const SEAL_BYTES: usize = 16;

/// zstd's level 1: 485 to 495 MiB/s and 2.9 to 5.6 times smaller on binaries and source code here; level 3 takes a
/// quarter to a half more time for a tenth, and what is saved in bytes must first be earned back on the wire.
pub const DEFAULT_LEVEL: i32 = 1;

/// A compressed chunk is kept if it saves more than one part in this many: below that, every later read would
/// decompress for nothing.
const SAVES_AT_LEAST: usize = 32;
/// After this many chunks in a row that did not compress, a stream is sampled instead of compressed.
const INCOMPRESSIBLE_AFTER: u32 = 2;
/// Bytes of each of the samples taken of a chunk of such a stream.
const SAMPLE_BYTES: usize = 2 << 10;
/// Where the samples are taken, in quarters of the chunk.
const SAMPLE_QUARTERS: [usize; 3] = [0, 2, 3];

/// A chunk, ready to be sealed.
pub struct Frame(Vec<u8>);

/// Why a frame's bytes are not a chunk.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// No byte at all.
    #[error("an empty frame")]
    Empty,
    /// A codec that this program does not know.
    #[error("frame: codec {tag} is not known here; a newer commonhold may read it")]
    Codec {
        /// The tag found.
        tag: u8,
    },
    /// The chunk is said to be longer than any chunk is.
    #[error("frame: a chunk of {plain_length} bytes, at most {CHUNK_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes said.
        plain_length: u32,
    },
    /// The chunk is not as long as its ref says.
    #[error("frame: the chunk is not {plain_length} bytes long")]
    Length {
        /// Bytes said.
        plain_length: u32,
    },
    /// zstd cannot read it, or would give more bytes than the chunk has.
    #[error("frame: not decompressible to {plain_length} bytes")]
    Zstd {
        /// Bytes said.
        plain_length: u32,
        /// What zstd says.
        source: io::Error,
    },
}

impl Frame {
    /// The frame with exactly these bytes, as unsealed.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to seal.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes, to seal in place.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn with_tag(tag: u8, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + body.len() + SEAL_BYTES);
        bytes.push(tag);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// The chunk, which must be `plain_length` bytes; never takes more memory than that.
    pub fn open(self, plain_length: u32) -> Result<Bytes, FrameError> {
        let length = plain_length as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(FrameError::TooLong { plain_length });
        }
        match self.0.split_first() {
            None => Err(FrameError::Empty),
            Some((&TAG_RAW, body)) if body.len() == length => Ok(Bytes::from(self.0).slice(1..)),
            Some((&TAG_RAW, _)) => Err(FrameError::Length { plain_length }),
            Some((&TAG_ZSTD, body)) => {
                let mut chunk = Vec::with_capacity(length);
                decompress(body, &mut chunk).map_err(|source| FrameError::Zstd { plain_length, source })?;
                if chunk.len() == length { Ok(chunk.into()) } else { Err(FrameError::Length { plain_length }) }
            }
            Some((&tag, _)) => Err(FrameError::Codec { tag }),
        }
    }
}

/// Decompresses into the capacity that `chunk` has; more is an error.
fn decompress(body: &[u8], chunk: &mut Vec<u8>) -> io::Result<usize> {
    thread_local! {
        /// zstd's tables (about 100 KiB), kept for the next chunk.
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress_to_buffer(body, chunk),
        None => kept.insert(Decompressor::new()?).decompress_to_buffer(body, chunk),
    })
}

/// Makes frames, with a zstd context that is used again and again.
///
/// It remembers whether what it was given lately compressed. A stream that does not (photos, films, archives) is
/// only sampled, at a twentieth of the cost, until a sample compresses.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// Where zstd writes; as long as the longest chunk so far.
    scratch: Vec<u8>,
    incompressible_chunks: u32,
}

impl Compressor {
    /// A compressor with a zstd level, usually [`DEFAULT_LEVEL`].
    pub fn new(level: i32) -> io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(level)?;
        Ok(Self { zstd, scratch: Vec::new(), incompressible_chunks: 0 })
    }

    /// Forgets what was seen so far: another file begins.
    pub fn begin_file(&mut self) {
        self.incompressible_chunks = 0;
    }

    /// The frame of `chunk`.
    pub fn frame(&mut self, chunk: &[u8]) -> Frame {
        if self.incompressible_chunks >= INCOMPRESSIBLE_AFTER && !self.sample_compresses(chunk) {
            return Frame::with_tag(TAG_RAW, chunk);
        }
        if let Some(bytes) = self.compress(chunk) {
            self.incompressible_chunks = 0;
            return Frame::with_tag(TAG_ZSTD, &self.scratch[..bytes]);
        }
        self.incompressible_chunks = self.incompressible_chunks.saturating_add(1);
        Frame::with_tag(TAG_RAW, chunk)
    }

    /// Compresses into the scratch buffer; gives the bytes if they are worth it.
    fn compress(&mut self, plain: &[u8]) -> Option<usize> {
        let worth_bytes = plain.len() - plain.len().div_ceil(SAVES_AT_LEAST);
        if self.scratch.len() < worth_bytes {
            self.scratch.resize(worth_bytes, 0);
        }
        // zstd fails as soon as its output does not fit: what is not worth it is not even written.
        self.zstd.compress_to_buffer(plain, &mut self.scratch[..worth_bytes]).ok()
    }

    /// Whether any of a few samples compresses.
    fn sample_compresses(&mut self, chunk: &[u8]) -> bool {
        SAMPLE_QUARTERS.iter().any(|quarters| {
            let start = (chunk.len() / 4 * quarters).min(chunk.len().saturating_sub(SAMPLE_BYTES));
            self.compress(&chunk[start..chunk.len().min(start + SAMPLE_BYTES)]).is_some()
        })
    }
}

#[cfg(test)]
mod tests;
