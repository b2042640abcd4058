//! A simulated year on one core: the time for each event, in networks of 10^4 nodes and more, ten segments of 20/40 a
//! node. `year 1000000` goes up to a million nodes; the default is what takes seconds.

use std::{path::Path, time::Instant};

use commonhold_simulations::{Scenario, run};

const SPEED: &str = include_str!("../scenarios/speed.toml");

fn main() {
    let most = std::env::args().skip(1).find_map(|argument| argument.parse::<u32>().ok()).unwrap_or(10_000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for nodes in [10_000, 30_000, 100_000, 300_000, 1_000_000].into_iter().filter(|nodes| *nodes <= most) {
        let text = SPEED
            .replace("nodes = 100000", &format!("nodes = {nodes}"))
            .replace("segments = 1000000", &format!("segments = {}", nodes * 10));
        let scenario = Scenario::parse(&text, Path::new("speed.toml"), Path::new(".")).expect("a good scenario");
        let begun = Instant::now();
        let report = pool.install(|| run(&scenario, 1));
        let seconds = begun.elapsed().as_secs_f64();
        let each = seconds / report.events as f64 * 1e6;
        let mib = resident_mib();
        println!(
            "{nodes:>8} nodes  {seconds:>7.1} s  {:>10} events  {each:.2} µs each  {mib} MiB at most",
            report.events
        );
    }
}

/// The most memory that this process has had.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
