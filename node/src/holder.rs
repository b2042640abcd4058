//! The holder: takes shards that fit their manifest, serves ranges with proofs, signs claims.
//!
//! A shard is answered for only when it is on disk and synced. Bytes are handed to the store as they come, in pieces,
//! so that memory is bounded by pieces times streams; ranges are read under a budget of bytes. Nothing is decided here
//! that a rule of `commonhold-policy` decides, and no key of any vault is ever known.

mod audits;
mod claims;
mod given_up;
mod limits;
mod rate;
mod trash;

use std::{
    cmp::Ordering,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use commonhold_network::{RangeReply, ShardService, StoreBody};
use commonhold_policy::{
    Domain,
    admission::{ShardAdmission, admit_shard},
};
use commonhold_protocol::{
    Claim, ClaimLeaf, Lease, Manifest, NetworkName, NodeId, SegmentId, ShardIndex, SigningKey, Unverified, VaultId,
    Verified, Verifier, ask::Refusal, shard_stream::GroupRange,
};
use commonhold_storage_engine::store::{Held, ShardStore, ShardWriter, StoreError};

pub use self::trash::TrashReport;
pub(crate) use self::trash::empty_trash;
use self::{
    claims::ClaimSigner,
    given_up::{GivenUp, GivingUp},
    limits::{ExchangeLimits, WRITE_BYTES},
    rate::{FairRate, RateLimit},
};
use crate::{
    config::Rate,
    cpu_time,
    custody::DrainState,
    identity::Identity,
    neighbours::Neighbours,
    steward::{Holdings, Steward},
    sweep::ServedVaults,
};

/// The shards of a store, as a steward has to know of them.
pub struct HeldShards {
    /// The store.
    pub store: Arc<ShardStore>,
    /// Whether the node is to leave.
    pub drain: Arc<DrainState>,
}

impl Holdings for HeldShards {
    fn free_bytes(&self) -> u64 {
        if self.drain.is_closed() {
            return 0;
        }
        self.store.free_bytes().unwrap_or_else(|error| {
            tracing::warn!(%error, "the free space is not known");
            0
        })
    }

    fn shards(&self) -> u64 {
        self.store.used().shards
    }

    fn vault_of(&self, segment: &SegmentId) -> Option<VaultId> {
        match held_of(&self.store, segment) {
            Ok(held) => held.first().map(|held| held.vault),
            Err(error) => {
                tracing::warn!(%error, "the shards of a segment cannot be listed");
                None
            }
        }
    }

    fn vaults(&self) -> Vec<VaultId> {
        self.store.vaults()
    }
}

/// The shards of one segment that are held; at most 255.
fn held_of(store: &ShardStore, segment: &SegmentId) -> Result<Vec<Held>, StoreError> {
    // Any leaf a little before will do: ids are random, so hardly anything lies between.
    let before = ClaimLeaf { segment: a_little_before(segment), index: ShardIndex(0) };
    let mut shards = Vec::new();
    for held in store.held_after(Some(&before)) {
        let held = held?;
        match held.leaf.segment.cmp(segment) {
            Ordering::Less => {}
            Ordering::Equal => shards.push(held),
            Ordering::Greater => break,
        }
    }
    Ok(shards)
}

/// An id before this one, with next to none between; the first of all for those that have none.
fn a_little_before(segment: &SegmentId) -> SegmentId {
    let mut bytes = *segment.as_bytes();
    let (head, tail) = bytes.split_at_mut(8);
    tail.fill(0);
    let number = u64::from_be_bytes(std::array::from_fn(|i| head[i]));
    head.copy_from_slice(&number.saturating_sub(1).to_be_bytes());
    SegmentId::from_bytes(bytes)
}

/// How fast the node may send and receive shards.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Sent.
    pub upload: Option<Rate>,
    /// Received.
    pub download: Option<Rate>,
}

/// The holder.
pub struct Holder {
    network: NetworkName,
    store: Arc<ShardStore>,
    steward: Arc<Steward>,
    neighbours: Arc<Neighbours>,
    served: Arc<ServedVaults>,
    /// Signs what we answer to audits.
    key: SigningKey,
    signer: ClaimSigner,
    limits: ExchangeLimits,
    admission: Arc<Mutex<ShardAdmission>>,
    given_up: Arc<GivenUp>,
    giving_up: GivingUp,
    upload: Option<RateLimit>,
    download: Option<RateLimit>,
    fair: FairRate,
    drain: Arc<DrainState>,
    stopping: AtomicBool,
}

