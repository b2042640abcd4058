//! What nodes hold against others: by their logs, and by the evidence that they keep.

use std::{fs, time::SystemTime};

use commonhold_node::auditor::Evidence;
use commonhold_protocol::{
    NetworkName, Unverified,
    ask::{Request, Response},
};

use crate::harness::{Network, hex_id};

/// An audit that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The first digits of the holder's id.
    pub(super) holder: String,
    /// The first digits of the segment's.
    pub(super) segment: String,
    pub(super) index: u8,
    pub(super) outcome: String,
}

/// All of them, by the logs of all nodes.
pub(super) fn verdicts(network: &Network) -> Vec<Verdict> {
    let logs = network.nodes().into_iter().map(|node| fs::read_to_string(network.node_dir(node).join("log")).unwrap());
    // The last line may be half written.
    let lines = |log: String| log.split_inclusive('\n').filter_map(|line| verdict(line.strip_suffix('\n')?)).collect();
    logs.flat_map::<Vec<Verdict>, _>(lines).collect()
}

/// An audit that failed, if the line tells of one.
pub(super) fn verdict(line: &str) -> Option<Verdict> {
    let (_, fields) = line.split_once("a holder failed an audit ")?;
    let field = |name: &str| Some(fields.split(' ').find_map(|field| field.strip_prefix(name))?.to_owned());
    Some(Verdict {
        holder: field("node=")?,
        segment: field("segment=")?,
        index: field("index=")?.parse().ok()?,
        outcome: field("outcome=")?,
    })
}

/// The moment with which a line of a log begins.
pub(super) fn said_at(line: &str) -> SystemTime {
    humantime::parse_rfc3339(line.split_whitespace().next().unwrap_or_default()).unwrap()
}

/// The pieces of evidence against a node that others keep, each judged by nothing but itself and the network's name.
pub(super) fn evidence_convicts(network: &Network, id: &str) -> usize {
    let name: NetworkName = network.name().parse().unwrap();
    let mut convicted = 0;
    for node in network.nodes() {
        let Ok(kept) = fs::read_dir(network.node_dir(node).join("evidence")) else { continue };
        for folder in kept.map(|entry| entry.unwrap().path()) {
            if !folder.file_name().unwrap().to_str().unwrap().starts_with(id) {
                continue;
            }
            let read = |file: &str| fs::read(folder.join(file)).map(bytes::Bytes::from);
            let Request::Audit(challenge) = Request::from_bytes(read("challenge").unwrap()).unwrap() else {
                panic!("no challenge")
            };
            // Written last.
            let Ok(answer) = read("answer") else { continue };
            let Response::Audited(answer) = Response::from_bytes(answer).unwrap() else { panic!("no answer") };
            let manifests = (0..challenge.shards.len())
                .map(|number| Unverified::from_bytes(read(&format!("manifest-{number}")).unwrap()).unwrap());
            let evidence = Evidence { manifests: manifests.collect(), challenge, answer };
            assert_eq!(evidence.convicts(&name), Some(hex_id(id)), "{}", folder.display());
            convicted += 1;
        }
    }
    convicted
}
