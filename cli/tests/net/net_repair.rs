//! Promise: a holder that is only away for a while causes no repair. (`net_theseus` is of those that die for good.)

use super::harness::{Network, Setup, Tree, eventually, noise};

const NODES: usize = 10;

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
    Network::start(&Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(overlay), ..Setup::default() })
}
