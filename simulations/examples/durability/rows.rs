//! What the page says of one scenario that was simulated, a row of each table. `tests/durability_page.rs` makes the rows
//! of some scenarios anew and holds the page to them.

use commonhold_simulations::{
    Report,
    report::{Estimate, Method},
};

/// What is lost of it.
pub(crate) fn loss(name: &str, report: &Report) -> String {
    let (found, settings, reads) = (&report.durability, &report.settings, &report.availability);
    format!(
        "| {name} | {} | {}/{}, at {} | {} of {} | {:.1e} to {:.1e} | {} | {:.5} | {:.5} to {:.5} |",
        settings.nodes,
        settings.k,
        settings.n,
        settings.threshold,
        found.lost,
        found.segments,
        found.counted.low,
        found.counted.high,
        nines(report),
        reads.value,
        reads.low,
        reads.high,
    )
}

/// What its volunteers pay.
pub(crate) fn cost(name: &str, report: &Report) -> String {
    let (repair, audit) = (&report.repair, &report.audit);
    let mb = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    format!(
        "| {name} | {}, {} | {} | {:.2}, {:.2} | {:.2} | {:.1} h | {:.1} d | {} times ({} nodes) | {:.0} |",
        mb(repair.node_bytes_per_day.mean),
        mb(repair.node_bytes_per_day.p95),
        mb(audit.node_bytes_per_day),
        repair.bytes_per_byte_month,
        audit.bytes_per_byte_month,
        report.overhead,
        repair.detect_hours.mean,
        repair.thin_hours.mean / 24.0,
        repair.given_up_wrongly,
        report.settings.nodes,
        report.steward.records,
    )
}

fn nines(report: &Report) -> String {
    let (lost, found) = (&report.durability, &report.durability.found);
    let how = match found.method {
        Method::Counted => "counted",
        Method::Conditional => "extrapolated",
        Method::TwoSteps => "in two steps",
    };
    let bound = if found.from_the_rarest > 0.5 { ", at least" } else { "" };
    let Some(nines) = found.nines() else { return "none seen, nothing to extrapolate from".to_owned() };
    let at_once = if found.is_extrapolation() && lost.at_once.value > 0.0 {
        let Estimate { value, low, high } = lost.at_once;
        if high < 1.0 {
            format!(", and at once {value:.0e}, {low:.0e} to {high:.0e}")
        } else {
            format!(", and at once some {value:.0e}")
        }
    } else {
        String::new()
    };
    format!("{:.1e}, {:.0e} to {:.0e} ({nines:.1} nines; {how}{bound}){at_once}", found.per_year, found.low, found.high)
}
