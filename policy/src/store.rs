//! Placing the shards of one segment: who takes over when a node fails, and when enough is enough.
//!
//! The machine starts all uploads of a [`PlacementPlan`] at once. A shard whose node refuses or fails goes to the next
//! spare; without one, to the same node once more if the failure may pass. Once [`Coding::placed_enough`] shards are
//! claimed, the slowest few are cut off. It ends with exactly one [`Action::Done`] or [`Action::Failed`].
//!
//! It never looks at bytes or claims: whoever drives it verifies a claim before it says [`Event::Claimed`].

use std::collections::BTreeMap;

use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp};

use crate::{
    Domain, Failure, Standing,
    placement::{Place, PlacementPlan},
};

/// The most uploads that are tried for one shard.
pub const UPLOADS_PER_SHARD_MAX: u32 = 8;
/// The most uploads of one shard to one node: the second only after a failure that may pass, when no spare is left.
const UPLOADS_PER_NODE_MAX: u32 = 2;
/// How long to wait before the second.
const RETRY_MS: u64 = 1_000;
/// Once enough shards are claimed, an upload that has taken this long, and [`CUT_MEDIANS`] times the median of those
/// that were claimed, is cut off and its shard given to a spare; a second time, it is given up.
pub const CUT_MS: u64 = 2_000;
/// See [`CUT_MS`].
pub const CUT_MEDIANS: u64 = 2;
/// Without a spare a cut costs the segment a shard until stewards fill it in, so more patience is due; but not to a
/// node that failed lately, or a stopped one would cost each segment this time.
pub const CUT_WITHOUT_SPARE_MS: u64 = 10_000;
/// See [`CUT_WITHOUT_SPARE_MS`].
pub const CUT_WITHOUT_SPARE_MEDIANS: u64 = 4;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node holds the shard, and its claim was verified.
    Claimed {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
    },
    /// The upload ended otherwise.
    Failed {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
        /// How.
        failure: Failure,
    },
    /// The moment that was asked for has come.
    Timer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this shard to this node. Ends with one [`Event::Claimed`] or [`Event::Failed`], or a cancel.
    Upload {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
    },
    /// Stop this upload.
    Cancel {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
        /// It was cut off as too slow: reason enough to choose others for a while. Otherwise it is just not needed.
        slow: bool,
    },
    /// Say [`Event::Timer`] at this moment; any other moment that was asked for is void.
    Timer {
        /// When.
        at: Timestamp,
    },
    /// Enough shards are claimed. Nothing follows.
    Done(Placed),
    /// Enough shards cannot be placed any more. Nothing follows.
    Failed(StoreFailed),
}

impl Action {
    /// The shard that is to be sent, and to whom, if this is an upload.
    pub fn upload(&self) -> Option<(ShardIndex, NodeId)> {
        match self {
            Self::Upload { index, node } => Some((*index, *node)),
            _ => None,
        }
    }
}

/// What was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Each claimed shard with its holder; a shard whose first upload ended after all may have two.
    pub claimed: Vec<(ShardIndex, NodeId)>,
    /// Shards without a holder, at most n - [`Coding::placed_enough`].
    pub missing: Vec<ShardIndex>,
}

