//! All figures in one table, and the same as JSON.

use std::{borrow::Cow, fmt::Write};

use serde_json::{Value, json};

use crate::{
    Failure, MIB, NODES, Settings,
    disk::SyncedWrites,
    local_network::LocalNetwork,
    process::{own_bytes, peak_bytes, resident_bytes},
    stages::Limits,
    transfer::Transfers,
};

/// What is hoped for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure.
pub(crate) struct Row {
    section: &'static str,
    what: String,
    value: f64,
    unit: Cow<'static, str>,
    /// The bare library, the limit of the machine, or another program.
    beside: Option<(String, f64)>,
    aim: Option<Aim>,
}

impl Row {
    pub(crate) fn new(
        section: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { section, what: what.into(), value, unit: unit.into(), beside: None, aim: None }
    }

    pub(crate) fn beside(mut self, what: impl Into<String>, value: f64) -> Self {
        self.beside = Some((what.into(), value));
        self
    }

    pub(crate) fn aim(mut self, aim: Option<Aim>) -> Self {
        self.aim = aim;
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.beside.as_ref().map(|(_, beside)| self.value / beside)
    }

    fn reached(&self) -> Option<bool> {
        self.aim.map(|aim| match aim {
            Aim::AtLeast(aim) => self.value >= aim,
            Aim::AtMost(aim) => self.value <= aim,
        })
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "section": self.section, "what": self.what, "value": self.value, "unit": self.unit,
        });
        if let Some((what, value)) = &self.beside {
            row["beside"] = json!({ "what": what, "value": value, "ratio": self.ratio() });
        }
        match self.aim {
            Some(Aim::AtLeast(aim)) => row["aim"] = json!({ "at_least": aim, "reached": self.reached() }),
            Some(Aim::AtMost(aim)) => row["aim"] = json!({ "at_most": aim, "reached": self.reached() }),
            None => {}
        }
        row
    }

    fn cells(&self) -> [String; 6] {
        let aim = match self.aim {
            Some(Aim::AtLeast(aim)) => format!(">= {}", figure(aim)),
            Some(Aim::AtMost(aim)) => format!("<= {}", figure(aim)),
            None => String::new(),
        };
        // An aim that nothing stands beside says so: what the machine allows there, nobody has worked out.
        let without = || self.aim.map_or("", |_| "no limit computed").to_owned();
        let reached = self.reached().map_or("", |reached| if reached { "yes" } else { "NO" });
        [
            self.what.clone(),
            format!("{} {}", figure(self.value), self.unit),
            self.beside.as_ref().map_or_else(without, |(what, value)| format!("{} {what}", figure(*value))),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            aim,
            reached.to_owned(),
        ]
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// All figures of a run.
pub(crate) struct Report {
    about: Value,
    rows: Vec<Row>,
    limits: Value,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        let first_line = |path: &str, key: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.rsplit_once(':').map_or(line, |(_, value)| value).trim().to_owned()
        };
        let about = json!({
            "processor": first_line("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            // What else ran at the start: figures of a busy machine are of little worth.
            "load": first_line("/proc/loadavg", ""),
            "optimised": !cfg!(debug_assertions),
            "nodes": NODES,
            "coding": settings.coding.to_string(),
            "large_file_mib": settings.large_bytes / MIB,
            "small_files": settings.files,
            "random_reads": settings.reads,
            "limits": "of noise; to move shards counts as the CPU time of bare libp2p with Noise, but nodes speak \
                       TLS 1.3: where processors have AES that takes less, and the limit is somewhat too low",
        });
        Self { about, rows: Vec::new(), limits: Value::Null }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// What the machine gives, without us.
    pub(crate) fn machine(&mut self, disk: &SyncedWrites, bare: &Transfers, peer: &Transfers) {
        let section = "this machine";
        self.push(Row::new(section, "synced writes of 16 MiB, appended", disk.appended, "MiB/s"));
        self.push(Row::new(section, "synced writes of 16 MiB, in place", disk.in_place, "MiB/s"));
        for (what, bare, peer) in [("there", bare.up, peer.up), ("back", bare.down, peer.down)] {
            self.push(Row::new(section, format!("bare libp2p stream, {what}"), bare.rate, "MiB/s"));
            self.push(Row::new(section, format!("  CPU of both ends, {what}"), bare.cpu_per_gib, "s/GiB"));
            let ours = Row::new(section, format!("our peer, shards {what}"), peer.rate, "MiB/s");
            self.push(ours.beside("bare stream", bare.rate));
            let ours = Row::new(section, format!("  CPU of both ends, {what}"), peer.cpu_per_gib, "s/GiB");
            self.push(ours.beside("bare stream", bare.cpu_per_gib));
        }
    }

    /// What follows from the stages and the machine.
    pub(crate) fn limits(&mut self, limits: &Limits) {
        let section = "limit, of noise";
        let mut sums = Vec::new();
        for (what, parts, limit) in [("put", &limits.put_parts, limits.put), ("get", &limits.get_parts, limits.get)] {
            let sum: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
            self.push(Row::new(section, format!("{what}, CPU of all stages"), sum, "s/GiB"));
            if what == "put" {
                self.push(Row::new(section, "put at most, by CPU", limits.put_by_cpu, "MiB/s"));
                self.push(Row::new(section, "put at most, by synced writes", limits.put_by_disk, "MiB/s"));
            }
            self.push(Row::new(section, format!("{what} at most"), limit, "MiB/s"));
            let parts: serde_json::Map<String, Value> =
                parts.iter().map(|(part, seconds)| ((*part).to_owned(), json!(seconds))).collect();
            sums.push(json!({ "what": what, "mib_per_second": limit, "cpu_seconds_per_gib": parts }));
        }
        self.limits = json!(sums);
    }

    /// What the nodes of a network have needed so far.
    pub(crate) fn node_memory(&mut self, network: &LocalNetwork) -> Result<(), Failure> {
        let of_all = |read: fn(u32) -> Option<u64>| -> Result<Vec<f64>, Failure> {
            let each = network.pids().iter().map(|pid| read(*pid).map(|bytes| bytes as f64 / MIB as f64));
            each.collect::<Option<Vec<_>>>().ok_or_else(|| "a node has ended".into())
        };
        let section = "memory";
        let peaks = of_all(peak_bytes)?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        self.push(Row::new(section, "node, peak, mean of all", mean(&peaks), "MiB"));
        self.push(Row::new(section, "node, peak, largest", peaks.iter().copied().fold(0.0, f64::max), "MiB"));
        self.push(Row::new(section, "node, now, mean of all", mean(&of_all(resident_bytes)?), "MiB"));
        self.push(Row::new(section, "  of it not the program itself", mean(&of_all(own_bytes)?), "MiB"));
        Ok(())
    }

    /// The first row whose name begins so.
    pub(crate) fn value(&self, begin: &str) -> Option<(String, f64)> {
        let row = self.rows.iter().find(|row| row.what.starts_with(begin))?;
        Some((row.what.clone(), row.value))
    }

    pub(crate) fn table(&self) -> String {
        let head = ["", "figure", "beside it", "ratio", "aim", "reached"].map(str::to_owned);
        let cells: Vec<[String; 6]> = self.rows.iter().map(Row::cells).collect();
        let width =
            |at: usize| cells.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or_default();
        let widths: [usize; 6] = std::array::from_fn(width);
        let line = |row: &[String; 6]| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut table = String::new();
        for (key, value) in self.about.as_object().into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let _ = writeln!(table, "\n{}", line(&head));
        let mut sections: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !sections.contains(&row.section) {
                sections.push(row.section);
            }
        }
        for section in sections {
            let _ = writeln!(table, "-- {section}");
            for (_, cells) in self.rows.iter().zip(&cells).filter(|(row, _)| row.section == section) {
                let _ = writeln!(table, "{}", line(cells));
            }
        }
        table
    }

    pub(crate) fn json(&self) -> Result<String, Failure> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let report = json!({ "about": self.about, "limits": self.limits, "figures": rows });
        Ok(serde_json::to_string_pretty(&report)?)
    }
}
