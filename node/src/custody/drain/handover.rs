//! How one shard moves: to a node that holds none of its segment, into its stewards' records, and away from here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use commonhold_policy::{
    Domain, Standing,
    placement::{self, Candidate},
};
use commonhold_protocol::{
    ClaimLeaf, Manifest, NodeId, Record, Verified, VerifiedClaim,
    ask::{Refusal, Request, Response},
    shard_stream::{GROUP_BYTES, GroupRange},
};
use commonhold_storage_engine::{
    prove::decode_ranges,
    store::{Held, StoreError},
};
use futures::future::join_all;
use tokio::sync::mpsc;

use super::{Drain, Hindrance, Outcome};
use crate::auditor::proves;

/// New holders tried for one shard in one pass.
const TRIES: usize = 4;
/// Chunk groups sent in one piece.
const PIECE_GROUPS: u64 = 16;

impl Drain {
    pub(super) async fn hand_on(&self, held: &Held, stewards: Vec<NodeId>) -> Outcome {
        let (leaf, own) = (held.leaf, self.colleagues.own());
        if stewards.is_empty() {
            return Outcome::Stays(Hindrance::NoStewards);
        }
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.manifest(leaf.segment, leaf.index)).await;
        let manifest = match read {
            Ok(Ok(manifest)) => own.steward.verifier().verify(manifest).ok(),
            // Gone since it was listed.
            Ok(Err(StoreError::NotHeld { .. })) => return Outcome::Unwanted,
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(manifest) = manifest else { return Outcome::Stays(Hindrance::Unreadable) };
        let claims = self.claims(&leaf, &stewards).await;
        let claim = match self.already_held(&manifest, &leaf, &claims).await {
            Some(claim) => claim,
            None => match self.place(&manifest, held, &claims).await {
                Ok(claim) => claim,
                Err(why) => return Outcome::Stays(why),
            },
        };
        self.sent().insert(leaf, claim.clone());
        let record = Record { manifest: manifest.to_unverified(), claims: vec![claim.claim.clone()], drop: None };
        let told = stewards.iter().map(async |node| {
            let vaults = BTreeSet::from([held.vault]);
            let outcomes = self.colleagues.keep(*node, vec![record.clone()], vaults).await;
            (*node, outcomes.and_then(|outcomes| outcomes.first().copied()))
        });
        let told = join_all(told).await;
        if let Some((node, _)) = told.iter().find(|(_, outcome)| *outcome == Some(Err(Refusal::Dropped))) {
            self.colleagues.hear_drops(*node, vec![leaf.segment]).await;
            return Outcome::Unwanted;
        }
        let took: Vec<NodeId> =
            told.into_iter().filter(|(_, outcome)| *outcome == Some(Ok(()))).map(|(node, _)| node).collect();
        if took.len() * 2 <= stewards.len() {
            return Outcome::Stays(Hindrance::NoStewards);
        }
        // The new holder may hear meanwhile that we hold the shard, and give it up.
        let Some(_yielding) = own.holder.yield_up(leaf) else { return Outcome::Stays(Hindrance::NoNode) };
        if !proves(&own.peer, own.steward.verifier().network(), &manifest, leaf.index, claim.holder).await {
            return Outcome::Stays(Hindrance::NoNode);
        }
        let released = self.colleagues.release(took.iter().map(|node| (*node, vec![leaf])).collect()).await;
        if released.get(&leaf).map_or(0, BTreeSet::len) * 2 <= stewards.len() {
            return Outcome::Stays(Hindrance::NoStewards);
        }
        if let Err(error) = own.holder.give_up(leaf).await {
            tracing::warn!(%error, "a shard that was handed on cannot be removed");
            return Outcome::Stays(Hindrance::Unreadable);
        }
        self.sent().remove(&leaf);
        tracing::debug!(segment = %leaf.segment, index = %leaf.index, to = %claim.holder, "a shard is handed on");
        self.figures.handed_on.fetch_add(1, Relaxed);
        self.figures.handed_on_bytes.fetch_add(held.bytes, Relaxed);
        Outcome::Moved
    }

    /// The claims to shards of the same segment, by all its stewards' records.
    async fn claims(&self, leaf: &ClaimLeaf, stewards: &[NodeId]) -> Vec<VerifiedClaim> {
        let asked = stewards
            .iter()
            .map(|node| self.colleagues.ask(*node, Request::FetchRecords { segments: vec![leaf.segment] }));
        let records = join_all(asked).await.into_iter().filter_map(|answer| match answer {
            Some(Response::Records(records)) => records.into_iter().next().flatten(),
            _ => None,
        });
        let verifier = self.colleagues.own().steward.verifier().clone();
        let claims: Vec<_> = records.flat_map(|record| record.claims).collect();
        let verified = tokio::task::spawn_blocking(move || {
            claims.into_iter().filter_map(|claim| verifier.verify_claim(claim).ok()).collect::<Vec<_>>()
        });
        let mut claims = verified.await.unwrap_or_default();
        claims.retain(|claim| claim.claim.leaf.segment == leaf.segment);
        claims
    }

