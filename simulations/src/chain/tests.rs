#![allow(clippy::excessive_precision, reason = "digits as they are printed")]

mod transform;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{storj::*, *};

/// Of 10% churn in a month, without repair. Poisson, as Storj prints it, is two to five times as much.
#[test]
fn a_month_without_repair_is_binomial() {
    let death = -(-0.1f64).exp_m1();
    for (k, n, loss) in [
        (2, 4, 3.201e-3),
        (4, 6, 1.382e-2),
        (1, 3, 8.618e-4),
        (4, 8, 3.413e-4),
        (20, 30, 5.656e-5),
        (8, 16, 3.920e-6),
        (20, 40, 7.617e-12),
    ] {
        let found = loss_without_repair(k, n, death);
        assert!((found / loss - 1.0).abs() < 2e-4, "{k}/{n}: {found:e} against {loss:e}");
    }
}

#[test]
fn the_table_that_storj_prints() {
    for (k, n, percent) in [
        (2, 4, 99.207366813274616),
        (1, 1, 90.483741803595962),
        (4, 8, 99.858868985411326),
        (1, 2, 98.247690369357827),
        (8, 16, 99.995462406878260),
        (1, 3, 99.640050681691051),
        (4, 6, 97.688471224736705),
        (20, 30, 99.970766304935266),
        (4, 12, 99.999514117129605),
    ] {
        let found = printed_durability(0.1, k, n) * 100.0;
        assert!((found - percent).abs() < 1e-9, "{k}/{n}: {found} against {percent}");
    }
}

#[test]
fn the_nine_repair_ratios_that_storj_prints() {
    for (mttf, k, n, m, printed) in RATIOS {
        assert_eq!(format!("{:.2}", repair_ratio(mttf, k, n, m)), printed, "{k}/{n}/{m}");
    }
}

fn point(k: u8, n: u8, threshold: u8, mttf: f64, detection: f64, repair: f64, law: RepairLaw) -> Point {
    Point { k, n, threshold, mttf, detection, repair, law }
}

/// At 20/40/30 and an MTTF of 180 days.
#[test]
fn the_two_laws_of_repair_are_a_million_apart() {
    let of = |law| point(20, 40, 30, 180.0, 0.0, 3.0, law).window_loss();
    let apart = of(RepairLaw::Exponential) / of(RepairLaw::Fixed);
    assert!((1e5..1e7).contains(&apart), "{apart:e}");
}

/// Corners of what can be asked: one shard restores all, one is all there is to lose, the threshold at k, the threshold
/// right below n, repairs that take longer than lives, and the middle.
const CORNERS: [(u8, u8, u8, f64, f64, f64); 14] = [
    (1, 2, 1, 30.0, 3.0, 100.0),
    (1, 2, 1, 30.0, 60.0, 200.0),
    (1, 8, 7, 10.0, 8.0, 300.0),
    (1, 8, 1, 10.0, 8.0, 300.0),
    (5, 6, 5, 200.0, 0.5, 365.0),
    (39, 40, 39, 4000.0, 0.5, 365.0),
    (2, 4, 3, 30.0, 3.0, 365.0),
    (3, 8, 5, 60.0, 10.0, 500.0),
    (4, 6, 4, 20.0, 2.0, 100.0),
    (4, 6, 5, 20.0, 500.0, 100.0),
    (20, 40, 20, 60.0, 1.0, 365.0),
    (20, 40, 39, 30.0, 10.0, 365.0),
    (20, 40, 30, 180.0, 30.0, 365.0),
    (10, 30, 20, 365.0, 20.0, 3650.0),
];

/// Two methods for one chain: uniformization, and the flow around the cycle.
#[test]
fn the_flow_around_the_cycle_is_the_chain() {
    for (k, n, m, mttf, repair, time) in CORNERS {
        let point = point(k, n, m, mttf, 0.0, repair, RepairLaw::Exponential);
        let (chain, flow) = (point.chain_loss_by(time), point.flow_loss_by(time));
        assert!((flow / chain - 1.0).abs() < 2e-3, "{point:?}: {flow} against {chain}");
    }
}

