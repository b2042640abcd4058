//! The loss chance that policy chooses codings by, beside the chain, which shares nothing with it: never below the
//! chain, and not far above.

use commonhold_policy::parameters::{self, Churn};
use commonhold_protocol::Coding;
use commonhold_simulations::chain::{Point, RepairLaw};

const HOUR_MS: u64 = 3_600_000;
const YEAR_DAYS: f64 = 365.25;
/// The chain is followed in steps, and is as exact as this.
const CHAIN_OFF: f64 = 2e-3;
/// Policy counts no time for the windows themselves, which are at most as long as the time between them here.
const ABOVE_MAX: f64 = 2.0;

const CODINGS: [(u8, u8); 12] =
    [(1, 3), (2, 4), (3, 6), (1, 8), (4, 9), (5, 10), (7, 14), (10, 20), (30, 40), (20, 40), (10, 40), (40, 120)];

/// Each point of the grid with policy's figure, as far as it promises anything there.
fn grid() -> impl Iterator<Item = (Point, f64)> {
    let churns = [30, 60, 180, 365, 2_000].into_iter().flat_map(|days| {
        let times = [(0, 6), (0, 72), (12, 12), (12, 24), (36, 48)];
        times.map(|(detection, repair)| Churn {
            life_ms: days * 24 * HOUR_MS,
            detection_ms: detection * HOUR_MS,
            repair_ms: repair * HOUR_MS,
        })
    });
    let all = churns.flat_map(|churn| CODINGS.map(|(k, n)| (churn, Coding::new(k, n).expect("a coding"))));
    all.map(|(churn, coding)| {
        let days = |ms: u64| ms as f64 / (24 * HOUR_MS) as f64;
        let point = Point {
            k: coding.k(),
            n: coding.n(),
            threshold: coding.threshold(),
            mttf: days(churn.life_ms),
            detection: days(churn.detection_ms),
            repair: days(churn.repair_ms),
            law: RepairLaw::Exponential,
        };
        (point, parameters::loss_per_year(coding, &churn))
    })
    .filter(|(_, found)| *found < 1.0)
}

#[test]
fn policy_promises_no_more_than_the_chain_and_not_much_less() {
    let (mut compared, mut least, mut furthest) = (0, 1.0_f64, 0.0_f64);
    for (point, found) in grid() {
        let Some(rate) = point.loss_rate() else { panic!("windows overlap for the chain alone: {point:?}") };
        let above = found / (rate * YEAR_DAYS);
        assert!((1.0 - CHAIN_OFF..ABOVE_MAX).contains(&above), "{point:?}: {found:e} is {above} times the chain's");
        (compared, least, furthest) = (compared + 1, least.min(found), furthest.max(above));
        // Where repairs always take as long, they are safer yet.
        let fixed = Point { law: RepairLaw::Fixed, ..point };
        assert!(fixed.loss_rate().is_none_or(|rate| rate * YEAR_DAYS <= found), "{fixed:?}");
    }
    println!("{compared} points, down to {least:e}; at most {furthest} times the chain's figure");
    assert!(compared >= 200 && least < 1e-60, "{compared} points down to {least:e}");
}

/// A segment that is whole is lost in its first year no more often than in the long run.
#[test]
fn the_first_year_is_no_worse() {
    for (point, found) in grid().filter(|(point, _)| [(1, 3), (5, 10), (20, 40)].contains(&(point.k, point.n))) {
        let Some(lost) = point.loss_by(YEAR_DAYS) else { continue };
        assert!(lost <= found * (1.0 + CHAIN_OFF), "{point:?}: {lost:e} against {found:e}");
    }
}
