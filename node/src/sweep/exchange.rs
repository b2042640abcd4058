//! What one sweep says to one steward: where do we differ, here is what you lack, what do you have that we lack; and of
//! records whose steward we are no more: have you got this?

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::sweep::{self, Entry, Range, RangeDigest, Step};
use commonhold_protocol::{
    NodeId, Record, SegmentId, VaultId,
    ask::{ASK_BYTES_MAX, ASK_RANGES_MAX, ASK_RECORDS_MAX, Refusal, Request, Response},
};
use tokio::time::Instant;

use super::{
    Answered, PATIENCE, blocking,
    ledger::{Table, within},
};
use crate::{
    leases,
    neighbours::Neighbours,
    records::{Kind, RecordsError, Summary},
    steward::Steward,
};

/// Bytes of records in one message, below what a message may have by more than what frames them.
const MESSAGE_BYTES_MAX: u64 = ASK_BYTES_MAX as u64 * 3 / 4;
/// The longest rest between two messages.
const REST_MAX: Duration = Duration::from_secs(1);
/// How often a steward that is busy is asked again.
const BUSY_TRIES: u32 = 4;
/// Ranges compared in one sweep with one steward: enough for millions of records, and an end for one whose digests fit
/// nothing.
const RANGES_MAX: usize = 1 << 14;
/// Records that one steward may make us ask for in one sweep.
const ASKED_MAX: usize = 1 << 16;
/// Records of which a steward is asked for the version at once, just before they are sent: those who sweep a newcomer at
/// the same moment do not all send it the same.
const VERSIONS_AT_ONCE: usize = 128;

/// The state of one steward in a sweep.
pub(super) struct Exchange<'s> {
    peer: &'s Peer,
    steward: &'s Arc<Steward>,
    neighbours: &'s Neighbours,
    node: NodeId,
    answered: Answered,
}

impl<'s> Exchange<'s> {
    pub(super) fn new(peer: &'s Peer, steward: &'s Arc<Steward>, neighbours: &'s Neighbours, node: NodeId) -> Self {
        Self { peer, steward, neighbours, node, answered: Answered::All }
    }

    /// How far it came.
    pub(super) fn answered(&self) -> Answered {
        self.answered
    }

    /// Makes the same of the records whose stewards both are.
    pub(super) async fn compare(&mut self, table: &Arc<Table>) -> Result<(), RecordsError> {
        let ours = table.shared_with(&self.node);
        let mut found = self.differences(&ours).await;
        let (kept, node) = (table.clone(), self.node);
        let asked: Vec<SegmentId> = blocking(move || {
            found.ask.truncate(ASKED_MAX);
            // Several are asked at once, and each for something else first.
            let start = rand::random_range(0..=found.ask.len());
            found.ask.rotate_left(start);
            found.ask.retain(|key| kept.wants(key));
            found.ask.into_iter().map(SegmentId::from_bytes).collect()
        })
        .await;
        if !(found.send.is_empty() && asked.is_empty()) {
            tracing::debug!(%node, of = ours.len(), send = found.send.len(), ask = asked.len(), "records differ");
        }
        self.fetch(asked, Some(table)).await?;
        // Each sweep begins somewhere else, so that all who sweep a newcomer do not send it the same.
        let start = rand::random_range(0..=found.send.len());
        found.send.rotate_left(start);
        let mut all = ours.iter();
        let wanted: BTreeSet<[u8; 32]> = found.send.iter().copied().collect();
        let versions: BTreeMap<[u8; 32], Entry> =
            all.by_ref().filter(|entry| wanted.contains(&entry.key)).map(|entry| (entry.key, *entry)).collect();
        let entries: Vec<Entry> = found.send.iter().filter_map(|key| versions.get(key).copied()).collect();
        self.offer(&entries).await.map(drop)
    }

