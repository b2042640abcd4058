//! What is extrapolated from windows, most of which did not end in a loss, agrees with mathematics, with a count, and
//! each way with the other, down to where no run could ever see a loss.

#[path = "points/scenario.rs"]
mod points;

use commonhold_simulations::{
    chain::{
        Point,
        RepairLaw::{self, Exponential, Fixed},
    },
    report::{Durability, Method},
    run,
};
use points::scenario;
use rayon::prelude::*;

/// k, n, threshold, MTTF, detection and repair time in days.
type Numbers = (u8, u8, u8, f64, f64, f64);

fn point((k, n, threshold, mttf, detection, repair): Numbers, law: RepairLaw) -> Point {
    Point { k, n, threshold, mttf, detection, repair, law }
}

fn per_year(found: &Durability, method: Method) -> f64 {
    let way = found.ways.iter().find(|way| way.method == method);
    way.unwrap_or_else(|| panic!("{method:?} says nothing: {found:?}")).per_year
}

/// Segments that are never topped up come down to their threshold each time: the chain knows how often they are lost.
#[test]
fn from_the_threshold_it_is_the_chain_s() {
    let all = [
        // As far off as the first cycle is from the others: it begins whole.
        ((7, 14, 10, 60.0, 0.5, 3.5), Fixed, 0.06),
        ((4, 8, 6, 60.0, 0.0, 1.0), Fixed, 0.06),
        ((4, 8, 6, 180.0, 0.5, 0.5), Fixed, 0.06),
        ((3, 6, 5, 365.0, 0.5, 0.1), Fixed, 0.06),
        ((20, 30, 25, 365.0, 0.5, 1.0), Fixed, 0.06),
        ((10, 20, 15, 180.0, 0.5, 0.5), Fixed, 0.06),
        ((20, 40, 30, 180.0, 0.5, 0.5), Fixed, 0.06),
        ((20, 40, 30, 180.0, 0.0, 0.5), Fixed, 0.06),
        // What is lost is lost in repairs that take many means, of which few are seen.
        ((4, 8, 6, 60.0, 0.0, 1.0), Exponential, 0.15),
        ((10, 20, 15, 180.0, 0.5, 0.5), Exponential, 0.4),
    ];
    let bad: Vec<String> = all
        .par_iter()
        .filter_map(|&(numbers, law, apart_max)| {
            let point = point(numbers, law);
            let found = run(&scenario(&point, 2.0 * point.mttf, 4000, 2000, "1000years"), 5).durability;
            let expected = point.loss_rate().expect("no overlap") * 365.25;
            let apart = per_year(&found, Method::Conditional) / expected - 1.0;
            println!("{point:?}: {} lost, {expected:.3e} per year, {apart:+.3}", found.lost);
            (apart.abs() > apart_max).then(|| format!("{point:?}: {apart:+.3} from {expected:e}"))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Segments that are topped up: no closed form, but where losses are frequent they can just be counted.
#[test]
fn both_ways_agree_with_a_count_where_segments_are_topped_up() {
    let all = [
        ((4, 8, 6, 60.0, 0.5, 1.0), 5.0),
        ((7, 14, 10, 40.0, 0.5, 2.0), 3.0),
        ((2, 6, 4, 30.0, 0.5, 2.0), 2.0),
        ((4, 8, 5, 40.0, 0.5, 1.0), 5.0),
        ((10, 20, 14, 30.0, 1.0, 2.0), 2.0),
    ];
    let bad: Vec<String> = all
        .par_iter()
        .filter_map(|&(numbers, top_up)| {
            let point = point(numbers, Fixed);
            let found = run(&scenario(&point, 8.0 * point.mttf, 24_000, 24_000, &format!("{top_up} d")), 5).durability;
            let counted = per_year(&found, Method::Counted);
            let ways = [Method::Conditional, Method::TwoSteps].map(|way| per_year(&found, way) / counted - 1.0);
            // Three standard errors of the count, and what the ways leave out.
            let apart_max = 3.0 / (found.lost as f64).sqrt() + 0.05;
            println!("{point:?}, top-up {top_up} d: {} lost, {counted:.3e} per year, {ways:+.3?}", found.lost);
            let good = found.lost >= 100 && ways.iter().all(|apart| apart.abs() < apart_max);
            (!good).then(|| format!("{point:?}: {} lost, {ways:+.3?}, {apart_max:.3} allowed", found.lost))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Far below what can be counted, where segments come down to their threshold now and then: what is made of those is
/// what is made of all that were only below n.
#[test]
fn two_steps_are_as_good_as_one_where_no_loss_is_ever_seen() {
    let all = [
        ((10, 20, 15, 90.0, 0.5, 0.2), 7.0),
        ((20, 40, 30, 60.0, 0.5, 0.2), 7.0),
        ((20, 40, 34, 90.0, 0.5, 0.2), 7.0),
        ((20, 40, 32, 120.0, 0.5, 0.1), 14.0),
    ];
    let bad: Vec<String> = all
        .par_iter()
        .filter_map(|&(numbers, top_up)| {
            let point = point(numbers, Fixed);
            let found = run(&scenario(&point, 4.0 * point.mttf, 8_000, 8_000, &format!("{top_up} d")), 5).durability;
            let [one, two] = [Method::Conditional, Method::TwoSteps].map(|way| per_year(&found, way));
            println!("{point:?}, top-up {top_up} d: {one:.3e} and {two:.3e} per year; {:?}", found.ways);
            (found.lost > 0 || (two / one - 1.0).abs() > 0.1).then(|| format!("{point:?}: {one:e} and {two:e}"))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
