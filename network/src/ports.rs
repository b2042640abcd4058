//! Ports that the system chose once, chosen again: a network whose nodes all listen on port 0 would otherwise be lost
//! when all of them are started anew, since none would be where any other remembers it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The addresses to listen on, with port 0 replaced by the port of the address among `last` that came of it the last
/// time, if it is free. `last` are addresses that were listened on, with or without `/p2p/…` at their end.
pub fn with_last_ports(listen: Vec<Multiaddr>, last: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut taken = Vec::new();
    let choose = |address: Multiaddr| {
        let found = last.iter().find_map(|last| {
            let port = port_of(&address, last)?;
            let chosen = with_port(&address, port);
            (!taken.contains(&chosen) && is_free(&chosen)).then_some(chosen)
        });
        let chosen = found.unwrap_or(address);
        taken.push(chosen.clone());
        chosen
    };
    listen.into_iter().map(choose).collect()
}

/// The port of `last`, if listening on `address`, which leaves the port to the system, can have given it.
fn port_of(address: &Multiaddr, last: &Multiaddr) -> Option<u16> {
    let mut port = None;
    let last = crate::address::without_peer(last.clone());
    let mut parts = last.iter();
    for wanted in address {
        match (wanted, parts.next()?) {
            (Protocol::Tcp(0), Protocol::Tcp(last)) | (Protocol::Udp(0), Protocol::Udp(last)) => port = Some(last),
            (Protocol::Ip4(wanted), Protocol::Ip4(_)) if wanted.is_unspecified() => {}
            (Protocol::Ip6(wanted), Protocol::Ip6(_)) if wanted.is_unspecified() => {}
            (wanted, last) if wanted == last => {}
            _ => return None,
        }
    }
    port.filter(|_| parts.next().is_none())
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let part = |part| match part {
        Protocol::Tcp(0) => Protocol::Tcp(port),
        Protocol::Udp(0) => Protocol::Udp(port),
        part => part,
    };
    address.iter().map(part).collect()
}

/// Whether nobody listens there. The sockets of libp2p would share a port with another of our user's nodes without a
/// word (`SO_REUSEPORT`), and each of the two would get some of the other's connections; those of std do not.
fn is_free(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return false,
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind(SocketAddr::new(ip, port)).is_ok(),
        Some(Protocol::Udp(port)) => UdpSocket::bind(SocketAddr::new(ip, port)).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[String]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
    }

    #[test]
    fn a_port_left_to_the_system_becomes_that_of_last_time_while_it_is_free() {
        let port = free_port();
        let listen = addresses(&["/ip4/127.0.0.1/tcp/0".to_owned()]);
        let last = addresses(&[
            format!("/ip4/127.0.0.1/tcp/{port}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"),
            format!("/ip4/127.0.0.1/tcp/{port}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"),
        ]);
        let chosen = addresses(&[format!("/ip4/127.0.0.1/tcp/{port}")]);
        assert_eq!(with_last_ports(listen.clone(), &last), chosen);
        assert_eq!(with_last_ports(listen.clone(), &last[..1]), listen, "a relay's port is not ours");

        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("still free");
        assert_eq!(with_last_ports(listen.clone(), &last), listen);
    }

    #[test]
    fn only_what_was_left_open_is_filled_in_and_each_port_once() {
        let port = free_port();
        let texts = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/4400", "/ip4/0.0.0.0/tcp/0"];
        let listen = addresses(&texts.map(str::to_owned));
        let last = addresses(&[
            format!("/ip6/::1/tcp/{port}"),
            format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
            format!("/ip4/127.0.0.1/tcp/{port}"),
        ]);
        let chosen = addresses(&[
            format!("/ip4/0.0.0.0/tcp/{port}"),
            format!("/ip4/0.0.0.0/udp/{port}/quic-v1"),
            texts[2].to_owned(),
            texts[3].to_owned(),
        ]);
        assert_eq!(with_last_ports(listen, &last), chosen);
    }
}
