//! Years of churn on up to a million nodes, with the node's own `policy` taking every decision.
//!
//! A [`Scenario`] goes in, a [`Report`] comes out: what is lost, how available it is, what each volunteer pays. The same
//! scenario and seed give the same report, byte for byte, however many cores there are. [`chain`] is the mathematics
//! that the simulator is checked against.

pub mod chain;
pub mod confidence;
pub mod distribution;
mod memory;

pub mod quantity;
mod queue;
pub mod report;
pub mod scenario;
pub mod sweep;
mod tally;
mod world;

pub use report::Report;
pub use scenario::{Scenario, ScenarioError};

use rayon::prelude::*;

/// Plays all runs of a scenario, over the cores.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let runs: Vec<tally::Tally> =
        (0..*scenario.runs.get_ref()).into_par_iter().map(|run| world::World::new(scenario, seed, run).run()).collect();
    Report::new(scenario, seed, runs)
}
