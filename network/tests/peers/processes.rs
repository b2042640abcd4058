//! The same between two processes, as it will be in life.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use commonhold_network::{Multiaddr, Peer, TransferError};
use commonhold_protocol::{NetworkName, ShardIndex, shard_stream::GroupRange};

use crate::harness::{client_config, config, eventually, manifest, network, noise, start};

const NETWORK: &str = "COMMONHOLD_TEST_HOLDER_NETWORK";
const MIB: u64 = 1 << 20;

/// The other process; killed when dropped.
struct HolderProcess {
    child: Child,
    address: Multiaddr,
}

impl HolderProcess {
    fn start(network: &NetworkName) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::holder_process", "--nocapture"])
            .env(NETWORK, network.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the holder says where it listens").unwrap();
            if let Some(address) = line.strip_prefix("listening ") {
                break address.parse().unwrap();
            }
        };
        Self { child, address }
    }
}

impl Drop for HolderProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: with its variable set it is the other process of the test below.
#[tokio::test]
async fn holder_process() {
    let Ok(name) = std::env::var(NETWORK) else { return };
    let network: NetworkName = name.parse().unwrap();
    let node = start(config(&network, 1)).await;
    *node.holder.shard_length.lock().unwrap() = Some(16 * MIB);
    println!("\nlistening {}", node.addrs[0]);
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn shards_move_between_two_processes() {
    let network = network();
    let process = HolderProcess::start(&network);
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    assert_eq!(client.bootstrap(std::slice::from_ref(&process.address)).await.unwrap(), 1);
    let (holder, _) = client.connected().remove(0);

    let manifest = manifest(&network, 1, 16 * MIB);
    let shard = noise(16 << 20, 5);
    let begin = Instant::now();
    for index in 0..4 {
        client.store_shard(holder, manifest.to_unverified(), ShardIndex(index), None, shard.clone()).await.unwrap();
    }
    let stored = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    for index in 0..4 {
        let ranges = vec![GroupRange::whole(16 * MIB)];
        let reply = client.read_shard(holder, manifest.id(), ShardIndex(index), ranges, false).await.unwrap();
        assert_eq!(reply.encoded, shard);
    }
    let read = begin.elapsed().as_secs_f64();
    println!("two processes, 64 MiB on one stream: {:.0} MiB/s there, {:.0} MiB/s back", 64.0 / stored, 64.0 / read);
}

/// A machine that hangs keeps its connections: nothing breaks, and nothing comes.
#[tokio::test]
async fn a_frozen_process_costs_one_time_out() {
    let network = network();
    let holder_process = HolderProcess::start(&network);
    let mut config = client_config(&network, 2);
    config.limits.streams.progress = Duration::from_secs(1);
    let (client, _inbound) = Peer::start(config).unwrap();
    assert_eq!(client.bootstrap(std::slice::from_ref(&holder_process.address)).await.unwrap(), 1);
    let (holder, _) = client.connected().remove(0);
    let manifest = manifest(&network, 1, 64);
    let read = || client.read_shard(holder, manifest.id(), ShardIndex(0), vec![GroupRange::whole(64)], false);
    assert!(matches!(read().await, Err(TransferError::Refused { .. })));

    let process = holder_process.child.id();
    assert!(Command::new("kill").args(["-STOP", &process.to_string()]).status().unwrap().success());
    eventually("the process has stopped", || {
        // The state is the first field after the name, which stands in brackets.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    })
    .await;
    assert_eq!(read().await, Err(TransferError::TimedOut { node: holder }));
    let begin = Instant::now();
    for _ in 0..20 {
        let again = read().await;
        assert!(matches!(again, Err(TransferError::Unreachable { .. } | TransferError::Broken { .. })), "{again:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "20 more times took {:?}", begin.elapsed());
}
