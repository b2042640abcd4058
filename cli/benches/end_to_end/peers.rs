//! Other programs that do the same, if `scripts/bench-peers` has measured them in this run.

use std::fs;

use serde::Deserialize;

use crate::{
    Failure, Settings,
    report::{Report, Row},
};

/// A figure of another program, and which of ours it is to be compared with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    program: String,
    what: String,
    value: f64,
    unit: String,
    /// The begin of our row's name; none if we have nothing of the kind.
    ours: Option<String>,
}

/// Puts them into the table, with ours beside.
pub(crate) fn report(settings: &Settings, report: &mut Report) -> Result<(), Failure> {
    let path = settings.target.join("bench/peers.json");
    if !path.exists() {
        return Ok(());
    }
    let figures: Vec<Figure> = serde_json::from_slice(&fs::read(&path)?)?;
    for Figure { program, what, value, unit, ours } in figures {
        let mut row = Row::new("others", format!("{program}: {what}"), value, unit);
        if let Some((name, value)) = ours.and_then(|name| report.value(&name)) {
            row = row.beside(format!("ours: {name}"), value);
        }
        report.push(row);
    }
    Ok(())
}
