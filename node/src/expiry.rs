//! Vaults whose lease has run out: their stewards, and those of their segments, are asked for a newer one, and what the
//! node has of them goes to the trash only when all that answer know none.
//!
//! What is believed is decided by [`commonhold_policy::expiry`]. A vault is judged twice, with words of its own each
//! time: when its things go to the trash, and again when the time in the trash is over, before their space is given
//! back. In between they are served as ever, and a newer lease, whoever brings it, ends it. An ended lease is told to
//! nobody unasked (`leases.rs`): a steward that had lost its disk would only hand our own word back to us.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::{
    Domain,
    expiry::{self, Asked, ClockDoubt, Rules, SEGMENTS_MIN, Word},
    stewards,
};
use commonhold_protocol::{
    ClaimLeaf, Lease, NodeId, SegmentId, ShardIndex, Timestamp, Unverified, VaultId, Verified,
    ask::{Request, Response},
};
use commonhold_storage_engine::store::ShardStore;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::kept::Kept;
#[cfg(any(test, feature = "fuzzing"))]
pub use self::kept::ended_of_any_bytes;
use crate::{neighbours::Neighbours, steward::Steward};

/// Between two rounds; shorter where the times are.
const ROUND_MAX: Duration = Duration::from_secs(3600);
const ROUND_MIN: Duration = Duration::from_millis(250);
/// Until the first.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(300);
/// Vaults judged in one round: each is some seventy questions.
const JUDGED_MAX: usize = 16;
/// A vault that cannot be judged, since too few answer, is tried again after twice as long each time, up to so many
/// rounds.
const ROUNDS_BETWEEN_MAX: u32 = 24;
/// Of the uptime that a node needs before it lets anything go, at most one part in so many is lost when it is killed.
const UPTIME_PARTS_WRITTEN: u64 = 24;
/// How long a steward may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Segments of a vault whose stewards may be asked: more than are needed, since some have nobody left to speak.
const SEGMENTS_ASKED_MAX: usize = 4 * SEGMENTS_MIN;

/// Who can be asked for leases; a network, or what a test puts in its place.
pub(crate) trait Witnesses: Send + Sync + 'static {
    /// The nodes closest to a key.
    fn closest(&self, key: [u8; 32]) -> impl Future<Output = Vec<NodeId>> + Send;
    /// The lease that a node keeps of a vault; none if it does not answer or knows none.
    fn lease(&self, node: NodeId, vault: VaultId) -> impl Future<Output = Option<Unverified<Lease>>> + Send;
}

impl Witnesses for Peer {
    async fn closest(&self, key: [u8; 32]) -> Vec<NodeId> {
        let closest = Self::closest(self, key).await.unwrap_or_default();
        closest.into_iter().map(|contact| contact.node).collect()
    }

    async fn lease(&self, node: NodeId, vault: VaultId) -> Option<Unverified<Lease>> {
        match self.ask(node, Request::FetchHeads { vault }, PATIENCE).await {
            Ok(Response::Heads { lease, .. }) => lease,
            _ => None,
        }
    }
}

/// What came of ended leases, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpirySnapshot {
    /// Vaults whose lease is over, as far as is known, now.
    pub ended: u64,
    /// Those of them that are in the trash.
    pub trashed: u64,
    /// Times that stewards were asked for a vault's lease.
    pub asked: u64,
    /// Vaults whose space was given back.
    pub vaults_freed: u64,
    /// Their shards.
    pub shards_freed: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub struct ExpiryFigures {
    ended: AtomicU64,
    trashed: AtomicU64,
    asked: AtomicU64,
    vaults_freed: AtomicU64,
    shards_freed: AtomicU64,
}

impl ExpiryFigures {
    /// As it stands.
    pub fn snapshot(&self) -> ExpirySnapshot {
        ExpirySnapshot {
            ended: self.ended.load(Relaxed),
            trashed: self.trashed.load(Relaxed),
            asked: self.asked.load(Relaxed),
            vaults_freed: self.vaults_freed.load(Relaxed),
            shards_freed: self.shards_freed.load(Relaxed),
        }
    }
}

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) rules: Rules,
    /// In the trash.
    pub(crate) trash: Duration,
    /// How long a node counts as there after it was seen last.
    pub(crate) present: Duration,
}

impl Times {
    fn round(&self) -> Duration {
        (Duration::from_millis(self.rules.grace_ms).min(self.trash) / 4).clamp(ROUND_MIN, ROUND_MAX)
    }
}

/// What is known of a vault whose lease is over.
#[derive(Debug, Default)]
struct Case {
    words: Vec<Word>,
    /// By a clock that nobody doubted.
    trashed_at: Option<Timestamp>,
    /// Rounds to wait before the next try, and rounds waited between the last two.
    wait: u32,
    waited: u32,
}

