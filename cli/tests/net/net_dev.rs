//! Promise: who ends a local network, with Ctrl-C or with SIGTERM, leaves no process of it behind, and nothing half done:
//! its nodes can be started again where they were, and what was stored is there.

use super::harness::{Finished, Network, PROGRAM, Setup, Tree, assert_same, has_ended, mortal, noise};

/// Those that `dev` starts; another is added.
const NODES: usize = 3;

fn all_ends_in_order_on(signal: &str) {
    let mut network = Network::start(&Setup { nodes: NODES, coding: Some("2/3"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(10);
    tree.file("large", &noise(2, 2 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    network.add(1, None);
    let nodes = network.nodes();
    assert_eq!(nodes.len(), NODES + 1);
    let processes: Vec<u32> = nodes.iter().map(|node| network.pid(*node)).collect();

    let ended = network.end_dev(signal);
    assert!(ended.success(), "`dev` ended with {ended} on {signal}");
    for (node, process) in nodes.iter().zip(processes) {
        assert!(has_ended(process), "node {node} outlives `dev`");
        assert!(network.has_stopped(*node), "node {node} ended in the middle of something");
    }
    // Nobody holds the folder any more.
    let mut add = mortal(PROGRAM);
    add.args(["dev", "--add", "1", "--dir"]).arg(network.dir());
    Finished::of(&mut add).expect_code(1).expect_said(&["no local network is running"]);
    for node in &nodes {
        network.launch(*node);
    }
    for node in &nodes {
        network.await_node(*node, NODES as u64);
    }
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[0]).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}

#[test]
fn sigterm_ends_all_of_a_local_network_in_order() {
    all_ends_in_order_on("TERM");
}

#[test]
fn ctrl_c_ends_all_of_a_local_network_in_order() {
    all_ends_in_order_on("INT");
}
