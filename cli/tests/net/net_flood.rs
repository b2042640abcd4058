//! Promise: one peer that asks, sends records and shards of made-up vaults, and reads, all as fast as it can, does not stop
//! others; the memory of nodes stays bounded, and so does what it fills of the pledge. One that wants far more than its
//! share is thrown out.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::harness::{Home, Network, PROGRAM, Setup, Stored, Tree, eventually, live_bytes, mortal, noise, poll_until};

const NODES: usize = 8;
/// As many as neither a put nor a get can do without. Not all: eight machines would share the work that is two
/// processors' here.
const FLOODED: usize = 4;
const OVERLAY: &str = "[pledge]\ndisk = \"1 GiB\"\nkeep-free = \"16 MiB\"\nvault-max = \"96 MiB\"\n\n\
                       [audit]\nevery = \"60 s\"\ngrace = \"60 s\"\nprove = \"15 s\"\n";
/// The most that shards of one domain may take of each node: an eighth of the pledge.
const DOMAIN_BYTES_MAX: u64 = 128 << 20;
const FILE_BYTES: usize = 24 << 20;
/// How many times as long others may take, by the medians: they keep half of their speed. Without what is done against
/// floods it was twenty times and more.
const SLOWER_MAX: u32 = 2;
/// Each of them without and with the flood, in turns.
const ROUNDS: usize = 5;
const BATCHES_MAX: usize = 3;
/// The node program takes about 40 MiB; the rest is what its queues may hold by their own limits.
const RSS_BYTES_MAX: u64 = 256 << 20;

/// A flooding peer; ended when dropped.
struct Flood {
    child: Child,
    line: Arc<Mutex<String>>,
}

impl Flood {
    /// It comes from another network than all others do, and opens so many streams to each of the nodes that it floods.
    fn start(network: &Network, flooded: usize, streams: usize) -> Self {
        let program = Path::new(PROGRAM).with_file_name("examples").join("cheats");
        let mut command = mortal(program);
        command.args(["flood", &network.name(), "127.0.9.1", &streams.to_string()]);
        command.args(network.running().into_iter().take(flooded).map(|node| network.address(node)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(network.scratch().join("flood.log")).unwrap());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = Arc::<Mutex<String>>::default();
        let last = line.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *last.lock().unwrap() = line;
            }
        });
        Self { child, line }
    }

    /// What it says of itself.
    fn figures(&self) -> BTreeMap<String, u64> {
        let line = self.line.lock().unwrap().clone();
        let figures = line.split(' ').filter_map(|figure| figure.split_once('='));
        figures.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    fn figure(&self, name: &str) -> u64 {
        self.figures().get(name).copied().unwrap_or(0)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a node ever had.
fn peak_rss(network: &Network, node: usize) -> u64 {
    let pid = fs::read_to_string(network.node_dir(node).join("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// How long a put and a get of a new file take.
fn honest(network: &Network, home: &Home, number: usize) -> (Duration, Duration) {
    let name = format!("file-{number}");
    let path = Tree::new(network.scratch().join("source"), 1).file(&name, &noise(100 + number as u64, FILE_BYTES));
    let began = Instant::now();
    home.put(&path, &format!("/{name}"));
    let put = began.elapsed();
    let back = network.scratch().join("back").join(&name);
    let began = Instant::now();
    home.get(&format!("/{name}"), &back).expect_code(0);
    let got = began.elapsed();
    assert!(fs::read(&back).unwrap() == fs::read(&path).unwrap(), "{name} is another");
    (put, got)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_flood_stops_nobody_and_takes_bounded_room() {
    let network =
        Network::start(&Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(OVERLAY), ..Setup::default() });
    let (home, _) = network.new_home("home");
    fs::create_dir(network.scratch().join("back")).unwrap();
    honest(&network, &home, 0);
    let mut times: [[Vec<Duration>; 2]; 2] = Default::default();
    let mut flooded = Vec::new();
    let mut number = 1;
    // A machine that is busy elsewhere may slow one side more than the other: then more rounds tell.
    let mut slower = Vec::new();
    for _ in 0..BATCHES_MAX {
        for with in [false, true].repeat(ROUNDS) {
            let flood = with.then(|| Flood::start(&network, FLOODED, 8));
            if let Some(flood) = &flood {
                eventually("the flood has begun", || flood.figure("answered") + flood.figure("refused") > 1_000);
            }
            let (put, got) = honest(&network, &home, number);
            number += 1;
            times[0][usize::from(with)].push(put);
            times[1][usize::from(with)].push(got);
            flooded.extend(flood.as_ref().map(Flood::figures));
        }
        slower = ["put", "get"].into_iter().zip(&times).collect();
        slower.retain(|(what, [without, with])| {
            let medians = [median(without), median(with)];
            eprintln!("{what} of {} MiB, without and with the flood: {medians:.2?}", FILE_BYTES >> 20);
            medians[1] > medians[0] * SLOWER_MAX
        });
        if slower.is_empty() {
            break;
        }
    }
    assert!(slower.is_empty(), "others do not keep half of their speed: {slower:.2?}");
    let asked: u64 = flooded.iter().map(|figures| figures["answered"] + figures["refused"]).sum();
    assert!(asked > 2_000, "that was no flood: {flooded:?}");

    // What it was let store is bounded for each node, whatever the number of its vaults.
    let others = live_bytes(&Stored::in_vault(&home));
    let per_node = network.volume_data_bytes().saturating_sub(others) / FLOODED as u64;
    eprintln!("{} MiB on the disk of each node that it floods are the flood's", per_node >> 20);
    assert!(per_node <= DOMAIN_BYTES_MAX / 10 * 11, "{per_node} bytes of each node's pledge are the flood's");
    for node in network.running() {
        assert!(network.figure(node, "/pledge/used_bytes") <= network.figure(node, "/pledge/bytes_max"));
        let rss = peak_rss(&network, node);
        eprintln!("node {node}: {} MiB at most", rss >> 20);
        assert!(rss <= RSS_BYTES_MAX, "node {node} took {rss} bytes of memory");
    }
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }
    // None of the made-up records proves itself.
    let segments = home.json(["segments"])["segments"].as_array().unwrap().len() as u64;
    let forgotten =
        poll_until(Duration::from_secs(90), || (network.figures("/records/segments") <= segments * 8).then_some(()));
    assert!(forgotten.is_some(), "{} records of {segments} segments are kept", network.figures("/records/segments"));
}

#[test]
fn who_opens_far_more_streams_than_it_may_is_thrown_out() {
    let network =
        Network::start(&Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(OVERLAY), ..Setup::default() });
    let flood = Flood::start(&network, NODES, 128);
    eventually("every node has thrown it out", || {
        let log = |node| fs::read_to_string(network.node_dir(node).join("log")).unwrap();
        network.nodes().into_iter().all(|node| log(node).contains("wants far more than its share"))
    });
    eventually("it is connected to nobody", || flood.figures().get("connected") == Some(&0));
    let (home, _) = network.new_home("home");
    fs::create_dir(network.scratch().join("back")).unwrap();
    honest(&network, &home, 0);
}
