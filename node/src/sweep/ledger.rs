//! What stewards compare: the records that are kept here, each with the hash of its bytes and its stewards.
//!
//! Made of the record store, and again when records or stewards have changed; only records that changed are read for
//! it. Some 90 bytes for each record. Answers the other side of a sweep as well, no more than so often for everybody
//! together: going through all records is the dearest that a small question can make us do.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use commonhold_policy::{
    Domain,
    stewards::{self, STEWARDS},
};
use commonhold_protocol::{
    NodeId, SegmentId,
    ask::{ASK_IDS_MAX, Entry, Range, RangeDigest, Refusal, record_version},
};

use crate::{
    neighbours::Neighbours,
    records::{Kind, RecordsError},
    steward::{Steward, TAG_UNPROVEN},
};

/// Records looked at in one step.
const PAGE: usize = 1024;
/// Whoever asks is answered by a table that was right so long ago.
const FRESH: Duration = Duration::from_secs(1);

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) entry: Entry,
    /// Of the record store.
    pub(crate) sequence: u64,
    /// Of the record store.
    pub(crate) tag: u8,
    /// Compared with other stewards, or offered to them.
    pub(crate) shared: bool,
    /// Places among the candidates; fewer where there are fewer.
    stewards: [u16; STEWARDS],
}

/// No steward.
const NOBODY: u16 = u16::MAX;

/// All records, by key.
pub(crate) struct Table {
    own: NodeId,
    sequence: u64,
    candidates: Vec<(NodeId, Domain)>,
    lines: Vec<Line>,
}

impl Table {
    fn build(
        steward: &Steward,
        own: NodeId,
        candidates: Vec<(NodeId, Domain)>,
        old: Option<&Self>,
    ) -> Result<Self, RecordsError> {
        let sequence = steward.records().sequence();
        let same_stewards = old.is_some_and(|old| old.candidates == candidates);
        let mut known = old.map(|old| old.lines.as_slice()).unwrap_or_default().iter().copied().peekable();
        let mut lines = Vec::new();
        let mut after: Option<[u8; 32]> = None;
        loop {
            let page = steward.records().list(Kind::Segment, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            for summary in &page {
                while known.next_if(|line| line.entry.key < summary.key).is_some() {}
                let known = known.next_if(|line| line.entry.key == summary.key);
                let version = match known.filter(|line| line.sequence == summary.sequence) {
                    Some(line) => line.entry.version,
                    None => match steward.records().get(Kind::Segment, &summary.key) {
                        Ok(Some(kept)) => record_version(&kept.body),
                        // Gone meanwhile, or damaged: as if it were not there, so that others bring it.
                        Ok(None) | Err(RecordsError::Damaged { .. }) => continue,
                        Err(error) => return Err(error),
                    },
                };
                let stewards = match known.filter(|_| same_stewards) {
                    Some(line) => line.stewards,
                    None => places(&summary.key, &candidates),
                };
                let entry = Entry { key: summary.key, version };
                let shared = summary.tag != TAG_UNPROVEN || steward.tells_on_trial(&SegmentId::from_bytes(summary.key));
                lines.push(Line { entry, sequence: summary.sequence, tag: summary.tag, shared, stewards });
            }
        }
        Ok(Self { own, sequence, candidates, lines })
    }

    fn place(&self, node: &NodeId) -> Option<u16> {
        self.candidates.iter().position(|(candidate, _)| candidate == node).map(|place| place as u16)
    }

    /// The records whose stewards both we and `node` are, by key, with those on trial of which others are told.
    pub(crate) fn shared_with(&self, node: &NodeId) -> Vec<Entry> {
        let (Some(own), Some(node)) = (self.place(&self.own), self.place(node)) else { return Vec::new() };
        let both = |line: &&Line| line.stewards.contains(&own) && line.stewards.contains(&node);
        let shared = self.lines.iter().filter(|line| line.shared).filter(both);
        shared.map(|line| line.entry).collect()
    }

    /// The records whose steward we are no more.
    pub(crate) fn left(&self) -> impl Iterator<Item = &Line> {
        let own = self.place(&self.own).unwrap_or(NOBODY);
        self.lines.iter().filter(move |line| !line.stewards.contains(&own))
    }

    /// The stewards of a record.
    pub(crate) fn stewards(&self, line: &Line) -> Vec<NodeId> {
        let places = line.stewards.iter().filter_map(|place| self.candidates.get(usize::from(*place)));
        places.map(|(node, _)| *node).collect()
    }

    /// The sequence of a record; none if it is not kept.
    pub(crate) fn sequence(&self, key: &[u8; 32]) -> Option<u64> {
        self.lines.binary_search_by_key(key, |line| line.entry.key).ok().map(|at| self.lines[at].sequence)
    }

    /// Whether to ask another for a record of which it has another state: if we are a steward of it, and have none of
    /// which we would tell. What is on trial here is not asked for again and again.
    pub(crate) fn wants(&self, key: &[u8; 32]) -> bool {
        let kept = self.lines.binary_search_by_key(key, |line| line.entry.key).ok().map(|at| &self.lines[at]);
        kept.is_none_or(|line| line.shared) && stewards::choose(key, &self.candidates).contains(&self.own)
    }
}

fn places(key: &[u8; 32], candidates: &[(NodeId, Domain)]) -> [u16; STEWARDS] {
    let mut places = [NOBODY; STEWARDS];
    for (place, node) in places.iter_mut().zip(stewards::choose(key, candidates)) {
        if let Some(at) = candidates.iter().position(|(candidate, _)| *candidate == node) {
            *place = at as u16;
        }
    }
    places
}

/// Those of `entries`, which are in order, that lie in a range.
pub(crate) fn within<'e>(entries: &'e [Entry], range: &Range) -> &'e [Entry] {
    let start = entries.partition_point(|entry| entry.key < range.first);
    let end = entries.partition_point(|entry| entry.key <= range.last);
    &entries[start..end.max(start)]
}

