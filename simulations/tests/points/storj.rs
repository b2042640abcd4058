//! Storj's nine repair ratios as scenarios of the simulator.

use commonhold_simulations::{
    Scenario,
    chain::{Point, RepairLaw},
};

use crate::points::scenario;

/// A network of this ratio's coding and churn: many cycles, the first of which starts whole.
pub(crate) fn ratio(months: f64, k: u8, n: u8, threshold: u8) -> Scenario {
    let mttf = months * 30.0;
    let point = Point { k, n, threshold, mttf, detection: 0.0, repair: 0.01, law: RepairLaw::Fixed };
    scenario(&point, mttf * 20.0, 1000, 300, "1000years")
}
