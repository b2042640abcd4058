//! Addresses as text that others send: which of them are worth keeping, and in which order to try them.

use std::net::{IpAddr, Ipv4Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::transport::is_quic;

/// The address without the `/p2p/…` at its end.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// The peer that an address names at its end.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// From how far away an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Machine,
    Site,
    World,
}

fn reach(address: &Multiaddr) -> Option<Reach> {
    let ip = match address.iter().next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => ip.to_canonical(),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => return Some(Reach::World),
        _ => return None,
    };
    Some(match ip {
        _ if ip.is_unspecified() || ip.is_multicast() => return None,
        _ if ip.is_loopback() => Reach::Machine,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Reach::Site,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Reach::Site,
        _ => Reach::World,
    })
}

/// 100.64.0.0/10: behind a provider's NAT, or an overlay network.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

/// True if a peer that we see at `observed` may have us believe that it listens on `claimed`: a stranger's
/// `127.0.0.1` is us, and its `192.168.1.7` is someone in our house.
pub(crate) fn is_plausible(claimed: &Multiaddr, observed: &Multiaddr) -> bool {
    match (reach(claimed), reach(observed)) {
        (Some(claimed), Some(observed)) => claimed >= observed,
        (Some(claimed), None) => claimed == Reach::World,
        (None, _) => false,
    }
}

/// Sorts addresses the way they should be dialled: direct before relayed, TCP before QUIC.
pub(crate) fn sort_for_dialling(addresses: &mut [Multiaddr]) {
    addresses.sort_by_key(|address| {
        let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
        (relayed, is_quic(address))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plausible(claimed: &str, observed: &str) -> bool {
        is_plausible(&claimed.parse().unwrap(), &observed.parse().unwrap())
    }

    #[test]
    fn a_stranger_cannot_point_us_at_ourselves() {
        assert!(!plausible("/ip4/127.0.0.1/tcp/1", "/ip4/203.0.113.7/tcp/1"));
        assert!(!plausible("/ip4/192.168.1.7/tcp/1", "/ip4/203.0.113.7/tcp/1"));
        assert!(!plausible("/ip6/::1/tcp/1", "/ip4/192.168.1.7/tcp/1"));
        assert!(!plausible("/ip4/0.0.0.0/tcp/1", "/ip4/127.0.0.1/tcp/1"));
    }

    #[test]
    fn neighbours_may_name_near_and_far_addresses() {
        assert!(plausible("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/9"));
        assert!(plausible("/ip4/192.168.1.7/tcp/1", "/ip4/10.0.0.1/tcp/9"));
        assert!(plausible("/ip4/203.0.113.7/tcp/1", "/ip4/127.0.0.1/tcp/9"));
        assert!(plausible("/dns4/example.org/tcp/1", "/ip4/203.0.113.7/tcp/1"));
    }

    #[test]
    fn tcp_is_dialled_first_and_relays_last() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let relayed = "/ip4/203.0.113.7/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit";
        let mut addresses = vec![parse(relayed), parse("/ip4/1.2.3.4/udp/1/quic-v1"), parse("/ip4/1.2.3.4/tcp/1")];
        sort_for_dialling(&mut addresses);
        assert_eq!(addresses[0], parse("/ip4/1.2.3.4/tcp/1"));
        assert_eq!(addresses[2], parse(relayed));
    }
}
