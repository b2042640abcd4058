//! Promise: what is removed and pruned gives its space back on every disk; what stays, and what another device begins to
//! use at that very moment, can be read by anybody who has the phrase.

use std::{ffi::OsStr, path::Path};

use super::harness::{Home, Network, Setup, Stored, Tree, assert_same, bytes_placed, eventually, live_bytes, noise};

const NODES: usize = 8;
const TIMES: &str = "[audit]\nevery = \"2 s\"\ngrace = \"20 s\"\n\n[pledge]\ntrash = \"2 s\"\nannounce = \"2 s\"\n";
/// What was dropped by mistake stays in the trash while a test runs.
const LONG_TRASH: &str = "[audit]\nevery = \"2 s\"\n\n[pledge]\nannounce = \"2 s\"\n";
const SMALL: usize = 6 << 20;
const LARGE: usize = 24 << 20;

fn start(overlay: &str) -> Network {
    Network::start(&Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(overlay), ..Setup::default() })
}

fn folder(network: &Network, name: &str, bytes: usize) -> Tree {
    let mut tree = Tree::new(network.scratch().join(format!("source-{name}")), bytes as u64);
    tree.file("noise", &noise(bytes as u64, bytes));
    tree
}

/// Reads `path` as somebody does who knows the phrase alone.
fn read_cold(network: &Network, phrase: &str, path: &str, expected: &Path) {
    let name = format!("cold-{}", std::fs::read_dir(network.scratch()).unwrap().count());
    let cold = network.cold_home(&name, phrase, &[0, 1, 2]);
    let back = network.scratch().join(format!("back-{name}"));
    cold.get(path, &back).expect_code(0);
    assert_same(expected, &back);
}

fn heads(home: &Home) -> u64 {
    home.json(["status"])["heads_written"].as_u64().unwrap()
}

#[test]
fn what_is_pruned_gives_its_space_back_and_nothing_else_is_gone() {
    let network = start(TIMES);
    let (home, phrase) = network.new_home("home");
    let [small, large] = [("small", SMALL), ("large", LARGE)].map(|(name, bytes)| folder(&network, name, bytes));
    let live = bytes_placed(&home.put(small.path(), "/small"));
    home.put(large.path(), "/large");
    // What the slowest were not waited for is sent on by the stewards.
    all_is_whole(&network, &home);
    let (full, shards_full) = (network.volume_bytes(), network.figures("/shards/held"));

    let nothing = home.json(["prune"]);
    assert_eq!((&nothing["segments"], &nothing["commit"]), (&0.into(), &().into()), "all of it is used: {nothing}");
    home.run(["rm", "/large"]).expect_code(0);
    let (shards, written) = (network.figures("/shards/held"), heads(&home));
    let would = home.json(["prune", "--dry-run"]);
    assert!(would["segments"].as_u64() > Some(0), "{would}");
    assert!(would["shard_bytes"].as_u64() >= Some(2 * LARGE as u64), "{would}");
    assert_eq!(heads(&home), written, "a dry run writes nothing");
    assert!(network.figures("/shards/held") >= shards, "a dry run drops nothing");

    let pruned = home.json(["prune"]);
    assert_eq!([&pruned["segments"], &pruned["shard_bytes"]], [&would["segments"], &would["shard_bytes"]]);
    assert_eq!((&pruned["unheard"], heads(&home)), (&0.into(), written + 1));
    // Volumes are reserved on the disk before they are filled: what is given back is what they are less than that.
    let given_back = pruned["shard_bytes"].as_u64().unwrap();
    eventually("what is on disk is what is live, within a tenth of that", || {
        full.saturating_sub(network.volume_bytes()) >= given_back - live / 10
    });
    network.holds_no_more_than(live_bytes(&Stored::in_vault(&home)));
    assert!(network.figures("/shards/held") < shards_full);
    read_cold(&network, &phrase, "/small", small.path());
    home.run(["prune"]).expect_code(0);
    let again = home.json(["prune"]);
    assert_eq!((&again["segments"], &again["commit"]), (&0.into(), &().into()), "{again}");
    assert_eq!(heads(&home), written + 1, "a prune that finds nothing writes nothing");

    // The home's own memory of what is stored has forgotten it too.
    let placed = bytes_placed(&home.put(large.path(), "/large again"));
    assert!(placed > LARGE as u64, "only {placed} bytes were placed anew");
    read_cold(&network, &phrase, "/large again", large.path());
    read_cold(&network, &phrase, "/small", small.path());

    // Killed as soon as its head is written, most likely before all drops are sent: the next one sends them.
    all_is_whole(&network, &home);
    let full = network.volume_bytes();
    home.run(["rm", "/large again"]).expect_code(0);
    let (cold, written) = (network.cold_home("cold", &phrase, &[0, 1, 2]), heads(&home));
    let prune = home.spawn(["prune"]);
    eventually("the head is written", || heads(&cold) > written);
    prune.signal("KILL");
    prune.finish();
    let finished = home.json(["prune"]);
    assert_eq!(finished["segments"], 0, "the head was written: {finished}");
    assert!(finished["repeated"].as_u64() >= would["segments"].as_u64(), "{finished}");
    eventually("and again it is what is live", || {
        full.saturating_sub(network.volume_bytes()) >= given_back - live / 10
    });
    read_cold(&network, &phrase, "/small", small.path());
    for figure in ["/audits/refused", "/audits/wrong"] {
        assert_eq!(network.figures(figure), 0, "{figure}: somebody is blamed for what its owner dropped");
    }
}

