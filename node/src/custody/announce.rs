//! Announcing: tells the stewards of all shards that are held here of them, a share in each round, names first. Those
//! who did not know are sent the manifest, which lies with each shard, and a claim: so a record that all its stewards
//! lost comes back from any holder, and so does one on a node that lost its disk.
//!
//! Who keeps a record that is new to it keeps it only if k of its shards prove themselves within `[audit] prove`, far
//! less than the time in which all is announced. So a shard whose stewards lack its record is announced again and again in
//! that time: once enough of the others' holders have had their turn too, all of their claims come together.
//!
//! A claim that is known is not made anew: the newest claim is the one that stays when a shard is held twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use commonhold_policy::sweep::renews;
use commonhold_protocol::{
    Claim, ClaimLeaf, Manifest, NodeId, Record, SegmentId, Unverified, VaultId,
    ask::{ASK_IDS_MAX, ASK_RECORDS_MAX, ClaimStanding, Refusal, Request, Response},
};
use commonhold_storage_engine::store::{Held, ShardStore};
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{CustodyFigures, colleagues::Colleagues, surplus};
use crate::steward::Steward;

/// Rounds in which all is announced once, at least.
const ROUNDS_MIN: u32 = 24;
/// Between two rounds.
const ROUND_MAX: Duration = Duration::from_secs(3600);
const ROUND_MIN: Duration = Duration::from_millis(250);
/// The most shards of one round.
const ROUND_SHARDS_MAX: usize = 8192;
/// How often a shard is announced, in the time that a new record has, while stewards lack it.
const REPEATS: u32 = 4;
/// The most shards that are; others wait for their turn.
const REPEATED_MAX: usize = 8192;

/// What stewards answered about one shard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Its stewards, whether they answered or not.
    pub(super) stewards: BTreeSet<NodeId>,
    /// How many answered, and how many of them know the claim.
    answered: usize,
    known: usize,
    /// Those who call our copy surplus, and who keeps the shard by their word.
    pub(super) surplus: Vec<(NodeId, NodeId)>,
}

/// The task.
pub(crate) struct Announcer {
    colleagues: Colleagues,
    store: Arc<ShardStore>,
    /// All is announced once in this time.
    every: Duration,
    /// The time in which a new record has to prove itself to its stewards.
    prove: Duration,
    figures: Arc<CustodyFigures>,
    /// Shards whose records stewards lacked, and until when they are announced again and again: by then all other holders
    /// have had their turn.
    lacked: BTreeMap<ClaimLeaf, (Held, Instant)>,
}

impl Announcer {
    /// Announces what lies in `store`: all of it once in `every`, and while stewards lack it several times in `prove`, the
    /// time in which a record that is new to them has to prove itself.
    pub(crate) fn new(
        colleagues: Colleagues,
        store: Arc<ShardStore>,
        every: Duration,
        prove: Duration,
        figures: Arc<CustodyFigures>,
    ) -> Self {
        Self { colleagues, store, every, prove, figures, lacked: BTreeMap::new() }
    }

