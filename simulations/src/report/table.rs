//! The report as lines of text.

use super::{Method, Report, Spread};

fn bytes(count: f64) -> String {
    bytesize::ByteSize::b(count.max(0.0) as u64).display().iec().to_string()
}

fn spread(spread: &Spread, show: impl Fn(f64) -> String) -> String {
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
                format!("{} nodes, {} segments, {:.3} years", settings.nodes, settings.segments, settings.years),
            ),
            (
                "coding",
                format!(
                    "{}/{}, repaired at {}; grace {:.1} h, audits each {:.2} d, top-up after {:.2} d",
                    settings.k,
                    settings.n,
                    settings.threshold,
                    settings.grace_hours,
                    settings.audit_days,
                    settings.top_up_days
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
        ];
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
                format!("{} ({} shards, {} tried again)", repair.repairs, repair.shards_rebuilt, repair.failed),
            ),
            (
                "false repairs",
                format!(
                    "{} nodes given up came back, {} shards surplus",
                    repair.given_up_wrongly, repair.surplus_shards
                ),
            ),
            ("time to detect", spread(&repair.detect_hours, |hours| format!("{hours:.1} h"))),
            ("time below n", spread(&repair.thin_hours, |hours| format!("{hours:.1} h"))),
            ("repair per node and day", spread(&repair.node_bytes_per_day, bytes)),
            ("repair per byte and month", format!("{:.3}", repair.bytes_per_byte_month)),
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
            let days = spread(&cheats.found_days, |days| format!("{days:.1} d"));
            rows.push(("cheats found", format!("{} shards; {days}", cheats.found)));
        }
        rows
    }
}

fn loss_per_year(report: &Report) -> String {
    let lost = &report.durability;
    let nines = lost.nines.map_or_else(String::new, |nines| format!(", {nines:.1} nines"));
    let method = match lost.method {
        Method::Counted => "counted",
        Method::Conditional => "an extrapolation: what might have happened while segments were at their threshold",
        Method::TwoSteps => "an extrapolation in two steps: down to the threshold, and from there",
    };
    let bound =
        if lost.from_the_rarest > 0.5 { "; a few windows make up most of it: take it as a lower bound" } else { "" };
    format!("{:.3e} of segments{nines} ({method}{bound})", lost.per_year)
}
