//! Many settings of one scenario, side by side: which are worth their bandwidth?

use commonhold_protocol::Coding;
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    Report,
    report::{
        Estimate,
        html::{self, PlotError},
        plots::{self, Dot},
    },
    scenario::{Scenario, Sweep},
    tally::Tally,
    world::World,
};

/// One combination of settings, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The settings, in short.
    pub label: String,
    /// No other point loses as little with as little traffic, space and holders.
    pub on_frontier: bool,
    /// These are policy's own choices.
    pub is_default: bool,
    /// What came of it.
    pub report: Report,
}

/// A sweep cannot be run: the scenario says nothing of one.
#[derive(Debug, thiserror::Error)]
#[error("line 1: there is no section [sweep]; allowed in it are lists of coding, threshold, grace, every and top-up")]
pub struct SweepError;

/// Simulates each combination of `[sweep]`, over the cores; policy's own choice is always among them.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Vec<Point>, SweepError> {
    let sweep = scenario.sweep.as_ref().ok_or(SweepError)?;
    let scenarios = combinations(scenario, sweep.get_ref());
    let played: Vec<(Report, bool)> = scenarios
        .into_par_iter()
        .map(|(scenario, is_default)| {
            let runs: Vec<Tally> =
                (0..*scenario.runs.get_ref()).map(|run| World::new(&scenario, seed, run).run()).collect();
            (Report::new(&scenario, seed, runs), is_default)
        })
        .collect();
    let (reports, defaults): (Vec<Report>, Vec<bool>) = played.into_iter().unzip();
    let labels: Vec<String> = reports.iter().map(|report| label(report, &reports)).collect();
    let settled = reports.into_iter().zip(defaults).zip(labels);
    let mut points: Vec<Point> =
        settled.map(|((report, is_default), label)| Point { label, on_frontier: false, is_default, report }).collect();
    let costs: Vec<Costs> = points.iter().map(Costs::of).collect();
    for (point, cost) in points.iter_mut().zip(&costs) {
        point.on_frontier = !costs.iter().any(|other| other.is_better(cost));
    }
    Ok(points)
}

/// What should be small.
#[derive(Debug, Clone, Copy)]
struct Costs {
    lost: Estimate,
    traffic: f64,
    space: f64,
    /// Of each segment: each of them is a dial, a claim to be synced and a line of its record.
    holders: f64,
}

/// Traffic that differs by less than this factor is equal: runs scatter by as much.
const TRAFFIC_EQUAL: f64 = 1.02;

impl Costs {
    fn of(point: &Point) -> Self {
        let settings = &point.report.settings;
        let (k, n) = (f64::from(settings.k), f64::from(settings.n));
        Self { lost: lost(&point.report), traffic: traffic(&point.report), space: n / k, holders: n }
    }

    /// It is smaller in something, and not larger in anything. Losses whose intervals overlap are not told apart.
    fn is_better(&self, other: &Self) -> bool {
        let larger = self.lost.low > other.lost.high
            || self.traffic > other.traffic * TRAFFIC_EQUAL
            || self.space > other.space
            || self.holders > other.holders;
        let smaller = self.lost.high < other.lost.low
            || self.traffic * TRAFFIC_EQUAL < other.traffic
            || self.space < other.space
            || self.holders < other.holders;
        smaller && !larger
    }
}

/// Losses per segment and year, with those that are to be expected where many leave at once.
pub fn lost(report: &Report) -> Estimate {
    let (found, at_once) = (report.durability.found, report.durability.at_once);
    let found = Estimate { value: found.per_year, low: found.low, high: found.high };
    if !report.durability.found.is_extrapolation() {
        return found;
    }
    Estimate { value: found.value + at_once.value, low: found.low + at_once.low, high: found.high + at_once.high }
}

/// Bytes that repairs and audits move for each byte stored and month.
pub fn traffic(report: &Report) -> f64 {
    report.repair.bytes_per_byte_month + report.audit.bytes_per_byte_month
}

/// Coding and threshold, and of the times those that differ among the points.
fn label(report: &Report, all: &[Report]) -> String {
    let settings = &report.settings;
    let times = [
        ("grace", settings.grace_hours, "h"),
        ("top-up", settings.top_up_days, "d"),
        ("audits", settings.audit_days, "d"),
    ];
    let mut label = format!("{}/{}/{}", settings.k, settings.n, settings.threshold);
    for (place, (name, value, unit)) in times.into_iter().enumerate() {
        let same = |other: &Report| {
            let other = &other.settings;
            [other.grace_hours, other.top_up_days, other.audit_days][place] == value
        };
        if !all.iter().all(same) {
            label.push_str(&format!(" {name} {value} {unit}"));
        }
    }
    label
}

