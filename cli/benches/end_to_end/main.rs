//! How fast the whole is: a network of real node processes on loopback, the real binary as their client; and, from the
//! same run, what this machine allows at most.
//!
//! `scripts/bench` runs this after the benches of the stages, whose figures go into the same table. Sizes are set from
//! outside: `BENCH_MIB` (1024), `BENCH_FILES` (5000), `BENCH_READS` (1000); `BENCH_FULL=1` fills the node that is
//! weighed with a million shards. Nothing here changes the product or judges a figure beyond "aim reached".

mod content;
mod disk;
mod full_node;
mod local_network;
mod peers;
mod process;
mod report;
mod round_trips;
mod small_reads;
mod stages;
mod transfer;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use commonhold_protocol::Coding;

use crate::{local_network::LocalNetwork, report::Report};

/// Whatever goes wrong ends the run.
type Failure = Box<dyn Error + Send + Sync>;

const MIB: u64 = 1 << 20;
const GIB: f64 = (1_u64 << 30) as f64;

/// The program under test, built with this bench.
const PROGRAM: &str = env!("CARGO_BIN_EXE_commonhold");
const NODES: u16 = 14;

/// What is run, and where.
struct Settings {
    /// Bytes of each of the two large files.
    large_bytes: u64,
    /// Small files.
    files: usize,
    /// Random reads.
    reads: usize,
    /// Fill the node that is weighed with a million shards.
    full: bool,
    coding: Coding,
    /// On the disk that is measured; removed afterwards.
    scratch: PathBuf,
    /// Where cargo builds: criterion's results, and the report.
    target: PathBuf,
}

impl Settings {
    fn from_environment() -> Result<Self, Failure> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().map_err(|_| format!("{name}={text}: expected a number")),
            Err(_) => Ok(default),
        };
        // PROGRAM is target/PROFILE/commonhold.
        let target = Path::new(PROGRAM).ancestors().nth(2).ok_or("the program lies in no target folder")?.to_owned();
        let scratch = target.join("bench/tmp").join(std::process::id().to_string());
        fs::create_dir_all(&scratch)?;
        Ok(Self {
            large_bytes: number("BENCH_MIB", 1024)?.max(1) * MIB,
            files: number("BENCH_FILES", 5000)?.max(1) as usize,
            reads: number("BENCH_READS", 1000)?.max(1) as usize,
            full: number("BENCH_FULL", 0)? == 1,
            coding: Coding::new(7, 14)?,
            scratch,
            target,
        })
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.scratch) {
            eprintln!("bench: {} is left behind: {error}", self.scratch.display());
        }
    }
}

fn step(what: &str) {
    eprintln!("bench: {what}");
}

fn run(settings: &Settings) -> Result<Report, Failure> {
    let mut report = Report::new(settings);

    step("what the disk and the network of this machine give");
    let disk = disk::SyncedWrites::measure(&settings.scratch, settings.large_bytes)?;
    let bare = transfer::bare::measure(settings.large_bytes)?;
    let peer = transfer::peer::measure(settings.large_bytes)?;
    report.machine(&disk, &bare, &peer);

    step("stages");
    let stages = stages::Stages::collect(settings, disk.best())?;
    stages.report(&mut report);
    let limits = stages.limits(&bare);
    report.limits(&limits);

    step("files to store");
    let content = content::Content::make(settings)?;
    step("a local network");
    let network = LocalNetwork::start(&settings.scratch.join("network"), NODES, settings.coding)?;
    round_trips::measure(settings, &network, &content, &limits, &mut report)?;
    small_reads::measure(settings, &network, &content, &mut report)?;
    report.node_memory(&network)?;
    network.stop()?;

    step("a node that holds much");
    full_node::measure(settings, &mut report)?;
    peers::report(settings, &mut report)?;
    Ok(report)
}

fn main() -> ExitCode {
    // As the second process of a transfer.
    match std::env::args().nth(1).as_deref() {
        Some(transfer::bare::SERVE) => return ended(transfer::bare::serve()),
        Some(transfer::peer::SERVE) => return ended(transfer::peer::serve()),
        _ => {}
    }
    ended(Settings::from_environment().and_then(|settings| {
        let report = run(&settings)?;
        print!("{}", report.table());
        let path = settings.target.join("bench/report.json");
        fs::write(&path, report.json()?)?;
        println!("\nas JSON: {}", path.display());
        Ok(())
    }))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
