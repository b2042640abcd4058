//! How the segments of a vault are, as their stewards see them.
//!
//! The stewards audit; an owner only asks them, and knows no more than they say. Nothing of this machine is needed for
//! it but the vault. What to believe when they disagree, `commonhold-policy` says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use commonhold_policy::reports::{self, Believed};
use commonhold_protocol::{
    Coding, NodeId, SegmentId,
    ask::{ASK_IDS_MAX, ASK_RECORDS_MAX, HealthReport, Request, Response},
};
use commonhold_storage_engine::tree::{
    entry::{EntryKind, FileContent},
    walk,
};
use futures::{StreamExt, TryStreamExt};

use crate::{
    error::Error,
    progress::Progress,
    report::segments_in,
    session::{Session, now},
    table::SegmentInfo,
    vault::Vault,
    vault_path::VaultPath,
};

/// Segments whose stewards are looked for at once.
const WALKS_AT_ONCE: usize = 16;
/// Questions that are under way at once, each with an answer of at most a MiB.
const ASKS_AT_ONCE: usize = 64;

/// The health of one segment. Each of its n shards is counted once, in `healthy`, `suspect` or `lost`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SegmentHealth {
    /// The segment's id, in hex.
    pub id: String,
    /// Shards that restore it.
    pub k: u8,
    /// Shards in all.
    pub n: u8,
    /// Bytes of sealed frames.
    pub length: u64,
    /// Shards that were proven in an audit, and whose holder is there.
    pub healthy: u8,
    /// Shards that are claimed, but were not audited yet, or whose holder is away.
    pub suspect: u8,
    /// Shards that are lost, or that nobody claims.
    pub lost: u8,
    /// Stewards that say so. At 0, none answers: the counts are 0 too, since nothing is known.
    pub stewards: usize,
    /// How many of these stewards count otherwise; see [`reports::believe`].
    pub disagreeing: usize,
    /// A steward rebuilds shards of it now.
    pub repairing: bool,
    /// Shards are missing, and there are no more nodes to take them.
    pub resting: bool,
    /// When a steward last rebuilt a shard of it, in milliseconds since 1970, as far as stewards remember.
    pub repaired_at_ms: Option<u64>,
    /// Who claims each shard, by index, in hex; of several, one that answers.
    pub holders: Vec<Option<String>>,
}

/// How well all segments of a vault are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outlook {
    /// How many more holders may be lost, whichever they are, and every file can still be read: healthy shards beyond k
    /// in the worst segment. None: there is no segment, one of which nothing is known, or one that has fewer than k.
    pub losses_survived: Option<u8>,
    /// Segments of which no steward says anything: all else here is without them.
    pub segments_unknown: u64,
    /// Segments that lack shards: lost, or claimed by nobody.
    pub segments_lacking: u64,
    /// Segments with fewer than k healthy shards, but with k or more if those that are suspect prove well.
    pub segments_unproven: u64,
    /// Segments with fewer than k shards that may still be there.
    pub segments_unreadable: u64,
    /// Segments that are being repaired now.
    pub segments_repairing: u64,
    /// The worst of the segments that lack shards and for which there are no more nodes; none if there are none.
    pub degraded: Option<Degraded>,
    /// When a shard was last rebuilt, in milliseconds since 1970, as far as stewards remember.
    pub repaired_at_ms: Option<u64>,
}

/// A segment that stays below n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Degraded {
    /// Shards that are there, or may be.
    pub have: u8,
    /// Shards that there should be.
    pub n: u8,
    /// How many segments there are that stay below their n.
    pub segments: u64,
}

