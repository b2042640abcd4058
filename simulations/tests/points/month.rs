//! The named points without repair: a month in which 10% of all nodes leave.

use commonhold_simulations::{
    Scenario,
    chain::{Point, RepairLaw, loss_without_repair},
};

use crate::points::scenario;

/// k and n.
pub(crate) const NAMED: [(u8, u8); 5] = [(2, 4), (4, 6), (1, 3), (4, 8), (20, 30)];

/// The part that is lost.
pub(crate) fn lost(k: u8, n: u8) -> f64 {
    loss_without_repair(k, n, -(-0.1f64).exp_m1())
}

/// Of about so many segments, in networks that one may have in memory at once.
pub(crate) fn month(k: u8, n: u8, segments: u32) -> Scenario {
    let runs = segments.div_ceil(200_000);
    // A life of ten months, a month of 30 days, and no repair ever ends.
    let law = RepairLaw::Fixed;
    let point = Point { k, n, threshold: n - 1, mttf: 300.0, detection: 0.0, repair: 1e7, law };
    let mut scenario = scenario(&point, 30.0, 200_000, segments / runs, "0s");
    *scenario.runs.get_mut() = runs;
    scenario
}
