//! Records whose steward we are no more: offered to those who are, and let go when they have them
//! ([`commonhold_policy::sweep::lets_go`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use commonhold_policy::sweep::{Entry, Left, lets_go};
use commonhold_protocol::{NodeId, SegmentId};
use tokio::time::Instant;

use super::{
    blocking,
    ledger::{Line, Table},
};
use crate::{
    records::{Kind, RecordsError},
    steward::{Steward, TAG_DROPPED, TAG_UNPROVEN},
};

/// One such record.
#[derive(Debug)]
struct Handed {
    /// When it was first seen that we are no steward.
    since: Instant,
    /// The state that was handed over.
    sequence: u64,
    /// Who has it.
    to: BTreeSet<NodeId>,
}

/// All such records.
#[derive(Debug)]
pub(super) struct LeftRecords {
    grace: Duration,
    prove: Duration,
    handed: BTreeMap<[u8; 32], Handed>,
}

impl LeftRecords {
    pub(super) fn new(grace: Duration, prove: Duration) -> Self {
        Self { grace, prove, handed: BTreeMap::new() }
    }

    /// The records that are this steward's, and ours no more: to be offered to it.
    pub(super) fn its(&mut self, node: NodeId, table: &Table) -> Vec<Entry> {
        self.notice(table);
        let lacks = |line: &&Line| {
            line.shared
                && self.handed.get(&line.entry.key).is_some_and(|handed| !handed.to.contains(&node))
                && table.stewards(line).contains(&node)
        };
        table.left().filter(lacks).map(|line| line.entry).collect()
    }

    /// The steward has these, as they were when `table` was made.
    pub(super) fn handed(&mut self, node: NodeId, keys: &[[u8; 32]], table: &Table) {
        for key in keys {
            if let Some(handed) = self.handed.get_mut(key).filter(|handed| table.sequence(key) == Some(handed.sequence))
            {
                handed.to.insert(node);
            }
        }
    }

    /// Takes in which records are left, and in which state.
    fn notice(&mut self, table: &Table) {
        let now = Instant::now();
        let mut left = BTreeSet::new();
        for Line { entry, sequence, .. } in table.left() {
            left.insert(entry.key);
            let fresh = || Handed { since: now, sequence: *sequence, to: BTreeSet::new() };
            let handed = self.handed.entry(entry.key).or_insert_with(fresh);
            if handed.sequence != *sequence {
                *handed = Handed { since: handed.since, ..fresh() };
            }
        }
        self.handed.retain(|key, _| left.contains(key));
    }

    /// Removes those that are in good hands, as they were handed over; what has changed since stays.
    pub(super) async fn let_go(&mut self, steward: &Arc<Steward>, table: &Arc<Table>) -> Result<(), RecordsError> {
        self.notice(table);
        let (grace_ms, prove_ms) = (self.grace.as_millis() as u64, self.prove.as_millis() as u64);
        let goes = |line: &&Line| {
            let Some(handed) = self.handed.get(&line.entry.key) else { return false };
            let left = Left {
                for_ms: handed.since.elapsed().as_millis() as u64,
                proven: line.tag != TAG_UNPROVEN,
                dropped: line.tag == TAG_DROPPED,
            };
            lets_go(left, &table.stewards(line), |node| handed.to.contains(node), grace_ms, prove_ms)
        };
        let going: Vec<Line> = table.left().filter(goes).copied().collect();
        if going.is_empty() {
            return Ok(());
        }
        let steward = steward.clone();
        blocking(move || {
            let mut gone = Vec::with_capacity(going.len());
            for line in going {
                let summary = steward.records().summary(Kind::Segment, &line.entry.key)?;
                let owner = steward.records().owner(Kind::Segment, &line.entry.key)?;
                gone.extend(summary.filter(|summary| summary.sequence == line.sequence).zip(owner));
            }
            let segments: Vec<SegmentId> = gone.iter().map(|(summary, _)| SegmentId::from_bytes(summary.key)).collect();
            let forgotten = steward.forget(Kind::Segment, gone)?;
            tracing::debug!(?segments, forgotten, "records of which we are no steward are let go");
            Ok(())
        })
        .await
    }
}