/// Too few nodes took a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{placed} of {n} shards could be placed, but at least {need} are needed")]
pub struct StoreFailed {
    /// Shards that were claimed.
    pub placed: usize,
    /// Shards in all.
    pub n: usize,
    /// Shards that make a put succeed.
    pub need: usize,
    /// What was claimed nevertheless, so that it can be undone.
    pub claimed: Vec<(ShardIndex, NodeId)>,
    /// Every upload that failed, in order.
    pub failures: Vec<(ShardIndex, NodeId, Failure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Uploading { since: Timestamp },
    WaitingToRetry { until: Timestamp },
    Claimed,
    GivenUp,
}

/// One shard and the node that it is meant for at the moment.
#[derive(Debug, Clone)]
struct Slot {
    place: Place,
    state: State,
    uploads: u32,
    uploads_to_node: u32,
    was_cut: bool,
}

/// The machine of one segment.
#[derive(Debug, Clone)]
pub struct Store {
    coding: Coding,
    slots: BTreeMap<ShardIndex, Slot>,
    /// Best first; each is used for one shard at most.
    spares: Vec<Place>,
    claimed: Vec<(ShardIndex, NodeId)>,
    upload_ms: Vec<u64>,
    failures: Vec<(ShardIndex, NodeId, Failure)>,
    timer_at: Option<Timestamp>,
    ended: bool,
}

impl Store {
    /// Starts to carry out `plan`.
    pub fn start(plan: PlacementPlan, coding: Coding, now: Timestamp) -> (Self, Vec<Action>) {
        let mut store = Self {
            coding,
            slots: BTreeMap::new(),
            spares: plan.spares,
            claimed: Vec::new(),
            upload_ms: Vec::new(),
            failures: Vec::new(),
            timer_at: None,
            ended: false,
        };
        let mut actions = Vec::new();
        for (index, place) in plan.slots {
            actions.push(Action::Upload { index, node: place.node });
            let state = State::Uploading { since: now };
            store.slots.insert(index, Slot { place, state, uploads: 1, uploads_to_node: 1, was_cut: false });
        }
        store.settle(now, &mut actions);
        (store, actions)
    }