    /// Where we differ, by digests of ever smaller ranges.
    async fn differences(&mut self, ours: &[Entry]) -> sweep::Differences {
        let mut found = sweep::Differences::default();
        let mut waiting = VecDeque::from([Range::ALL]);
        let (mut to_list, mut compared) = (Vec::new(), 0);
        while !waiting.is_empty() && compared < RANGES_MAX {
            let ranges: Vec<Range> = waiting.drain(..waiting.len().min(ASK_RANGES_MAX)).collect();
            compared += ranges.len();
            let Some(answer) = self.ask(Request::FetchDigests { ranges: ranges.clone() }).await else { return found };
            let Response::Digests(theirs) = answer else {
                self.answered = Answered::Nothing;
                return found;
            };
            for (range, theirs) in ranges.iter().zip(theirs) {
                let inside = within(ours, range);
                match sweep::compare(range, &RangeDigest::of(inside), &theirs) {
                    Step::Equal => {}
                    Step::List | Step::Split if theirs.count == 0 => {
                        found.send.extend(inside.iter().map(|entry| entry.key));
                    }
                    Step::List => to_list.push(*range),
                    Step::Split => waiting.extend(sweep::split(range)),
                }
            }
        }
        for range in to_list {
            let Some(answer) = self.ask(Request::ListRecords { range }).await else { return found };
            let Response::Entries(theirs) = answer else {
                self.answered = Answered::Nothing;
                return found;
            };
            let differ = sweep::differences(&range, within(ours, &range), &theirs);
            found.send.extend(differ.send);
            found.ask.extend(differ.ask);
        }
        found
    }

    /// Fetches records and merges them with ours; not those that were changed since `table` was made, as by another
    /// steward that is swept at the same time.
    async fn fetch(&mut self, segments: Vec<SegmentId>, table: Option<&Arc<Table>>) -> Result<(), RecordsError> {
        let mut waiting = VecDeque::from(segments);
        while !waiting.is_empty() {
            let mut wanted: Vec<SegmentId> = waiting.iter().take(ASK_RECORDS_MAX).copied().collect();
            if let Some(table) = table {
                let (own, table, looked_at) = (self.steward.clone(), table.clone(), wanted.len());
                wanted = blocking(move || still_wanted(&own, &table, wanted)).await?;
                waiting.drain(..looked_at);
                for segment in wanted.iter().rev() {
                    waiting.push_front(*segment);
                }
                if wanted.is_empty() {
                    continue;
                }
            }
            let Some(Response::Records(records)) = self.ask(Request::FetchRecords { segments: wanted }).await else {
                return Ok(());
            };
            // What did not fit into the answer is asked for again.
            let answered = records.len().clamp(1, ASK_RECORDS_MAX);
            waiting.drain(..answered.min(waiting.len()));
            self.merge(records.into_iter().flatten().collect()).await;
        }
        Ok(())
    }

    async fn merge(&self, records: Vec<Record>) {
        let (own, sender) = (self.steward.clone(), self.neighbours.sender(self.node));
        blocking(move || own.answer(&sender, Request::KeepRecords { records, lease: None })).await;
    }

    /// Sends those of these records that the steward has not, or not like that. The keys of those of which it has all
    /// that we have.
    pub(super) async fn offer(&mut self, entries: &[Entry]) -> Result<Vec<[u8; 32]>, RecordsError> {
        let mut confirmed = Vec::new();
        for entries in entries.chunks(VERSIONS_AT_ONCE) {
            let segments = entries.iter().map(|entry| SegmentId::from_bytes(entry.key)).collect();
            let Some(answer) = self.ask(Request::FetchVersions { segments }).await else { return Ok(confirmed) };
            let Response::Versions(theirs) = answer else {
                self.answered = Answered::Nothing;
                return Ok(confirmed);
            };
            let theirs = theirs.into_iter().chain(std::iter::repeat(None));
            let (same, differ): (Vec<_>, Vec<_>) =
                entries.iter().zip(theirs).partition(|(entry, theirs)| *theirs == Some(entry.version));
            confirmed.extend(same.iter().map(|(entry, _)| entry.key));
            let keys: Vec<[u8; 32]> = differ.iter().map(|(entry, _)| entry.key).collect();
            let steward = self.steward.clone();
            let summaries = blocking(move || {
                let summaries = keys.iter().map(|key| steward.records().summary(Kind::Segment, key));
                summaries.collect::<Result<Vec<_>, _>>()
            });
            let summaries: Vec<Summary> = summaries.await?.into_iter().flatten().collect();
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for summary in summaries {
                if batch.len() == ASK_RECORDS_MAX || (bytes + summary.bytes > MESSAGE_BYTES_MAX && !batch.is_empty()) {
                    confirmed.extend(self.send(std::mem::take(&mut batch)).await?);
                    bytes = 0;
                }
                bytes += summary.bytes;
                batch.push(SegmentId::from_bytes(summary.key));
            }
            if !batch.is_empty() {
                confirmed.extend(self.send(batch).await?);
            }
        }
        Ok(confirmed)
    }