/// All that a holder works with.
pub struct HolderParts {
    /// The network that it is part of.
    pub network: NetworkName,
    /// Its shards.
    pub store: Arc<ShardStore>,
    /// The steward of the same node: it knows of drops and keeps leases.
    pub steward: Arc<Steward>,
    /// Who the peers are.
    pub neighbours: Arc<Neighbours>,
    /// The vaults whose heads are to be kept.
    pub served: Arc<ServedVaults>,
    /// Bytes that it may hold in all.
    pub pledge_bytes: u64,
    /// Bytes that it may hold of one vault.
    pub vault_bytes_max: u64,
    /// The pledge's rates.
    pub rates: Rates,
    /// Whether the node is to leave.
    pub drain: Arc<DrainState>,
    /// The file of what was given up.
    pub given_up: PathBuf,
}

impl Holder {
    /// A holder that signs with `identity`. Runs a task that signs claims on the current runtime.
    pub fn new(identity: &Identity, parts: HolderParts) -> Self {
        let HolderParts {
            network,
            store,
            steward,
            neighbours,
            served,
            pledge_bytes,
            vault_bytes_max,
            rates,
            drain,
            given_up,
        } = parts;
        let given_up = GivenUp::open(given_up, steward.clock().now());
        Self {
            key: identity.signing_key(),
            signer: ClaimSigner::start(identity.signing_key(), network.clone(), steward.clock().clone()),
            network,
            store,
            steward,
            neighbours,
            served,
            limits: ExchangeLimits::default(),
            admission: Arc::new(Mutex::new(ShardAdmission::new(pledge_bytes, vault_bytes_max))),
            given_up: Arc::new(given_up),
            giving_up: GivingUp::default(),
            upload: rates.upload.map(RateLimit::new),
            download: rates.download.map(RateLimit::new),
            fair: FairRate::default(),
            drain,
            stopping: AtomicBool::new(false),
        }
    }

    /// Refuses all that is new; what has begun may end.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Waits until no shard is being received any more. After [`Self::stop`], that is for good.
    pub async fn idle(&self) {
        self.limits.idle().await;
    }

    /// A fresh claim for a shard that is held. None if the node is stopping.
    pub(crate) async fn claim(&self, leaf: ClaimLeaf) -> Option<Claim> {
        self.signer.sign(leaf).await
    }

    /// Waits until so many bytes may be sent.
    pub(crate) async fn spend_upload(&self, bytes: u64) {
        if let Some(rate) = &self.upload {
            rate.take(bytes).await;
        }
    }

    fn check_running(&self) -> Result<(), Refusal> {
        if self.stopping.load(Relaxed) { Err(Refusal::Stopping) } else { Ok(()) }
    }

    /// Verifies what was offered and reserves space for it. No writer: the shard is held already, whole and the same.
    async fn begin(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
    ) -> Result<(Verified<Manifest>, Option<ShardWriter>), Refusal> {
        let (store, steward) = (self.store.clone(), self.steward.clone());
        let (sender, admission) = (self.neighbours.sender(from), self.admission.clone());
        blocking(move || {
            let manifest = steward.verifier().verify(manifest).map_err(|_| Refusal::Invalid)?;
            let newest_drop = steward.newest_drop(&manifest.id()).map_err(|error| error.refusal())?;
            admit_shard(&manifest, index, newest_drop.as_deref())?;
            steward.keep_lease_beside(&sender, lease);
            if steward.has_ended(&manifest.vault) {
                return Err(Refusal::Expired);
            }
            let begun = match store.begin(&manifest, index) {
                Err(
                    error @ (StoreError::PledgeFull { .. }
                    | StoreError::DiskFull { .. }
                    | StoreError::VaultLimit { .. }),
                ) => {
                    trash::make_room(&store, &steward, &manifest, &error);
                    store.begin(&manifest, index)
                }
                begun => begun,
            };
            let writer = match begun {
                Ok(writer) => Some(writer),
                Err(StoreError::AlreadyHeld { leaf }) => check_held(&store, &manifest, leaf, steward.verifier())?,
                Err(error) => return Err(refusal(&error)),
            };
            if writer.is_some() {
                let mut admission = admission.lock().unwrap_or_else(PoisonError::into_inner);
                admission.admit(steward.clock().now(), &sender.domain, manifest.shard_length())?;
            }
            Ok((manifest, writer))
        })
        .await
    }

    /// Receives the bytes and makes them durable.
    async fn receive(
        &self,
        from: &Domain,
        mut writer: ShardWriter,
        shard_length: u64,
        body: &mut StoreBody,
    ) -> Result<(), Refusal> {
        let mut remaining = shard_length;
        loop {
            let pieces = match self.next_pieces(from, body, remaining).await {
                Ok(pieces) => pieces,
                Err(refusal) => {
                    // Giving space back touches the disk.
                    blocking(move || {
                        drop(writer);
                        Ok(())
                    })
                    .await?;
                    return Err(refusal);
                }
            };
            let received: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            remaining = remaining.saturating_sub(received);
            let store = self.store.clone();
            if remaining > 0 {
                writer = blocking(move || {
                    pieces.iter().try_for_each(|piece| writer.write(piece)).map_err(|error| refusal(&error))?;
                    Ok(writer)
                })
                .await?;
            } else {
                let finish = move || {
                    pieces.iter().try_for_each(|piece| writer.write(piece))?;
                    store.commit(writer.finish()?)
                };
                return blocking(move || finish().map_err(|error| refusal(&error))).await;
            }
        }
    }