impl Outlook {
    /// Of segments, and what is believed of each.
    fn of(segments: impl IntoIterator<Item = (Coding, Option<Believed>)>) -> Self {
        let mut outlook = Self::default();
        let (mut survived, mut worst) = (None::<u8>, None::<(u8, u8)>);
        let mut resting = 0;
        for (coding, believed) in segments {
            let Some(Believed { healthy, suspect, lost, repaired_at, repairing, resting: rests, .. }) = believed else {
                outlook.segments_unknown += 1;
                continue;
            };
            if healthy.saturating_add(suspect) < coding.k() {
                outlook.segments_unreadable += 1;
            } else if healthy < coding.k() {
                outlook.segments_unproven += 1;
            }
            let spare = healthy.saturating_sub(coding.k());
            survived = Some(survived.map_or(spare, |least| least.min(spare)));
            outlook.segments_lacking += u64::from(lost > 0);
            outlook.segments_repairing += u64::from(repairing);
            outlook.repaired_at_ms = outlook.repaired_at_ms.max(repaired_at.map(|at| at.0));
            if rests && lost > 0 {
                resting += 1;
                // Most missing; of several, the largest.
                worst = worst.max(Some((lost, coding.n())));
            }
        }
        let doubtful = outlook.segments_unknown + outlook.segments_unproven + outlook.segments_unreadable;
        outlook.losses_survived = survived.filter(|_| doubtful == 0);
        outlook.degraded = worst.map(|(lost, n)| Degraded { have: n.saturating_sub(lost), n, segments: resting });
        outlook
    }
}

/// Stewards, and the segments that each is asked about.
type Asked = BTreeMap<NodeId, Vec<SegmentId>>;

impl Vault {
    /// The health of all segments, or of those that a path needs.
    pub fn segments(&self, path: Option<&VaultPath>) -> Result<Vec<SegmentHealth>, Error> {
        let state = self.state(&Arc::default())?;
        let mut known = segments_in(&self.reader, &state.payload)?;
        if let Some(path) = path {
            let needed = self.segments_of(path)?;
            known.retain(|id, _| needed.contains(id));
        }
        let asked = self.session.block_on(stewards_of(&self.session, known.keys().copied()))?;
        let believed = self.believed(&known, &asked);
        let mut holders = self.holders(&known, &asked)?;
        let health = known.into_iter().map(|(id, info)| {
            let of = believed.get(&id);
            SegmentHealth {
                id: format!("{id:#}"),
                k: info.coding.k(),
                n: info.coding.n(),
                length: info.length,
                healthy: of.map_or(0, |of| of.healthy),
                suspect: of.map_or(0, |of| of.suspect),
                lost: of.map_or(0, |of| of.lost),
                stewards: of.map_or(0, |of| of.stewards),
                disagreeing: of.map_or(0, |of| of.disagreeing),
                repairing: of.is_some_and(|of| of.repairing),
                resting: of.is_some_and(|of| of.resting),
                repaired_at_ms: of.and_then(|of| of.repaired_at).map(|at| at.0),
                holders: holders.remove(&id).unwrap_or_default(),
            }
        });
        Ok(health.collect())
    }

    /// How well these segments are kept.
    pub(crate) fn outlook(&self, known: &BTreeMap<SegmentId, SegmentInfo>) -> Result<Outlook, Error> {
        let asked = self.session.block_on(stewards_of(&self.session, known.keys().copied()))?;
        let believed = self.believed(known, &asked);
        Ok(Outlook::of(known.iter().map(|(id, info)| (info.coding, believed.get(id).copied()))))
    }

    fn segments_of(&self, path: &VaultPath) -> Result<BTreeSet<SegmentId>, Error> {
        let state = self.state(&Arc::default())?;
        let entry = self.entry(&self.reader, &state.payload.root, path)?;
        let mut found = BTreeSet::new();
        let mut note = |chunk: &commonhold_storage_engine::chunk_ref::ChunkRef, _: walk::Part| {
            found.insert(chunk.segment);
            true
        };
        match &entry.kind {
            EntryKind::Directory(tree) => walk::directory(&self.reader, tree, &mut note)?,
            EntryKind::File(FileContent::Chunks(root)) => walk::file(&self.reader, root, &mut note)?,
            _ => {}
        }
        Ok(found)
    }

