//! Promise: nodes join, leave and come back at other addresses between a put and a get, and everything is still found:
//! through the hints of the head, through stale ones, and with no hints at all.

use super::harness::{Finished, Network, Owner, Setup, Tree, assert_same, eventually, keys_of, noise};

#[test]
fn a_network_that_changes_still_finds_everything() {
    let mut network = Network::start(&Setup { nodes: 8, coding: Some("3/8"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(200);
    tree.file("large", &noise(2, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let old_addresses: Vec<String> = (0..8).map(|node| network.address(node)).collect();

    // It grows. Newcomers become stewards of what is closest to them, and are given its records.
    network.add(8, None);
    let newcomers: Vec<usize> = (8..16).collect();
    assert_eq!(network.nodes().len(), 16);
    eventually("the newcomers keep records", || {
        newcomers.iter().map(|node| network.figure(*node, "/records/segments")).sum::<u64>() > 0
    });
    read_whole(&network, &tree, &phrase, "grown", 15);

    // Everyone who was there at the start moves to another port: each address in the head and in the homes is stale.
    for node in 0..8 {
        network.stop(node);
        network.move_node(node);
        network.launch(node);
    }
    for node in 0..8 {
        network.await_node(node, 15);
        assert!(!old_addresses.contains(&network.address(node)), "node {node} listens where it did");
    }
    read_whole(&network, &tree, &phrase, "moved", 12);
    // This home knows only addresses at which nobody listens any more.
    home.run(["ls", "/"]).expect_code(5).expect_said(&["--bootstrap"]);
    let back = network.scratch().join("back-home");
    let mut get = home.command(["get", "/x", "--bootstrap", &network.address(9)]);
    get.arg(&back);
    Finished::of(&mut get).expect_code(0);
    assert_same(tree.path(), &back);

    // It shrinks: of the holders only as many as are needed are left, none of those through which it began among them.
    for node in [0, 2, 4, 5, 7] {
        network.stop(node);
    }
    read_whole(&network, &tree, &phrase, "shrunk", 9);

    // The head's hints are gone: only the stewards' records say who holds what.
    Owner::new(&network, keys_of(&phrase)).forget_hints();
    read_whole(&network, &tree, &phrase, "without hints", 10);
}

/// Each node's config leaves the port to the system, and none is started before another was killed: nobody would be
/// where anybody remembers it, were the ports not remembered too.
#[test]
fn a_network_that_was_down_as_a_whole_finds_itself_again() {
    const NODES: usize = 6;
    let mut network = Network::start(&Setup { nodes: NODES, coding: Some("2/5"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(50);
    tree.file("large", &noise(2, 3 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let addresses: Vec<String> = (0..NODES).map(|node| network.address(node)).collect();

    (0..NODES).for_each(|node| network.kill(node));
    // The node that the others were configured to enter by comes last.
    for node in (0..NODES).rev() {
        network.launch(node);
    }
    for (node, address) in addresses.iter().enumerate() {
        network.await_node(node, NODES as u64 - 1);
        assert_eq!(network.address(node), *address);
    }
    let back = network.scratch().join("back");
    home.get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
    read_whole(&network, &tree, &phrase, "restarted", 3);
}

fn read_whole(network: &Network, tree: &Tree, phrase: &str, name: &str, bootstrap: usize) {
    let back = network.scratch().join(format!("back-{name}"));
    let reader = network.cold_home(&format!("cold-{name}"), phrase, &[bootstrap]);
    reader.get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}
