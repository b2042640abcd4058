//! Giving space back: segments in which nothing is used any more are dropped.
//!
//! **survey → plan → bury → drop.** Whatever the newest state refers to is live, and so are the trees and tables of the
//! states before it that a head still names, since a device that goes on from one of them is merged with by them. A head
//! without the dead segments is written first; only then are holders and stewards told to drop them. Whoever is killed
//! in between leaves tombstones, and the next prune sends the same drops again.
//!
//! A device that has found chunks of a dead segment stored already, and does not know of the prune, brings the segment
//! back when its state is merged ([`crate::tombstones`]). To miss each other, its head and ours would both have to be
//! written before either is read: so both look again after they wrote.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Instant,
};

use commonhold_protocol::{DropKind, NodeId, SegmentId, drop::DROP_SEGMENTS_MAX};
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::walk::{self, Part},
};

use crate::{
    error::Error,
    head_payload::HeadPayload,
    health::stewards_and_claimants,
    progress::Progress,
    reader::Reader,
    report::segments_in,
    session::now,
    table::SegmentInfo,
    tombstones::{self, Tombstones},
    transaction::{CommitReport, Transaction},
    upload,
    vault::Vault,
};

/// How often a prune starts over because somebody else wrote meanwhile.
const ROUNDS_MAX: usize = 8;
/// For so long the drops of an earlier prune are sent again: it may have been killed before it had sent them, and nodes
/// may have been away.
const REPEATED_MS: u64 = 30 * 24 * 3600 * 1000;

/// How a prune is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct PruneOptions {
    /// Change nothing; say what would be done.
    pub dry_run: bool,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PruneReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Segments in which nothing is used: they were dropped.
    pub segments: u64,
    /// Bytes of sealed chunks in them.
    pub segment_bytes: u64,
    /// Bytes of their shards, which holders get back.
    pub shard_bytes: u64,
    /// Segments that stay, though not all in them is used.
    pub partly_used: u64,
    /// Bytes in those that nothing uses.
    pub bytes_left_dead: u64,
    /// Segments dropped by earlier prunes of the last 30 days whose drops were sent again.
    pub repeated: u64,
    /// Segments whose drop no node has taken in: the next prune sends it again.
    pub unheard: u64,
    /// How it became visible; none if nothing was changed.
    pub commit: Option<CommitReport>,
}

/// The bytes of one segment that are used, as ranges that neither overlap nor touch: of a segment that is used whole,
/// one, and few of most others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Used(Vec<(u32, u32)>);

impl Used {
    /// Takes in one more range; gives how many bytes of it are new.
    fn add(&mut self, from: u32, to: u32) -> u64 {
        let first = self.0.partition_point(|(_, end)| *end < from);
        let last = self.0.partition_point(|(start, _)| *start <= to);
        let (mut joined, mut known) = ((from, to), 0);
        for (start, end) in &self.0[first..last] {
            joined = (joined.0.min(*start), joined.1.max(*end));
            known += u64::from(end - start);
        }
        self.0.splice(first..last, [joined]);
        u64::from(joined.1 - joined.0) - known
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| u64::from(end - start)).sum()
    }
}

/// What is used of each segment that anything refers to.
type Live = BTreeMap<SegmentId, Used>;

/// What is to become of the segments of a vault.
#[derive(Debug, Default, PartialEq, Eq)]
struct PrunePlan {
    /// Those in which nothing is used.
    dead: BTreeMap<SegmentId, SegmentInfo>,
    /// Those in which something is used, but not all, with the bytes that are not.
    partly_used: BTreeMap<SegmentId, u64>,
}

impl PrunePlan {
    /// Judges `segments` by what is live.
    fn of(segments: BTreeMap<SegmentId, SegmentInfo>, live: &Live) -> Self {
        let mut plan = Self::default();
        for (id, info) in segments {
            match live.get(&id).map(|used| info.length.saturating_sub(used.bytes())) {
                None => {
                    plan.dead.insert(id, info);
                }
                Some(0) => {}
                Some(dead_bytes) => {
                    plan.partly_used.insert(id, dead_bytes);
                }
            }
        }
        plan
    }

