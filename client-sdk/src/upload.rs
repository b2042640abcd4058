//! **placed → claimed → recorded**: carries out a placement plan for one segment and has its stewards keep the record.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use commonhold_network::TransferError;
use commonhold_policy::{
    Failure, heads as quorum,
    placement::{self, PlacementError},
    store::{Action, Event, Store},
};
use commonhold_protocol::{
    Claim, Drop, DropKind, Manifest, NodeId, Record, SegmentId, ShardIndex, Unverified, Verified, VerifiedClaim,
    ask::{ASK_RECORDS_MAX, Refusal, Request, Response},
};
use commonhold_storage_engine::keys::VaultKeys;
use futures::{StreamExt, future::AbortHandle, stream::FuturesUnordered};
use rand::SeedableRng;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::Error,
    progress::Progress,
    session::{Session, now},
    spool::Slot,
    table::{NodeKey, PackedChunk, PlacedSegment, SegmentInfo},
};

/// How long a steward may take to keep records; it syncs a disk.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a node is told of a drop that does not answer or is busy, and how long it is left alone between.
const TELLS_MAX: usize = 4;
const TELL_AGAIN: Duration = Duration::from_millis(250);
/// Nodes that are told of a drop at once.
const TOLD_AT_ONCE: usize = 64;
/// Records waiting for one steward.
const RECORDS_QUEUED_MAX: usize = 256;
/// Claims in one message, so that it stays below the limit of a request.
const CLAIMS_PER_MESSAGE_MAX: usize = 1200;

/// A coded and signed segment that is to be placed.
pub(crate) struct SegmentUpload {
    pub(crate) id: SegmentId,
    pub(crate) manifest: Verified<Manifest>,
    pub(crate) shards: Vec<Bytes>,
    pub(crate) chunks: Vec<PackedChunk>,
    /// The owner's word that it is not wanted after all, for when it cannot be placed or recorded.
    pub(crate) undo: Unverified<Drop>,
    /// Where it is kept until it is placed.
    pub(crate) slot: Option<Slot>,
}

/// A segment that holders have claimed and stewards keep.
pub(crate) struct Placed {
    pub(crate) segment: PlacedSegment,
    /// Who claimed its shards: the segment itself has their keys only.
    pub(crate) holders: Vec<NodeId>,
    pub(crate) bytes_placed: u64,
    /// Shards that share a failure domain, or even a node, with another of the segment.
    pub(crate) shared: usize,
    /// Shards that no node took; stewards rebuild them where there is room.
    pub(crate) missing: usize,
    /// To be freed once the journal has the segment.
    pub(crate) slot: Option<Slot>,
}

/// What came of placing a segment; see [`Placed`].
struct Claimed {
    claims: Vec<VerifiedClaim>,
    shared: usize,
    missing: usize,
}

/// How a failed transfer looks to the policy.
pub(crate) fn failure(error: &TransferError) -> Failure {
    match error {
        TransferError::Unreachable { .. } | TransferError::Stopped => Failure::Unreachable,
        TransferError::Refused { refusal, .. } => Failure::Refused(*refusal),
        TransferError::TimedOut { .. } => Failure::TimedOut,
        TransferError::Broken { .. } => Failure::Broken,
        TransferError::Nonsense { .. } | TransferError::Request(_) => Failure::Wrong,
    }
}

