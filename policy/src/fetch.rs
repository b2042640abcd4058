//! Reading from the shards of one segment: whom to ask, when to ask others as well, and when to give up.
//!
//! The code is systematic, so bytes are first read from just the data shards that they lie in. Where such a shard has
//! no good holder left, or its holder is slow, the same columns of any k shards restore it. Only as many are asked as
//! are needed; a few more only while some are slow. Hinted holders are asked first; stewards once, when the hints do
//! not suffice. It ends with exactly one [`Action::Complete`] or [`Action::Unavailable`], the latter only after every
//! known holder was tried.
//!
//! It never asks a node for columns that it gave, nor again after it failed, with one exception: rather than report
//! data as unavailable, it asks once more where the failure may pass. It never looks at bytes: whoever drives it
//! verifies them against the shard's root before it says [`Event::Got`], and sees to it that every ask ends within
//! bounded time.

mod sources;

use std::collections::BTreeMap;

use commonhold_protocol::{Coding, NodeId, ShardIndex, Timestamp, record::CLAIMS_PER_INDEX_MAX};

use crate::{Failure, Standing, stewards::STEWARDS};
use sources::Sources;

/// The most holders of one shard that are considered: hints, and all the claims that the stewards of a record may name,
/// or some of them could push out whom another one names.
pub const HOLDERS_PER_SHARD_MAX: usize = 8 + STEWARDS * CLAIMS_PER_INDEX_MAX;
/// Once something has arrived, an ask is slow after this long, and after twice the median of those that were
/// answered.
pub const SLOW_MS: u64 = 500;
/// Before that, a slow line cannot be told from a slow holder: an ask is slow after this long, and the time that its
/// bytes take at [`SLOW_BYTES_PER_MS`].
pub const SLOW_FIRST_MS: u64 = 2_000;
/// A quarter of a MB/s: a share of a home line on which several segments are read at once.
pub const SLOW_BYTES_PER_MS: u64 = 256;
/// Asks that are given up on as slow at once; further ones only as long again after that, or a stall of our own line
/// would double what we ask of it.
const SLOW_AT_ONCE: usize = 2;
/// How long to wait before asking again those whose failure may pass.
const RETRY_MS: u64 = 1_000;

/// A range of bytes within shards: the same columns of k shards restore those of any other. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Columns {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl Columns {
    /// How many bytes of each shard.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True if `other` lies within.
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The least columns that cover both.
    pub fn join(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The segment's coding, as its manifest has it.
    pub coding: Coding,
    /// Data shards with the columns that are wanted of each.
    pub shards: BTreeMap<ShardIndex, Columns>,
}

/// Who is said to hold each shard.
pub type Holders = BTreeMap<ShardIndex, Vec<(NodeId, Standing)>>;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The columns that this node was asked for are here, and fit the shard's root.
    Got {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
    },
    /// The ask ended otherwise.
    Failed {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
        /// How.
        failure: Failure,
    },
    /// The stewards' answer, empty if none could be reached.
    HoldersLearned(Holders),
    /// The moment that was asked for has come.
    Timer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask this node for these columns of this shard. Ends with one [`Event::Got`] or [`Event::Failed`], or a cancel.
    Ask {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
        /// Which bytes of it.
        columns: Columns,
    },
    /// This ask's answer is not needed any more.
    Cancel {
        /// Which shard.
        index: ShardIndex,
        /// Which node.
        node: NodeId,
        /// It was so slow that others were asked instead: reason enough to ask it last for a while.
        slow: bool,
    },
    /// Ask the segment's stewards for its record. Ends with one [`Event::HoldersLearned`]. At most once.
    AskStewards,
    /// Say [`Event::Timer`] at this moment; any other moment that was asked for is void.
    Timer {
        /// When.
        at: Timestamp,
    },
    /// All that was wanted is here, or can be restored from what is. Nothing follows.
    Complete(Complete),
    /// Too few shards can be reached. Nothing follows.
    Unavailable(Unavailable),
}

/// How what was wanted is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complete {
    /// All of it arrived from data shards.
    Direct,
    /// Some of it has to be restored.
    Decode {
        /// The wanted shards that did not arrive themselves.
        missing: Vec<ShardIndex>,
        /// The columns to restore, which cover what is wanted of the missing shards.
        columns: Columns,
        /// k shards of which these columns are here.
        from: Vec<ShardIndex>,
    },
}