    /// Works until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let round = (self.every / ROUNDS_MIN).clamp(ROUND_MIN, ROUND_MAX);
        let repeat = (self.prove / REPEATS).clamp(ROUND_MIN, ROUND_MAX);
        let share = round.as_secs_f64() / self.every.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut after: Option<ClaimLeaf> = None;
        let mut began = Instant::now();
        let (mut next_round, mut next_repeat) = (began + round, began + repeat);
        while stop.run_until_cancelled(tokio::time::sleep_until(next_round.min(next_repeat))).await.is_some() {
            let now = Instant::now();
            if now >= next_round {
                if after.is_none() {
                    began = now;
                }
                let Some(last) = stop.run_until_cancelled(self.round(after, share)).await else { return };
                after = last;
                next_round = Instant::now() + round;
                if after.is_none() {
                    // Few shards are through in no time; they are announced no more often for that.
                    next_round = next_round.max(began + self.every);
                }
            }
            if now >= next_repeat {
                if stop.run_until_cancelled(self.repeat()).await.is_none() {
                    return;
                }
                next_repeat = Instant::now() + repeat;
            }
        }
    }

    /// Announces a share of all shards, from the one behind `after` on; gives the last one, none at the end of all.
    async fn round(&mut self, after: Option<ClaimLeaf>, share: f64) -> Option<ClaimLeaf> {
        let (store, steward) = (self.store.clone(), self.colleagues.own().steward.clone());
        let listed = tokio::task::spawn_blocking(move || {
            let count_max = ((store.used().shards as f64 * share).ceil() as usize).clamp(1, ROUND_SHARDS_MAX);
            let mut held: Vec<Held> = store.held_after(after.as_ref()).take(count_max).collect::<Result<_, _>>()?;
            let last = held.last().map(|held| held.leaf).filter(|_| held.len() == count_max);
            held.retain(|held| is_wanted(&steward, held));
            Ok::<_, commonhold_storage_engine::store::StoreError>((held, last))
        });
        let (held, last) = match listed.await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the shards cannot be gone through");
                return None;
            }
            // A panic in there is logged by the runtime.
            Err(_) => return None,
        };
        self.announce(held.into_iter().map(|held| (held.leaf, held)).collect()).await;
        last
    }

    /// Announces what stewards lacked once more.
    async fn repeat(&mut self) {
        let now = Instant::now();
        self.lacked.retain(|_, (_, until)| now < *until);
        let lacked: Vec<Held> = self.lacked.values().map(|(held, _)| *held).collect();
        let (store, steward) = (self.store.clone(), self.colleagues.own().steward.clone());
        let still_held = tokio::task::spawn_blocking(move || {
            let held = lacked.into_iter().filter(|held| store.holds(&held.leaf).unwrap_or(false));
            let held = held.filter(|held| is_wanted(&steward, held));
            held.map(|held| (held.leaf, held)).collect::<BTreeMap<ClaimLeaf, Held>>()
        });
        let Ok(held) = still_held.await else { return };
        self.lacked.retain(|leaf, _| held.contains_key(leaf));
        if !held.is_empty() {
            self.announce(held).await;
        }
    }

    /// Tells their stewards of these, and does what follows from the answers.
    async fn announce(&mut self, by_leaf: BTreeMap<ClaimLeaf, Held>) {
        let by_steward = self.colleagues.by_steward(by_leaf.keys().copied()).await;
        let asked = by_steward.into_iter().map(async |(node, leaves)| {
            let standings = self.ask(node, &leaves).await;
            (node, leaves, standings)
        });
        let answered = join_all(asked).await;
        let mut heard: BTreeMap<ClaimLeaf, Heard> = BTreeMap::new();
        let mut lacking: BTreeMap<NodeId, Vec<ClaimLeaf>> = BTreeMap::new();
        for (node, leaves, standings) in answered {
            for leaf in &leaves {
                heard.entry(*leaf).or_default().stewards.insert(node);
            }
            for (leaf, standing) in leaves.into_iter().zip(standings) {
                let heard = heard.entry(leaf).or_default();
                heard.answered += 1;
                heard.known += usize::from(standing != ClaimStanding::Lacking);
                match standing {
                    ClaimStanding::Known => {}
                    ClaimStanding::Lacking => lacking.entry(node).or_default().push(leaf),
                    ClaimStanding::Surplus { keeper } => {
                        heard.surplus.push((node, keeper));
                    }
                }
            }
        }
        self.figures.announced.fetch_add(by_leaf.len() as u64, Relaxed);
        for leaves in lacking.values_mut() {
            leaves.retain(|leaf| heard.get(leaf).is_some_and(|heard| renews(heard.known, heard.answered)));
        }
        let until = Instant::now() + self.every;
        for leaf in lacking.values().flatten() {
            if let Some(held) = by_leaf.get(leaf)
                && self.lacked.len() < REPEATED_MAX
            {
                self.lacked.insert(*leaf, (*held, until));
            }
        }
        self.renew(lacking, &by_leaf).await;
        surplus::give_up(&self.colleagues, &self.store, &self.figures, heard, &by_leaf).await;
    }

    /// What a steward knows of these; less than was asked if it does not answer.
    async fn ask(&self, node: NodeId, leaves: &[ClaimLeaf]) -> Vec<ClaimStanding> {
        let mut standings = Vec::with_capacity(leaves.len());
        for part in leaves.chunks(ASK_IDS_MAX) {
            match self.colleagues.ask(node, Request::Announce { shards: part.to_vec() }).await {
                Some(Response::Standings(part_standings)) if part_standings.len() == part.len() => {
                    standings.extend(part_standings);
                }
                _ => break,
            }
        }
        standings
    }

    /// Sends stewards what they lack.
    async fn renew(&self, lacking: BTreeMap<NodeId, Vec<ClaimLeaf>>, held: &BTreeMap<ClaimLeaf, Held>) {
        let wanted: BTreeSet<ClaimLeaf> = lacking.values().flatten().copied().collect();
        if wanted.is_empty() {
            return;
        }
        let holder = self.colleagues.own().holder.clone();
        let claims = join_all(wanted.iter().map(|leaf| holder.claim(*leaf))).await;
        let claims: BTreeMap<ClaimLeaf, Claim> =
            wanted.iter().copied().zip(claims).filter_map(|(leaf, claim)| Some((leaf, claim?))).collect();
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let manifest = |leaf: &ClaimLeaf| Some((leaf.segment, store.manifest(leaf.segment, leaf.index).ok()?));
            wanted.iter().filter_map(manifest).collect::<BTreeMap<SegmentId, Unverified<Manifest>>>()
        });
        let Ok(manifests) = read.await else { return };
        let told = lacking.into_iter().map(async |(node, leaves)| {
            let mut by_segment: BTreeMap<SegmentId, (BTreeSet<VaultId>, Record)> = BTreeMap::new();
            for leaf in leaves {
                let (Some(claim), Some(manifest), Some(held)) =
                    (claims.get(&leaf), manifests.get(&leaf.segment), held.get(&leaf))
                else {
                    continue;
                };
                let fresh = || {
                    let record = Record { manifest: manifest.clone(), claims: Vec::new(), drop: None };
                    (BTreeSet::from([held.vault]), record)
                };
                by_segment.entry(leaf.segment).or_insert_with(fresh).1.claims.push(claim.clone());
            }
            let all: Vec<(SegmentId, (BTreeSet<VaultId>, Record))> = by_segment.into_iter().collect();
            for part in all.chunks(ASK_RECORDS_MAX) {
                let records: Vec<Record> = part.iter().map(|(_, (_, record))| record.clone()).collect();
                let vaults = part.iter().flat_map(|(_, (vaults, _))| vaults.iter().copied()).collect();
                let sent: usize = records.iter().map(|record| record.claims.len()).sum();
                let Some(outcomes) = self.colleagues.keep(node, records, vaults).await else { return };
                self.figures.claims_renewed.fetch_add(sent as u64, Relaxed);
                let dropped = part.iter().zip(outcomes).filter(|(_, outcome)| *outcome == Err(Refusal::Dropped));
                self.colleagues.hear_drops(node, dropped.map(|((segment, _), _)| *segment).collect()).await;
            }
        });
        join_all(told).await;
    }
}

/// Neither was the segment dropped nor has the vault's lease ended, as far as is known here.
fn is_wanted(steward: &Steward, held: &Held) -> bool {
    !steward.is_dropped(&held.leaf.segment).unwrap_or(true) && !steward.has_ended(&held.vault)
}
