//! Announcing: tells the stewards of all shards that are held here of them, a share in each round, names first. Those
//! who did not know are sent the manifest, which lies with each shard, and a claim: so a record that all its stewards
//! lost comes back from any holder, and so does one on a node that lost its disk.
//!
//! Who keeps a record that is new to it keeps it only if k of its shards prove themselves within `[audit] prove`, far
//! less than the time in which all is announced. So a shard whose stewards lack its record is announced again and again
//! for as long as all others take to have their turn: once enough of them had it, all of their claims come together. What
//! does not come back in that time is left alone for several times as long.
//!
//! A claim that is known is not made anew: the newest claim is the one that stays when a shard is held twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use commonhold_policy::sweep::renews;
use commonhold_protocol::{
    Claim, ClaimLeaf, Drop, Manifest, NodeId, Record, SegmentId, ShardIndex, Unverified, VaultId,
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
/// The most shards that are: to find their stewards is a walk through the network each time. Others wait for their turn.
const REPEATED_MAX: usize = 2048;
/// Stewards that lacked a shard for as long as all are announced once hear of it only in its turn, for so many times as
/// long: what too few others hold never comes back.
const LEFT_ALONE: u32 = 7;
/// Who announces less often than that announces nothing.
const EVERY_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

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
    /// Shards whose records stewards lacked, [`REPEATED_MAX`] at most.
    lacked: BTreeMap<ClaimLeaf, Lacked>,
}

