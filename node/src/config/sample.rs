//! The sample config: made from the structs' defaults and the text of each key, so that it cannot drift.

use super::Config;

/// What the sample says of one key.
#[derive(Debug)]
pub struct KeyDoc {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// What it does, in one line.
    pub text: &'static str,
    /// For a key without a fixed default: a value to show, commented out.
    pub example: Option<&'static str>,
}

/// The sections in the order of the sample, and a line on each.
pub(super) const SECTIONS: [(&str, &str); 7] = [
    ("node", "This node."),
    ("network", "The network that it is part of."),
    ("pledge", "What it lends."),
    ("audit", "How holders are audited."),
    ("repair", "How segments are repaired."),
    ("lease", "What becomes of vaults whose lease has run out."),
    ("dashboard", "The status page."),
];

const fn doc(section: &'static str, key: &'static str, text: &'static str) -> KeyDoc {
    KeyDoc { section, key, text, example: None }
}

const fn optional(section: &'static str, key: &'static str, text: &'static str, example: &'static str) -> KeyDoc {
    KeyDoc { section, key, text, example: Some(example) }
}

/// Every key of the config, in the order of the sample.
pub(super) const KEYS: &[KeyDoc] = &[
    optional("node", "name", "A name for people, shown on the status page.", "\"attic-nas\""),
    doc("node", "data-dir", "Where the node keeps its data; relative to the folder of this file."),
    optional(
        "node",
        "listen",
        "Addresses to listen on (this is the default; a private network has no QUIC).",
        "[\"/ip4/0.0.0.0/tcp/4400\", \"/ip4/0.0.0.0/udp/4400/quic-v1\"]",
    ),
    doc("node", "bootstrap", "Addresses of nodes to join through, as in \"/dns4/example.org/tcp/4400/p2p/12D3KooW…\"."),
    optional("node", "domain", "The failure domain of this node; private networks only.", "\"rack-3\""),
    doc("network", "name", "The network's name; nodes of other names are not spoken to."),
    optional(
        "network",
        "key",
        "A file with 64 hex digits: makes the network private (TCP only).",
        "\"file:network.key\"",
    ),
    optional("network", "local-discovery", "Find nodes nearby by mDNS and ask the router for a port (UPnP).", "true"),
    doc("pledge", "disk", "A hard limit, in bytes on disk."),
    doc("pledge", "keep-free", "Never fill the disk beyond this."),
    doc("pledge", "vault-max", "The most that one vault may place here."),
    doc("pledge", "records", "The part of `disk` that records may take."),
    optional("pledge", "upload", "The most that is sent.", "\"20 Mbit/s\""),
    optional("pledge", "download", "The most that is received.", "\"50 Mbit/s\""),
    doc("pledge", "relay", "Lend bandwidth to nodes behind NAT."),
    doc("pledge", "trash", "How long dropped shards are kept before their space is given back."),
    doc("pledge", "scrub", "How long it takes to read all shards once, to find those that the disk has lost."),
    doc("pledge", "announce", "How long it takes to tell the stewards of all shards once that they are held here."),
    doc("audit", "every", "The mean time between audits of one shard, all stewards together."),
    doc("audit", "grace", "How long a node may be silent before it counts as gone."),
    doc("audit", "prove", "How long a new record may take until enough of its shards have passed an audit."),
    doc("repair", "top-up", "How long a segment above its threshold may stay below n."),
    doc("lease", "grace", "How long a vault is kept beyond the end of its lease."),
    doc("lease", "uptime", "How long the node has to be up before it lets anything go for its age."),
    doc("dashboard", "listen", "Where the status page, /metrics and /health are served."),
];

/// The keys of one section.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static KeyDoc> {
    KEYS.iter().filter(move |doc| doc.section == section)
}

/// A commented config of `config`'s values: those without one are shown as examples, commented out.
pub fn sample(config: &Config) -> String {
    let values = toml::Table::try_from(config).unwrap_or_default();
    let mut text = String::from("# The config of a commonhold node. Every key may be left out.\n");
    for (section, about) in SECTIONS {
        text.push_str(&format!("\n# {about}\n[{section}]\n"));
        for doc in keys_of(section) {
            let value = values.get(section).and_then(|keys| keys.get(doc.key));
            let line = match (value, doc.example) {
                (Some(value), _) => format!("{} = {value}", doc.key),
                (None, example) => format!("# {} = {}", doc.key, example.unwrap_or("…")),
            };
            text.push_str(&format!("# {}\n{line}\n", doc.text));
        }
    }
    text
}
