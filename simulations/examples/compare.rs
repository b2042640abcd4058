//! Compares what real processes did with what the simulator says of the same config: reads the output of the tests
//! `net_repair` and `net_cheats` and prints both figures side by side. Fails if they are more than
//! 20% apart, or one is not there. `docs/simulations.md` has the command.

use std::{error::Error, io::Read, path::Path, process::ExitCode};

use commonhold_simulations::{Report, Scenario, run};

/// How far apart they may be.
const APART_MAX: f64 = 0.2;
/// Shards that restore a segment of `net_repair`.
const K: u8 = 3;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut output = String::new();
    std::io::stdin().read_to_string(&mut output)?;
    let (repairs, cheats) = (simulated("process-repairs")?, simulated("process-tests")?);
    let first = cheats.cheats.ok_or("the scenario has a cheat")?.first_days.mean * 86_400.0;

    let seconds = |text: &str| text.trim().trim_end_matches('s').parse::<f64>().ok();
    let after = |line: &str, before: &str| line.split_once(before).map(|(_, rest)| rest.to_owned());
    let rounds: Vec<f64> = output.lines().filter_map(|line| seconds(&after(line, "held again after ")?)).collect();
    let done: Vec<[f64; 4]> = output.lines().filter_map(repaired).collect();
    let sum = |at: usize| done.iter().map(|round| round[at]).sum::<f64>();
    // A repair reads k shards, and sends what it rebuilds. Also in shards, since the test's segments are not alike in size.
    let moved = |repairs: f64, rebuilt: f64| (f64::from(K) * repairs + rebuilt) / rebuilt;
    let simulated_moved = moved(repairs.repair.repairs as f64, repairs.repair.shards_rebuilt as f64);
    let refusals: Vec<f64> = output
        .lines()
        .filter(|line| line.trim_start().starts_with("refuses "))
        .filter_map(|line| seconds(after(line, " after ")?.split(' ').next()?))
        .collect();

    let found = |kind: &str| output.lines().filter_map(|line| found_and_simulated(kind, line)).collect();
    let (deletions, silences): (Vec<[f64; 4]>, Vec<[f64; 4]>) = (found("deletes"), found("hangs-up"));

    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of = |runs: &[[f64; 4]], at: usize| mean(&runs.iter().map(|run| run[at]).collect::<Vec<f64>>());
    let mut good = true;
    // A round ends with the last of its segments that lost a shard.
    let thin = &repairs.repair.thin_hours;
    let last = mean_of_largest(&thin.twentieths, thin.count as f64 / f64::from(repairs.runs)) * 3600.0;
    for (name, count, measured, simulated) in [
        ("seconds until all lost shards are held again", rounds.len(), mean(&rounds), last),
        ("shards moved for each that is rebuilt", done.len(), moved(sum(0), sum(1)), simulated_moved),
        ("bytes moved for each that is rebuilt", done.len(), sum(3) / sum(2), simulated_moved),
        ("seconds until a refusal is found", refusals.len(), mean(&refusals), first),
        ("shards found of each that deletes a twentieth", deletions.len(), of(&deletions, 0), of(&deletions, 2)),
        ("seconds until each of them is found", deletions.len(), of(&deletions, 1), of(&deletions, 3)),
        ("shards found of each that hangs up on a twentieth", silences.len(), of(&silences, 0), of(&silences, 2)),
        ("seconds until each of them is found", silences.len(), of(&silences, 1), of(&silences, 3)),
    ] {
        if count == 0 {
            println!("{name}: not in the output; simulated {simulated:.2}");
            good = false;
            continue;
        }
        let apart = measured / simulated - 1.0;
        good &= apart.abs() <= APART_MAX;
        println!("{name}: {measured:.2} in {count} rounds, simulated {simulated:.2}, {:+.1}%", apart * 100.0);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn simulated(name: &str) -> Result<Report, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let scenario = Scenario::load(&folder.join(name).with_extension("toml"))?;
    Ok(run(&scenario, scenario.seed))
}

/// The mean of the largest of so many, of which each twentieth is below these.
fn mean_of_largest(twentieths: &[f64; 21], of: f64) -> f64 {
    const STEPS: usize = 10_000;
    let quantile = |part: f64| {
        let at = part * 20.0;
        let below = (at as usize).min(19);
        twentieths[below] + (twentieths[below + 1] - twentieths[below]) * (at - below as f64)
    };
    // The chance that all are below a value is that of one, to the power of their number.
    let largest = |step: usize| quantile(((step as f64 + 0.5) / STEPS as f64).powf(1.0 / of));
    (0..STEPS).map(largest).sum::<f64>() / STEPS as f64
}

/// Of a line as `deletes: 3 shards of a cheat are found, each after 4 s; simulated 5 and 6 s`.
fn found_and_simulated(kind: &str, line: &str) -> Option<[f64; 4]> {
    let (found, rest) =
        line.split_once(kind)?.1.strip_prefix(": ")?.split_once(" shards of a cheat are found, each after ")?;
    let (after, rest) = rest.split_once(" s; simulated ")?;
    let (simulated, rest) = rest.split_once(" and ")?;
    figures([found, after, simulated, rest.trim_end().strip_suffix(" s")?])
}

/// Of a line as `3 repairs rebuilt 4 shards of 5 bytes and moved 6 bytes`.
fn repaired(line: &str) -> Option<[f64; 4]> {
    let (repairs, rest) = line.split_once(" repairs rebuilt ")?;
    let (shards, rest) = rest.split_once(" shards of ")?;
    let (rebuilt, rest) = rest.split_once(" bytes and moved ")?;
    figures([repairs.trim(), shards, rebuilt, rest.trim_end().strip_suffix(" bytes")?])
}

fn figures(texts: [&str; 4]) -> Option<[f64; 4]> {
    let [a, b, c, d] = texts.map(|text| text.parse().ok());
    Some([a?, b?, c?, d?])
}
