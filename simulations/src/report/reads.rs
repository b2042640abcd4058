//! How many reads work, and how far that can be trusted.

use super::Estimate;
use crate::{
    confidence::{design_effect, share_interval},
    tally::Tally,
};

/// So many moments of a run are put together, a twentieth of it: those that are close are alike, since who is off stays
/// so for a while.
const BATCH: usize = 10;

/// Reads of one moment fail together, with those who are off: they count as fewer, by how much more the runs scatter
/// than independent reads would, or the batches of moments do. One run says nothing of the former, and a few not much.
pub(super) fn availability(runs: &[Tally]) -> Estimate {
    let by_run = counts(runs.iter().map(|run| run.reads.as_slice()));
    let by_batch = counts(runs.iter().flat_map(|run| run.reads.chunks(BATCH)));
    let scatter = design_effect(&by_run).max(design_effect(&by_batch));
    let (failed, tried) = sum(&by_run);
    let (low, high) = share_interval((tried - failed) as f64 / scatter, tried as f64 / scatter);
    Estimate { value: 1.0 - failed as f64 / tried.max(1) as f64, low, high }
}

/// The sum of each of these, but for those in which there was nothing left to read.
fn counts<'t>(parts: impl Iterator<Item = &'t [(u64, u64)]>) -> Vec<(u64, u64)> {
    parts.map(sum).filter(|(_, tried)| *tried > 0).collect()
}

fn sum(reads: &[(u64, u64)]) -> (u64, u64) {
    reads.iter().fold((0, 0), |(failed, tried), (more_failed, more)| (failed + more_failed, tried + more))
}