    /// The report, for those of the dead segments that are gone in the end.
    fn report(&self, dry_run: bool, is_gone: impl Fn(&SegmentId) -> bool) -> PruneReport {
        let gone: Vec<&SegmentInfo> = self.dead.iter().filter(|(id, _)| is_gone(id)).map(|(_, info)| info).collect();
        let shard_bytes = |info: &&SegmentInfo| info.coding.shard_length(info.length) * u64::from(info.coding.n());
        PruneReport {
            dry_run,
            segments: gone.len() as u64,
            segment_bytes: gone.iter().map(|info| info.length).sum(),
            shard_bytes: gone.iter().map(shard_bytes).sum(),
            partly_used: self.partly_used.len() as u64,
            bytes_left_dead: self.partly_used.values().sum(),
            repeated: 0,
            unheard: 0,
            commit: None,
        }
    }
}

/// Finds out what is live. Nodes that were seen are not opened again: states share most of theirs.
struct Survey<'a> {
    reader: &'a Reader,
    segments: &'a BTreeMap<SegmentId, SegmentInfo>,
    progress: &'a Progress,
    live: Live,
    seen: HashSet<(SegmentId, u32)>,
}

impl Survey<'_> {
    fn note(&mut self, chunk: &ChunkRef) {
        let used = self.live.entry(chunk.segment).or_default();
        let new = used.add(chunk.offset, chunk.offset.saturating_add(chunk.sealed_length));
        Progress::add(&self.progress.bytes_done, new);
    }

    /// Notes a node; true if it was not seen before.
    fn note_node(&mut self, chunk: &ChunkRef) -> bool {
        self.note(chunk);
        let is_new = self.seen.insert((chunk.segment, chunk.offset));
        Progress::add(&self.progress.entries_done, u64::from(is_new));
        is_new
    }

    /// All that the newest state refers to: none of it may be missing.
    fn newest(&mut self, payload: &HeadPayload) -> Result<(), Error> {
        let reader = self.reader;
        walk::directory(reader, &payload.root, |chunk, part| match part {
            Part::Node => self.note_node(chunk),
            Part::Data => {
                self.note(chunk);
                true
            }
        })?;
        Ok(walk::map(reader, &payload.table, |chunk| self.note_node(chunk))?)
    }

    /// The trees and tables of states before it, not what is in the files. Of a state that came with a merge, parts may
    /// have been dropped already: what is in no segment of the vault is passed over.
    fn former(&mut self, payload: &HeadPayload) -> Result<(), Error> {
        let reader = self.reader;
        for former in &payload.history.states {
            let mut node = |chunk: &ChunkRef| self.segments.contains_key(&chunk.segment) && self.note_node(chunk);
            walk::directory(reader, &former.root, |chunk, part| part == Part::Node && node(chunk))?;
            walk::map(reader, &former.table, node)?;
        }
        Ok(())
    }
}