/// Too few shards can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reachable} shards can be reached, but {needed} are needed")]
pub struct Unavailable {
    /// Shards that could be read.
    pub reachable: usize,
    /// Shards that restore the segment.
    pub needed: usize,
    /// Every ask that failed, in order.
    pub failures: Vec<(ShardIndex, NodeId, Failure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stewards {
    NotAsked,
    Asked,
    Answered,
}

/// The second chance of holders whose failure may pass.
#[derive(Debug, Clone, Copy)]
enum Retry {
    NotNeeded,
    At(Timestamp),
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Each wanted shard from its holders.
    Direct,
    /// These columns of any k shards.
    Decode(Columns),
}

/// The machine of one read from one segment.
#[derive(Debug, Clone)]
pub struct Fetch {
    want: Want,
    sources: Sources,
    mode: Mode,
    stewards: Stewards,
    retry: Retry,
    /// How long the answers took, in order.
    answer_ms: Vec<u64>,
    failures: Vec<(ShardIndex, NodeId, Failure)>,
    slow_marked_at: Option<Timestamp>,
    timer_at: Option<Timestamp>,
    ended: bool,
}

impl Fetch {
    /// Starts to read, from hinted holders.
    pub fn start(want: Want, holders: Holders, now: Timestamp) -> (Self, Vec<Action>) {
        let mut fetch = Self {
            sources: Sources::new(want.coding.n()),
            want,
            mode: Mode::Direct,
            stewards: Stewards::NotAsked,
            retry: Retry::NotNeeded,
            answer_ms: Vec::new(),
            failures: Vec::new(),
            slow_marked_at: None,
            timer_at: None,
            ended: false,
        };
        fetch.sources.learn(holders);
        let mut actions = Vec::new();
        fetch.settle(now, &mut actions);
        (fetch, actions)
    }

    /// Takes in what happened and says what to do. After the end, nothing.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.ended {
            return actions;
        }
        match event {
            Event::Got { index, node } => {
                if let Some(took_ms) = self.sources.answered(index, node, now) {
                    let place = self.answer_ms.partition_point(|other_ms| *other_ms < took_ms);
                    self.answer_ms.insert(place, took_ms);
                }
            }
            Event::Failed { index, node, failure } => {
                if self.sources.failed(index, node, failure) {
                    self.failures.push((index, node, failure));
                }
            }
            Event::HoldersLearned(holders) => {
                self.sources.learn(holders);
                self.stewards = Stewards::Answered;
            }
            Event::Timer => self.timer_at = None,
        }
        self.settle(now, &mut actions);
        actions
    }

    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.mark_slow(now);
        if self.missing().next().is_none() {
            return self.end(Action::Complete(Complete::Direct), actions);
        }
        if let Mode::Direct = self.mode {
            self.read_directly(now, actions);
        }
        if let Mode::Decode(columns) = self.mode {
            self.gather(columns, now, actions);
        }
        if !self.ended {
            self.set_timer(actions);
        }
    }

    /// Wanted shards of which the wanted columns are not here.
    fn missing(&self) -> impl Iterator<Item = (ShardIndex, Columns)> {
        let wanted = self.want.shards.iter().map(|(index, columns)| (*index, *columns));
        wanted.filter(|(index, columns)| !self.sources.has(*index, *columns))
    }

    /// Asks for each missing shard, unless one has no good holder and decoding is the better way.
    fn read_directly(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut asks = Vec::new();
        let (mut only_bad, mut no_holder) = (false, false);
        for (index, columns) in self.missing() {
            if self.sources.is_coming(index, columns) {
                continue;
            }
            match self.sources.best(index, columns) {
                Some((node, standing)) => {
                    only_bad |= standing == Standing::RecentlyFailed;
                    asks.push((index, node, columns));
                }
                None => no_holder = true,
            }
        }
        if only_bad || no_holder {
            let Some(columns) = self.missing().map(|(_, columns)| columns).reduce(Columns::join) else { return };
            let k = usize::from(self.want.coding.k());
            let (good, all) = self.usable(columns);
            if good >= k || (no_holder && (all >= k || self.stewards == Stewards::Answered)) {
                // Answers to narrower asks say nothing about how long these take.
                if columns.bytes() > self.sources.widest_got() {
                    self.answer_ms.clear();
                }
                self.mode = Mode::Decode(columns);
                return;
            }
            if no_holder {
                self.ask_stewards(actions);
            }
        }
        for (index, node, columns) in asks {
            self.ask(index, node, columns, now, actions);
        }
    }

    /// Of how many shards these columns are here, coming, or can be asked for: from holders that did not fail lately,
    /// and from any.
    fn usable(&self, columns: Columns) -> (usize, usize) {
        let (mut good, mut all) = (0, 0);
        for index in self.sources.indices() {
            let at_hand = self.sources.has(index, columns) || self.sources.is_coming(index, columns);
            let best = self.sources.best(index, columns);
            good += usize::from(at_hand || best.is_some_and(|(_, standing)| standing != Standing::RecentlyFailed));
            all += usize::from(at_hand || best.is_some());
        }
        (good, all)
    }

    /// Asks for the same columns of as many shards as restore the missing ones.
    fn gather(&mut self, columns: Columns, now: Timestamp, actions: &mut Vec<Action>) {
        let k = usize::from(self.want.coding.k());
        let missing: Vec<ShardIndex> = self.missing().map(|(index, _)| index).collect();
        let (mut have, mut coming, mut askable) = (Vec::new(), 0, Vec::new());
        for index in self.sources.indices() {
            if self.sources.has(index, columns) {
                have.push(index);
            } else if self.sources.is_coming(index, columns) {
                coming += 1;
            } else if let Some((node, standing)) = self.sources.best(index, columns) {
                let failed = standing == Standing::RecentlyFailed;
                // A missing shard itself spares the decoding; data shards make it cheaper, and come first by index.
                askable.push(((failed, !missing.contains(&index), standing, index), node));
            }
        }
        if have.len() >= k {
            have.truncate(k);
            return self.end(Action::Complete(Complete::Decode { missing, columns, from: have }), actions);
        }
        let short = (k - have.len()).saturating_sub(coming);
        askable.sort_unstable();
        for ((.., index), node) in askable.iter().take(short).copied() {
            self.ask(index, node, columns, now, actions);
        }
        if askable.len() < short {
            self.ask_stewards(actions);
            if self.stewards == Stewards::Answered && self.sources.running().next().is_none() {
                self.try_again_or_give_up(have.len(), now, actions);
            }
        }
    }

    /// Nobody is left to ask, nothing is coming, and it is not enough.
    fn try_again_or_give_up(&mut self, reachable: usize, now: Timestamp, actions: &mut Vec<Action>) {
        match self.retry {
            Retry::NotNeeded if self.sources.may_pass() => self.retry = Retry::At(now.after_ms(RETRY_MS)),
            Retry::At(at) if now < at => {}
            Retry::At(_) => {
                self.retry = Retry::Done;
                for (index, node, columns) in self.sources.forgive() {
                    self.ask(index, node, columns, now, actions);
                }
            }
            Retry::NotNeeded | Retry::Done => {
                let failures = std::mem::take(&mut self.failures);
                let needed = usize::from(self.want.coding.k());
                self.end(Action::Unavailable(Unavailable { reachable, needed, failures }), actions);
            }
        }
    }

    fn ask(&mut self, index: ShardIndex, node: NodeId, columns: Columns, now: Timestamp, actions: &mut Vec<Action>) {
        self.sources.ask(index, node, columns, now);
        actions.push(Action::Ask { index, node, columns });
    }

    fn ask_stewards(&mut self, actions: &mut Vec<Action>) {
        if self.stewards == Stewards::NotAsked {
            self.stewards = Stewards::Asked;
            actions.push(Action::AskStewards);
        }
    }

    fn end(&mut self, outcome: Action, actions: &mut Vec<Action>) {
        self.ended = true;
        actions.extend(self.sources.running().map(|ask| Action::Cancel {
            index: ask.index,
            node: ask.node,
            slow: ask.slow,
        }));
        actions.push(outcome);
    }

    /// How long an ask may run before others are asked as well.
    fn patience_ms(&self, columns: Columns) -> u64 {
        match self.answer_ms.get(self.answer_ms.len() / 2) {
            Some(median_ms) => SLOW_MS.max(median_ms.saturating_mul(2)),
            None => SLOW_FIRST_MS + columns.bytes() / SLOW_BYTES_PER_MS,
        }
    }

    /// When each ask that runs becomes slow.
    fn slow_from(&self) -> impl Iterator<Item = (Timestamp, ShardIndex, NodeId)> {
        self.sources.running().filter(|ask| !ask.slow).map(|ask| {
            let patience_ms = self.patience_ms(ask.columns);
            let again = self.slow_marked_at.map_or(Timestamp(0), |at| at.after_ms(patience_ms));
            (ask.since.after_ms(patience_ms).max(again), ask.index, ask.node)
        })
    }

    fn mark_slow(&mut self, now: Timestamp) {
        let mut due: Vec<_> = self.slow_from().filter(|(at, ..)| *at <= now).collect();
        // The slowest first.
        due.sort_unstable();
        for (_, index, node) in due.into_iter().take(SLOW_AT_ONCE) {
            self.sources.mark_slow(index, node);
            self.slow_marked_at = Some(now);
        }
    }

    fn set_timer(&mut self, actions: &mut Vec<Action>) {
        let next = match self.retry {
            Retry::At(at) if self.sources.running().next().is_none() => Some(at),
            Retry::At(_) | Retry::NotNeeded | Retry::Done => self.slow_from().map(|(at, ..)| at).min(),
        };
        if next != self.timer_at
            && let Some(at) = next
        {
            self.timer_at = next;
            actions.push(Action::Timer { at });
        }
    }
}
