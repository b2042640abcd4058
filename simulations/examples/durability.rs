//! Writes `durability.md` and `durability.svg` into the folder that it is told: what commonhold promises under which
//! assumptions, from simulated runs of the scenarios that ship. `make durability` does it.

#[path = "../tests/points/scenario.rs"]
mod points;
#[path = "../tests/points/storj.rs"]
mod points_of_storj;

use std::{error::Error, fmt::Write as _, path::Path};

use commonhold_policy::{audit::detection::detection_chance, parameters, placement::CANDIDATES};
use commonhold_simulations::{
    Report, Scenario,
    chain::{binomial_tail, loss_without_repair, storj},
    report::{Estimate, Method},
    run, sweep,
};

/// In the order of the page.
const SCENARIOS: [&str; 23] = [
    "home-volunteers",
    "campus",
    "servers",
    "corporate-pcs",
    "seti-hosts",
    "skype-supernodes",
    "ipfs-sessions",
    "ipfs-trautwein",
    "ipfs-classes",
    "ipfs-stable-2021",
    "ipfs-stable-2023",
    "kad-sessions",
    "bittorrent-sessions",
    "rhea-hours",
    "rhea-minutes",
    "weibull-lives",
    "storj-churn",
    "storj-month",
    "flash",
    "glacier",
    "bad-release",
    "full-disks",
    "cheats",
];
/// Whose settings are swept: codings, thresholds and top-up times, ...
const SWEPT: &str = "home-volunteers";
/// ... and grace times and audit rates.
const SWEPT_TIMES: &str = "grace-and-audits";
/// A border is where so many of all segments are lost at once.
const BORDER: f64 = 1e-6;

fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("the folder to write into is missing")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut page = String::from(include_str!("durability/head.md"));
    let mut reports = Vec::new();
    for name in SCENARIOS {
        let scenario = Scenario::load(&folder.join(name).with_extension("toml"))?;
        eprintln!("{name} ...");
        reports.push((name, run(&scenario, scenario.seed)));
    }
    losses(&mut page, &reports)?;
    costs(&mut page, &reports)?;
    borders(&mut page)?;
    writeln!(page, "## The choice of policy among others\n")?;
    let about = [
        (SWEPT, include_str!("durability/sweep.md"), "durability.svg"),
        (SWEPT_TIMES, include_str!("durability/times.md"), "durability-times.svg"),
    ];
    for (name, about, plot) in about {
        let swept = Scenario::load(&folder.join(name).with_extension("toml"))?;
        eprintln!("the sweep of {name} ...");
        let points = sweep::run(&swept, swept.seed)?;
        writeln!(page, "{}", about.replace("SWEPT", name))?;
        sweeps(&mut page, &points, plot)?;
        std::fs::write(Path::new(&target).join(plot), sweep::plot(&points)?)?;
    }
    mathematics(&mut page)?;
    std::fs::write(Path::new(&target).join("durability.md"), page)?;
    Ok(())
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

fn losses(page: &mut String, reports: &[(&str, Report)]) -> std::fmt::Result {
    writeln!(page, "## What is lost\n")?;
    writeln!(
        page,
        "| scenario | nodes | coding | segments lost of | 95% of the share | loss per segment and year, and its 95% | reads that work | 95% |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|")?;
    for (name, report) in reports {
        let (found, settings, reads) = (&report.durability, &report.settings, &report.availability);
        writeln!(
            page,
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
        )?;
    }
    writeln!(page)?;
    for (name, report) in reports {
        writeln!(page, "- **{name}**: {}.", report.source)?;
    }
    writeln!(page, "\n{}", include_str!("durability/reads.md"))
}

