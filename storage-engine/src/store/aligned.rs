//! Memory and reads that direct I/O accepts: whole units, at addresses that are multiples of a unit.
//!
//! Does no direct I/O itself: `disk` goes past the page cache where what it is given allows that.

use std::{io, ops::Range};

use super::{disk::VolumeFile, record::UNIT_BYTES};

const ALIGN_BYTES: usize = UNIT_BYTES as usize;

/// Bytes read or written in one go: enough for the full rate of a disk (measured: 256 KiB are 2.1 GB/s, 4 MiB 2.5), and
/// little enough to take it for each of a node's shard streams.
pub(crate) const PIECE_BYTES: usize = 512 << 10;

/// Bytes that begin at an aligned address and never move.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    /// Never grows: its address would change.
    bytes: Vec<u8>,
    /// Bytes before the aligned address.
    skipped: usize,
    /// Bytes that there may be from the aligned address on.
    capacity: usize,
}

impl AlignedBuffer {
    /// An empty one with room for so many bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + ALIGN_BYTES - 1);
        // More only where a platform cannot tell; then the address is not aligned, and I/O goes through the page cache.
        let skipped = bytes.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES - 1);
        bytes.resize(skipped, 0);
        Self { bytes, skipped, capacity }
    }

    /// Appends what fits of `piece` and gives the rest.
    pub(crate) fn fill<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let (now, rest) = piece.split_at(piece.len().min(self.capacity - self.as_slice().len()));
        self.bytes.extend_from_slice(now);
        rest
    }

    /// Cuts to `length` bytes, at most the capacity, or appends zeros up to it.
    pub(crate) fn set_length(&mut self, length: usize) {
        self.bytes.resize(self.skipped + length.min(self.capacity), 0);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.skipped..]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skipped..]
    }
}

/// Reads a volume in pieces of whole units.
pub(crate) struct AlignedReader<'a> {
    file: &'a dyn VolumeFile,
    /// Taken with the first read, replaced if a longer one follows.
    buffer: AlignedBuffer,
    /// The file's bytes that are in the buffer.
    held: Range<u64>,
}

impl<'a> AlignedReader<'a> {
    pub(crate) fn new(file: &'a dyn VolumeFile) -> Self {
        Self { file, buffer: AlignedBuffer::default(), held: 0..0 }
    }

    /// The first of the file's `bytes`: at least one of them, if there are any. Reads ahead, but not beyond the unit in
    /// which they end.
    pub(crate) fn first_of(&mut self, bytes: Range<u64>) -> io::Result<&[u8]> {
        if !self.held.contains(&bytes.start) {
            let start = bytes.start / UNIT_BYTES * UNIT_BYTES;
            let length = (bytes.end.next_multiple_of(UNIT_BYTES) - start).min(PIECE_BYTES as u64) as usize;
            self.held = 0..0;
            if self.buffer.capacity < length {
                self.buffer = AlignedBuffer::with_capacity(length);
            }
            self.buffer.set_length(length);
            self.file.read(start, self.buffer.as_mut_slice())?;
            self.held = start..start + length as u64;
        }
        let within = |at: u64| (at.min(self.held.end) - self.held.start) as usize;
        Ok(&self.buffer.as_slice()[within(bytes.start)..within(bytes.end)])
    }
}
