//! Promise: what nobody keeps a lease on any more is let go, and its space comes back; but only on positive evidence.
//! Stewards that know nothing of a vault, and a clock that is years ahead, destroy nothing.

use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use commonhold_protocol::{
    Claim, Coding, Lease, NodeId, Record, SegmentId, Timestamp, Unverified, Verified,
    ask::{Refusal, Request},
};
use commonhold_storage_engine::keys::{VaultKeys, VaultSecret};

use super::harness::{Network, Setup, Spy, eventually, hex_id, poll_until, segment_of_noise};

const NODES: usize = 6;
/// Days and months in seconds.
const TIMES: &str = "[lease]\ngrace = \"2 s\"\nuptime = \"1 s\"\n\n[pledge]\ntrash = \"1 s\"\n\n\
                     [audit]\nevery = \"10 s\"\ngrace = \"20 s\"\n";
/// Grace, trash and a few rounds of questions are about six seconds; the rest is for a loaded machine.
const EXPIRY_MAX: Duration = Duration::from_secs(90);
const SEGMENT_BYTES: usize = 4 << 20;

/// A vault whose owner is this test, and what was placed of it.
struct Vault<'s> {
    spy: &'s Spy,
    keys: VaultKeys,
    shards: Vec<(NodeId, SegmentId, u8, Bytes)>,
}

impl<'s> Vault<'s> {
    fn new(spy: &'s Spy) -> Self {
        Self { spy, keys: VaultKeys::derive(&VaultSecret::from_bytes(rand::random())), shards: Vec::new() }
    }

    fn lease(&self, counter: u64, valid_until: Timestamp) -> Unverified<Lease> {
        let lease = Lease { vault: self.keys.vault_id(), counter, valid_until };
        Verified::sign(lease, self.keys.signing(), &self.spy.network).to_unverified()
    }

    /// Puts a shard of a new segment on each of `nodes`, and its record on all of them, under `lease`.
    fn place(&mut self, nodes: &[NodeId], lease: &Unverified<Lease>) {
        let n = u8::try_from(nodes.len()).unwrap();
        let coding = Coding::new((n / 2).max(1), n).unwrap();
        let coded = segment_of_noise(&self.keys, rand::random(), SEGMENT_BYTES, coding);
        let manifest = Verified::sign(coded.manifest, self.keys.signing(), &self.spy.network);
        let mut claims: Vec<Claim> = Vec::new();
        for ((shard, node), index) in coded.shards.into_iter().zip(nodes).zip(0..) {
            let lease = Some(lease.clone());
            claims.push(self.spy.store_under(*node, manifest.to_unverified(), index, lease, shard.clone()).unwrap());
            self.shards.push((*node, manifest.id(), index, shard));
        }
        let record = Record { manifest: manifest.to_unverified(), claims, drop: None };
        for node in nodes {
            let request = Request::KeepRecords { records: vec![record.clone()], lease: Some(lease.clone()) };
            self.spy.keep(*node, request).unwrap();
        }
    }

    /// Every shard that was placed is still there, for whoever asks.
    fn assert_reads(&self, spy: &Spy) {
        for (node, segment, index, shard) in &self.shards {
            assert_eq!(spy.whole_shard(*node, *segment, *index).as_ref(), Ok(shard));
        }
    }

    fn bytes_placed(&self) -> u64 {
        self.shards.iter().map(|(.., shard)| shard.len() as u64).sum()
    }
}

fn start() -> (Network, Spy, Vec<NodeId>) {
    let network = Network::start(&Setup { nodes: NODES, overlay: Some(TIMES), ..Setup::default() });
    let spy = Spy::on(&network);
    let nodes = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    (network, spy, nodes)
}

fn in_ms(ms: u64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(now.as_millis() as u64).after_ms(ms)
}

#[test]
fn a_vault_whose_lease_runs_out_is_let_go_and_its_space_comes_back() {
    let (network, spy, nodes) = start();
    let (mut kept, mut gone) = (Vault::new(&spy), Vault::new(&spy));
    let year = kept.lease(1, in_ms(365 * 24 * 60 * 60 * 1000));
    kept.place(&nodes, &year);
    let shards = network.figures("/shards/held");
    let soon = gone.lease(1, in_ms(8_000));
    for _ in 0..10 {
        gone.place(&nodes, &soon);
    }
    // Volumes take their space when they are made; what is removed becomes a hole in them.
    let (full, placed) = (network.volume_bytes(), gone.bytes_placed());
    let freed = poll_until(EXPIRY_MAX, || (network.figures("/shards/held") == shards).then_some(()));
    assert!(freed.is_some(), "{} of {shards} shards are held", network.figures("/shards/held"));
    eventually("every node has given the vault up, its records too", || {
        network.figures("/expiry/vaults_freed") == NODES as u64 && network.figures("/records/segments") == NODES as u64
    });
    let after = network.volume_bytes();
    eprintln!("{placed} bytes of shards placed; {full} bytes on disk with them, {after} after the lease had run out");
    assert!(full - after >= placed / 10 * 9, "{after} of {full} bytes on disk are left of a vault of {placed}");
    kept.assert_reads(&spy);
    assert_eq!(network.figures("/audits/refused"), 0, "nobody is blamed for what the lease let go");
    // Who comes back with a new lease is welcome.
    let renewed = gone.lease(2, in_ms(60 * 60 * 1000));
    gone.shards.clear();
    gone.place(&nodes, &renewed);
    gone.assert_reads(&spy);
}

/// Eight node ids near a vault's key can be ground out in seconds; were it enough that they know nothing, they would
/// destroy it.
#[test]
fn stewards_that_do_not_know_the_vault_destroy_nothing() {
    let (network, spy, nodes) = start();
    let mut vault = Vault::new(&spy);
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

/// Where `clock_gettime` says that it is 2038, the rest of the machine does not know of it.
const AHEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec = 2147483648;
    return result;
}
"#;

#[test]
fn a_clock_in_2038_destroys_nothing() {
    let (mut network, spy, nodes) = start();
    let mut vault = Vault::new(&spy);
    let year = vault.lease(1, in_ms(365 * 24 * 60 * 60 * 1000));
    for _ in 0..3 {
        vault.place(&nodes, &year);
    }
    let (source, library) = (network.scratch().join("ahead.c"), network.scratch().join("ahead.so"));
    fs::write(&source, AHEAD).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(compiled.success());
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