/// Any points, small and large: one shard restores all, or all but one; the threshold at k, or right below n; repairs from
/// a moment to three lives; from one cycle to a thousand of them. Each has a loss that is a number, and that of the
/// transform.
#[test]
fn any_point_is_that_of_the_transform() {
    let mut rng = ChaCha8Rng::seed_from_u64(23);
    let (mut said, mut rare, mut bad) = (0, 0, Vec::new());
    for number in 0..POINTS {
        let (point, time) = any_point(&mut rng, number);
        let (found, rate) = (point.loss_by(time), point.loss_rate());
        assert_eq!(found.is_some(), point.overlap() <= OVERLAP_MAX, "{point:?}");
        let (Some(found), Some(rate)) = (found, rate) else { continue };
        let expected = transform::loss_by(&point, time);
        let apart = found / expected - 1.0;
        let told = format!("{point:?} {time:e}: {found:e} against {expected:e}, {apart:+.1e}; {rate:e}");
        println!("{told}");
        let is_sane = (0.0..=1.0).contains(&found) && rate >= 0.0 && rate.is_finite();
        let is_right = expected < LEAST || apart.abs() < apart_max(point.law) + point.overlap();
        said += u32::from(expected > LEAST);
        rare += u32::from(expected > LEAST && expected < 1e-12);
        if !(is_sane && is_right) {
            bad.push(told);
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(said > POINTS / 2 && rare > 10, "{said} {rare}");
}

const POINTS: u32 = 160;
/// Below this a double has fewer digits, and then none.
const LEAST: f64 = 1e-300;

/// Both methods have steps of a kind; where windows always take the same, losses come in steps themselves.
fn apart_max(law: RepairLaw) -> f64 {
    if law == RepairLaw::Fixed { 3e-2 } else { 1e-2 }
}

fn any_point(rng: &mut ChaCha8Rng, number: u32) -> (Point, f64) {
    let most = if number.is_multiple_of(20) { 255 } else { [8, 16, 40, 80][number as usize % 4] };
    let n = rng.random_range(2..=most);
    let k = match rng.random_range(0..4) {
        0 => 1,
        1 => n - 1,
        _ => rng.random_range(1..n),
    };
    let threshold = match rng.random_range(0..4) {
        0 => k,
        1 => n - 1,
        _ => rng.random_range(k..n),
    };
    let mut power = |from: f64, to: f64| 10f64.powf(rng.random_range(from..to));
    let mttf = power(0.0, 4.0);
    let repair = mttf * power(-4.0, 0.5);
    let detection = if number.is_multiple_of(2) { 0.0 } else { mttf * power(-5.0, -1.0) };
    let cycles = power(0.0, 3.0);
    let law = if number.is_multiple_of(3) { RepairLaw::Fixed } else { RepairLaw::Exponential };
    let point = point(k, n, threshold, mttf, detection, repair, law);
    // Before the first repair that may take long enough, the transform has no digits.
    let long = if law == RepairLaw::Exponential { repair * f64::from(threshold - k) } else { 0.0 };
    let cycle = point.time_above_threshold(0) + detection + repair + long;
    (point, cycle * cycles)
}

/// As many shards as there can be, the threshold at both ends, and horizons of no time and of many lives: each answers.
#[test]
fn the_largest_codings_have_a_closed_form() {
    for law in [RepairLaw::Exponential, RepairLaw::Fixed] {
        for (k, m) in [(1, 1), (1, 254), (128, 128), (128, 192), (254, 254)] {
            for (detection, time) in [(0.0, 3650.0), (1e-4, 1.0)] {
                let point = point(k, 255, m, 60.0, detection, 0.5, law);
                let (lost, rate) = (point.loss_by(time), point.loss_rate());
                assert!(lost.is_some_and(|lost| (0.0..=1.0).contains(&lost)), "{point:?}: {lost:?}");
                assert!(rate.is_some_and(|rate| rate >= 0.0 && rate.is_finite()), "{point:?}: {rate:?}");
            }
        }
    }
}

/// A segment by itself, death by death, with no closed form, no steps and no policy: the oracle for what no chain
/// answers. Lost by `time`?
fn is_lost(point: &Point, time: f64, rng: &mut ChaCha8Rng) -> bool {
    let mut exponential = |mean: f64| -(1.0 - rng.random::<f64>()).ln() * mean;
    let mut lives: Vec<f64> = (0..point.n).map(|_| exponential(point.mttf)).collect();
    let mut repaired_at = None;
    loop {
        // A shard is missing to all from `detection` after its holder's death.
        let alive = |moment: f64, lives: &[f64]| lives.iter().filter(|death| **death > moment).count();
        let mut noticed: Vec<f64> = lives.iter().map(|death| death + point.detection).collect();
        noticed.sort_by(f64::total_cmp);
        let due = noticed[usize::from(point.n - point.threshold) - 1].max(repaired_at.unwrap_or(0.0));
        let lasts = match point.law {
            RepairLaw::Fixed => point.repair,
            RepairLaw::Exponential => exponential(point.repair),
        };
        let ends = due + lasts;
        let mut deaths = lives.clone();
        deaths.sort_by(f64::total_cmp);
        let fatal = deaths[usize::from(point.n - point.k)];
        if fatal <= ends.min(time) {
            return true;
        }
        if ends >= time {
            return false;
        }
        assert!(alive(ends, &lives) >= usize::from(point.k));
        for death in &mut lives {
            if *death + point.detection <= ends {
                *death = ends + exponential(point.mttf);
            }
        }
        repaired_at = Some(ends);
    }
}

fn played(point: &Point, time: f64, count: u32, seed: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| f64::from(is_lost(point, time, &mut rng))).sum::<f64>() / f64::from(count)
}

/// With a detection time and with either law, against segments that are played one by one.
#[test]
fn the_flow_is_that_of_segments_played_by_themselves() {
    const COUNT: u32 = 40_000;
    for law in [RepairLaw::Exponential, RepairLaw::Fixed] {
        for (number, (k, n, m, mttf, detection, repair, time)) in [
            (1, 2, 1, 30.0, 1.0, 2.0, 300.0),
            (1, 3, 1, 30.0, 4.0, 2.0, 300.0),
            (1, 8, 2, 10.0, 1.0, 8.0, 100.0),
            (4, 8, 5, 60.0, 3.0, 2.0, 200.0),
            (4, 8, 5, 60.0, 0.5, 90.0, 60.0),
            (5, 6, 5, 300.0, 0.5, 2.0, 400.0),
            (10, 15, 11, 180.0, 4.0, 3.0, 1000.0),
            (20, 40, 24, 60.0, 4.0, 3.0, 400.0),
            (20, 40, 20, 60.0, 0.3, 0.2, 400.0),
        ]
        .into_iter()
        .enumerate()
        {
            let point = point(k, n, m, mttf, detection, repair, law);
            let expected = point.loss_by(time).expect("windows do not overlap");
            let found = played(&point, time, COUNT, number as u64);
            let error = (expected * (1.0 - expected) / f64::from(COUNT)).sqrt();
            // What the overlaps that are let pass may amount to comes on top.
            let allowed = 3.5 * error + point.overlap() * expected;
            assert!((found - expected).abs() < allowed, "{point:?}: {found} against {expected} ± {error}");
        }
    }
}

#[test]
fn where_windows_overlap_nothing_is_said() {
    let point = point(4, 6, 5, 60.0, 5.0, 3.0, RepairLaw::Fixed);
    assert!(point.overlap() > 0.1);
    assert_eq!((point.loss_by(100.0), point.loss_rate()), (None, None));
}

#[test]
fn in_the_long_run_losses_come_at_the_loss_rate() {
    for law in [RepairLaw::Exponential, RepairLaw::Fixed] {
        for detection in [0.0, 1.0] {
            let point = point(3, 8, 5, 100.0, detection, 2.0, law);
            let by = |time| point.loss_by(time).expect("windows do not overlap");
            let (late, early) = (by(4000.0), by(2000.0));
            let found = -((1.0 - late) / (1.0 - early)).ln() / 2000.0;
            let rate = point.loss_rate().expect("nor here");
            assert!((found / rate - 1.0).abs() < 5e-3, "{point:?}: {found:e} against {rate:e}");
        }
    }
}

/// Renewal: where many are lost, a cycle often ends early.
#[test]
fn the_loss_rate_counts_cycles_that_end_in_a_loss() {
    // 1/2 with no repair to speak of: a loss each 30/2 + 30 days.
    let point = point(1, 2, 1, 30.0, 0.0, 1e9, RepairLaw::Exponential);
    let rate = point.loss_rate().expect("no detection time, no overlap");
    assert!((rate * 45.0 - 1.0).abs() < 1e-3, "{rate}");
}

#[test]
fn without_repair_the_chain_is_the_binomial() {
    for law in [RepairLaw::Exponential, RepairLaw::Fixed] {
        let point = point(2, 4, 3, 10.0, 0.0, 1e9, law);
        let binomial = loss_without_repair(2, 4, -(-0.3f64).exp_m1());
        let found = point.loss_by(3.0).expect("no overlap");
        assert!((found / binomial - 1.0).abs() < 1e-3, "{law:?}: {found} against {binomial}");
    }
}

#[test]
fn nothing_dies_and_nothing_lasts_are_no_losses() {
    let by = |mttf, repair| point(2, 4, 3, mttf, 0.0, repair, RepairLaw::Fixed).loss_by(100.0);
    assert_eq!((by(f64::INFINITY, 3.0), by(10.0, 0.0)), (Some(0.0), Some(0.0)));
}
