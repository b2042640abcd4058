//! Handing shards on: all of them when the node is to leave (`commonhold node drain`), or what a lowered pledge has no
//! room for.
//!
//! A shard goes from here to a new holder, which compares its root; the stewards take the new claim in; only those who
//! did are told that we give ours up, and when they are more than half the bytes go. So it can end at any moment: the
//! file `drain` in the data folder says that a node is to drain, also after a restart, and whoever holds a shard by an
//! unfinished hand-over is found in the records, or announces it.

mod handover;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use commonhold_protocol::{
    ClaimLeaf, NodeId, VerifiedClaim,
    ask::{Request, Response},
};
use commonhold_storage_engine::store::{Held, ShardStore, StoreError};
use futures::{StreamExt, future::join_all, stream};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{CustodyFigures, colleagues::Colleagues};
use crate::data_dir::{self, DataDirError, sync_folder, write_atomically};

/// While it exists in the data folder, the node drains. Its text is the number of shards at the beginning.
const DRAIN_FILE: &str = "drain";
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is seen whether more than the pledge is used.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// Shards handed on at once.
const AT_ONCE: usize = 2;
/// Shards listed at once.
const PAGE: usize = 64;
/// Nodes asked for their free space in one pass.
const ASKED_MAX: usize = 64;
/// Between two passes that moved nothing, doubled each time.
const REST: Duration = Duration::from_secs(5);
const REST_DOUBLINGS_MAX: u32 = 6;
/// A pledge counts as lowered when more than this part of it is used too much: its index and records may sway by less.
const SWAY_PARTS: u64 = 64;

/// Why a shard cannot be handed on for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Hindrance {
    /// No node would take it.
    #[error("no other node has room for them and holds no other shard of the same segment")]
    NoNode,
    /// Its stewards do not answer.
    #[error("too few of their stewards answer")]
    NoStewards,
    /// It cannot be read.
    #[error("they cannot be read")]
    Unreadable,
}

/// Shards that stay for now, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Why.
    pub why: Hindrance,
    /// How many.
    pub shards: u64,
}

/// How far a drain is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// All that is held is handed on, not only what the pledge has no room for.
    pub everything: bool,
    /// Shards to be handed on, at the beginning.
    pub shards_total: u64,
    /// Those that are left, and their bytes.
    pub shards_left: u64,
    /// See above.
    pub bytes_left: u64,
    /// Nothing is left.
    pub done: bool,
    /// All that is left was tried, and stays for now; it is tried again and again.
    pub resting: bool,
    /// Why.
    pub stuck: Vec<Stuck>,
}

/// What others see of it.
#[derive(Debug, Default)]
pub struct DrainState {
    status: Mutex<Option<DrainStatus>>,
    closed: AtomicBool,
}

impl DrainState {
    /// A node that was to leave when it ended is still to leave.
    pub(crate) fn load(data_dir: &Path) -> Self {
        let closed = AtomicBool::new(data_dir.join(DRAIN_FILE).exists());
        Self { closed, ..Self::default() }
    }

    /// How far it is; none if nothing is to be handed on.
    pub fn status(&self) -> Option<DrainStatus> {
        self.lock().clone()
    }

    /// The node takes no shards: it is to leave.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<DrainStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, status: DrainStatus) {
        *self.lock() = Some(status);
    }
}

/// Lets the node whose data lies there drain from now on, whether it runs or not.
pub fn request(data_dir: &Path) -> Result<(), DataDirError> {
    let path = data_dir.join(DRAIN_FILE);
    if path.exists() {
        return Ok(());
    }
    write_atomically(&path, b"").map_err(|source| DataDirError::Io { path, source })
}

/// Takes that back; what was handed on stays where it is.
pub fn cancel(data_dir: &Path) -> Result<(), DataDirError> {
    let path = data_dir.join(DRAIN_FILE);
    let removed = std::fs::remove_file(&path).and_then(|()| sync_folder(data_dir));
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(DataDirError::Io { path, source }),
        _ => Ok(()),
    }
}

/// What is to be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Everything,
    /// Until no more than the pledge is used.
    Surplus,
}

