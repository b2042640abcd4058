//! The failure domain that an address lies in, as far as the network can tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The /24 (IPv4) or /48 (IPv6) of the address; none for names and relayed addresses, which say nothing.
pub fn domain_of(address: &Multiaddr) -> Option<String> {
    let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
    let ip = match address.iter().next()? {
        _ if relayed => return None,
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => ip.to_canonical(),
        _ => return None,
    };
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Option<String> {
        domain_of(&text.parse().unwrap())
    }

    #[test]
    fn neighbours_share_a_domain() {
        assert_eq!(domain("/ip4/203.0.113.7/tcp/4400").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(domain("/ip4/203.0.113.9/udp/1/quic-v1"), domain("/ip4/203.0.113.7/tcp/4400"));
        assert_eq!(domain("/ip6/2001:db8:1:2::7/tcp/1").as_deref(), Some("2001:db8:1::/48"));
        assert_ne!(domain("/ip6/2001:db8:2::1/tcp/1"), domain("/ip6/2001:db8:1:2::7/tcp/1"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_maps() {
        assert_eq!(domain("/ip6/::ffff:203.0.113.9/tcp/1").as_deref(), Some("203.0.113.0/24"));
    }

    #[test]
    fn names_and_relays_have_no_domain() {
        assert_eq!(domain("/dns4/example.org/tcp/4400"), None);
        let relayed = "/ip4/203.0.113.7/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit";
        assert_eq!(domain(relayed), None);
    }
}