    /// The claim of another node to this very shard that proves to us that it holds it.
    async fn already_held(
        &self,
        manifest: &Verified<Manifest>,
        leaf: &ClaimLeaf,
        claims: &[VerifiedClaim],
    ) -> Option<VerifiedClaim> {
        let own = self.colleagues.own();
        let node = own.peer.node_id();
        let sent = self.sent().get(leaf).cloned();
        let others: BTreeMap<NodeId, &VerifiedClaim> = claims
            .iter()
            .chain(&sent)
            .filter(|claim| claim.claim.leaf == *leaf && claim.holder != node)
            .map(|claim| (claim.holder, claim))
            .collect();
        for (holder, claim) in others {
            if proves(&own.peer, own.steward.verifier().network(), manifest, leaf.index, holder).await {
                return Some(claim.clone());
            }
        }
        None
    }

    /// Sends a shard to a node that holds none of its segment, in a new domain if there is one.
    async fn place(
        &self,
        manifest: &Verified<Manifest>,
        held: &Held,
        claims: &[VerifiedClaim],
    ) -> Result<VerifiedClaim, Hindrance> {
        let neighbours = &self.colleagues.own().neighbours;
        let (own, _) = neighbours.own();
        let holders: BTreeSet<NodeId> =
            claims.iter().map(|claim| claim.holder).filter(|holder| *holder != own).collect();
        let taken: BTreeSet<Domain> = holders.iter().map(|node| neighbours.domain(*node)).collect();
        let candidates: Vec<Candidate> = {
            let offers = self.offers();
            let offers =
                offers.iter().filter(|(node, free)| **free >= held.bytes && **node != own && !holders.contains(node));
            let candidate = |(node, free_bytes): (&NodeId, &u64)| Candidate {
                node: *node,
                domain: neighbours.domain(*node),
                free_bytes: *free_bytes,
                standing: Standing::KnownGood,
            };
            offers.map(candidate).collect()
        };
        let order = placement::order(&mut rand::rng(), candidates.iter(), &taken);
        for place in order.into_iter().take(TRIES) {
            match self.send(place.node, manifest, held.leaf).await {
                Ok(claim) => {
                    if let Some(free) = self.offers().get_mut(&place.node) {
                        *free = free.saturating_sub(held.bytes);
                    }
                    return Ok(claim);
                }
                Err(Some(why)) => return Err(why),
                Err(None) => {
                    self.offers().remove(&place.node);
                }
            }
        }
        Err(Hindrance::NoNode)
    }

    /// Sends a shard, each piece checked against its root on the way; its new holder's claim. None: it was not taken.
    async fn send(
        &self,
        node: NodeId,
        manifest: &Verified<Manifest>,
        leaf: ClaimLeaf,
    ) -> Result<VerifiedClaim, Option<Hindrance>> {
        let own = self.colleagues.own();
        let root = *manifest.root(leaf.index).ok_or(Some(Hindrance::Unreadable))?;
        let shard_length = manifest.shard_length();
        let (pieces, queued) = mpsc::channel::<Option<Bytes>>(1);
        let (store, holder) = (self.store.clone(), own.holder.clone());
        // The channel's end is dropped with it: one that closes without an end gives the shard up.
        let feeding = async move {
            let mut start = 0;
            while start < shard_length {
                let end = (start + PIECE_GROUPS * GROUP_BYTES).min(shard_length);
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let ranges = [GroupRange::of_bytes(start, end)];
                    let read = store.read(leaf.segment, leaf.index, &ranges).ok()?;
                    Some(decode_ranges(&root, shard_length, &ranges, &read.encoded.into()).ok()?.first()?.concat())
                });
                let Ok(Some(piece)) = read.await else { return false };
                holder.spend_upload(piece.len() as u64).await;
                if pieces.send(Some(piece)).await.is_err() {
                    // The other side has ended it, and says why.
                    return true;
                }
                start = end;
            }
            let _ = pieces.send(None).await;
            true
        };
        let lease = {
            let (steward, vault) = (own.steward.clone(), manifest.vault);
            tokio::task::spawn_blocking(move || steward.running_lease(&vault)).await.ok().flatten()
        };
        let storing = own.peer.store_shard(node, manifest.to_unverified(), leaf.index, lease, queued);
        let (stored, readable) = futures::future::join(storing, feeding).await;
        if !readable {
            return Err(Some(Hindrance::Unreadable));
        }
        let claim = match stored {
            Ok(claim) => claim.verify(own.steward.verifier().network()).ok(),
            Err(error) => {
                tracing::debug!(%error, segment = %leaf.segment, index = %leaf.index, "a shard was not taken");
                None
            }
        };
        claim.filter(|claim| claim.holder == node && claim.claim.leaf == leaf).ok_or(None)
    }
}