/// Places, claims and records one segment.
pub(crate) async fn run(
    session: &Arc<Session>,
    records: &RecordQueues,
    mut upload: SegmentUpload,
    progress: &Progress,
) -> Result<Placed, Error> {
    let mut slot = upload.slot.take();
    let Claimed { claims, shared, missing } = place(session, &upload, &mut slot, progress).await?;
    let coding = upload.manifest.coding;
    let holders: Vec<NodeId> = claims.iter().map(|claim| claim.holder).collect();
    let mut keys = vec![None; usize::from(coding.n())];
    for claim in &claims {
        keys[usize::from(claim.claim.leaf.index.0)] = Some(NodeKey::of(&claim.holder));
    }
    let record = Record {
        manifest: upload.manifest.to_unverified(),
        claims: claims.iter().map(|claim| claim.claim.clone()).collect(),
        drop: None,
    };
    if let Err(error) = records.keep(upload.id, record).await {
        undo(session, &upload, slot, holders).await?;
        return Err(error);
    }
    let info = SegmentInfo { coding, length: upload.manifest.length, holders: keys };
    let bytes_placed = claims.len() as u64 * upload.manifest.shard_length();
    let segment = PlacedSegment { id: upload.id, info, chunks: upload.chunks };
    Ok(Placed { segment, holders, bytes_placed, shared, missing, slot })
}

/// Drives the store machine until enough shards are claimed.
async fn place(
    session: &Arc<Session>,
    upload: &SegmentUpload,
    slot: &mut Option<Slot>,
    progress: &Progress,
) -> Result<Claimed, Error> {
    let coding = upload.manifest.coding;
    let mut candidates = session.candidates().await?;
    let sent = slot.as_ref().map(Slot::sent).unwrap_or_default();
    for candidate in candidates.iter_mut().filter(|candidate| sent.values().any(|node| *node == candidate.node)) {
        // What it may have of this segment already, it needs no more room for.
        candidate.free_bytes = candidate.free_bytes.max(upload.manifest.shard_length());
    }
    let mut rng = rand_chacha::ChaCha12Rng::from_os_rng();
    let plan = placement::plan(&mut rng, coding, upload.manifest.shard_length(), &candidates);
    let plan = plan.map_err(|PlacementError::TooFewNodes { have, need, .. }| Error::TooFewHolders { have, need })?;
    let plan = plan.resuming(&sent);
    let shared = plan.domains_shared().max(plan.nodes_shared());
    let (mut machine, mut actions) = Store::start(plan, coding, now());
    let mut running = FuturesUnordered::new();
    let mut cancels: BTreeMap<(ShardIndex, NodeId), AbortHandle> = BTreeMap::new();
    let mut claims: BTreeMap<(ShardIndex, NodeId), VerifiedClaim> = BTreeMap::new();
    let mut timer = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    loop {
        if let Some(slot) = slot {
            slot.note(actions.iter().filter_map(Action::upload)).await;
        }
        for action in actions {
            match action {
                Action::Upload { index, node } => {
                    let (send, cancel) = futures::future::abortable(send_shard(session, upload, index, node));
                    cancels.insert((index, node), cancel);
                    running.push(async move { (index, node, send.await) });
                }
                Action::Cancel { index, node, slow } => {
                    if let Some(cancel) = cancels.remove(&(index, node)) {
                        cancel.abort();
                    }
                    if slow {
                        session.health(|health| health.failed(node, now()));
                    }
                }
                Action::Timer { at } => {
                    let wait = Duration::from_millis(at.ms_since(now()));
                    timer.as_mut().reset(tokio::time::Instant::now() + wait);
                }
                Action::Done(placed) => {
                    let claims = placed.claimed.iter().filter_map(|held| claims.remove(held)).collect();
                    return Ok(Claimed { claims, shared, missing: placed.missing.len() });
                }
                Action::Failed(failed) => {
                    // Whoever was still being sent a shard may have taken it all the same.
                    undo(session, upload, slot.take(), cancels.keys().map(|(_, node)| *node).collect()).await?;
                    let text = |failure: Failure| failure.to_string();
                    return Err(Error::NotPlaced {
                        segment: upload.id,
                        placed: failed.placed,
                        needed: failed.need,
                        refusals: failed.failures.into_iter().map(|(_, node, why)| (node, text(why))).collect(),
                    });
                }
            }
        }
        let event = tokio::select! {
            Some((index, node, sent)) = running.next(), if !running.is_empty() => match sent {
                // Cancelled: the machine does not wait for it.
                Err(futures::future::Aborted) => { actions = Vec::new(); continue }
                Ok(Ok(claim)) => {
                    Progress::add(&progress.bytes_moved, upload.manifest.shard_length());
                    session.health(|health| health.succeeded(node, now()));
                    claims.insert((index, node), claim);
                    Event::Claimed { index, node }
                }
                Ok(Err(failure)) => {
                    tracing::debug!(segment = %upload.id, %index, %node, "not placed: {failure}");
                    if failure.is_the_nodes() {
                        session.health(|health| health.failed(node, now()));
                    }
                    Event::Failed { index, node, failure }
                }
            },
            () = &mut timer => {
                timer.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(3600));
                Event::Timer
            }
        };
        actions = machine.handle(now(), event);
    }
}

