//! Writes `durability.md` and `durability.svg` into the folder that it is told: what commonhold promises under which
//! assumptions, from simulated runs of the scenarios that ship. `make durability` does it.

#[path = "durability/formulas.rs"]
mod formulas;
#[path = "../tests/points/month.rs"]
mod month;
#[path = "../tests/points/scenario.rs"]
mod points;
#[path = "../tests/points/storj.rs"]
mod points_of_storj;
#[path = "durability/rows.rs"]
mod rows;

use std::{error::Error, fmt::Write as _, path::Path};

use commonhold_protocol::Coding;
use commonhold_simulations::{Report, Scenario, chain::storj, run, sweep};

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
/// What is swept.
struct Swept {
    scenario: &'static str,
    about: &'static str,
    plot: &'static str,
    /// The table has what is not on the frontier too.
    all: bool,
}

/// Codings, thresholds and top-up times; thresholds where many leave; and grace times and audit rates.
const SWEPT: [Swept; 3] = [
    Swept {
        scenario: "home-volunteers",
        about: include_str!("durability/sweep.md"),
        plot: "durability.svg",
        all: false,
    },
    Swept {
        scenario: "ipfs-classes",
        about: include_str!("durability/classes.md"),
        plot: "durability-classes.svg",
        all: true,
    },
    Swept {
        scenario: "grace-and-audits",
        about: include_str!("durability/times.md"),
        plot: "durability-times.svg",
        all: false,
    },
];
/// To be expected of each named month; with chance against it, a thousand are left.
const LOSSES: f64 = 1100.0;
/// What policy chose in earlier releases.
const CHOSEN_BEFORE: &str = "20/40/30 top-up 7 d";

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
    writeln!(page, "{}\n{}", include_str!("durability/borders.md"), formulas::borders()?)?;
    writeln!(page, "## The choice of policy among others\n")?;
    for swept in &SWEPT {
        let scenario = Scenario::load(&folder.join(swept.scenario).with_extension("toml"))?;
        eprintln!("the sweep of {} ...", swept.scenario);
        let points = sweep::run(&scenario, scenario.seed)?;
        sweeps(&mut page, &points, swept)?;
        std::fs::write(Path::new(&target).join(swept.plot), sweep::plot(&points)?)?;
    }
    mathematics(&mut page)?;
    std::fs::write(Path::new(&target).join("durability.md"), page)?;
    Ok(())
}

fn losses(page: &mut String, reports: &[(&str, Report)]) -> std::fmt::Result {
    writeln!(page, "## What is lost\n")?;
    writeln!(
        page,
        "| scenario | nodes | coding | segments lost of | 95% of the share | loss per segment and year, and its 95% | reads that work | 95% |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|")?;
    for (name, report) in reports {
        writeln!(page, "{}", rows::loss(name, report))?;
    }
    writeln!(page)?;
    for (name, report) in reports {
        writeln!(page, "- **{name}**: {}.", report.source)?;
    }
    writeln!(page, "\n{}", include_str!("durability/reads.md"))
}

fn costs(page: &mut String, reports: &[(&str, Report)]) -> Result<(), Box<dyn Error>> {
    writeln!(page, "## What a volunteer pays\n")?;
    writeln!(
        page,
        "| scenario | repair a day: mean, 95% below | audits a day | bytes moved per byte stored and month: repair, audits | space | found lost after | below n for | given up, and came back | records kept |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
    for (name, report) in reports {
        writeln!(page, "{}", rows::cost(name, report))?;
    }
    let full = format!("{:.2}", formulas::audits_of_the_full(Coding::new(20, 40)?));
    Ok(writeln!(page, "\n{}", include_str!("durability/costs.md").replace("AUDITS_OF_THE_FULL", &full))?)
}

fn sweeps(page: &mut String, points: &[sweep::Point], swept: &Swept) -> std::fmt::Result {
    let mut about = swept.about.replace("SWEPT", swept.scenario);
    let before = points.iter().find(|point| point.label == CHOSEN_BEFORE);
    let chosen = points.iter().find(|point| point.is_default);
    if let (Some(before), Some(chosen)) = (before, chosen) {
        let times = sweep::traffic(&before.report) / sweep::traffic(&chosen.report);
        let lost = [before, chosen].map(|point| format!("{:.0e}", sweep::lost(&point.report).value));
        about = about.replace("OLD_TRAFFIC", &format!("{times:.2}"));
        about = about.replace("OLD_LOST", &lost[0]).replace("NEW_LOST", &lost[1]);
    }
    writeln!(page, "{about}")?;
    let table = sweep::table(points);
    let mut kept: Vec<&Vec<String>> = table
        .iter()
        .skip(1)
        .zip(points)
        .filter(|(_, point)| swept.all || point.on_frontier || point.is_default)
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
    writeln!(page, "\n![All {count} combinations that were simulated]({})\n", swept.plot)
}

fn mathematics(page: &mut String) -> std::fmt::Result {
    writeln!(page, "{}", include_str!("durability/mathematics.md"))?;
    writeln!(
        page,
        "One month, 10% churn, no repair: the binomial, and the simulator with a thousand losses or more.\n"
    )?;
    writeln!(page, "| k/n | lost | simulated | losses | standard errors apart |\n|---|---|---|---|---|")?;
    for (k, n) in month::NAMED {
        eprintln!("a month of {k}/{n} ...");
        let expected = month::lost(k, n);
        let simulated = run(&month::month(k, n, (LOSSES / expected) as u32), 7).durability;
        let (lost, found) = (simulated.lost, simulated.counted.value);
        let apart = (found - expected) / (expected / simulated.segments as f64).sqrt();
        writeln!(page, "| {k}/{n} | {expected:.3e} | {found:.3e} | {lost} | {apart:+.1} |")?;
    }
    for (k, n) in [(8, 16), (20, 40)] {
        writeln!(page, "| {k}/{n} | {:.3e} | too rare | | |", month::lost(k, n))?;
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
    write!(page, "\n{}", formulas::audits_and_choices()?)
}
