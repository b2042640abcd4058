//! Promise: holders die for good, their owner is away, and the network rebuilds what they held, until none of the
//! nodes that the file was stored on is left. A holder that is only away for a while causes no repair.

use std::time::{Duration, Instant};

use super::harness::{Network, Setup, Tree, assert_is_of, assert_same, eventually, noise, poll_until};

const NODES: usize = 10;
const CODING: &str = "3/6";
/// The stewards' times in seconds instead of days.
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
/// Silence, grace, top-up and the head starts of the ranks take about ten seconds; the rest is for a loaded machine.
const REPAIR_MAX: Duration = Duration::from_secs(60);

#[test]
fn every_node_is_replaced_and_every_byte_is_still_there() {
    let mut network = start(TIMES);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(50);
    tree.file("large", &noise(2, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let shards = network.figures("/shards/held");
    eprintln!("{shards} shards are held");
    // Not one by each node: with few segments there may be a node that is no steward of any.
    eventually("as many audits are passed as there are shards", || network.figures("/audits/held") >= shards);

    for first in (0..NODES).step_by(2) {
        let lost = network.figures_of(&[first, first + 1], "/shards/held");
        // Fresh nodes come first, so that there is always room for all shards of a segment.
        network.add(2, Some(TIMES));
        let before = moved(&network, first + 2);
        network.kill(first);
        network.kill(first + 1);
        let killed = Instant::now();
        let whole = poll_until(REPAIR_MAX, || (network.figures("/shards/held") >= shards).then_some(()));
        let held = network.figures("/shards/held");
        assert!(whole.is_some(), "{held} of {shards} shards are held, {:?} after {lost} were lost", killed.elapsed());
        eprintln!("{lost} lost with nodes {first} and {}: {held} held again after {:?}", first + 1, killed.elapsed());
        // What `docs/simulations.md` compares with; a repair is counted when it ends, after its shards are held.
        poll_until(REPAIR_MAX, || (moved(&network, first + 2)[1] >= before[1] + lost).then_some(()));
        let [repairs, rebuilt, read, sent] = moved(&network, first + 2);
        let [repairs, rebuilt] = [repairs - before[0], rebuilt - before[1]];
        let bytes = read + sent - before[2] - before[3];
        let rebuilt_bytes = sent - before[3];
        eprintln!("{repairs} repairs rebuilt {rebuilt} shards of {rebuilt_bytes} bytes and moved {bytes} bytes");
    }

    let alive = network.running();
    assert!(alive.iter().all(|node| *node >= NODES), "an original node is left: {alive:?}");
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }
    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[alive[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}

#[test]
fn the_scenario_is_of_this_network() {
    assert_is_of("process-repairs.toml", NODES, CODING, TIMES);
}

/// What repairs have done, over the nodes from `first` on: repairs, shards rebuilt, bytes read and bytes sent.
fn moved(network: &Network, first: usize) -> [u64; 4] {
    let nodes: Vec<usize> = network.running().into_iter().filter(|node| *node >= first).collect();
    ["repairs", "shards_rebuilt", "bytes_read", "bytes_sent"]
        .map(|figure| network.figures_of(&nodes, &format!("/audits/{figure}")))
}

#[test]
fn who_is_away_for_less_than_the_grace_time_costs_nothing() {
    let mut network = start("[audit]\nevery = \"10 s\"\ngrace = \"60 s\"\n\n[repair]\ntop-up = \"1 s\"\n");
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("large", &noise(2, 20 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let audited = |network: &Network, more: u64| {
        let before = network.figures("/audits/held");
        eventually("more audits are passed", || network.figures("/audits/held") >= before + more);
    };
    audited(&network, 50);
    for node in [0, 1] {
        network.kill(node);
    }
    eventually("they are missed", || network.figures("/audits/unreachable") > 0);
    // Well over the top-up time, which is all that a repair would wait for if silence were loss.
    audited(&network, 50);
    for node in [0, 1] {
        network.launch(node);
    }
    for node in [0, 1] {
        network.await_node(node, NODES as u64 - 1);
    }
    audited(&network, 50);
    for figure in ["lost_holders", "repairs", "bytes_read", "bytes_sent", "wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{figure}")), 0, "{figure}");
    }
}

fn start(overlay: &str) -> Network {
    Network::start(&Setup { nodes: NODES, coding: Some(CODING), overlay: Some(overlay), ..Setup::default() })
}
