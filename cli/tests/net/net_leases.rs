//! Promise: what nobody keeps a lease on any more is let go, and its space comes back; but only on positive evidence.
//! Stewards that know nothing of a vault, and a clock that is years ahead, destroy nothing.

use std::{fs, process::Command, time::Duration};

use commonhold_protocol::{
    Coding, NodeId, Record, Verified,
    ask::{Refusal, Request},
};

use super::harness::{HandMadeVault, Network, Setup, Spy, eventually, hex_id, in_ms, poll_until, segment_of_noise};

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

#[test]
fn a_vault_whose_lease_runs_out_is_let_go_and_its_space_comes_back() {
    let (network, spy, nodes) = start();
    let (mut kept, mut gone) = (HandMadeVault::new(&spy), HandMadeVault::new(&spy));
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
    let mut vault = HandMadeVault::new(&spy);
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