#[test]
fn what_another_device_begins_to_use_meanwhile_is_brought_back() {
    let network = start(LONG_TRASH);
    let (ada, phrase) = network.new_home("ada");
    let known = folder(&network, "known", SMALL);
    ada.put(folder(&network, "start", 1 << 20).path(), "/start");
    let bob = network.cold_home("bob", &phrase, &[0, 1, 2]);
    bob.put(known.path(), "/one");
    ada.run(["rm", "/one"]).expect_code(0);

    // Bob stores the same again, in a folder with more behind it, and is stopped while that is sent: he has found the
    // first part stored already, and his state is of before the prune.
    let mut both = Tree::new(network.scratch().join("source-both"), 7);
    both.file("a known", &noise(SMALL as u64, SMALL));
    both.file("b new", &noise(77, LARGE));
    let shards = network.figures("/shards/held");
    let put = bob.spawn([OsStr::new("put"), both.path().as_os_str(), OsStr::new("/two"), OsStr::new("--json")]);
    eventually("the new part is being sent", || network.figures("/shards/held") > shards);
    put.signal("STOP");
    let pruned = ada.json(["prune"]);
    assert!(pruned["segment_bytes"].as_u64() >= Some(SMALL as u64 / 10 * 9), "{pruned}");
    put.signal("CONT");
    let put = put.finish().expect_code(0).json();
    let known = put.pointer("/commit/figures/chunks_known").and_then(serde_json::Value::as_u64);
    assert!(known >= Some(SMALL as u64 >> 19), "the first part was found stored: {put}");
    read_cold(&network, &phrase, "/two", both.path());
    all_is_whole(&network, &ada);

    // Ada's memory of what is stored has what was brought back, and nobody prunes it.
    let nothing = ada.json(["prune"]);
    assert_eq!(nothing["segments"], 0, "{nothing}");
    read_cold(&network, &phrase, "/two", both.path());
}

#[test]
fn a_put_and_a_prune_at_once_lose_nothing() {
    let network = start(LONG_TRASH);
    let (ada, phrase) = network.new_home("ada");
    ada.put(folder(&network, "start", 1 << 20).path(), "/start");
    let bob = network.cold_home("bob", &phrase, &[0, 1, 2]);
    for round in 0..4 {
        let known = folder(&network, &format!("known-{round}"), SMALL + round);
        bob.put(known.path(), "/one");
        ada.run(["rm", "/one"]).expect_code(0);
        let (two, put) = (format!("/two-{round}"), [OsStr::new("put"), known.path().as_os_str()]);
        let put = bob.spawn(put.into_iter().chain([OsStr::new(&two)]));
        let prune = ada.spawn(["prune"]);
        prune.finish().expect_code(0);
        put.finish().expect_code(0);
        read_cold(&network, &phrase, &two, known.path());
    }
    all_is_whole(&network, &ada);
    let names = ["start", "two-0", "two-1", "two-2", "two-3"];
    assert_eq!(network.cold_home("last", &phrase, &[3]).names("/"), names);
}

/// Holders claim again what was taken back, and it passes its audits.
fn all_is_whole(network: &Network, home: &Home) {
    eventually("all shards of all segments are claimed and proven", || {
        let listed = home.json(["segments"]);
        let segments = listed["segments"].as_array().unwrap();
        !segments.is_empty() && segments.iter().all(|segment| segment["healthy"] == segment["n"])
    });
    for figure in ["/audits/refused", "/audits/wrong"] {
        assert_eq!(network.figures(figure), 0, "{figure}: somebody is blamed");
    }
}
