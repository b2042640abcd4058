//! `peers`: the nodes that can be reached, and the space they offer.

use commonhold_client_sdk::PeerInfo;

use crate::{
    args, escape,
    exit::Failure,
    figures,
    output::{Output, columns},
};

pub(super) fn run(args: &args::Peers, output: &Output) -> Result<(), Failure> {
    let vault = super::open(&args.entry)?;
    let mut peers = vault.peers()?;
    peers.sort_by(|a, b| order(a).cmp(&order(b)));
    if output.is_json() {
        return output.json(&peers);
    }
    let mut rows = vec![["NODE", "DOMAIN", "FREE", "ADDRESS"].map(str::to_owned).to_vec()];
    rows.extend(peers.iter().map(row));
    columns(&rows, &[2]).iter().try_for_each(|line| output.line(line))
}

/// Those that answer first, then by domain.
fn order(peer: &PeerInfo) -> (bool, Option<&str>, &str) {
    (peer.free_bytes.is_none(), peer.domain.as_deref(), &peer.node)
}

fn row(peer: &PeerInfo) -> Vec<String> {
    let free = peer.free_bytes.map_or_else(|| "no answer".to_owned(), figures::size);
    // Domains and addresses are what strangers say of themselves.
    let shown = |text: Option<&str>| escape::name(text.unwrap_or("-").as_bytes());
    let address = shown(peer.addresses.first().map(String::as_str));
    vec![figures::short_id(&peer.node).to_owned(), shown(peer.domain.as_deref()), free, address]
}
