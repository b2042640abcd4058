//! Simulated time on one core: a year of 20/40, ten segments a node, and the time for each event in networks of 10^4 to
//! 10^6 nodes, which all do the same for each of theirs: two segments a node, 120 days. `year 1000000` plays them all,
//! `year 1000000 300000` those from 300,000 nodes; the default is what takes seconds. It fails if the year of 10^5 nodes
//! takes more than what is promised of it, or an event in one of 10^6 much more than in one of 10^4.
//!
//! With a file as `CURVE` in the environment the times for an event are plotted there, as SVG.
//!
//! What takes less than a second is played several times and taken together. Processor time counts, since other
//! processes may want the core too. That of an event is without what it takes to place all segments at the start.

use std::{path::Path, time::Instant};

use commonhold_simulations::{
    Report, Scenario,
    report::plots::{Dot, dots},
    run,
};

const SPEED: &str = include_str!("../scenarios/speed.toml");
/// Nodes, segments of each node, and days.
const YEARS: [(u32, u32, u32); 2] = [(10_000, 10, 365), (100_000, 10, 365)];
const CURVE: [(u32, u32, u32); 5] =
    [(10_000, 2, 120), (30_000, 2, 120), (100_000, 2, 120), (300_000, 2, 120), (1_000_000, 2, 120)];

/// What a year of so many nodes may take at most: seconds of processor time, and memory.
const PROMISED: (u32, f64, u64) = (100_000, 120.0, 8 << 10);

/// How much more time an event may take in the largest network than in the smallest: some of that is others' use of the memory.
const GROWS_MAX: f64 = 1.3;

/// A network of fewer segments is played more than once.
const TIMED_SEGMENTS: u32 = 200_000;

fn main() {
    let mut bounds = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let (most, least) = (bounds.next().unwrap_or(10_000), bounds.next().unwrap_or(0));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let mut curve = Vec::new();
    let sizes = YEARS.into_iter().chain(CURVE).filter(|(nodes, ..)| (least..=most).contains(nodes));
    for (nodes, each_holds, days) in sizes {
        let segments = nodes * each_holds;
        let times = (TIMED_SEGMENTS / segments).clamp(1, 20);
        let (_, placing, _) = pool.install(|| play(nodes, segments, "1 ms", times));
        let (report, processor, wall) = pool.install(|| play(nodes, segments, &format!("{days} d"), times));
        let each = (processor - placing).max(0.0) / report.events as f64 * 1e6;
        println!(
            "{nodes:>8} nodes, {segments:>8} segments, {days:>3} d: {wall:>6.1} s, {processor:>6.1} s of processor time, \
             {placing:.1} of them to place; {:>9} events, {each:.2} µs each; {} MiB at most",
            report.events,
            resident_mib()
        );
        let label = format!("{nodes} nodes: {each:.2}");
        if days == 365 {
            let (of, seconds_max, mib_max) = PROMISED;
            assert!(nodes > of || (processor <= seconds_max && resident_mib() <= mib_max), "more than is promised");
            continue;
        }
        curve.push(Dot { x: f64::from(nodes).log10(), y: each, label, on_frontier: true, is_default: false });
    }
    if let [smallest, .., largest] = curve.as_slice() {
        let apart = 10f64.powf(largest.x - smallest.x);
        let grows = largest.y / smallest.y;
        println!("an event of {apart:.0} times as many nodes takes {grows:.2} times as long");
        assert!(grows <= GROWS_MAX, "the time for an event is to be the same");
    }
    if let Some(path) = std::env::var_os("CURVE") {
        // The axis begins at nothing.
        curve.push(Dot { x: 4.0, y: 0.0, label: String::new(), on_frontier: false, is_default: false });
        let plot = dots("Processor time for each event", "nodes, 10 to the power of", "microseconds", &curve);
        std::fs::write(path, plot.expect("a plot")).expect("the file can be written");
    }
}

/// The report, and the seconds of processor time and of the clock that it took, each of `times`.
fn play(nodes: u32, segments: u32, duration: &str, times: u32) -> (Report, f64, f64) {
    let text = SPEED
        .replace("nodes = 100000", &format!("nodes = {nodes}"))
        .replace("segments = 1000000", &format!("segments = {segments}"))
        .replace("duration = \"1 year\"", &format!("duration = \"{duration}\""));
    let scenario = Scenario::parse(&text, Path::new("speed.toml"), Path::new(".")).expect("a good scenario");
    let (begun, used) = (Instant::now(), processor_seconds());
    let report = run(&scenario, 1);
    for _ in 1..times {
        run(&scenario, 1);
    }
    let each = |all: f64| all / f64::from(times);
    (report, each(processor_seconds() - used), each(begun.elapsed().as_secs_f64()))
}

/// Processor time of this process: user and system, in ticks of 10 ms.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may have spaces; utime and stime are the 12th and 13th after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The most memory that this process has had.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
