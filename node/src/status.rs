//! What a running node says of itself, and how another process asks it: over its status page, never over its files.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    auditor::AuditSnapshot,
    custody::{CustodySnapshot, DrainStatus},
    data_dir::{self, DASHBOARD_FILE, DataDirError},
    expiry::ExpirySnapshot,
    scrub::ScrubSnapshot,
};

/// How long a running node may take to answer; more means that it hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A running node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The program's version.
    pub version: String,
    /// The node's id, whole, in hex.
    pub node: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The network that it is part of.
    pub network: String,
    /// Its configured failure domain, if it has one.
    pub domain: Option<String>,
    /// Addresses at which it can be dialled.
    pub addresses: Vec<String>,
    /// Peers connected now.
    pub peers: u64,
    /// Nodes known.
    pub nodes_known: u64,
    /// Since the start.
    pub uptime_ms: u64,
    /// What it lends, and what is used of it.
    pub pledge: PledgeStatus,
    /// What it holds as a holder.
    pub shards: ShardStatus,
    /// What it keeps as a steward.
    pub records: RecordStatus,
    /// What it moved since the start.
    pub traffic: TrafficStatus,
    /// What it audited and repaired as a steward, since the start.
    pub audits: AuditSnapshot,
    /// What came of vaults whose lease has run out.
    pub expiry: ExpirySnapshot,
    /// What the slow read of all shards found.
    pub scrub: ScrubSnapshot,
    /// What was announced, given up and handed on.
    pub custody: CustodySnapshot,
    /// The shards that are to be handed on, if any are.
    pub drain: Option<DrainStatus>,
}

/// The pledge and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PledgeStatus {
    /// The limit.
    pub bytes_max: u64,
    /// Used by shards, indexes and records.
    pub used_bytes: u64,
    /// What could still be stored: the rest of the pledge, or less where the disk is short.
    pub free_bytes: u64,
}

/// A holder's shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Shards held, those in the trash included.
    pub held: u64,
    /// Shards found damaged, no longer served.
    pub quarantined: u64,
}

/// A steward's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordStatus {
    /// Records of segments.
    pub segments: u64,
    /// Vaults with a head.
    pub heads: u64,
    /// Vaults with a lease.
    pub leases: u64,
    /// Segments with a drop or undrop.
    pub drops: u64,
    /// Used on disk.
    pub used_bytes: u64,
    /// Of records that have yet to prove that they are worth keeping.
    pub unproven_bytes: u64,
    /// The limit.
    pub bytes_max: u64,
}

/// Bytes moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Shard bytes sent.
    pub shard_bytes_sent: u64,
    /// Shard bytes received.
    pub shard_bytes_received: u64,
}

/// Why a node's status cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No node runs there.
    #[error("no node is running in {}; start it with `commonhold node run`", data_dir.display())]
    NotRunning {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// A node runs there, but does not answer as it should.
    #[error("the node in {} does not answer at {address}: {source}", data_dir.display())]
    NoAnswer {
        /// The data folder.
        data_dir: PathBuf,
        /// The address of its status page.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data folder cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Asks the node that runs in `data_dir`.
pub fn status_of(data_dir: &Path) -> Result<NodeStatus, StatusError> {
    let not_running = || StatusError::NotRunning { data_dir: data_dir.to_owned() };
    let text = data_dir::read(data_dir, DASHBOARD_FILE)?.ok_or_else(not_running)?;
    let mut lines = text.lines();
    let address: SocketAddr = lines.next().and_then(|line| line.trim().parse().ok()).ok_or_else(not_running)?;
    match ask(address) {
        Ok(status) if lines.next() == Some(&status.node) => Ok(status),
        // The port of one that was killed is another node's by now.
        Ok(_) => Err(not_running()),
        // A node that was killed leaves the file behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(not_running()),
        Err(source) => Err(StatusError::NoAnswer { data_dir: data_dir.to_owned(), address, source }),
    }
}

fn ask(address: SocketAddr) -> io::Result<NodeStatus> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "not the status page of a node");
    let text = std::str::from_utf8(&answer).map_err(|_| unreadable())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    if head.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(unreadable());
    }
    serde_json::from_str(body).map_err(|_| unreadable())
}