/// Gives holders their space back, and frees the slot.
async fn undo(
    session: &Arc<Session>,
    upload: &SegmentUpload,
    slot: Option<Slot>,
    mut holders: Vec<NodeId>,
) -> Result<(), Error> {
    if let Some(slot) = &slot {
        slot.give_up()?;
        holders.extend(slot.nodes());
    }
    drop_segments(session, &[upload.id], &upload.undo, holders).await;
    slot.map_or(Ok(()), Slot::free)
}

/// The owner's word on segments: that they are not wanted any more, or that they are after all.
pub(crate) fn order(
    kind: DropKind,
    counter: u64,
    segments: Vec<SegmentId>,
    keys: &VaultKeys,
    session: &Session,
) -> Unverified<Drop> {
    let drop = Drop { vault: keys.vault_id(), counter, kind, segments };
    Verified::sign(drop, keys.signing(), session.network()).to_unverified()
}

/// Tells all who may have shards of segments, or their records, to drop them. Whoever does not hear of it keeps shards
/// that nobody asks for.
pub(crate) async fn drop_segments(
    session: &Arc<Session>,
    segments: &[SegmentId],
    drop: &Unverified<Drop>,
    mut nodes: Vec<NodeId>,
) {
    for segment in segments {
        nodes.extend(session.stewards(*segment.as_bytes()).await.unwrap_or_default());
    }
    tell(session, drop, nodes).await;
}

/// Sends a drop or undrop to nodes; gives how many have taken it in. Who does not answer, or is busy, is told again: a
/// connection may have died since it was used last, and an undrop that a holder misses costs its shards.
pub(crate) async fn tell(session: &Session, drop: &Unverified<Drop>, mut nodes: Vec<NodeId>) -> usize {
    nodes.sort();
    nodes.dedup();
    let mut kept = 0;
    for round in 0..TELLS_MAX {
        if round > 0 && !nodes.is_empty() {
            tokio::time::sleep(TELL_AGAIN).await;
        }
        let mut again = Vec::new();
        for nodes in nodes.chunks(TOLD_AT_ONCE) {
            for (node, answer) in session.ask_all(nodes, &Request::KeepDrop { drop: drop.clone() }).await {
                match answer {
                    Some(Response::Kept(outcomes)) => match outcomes.first() {
                        Some(Ok(())) => kept += 1,
                        Some(Err(Refusal::Busy)) => again.push(node),
                        Some(Err(_)) | None => {}
                    },
                    None | Some(Response::Refused(Refusal::Busy)) => again.push(node),
                    Some(_) => {}
                }
            }
        }
        nodes = again;
    }
    kept
}

/// One shard to one node; the claim must be that node's, over exactly this shard.
async fn send_shard(
    session: &Arc<Session>,
    upload: &SegmentUpload,
    index: ShardIndex,
    node: NodeId,
) -> Result<VerifiedClaim, Failure> {
    let data = upload.shards.get(usize::from(index.0)).cloned().unwrap_or_default();
    let manifest = upload.manifest.to_unverified();
    let lease = session.lease().map(|lease| lease.to_unverified());
    let sent = session.peer().store_shard(node, manifest, index, lease, data).await;
    let claim: Claim = sent.map_err(|error| failure(&error))?;
    let leaf_fits = claim.leaf.segment == upload.id && claim.leaf.index == index;
    let verified = claim.verify(session.network()).map_err(|_| Failure::Wrong)?;
    if leaf_fits && verified.holder == node { Ok(verified) } else { Err(Failure::Wrong) }
}