/// What became of one shard.
enum Outcome {
    /// It is somewhere else, and not here any more.
    Moved,
    /// It is nobody's wish any more that it be kept.
    Unwanted,
    Stays(Hindrance),
}

/// The task.
pub(crate) struct Drain {
    pub(crate) colleagues: Colleagues,
    pub(crate) store: Arc<ShardStore>,
    pub(crate) state: Arc<DrainState>,
    pub(crate) figures: Arc<CustodyFigures>,
    pub(crate) data_dir: PathBuf,
    pub(crate) pledge_bytes: u64,
    /// How long a node counts as there after it was seen last.
    pub(crate) present: Duration,
    /// What others would take, as they said, less what they were given since.
    pub(crate) offers: Mutex<BTreeMap<NodeId, u64>>,
    /// Shards that were sent and that too few stewards know of yet.
    pub(crate) sent: Mutex<BTreeMap<ClaimLeaf, VerifiedClaim>>,
}

impl Drain {
    /// Works until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut idle, mut measured_at) = (0, None::<Instant>);
        let mut rest = Duration::ZERO;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let going_on = self.state.lock().as_ref().is_some_and(|status| !status.everything);
            let measures = going_on || measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
            if measures {
                measured_at = Some(Instant::now());
            }
            let Some(goal) = self.goal(measures).await else {
                self.state.closed.store(false, Relaxed);
                *self.state.lock() = None;
                (idle, rest) = (0, Duration::ZERO);
                continue;
            };
            self.state.closed.store(goal == Goal::Everything, Relaxed);
            if !rest.is_zero() {
                rest = rest.saturating_sub(LOOK_EVERY);
                continue;
            }
            let Some(moved) = stop.run_until_cancelled(self.pass(goal)).await else { return };
            if moved {
                idle = 0;
            } else {
                rest = REST * 2_u32.pow(idle);
                idle = (idle + 1).min(REST_DOUBLINGS_MAX);
            }
        }
    }

    async fn goal(&self, measures: bool) -> Option<Goal> {
        if self.data_dir.join(DRAIN_FILE).exists() {
            return Some(Goal::Everything);
        }
        if !measures {
            return None;
        }
        let going_on = self.state.lock().as_ref().is_some_and(|status| !status.done);
        let excess = self.excess().await;
        (excess > if going_on { 0 } else { self.pledge_bytes / SWAY_PARTS }).then_some(Goal::Surplus)
    }

    /// Bytes used beyond the pledge.
    async fn excess(&self) -> u64 {
        let (store, steward, pledge) = (self.store.clone(), self.colleagues.own().steward.clone(), self.pledge_bytes);
        let used = tokio::task::spawn_blocking(move || {
            let used = || store.used().disk_bytes + steward.records().used_bytes().load(Relaxed);
            // The unused part of the newest volume is no shard's.
            if used() > pledge
                && let Err(error) = store.close_volume()
            {
                tracing::warn!(%error, "a volume cannot be closed");
            }
            used().saturating_sub(pledge)
        });
        used.await.unwrap_or(0)
    }

    /// The next shards that are wanted, and the last that was looked at.
    async fn page(&self, after: Option<ClaimLeaf>) -> Option<(Vec<Held>, Option<ClaimLeaf>)> {
        let (store, steward) = (self.store.clone(), self.colleagues.own().steward.clone());
        let listed = tokio::task::spawn_blocking(move || {
            let mut held: Vec<Held> = store.held_after(after.as_ref()).take(PAGE).collect::<Result<_, _>>()?;
            let last = held.last().map(|held| held.leaf);
            held.retain(|held| {
                !steward.is_dropped(&held.leaf.segment).unwrap_or(false) && !steward.has_ended(&held.vault)
            });
            Ok::<_, StoreError>((held, last))
        });
        match listed.await {
            Ok(Ok(listed)) => Some(listed),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the shards cannot be gone through");
                None
            }
            // A panic in there is logged by the runtime.
            Err(_) => None,
        }
    }

    /// Shards and bytes that are to be handed on.
    async fn count(&self, goal: Goal) -> (u64, u64) {
        let (mut shards, mut bytes, mut after) = (0, 0, None);
        let enough = match goal {
            Goal::Everything => u64::MAX,
            Goal::Surplus => self.excess().await,
        };
        while let Some((held, last)) = self.page(after).await {
            for held in held {
                if bytes < enough {
                    shards += 1;
                    bytes += held.bytes;
                }
            }
            if last.is_none() || bytes >= enough {
                break;
            }
            after = last;
        }
        (shards, bytes)
    }

    /// Tries each shard once; true if any could be handed on, or nothing was left to do.
    async fn pass(&mut self, goal: Goal) -> bool {
        let (shards_left, bytes_left) = self.count(goal).await;
        let everything = goal == Goal::Everything;
        let known = self.state.status().filter(|status| status.everything == everything);
        let mut status = known.unwrap_or_else(|| DrainStatus { everything, ..DrainStatus::default() });
        status.shards_total = self.total(goal, shards_left).max(status.shards_total).max(shards_left);
        (status.shards_left, status.bytes_left) = (shards_left, bytes_left);
        status.done = shards_left == 0;
        if status.done {
            (status.resting, status.stuck) = (false, Vec::new());
            self.state.set(status);
            return false;
        }
        self.state.set(status.clone());
        self.ask_around().await;
        let (mut after, mut moved) = (None, 0_u64);
        let mut stuck: BTreeMap<Hindrance, u64> = BTreeMap::new();
        'pages: while let Some((held, last)) = self.page(after).await {
            let mut with_stewards = Vec::with_capacity(held.len());
            for held in held {
                with_stewards.push((held, self.colleagues.of(&held.leaf.segment).await));
            }
            let this = &*self;
            let hand_on = |(held, stewards)| async move { (held, this.hand_on(&held, stewards).await) };
            let mut handing = stream::iter(with_stewards).map(hand_on).buffer_unordered(AT_ONCE);
            while let Some((held, outcome)) = handing.next().await {
                match outcome {
                    Outcome::Moved | Outcome::Unwanted => {
                        moved += 1;
                        status.shards_left = status.shards_left.saturating_sub(1);
                        status.bytes_left = status.bytes_left.saturating_sub(held.bytes);
                    }
                    Outcome::Stays(why) => *stuck.entry(why).or_default() += 1,
                }
                status.stuck = stuck.iter().map(|(why, shards)| Stuck { why: *why, shards: *shards }).collect();
                self.state.set(status.clone());
                if self.goal(goal == Goal::Surplus).await != Some(goal) {
                    break 'pages;
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        status.resting = moved == 0;
        status.done = status.shards_left == 0;
        tracing::info!(moved, left = status.shards_left, ?stuck, "a pass of handing on has ended");
        self.state.set(status);
        moved > 0
    }

    /// How many there were at the beginning, over restarts.
    fn total(&self, goal: Goal, left: u64) -> u64 {
        if goal == Goal::Surplus {
            return left;
        }
        let noted = data_dir::read(&self.data_dir, DRAIN_FILE).ok().flatten();
        if let Some(noted) = noted.and_then(|text| text.trim().parse().ok()) {
            return noted;
        }
        let path = self.data_dir.join(DRAIN_FILE);
        if let Err(error) = write_atomically(&path, format!("{left}\n").as_bytes()) {
            tracing::warn!(%error, "how much there is to hand on cannot be noted");
        }
        left
    }

    /// Asks nodes what they would take.
    async fn ask_around(&self) {
        let own = self.colleagues.own();
        let present = own.neighbours.present(self.present);
        let some: Vec<NodeId> = present.choose_multiple(&mut rand::rng(), ASKED_MAX).copied().collect();
        let asked = some.into_iter().map(async |node| match self.colleagues.ask(node, Request::About).await {
            Some(Response::About { free_bytes, .. }) => Some((node, free_bytes)),
            _ => None,
        });
        *self.offers() = join_all(asked).await.into_iter().flatten().collect();
    }

    fn offers(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<ClaimLeaf, VerifiedClaim>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