    /// What is believed of each segment that any steward says something of.
    fn believed(&self, known: &BTreeMap<SegmentId, SegmentInfo>, asked: &Asked) -> BTreeMap<SegmentId, Believed> {
        let mut reported: BTreeMap<SegmentId, Vec<HealthReport>> = BTreeMap::new();
        let request = |segments| Request::FetchHealth { segments };
        ask_in_batches(&self.session, asked, ASK_IDS_MAX, request, |segments, answer| {
            let Response::Health(reports) = answer else { return };
            for (segment, report) in segments.iter().zip(reports) {
                reported.entry(*segment).or_default().extend(report);
            }
        });
        let believe = |(id, reports): (SegmentId, Vec<HealthReport>)| {
            Some((id, reports::believe(known.get(&id)?.coding, &reports, now())?))
        };
        reported.into_iter().filter_map(believe).collect()
    }

    /// Who claims each shard, by the stewards' records.
    fn holders(
        &self,
        known: &BTreeMap<SegmentId, SegmentInfo>,
        asked: &Asked,
    ) -> Result<BTreeMap<SegmentId, Vec<Option<String>>>, Error> {
        let answering: BTreeSet<NodeId> =
            self.session.block_on(self.session.candidates())?.into_iter().map(|candidate| candidate.node).collect();
        let none = |info: &SegmentInfo| vec![None; usize::from(info.coding.n())];
        let mut holders: BTreeMap<SegmentId, Vec<Option<NodeId>>> =
            known.iter().map(|(id, info)| (*id, none(info))).collect();
        let request = |segments| Request::FetchRecords { segments };
        ask_in_batches(&self.session, asked, ASK_RECORDS_MAX, request, |_, answer| {
            let Response::Records(records) = answer else { return };
            let claims = records.into_iter().flatten().flat_map(|record| record.claims);
            for claim in claims.filter_map(|claim| claim.verify(self.network()).ok()) {
                let leaf = claim.claim.leaf;
                let slot = holders.get_mut(&leaf.segment).and_then(|of| of.get_mut(usize::from(leaf.index.0)));
                if let Some(slot) = slot.filter(|slot| slot.is_none() || answering.contains(&claim.holder)) {
                    *slot = Some(claim.holder);
                }
            }
        });
        let named = |holder: NodeId| format!("{holder:#}");
        let all = holders.into_iter().map(|(id, of)| (id, of.into_iter().map(|holder| holder.map(named)).collect()));
        Ok(all.collect())
    }
}

/// Asks each steward about its segments, so many at a time, and hands on what comes with what was asked about.
fn ask_in_batches(
    session: &Session,
    asked: &Asked,
    batch: usize,
    request: impl Fn(Vec<SegmentId>) -> Request,
    mut take: impl FnMut(&[SegmentId], Response),
) {
    let batches: Vec<(NodeId, &[SegmentId])> =
        asked.iter().flat_map(|(node, segments)| segments.chunks(batch).map(|batch| (*node, batch))).collect();
    for together in batches.chunks(ASKS_AT_ONCE) {
        let asks = together.iter().map(|(node, segments)| (*node, request(segments.to_vec()))).collect();
        let answers = session.block_on(session.ask_each(asks));
        for ((_, segments), answer) in together.iter().zip(answers) {
            if let Some(answer) = answer {
                take(segments, answer);
            }
        }
    }
}

/// The stewards of these segments, and all nodes that claim shards of them by the stewards' records.
pub(crate) fn stewards_and_claimants(
    session: &Session,
    segments: &[SegmentId],
    progress: &Progress,
) -> Result<Vec<NodeId>, Error> {
    let asked = session.wait_for(progress, stewards_of(session, segments.iter().copied()))??;
    let mut nodes: BTreeSet<NodeId> = asked.keys().copied().collect();
    let request = |segments| Request::FetchRecords { segments };
    ask_in_batches(session, &asked, ASK_RECORDS_MAX, request, |_, answer| {
        let Response::Records(records) = answer else { return };
        let claims = records.into_iter().flatten().flat_map(|record| record.claims);
        nodes.extend(claims.filter_map(|claim| Some(claim.verify(session.network()).ok()?.holder)));
    });
    progress.check()?;
    Ok(nodes.into_iter().collect())
}

