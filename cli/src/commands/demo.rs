//! `demo [DIR]`: the tour, in plain lines and with figures. Each claim that it prints was checked just before.
//!
//! A network of real processes, a folder stored, as many nodes killed as may be lost, and the folder read back by a
//! machine that knows nothing but the recovery phrase; then the network makes good what was lost, every node is replaced,
//! and the folder is read back again. If anything is not as told, it ends with an error.

mod compare;
mod renewal;
mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use commonhold_client_sdk::{
    self as sdk, GetOptions, GetReport, Home, OpenOptions, Phrase, Progress, PutOptions, PutReport, SegmentHealth,
    Vault, VaultPath,
};
use commonhold_protocol::Coding;
use rand::seq::SliceRandom;
use serde::Serialize;

use self::renewal::{Loss, Observer};
use crate::{
    args, escape,
    exit::Failure,
    figures,
    interrupt::{self, Stop},
    local_network::{LocalNetwork, Setup},
    output::{Output, columns},
    reporter::Reporter,
};

/// Enough for a code that survives several losses, few enough for a small machine.
const NODES: u16 = 12;
/// The vault lives for a minute on this machine alone; a passphrase protects nothing here.
const PASSPHRASE: &str = "demo";

/// Why the tour did not go as told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: not as it was stored: {what}", path.display())]
    Differs { path: PathBuf, what: String },
    #[error("only {found} of {expected} entries came back")]
    Missing { found: u64, expected: u64 },
    #[error("nothing was stored of {}", path.display())]
    NothingStored { path: PathBuf },
    #[error("{what} is not known after a successful put")]
    Unknown { what: &'static str },
    #[error("the network does not make good what was lost: {healthy} of {shards} shards are healthy, and it stays so")]
    Stalled { healthy: u64, shards: u64 },
}

/// The figures of the tour.
#[derive(Serialize)]
struct Tour {
    nodes: usize,
    ready_seconds: f64,
    stored_bytes: u64,
    sent_bytes: u64,
    put_seconds: f64,
    segments: usize,
    killed: Vec<String>,
    recover_seconds: f64,
    get_seconds: f64,
    refill_seconds: f64,
    replaced: Vec<Loss>,
    /// Of the last one, when every node had been replaced.
    get_again_seconds: f64,
    compared_entries: u64,
    compared_bytes: u64,
}

pub(super) fn run(args: &args::Demo, output: &Output) -> Result<(), Failure> {
    let progress = Arc::new(Progress::default());
    let stop = interrupt::interrupts(&progress).map_err(Failure::Signals)?;
    let scratch = tempfile::Builder::new().prefix("commonhold-demo-").tempdir();
    let scratch = scratch.map_err(super::file_failure("make a folder in", std::env::temp_dir()))?;
    let story = Story { output, scratch: scratch.path(), stop: &stop };
    let tour = story.tell(args.dir.as_deref(), &progress);
    // Said aloud if it fails: what is left behind may be large.
    let path = scratch.path().to_owned();
    let cleaned = scratch.close().map_err(super::file_failure("remove", path));
    let tour = tour?;
    cleaned?;
    if output.is_json() { output.json(&tour) } else { story_ends(output) }
}

fn story_ends(output: &Output) -> Result<(), Failure> {
    output.done(&(), || vec!["Everything was as told; the network and all its data are removed again.".to_owned()])
}

struct Story<'a> {
    output: &'a Output,
    scratch: &'a Path,
    stop: &'a Stop,
}