/// The newest table, and whoever wants it.
pub struct Ledger {
    steward: Arc<Steward>,
    neighbours: Arc<Neighbours>,
    grace: Duration,
    newest: Mutex<Option<(Arc<Table>, Instant)>>,
}

impl Ledger {
    /// Nothing looked through yet. `grace`: how long a steward may be silent.
    pub fn new(steward: Arc<Steward>, neighbours: Arc<Neighbours>, grace: Duration) -> Self {
        Self { steward, neighbours, grace, newest: Mutex::default() }
    }

    fn newest(&self) -> MutexGuard<'_, Option<(Arc<Table>, Instant)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table as things are now. Blocks.
    pub(crate) fn table(&self) -> Result<Arc<Table>, RecordsError> {
        let candidates = self.neighbours.steward_candidates(self.grace);
        self.refresh(&mut self.newest(), candidates)
    }

    fn refresh(
        &self,
        newest: &mut Option<(Arc<Table>, Instant)>,
        candidates: Vec<(NodeId, Domain)>,
    ) -> Result<Arc<Table>, RecordsError> {
        if let Some((table, at)) = newest
            && table.sequence == self.steward.records().sequence()
            && table.candidates == candidates
        {
            *at = Instant::now();
            return Ok(table.clone());
        }
        let old = newest.as_ref().map(|(table, _)| table.as_ref());
        let table = Arc::new(Table::build(&self.steward, self.neighbours.own().0, candidates, old)?);
        *newest = Some((table.clone(), Instant::now()));
        Ok(table)
    }

    /// What we share with whoever asks. Blocks.
    fn shared_with(&self, node: NodeId) -> Result<Vec<Entry>, Refusal> {
        let mut newest = self.newest();
        if let Some((table, at)) = newest.as_ref()
            && at.elapsed() < FRESH
        {
            // One whom we do not know yet is told to wait.
            return if table.place(&node).is_some() { Ok(table.shared_with(&node)) } else { Err(Refusal::Busy) };
        }
        let mut candidates = self.neighbours.steward_candidates(self.grace);
        if candidates.iter().all(|(candidate, _)| *candidate != node) {
            candidates.push((node, self.neighbours.domain(node)));
        }
        let table = self.refresh(&mut newest, candidates).map_err(|error| {
            tracing::warn!(%error, "the records cannot be compared");
            error.refusal()
        })?;
        Ok(table.shared_with(&node))
    }

    /// The digests of what we share with `node`, range by range. Blocks.
    pub(crate) fn digests(&self, node: NodeId, ranges: &[Range]) -> Result<Vec<RangeDigest>, Refusal> {
        let shared = self.shared_with(node)?;
        Ok(ranges.iter().map(|range| RangeDigest::of(within(&shared, range))).collect())
    }

    /// What we share with `node` in a range, as far as fits an answer. Blocks.
    pub(crate) fn list(&self, node: NodeId, range: &Range) -> Result<Vec<Entry>, Refusal> {
        let shared = self.shared_with(node)?;
        Ok(within(&shared, range).iter().take(ASK_IDS_MAX).copied().collect())
    }
}