/// A shard whose record stewards lacked.
#[derive(Debug, Clone, Copy)]
struct Lacked {
    held: Held,
    /// When they said so first.
    since: Instant,
    /// Since when they have known it. They forget it again if it does not prove itself.
    known_since: Option<Instant>,
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
        Self { colleagues, store, every: every.min(EVERY_MAX), prove, figures, lacked: BTreeMap::new() }
    }

    /// Works until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let round = (self.every / ROUNDS_MIN).clamp(ROUND_MIN, ROUND_MAX);
        let repeat = self.repeat_every();
        let share = round.as_secs_f64() / self.every.as_secs_f64().max(f64::MIN_POSITIVE);
        // From anywhere: a node that is switched off each night would announce the same first ones each day.
        let mut after = Some(ClaimLeaf { segment: SegmentId::from_bytes(rand::random()), index: ShardIndex(0) });
        let mut began: Option<Instant> = None;
        let (mut next_round, mut next_repeat) = (Instant::now() + round, Instant::now() + repeat);
        while stop.run_until_cancelled(tokio::time::sleep_until(next_round.min(next_repeat))).await.is_some() {
            let now = Instant::now();
            if now >= next_round {
                if after.is_none() {
                    began = Some(now);
                }
                let Some(last) = stop.run_until_cancelled(self.round(after, share)).await else { return };
                after = last;
                // Few shards are through in no time; they are announced no more often for that.
                let rest = began.filter(|_| after.is_none()).map(|began| self.every.saturating_sub(began.elapsed()));
                next_round = Instant::now() + rest.unwrap_or_default().max(round);
            }
            if now >= next_repeat {
                if stop.run_until_cancelled(self.repeat()).await.is_none() {
                    return;
                }
                next_repeat = Instant::now() + repeat;
            }
        }
    }

    fn repeat_every(&self) -> Duration {
        (self.prove / REPEATS).clamp(ROUND_MIN, ROUND_MAX)
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
        let (every, proven) = (self.every, self.prove.saturating_add(self.repeat_every()));
        self.lacked.retain(|_, lacked| {
            let is_kept = lacked.known_since.is_some_and(|known_since| known_since.elapsed() > proven);
            !is_kept && lacked.since.elapsed() <= every.saturating_mul(1 + LEFT_ALONE)
        });
        let repeated = self.lacked.values().filter(|lacked| lacked.since.elapsed() <= every);
        let repeated: Vec<Held> = repeated.map(|lacked| lacked.held).collect();
        let (store, steward) = (self.store.clone(), self.colleagues.own().steward.clone());
        let asked = repeated.clone();
        let still_held = tokio::task::spawn_blocking(move || {
            let held = asked.into_iter().filter(|held| store.holds(&held.leaf).unwrap_or(false));
            let held = held.filter(|held| is_wanted(&steward, held));
            held.map(|held| (held.leaf, held)).collect::<BTreeMap<ClaimLeaf, Held>>()
        });
        let Ok(held) = still_held.await else { return };
        for gone in repeated.iter().filter(|repeated| !held.contains_key(&repeated.leaf)) {
            self.lacked.remove(&gone.leaf);
        }
        if !held.is_empty() {
            self.announce(held).await;
        }
    }

    /// Remembers what most stewards lack, and since when they know it.
    fn note(&mut self, heard: &BTreeMap<ClaimLeaf, Heard>, by_leaf: &BTreeMap<ClaimLeaf, Held>) {
        let (now, every) = (Instant::now(), self.every);
        for (leaf, heard) in heard.iter().filter(|(_, heard)| heard.answered > 0) {
            let (is_lacked, Some(held)) = (renews(heard.known, heard.answered), by_leaf.get(leaf)) else { continue };
            if let Some(lacked) = self.lacked.get_mut(leaf) {
                lacked.known_since = if is_lacked { None } else { lacked.known_since.or(Some(now)) };
            }
            if !is_lacked || self.lacked.contains_key(leaf) {
                continue;
            }
            if self.lacked.len() >= REPEATED_MAX {
                self.lacked.retain(|_, lacked| lacked.since.elapsed() <= every);
            }
            if self.lacked.len() < REPEATED_MAX {
                self.lacked.insert(*leaf, Lacked { held: *held, since: now, known_since: None });
            }
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
        self.note(&heard, &by_leaf);
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
        let (store, steward) = (self.store.clone(), self.colleagues.own().steward.clone());
        let read = tokio::task::spawn_blocking(move || {
            let told = |leaf: &ClaimLeaf| {
                let manifest = store.manifest(leaf.segment, leaf.index).ok()?;
                // Stewards that did not hear of an undrop would drop what comes back once more.
                let undrop = steward.newest_drop(&leaf.segment).ok()?.map(|undrop| undrop.to_unverified());
                Some((leaf.segment, (manifest, undrop)))
            };
            wanted
                .iter()
                .filter_map(told)
                .collect::<BTreeMap<SegmentId, (Unverified<Manifest>, Option<Unverified<Drop>>)>>()
        });
        let Ok(manifests) = read.await else { return };
        let told = lacking.into_iter().map(async |(node, leaves)| {
            let mut by_segment: BTreeMap<SegmentId, (BTreeSet<VaultId>, Record)> = BTreeMap::new();
            for leaf in leaves {
                let (Some(claim), Some((manifest, undrop)), Some(held)) =
                    (claims.get(&leaf), manifests.get(&leaf.segment), held.get(&leaf))
                else {
                    continue;
                };
                let fresh = || {
                    let record = Record { manifest: manifest.clone(), claims: Vec::new(), drop: undrop.clone() };
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
                let dropped: Vec<SegmentId> = dropped.map(|((segment, _), _)| *segment).collect();
                let mut undrops: Vec<&Unverified<Drop>> = Vec::new();
                for undrop in dropped.iter().filter_map(|segment| manifests.get(segment)?.1.as_ref()) {
                    // One word mostly speaks of many segments.
                    if !undrops.contains(&undrop) {
                        undrops.push(undrop);
                    }
                }
                for undrop in undrops {
                    // If it is no newer than the drop, we hear of that next.
                    self.colleagues.ask(node, Request::KeepDrop { drop: undrop.clone() }).await;
                }
                self.colleagues.hear_drops(node, dropped).await;
            }
        });
        join_all(told).await;
    }
}

/// Neither was the segment dropped nor has the vault's lease ended, as far as is known here.
fn is_wanted(steward: &Steward, held: &Held) -> bool {
    !steward.is_dropped(&held.leaf.segment).unwrap_or(true) && !steward.has_ended(&held.vault)
}
