//! A peer that has as many connections as it may have, or too little memory for more, takes no further ones, and goes on
//! with those that it has.

use std::process::Command;

use commonhold_network::{AskError, Peer};
use commonhold_protocol::{NodeId, ask::Request};

use crate::harness::{PATIENCE, client_config, config, eventually, network, start};

const MIB: usize = 1 << 20;
/// Set, it makes a process the one in which memory is filled.
const FILLING: &str = "COMMONHOLD_TEST_FILLING";

async fn ask(peer: &Peer, node: NodeId) -> Result<(), AskError> {
    peer.ask(node, Request::About, PATIENCE).await.map(drop)
}

fn is_refused(asked: &Result<(), AskError>) -> bool {
    // Who is refused after the handshake sees a connection that ends at once.
    matches!(asked, Err(AskError::Unreachable { .. } | AskError::Broken { .. }))
}

#[tokio::test]
async fn beyond_its_connections_a_peer_refuses_further_ones_and_serves_those_it_has() {
    let network = network();
    let mut limited = config(&network, 1);
    limited.limits.connections_max = 4;
    let node = start(limited).await;
    // Three of four: a quarter stays for those that the peer makes itself.
    let mut clients = Vec::new();
    for number in 2..=4 {
        let (client, inbound) = Peer::start(client_config(&network, number)).unwrap();
        node.introduce_to(&client);
        ask(&client, node.id()).await.unwrap();
        clients.push((client, inbound));
    }
    for number in 5..=7 {
        let (stranger, _inbound) = Peer::start(client_config(&network, number)).unwrap();
        node.introduce_to(&stranger);
        let asked = ask(&stranger, node.id()).await;
        assert!(is_refused(&asked), "client {number}: {asked:?}");
        eventually("it sees that it is not connected", || stranger.connected().is_empty()).await;
    }
    for (client, _) in &clients {
        ask(client, node.id()).await.unwrap();
        assert_eq!(client.stats().snapshot().connections_made, 1, "served over another connection");
    }
    assert_eq!(node.peer.stats().snapshot().connections_made, 3);

    // The last place is its own, and no more than that.
    let (friend, other) = (start(config(&network, 8)).await, start(config(&network, 9)).await);
    friend.introduce_to(&node.peer);
    other.introduce_to(&node.peer);
    ask(&node.peer, friend.id()).await.unwrap();
    let asked = ask(&node.peer, other.id()).await;
    assert!(is_refused(&asked), "{asked:?}");

    // Whoever leaves makes room.
    let (leaving, _inbound) = clients.pop().unwrap();
    leaving.shutdown().await;
    eventually("it has left", || node.peer.connected().len() == 3).await;
    let (next, _inbound) = Peer::start(client_config(&network, 10)).unwrap();
    node.introduce_to(&next);
    ask(&next, node.id()).await.unwrap();
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// In a process of its own: other tests may fill this one's memory, or give some back.
#[test]
fn short_of_memory_a_peer_refuses_further_connections_and_serves_those_it_has() {
    let filling = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limits::filling_process", "--nocapture"])
        .env(FILLING, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&filling.stdout);
    assert!(filling.status.success() && said.contains("filled and emptied"), "{said}");
}

/// Not a test of its own: with its variable set it is the process of the test above.
#[tokio::test]
async fn filling_process() {
    if std::env::var_os(FILLING).is_none() {
        return;
    }
    let network = network();
    let mut limited = config(&network, 1);
    limited.limits.memory_bytes_max = resident() + 128 * MIB;
    let node = start(limited).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    ask(&client, node.id()).await.unwrap();

    let filled = vec![1_u8; 256 * MIB];
    // The peer looks how much memory there is at most every 100 ms, so it may take a few more.
    let mut number = 2;
    let mut next = async || {
        number += 1;
        let (next, _inbound) = Peer::start(client_config(&network, number)).unwrap();
        node.introduce_to(&next);
        ask(&next, node.id()).await
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_refused(&next().await) {
        assert!(std::time::Instant::now() < deadline, "nobody is refused with {} bytes in use", resident());
    }
    let asked = next().await;
    assert!(is_refused(&asked), "{asked:?}");
    ask(&client, node.id()).await.unwrap();
    assert_eq!(client.stats().snapshot().connections_made, 1, "served over another connection");

    drop(std::hint::black_box(filled));
    while next().await.is_err() {
        assert!(std::time::Instant::now() < deadline, "refused with {} bytes in use", resident());
    }
    println!("filled and emptied");
}
