//! The address book: where peers were last known to listen, and which of those addresses just failed.
//!
//! A peer is down when every address known of it failed within [`FAILED_FOR`]; dialling it again in that time costs
//! nothing. A new address makes it worth a try at once, and a connection clears all failures.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use crate::address::{sort_for_dialling, without_peer};

/// How long a failed address is not dialled again.
pub(crate) const FAILED_FOR: Duration = Duration::from_secs(20);
/// Addresses kept of one peer; the oldest go first.
const ADDRESSES_MAX: usize = 8;
/// Peers kept; those not used for longest go first.
const PEERS_MAX: usize = 4096;

struct Known {
    address: Multiaddr,
    failed_at: Option<Instant>,
}

impl Known {
    fn failed(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < FAILED_FOR)
    }
}

struct Entry {
    known: Vec<Known>,
    used: Instant,
}

/// What a dial would have to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Candidates {
    /// These addresses, in this order.
    Dial(Vec<Multiaddr>),
    /// All that is known has just failed.
    Down,
    /// Nothing is known.
    Unknown,
}

/// Addresses by peer.
#[derive(Default)]
pub(crate) struct AddressBook {
    peers: HashMap<PeerId, Entry>,
}

impl AddressBook {
    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Entry {
        if self.peers.len() >= PEERS_MAX
            && !self.peers.contains_key(&peer)
            && let Some(oldest) = self.peers.iter().min_by_key(|(_, entry)| entry.used).map(|(peer, _)| *peer)
        {
            self.peers.remove(&oldest);
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry { known: Vec::new(), used: now });
        entry.used = now;
        entry
    }

    /// Takes up addresses that someone told us; true if one of them is new.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>, now: Instant) -> bool {
        let entry = self.entry(peer, now);
        let mut news = false;
        for address in addresses.into_iter().take(ADDRESSES_MAX).map(without_peer) {
            if entry.known.iter().all(|known| known.address != address) {
                if entry.known.len() >= ADDRESSES_MAX {
                    let worst = entry.known.iter().position(|known| known.failed(now)).unwrap_or(0);
                    entry.known.remove(worst);
                }
                entry.known.push(Known { address, failed_at: None });
                news = true;
            }
        }
        news
    }

    /// The peer itself says where it listens: whatever else was known is out of date.
    pub(crate) fn replace(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        let entry = self.entry(peer, now);
        let before = std::mem::take(&mut entry.known);
        entry.known = addresses
            .into_iter()
            .take(ADDRESSES_MAX)
            .map(without_peer)
            .map(|address| {
                let failed_at = before.iter().find(|known| known.address == address).and_then(|known| known.failed_at);
                Known { address, failed_at }
            })
            .collect();
    }

    /// The address could not be dialled.
    pub(crate) fn failed(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        let address = without_peer(address.clone());
        let entry = self.entry(peer, now);
        if let Some(known) = entry.known.iter_mut().find(|known| known.address == address) {
            known.failed_at = Some(now);
        } else if entry.known.len() < ADDRESSES_MAX {
            entry.known.push(Known { address, failed_at: Some(now) });
        }
    }

    /// Someone else answers at this address.
    pub(crate) fn remove(&mut self, peer: PeerId, address: &Multiaddr) {
        let address = without_peer(address.clone());
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.known.retain(|known| known.address != address);
        }
    }

    /// The peer no longer answers, though connected: none of its addresses is worth a try for a while.
    pub(crate) fn silenced(&mut self, peer: PeerId, now: Instant) {
        self.entry(peer, now).known.iter_mut().for_each(|known| known.failed_at = Some(now));
    }

    /// There is a connection; `dialled` is the address, if we made it.
    pub(crate) fn connected(&mut self, peer: PeerId, dialled: Option<&Multiaddr>, now: Instant) {
        self.learn(peer, dialled.cloned(), now);
        self.entry(peer, now).known.iter_mut().for_each(|known| known.failed_at = None);
    }

    /// What to dial, given what else was found just now.
    pub(crate) fn candidates(&self, peer: &PeerId, found: Vec<Multiaddr>, now: Instant) -> Candidates {
        let known = self.peers.get(peer).map_or(&[][..], |entry| &entry.known);
        let mut addresses: Vec<Multiaddr> =
            known.iter().filter(|known| !known.failed(now)).map(|known| known.address.clone()).collect();
        let mut any_failed = addresses.len() < known.len();
        for address in found.into_iter().map(without_peer) {
            match known.iter().find(|known| known.address == address) {
                Some(known) => any_failed |= known.failed(now),
                None if addresses.contains(&address) => {}
                None => addresses.push(address),
            }
        }
        if addresses.is_empty() {
            return if any_failed { Candidates::Down } else { Candidates::Unknown };
        }
        sort_for_dialling(&mut addresses);
        addresses.truncate(ADDRESSES_MAX);
        Candidates::Dial(addresses)
    }

    /// The addresses of a peer that have not just failed; all of them if they all have.
    pub(crate) fn addresses(&self, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
        match self.candidates(peer, Vec::new(), now) {
            Candidates::Dial(addresses) => addresses,
            Candidates::Down | Candidates::Unknown => self
                .peers
                .get(peer)
                .map(|entry| entry.known.iter().map(|known| known.address.clone()).collect())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_failed_address_is_left_alone_for_a_while_and_a_new_one_is_tried_at_once() {
        let (mut book, peer, start) = (AddressBook::default(), PeerId::random(), Instant::now());
        assert_eq!(book.candidates(&peer, vec![], start), Candidates::Unknown);
        book.learn(peer, [address(1)], start);
        assert_eq!(book.candidates(&peer, vec![], start), Candidates::Dial(vec![address(1)]));
        book.failed(peer, &address(1), start);
        assert_eq!(book.candidates(&peer, vec![], start), Candidates::Down);
        assert_eq!(book.candidates(&peer, vec![address(1)], start), Candidates::Down);
        assert_eq!(book.candidates(&peer, vec![address(2)], start), Candidates::Dial(vec![address(2)]));
        assert_eq!(book.candidates(&peer, vec![], start + FAILED_FOR), Candidates::Dial(vec![address(1)]));
        book.connected(peer, None, start);
        assert_eq!(book.candidates(&peer, vec![], start), Candidates::Dial(vec![address(1)]));
    }

    #[test]
    fn what_a_peer_says_of_itself_replaces_what_was_known() {
        let (mut book, peer, now) = (AddressBook::default(), PeerId::random(), Instant::now());
        book.learn(peer, [address(1), address(2)], now);
        book.replace(peer, vec![address(3).with_p2p(peer).unwrap()], now);
        assert_eq!(book.addresses(&peer, now), vec![address(3)]);
    }

    #[test]
    fn the_book_stays_bounded() {
        let (mut book, peer, now) = (AddressBook::default(), PeerId::random(), Instant::now());
        for port in 1..100 {
            book.learn(peer, [address(port)], now);
        }
        assert_eq!(book.addresses(&peer, now).len(), ADDRESSES_MAX);
        assert!(book.addresses(&peer, now).contains(&address(99)));
        for count in 0..PEERS_MAX as u64 {
            book.learn(PeerId::random(), [address(1)], now + Duration::from_millis(1 + count));
        }
        assert_eq!(book.peers.len(), PEERS_MAX);
        assert!(!book.peers.contains_key(&peer), "the one not used for longest goes");
    }
}
