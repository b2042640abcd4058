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
    vault.close();
    peers.sort_by(|a, b| (!a.reachable, &a.domain, a.node).cmp(&(!b.reachable, &b.domain, b.node)));
    if output.is_json() {
        return output.json(&peers);
    }
    let mut rows = vec![["NODE", "DOMAIN", "FREE", "ADDRESS"].map(str::to_owned).to_vec()];
    rows.extend(peers.iter().map(row));
    columns(&rows, &[2]).iter().try_for_each(|line| output.line(line))
}

fn row(peer: &PeerInfo) -> Vec<String> {
    let free = match (peer.reachable, peer.free_bytes) {
        (true, Some(bytes)) => figures::size(bytes),
        (true, None) => "?".to_owned(),
        (false, _) => "unreachable".to_owned(),
    };
    // Domains and addresses are what strangers say of themselves.
    let address = peer.addresses.first().map(|address| escape::name(address.as_bytes())).unwrap_or_default();
    vec![peer.node.to_string(), escape::name(peer.domain.as_bytes()), free, address]
}