/// Watches over ended leases.
pub(crate) struct ExpiryWatch<W> {
    pub(crate) witnesses: W,
    pub(crate) store: Arc<ShardStore>,
    pub(crate) steward: Arc<Steward>,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) times: Times,
    pub(crate) figures: Arc<ExpiryFigures>,
    cases: BTreeMap<VaultId, Case>,
    /// The file of what is remembered over a restart, and what it says.
    path: PathBuf,
    written: Kept,
    /// It is known how much of the uptime that it says counts.
    uptime_is_known: bool,
}

impl<W: Witnesses> ExpiryWatch<W> {
    /// Takes up what the file at `path` says of the last run, if there is one.
    pub(crate) fn new(
        witnesses: W,
        store: Arc<ShardStore>,
        steward: Arc<Steward>,
        neighbours: Arc<Neighbours>,
        times: Times,
        figures: Arc<ExpiryFigures>,
        path: PathBuf,
    ) -> Self {
        let written = kept::read(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "what is known of ended leases is begun anew");
            Kept::default()
        });
        let trashed = written.trashed.iter();
        let case = |(vault, at): (&VaultId, &Timestamp)| (*vault, Case { trashed_at: Some(*at), ..Case::default() });
        let cases = trashed.map(case).collect();
        let uptime_is_known = false;
        Self { witnesses, store, steward, neighbours, times, figures, cases, path, written, uptime_is_known }
    }

    /// Works until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let round = self.times.round();
        let mut wait = round.min(FIRST_ROUND_MAX);
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = round;
            if stop.run_until_cancelled(self.round()).await.is_none() {
                break;
            }
            self.write_down(self.times.rules.uptime_ms_min / UPTIME_PARTS_WRITTEN).await;
        }
        // However short this run was, the next is not to think that the node was away all the time.
        self.doubt();
        self.write_down(0).await;
    }

    /// Whether there is reason to doubt our clock. Once there is none, the uptime of earlier runs counts: at the start the
    /// clock may still be what it was when the node was switched off.
    fn doubt(&mut self) -> Option<ClockDoubt> {
        let (clock, rules) = (self.steward.clock().clone(), self.times.rules);
        let domains = self.neighbours.domains(self.times.present);
        let doubt = clock.doubt(&rules, domains);
        if self.uptime_is_known || doubt.is_some_and(ClockDoubt::is_of_the_time) {
            return doubt;
        }
        let started_at = Timestamp(clock.now().0.saturating_sub(clock.uptime_ms_in_all()));
        self.written.uptime_ms =
            expiry::uptime_ms_that_counts(&rules, self.written.uptime_ms, self.written.at, started_at);
        clock.was_up_for(self.written.uptime_ms);
        self.uptime_is_known = true;
        clock.doubt(&rules, domains)
    }

    /// Writes the file if it lacks something, or at least so much of our uptime.
    async fn write_down(&mut self, uptime_ms: u64) {
        if !self.uptime_is_known {
            return;
        }
        let clock = self.steward.clock();
        let trashed = self.cases.iter().filter_map(|(vault, case)| Some((*vault, case.trashed_at?))).collect();
        let kept = Kept { uptime_ms: clock.uptime_ms_in_all(), at: clock.now(), trashed };
        if kept.trashed == self.written.trashed && kept.uptime_ms.saturating_sub(self.written.uptime_ms) < uptime_ms {
            return;
        }
        let (path, writes) = (self.path.clone(), kept.clone());
        match tokio::task::spawn_blocking(move || kept::write(&path, &writes)).await {
            Ok(Ok(())) => self.written = kept,
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %self.path.display(), "what is known of ended leases cannot be kept");
            }
            // A panic in there is logged by the runtime.
            Err(_) => {}
        }
    }

    /// Looks at all leases once.
    pub(crate) async fn round(&mut self) {
        let doubt = self.doubt();
        if let Some(ClockDoubt::Off { off_ms }) = doubt {
            tracing::warn!(off_ms, "our clock is far from that of the other nodes; nothing is let go for its age");
        }
        if doubt.is_some_and(ClockDoubt::is_of_the_time) {
            // Nobody can say now what has ended. What is in the trash stays there.
            self.figures.ended.store(0, Relaxed);
            self.steward.set_ended(BTreeSet::new());
            return;
        }
        // What has ended is refused from the start, and dropped when we have been up for long.
        let ended = self.ended().await;
        let vaults: BTreeSet<VaultId> = ended.iter().map(|lease| lease.vault).collect();
        self.cases.retain(|vault, _| vaults.contains(vault));
        self.figures.ended.store(vaults.len() as u64, Relaxed);
        self.steward.set_ended(vaults);
        // In the first minutes few others are known, and whoever judges by the word of all of them judges by that of few.
        if doubt.is_none() && self.steward.clock().uptime() >= self.times.round() {
            let mut due: Vec<&Verified<Lease>> = Vec::new();
            for lease in &ended {
                if due.len() < JUDGED_MAX && self.has_something(&lease.vault) && self.is_due(&lease.vault) {
                    due.push(lease);
                }
            }
            let mut segments = self.segments_of(due.iter().map(|lease| lease.vault).collect()).await;
            for lease in due {
                if let Some(segments) = segments.as_mut().and_then(|segments| segments.remove(&lease.vault)) {
                    self.consider(lease, segments.into_iter().collect()).await;
                }
            }
        }
        let trashed = self.cases.values().filter(|case| case.trashed_at.is_some()).count();
        self.figures.trashed.store(trashed as u64, Relaxed);
    }

    async fn ended(&self) -> Vec<Verified<Lease>> {
        let (steward, grace_ms) = (self.steward.clone(), self.times.rules.grace_ms);
        let ended = tokio::task::spawn_blocking(move || steward.ended_leases(grace_ms)).await;
        match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the leases cannot be gone through");
                Vec::new()
            }
            // A panic in there is logged by the runtime.
            Err(_) => Vec::new(),
        }
    }

    /// Whether a vault is to be judged in this round.
    fn is_due(&mut self, vault: &VaultId) -> bool {
        let case = self.cases.entry(*vault).or_default();
        let waits = case.wait > 0;
        case.wait = case.wait.saturating_sub(1);
        let now = self.steward.clock().now();
        let in_trash = case.trashed_at.is_some_and(|at| u128::from(now.ms_since(at)) < self.times.trash.as_millis());
        !waits && !in_trash
    }

    /// Whether anything is held or kept of a vault.
    fn has_something(&self, vault: &VaultId) -> bool {
        self.store.vault_bytes(vault) > 0 || self.steward.keeps_records_of(vault)
    }

    /// Some segments of each of these vaults; none if they cannot be listed.
    async fn segments_of(&self, vaults: BTreeSet<VaultId>) -> Option<BTreeMap<VaultId, BTreeSet<SegmentId>>> {
        if vaults.is_empty() {
            return None;
        }
        let (store, steward) = (self.store.clone(), self.steward.clone());
        match tokio::task::spawn_blocking(move || segments_of(&store, &steward, &vaults)).await {
            Ok(Ok(segments)) => Some(segments),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the segments of vaults cannot be listed");
                None
            }
            // A panic in there is logged by the runtime.
            Err(_) => None,
        }
    }

    /// Judges a vault whose newest known lease is over, with the word of stewards of these segments.
    async fn consider(&mut self, newest: &Verified<Lease>, segments: Vec<SegmentId>) {
        let vault = newest.vault;
        let others = self.neighbours.stewards(self.times.present).len();
        let enough = segments.len().min(others);
        self.figures.asked.fetch_add(1, Relaxed);
        let mut words = std::mem::take(&mut self.cases.entry(vault).or_default().words);
        let judge = |steward: &Steward, words: &[Word]| {
            expiry::judge(&self.times.rules, steward.clock().now(), Some(newest), words, enough)
        };
        let mut segments = segments.into_iter();
        let verdict = loop {
            let (asked, key) = match judge(&self.steward, &words) {
                expiry::Expiry::Ask { vault: true, .. } if !words.iter().any(|word| word.asked == Asked::Vault) => {
                    (Asked::Vault, *vault.as_bytes())
                }
                expiry::Expiry::Ask { .. } => match segments.next() {
                    Some(segment) => (Asked::Segment(segment), *segment.as_bytes()),
                    None => break None,
                },
                verdict => break Some(verdict),
            };
            let heard = self.ask(vault, asked, key).await;
            let nobody_speaks = asked == Asked::Vault && heard.is_empty();
            words.extend(heard);
            if nobody_speaks {
                break None;
            }
        };
        let now = self.steward.clock().now();
        let case = self.cases.entry(vault).or_default();
        match verdict {
            // The newer lease is kept by now: the vault is not among the ended any more.
            Some(expiry::Expiry::Keep | expiry::Expiry::Renewed) => {
                self.cases.remove(&vault);
            }
            Some(expiry::Expiry::Over) if case.trashed_at.is_none() => {
                tracing::info!(%vault, "a vault's lease has run out; what is held of it goes to the trash");
                *case = Case { trashed_at: Some(now), ..Case::default() };
            }
            Some(expiry::Expiry::Over) => {
                self.cases.remove(&vault);
                self.free(vault).await;
            }
            Some(expiry::Expiry::Ask { .. }) | None => {
                case.waited = (case.waited * 2).clamp(1, ROUNDS_BETWEEN_MAX);
                case.wait = case.waited;
                case.words = words;
                tracing::debug!(%vault, "too few stewards gave their word on an ended lease; all of it is kept");
            }
        }
    }

    /// Asks the stewards of one key for the vault's lease. One that is newer than ours is kept on the way.
    async fn ask(&self, vault: VaultId, asked: Asked, key: [u8; 32]) -> Vec<Word> {
        let own = self.neighbours.own().0;
        let closest = self.witnesses.closest(key).await.into_iter().filter(|node| *node != own);
        let candidates: Vec<(NodeId, Domain)> = closest.map(|node| (node, self.neighbours.domain(node))).collect();
        let words = stewards::choose(&key, &candidates).into_iter().map(|node| async move {
            let lease = self.witnesses.lease(node, vault).await?;
            let (steward, sender, clock) = (self.steward.clone(), self.neighbours.sender(node), self.steward.clock());
            let at = clock.now();
            let heard = lease.clone();
            let lease = tokio::task::spawn_blocking(move || {
                steward.keep_lease_beside(&sender, Some(heard));
                steward.verifier().verify(lease).ok()
            });
            let lease = lease.await.ok()??;
            (lease.vault == vault).then(|| Word { steward: node, asked, at, lease: (*lease).clone() })
        });
        join_all(words).await.into_iter().flatten().collect()
    }

    /// Gives back what is held and kept of a vault.
    async fn free(&self, vault: VaultId) {
        let (store, steward) = (self.store.clone(), self.steward.clone());
        let freed = tokio::task::spawn_blocking(move || {
            // Whoever renewed it while it was judged has been heard.
            if !steward.has_ended(&vault) {
                return None;
            }
            let shards = store.remove_vault(&vault).map_err(|error| error.to_string());
            let records = steward.forget_vault(&vault).map_err(|error| error.to_string());
            Some((shards, records))
        });
        match freed.await {
            Ok(Some((Ok(shards), Ok(records)))) => {
                self.figures.vaults_freed.fetch_add(1, Relaxed);
                self.figures.shards_freed.fetch_add(shards as u64, Relaxed);
                tracing::info!(%vault, shards, records, "what was held of a vault whose lease had run out is gone");
            }
            Ok(Some((shards, records))) => {
                let error = shards.err().or(records.err()).unwrap_or_default();
                tracing::warn!(%vault, error, "the space of an ended vault cannot be given back; later again");
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// Some segments of each of these vaults: those held, then those whose records are kept, from a random place on, so that
/// another try asks other stewards. One way through all shards for all vaults.
fn segments_of(
    store: &ShardStore,
    steward: &Steward,
    vaults: &BTreeSet<VaultId>,
) -> Result<BTreeMap<VaultId, BTreeSet<SegmentId>>, SegmentsError> {
    let mut found: BTreeMap<VaultId, BTreeSet<SegmentId>> =
        vaults.iter().map(|vault| (*vault, BTreeSet::new())).collect();
    // Those that have shards here and not enough of them yet.
    let mut open: BTreeSet<VaultId> = vaults.iter().filter(|vault| store.vault_bytes(vault) > 0).copied().collect();
    let start = ClaimLeaf { segment: SegmentId::from_bytes(rand::random()), index: ShardIndex(0) };
    for (after, until) in [(Some(start), None), (None, Some(start.segment))] {
        for held in store.held_after(after.as_ref()) {
            let held = held?;
            if open.is_empty() || until.is_some_and(|until| held.leaf.segment > until) {
                break;
            }
            if let Some(found) = found.get_mut(&held.vault).filter(|_| open.contains(&held.vault)) {
                found.insert(held.leaf.segment);
                if found.len() >= SEGMENTS_ASKED_MAX {
                    open.remove(&held.vault);
                }
            }
        }
    }
    for (vault, found) in found.iter_mut().filter(|(_, found)| found.len() < SEGMENTS_MIN) {
        found.extend(steward.segments_of(vault, SEGMENTS_ASKED_MAX)?);
    }
    Ok(found)
}

#[derive(Debug, thiserror::Error)]
enum SegmentsError {
    #[error(transparent)]
    Store(#[from] commonhold_storage_engine::store::StoreError),
    #[error(transparent)]
    Records(#[from] crate::records::RecordsError),
}

#[cfg(test)]
mod tests;
