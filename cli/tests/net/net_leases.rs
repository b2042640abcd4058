//! Promise: what nobody keeps a lease on any more is let go, and its space comes back; but only on positive evidence.
//! Whoever uses a vault keeps it. Stewards that know nothing of a vault, and a clock that is years ahead, destroy
//! nothing.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command, time::Duration};

use commonhold_protocol::{
    Coding, NodeId, Record, Timestamp, Verified,
    ask::{Refusal, Request},
};
use commonhold_storage_engine::keys::VaultKeys;

use super::harness::{
    Finished, HandMadeVault, Home, Network, Setup, Spy, Stored, Tree, assert_same, eventually, hex_id, in_ms, keys_of,
    live_bytes, noise, poll_until, segment_of_noise,
};

const NODES: usize = 6;
/// Days and months in seconds.
const TIMES: &str = "[lease]\ngrace = \"2 s\"\nuptime = \"1 s\"\n\n[pledge]\ntrash = \"1 s\"\n\n\
                     [audit]\nevery = \"10 s\"\ngrace = \"20 s\"\n";
/// Grace, trash and a few rounds of questions are about six seconds; the rest is for a loaded machine.
const EXPIRY_MAX: Duration = Duration::from_secs(90);

fn start() -> (Network, Spy, Vec<NodeId>) {
    let network = Network::start(&Setup { nodes: NODES, overlay: Some(TIMES), ..Setup::default() });
    let spy = Spy::on(&network);
    let nodes = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    (network, spy, nodes)
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const YEAR_MS: u64 = 365 * DAY_MS;
/// How long leases run here that are to end: until then two vaults are filled, and one is renewed.
const SOON_MS: u64 = 15_000;

/// Two vaults whose leases end at one moment: the owner of the one looks into it before, of the other nobody hears.
#[test]
fn a_vault_whose_lease_runs_out_is_let_go_and_its_space_comes_back_unless_its_owner_looks_into_it() {
    let (network, spy, nodes) = start();
    let (mut kept, mut gone) = (HandMadeVault::new(&spy), HandMadeVault::new(&spy));
    let year = kept.lease(1, in_ms(YEAR_MS));
    kept.place(&nodes, &year);
    let used = UsedVault::of_a_year_ago(&network);
    let end = used.kept_until(&spy, &nodes).into_iter().max().unwrap();
    assert!(end < in_ms(SOON_MS), "it ends soon");
    let soon = gone.lease(1, end);
    for _ in 0..10 {
        gone.place(&nodes, &soon);
    }

    // Any command that reads renews it, and says so to the stewards before it ends.
    assert_eq!(used.home.names("/"), ["x"]);
    assert!(in_ms(0) < end, "the machine was too slow to renew a lease of {SOON_MS} ms");
    eventually("every steward has heard that it is kept for another year", || {
        used.kept_until(&spy, &nodes).into_iter().all(|until| until > in_ms(YEAR_MS - DAY_MS))
    });
    let renewed = used.kept_until(&spy, &nodes).into_iter().max();
    let status = used.home.json(["status"]);
    assert_eq!(status["kept_until_ms"].as_u64(), renewed.map(|until| until.0), "{status}");

    let stored = Stored::in_vault(&used.home);
    let shards = kept.shards.len() as u64 + stored.iter().map(|segment| u64::from(segment.coding.n())).sum::<u64>();
    // Volumes take their space when they are made; what is removed becomes a hole in them.
    let (full, placed) = (network.volume_bytes(), gone.bytes_placed());
    let freed = poll_until(EXPIRY_MAX, || (network.figures("/shards/held") == shards).then_some(()));
    assert!(freed.is_some(), "{} of {shards} shards are held", network.figures("/shards/held"));
    let segments = NODES as u64 * (1 + stored.len() as u64);
    eventually("every node has given the vault up, its records too", || {
        network.figures("/expiry/vaults_freed") == NODES as u64 && network.figures("/records/segments") == segments
    });
    let after = network.volume_bytes();
    eprintln!("{placed} bytes of shards placed; {full} bytes on disk with them, {after} after the lease had run out");
    assert!(full - after >= placed / 10 * 9, "{after} of {full} bytes on disk are left of a vault of {placed}");
    network.holds_no_more_than(kept.bytes_placed() + live_bytes(&stored));
    kept.assert_reads(&spy);
    used.assert_reads(&network);
    assert_eq!(network.figures("/audits/refused"), 0, "nobody is blamed for what the lease let go");
    // Who comes back with a new lease is welcome.
    let renewed = gone.lease(2, in_ms(60 * 60 * 1000));
    gone.shards.clear();
    gone.place(&nodes, &renewed);
    gone.assert_reads(&spy);
}

/// The vault of an owner who stored something a year ago.
struct UsedVault {
    home: Home,
    keys: VaultKeys,
    tree: Tree,
}

impl UsedVault {
    /// Its lease, of a year, ends in [`SOON_MS`]: for who stored it, it was a year earlier.
    fn of_a_year_ago(network: &Network) -> Self {
        let mut tree = Tree::new(network.scratch().join("source"), 1);
        tree.file("noise", &noise(4, 3 << 20));
        let (home, phrase) = network.new_home("home");
        let clock = other_clock(network, &format!("time->tv_sec - {}", (YEAR_MS - SOON_MS) / 1000));
        let mut put = home.command([OsStr::new("put"), tree.path().as_os_str(), OsStr::new("/x")]);
        Finished::of(put.env("LD_PRELOAD", clock)).expect_code(0);
        Self { home, keys: keys_of(&phrase), tree }
    }

    /// Until when each of `stewards` keeps it.
    fn kept_until(&self, spy: &Spy, stewards: &[NodeId]) -> Vec<Timestamp> {
        let lease = |node: &NodeId| spy.heads(*node, self.keys.vault_id()).1.unwrap().verify(&spy.network).unwrap();
        stewards.iter().map(|node| lease(node).valid_until).collect()
    }

    fn assert_reads(&self, network: &Network) {
        let back = network.scratch().join("back");
        self.home.get("/x", &back).expect_code(0);
        assert_same(self.tree.path(), &back);
    }
}

/// Eight node ids near a vault's key can be ground out in seconds; were it enough that they know nothing, they would
/// destroy it.
#[test]
fn stewards_that_do_not_know_the_vault_destroy_nothing() {
    let (network, spy, nodes) = start();
    let mut vault = HandMadeVault::new(&spy);
    // Ended before it came: nobody tells others of it, so one node alone knows the vault.
    let ended = vault.lease(1, in_ms(0));
    let holder = &nodes[..1];
    for _ in 0..3 {
        vault.place(holder, &ended);
    }
    eventually("the stewards were asked again and again", || network.figure(0, "/expiry/asked") >= 3);
    assert_eq!(network.figure(0, "/expiry/trashed"), 0);
    assert_eq!(network.figure(0, "/expiry/ended"), 1);
    vault.assert_reads(&spy);
    // Nothing new is taken in its name, though.
    let coded = segment_of_noise(&vault.keys, 1, 1000, Coding::new(1, 1).unwrap());
    let manifest = Verified::sign(coded.manifest, vault.keys.signing(), &spy.network).to_unverified();
    let record = Record { manifest, claims: Vec::new(), drop: None };
    let refused = spy.keep(nodes[0], Request::KeepRecords { records: vec![record], lease: None });
    assert_eq!(refused, Err(Refusal::Expired));
}

/// Where `clock_gettime` says that it is another time, the rest of the machine does not know of it.
const OTHER_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec = SECONDS;
    return result;
}
"#;

