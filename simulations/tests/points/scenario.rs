//! Points of the closed form as scenarios of the simulator.

use std::path::Path;

use commonhold_simulations::{
    Scenario,
    chain::{Point, RepairLaw},
};

/// Days as the simulator wants them, whatever they are.
fn seconds(days: f64) -> String {
    format!("{}s", (days * 86_400.0).round() as u64)
}

pub(crate) fn scenario(point: &Point, days: f64, nodes: u32, segments: u32, top_up: &str) -> Scenario {
    let repair = match point.law {
        RepairLaw::Exponential => format!("{{ law = \"exponential\", mean = \"{}\" }}", seconds(point.repair)),
        RepairLaw::Fixed => format!("{{ law = \"fixed\", value = \"{}\" }}", seconds(point.repair)),
    };
    let text = format!(
        "name = \"a point\"\nsource = \"closed form\"\nduration = \"{}\"\n\
         [network]\nnodes = {nodes}\nsegments = {segments}\nsegment-size = \"64 KiB\"\ncoding = \"{}/{}\"\n\
         threshold = {}\n[audit]\ngrace = \"{}\"\n[repair]\ntop-up = \"{top_up}\"\ntime = {repair}\n\
         [[population]]\nname = \"all\"\nlifetime = {{ law = \"exponential\", mean = \"{}\" }}\n",
        seconds(days),
        point.k,
        point.n,
        point.threshold,
        seconds(point.detection),
        seconds(point.mttf),
    );
    Scenario::parse(&text, Path::new("point.toml"), Path::new(".")).expect("a good scenario")
}