/// Who is asked about which of these segments: the stewards of each.
async fn stewards_of(session: &Session, segments: impl Iterator<Item = SegmentId>) -> Result<Asked, Error> {
    let walk = |segment: SegmentId| async move {
        let stewards = session.stewards(*segment.as_bytes()).await?;
        Ok::<_, Error>((segment, stewards))
    };
    let mut walks = futures::stream::iter(segments).map(walk).buffer_unordered(WALKS_AT_ONCE);
    let mut asked = Asked::new();
    while let Some((segment, stewards)) = walks.try_next().await? {
        for steward in stewards {
            asked.entry(steward).or_default().push(segment);
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use commonhold_protocol::Timestamp;

    use super::*;

    fn segment(k: u8, n: u8, healthy: u8, suspect: u8) -> (Coding, Option<Believed>) {
        let believed = Believed {
            healthy,
            suspect,
            lost: n - healthy - suspect,
            stewards: 8,
            disagreeing: 0,
            repaired_at: None,
            repairing: false,
            resting: false,
        };
        (Coding::new(k, n).expect("a coding"), Some(believed))
    }

    fn with(mut segment: (Coding, Option<Believed>), change: impl FnOnce(&mut Believed)) -> (Coding, Option<Believed>) {
        segment.1.as_mut().map(change);
        segment
    }

    #[test]
    fn the_worst_segment_says_what_may_still_be_lost() {
        let outlook = Outlook::of([segment(10, 20, 20, 0), segment(2, 12, 9, 1), segment(10, 20, 19, 0)]);
        assert_eq!((outlook.losses_survived, outlook.segments_lacking), (Some(7), 2));
        let outlook = Outlook::of([segment(10, 20, 10, 10)]);
        assert_eq!((outlook.losses_survived, outlook.segments_lacking), (Some(0), 0));
        // Nothing stored, nothing known.
        assert_eq!(Outlook::of([]), Outlook::default());
        let outlook = Outlook::of([(Coding::ONE, None), segment(4, 8, 7, 0)]);
        assert_eq!((outlook.losses_survived, outlook.segments_unknown), (None, 1), "of one file nothing is known");
        assert_eq!(Outlook::of([(Coding::ONE, None)]).losses_survived, None);
    }

    #[test]
    fn what_is_not_proven_is_not_promised() {
        let outlook = Outlook::of([segment(4, 8, 8, 0), segment(4, 8, 3, 5), segment(4, 8, 3, 0)]);
        assert_eq!(outlook.losses_survived, None);
        assert_eq!((outlook.segments_unproven, outlook.segments_unreadable), (1, 1));
    }

    #[test]
    fn the_worst_of_those_that_rest_is_named() {
        let rest = |of: &mut Believed| of.resting = true;
        let outlook = Outlook::of([
            with(segment(10, 20, 15, 0), rest),
            with(segment(2, 12, 6, 1), rest),
            with(segment(1, 11, 6, 0), |of| of.repairing = true),
            with(segment(4, 14, 10, 0), |of| of.repaired_at = Some(Timestamp(7))),
        ]);
        assert_eq!(outlook.degraded, Some(Degraded { have: 15, n: 20, segments: 2 }));
        assert_eq!((outlook.segments_repairing, outlook.repaired_at_ms), (1, Some(7)));
        // One that says that it rests and lacks nothing is confused.
        assert_eq!(Outlook::of([with(segment(4, 8, 8, 0), rest)]).degraded, None);
    }
}
