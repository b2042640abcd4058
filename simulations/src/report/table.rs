//! The report as lines of text.

use super::{Method, Report, Spread};

fn bytes(count: f64) -> String {
    bytesize::ByteSize::b(count.max(0.0) as u64).display().iec().to_string()
}

/// A length of time in a unit that suits it.
fn span(days: f64) -> String {
    match days {
        days if days >= 730.5 => format!("{:.1} years", days / 365.25),
        days if days >= 2.0 => format!("{days:.1} d"),
        days if days >= 1.0 / 12.0 => format!("{:.1} h", days * 24.0),
        days if days >= 1.0 / 720.0 => format!("{:.1} min", days * 1440.0),
        days => format!("{:.1} s", days * 86_400.0),
    }
}

fn spread(spread: &Spread, show: impl Fn(f64) -> String) -> String {
    if spread.count == 0 {
        return "none seen".to_owned();
    }
    format!("mean {}, median {}, 95% below {}", show(spread.mean), show(spread.p50), show(spread.p95))
}

impl Report {
    /// What there is to say, a name and a value a row.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let (settings, lost, repair) = (&self.settings, &self.durability, &self.repair);
        let mut rows = vec![
            ("scenario", format!("{} (seed {}, runs {})", self.name, self.seed, self.runs)),
            ("source", self.source.clone()),
            (
                "network",
                format!("{} nodes, {} segments, {}", settings.nodes, settings.segments, span(settings.years * 365.25)),
            ),
            (
                "coding",
                format!(
                    "{}/{}, repaired at {}; grace {}, audits each {}, top-up after {}",
                    settings.k,
                    settings.n,
                    settings.threshold,
                    span(settings.grace_hours / 24.0),
                    span(settings.audit_days),
                    span(settings.top_up_days)
                ),
            ),
            (
                "segments lost",
                format!(
                    "{} of {} ({:.3e}; 95% between {:.3e} and {:.3e})",
                    lost.lost, lost.segments, lost.counted.value, lost.counted.low, lost.counted.high
                ),
            ),
            ("loss per year", loss_per_year(self)),
            ("closed form", closed_form(self)),
        ];
        if lost.unplaced > 0 {
            let told = format!("{} of {}: they are in no other figure", lost.unplaced, lost.segments);
            rows.push(("found no holders", told));
        }
        let availability = &self.availability;
        rows.extend([
            (
                "reads that work",
                format!("{:.6} (95% between {:.6} and {:.6})", availability.value, availability.low, availability.high),
            ),
            ("nodes online", format!("{:.1}%", self.nodes_online * 100.0)),
            ("nodes that left", repair.nodes_left.to_string()),
            (
                "repairs",
                format!(
                    "{} ({} shards, {} moved; {} tried again)",
                    repair.repairs,
                    repair.shards_rebuilt,
                    bytes(repair.bytes as f64),
                    repair.failed
                ),
            ),
            (
                "false repairs",
                format!(
                    "{} nodes given up came back, {} shards surplus",
                    repair.given_up_wrongly, repair.surplus_shards
                ),
            ),
            ("time to detect a loss", spread(&repair.detect_hours, |hours| span(hours / 24.0))),
            ("time to repair, urgent", spread(&repair.urgent_hours, |hours| span(hours / 24.0))),
            ("time below n", spread(&repair.thin_hours, |hours| span(hours / 24.0))),
            ("repair per node and day", spread(&repair.node_bytes_per_day, bytes)),
            (
                "traffic per byte, month",
                format!(
                    "{:.3} for repairs, {:.3} for audits",
                    repair.bytes_per_byte_month, self.audit.bytes_per_byte_month
                ),
            ),
            (
                "audits per node and day",
                format!(
                    "{} ({} groups a shard, {} per shard)",
                    bytes(self.audit.node_bytes_per_day),
                    self.audit.groups,
                    bytes(self.audit.shard_bytes_per_day)
                ),
            ),
            (
                "a steward's work",
                format!(
                    "{:.1} records, {:.1} shards audited and {:.2} repairs a day",
                    self.steward.records, self.steward.shards_audited_per_day, self.steward.repairs_per_day
                ),
            ),
            ("space", format!("{:.3} bytes on disks for each byte stored", self.overhead)),
        ]);
        if let Some(cheats) = &self.cheats {
            rows.push((
                "cheats found",
                format!("{} nodes; first after: {}", cheats.nodes_found, spread(&cheats.first_days, span)),
            ));
            rows.push(("trusted no more", format!("{} times, each by one steward", cheats.disqualified)));
            rows.push(("false shards found", format!("{}; after: {}", cheats.found, spread(&cheats.found_days, span))));
        }
        rows
    }
}

fn closed_form(report: &Report) -> String {
    let Some(found) = report.closed_form else {
        return report.no_closed_form.map_or_else(String::new, |why| format!("none: {why}"));
    };
    let apart = found
        .standard_errors
        .map_or_else(String::new, |apart| format!("; counted {apart:+.2} standard errors from it"));
    format!("{:.3e} lost by the end{apart}; {:.3e} per year in the long run", found.lost, found.per_year)
}

fn loss_per_year(report: &Report) -> String {
    let (lost, found) = (&report.durability, &report.durability.found);
    let nines = lost.nines.map_or_else(String::new, |nines| format!(", {nines:.1} nines"));
    let method = match found.method {
        Method::Counted => "counted",
        Method::Conditional => "an extrapolation: what might have happened while segments were at their threshold",
        Method::TwoSteps => "an extrapolation in two steps: down to the threshold, and from there",
    };
    let bound =
        if found.from_the_rarest > 0.5 { "; a few windows make up most of it: take it as a lower bound" } else { "" };
    let at_once = match lost.at_once {
        nothing if nothing.value <= 0.0 => String::new(),
        expected if expected.high < 1.0 => format!(
            "; and {:.3e} ({:.1e} to {:.1e}) were to be expected where many left at once",
            expected.value, expected.low, expected.high
        ),
        expected => format!("; and some {:.0e} were to be expected where many left at once", expected.value),
    };
    let at_once = if found.is_extrapolation() { at_once } else { String::new() };
    format!(
        "{:.3e} of segments{nines} (95% between {:.3e} and {:.3e}; {method}{bound}){at_once}",
        found.per_year, found.low, found.high
    )
}
