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

/// Bytes asked of the reader at once, once a file has shown that it is not small.
const READ_BYTES: usize = 256 << 10;
/// Bytes asked at first: most files are smaller than this.
const FIRST_READ_BYTES: usize = 32 << 10;
/// The most memory of one buffer: a longest chunk that is still being searched, and as much to read ahead. Chunks
/// are slices of it and return it when they are dropped.
const BUFFER_BYTES: usize = 2 * CHUNK_BYTES_MAX;

/// Cuts what a reader delivers into chunks.
pub struct Chunker<R> {
    reader: R,
    /// Read and not yet cut.
    buffer: BytesMut,
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
        Self { reader, buffer: BytesMut::new(), at_end: false, gear, gear_shifted, mask_small, mask_large }
    }

    /// The next chunk; none at the end. After an error the chunker stands where it stood, and can be asked again.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while !self.at_end && self.buffer.len() < CHUNK_BYTES_MAX {
            self.fill()?;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let (_, length) = cut_gear(
            &self.buffer,
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
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// One read.
    fn fill(&mut self) -> io::Result<()> {
        let held = self.buffer.len();
        let wanted = if held == 0 && self.buffer.capacity() == 0 { FIRST_READ_BYTES } else { READ_BYTES };
        if self.buffer.capacity() < held + wanted && !self.buffer.try_reclaim(wanted) {
            // Room for many reads at once: what is left over is moved once per buffer, not once per read.
            let bytes = if wanted == FIRST_READ_BYTES { wanted } else { BUFFER_BYTES };
            let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(bytes));
            self.buffer.extend_from_slice(&full);
        }
        self.buffer.resize(held + wanted, 0);
        let read = loop {
            match self.reader.read(&mut self.buffer[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(held + read.as_ref().map_or(0, |read| *read));
        self.at_end = read? == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