/// A library that lets a process believe that it is that many seconds after 1970: what C makes of `time`.
fn other_clock(network: &Network, seconds: &str) -> PathBuf {
    let (source, library) = (network.scratch().join("clock.c"), network.scratch().join("clock.so"));
    fs::write(&source, OTHER_CLOCK).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", &format!("-DSECONDS=({seconds})"), "-o"]).arg(&library).arg(&source);
    Finished::of(&mut compile).expect_code(0);
    library
}

#[test]
fn a_clock_in_2038_destroys_nothing() {
    let (mut network, spy, nodes) = start();
    let mut vault = HandMadeVault::new(&spy);
    let year = vault.lease(1, in_ms(365 * 24 * 60 * 60 * 1000));
    for _ in 0..3 {
        vault.place(&nodes, &year);
    }
    let library = other_clock(&network, "2147483648");
    network.stop(0);
    network.launch_with(0, &[("LD_PRELOAD", library.to_str().unwrap())]);
    network.await_node(0, NODES as u64 - 1);
    let log = network.node_dir(0).join("log");
    eventually("the node has noticed that its clock is off", || {
        fs::read_to_string(&log).unwrap_or_default().contains("our clock is far from that of the other nodes")
    });
    // Well over grace, trash and uptime, all in seconds here: it still holds its shards and answers for them.
    eventually("it has been up for long", || network.figure(0, "/uptime_ms") > 15_000);
    assert_eq!(network.figure(0, "/expiry/ended"), 0);
    vault.assert_reads(&Spy::on(&network));
}
