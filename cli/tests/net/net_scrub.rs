//! Promise: a holder finds rot on its own disk, says so, and what it lost is rebuilt, long before any audit or reader
//! would have found it.

use super::{
    harness::{Network, Setup, Tree, assert_same, eventually, noise},
    net_damaged_disks::flip,
};

/// The first audit comes within an hour of a claim, or when a segment is to be repaired. All is read in seconds. Who gives
/// shards up takes none for 25 s, the 72nd part of the grace time.
const TIMES: &str = "[audit]\nevery = \"7 d\"\ngrace = \"30 m\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\nscrub = \"4 s\"\n";

#[test]
fn rot_is_reported_and_repaired_before_an_audit_finds_it() {
    let network = Network::start(&Setup { nodes: 8, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(50);
    tree.file("large", &noise(2, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let shards = network.figures("/shards/held");
    // With three segments on six of eight nodes each, there may be one that holds nothing.
    let held = |node: &usize| network.figure(*node, "/shards/held");
    let victim = network.nodes().into_iter().find(|node| held(node) > 0).expect("somebody holds something");
    let rotten = held(&victim);
    eventually("every shard was read once", || network.figures("/scrub/verified") >= shards);
    assert_eq!(network.figures("/scrub/rotten"), 0, "sound shards are called rotten");

    flip(&network, victim);
    eventually("the holder found its rot and told its stewards", || {
        network.figure(victim, "/scrub/released") >= rotten
    });
    eventually("what it lost is rebuilt", || network.figures("/shards/held") >= shards);
    assert!(network.figures("/audits/repairs") > 0, "no repair is counted");
    // An audit of what it is given would find the rot that it has not come to yet.
    assert_eq!(network.figure(victim, "/shards/held"), 0, "a disk that rots was given what it had lost");
    for figure in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{figure}")), 0, "{figure}");
    }
    eprintln!(
        "{rotten} of {shards} shards were rotten; {} were found, {} repairs",
        network.figure(victim, "/scrub/rotten"),
        network.figures("/audits/repairs"),
    );
    // With the disk that rotted gone for good, all is still there three times over.
    let mut network = network;
    network.kill(victim);
    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &network.running()).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}
