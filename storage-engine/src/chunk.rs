//! The first stage: a file becomes chunks at boundaries that its content sets.
//!
//! FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking", 2020; crate `fastcdc`, v2020) with chunks of
//! 32 KiB to 512 KiB, about 128 KiB on average, and a seed per vault: an insertion moves two boundaries, not all, and
//! two vaults cut the same file differently, so that lengths alone do not tell which known file a vault holds. (A
//! hindrance, not secrecy.) Boundaries depend on the bytes and the seed alone, never on how a reader delivers them.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// No chunk is shorter but the last of a file.
pub const CHUNK_BYTES_MIN: usize = 32 << 10;
/// About the average.
pub const CHUNK_BYTES_AVERAGE: usize = 128 << 10;
/// No chunk is longer.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;

/// The most bytes asked of the reader at once.
const READ_BYTES_MAX: usize = 256 << 10;
/// The fewest: less room than this, and the buffer is changed for another.
const READ_BYTES_MIN: usize = 4 << 10;
/// The first buffer of a file: most files are smaller, and ask for no other.
const FIRST_BUFFER_BYTES: usize = 32 << 10;
/// The largest buffer: a longest chunk that is still being searched, and as much to read ahead. Chunks are slices of
/// the buffer; it is used again if they were dropped before it is full, and left to them if not.
const BUFFER_BYTES_MAX: usize = 2 * CHUNK_BYTES_MAX;

/// Cuts what a reader delivers into chunks.
pub struct Chunker<R> {
    reader: R,
    /// What was read and is not yet cut, then bytes to read into.
    buffer: BytesMut,
    /// Bytes of the buffer that were read.
    filled: usize,
    at_end: bool,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    mask_small: u64,
    mask_large: u64,
}

impl<R: Read> Chunker<R> {
    /// Chunks of `reader`, with the boundaries of the vault that has this seed.
    pub fn new(reader: R, seed: u64) -> Self {
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        let (mask_small, mask_large) = select_masks(CHUNK_BYTES_AVERAGE, Normalization::Level1);
        Self { reader, buffer: BytesMut::new(), filled: 0, at_end: false, gear, gear_shifted, mask_small, mask_large }
    }

    /// The next chunk; none at the end. After an error the chunker stands where it stood, and can be asked again.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while !self.at_end && self.filled < CHUNK_BYTES_MAX {
            self.fill()?;
        }
        if self.filled == 0 {
            return Ok(None);
        }
        let (_, length) = cut_gear(
            &self.buffer[..self.filled],
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_AVERAGE,
            CHUNK_BYTES_MAX,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            &self.gear,
            &self.gear_shifted,
        );
        self.filled -= length;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// One read.
    fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() == self.filled {
            self.make_room();
        }
        let read = loop {
            match self.reader.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.filled += read;
        self.at_end = read == 0;
        Ok(())
    }

    /// Appends bytes to read into; each is zeroed once, however little a read delivers.
    fn make_room(&mut self) {
        let room = |buffer: &BytesMut| buffer.capacity() - buffer.len();
        if room(&self.buffer) < READ_BYTES_MIN && !self.buffer.try_reclaim(READ_BYTES_MIN) {
            // Four times as much each time: a small file costs a small buffer, a large one few moves.
            let bytes = (self.filled * 4).clamp(FIRST_BUFFER_BYTES, BUFFER_BYTES_MAX);
            let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(bytes));
            self.buffer.extend_from_slice(&full);
        }
        self.buffer.resize(self.filled + room(&self.buffer).min(READ_BYTES_MAX), 0);
    }
}

#[cfg(test)]
mod tests;
