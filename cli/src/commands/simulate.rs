//! `simulate SCENARIO`: years of churn in a simulated network, and what is lost.

use std::path::Path;

use commonhold_simulations::{Scenario, run as simulate, sweep};

use super::file_failure;
use crate::{
    args,
    exit::Failure,
    output::{Output, columns},
};

pub(super) fn run(args: &args::Simulate, output: &Output) -> Result<(), Failure> {
    let scenario = Scenario::load(&args.scenario)?;
    let seed = args.seed.unwrap_or(scenario.seed);
    if args.sweep {
        let no_sweep = |source| Failure::Sweep { path: args.scenario.clone(), source };
        let points = sweep::run(&scenario, seed).map_err(no_sweep)?;
        if let Some(path) = &args.html {
            write(path, &sweep::html(&scenario.name, &points)?)?;
        }
        return output.facts(&points, || columns(&sweep::table(&points), &[]));
    }
    let report = simulate(&scenario, seed);
    if let Some(path) = &args.html {
        write(path, &report.html()?)?;
    }
    output.facts(&report, || {
        let rows: Vec<Vec<String>> =
            report.rows().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        columns(&rows, &[])
    })
}

fn write(path: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(path, page).map_err(file_failure("write", path))
}
