//! Promise: what waits for its top-up goes on waiting when its stewards restart, and does not begin anew: else nodes that
//! restart each month would never top anything up.

use std::time::{Duration, Instant};

use super::harness::{Counters, Network, Setup, Stored, Tree, Watch, hex_id, noise, poll_until};

const NODES: usize = 14;
/// Others enter by the nodes before it.
const DEAD_MIN: usize = 3;
const TOP_UP: Duration = Duration::from_secs(60);
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"10 s\"\n\n[repair]\ntop-up = \"60 s\"\n";
/// For a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(90);

#[test]
fn what_waits_for_its_top_up_waits_no_longer_for_a_restart() {
    // Of 12 shards one may be missing for long.
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some("4/12"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("some", &noise(1, 3 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let stored = Stored::in_vault(&home);
    let watch = Watch::on(&network);
    watch.whole_again(&stored, Instant::now(), WHOLE_MAX);
    let claims = watch.claims(&stored);
    let holds = |node: &usize| claims.values().any(|holders| holders.contains(&hex_id(&network.node_id(*node))));
    let dead = (DEAD_MIN..NODES).find(holds).expect("twelve of fourteen nodes hold a shard");

    network.kill(dead);
    let killed = Instant::now();
    let mut counters = Counters::of(["/audits/lost_holders", "/audits/shards_rebuilt"]);
    let alive: Vec<usize> = (0..NODES).filter(|node| *node != dead).collect();
    let all_know = || network.figures_of(&alive, "/audits/lost_holders") >= alive.len() as u64;
    assert!(poll_until(WHOLE_MAX, || all_know().then_some(())).is_some(), "not all have given it up");
    // All at one moment, or some would be given up by others meanwhile.
    for node in &alive {
        network.freeze(*node);
    }
    for node in &alive {
        network.thaw(*node);
        network.stop(*node);
    }
    for node in &alive {
        network.launch(*node);
    }
    for node in &alive {
        network.await_node(*node, alive.len() as u64 - 1);
    }
    let restarted = Instant::now();
    let [_, rebuilt] = counters.now(&network);
    assert_eq!(rebuilt, 0, "this was no top-up");
    assert!(killed.elapsed() < TOP_UP, "the restart took so long that this shows nothing");
    let repaired = poll_until(TOP_UP, || (network.figures_of(&alive, "/audits/shards_rebuilt") > 0).then_some(()));
    assert!(repaired.is_some(), "nothing was rebuilt {:?} after the restart: the time began anew", restarted.elapsed());
    eprintln!(
        "one shard of 12 was missing for {:.1?}, of {TOP_UP:?}; {:.1?} of it after the restart",
        killed.elapsed(),
        restarted.elapsed()
    );
    assert!(killed.elapsed() > TOP_UP, "too early for a top-up");
}
