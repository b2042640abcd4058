//! Kademlia walks under way, and who waits for them.

use std::{collections::HashMap, time::Instant};

use libp2p::{
    PeerId,
    kad::{BootstrapOk, GetClosestPeersError, GetClosestPeersOk, PeerInfo, QueryId, QueryResult},
};
use tokio::sync::oneshot;

use crate::{
    behaviour::Behaviour,
    contact::{Contact, node_id},
    shared::Shared,
};

/// Walks at once; more are answered with nothing found.
const WALKS_MAX: usize = 256;

#[derive(Default)]
pub(crate) struct Walks {
    walks: HashMap<QueryId, oneshot::Sender<Vec<Contact>>>,
    refreshes: HashMap<QueryId, Vec<oneshot::Sender<()>>>,
    /// Refreshes that wait for the first entry of the routing table.
    early: Vec<oneshot::Sender<()>>,
}

impl Walks {
    pub(crate) fn closest(&mut self, behaviour: &mut Behaviour, key: Vec<u8>, reply: oneshot::Sender<Vec<Contact>>) {
        if self.walks.len() >= WALKS_MAX {
            return;
        }
        self.walks.insert(behaviour.routing.kad.get_closest_peers(key), reply);
    }

    pub(crate) fn find(&mut self, behaviour: &mut Behaviour, peer: PeerId, reply: oneshot::Sender<Vec<Contact>>) {
        if self.walks.len() >= WALKS_MAX {
            return;
        }
        self.walks.insert(behaviour.routing.kad.get_closest_peers(peer), reply);
    }

    pub(crate) fn refresh(&mut self, behaviour: &mut Behaviour, reply: oneshot::Sender<()>) {
        match behaviour.routing.kad.bootstrap() {
            Ok(id) => self.refreshes.entry(id).or_default().push(reply),
            Err(_) if self.early.len() < WALKS_MAX => self.early.push(reply),
            Err(_) => {}
        }
    }

    /// Someone entered the routing table.
    pub(crate) fn routed(&mut self, behaviour: &mut Behaviour) {
        if self.early.is_empty() {
            return;
        }
        if let Ok(id) = behaviour.routing.kad.bootstrap() {
            self.refreshes.insert(id, std::mem::take(&mut self.early));
        }
    }

    pub(crate) fn progressed(&mut self, shared: &Shared, id: QueryId, result: QueryResult, last: bool) {
        match result {
            QueryResult::GetClosestPeers(result) => {
                let peers = match result {
                    Ok(GetClosestPeersOk { peers, .. }) => peers,
                    // What answered in time is as good as ever.
                    Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let found = learn(shared, peers);
                if last && let Some(reply) = self.walks.remove(&id) {
                    let _ = reply.send(found);
                }
            }
            QueryResult::Bootstrap(result) => {
                let done = match result {
                    Ok(BootstrapOk { num_remaining, .. }) => num_remaining == 0 || last,
                    Err(_) => true,
                };
                if done {
                    for reply in self.refreshes.remove(&id).unwrap_or_default() {
                        let _ = reply.send(());
                    }
                }
            }
            _ => {}
        }
    }
}

fn learn(shared: &Shared, peers: Vec<PeerInfo>) -> Vec<Contact> {
    let now = Instant::now();
    let mut book = shared.book();
    peers
        .into_iter()
        .filter_map(|PeerInfo { peer_id, addrs }| {
            book.learn(peer_id, addrs, now);
            Some(Contact { node: node_id(&peer_id)?, addrs: book.addresses(&peer_id, now) })
        })
        .collect()
}
