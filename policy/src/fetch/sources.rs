//! The bookkeeping of a fetch: who holds which shard, who was asked for what, and what has arrived.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::{NodeId, ShardIndex, Timestamp};

use super::{Columns, HOLDERS_PER_SHARD_MAX, Holders};
use crate::{Failure, Standing};

/// How the last ask of one holder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskState {
    Pending,
    /// Pending, but for so long that others are asked as if it were not.
    Slow,
    Got,
    Failed {
        /// The failure may pass, and the holder was not asked again yet.
        may_pass: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    columns: Columns,
    since: Timestamp,
    state: AskState,
}

#[derive(Debug, Clone)]
struct Holder {
    node: NodeId,
    standing: Standing,
    ask: Option<Ask>,
    forgiven: bool,
}

impl Holder {
    fn may_pass(&self) -> bool {
        self.ask.is_some_and(|ask| ask.state == AskState::Failed { may_pass: true })
    }
}

/// One shard: its holders and the columns of it that have arrived.
#[derive(Debug, Clone, Default)]
struct Source {
    holders: Vec<Holder>,
    got: Vec<Columns>,
}

/// An ask that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) index: ShardIndex,
    pub(super) node: NodeId,
    pub(super) columns: Columns,
    pub(super) since: Timestamp,
    pub(super) slow: bool,
}

/// All shards of a segment.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    n: u8,
    sources: BTreeMap<ShardIndex, Source>,
    /// Nodes that gave no proper answer during this fetch.
    failed_nodes: BTreeSet<NodeId>,
}

impl Sources {
    pub(super) fn new(n: u8) -> Self {
        Self { n, sources: BTreeMap::new(), failed_nodes: BTreeSet::new() }
    }

    /// Takes in holders; those already known keep their place.
    pub(super) fn learn(&mut self, holders: Holders) {
        for (index, nodes) in holders.into_iter().filter(|(index, _)| index.0 < self.n) {
            let source = self.sources.entry(index).or_default();
            for (node, standing) in nodes {
                let known = source.holders.iter().any(|holder| holder.node == node);
                if !known && source.holders.len() < HOLDERS_PER_SHARD_MAX {
                    source.holders.push(Holder { node, standing, ask: None, forgiven: false });
                }
            }
        }
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = ShardIndex> {
        self.sources.keys().copied()
    }

    /// True if these columns of the shard have arrived.
    pub(super) fn has(&self, index: ShardIndex, columns: Columns) -> bool {
        self.sources.get(&index).is_some_and(|source| source.got.iter().any(|got| got.covers(columns)))
    }

    /// True if an ask that covers these columns runs and is not slow.
    pub(super) fn is_coming(&self, index: ShardIndex, columns: Columns) -> bool {
        self.running().any(|running| running.index == index && !running.slow && running.columns.covers(columns))
    }

    /// The best holder that can be asked for these columns: one that was not asked yet, or that answered when it was
    /// asked for others.
    pub(super) fn best(&self, index: ShardIndex, columns: Columns) -> Option<(NodeId, Standing)> {
        let holders = &self.sources.get(&index)?.holders;
        let askable = holders.iter().filter(|holder| match holder.ask {
            None => true,
            Some(ask) => ask.state == AskState::Got && !ask.columns.covers(columns),
        });
        let standing = |holder: &Holder| match self.failed_nodes.contains(&holder.node) {
            true => Standing::RecentlyFailed,
            false => holder.standing,
        };
        askable.map(|holder| (holder.node, standing(holder))).min_by_key(|(_, standing)| *standing)
    }

    pub(super) fn ask(&mut self, index: ShardIndex, node: NodeId, columns: Columns, now: Timestamp) {
        if let Some(holder) = self.holder(index, node) {
            holder.ask = Some(Ask { columns, since: now, state: AskState::Pending });
        }
    }

    /// Notes that an ask was answered; gives its duration.
    pub(super) fn answered(&mut self, index: ShardIndex, node: NodeId, now: Timestamp) -> Option<u64> {
        let ask = self.end_ask(index, node, AskState::Got)?;
        self.sources.get_mut(&index)?.got.push(ask.columns);
        Some(now.ms_since(ask.since))
    }

    /// Notes that an ask failed; false if none was running.
    pub(super) fn failed(&mut self, index: ShardIndex, node: NodeId, failure: Failure) -> bool {
        if failure.is_the_nodes() {
            self.failed_nodes.insert(node);
        }
        let forgiven = self.holder(index, node).is_some_and(|holder| holder.forgiven);
        let state = AskState::Failed { may_pass: failure.is_passing() && !forgiven };
        self.end_ask(index, node, state).is_some()
    }

    /// True if [`Self::forgive`] would name anyone.
    pub(super) fn may_pass(&self) -> bool {
        let mut holders = self.sources.values().flat_map(|source| &source.holders);
        holders.any(Holder::may_pass)
    }

    /// Forgives failures that may pass, each once; gives what to ask again.
    pub(super) fn forgive(&mut self) -> Vec<(ShardIndex, NodeId, Columns)> {
        let mut again = Vec::new();
        for (index, source) in &mut self.sources {
            for holder in source.holders.iter_mut().filter(|holder| holder.may_pass()) {
                holder.forgiven = true;
                again.extend(holder.ask.map(|ask| (*index, holder.node, ask.columns)));
            }
        }
        again
    }

    pub(super) fn mark_slow(&mut self, index: ShardIndex, node: NodeId) {
        if let Some(ask) = self.holder(index, node).and_then(|holder| holder.ask.as_mut()) {
            ask.state = AskState::Slow;
        }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = Running> {
        self.sources.iter().flat_map(|(index, source)| {
            source.holders.iter().filter_map(|holder| {
                let Ask { columns, since, state } = holder.ask?;
                let slow = match state {
                    AskState::Pending => false,
                    AskState::Slow => true,
                    AskState::Got | AskState::Failed { .. } => return None,
                };
                Some(Running { index: *index, node: holder.node, columns, since, slow })
            })
        })
    }

    /// The most bytes that came with one answer.
    pub(super) fn widest_got(&self) -> u64 {
        self.sources.values().flat_map(|source| &source.got).map(|columns| columns.bytes()).max().unwrap_or(0)
    }

    fn holder(&mut self, index: ShardIndex, node: NodeId) -> Option<&mut Holder> {
        self.sources.get_mut(&index)?.holders.iter_mut().find(|holder| holder.node == node)
    }

    fn end_ask(&mut self, index: ShardIndex, node: NodeId, state: AskState) -> Option<Ask> {
        let ask = self.holder(index, node)?.ask.as_mut()?;
        match ask.state {
            AskState::Pending | AskState::Slow => {
                ask.state = state;
                Some(*ask)
            }
            AskState::Got | AskState::Failed { .. } => None,
        }
    }
}
