//! How fast this disk takes bytes that are to stay: no holder can acknowledge more.

use std::{fs::File, io::Write, path::Path, time::Instant};

use rand::{RngCore, SeedableRng, rngs::StdRng};

use crate::{Failure, MIB};

/// Written between two syncs: about what one group commit of a holder covers.
const PIECE_BYTES: usize = 16 << 20;

/// MiB/s of `bytes` appended to a file, with a sync after each piece.
pub(crate) fn synced_write_rate(folder: &Path, bytes: u64) -> Result<f64, Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    StdRng::seed_from_u64(1).fill_bytes(&mut piece);
    let path = folder.join("synced");
    let mut file = File::create(&path)?;
    let pieces = bytes.div_ceil(PIECE_BYTES as u64);
    let started = Instant::now();
    for _ in 0..pieces {
        file.write_all(&piece)?;
        file.sync_data()?;
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(&path)?;
    Ok((pieces * PIECE_BYTES as u64 / MIB) as f64 / seconds)
}