impl Story<'_> {
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.output.shows_progress() { self.output.line(text) } else { Ok(()) }
    }

    fn tell(&self, given: Option<&Path>, progress: &Arc<Progress>) -> Result<Tour, Failure> {
        let source = match given {
            Some(folder) => fs::canonicalize(folder).map_err(super::file_failure("find", folder))?,
            None => {
                let folder = self.scratch.join("sample");
                sample::make(&folder)?;
                folder
            }
        };
        let (mut network, ready_seconds) = self.start_network()?;
        let founders = network.nodes().to_vec();
        let phrase = network.take_phrase().ok_or(DemoError::Unknown { what: "the recovery phrase" })?;
        let put = self.store(&network, &source, given.is_none(), progress)?;
        let segments = self.show_shards(&network)?;
        let killed = self.kill_some(&mut network, &segments)?;
        let observer = Observer::start(self, &mut network)?;
        self.say("5. A new machine that has nothing but the 24 words of the recovery phrase reads everything back.")?;
        let (get, recover_seconds) = self.recover(&mut network, &phrase, "new-machine", progress)?;
        self.compare(&source, &put, "new-machine", 6)?;
        let refill_seconds = observer.refill(&mut network, killed.len() as u16)?;
        let replaced = observer.replace_all(&mut network, &founders)?;
        drop(observer);
        self.say(
            "9. One more machine with the 24 words reads everything back from nodes that were not there at the start.",
        )?;
        let (get_again, _) = self.recover(&mut network, &phrase, "newer-machine", progress)?;
        let compared = self.compare(&source, &put, "newer-machine", 10)?;
        Ok(Tour {
            nodes: founders.len(),
            ready_seconds,
            stored_bytes: put.bytes,
            sent_bytes: put.commit.figures.bytes_placed,
            put_seconds: put.seconds,
            segments: segments.len(),
            killed,
            recover_seconds,
            get_seconds: get.seconds,
            refill_seconds,
            replaced,
            get_again_seconds: get_again.seconds,
            compared_entries: compared.entries,
            compared_bytes: compared.bytes,
        })
    }

    fn start_network(&self) -> Result<(LocalNetwork, f64), Failure> {
        self.say(&format!(
            "1. A network: {NODES} node processes on this machine, each in a failure domain of its own."
        ))?;
        let started = Instant::now();
        let dir = self.scratch.join("network");
        let times = self.scratch.join("times.toml");
        let failed = |source| DemoError::Io { action: "write", path: times.clone(), source };
        fs::write(&times, renewal::TIMES).map_err(failed)?;
        let overlay = Some(times.as_path());
        let setup = Setup { dir: &dir, nodes: NODES, domains: None, coding: None, overlay, passphrase: PASSPHRASE };
        let network = LocalNetwork::start(&setup, self.stop)?;
        let seconds = started.elapsed().as_secs_f64();
        self.say(&format!("   Ready after {}: they found each other through the DHT.\n", figures::span(seconds)))?;
        Ok((network, seconds))
    }

    fn store(
        &self,
        network: &LocalNetwork,
        source: &Path,
        sample: bool,
        progress: &Arc<Progress>,
    ) -> Result<PutReport, Failure> {
        let shown = escape::text(&source.to_string_lossy());
        let what = if sample { "a sample folder".to_owned() } else { shown };
        self.say(&format!("2. Storing {what}: encrypted here, cut into coded shards, spread over the nodes."))?;
        let vault = open(&network.client_home())?;
        let reporter = Reporter::start(self.output, "put", progress);
        let report = vault.put(source, &target()?, &PutOptions { overwrite: false }, progress);
        drop(reporter);
        let report = report?;
        if report.entries.files + report.entries.folders + report.entries.links == 0 {
            return Err(DemoError::NothingStored { path: source.to_owned() }.into());
        }
        self.say(&format!(
            "   {}, {} in {} ({}). The nodes took {} of shards.",
            super::put::entries(&report.entries),
            figures::size(report.bytes),
            figures::span(report.seconds),
            figures::rate(report.bytes, report.seconds),
            figures::size(report.commit.figures.bytes_placed),
        ))?;
        if report.unreadable_total > 0 {
            let count = figures::count(report.unreadable_total, "file", "files");
            self.say(&format!("   {count} could not be read and are left out."))?;
        }
        self.say("")?;
        Ok(report)
    }

    fn show_shards(&self, network: &LocalNetwork) -> Result<Vec<SegmentHealth>, Failure> {
        let vault = open(&network.client_home())?;
        let segments = vault.segments(None)?;
        let most =
            segments.iter().max_by_key(|segment| segment.length).ok_or(DemoError::Unknown { what: "a segment" })?;
        self.say(&format!(
            "3. Where it went: {}. Any {} of the {} shards of a full segment restore it; no node can read its shards.",
            figures::count(segments.len() as u64, "segment", "segments"),
            most.k,
            most.n
        ))?;
        let mut held: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for segment in &segments {
            let bytes = Coding::new(segment.k, segment.n).map_or(0, |coding| coding.shard_length(segment.length));
            for holder in segment.holders.iter().flatten() {
                let (shards, total) = held.entry(holder.as_str()).or_default();
                *shards += 1;
                *total += bytes;
            }
        }
        let mut rows = vec![["node", "shards", "bytes", ""].map(str::to_owned).to_vec()];
        let largest = held.values().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
        for node in network.nodes() {
            let id = commonhold_node::status_of(&node.folder).map(|status| status.node).unwrap_or_default();
            let (shards, bytes) = held.get(id.as_str()).copied().unwrap_or_default();
            let bar = "#".repeat(usize::try_from(bytes * 24 / largest).unwrap_or_default());
            rows.push(vec![node.name(), figures::grouped(shards), figures::size(bytes), bar]);
        }
        for line in columns(&rows, &[1, 2]) {
            self.say(&format!("   {line}"))?;
        }
        self.say("")?;
        Ok(segments)
    }

    fn kill_some(&self, network: &mut LocalNetwork, segments: &[SegmentHealth]) -> Result<Vec<String>, Failure> {
        let may_be_lost = segments.iter().map(may_be_lost).min().unwrap_or(0);
        if may_be_lost == 0 {
            return Err(DemoError::Unknown { what: "a holder that may be lost" }.into());
        }
        let mut nodes = network.nodes().to_vec();
        nodes.shuffle(&mut rand::rng());
        nodes.truncate(may_be_lost);
        nodes.sort_by_key(|node| node.number);
        let names: Vec<String> = nodes.iter().map(|node| node.name()).collect();
        self.say(&format!(
            "4. A loss: {} killed at once (kill -9), any {may_be_lost} of them would do: {}.\n",
            figures::count(names.len() as u64, "node", "nodes"),
            names.join(", ")
        ))?;
        for node in &nodes {
            network.kill(node.number)?;
        }
        Ok(names)
    }

    /// Takes up the vault on a machine that was not there before, and reads all of it.
    fn recover(
        &self,
        network: &mut LocalNetwork,
        phrase: &Phrase,
        machine: &str,
        progress: &Arc<Progress>,
    ) -> Result<(GetReport, f64), Failure> {
        let home = Home::at(self.scratch.join(machine));
        let started = Instant::now();
        sdk::recover(&home, &network.client_config(None), PASSPHRASE, phrase)?;
        let recover_seconds = started.elapsed().as_secs_f64();
        let vault = open(&home)?;
        let reporter = Reporter::start(self.output, "get", progress);
        let report = vault.get(&target()?, &self.restored(machine), &GetOptions { overwrite: false }, progress);
        drop(reporter);
        let report = report?;
        self.say(&format!(
            "   The vault was found in {}; {} came back in {} ({}).\n",
            figures::span(recover_seconds),
            figures::size(report.bytes),
            figures::span(report.seconds),
            figures::rate(report.bytes, report.seconds),
        ))?;
        for left in &report.not_restored {
            let path = escape::text(&left.path.to_string_lossy());
            self.say(&format!("   Not restored: {} of {path}: {}", left.what, left.reason))?;
        }
        Ok((report, recover_seconds))
    }

    /// Compares what a machine read with what was stored.
    fn compare(&self, source: &Path, put: &PutReport, machine: &str, step: u8) -> Result<compare::Compared, Failure> {
        let left_out = put.unreadable.iter().map(|unreadable| unreadable.path.clone()).collect();
        let restored = self.restored(machine);
        let compared = compare::trees(source, &restored, &left_out)?;
        let stored = put.entries.files + put.entries.folders + put.entries.links + put.entries.others;
        if compared.entries != stored {
            return Err(DemoError::Missing { found: compared.entries, expected: stored }.into());
        }
        self.say(&format!(
            "{step}. Compared: {} and {} are the same, byte for byte, with modes, times and links.\n",
            figures::count(compared.entries, "entry", "entries"),
            figures::size(compared.bytes),
        ))?;
        Ok(compared)
    }

    fn restored(&self, machine: &str) -> PathBuf {
        self.scratch.join(format!("restored-by-{machine}"))
    }
}

/// How many nodes may be lost, whichever they are, without the segment: each holder counts once, and a shard that
/// nobody holds yet not at all.
fn may_be_lost(segment: &SegmentHealth) -> usize {
    let holders: BTreeSet<&String> = segment.holders.iter().flatten().collect();
    holders.len().saturating_sub(segment.k.into())
}

fn target() -> Result<VaultPath, Failure> {
    super::vault_path("/demo".as_ref())
}

fn open(home: &Home) -> Result<Vault, Failure> {
    Ok(Vault::open(home, PASSPHRASE, &OpenOptions { bootstrap: Vec::new() })?)
}
