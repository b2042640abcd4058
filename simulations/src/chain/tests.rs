#![allow(clippy::excessive_precision, reason = "digits as they are printed")]

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
    for (mttf, k, n, m, ratio) in [
        (1.0, 20, 40, 35, "9.36"),
        (6.0, 20, 40, 30, "0.87"),
        (12.0, 20, 40, 25, "0.31"),
        (1.0, 30, 60, 35, "3.40"),
        (6.0, 30, 70, 40, "0.60"),
        (12.0, 30, 80, 45, "0.31"),
        (1.0, 40, 80, 60, "5.21"),
        (6.0, 40, 120, 50, "0.52"),
        (12.0, 40, 120, 45, "0.24"),
    ] {
        assert_eq!(format!("{:.2}", repair_ratio(mttf, k, n, m)), ratio, "{k}/{n}/{m}");
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

/// Two methods for one chain: uniformization, and the flow around the cycle.
#[test]
fn the_flow_around_the_cycle_is_the_chain() {
    for (k, n, m, mttf, repair, time) in
        [(2, 4, 3, 30.0, 3.0, 365.0), (3, 8, 5, 60.0, 10.0, 500.0), (4, 6, 4, 20.0, 2.0, 100.0)]
    {
        let point = point(k, n, m, mttf, 0.0, repair, RepairLaw::Exponential);
        let (chain, flow) = (point.chain_loss_by(time), point.renewal_loss_by(time));
        assert!((flow / chain - 1.0).abs() < 0.01, "{point:?}: {flow} against {chain}");
    }
}

#[test]
fn in_the_long_run_losses_come_at_the_loss_rate() {
    for law in [RepairLaw::Exponential, RepairLaw::Fixed] {
        let point = point(3, 8, 6, 100.0, 0.0, 2.0, law);
        let (late, early) = (point.loss_by(4000.0), point.loss_by(2000.0));
        let found = -((1.0 - late) / (1.0 - early)).ln() / 2000.0;
        assert!((found / point.loss_rate() - 1.0).abs() < 0.01, "{law:?}: {found:e} against {:e}", point.loss_rate());
    }
}

#[test]
fn without_repair_the_chain_is_the_binomial() {
    let point = point(2, 4, 3, 10.0, 0.0, 1e12, RepairLaw::Exponential);
    let binomial = loss_without_repair(2, 4, -(-0.3f64).exp_m1());
    assert!((point.loss_by(3.0) / binomial - 1.0).abs() < 1e-6);
}
