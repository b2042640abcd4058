//! What one sweep says to one steward: which of these do you lack, here they are.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use commonhold_network::Peer;
use commonhold_protocol::{
    NodeId, Record, SegmentId, VaultId,
    ask::{ASK_BYTES_MAX, ASK_RECORDS_MAX, Refusal, Request, Response},
};
use tokio::time::Instant;

use super::{PATIENCE, blocking, segments};
use crate::{
    leases,
    neighbours::Neighbours,
    records::{Kind, RecordsError, Summary},
    steward::{Steward, TAG_DROPPED},
};

/// Bytes of records in one message, below what a message may have by more than what frames them.
const MESSAGE_BYTES_MAX: u64 = ASK_BYTES_MAX as u64 * 3 / 4;
/// The longest rest between two messages.
const REST_MAX: Duration = Duration::from_secs(1);
/// How often a steward that is busy is asked again.
const BUSY_TRIES: u32 = 4;

/// The state of one steward in a sweep.
#[derive(Debug)]
pub(super) struct Exchange {
    node: NodeId,
    /// What has no higher sequence was sent to it before, and it has it unless it lacks the whole record.
    after: u64,
    /// It has stopped answering.
    silent: bool,
}

impl Exchange {
    pub(super) fn new(node: NodeId, after: u64) -> Self {
        Self { node, after, silent: false }
    }

    /// Whether all was gone through (true) or only what is new (false); none if the steward stopped answering.
    pub(super) fn finish(&self) -> Option<bool> {
        (!self.silent).then_some(self.after == 0)
    }

    /// Offers a page of entries.
    pub(super) async fn offer(
        &mut self,
        peer: &Peer,
        steward: &Arc<Steward>,
        neighbours: &Neighbours,
        kind: Kind,
        summaries: Vec<Summary>,
    ) -> Result<(), RecordsError> {
        if self.silent {
            return Ok(());
        }
        match kind {
            Kind::Segment => self.offer_records(peer, steward, neighbours, summaries).await,
            Kind::Heads => self.offer_heads(peer, steward, summaries).await,
            Kind::Lease => self.offer_leases(peer, steward, summaries).await,
            // What holders keep beside their shards is theirs; stewards learn of drops from records.
            Kind::Drop => Ok(()),
        }
    }

    async fn offer_records(
        &mut self,
        peer: &Peer,
        steward: &Arc<Steward>,
        neighbours: &Neighbours,
        summaries: Vec<Summary>,
    ) -> Result<(), RecordsError> {
        let Some(answer) = self.ask(peer, Request::LackRecords { segments: segments(&summaries) }).await else {
            return Ok(());
        };
        let Response::Lacking(lacking) = answer else {
            self.silent = true;
            return Ok(());
        };
        let lacking: BTreeSet<SegmentId> = lacking.into_iter().collect();
        // A steward that was away has the record of what was dropped meanwhile, and does not know that it lacks the
        // drop.
        let after = self.after;
        let wanted = summaries.into_iter().filter(|summary| {
            let dropped_since = summary.tag == TAG_DROPPED && summary.sequence > after;
            dropped_since || lacking.contains(&SegmentId::from_bytes(summary.key))
        });
        let mut batch: Vec<Summary> = Vec::new();
        let mut bytes = 0;
        for summary in wanted {
            if batch.len() == ASK_RECORDS_MAX || (bytes + summary.bytes > MESSAGE_BYTES_MAX && !batch.is_empty()) {
                self.send_records(peer, steward, neighbours, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += summary.bytes;
            batch.push(summary);
        }
        if batch.is_empty() { Ok(()) } else { self.send_records(peer, steward, neighbours, batch).await }
    }

    async fn send_records(
        &mut self,
        peer: &Peer,
        steward: &Arc<Steward>,
        neighbours: &Neighbours,
        batch: Vec<Summary>,
    ) -> Result<(), RecordsError> {
        let own = steward.clone();
        let kept = blocking(move || {
            let kept = own.fetch_records(&segments(&batch))?;
            let mut owners = BTreeSet::new();
            for summary in &batch {
                owners.extend(own.records().owner(Kind::Segment, &summary.key)?);
            }
            let named = segments(&batch).into_iter().zip(kept);
            let named = named.filter_map(|(segment, record)| Some((segment, record?))).collect();
            Ok::<(Vec<_>, _), RecordsError>((named, owners))
        });
        let (named, owners) = kept.await?;
        let (ids, records): (Vec<SegmentId>, Vec<Record>) = named.into_iter().unzip();
        if records.is_empty() {
            return Ok(());
        }
        leases::carry(peer, steward, self.node, owners).await;
        let Some(Response::Kept(outcomes)) = self.ask(peer, Request::KeepRecords { records, lease: None }).await else {
            return Ok(());
        };
        // It knows of drops that we missed.
        let missed = ids.iter().zip(&outcomes);
        let missed = missed.filter(|(_, outcome)| matches!(outcome, Err(Refusal::Dropped | Refusal::Outdated)));
        let missed: Vec<SegmentId> = missed.map(|(segment, _)| *segment).collect();
        if !missed.is_empty()
            && let Some(Response::Records(records)) = self.ask(peer, Request::FetchRecords { segments: missed }).await
        {
            let (own, sender) = (steward.clone(), neighbours.sender(self.node));
            let records: Vec<Record> = records.into_iter().flatten().collect();
            blocking(move || own.answer(&sender, Request::KeepRecords { records, lease: None })).await;
        }
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        tracing::debug!(to = %self.node, records = outcomes.len(), refused, "records sent");
        Ok(())
    }

    async fn offer_heads(
        &mut self,
        peer: &Peer,
        steward: &Arc<Steward>,
        summaries: Vec<Summary>,
    ) -> Result<(), RecordsError> {
        let after = self.after;
        for summary in summaries.into_iter().filter(|summary| summary.sequence > after) {
            let own = steward.clone();
            let vault = VaultId::from_bytes(summary.key);
            let read = blocking(move || Ok::<_, RecordsError>((own.fetch_heads(&vault)?.0, own.running_lease(&vault))));
            let (heads, lease) = read.await?;
            for head in heads {
                self.ask(peer, Request::KeepHead { head, lease: lease.clone() }).await;
            }
        }
        Ok(())
    }

    async fn offer_leases(
        &mut self,
        peer: &Peer,
        steward: &Arc<Steward>,
        summaries: Vec<Summary>,
    ) -> Result<(), RecordsError> {
        let after = self.after;
        for summary in summaries.into_iter().filter(|summary| summary.sequence > after) {
            let own = steward.clone();
            // One that has ended is told to nobody unasked, see `crate::expiry`.
            if let Some(lease) = blocking(move || own.running_lease(&VaultId::from_bytes(summary.key))).await {
                self.ask(peer, Request::KeepLease { lease }).await;
            }
        }
        Ok(())
    }

    /// Asks, then rests as long as the answer took.
    async fn ask(&mut self, peer: &Peer, request: Request) -> Option<Response> {
        if self.silent {
            return None;
        }
        for attempt in 1..=BUSY_TRIES {
            let began = Instant::now();
            match peer.ask(self.node, request.clone(), PATIENCE).await {
                Ok(Response::Refused(Refusal::Busy)) => tokio::time::sleep(REST_MAX * attempt).await,
                Ok(response) => {
                    tokio::time::sleep(began.elapsed().min(REST_MAX)).await;
                    return Some(response);
                }
                Err(error) => {
                    tracing::debug!(%error, "a steward does not answer");
                    break;
                }
            }
        }
        self.silent = true;
        None
    }
}
