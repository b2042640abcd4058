//! Promise: a node that is to leave hands every shard on and says how far it is; nothing is rebuilt and nobody is blamed
//! for it, and it may be killed at any moment. What cannot be handed on stays, and it is said why. A lowered pledge does
//! the same for what it has no room for.

use std::{process::Stdio, time::Duration};

use commonhold_protocol::ask::{Request, Response};
use serde_json::Value;

use super::harness::{Home, Network, Setup, Spy, Tree, assert_same, eventually, hex_id, noise, poll_until};

/// Seconds instead of days and hours. What a draining node sends is held back, so that it can be watched and killed.
const TIMES: &str = "[audit]\nevery = \"8 s\"\ngrace = \"10 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\nannounce = \"3 s\"\nupload = \"40 Mbit/s\"\n";
/// A drain takes seconds; the rest is for a loaded machine.
const DRAINED_MAX: Duration = Duration::from_secs(120);

fn start(nodes: usize, coding: &str) -> Network {
    Network::start(&Setup { nodes, coding: Some(coding), overlay: Some(TIMES), ..Setup::default() })
}

/// A stored folder of which every shard was audited once.
fn store(network: &Network, megabytes: usize) -> (Tree, Home, String) {
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20);
    tree.file("large", &noise(2, megabytes << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let shards = network.figures("/shards/held");
    eventually("as many audits are passed as there are shards", || network.figures("/audits/held") >= shards);
    (tree, home, phrase)
}

fn whole(home: &Home) -> bool {
    let listed = home.run(["segments", "--json"]).expect_code(0).json();
    listed["segments"].as_array().unwrap().iter().all(|segment| segment["healthy"] == segment["n"])
}

/// With few segments there may be nodes that hold nothing.
fn a_holder(network: &Network) -> usize {
    let holds = |node: &usize| network.figure(*node, "/shards/held") > 0;
    network.nodes().into_iter().find(holds).expect("somebody holds something")
}

/// No repair was needed, and nobody failed an audit.
fn assert_uneventful(network: &Network) {
    for figure in ["repairs", "repairs_failed", "wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{figure}")), 0, "{figure}");
    }
}

#[test]
fn a_drained_node_can_be_switched_off() {
    let mut network = start(9, "3/6");
    let (tree, home, phrase) = store(&network, 24);
    let (shards, victim) = (network.figures("/shards/held"), a_holder(&network));
    let drained = network.figure(victim, "/shards/held");
    let done = network.drain(victim, &[]).expect_code(0).json();
    assert_eq!(done["done"], true, "{done}");
    assert_eq!(done["shards_total"], drained, "{done}");
    assert_eq!(network.figure(victim, "/shards/held"), 0);
    assert_eq!(network.figure(victim, "/custody/handed_on"), drained);
    assert_eq!(network.figures("/shards/held"), shards, "a shard is gone, or held twice");
    // It takes nothing any more.
    let about = Spy::on(&network).ask(hex_id(&network.node_id(victim)), Request::About);
    assert!(matches!(about, Response::About { free_bytes: 0, .. }), "{about:?}");
    eventually("the stewards have audited the new holders", || whole(&home));
    assert_uneventful(&network);

    network.kill(victim);
    // Over the grace time and that before a repair.
    let audited = network.figures("/audits/held");
    eventually("many more audits are passed", || network.figures("/audits/held") >= audited + 3 * shards);
    assert!(whole(&home));
    assert_uneventful(&network);
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &network.running()).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}

#[test]
fn a_drain_goes_on_where_a_killed_node_was() {
    let mut network = start(9, "3/6");
    let (tree, home, phrase) = store(&network, 40);
    let (shards, victim) = (network.figures("/shards/held"), a_holder(&network));
    let drained = network.figure(victim, "/shards/held");
    let mut command = network.drain_command(victim, &[]);
    let mut draining = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some shards are handed on", || network.figure(victim, "/custody/handed_on") > 0);
    network.kill(victim);
    assert_eq!(draining.wait().unwrap().code(), Some(1), "it cannot say any more how far the node is");
    network.launch(victim);
    network.await_node(victim, 8);
    let status = || network.status(victim).map(|status| status["drain"].clone()).unwrap_or(Value::Null);
    let done = poll_until(DRAINED_MAX, || (status()["done"] == true).then_some(()));
    assert!(done.is_some(), "{}", status());
    assert_eq!(status()["shards_total"], drained);
    assert_eq!(network.figure(victim, "/shards/held"), 0);
    eventually("what was sent when the node was killed is held once", || network.figures("/shards/held") == shards);
    eventually("all is whole", || whole(&home));
    network.kill(victim);
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &network.running()).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}

#[test]
fn what_nobody_can_take_stays_and_is_said() {
    let network = start(6, "3/6");
    let (_, home, _) = store(&network, 8);
    let (shards, held) = (network.figures("/shards/held"), network.figure(0, "/shards/held"));
    let stopped = network.drain(0, &[]).expect_code(3);
    let stuck = stopped.json();
    assert_eq!((&stuck["resting"], &stuck["shards_left"]), (&true.into(), &held.into()), "{stuck}");
    assert_eq!(stuck["stuck"], serde_json::json!([{ "why": "no-node", "shards": held }]), "{stuck}");
    assert!(stopped.stderr.contains("stay for now"), "{}", stopped.stderr);
    assert_eq!(network.figures("/shards/held"), shards);
    assert!(whole(&home));

    // With room it goes on by itself.
    network.add(2, Some(TIMES));
    let done = poll_until(DRAINED_MAX, || (network.figure(0, "/shards/held") == 0).then_some(()));
    assert!(done.is_some(), "{:?}", network.status(0).unwrap()["drain"]);
    assert_eq!(network.figures("/shards/held"), shards);
    network.drain(0, &["--cancel"]).expect_code(0);
    eventually("it takes shards again", || {
        network.status(0).unwrap()["drain"].is_null() && {
            let about = Spy::on(&network).ask(hex_id(&network.node_id(0)), Request::About);
            !matches!(about, Response::About { free_bytes: 0, .. })
        }
    });
    // Not those who missed in the middle that a claim was taken back either.
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }
}

#[test]
fn a_lowered_pledge_hands_on_what_it_has_no_room_for() {
    let mut network = start(10, "6/8");
    let (tree, home, phrase) = store(&network, 64);
    // With few segments there may be nodes that hold little.
    let fullest = |node: &usize| network.figure(*node, "/shards/held");
    let victim = network.nodes().into_iter().max_by_key(fullest).unwrap();
    let (shards, held) = (network.figures("/shards/held"), network.figure(victim, "/shards/held"));
    network.stop(victim);
    let lowered = 6 << 20;
    network.configure(victim, "pledge", "disk", "6 MiB");
    network.configure(victim, "pledge", "records", "20%");
    network.launch(victim);
    network.await_node(victim, 9);
    let used = |network: &Network| network.figure(victim, "/pledge/used_bytes");
    let within = poll_until(DRAINED_MAX, || {
        (used(&network) <= lowered && network.status(victim).unwrap()["drain"].is_null()).then_some(())
    });
    assert!(within.is_some(), "{} bytes are used: {}", used(&network), network.status(victim).unwrap());
    let kept = network.figure(victim, "/shards/held");
    eprintln!("{held} shards, of which {kept} stay in {} of {lowered} bytes", used(&network));
    assert!(kept > 0 && kept < held, "{kept} of {held} shards are kept");
    eventually("each shard is held once", || network.figures("/shards/held") == shards);
    eventually("the stewards have audited the new holders", || whole(&home));
    assert_uneventful(&network);
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[(victim + 1) % 10]).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}