fn costs(page: &mut String, reports: &[(&str, Report)]) -> std::fmt::Result {
    writeln!(page, "## What a volunteer pays\n")?;
    writeln!(
        page,
        "| scenario | repair a day: mean, 95% below | audits a day | bytes moved per byte stored and month: repair, audits | space | found lost after | below n for | given up, and came back | records kept |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
    let mb = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    for (name, report) in reports {
        let (repair, audit) = (&report.repair, &report.audit);
        writeln!(
            page,
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
        )?;
    }
    writeln!(page, "\n{}", include_str!("durability/costs.md"))
}

fn borders(page: &mut String) -> std::fmt::Result {
    writeln!(page, "{}", include_str!("durability/borders.md"))?;
    writeln!(page, "| part of the nodes that is one in truth | 7/14 | 10/20 | 20/40 |")?;
    writeln!(page, "|---|---|---|---|")?;
    for part in [0.05, 0.1, 0.2, 0.3, 0.4, 0.5] {
        let [a, b, c] = [(7, 14), (10, 20), (20, 40)].map(|(k, n)| binomial_tail(n, n - k + 1, part));
        writeln!(page, "| {:.0}% | {a:.1e} | {b:.1e} | {c:.1e} |", part * 100.0)?;
    }
    let [a, b, c] = [(7, 14), (10, 20), (20, 40)].map(|(k, n)| border(|part| binomial_tail(n, n - k + 1, part)));
    writeln!(page, "| **border: one of a million from** | **{a:.1}%** | **{b:.1}%** | **{c:.1}%** |")?;
    // Of the candidates fewer than k are others.
    let [a, b, c] = [7, 10, 20].map(|k| border(|part| binomial_tail(CANDIDATES, CANDIDATES - k + 1, part)));
    writeln!(page, "| the same, if all of them are in one domain | {a:.1}% | {b:.1}% | {c:.1}% |\n")
}

/// From which percentage of the nodes on more than [`BORDER`] is lost.
fn border(lost: impl Fn(f64) -> f64) -> f64 {
    let tenths = (1..1000).find(|tenths| lost(f64::from(*tenths) / 1000.0) > BORDER);
    f64::from(tenths.unwrap_or(1000)) / 10.0
}

fn sweeps(page: &mut String, points: &[sweep::Point], plot: &str) -> std::fmt::Result {
    let table = sweep::table(points);
    let mut kept: Vec<&Vec<String>> = table
        .iter()
        .skip(1)
        .zip(points)
        .filter(|(_, point)| point.on_frontier || point.is_default)
        .map(|(row, _)| row)
        .collect();
    let traffic = |row: &[String]| row[3].parse::<f64>().unwrap_or(f64::INFINITY);
    kept.sort_by(|a, b| traffic(a).total_cmp(&traffic(b)));
    writeln!(page, "| {} |", table[0].join(" | "))?;
    writeln!(page, "|{}", "---|".repeat(table[0].len()))?;
    for row in kept {
        writeln!(page, "| {} |", row.join(" | "))?;
    }
    let count = points.len();
    writeln!(page, "\n![All {count} combinations that were simulated]({plot})\n")
}

fn mathematics(page: &mut String) -> std::fmt::Result {
    writeln!(page, "{}", include_str!("durability/mathematics.md"))?;
    writeln!(page, "One month, 10% churn, no repair (binomial; the tests hold the simulator to it):\n")?;
    writeln!(page, "| k/n | lost |\n|---|---|")?;
    for (k, n) in [(2, 4), (4, 6), (1, 3), (4, 8), (20, 30), (8, 16), (20, 40)] {
        writeln!(page, "| {k}/{n} | {:.3e} |", loss_without_repair(k, n, -(-0.1f64).exp_m1()))?;
    }
    writeln!(page, "\nStorj's nine repair ratios, bytes per byte of data and month:\n")?;
    writeln!(page, "| MTTF in months | k/n/m | its formula | printed | the chain | the simulator |")?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for (months, k, n, m, printed) in storj::RATIOS {
        let (formula, chain) =
            (storj::repair_ratio(months, k, n, m), storj::repair_ratio_of_the_chain(months, k, n, m));
        let simulated = run(&points_of_storj::ratio(months, k, n, m), 3).repair.bytes_per_byte_month;
        writeln!(page, "| {months:.0} | {k}/{n}/{m} | {formula:.2} | {printed} | {chain:.2} | {simulated:.2} |")?;
    }
    writeln!(page, "\nAudits of c chunk groups find a holder that lost the part f with 1 - (1 - f)^c:\n")?;
    writeln!(page, "| lost | 100 groups | 300 | 460 | groups for 99% |\n|---|---|---|---|---|")?;
    for lost in [0.001, 0.01, 0.05, 0.1, 0.5] {
        let [a, b, c] = [100, 300, 460].map(|groups| detection_chance(lost, groups) * 100.0);
        let needed = (1..).find(|groups| detection_chance(lost, *groups) >= 0.99).unwrap_or_default();
        writeln!(page, "| {:.1}% | {a:.1}% | {b:.1}% | {c:.1}% | {needed} |", lost * 100.0)?;
    }
    let choices = [4, 8, 12, 20, 54].map(|nodes| {
        parameters::choose(None, nodes)
            .map_or_else(|error| error.to_string(), |coding| format!("{nodes} nodes: {coding}"))
    });
    writeln!(
        page,
        "\nWhat policy chooses where nothing is pinned: {}, and 20/40 for all that are more.",
        choices.join(", ")
    )
}