    /// The next pieces of a shard of which `remaining` bytes are to come, no faster than the pledge and the others who send
    /// allow. As many as are worth a change to another thread, which hashes and writes them.
    async fn next_pieces(&self, from: &Domain, body: &mut StoreBody, remaining: u64) -> Result<Vec<Bytes>, Refusal> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < remaining.min(WRITE_BYTES) {
            let piece = body.next_piece().await.ok().flatten().ok_or(Refusal::Invalid)?;
            if let Some(rate) = &self.download {
                rate.take(piece.len() as u64).await;
            }
            self.fair.take(from, piece.len() as u64).await;
            bytes += piece.len() as u64;
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

impl ShardService for Holder {
    async fn store(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        self.check_running()?;
        if self.drain.is_closed() {
            return Err(Refusal::PledgeFull);
        }
        let domain = self.neighbours.sender(from).domain;
        self.fair.begin(&domain).await;
        let _permits = self.limits.store(from).await?;
        let (manifest, writer) = self.begin(from, manifest, index, lease).await?;
        let shard_length = manifest.shard_length();
        // Without a writer the sender does not know that we have it (it was killed before it heard): it is told at once.
        if let Some(writer) = writer {
            if body.go(shard_length).await.is_err() {
                return Err(Refusal::Invalid);
            }
            self.receive(&domain, writer, shard_length, body).await?;
        }
        let leaf = ClaimLeaf { segment: manifest.id(), index };
        self.given_up.forget(&leaf);
        self.served.serve(manifest.vault);
        self.signer.sign(leaf).await.ok_or(Refusal::Stopping)
    }

    async fn read(
        &self,
        from: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, Refusal> {
        self.check_running()?;
        let domain = self.neighbours.sender(from).domain;
        self.fair.begin(&domain).await;
        let permits = self.limits.read(from, &ranges).await?;
        let (store, steward, giving_up) = (self.store.clone(), self.steward.clone(), self.giving_up.clone());
        let read = blocking(move || {
            giving_up.check(&ClaimLeaf { segment, index })?;
            if steward.is_dropped(&segment).map_err(|error| error.refusal())? {
                return Err(Refusal::Dropped);
            }
            store.read(segment, index, &ranges).map_err(|error| refusal(&error))
        })
        .await?;
        if let Some(rate) = &self.upload {
            rate.take(read.encoded.len() as u64).await;
        }
        self.fair.take(&domain, read.encoded.len() as u64).await;
        let manifest = want_manifest.then_some(read.manifest);
        Ok(RangeReply { encoded: permits.attach(read.encoded), manifest })
    }
}

/// A shard that is held already: whole, and of the same root, or it is not the shard that was offered.
fn check_held(
    store: &Arc<ShardStore>,
    manifest: &Verified<Manifest>,
    leaf: ClaimLeaf,
    verifier: &Verifier,
) -> Result<Option<ShardWriter>, Refusal> {
    let first = GroupRange { first: 0, count: 1 };
    let held = store.read(leaf.segment, leaf.index, &[first]).and_then(|read| {
        store.verify(leaf.segment, leaf.index)?;
        Ok(read.manifest)
    });
    match held {
        Ok(held) => {
            let held = verifier.verify(held).map_err(|_| Refusal::Damaged)?;
            let same = held.root(leaf.index) == manifest.root(leaf.index);
            if same { Ok(None) } else { Err(Refusal::Invalid) }
        }
        // It was quarantined by this look: what is offered takes its place.
        Err(StoreError::Damaged { .. }) => store.begin(manifest, leaf.index).map(Some).map_err(|error| refusal(&error)),
        Err(error) => Err(refusal(&error)),
    }
}

/// What a peer is told; what the operator has to know goes to the log.
fn refusal(error: &StoreError) -> Refusal {
    let refusal = error.refusal();
    match refusal {
        Refusal::DiskError | Refusal::Damaged | Refusal::DiskFull => tracing::warn!(%error, "a shard is refused"),
        _ => tracing::debug!(%error, "a shard is refused"),
    }
    refusal
}

/// Runs what blocks off the runtime's thread. A panic there is a refusal to the peer, not the end of the node.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    cpu_time::blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "work on the disk failed");
        Err(Refusal::Other)
    })
}