struct QueuedRecord {
    record: Record,
    outcome: oneshot::Sender<Option<Result<(), Refusal>>>,
}

/// One queue for each steward, so that the records that wait for it travel and are synced together.
#[derive(Clone)]
pub(crate) struct RecordQueues {
    session: Arc<Session>,
    queues: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<QueuedRecord>>>>,
}

impl RecordQueues {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, queues: Arc::default() }
    }

    /// Has the stewards of a segment keep its record; enough of them, by the rule that holds for heads too.
    async fn keep(&self, segment: SegmentId, record: Record) -> Result<(), Error> {
        let stewards = self.session.stewards(*segment.as_bytes()).await?;
        let mut waiting = FuturesUnordered::new();
        for steward in &stewards {
            let (outcome, kept) = oneshot::channel();
            let queue = self.queue(*steward);
            let queued = QueuedRecord { record: record.clone(), outcome };
            waiting.push(async move {
                queue.send(queued).await.ok()?;
                kept.await.ok().flatten()
            });
        }
        let (mut kept, mut refused, mut pending) = (0, 0, stewards.len());
        while let Some(outcome) = waiting.next().await {
            pending -= 1;
            match outcome {
                Some(Ok(())) => kept += 1,
                Some(Err(_)) => refused += 1,
                None => {}
            }
            match quorum::write_state(kept, refused, pending) {
                quorum::WriteState::Done | quorum::WriteState::DoneThin { .. } => return Ok(()),
                quorum::WriteState::Open => {}
                quorum::WriteState::Failed { kept, need } => {
                    return Err(Error::NotRecorded { segment, kept, needed: need });
                }
            }
        }
        Err(Error::NotRecorded { segment, kept, needed: quorum::WRITE_LEAST })
    }

    fn queue(&self, steward: NodeId) -> mpsc::Sender<QueuedRecord> {
        let mut queues = self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let queue = queues.entry(steward).or_insert_with(|| {
            let (send, queued) = mpsc::channel(RECORDS_QUEUED_MAX);
            tokio::spawn(send_records(self.session.clone(), steward, queued));
            send
        });
        queue.clone()
    }
}

/// Sends what has gathered, again and again, until nobody queues any more.
async fn send_records(session: Arc<Session>, steward: NodeId, mut queued: mpsc::Receiver<QueuedRecord>) {
    let mut held_over: Option<QueuedRecord> = None;
    loop {
        let first = match held_over.take() {
            Some(first) => first,
            None => match queued.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut claims = first.record.claims.len();
        let mut batch = vec![first];
        while batch.len() < ASK_RECORDS_MAX
            && let Ok(next) = queued.try_recv()
        {
            claims += next.record.claims.len();
            if claims > CLAIMS_PER_MESSAGE_MAX {
                held_over = Some(next);
                break;
            }
            batch.push(next);
        }
        let records = batch.iter().map(|queued| queued.record.clone()).collect();
        // All of a session's records are one vault's.
        let lease = session.lease().map(|lease| lease.to_unverified());
        let request = Request::KeepRecords { records, lease };
        let answer = session.peer().ask(steward, request, RECORDS_TIMEOUT).await;
        let outcomes: Vec<Option<Result<(), Refusal>>> = match answer {
            Ok(Response::Kept(outcomes)) => outcomes.into_iter().map(Some).collect(),
            Ok(Response::Refused(refusal)) => vec![Some(Err(refusal)); batch.len()],
            Ok(_) | Err(_) => Vec::new(),
        };
        let mut outcomes = outcomes.into_iter();
        for queued in batch {
            let _ = queued.outcome.send(outcomes.next().flatten());
        }
    }
}