    /// Sends records; the keys of those that were kept.
    async fn send(&mut self, segments: Vec<SegmentId>) -> Result<Vec<[u8; 32]>, RecordsError> {
        let own = self.steward.clone();
        let kept = blocking(move || {
            let kept = own.fetch_records(&segments)?;
            let mut owners = BTreeSet::new();
            for segment in &segments {
                owners.extend(own.records().owner(Kind::Segment, segment.as_bytes())?);
            }
            let named = segments.into_iter().zip(kept);
            let named = named.filter_map(|(segment, record)| Some((segment, record?))).collect();
            Ok::<(Vec<_>, _), RecordsError>((named, owners))
        });
        let (named, owners) = kept.await?;
        let (ids, records): (Vec<SegmentId>, Vec<Record>) = named.into_iter().unzip();
        if records.is_empty() {
            return Ok(Vec::new());
        }
        leases::carry(self.peer, self.steward, self.node, owners).await;
        let Some(Response::Kept(outcomes)) = self.ask(Request::KeepRecords { records, lease: None }).await else {
            return Ok(Vec::new());
        };
        // It knows of drops that we missed.
        let missed = ids.iter().zip(&outcomes);
        let missed = missed.filter(|(_, outcome)| matches!(outcome, Err(Refusal::Dropped | Refusal::Outdated)));
        self.fetch(missed.map(|(segment, _)| *segment).collect(), None).await?;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        tracing::debug!(to = %self.node, records = outcomes.len(), refused, "records sent");
        let kept = ids.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        Ok(kept.map(|(segment, _)| *segment.as_bytes()).collect())
    }

    /// Sends what is kept of these vaults; what has no higher sequence than `after` was sent before.
    pub(super) async fn offer_vaults(
        &mut self,
        kind: Kind,
        summaries: &[Summary],
        after: u64,
    ) -> Result<(), RecordsError> {
        for summary in summaries.iter().filter(|summary| summary.sequence > after) {
            let (own, vault) = (self.steward.clone(), VaultId::from_bytes(summary.key));
            let read = blocking(move || {
                // A lease that has ended is told to nobody unasked, see `crate::expiry`.
                let lease = own.running_lease(&vault);
                let heads = if kind == Kind::Heads { own.fetch_heads(&vault)?.0 } else { Vec::new() };
                Ok::<_, RecordsError>((heads, lease))
            });
            let (heads, lease) = read.await?;
            for head in heads {
                self.ask(Request::KeepHead { head, lease: lease.clone() }).await;
            }
            if let Some(lease) = lease.filter(|_| kind == Kind::Lease) {
                self.ask(Request::KeepLease { lease }).await;
            }
        }
        Ok(())
    }

    /// Asks, then rests as long as the answer took.
    async fn ask(&mut self, request: Request) -> Option<Response> {
        if self.answered != Answered::All {
            return None;
        }
        let mut answered = Answered::Busy;
        for attempt in 1..=BUSY_TRIES {
            let began = Instant::now();
            match self.peer.ask(self.node, request.clone(), PATIENCE).await {
                Ok(Response::Refused(Refusal::Busy)) => tokio::time::sleep(REST_MAX * attempt).await,
                Ok(response) => {
                    tokio::time::sleep(began.elapsed().min(REST_MAX)).await;
                    return Some(response);
                }
                Err(error) => {
                    tracing::debug!(%error, "a steward does not answer");
                    answered = Answered::Nothing;
                    break;
                }
            }
        }
        self.answered = answered;
        None
    }
}

/// Those of these segments whose records are as they were in the table.
fn still_wanted(steward: &Steward, table: &Table, segments: Vec<SegmentId>) -> Result<Vec<SegmentId>, RecordsError> {
    let mut wanted = Vec::with_capacity(segments.len());
    for segment in segments {
        let (records, key) = (steward.records(), segment.as_bytes());
        let is_as_it_was = match table.sequence(key) {
            Some(then) => records.summary(Kind::Segment, key)?.is_some_and(|summary| summary.sequence == then),
            // One that cannot be read is not in the table either.
            None => !matches!(records.get(Kind::Segment, key), Ok(Some(_))),
        };
        if is_as_it_was {
            wanted.push(segment);
        }
    }
    Ok(wanted)
}