    /// Takes in what happened and says what to do. After the end, nothing.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.ended {
            return actions;
        }
        match event {
            Event::Claimed { index, node } => self.claim(index, node, now, &mut actions),
            Event::Failed { index, node, failure } => self.fail(index, node, failure, now, &mut actions),
            Event::Timer => self.timer_at = None,
        }
        self.settle(now, &mut actions);
        actions
    }

    fn claim(&mut self, index: ShardIndex, node: NodeId, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.get_mut(&index) else { return };
        if self.claimed.contains(&(index, node)) {
            return;
        }
        self.claimed.push((index, node));
        if let State::Uploading { since } = slot.state {
            if slot.place.node == node {
                self.upload_ms.push(now.ms_since(since));
            } else {
                // The first node made it after all; the shard needs no other.
                actions.push(Action::Cancel { index, node: slot.place.node, slow: false });
            }
        }
        slot.state = State::Claimed;
    }

    fn fail(&mut self, index: ShardIndex, node: NodeId, failure: Failure, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.get(&index) else { return };
        let is_current = slot.place.node == node && matches!(slot.state, State::Uploading { .. });
        // An upload that was cancelled may still report how it ended.
        if !is_current {
            return;
        }
        self.failures.push((index, node, failure));
        if self.move_to_spare(index, now, actions) {
            return;
        }
        if let Some(slot) = self.slots.get_mut(&index) {
            let again = failure.is_passing()
                && slot.uploads_to_node < UPLOADS_PER_NODE_MAX
                && slot.uploads < UPLOADS_PER_SHARD_MAX;
            slot.state = if again { State::WaitingToRetry { until: now.after_ms(RETRY_MS) } } else { State::GivenUp };
        }
    }

    /// Gives the shard to the best spare, if there is one and the shard may be uploaded again: one whose domain has no
    /// shard of this segment before all others.
    fn move_to_spare(&mut self, index: ShardIndex, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let used = |domain: &Domain| {
            let mut others = self.slots.iter().filter(|(other, _)| **other != index).map(|(_, slot)| slot);
            others.any(|slot| slot.state != State::GivenUp && &slot.place.domain == domain)
        };
        let best = self.spares.iter().position(|spare| !used(&spare.domain)).unwrap_or(0);
        let Some(slot) = self.slots.get_mut(&index) else { return false };
        if self.spares.is_empty() || slot.uploads >= UPLOADS_PER_SHARD_MAX {
            return false;
        }
        slot.place = self.spares.remove(best);
        slot.state = State::Uploading { since: now };
        slot.uploads += 1;
        slot.uploads_to_node = 1;
        actions.push(Action::Upload { index, node: slot.place.node });
        true
    }

    /// Starts what is due, cuts what is too slow, and ends if there is nothing more to wait for.
    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (index, slot) in &mut self.slots {
            if matches!(slot.state, State::WaitingToRetry { until } if until <= now) {
                slot.state = State::Uploading { since: now };
                slot.uploads += 1;
                slot.uploads_to_node += 1;
                actions.push(Action::Upload { index: *index, node: slot.place.node });
            }
        }
        let need = usize::from(self.coding.placed_enough());
        let placed = self.count(|state| state == State::Claimed);
        if placed >= need {
            self.cut_stragglers(now, actions);
        }
        let open = self.count(|state| !matches!(state, State::Claimed | State::GivenUp));
        if placed + open < need {
            self.cancel_all(actions);
            self.ended = true;
            actions.push(Action::Failed(StoreFailed {
                placed,
                n: usize::from(self.coding.n()),
                need,
                claimed: std::mem::take(&mut self.claimed),
                failures: std::mem::take(&mut self.failures),
            }));
        } else if open == 0 {
            self.ended = true;
            let is_claimed =
                |index: &ShardIndex| self.slots.get(index).is_some_and(|slot| slot.state == State::Claimed);
            let missing = self.coding.indices().filter(|index| !is_claimed(index)).collect();
            actions.push(Action::Done(Placed { claimed: std::mem::take(&mut self.claimed), missing }));
        } else {
            self.set_timer(placed >= need, actions);
        }
    }

    fn cut_stragglers(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let indices: Vec<ShardIndex> = self.slots.keys().copied().collect();
        for index in indices {
            let is_due = self.slots.get(&index).and_then(|slot| self.cut_at(slot)).is_some_and(|at| at <= now);
            let Some(slot) = self.slots.get_mut(&index).filter(|_| is_due) else { continue };
            actions.push(Action::Cancel { index, node: slot.place.node, slow: true });
            let was_cut = std::mem::replace(&mut slot.was_cut, true);
            slot.state = State::GivenUp;
            if !was_cut {
                self.move_to_spare(index, now, actions);
            }
        }
    }

    /// When the upload of `slot`, if one runs, is too slow once enough shards are claimed.
    fn cut_at(&self, slot: &Slot) -> Option<Timestamp> {
        let State::Uploading { since } = slot.state else { return None };
        let mut sorted = self.upload_ms.clone();
        sorted.sort_unstable();
        let median_ms = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let patience_ms = if self.spares.is_empty() && slot.place.standing != Standing::RecentlyFailed {
            CUT_WITHOUT_SPARE_MS.max(CUT_WITHOUT_SPARE_MEDIANS.saturating_mul(median_ms))
        } else {
            CUT_MS.max(CUT_MEDIANS.saturating_mul(median_ms))
        };
        Some(since.after_ms(patience_ms))
    }

    fn set_timer(&mut self, enough: bool, actions: &mut Vec<Action>) {
        let due = self.slots.values().filter_map(|slot| match slot.state {
            State::WaitingToRetry { until } => Some(until),
            State::Uploading { .. } if enough => self.cut_at(slot),
            State::Uploading { .. } | State::Claimed | State::GivenUp => None,
        });
        let next = due.min();
        if next != self.timer_at
            && let Some(at) = next
        {
            self.timer_at = next;
            actions.push(Action::Timer { at });
        }
    }

    fn cancel_all(&self, actions: &mut Vec<Action>) {
        let uploading = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Uploading { .. }));
        actions.extend(uploading.map(|(index, slot)| Action::Cancel {
            index: *index,
            node: slot.place.node,
            slow: false,
        }));
    }

    fn count(&self, is: impl Fn(State) -> bool) -> usize {
        self.slots.values().filter(|slot| is(slot.state)).count()
    }
}
