//! Promise: a node on a poor link, with a fifth of all packets lost and 200 ms there and back, stays in: it proves what it
//! holds, and nobody calls it lost or a cheat. Nor does it call the others so. That takes root.

use std::{fs, thread, time::Duration};

use serde_json::Value;

use super::harness::{Cable, Side, Sides, TwoSides, noise, poll_until};

const NODES: usize = 9;
const POOR: usize = NODES - 1;
/// Every node holds a shard of each segment.
const CODING: &str = "3/9";
/// The stewards' times in seconds instead of days.
const TIMES: &str = "[audit]\nevery = \"20 s\"\ngrace = \"30 s\"\n[repair]\ntop-up = \"1 s\"\n";
/// The link stays poor for several grace times.
const WATCHED: Duration = Duration::from_secs(60);
/// A challenge that is too long for the link is repeated with four times the patience.
const SETTLED_MAX: Duration = Duration::from_secs(150);

#[test]
fn a_node_on_a_poor_link_stays_in() {
    let cable = Cable::TurnsPoor { delay_ms: 100, loss_percent: 20 };
    let sides = Sides { nodes: [NODES - 1, 1], side_is_domain: false, config: TIMES, cable };
    let Some(mut lab) = TwoSides::set_up(&sides) else {
        eprintln!("SKIPPED: only root can make network namespaces");
        return;
    };
    lab.init(Side::A, CODING);
    for number in 0..3 {
        let file = lab.scratch().join("file");
        fs::write(&file, noise(number, 1 << 20)).unwrap();
        lab.client(Side::A, &["put", file.to_str().unwrap(), &format!("/file-{number}")]).expect_code(0);
    }
    settled(&lab, "every shard is proven");

    lab.turn_poor();
    // What a steward has seen proven it does not remember: it has to be proven to it anew, over the poor link.
    for steward in [0, 1] {
        lab.restart(steward);
    }
    thread::sleep(WATCHED);
    settled(&lab, "every shard is proven to those that were started again");

    let poor = &lab.statuses(Side::B)[0];
    let sum = |of: &str| {
        lab.figures(Side::A, &format!("/audits/{of}"))
            + poor.pointer(&format!("/audits/{of}")).and_then(Value::as_u64).unwrap()
    };
    eprintln!("challenges {}, held {}, unreachable {}", sum("challenges"), sum("held"), sum("unreachable"));
    for outcome in ["wrong", "refused", "lost_holders", "repairs", "bytes_sent"] {
        assert_eq!(sum(outcome), 0, "{outcome}");
    }
    let id = &poor["node"].as_str().unwrap()[..16];
    let silent = (0..POOR)
        .map(|node| lab.log(node).lines().filter(|line| line.contains(id) && line.contains("is silent")).count());
    eprintln!("it was taken for silent {} times, by {POOR} nodes in {WATCHED:?}", silent.sum::<usize>());
}

fn settled(lab: &TwoSides, what: &str) {
    let mut last = Value::Null;
    let seen = poll_until(SETTLED_MAX, || {
        last = lab.client(Side::A, &["segments", "--json"]).expect_code(0).json();
        let whole = |segment: &Value| segment["healthy"] == segment["n"] && segment["disagreeing"] == 0;
        let segments = last["segments"].as_array().unwrap();
        (!segments.is_empty() && segments.iter().all(whole)).then_some(())
    });
    assert!(seen.is_some(), "waited {SETTLED_MAX:?} in vain until {what}: {last}");
}