impl Vault {
    /// Drops the segments in which nothing is used any more. What cannot be read ends it before anything is dropped.
    pub fn prune(&self, options: &PruneOptions, progress: &Arc<Progress>) -> Result<PruneReport, Error> {
        let start = Instant::now();
        for _ in 0..ROUNDS_MAX {
            let state = self.state(progress)?;
            let reader = self.reader.for_operation(progress);
            let plan = plan(&reader, &state.payload, progress)?;
            tracing::info!("surveyed in {:?}: {} segments are dead", start.elapsed(), plan.dead.len());
            if options.dry_run {
                return Ok(plan.report(true, |_| true));
            }
            if plan.dead.is_empty() {
                let mut report = plan.report(false, |_| true);
                let young = young(tombstones::read(&reader, &state.payload.table)?);
                report.repeated = young.len() as u64;
                report.unheard = self.send_drops(young, &BTreeMap::new(), progress)?;
                return Ok(report);
            }
            let dead: BTreeSet<SegmentId> = plan.dead.keys().copied().collect();
            let holders = holders(&reader, &dead)?;
            let mut transaction = Transaction::begin(self, progress)?;
            if !transaction.is_at(&state) {
                continue;
            }
            transaction.bury(&dead)?;
            let (_, commit) = transaction.commit()?;
            // Somebody may have written at the same moment, and refer to what we are about to drop.
            let state = self.state(progress)?;
            let buried = tombstones::read(&reader, &state.payload.table)?;
            let mut report = plan.report(false, |id| buried.contains_key(id));
            let young = young(buried);
            report.repeated = young.keys().filter(|id| !dead.contains(id)).count() as u64;
            report.unheard = self.send_drops(young, &holders, progress)?;
            report.commit = Some(commit);
            return Ok(report);
        }
        Err(Error::Contended { rounds: ROUNDS_MAX })
    }

    /// Has stewards and holders drop what was buried; gives how many segments nobody has heard of.
    ///
    /// Drops are made up of the tombstones alone, so that one which is sent again is the same to the byte: it is no news
    /// to whoever has heard of it, and does not begin the time in the trash anew.
    fn send_drops(
        &self,
        tombstones: Tombstones,
        holders: &BTreeMap<SegmentId, Vec<NodeId>>,
        progress: &Arc<Progress>,
    ) -> Result<u64, Error> {
        let mut by_counter: BTreeMap<u64, Vec<SegmentId>> = BTreeMap::new();
        for (id, counter) in tombstones {
            by_counter.entry(counter).or_default().push(id);
        }
        let mut unheard = 0;
        for (counter, ids) in &by_counter {
            for ids in ids.chunks(DROP_SEGMENTS_MAX) {
                progress.check()?;
                // Repairs may have moved shards since the table was written; a record loses its claims with the drop.
                let mut nodes = stewards_and_claimants(&self.session, ids, progress)?;
                nodes.extend(ids.iter().filter_map(|id| holders.get(id)).flatten());
                let drop = upload::order(DropKind::Drop, *counter, ids.to_vec(), &self.keys, &self.session);
                let told = upload::tell(&self.session, &drop, nodes);
                if self.session.wait_for(progress, told)? == 0 {
                    // Of those of earlier prunes, there may be nothing left to drop.
                    unheard += ids.iter().filter(|id| holders.contains_key(id)).count() as u64;
                }
            }
        }
        Ok(unheard)
    }
}

fn plan(reader: &Reader, payload: &HeadPayload, progress: &Progress) -> Result<PrunePlan, Error> {
    let segments = segments_in(reader, payload)?;
    Progress::add(&progress.bytes_total, segments.values().map(|info| info.length).sum());
    let mut survey = Survey { reader, segments: &segments, progress, live: Live::new(), seen: HashSet::new() };
    survey.newest(payload)?;
    survey.former(payload)?;
    progress.check()?;
    let live = survey.live;
    Ok(PrunePlan::of(segments, &live))
}

/// Who holds shards of these segments, as far as the vault knows.
pub(crate) fn holders(
    reader: &Reader,
    segments: &BTreeSet<SegmentId>,
) -> Result<BTreeMap<SegmentId, Vec<NodeId>>, Error> {
    let mut holders = BTreeMap::new();
    for id in segments {
        reader.locate(*id)?;
        let catalog = reader.catalog();
        let nodes = catalog.info(id).map(|info| catalog.holders(&info).into_values().collect());
        holders.insert(*id, nodes.unwrap_or_default());
    }
    Ok(holders)
}

/// Tombstones whose drops are sent again.
fn young(mut tombstones: Tombstones) -> Tombstones {
    let from = now().0.saturating_sub(REPEATED_MS);
    tombstones.retain(|_, counter| *counter >= from);
    tombstones
}

#[cfg(test)]
mod tests;
