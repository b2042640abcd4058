//! How fast this disk takes bytes that are to stay: no holder can acknowledge more.
//!
//! Measured in two ways, each twice: appended to a growing file, as most programs write; and into space that was
//! allocated before, past the page cache, which is the most that a disk gives. The best counts.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Instant,
};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::{Failure, MIB};

/// Written between two syncs: about what one group commit of a holder covers.
const PIECE_BYTES: usize = 16 << 20;
/// Where direct writes have to begin in memory and on the disk.
const ALIGN_BYTES: usize = 4096;
const ROUNDS: usize = 2;

/// MiB/s, synced after each piece.
pub(crate) struct SyncedWrites {
    pub(crate) appended: f64,
    pub(crate) in_place: f64,
}

impl SyncedWrites {
    /// Writes about `bytes` each time.
    pub(crate) fn measure(folder: &Path, bytes: u64) -> Result<Self, Failure> {
        let mut noise = vec![0; PIECE_BYTES + ALIGN_BYTES];
        StdRng::seed_from_u64(1).fill_bytes(&mut noise);
        let begin = noise.as_ptr().align_offset(ALIGN_BYTES);
        let piece = noise.get(begin..begin + PIECE_BYTES).ok_or("memory that cannot be aligned")?;
        let pieces = bytes.div_ceil(PIECE_BYTES as u64);
        let path = folder.join("synced");
        let mut best = Self { appended: 0.0, in_place: 0.0 };
        for _ in 0..ROUNDS {
            best.appended = best.appended.max(appended(&path, piece, pieces)?);
            best.in_place = best.in_place.max(in_place(&path, piece, pieces)?);
        }
        Ok(best)
    }

    pub(crate) fn best(&self) -> f64 {
        self.appended.max(self.in_place)
    }
}

fn rate(pieces: u64, started: Instant) -> f64 {
    (pieces * PIECE_BYTES as u64 / MIB) as f64 / started.elapsed().as_secs_f64()
}

fn appended(path: &Path, piece: &[u8], pieces: u64) -> Result<f64, Failure> {
    let mut file = File::create(path)?;
    let started = Instant::now();
    for _ in 0..pieces {
        file.write_all(piece)?;
        file.sync_data()?;
    }
    let rate = rate(pieces, started);
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn in_place(path: &Path, piece: &[u8], pieces: u64) -> Result<f64, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).custom_flags(OFlags::DIRECT.bits() as i32);
    let file = options.open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, pieces * PIECE_BYTES as u64)?;
    file.sync_all()?;
    let started = Instant::now();
    for number in 0..pieces {
        file.write_all_at(piece, number * PIECE_BYTES as u64)?;
        file.sync_data()?;
    }
    let rate = rate(pieces, started);
    std::fs::remove_file(path)?;
    Ok(rate)
}