fn combinations(scenario: &Scenario, sweep: &Sweep) -> Vec<(Scenario, bool)> {
    let mut default = scenario.clone();
    default.network.coding = None;
    default.network.threshold = None;
    default.audit = Default::default();
    default.repair.top_up = crate::scenario::Repair::default().top_up;
    let choice = |scenario: &Scenario| {
        let repair = scenario.repair.top_up;
        (
            scenario.coding(),
            scenario.threshold(),
            scenario.audit.grace.as_ms(),
            scenario.audit.every.as_ms(),
            repair.as_ms(),
        )
    };
    let mut all = vec![scenario.clone()];
    vary(&mut all, &sweep.coding, |scenario, coding| {
        if let Ok(coding) = coding.get_ref().parse::<Coding>() {
            scenario.set_coding(coding, None);
        }
    });
    vary(&mut all, &sweep.threshold, |scenario, part| {
        let coding = scenario.coding();
        let parity = f64::from(coding.parity());
        let threshold = coding.n() - ((parity * part.0).round() as u8).clamp(1, coding.parity());
        scenario.set_coding(coding, Some(threshold));
    });
    vary(&mut all, &sweep.grace, |scenario, grace| scenario.audit.grace = *grace);
    vary(&mut all, &sweep.every, |scenario, every| scenario.audit.every = *every);
    vary(&mut all, &sweep.top_up, |scenario, top_up| scenario.repair.top_up = *top_up);
    all.push(default.clone());
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|scenario| seen.insert(choice(scenario)));
    all.into_iter().map(|scenario| (choice(&scenario) == choice(&default), scenario)).map(|(d, s)| (s, d)).collect()
}

fn vary<T>(all: &mut Vec<Scenario>, values: &[T], set: impl Fn(&mut Scenario, &T)) {
    if values.is_empty() {
        return;
    }
    *all = all
        .iter()
        .flat_map(|scenario| values.iter().map(|value| (scenario.clone(), value)).collect::<Vec<_>>())
        .map(|(mut scenario, value)| {
            set(&mut scenario, value);
            scenario
        })
        .collect();
}

/// The plot of durability against bandwidth, as SVG.
pub fn plot(points: &[Point]) -> Result<String, PlotError> {
    let dots: Vec<Dot> = points
        .iter()
        .map(|point| Dot {
            x: traffic(&point.report),
            y: -lost(&point.report).value.max(f64::MIN_POSITIVE).log10(),
            label: point.label.clone(),
            on_frontier: point.on_frontier,
            is_default: point.is_default,
        })
        .collect();
    plots::dots(
        "Durability against bandwidth (ring: policy's own choice; red: nothing is better; labels where there is room)",
        "bytes of repair and audits per byte stored and month",
        "nines of durability a year",
        &dots,
    )
}

/// The points as a page with their plot.
pub fn html(name: &str, points: &[Point]) -> Result<String, PlotError> {
    let plot = plot(points)?;
    let rows: String = table(points)
        .into_iter()
        .map(|row| {
            format!("<tr>{}\n", row.iter().map(|cell| format!("<td>{}", html::escape(cell))).collect::<String>())
        })
        .collect();
    Ok(html::page(&format!("commonhold: {name}"), &format!("{plot}\n<table>\n{rows}</table>")))
}

/// The points as rows, the first of them headings.
pub fn table(points: &[Point]) -> Vec<Vec<String>> {
    let headings = ["SETTINGS", "LOST PER YEAR", "95%", "TRAFFIC PER BYTE, MONTH", "SPACE", "READS", ""];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(points.iter().map(|point| {
        let report = &point.report;
        let remark = match (point.is_default, point.on_frontier) {
            (true, true) => "policy's choice, on the frontier",
            (true, false) => "policy's choice, not on the frontier",
            (false, true) => "frontier",
            (false, false) => "",
        };
        let (found, lost) = (&report.durability.found, lost(report));
        let mark = if found.is_extrapolation() { " (extrapolated)" } else { "" };
        vec![
            point.label.clone(),
            format!("{:.1e}{mark}", lost.value),
            format!("{:.0e} to {:.0e}", lost.low, lost.high),
            format!("{:.3}", traffic(report)),
            format!("{:.2}", report.overhead),
            format!("{:.6}", report.availability.value),
            remark.to_owned(),
        ]
    }));
    rows
}
