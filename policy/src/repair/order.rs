//! Which steward repairs a segment, and when: no consensus, no leader.
//!
//! Each waits by its rank among the record's stewards, so that the first has a head start, and then for its turn among
//! the repairs that it has to do; when that has come it looks at the others' records, and acts at once: one repairs, the
//! others see that it is done. If the first is dead, the second's time comes; if it has much to do, the second does some
//! of it. One that finds others at work waits one back-off more, up to `WAITS_MAX` times for each and up to
//! `STEWARDS` times for all: a liar that is always at work delays a repair, and cannot prevent it. A claim of what is missing that has yet to be audited is
//! waited for in the same way. One that knows too few
//! shards to rebuild any looks all the same, less and less often: others may know of more.

use commonhold_protocol::{NodeId, Timestamp};

use super::Decision;
use crate::stewards::STEWARDS;

/// A repair that failed is tried again after the back-off, doubled each time, up to this many times.
const DOUBLINGS_MAX: u8 = 6;
/// Back-offs that a steward which is at work is waited for.
const WAITS_MAX: usize = 4;
/// Stewards that find each other at work look again this part of a back-off apart, by rank.
const APART_PARTS: u64 = 8;

/// Times of repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a segment above its threshold may stay below n: `[repair] top-up`.
    pub top_up_ms: u64,
    /// A rank's head start: longer than a repair and the look before it take.
    pub back_off_ms: u64,
}

impl Times {
    /// The times for these settings: the head start is a small part of the grace time, 10 minutes of 12 hours, since
    /// what was waited for so long can wait for the next steward too.
    pub fn new(top_up_ms: u64, grace_ms: u64) -> Self {
        Self { top_up_ms, back_off_ms: (grace_ms / 72).clamp(2_000, 10 * 60 * 1000) }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The counters, the room or the stewards changed.
    Assessed {
        /// What [`super::decide`] says.
        decision: Decision,
        /// This steward's place among the record's stewards, 0 first.
        rank: usize,
    },
    /// The others' records were looked at and merged.
    Looked {
        /// What [`super::decide`] says after that.
        decision: Decision,
        /// Who makes a repair needless, by its own word: a steward that says it is repairing this segment, or a node that
        /// claims what is missing and has yet to be audited.
        busy: Option<NodeId>,
    },
    /// The repair is done, as far as it went; its new claims are assessed next.
    Repaired,
    /// The repair failed.
    Failed,
    /// The moment that was asked for has come.
    Timer,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Say [`Event::Timer`] at this moment; any other moment that was asked for is void.
    Timer {
        /// When.
        at: Timestamp,
    },
    /// When its turn has come, fetch the record from the other stewards, and merge it. Ends with [`Event::Looked`], or
    /// with [`Event::Failed`] if too many wait already.
    Look {
        /// Its turn is before those that are not urgent.
        urgent: bool,
    },
    /// It has become urgent while it waited for its turn to look: that comes before all that is not urgent.
    Hurry,
    /// Repair at once. Ends with [`Event::Repaired`] or [`Event::Failed`].
    Repair,
    /// It is not needed any more: end the repair that runs or waits for its turn. Nothing follows it.
    Stop,
}

fn can_be_repaired(decision: Decision) -> bool {
    matches!(decision, Decision::Now | Decision::TopUp)
}

/// Where too few shards are known, others may know of more: a steward that was not there when a segment was repaired has
/// the record of the dead, and would hold the segment for lost.
fn must_look(decision: Decision) -> bool {
    matches!(decision, Decision::OutOfReach { .. })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { until: Timestamp },
    Looking,
    Repairing,
}

/// The machine of one segment at one steward.
#[derive(Debug, Clone)]
pub struct RepairOrder {
    times: Times,
    state: State,
    decision: Decision,
    /// There are [`STEWARDS`] at most.
    rank: u8,
    /// Since when it needs repair; moves on when another reason comes up or a repair failed.
    since: Option<Timestamp>,
    failures: u8,
    /// Not before this.
    not_before: Timestamp,
    /// Who was found busy, once for each back-off.
    waited_for: Vec<NodeId>,
}

impl RepairOrder {
    /// A segment that needs nothing.
    pub fn new(times: Times) -> Self {
        Self {
            times,
            state: State::Idle,
            decision: Decision::Whole,
            rank: 0,
            since: None,
            failures: 0,
            not_before: Timestamp(0),
            waited_for: Vec::new(),
        }
    }

    /// A segment that has waited for its top-up since then, as was known before a restart: else nodes that restart each
    /// month would never top anything up.
    pub fn resumed(times: Times, since: Timestamp) -> Self {
        Self { since: Some(since), decision: Decision::TopUp, ..Self::new(times) }
    }

    /// Since when it waits for its top-up; none if it does not.
    pub fn waits_since(&self) -> Option<Timestamp> {
        self.since.filter(|_| self.decision == Decision::TopUp)
    }

    /// The moment that was asked for last, if it still counts.
    pub fn due(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Idle | State::Looking | State::Repairing => None,
        }
    }

    /// True if nothing is to be done, so that the machine can be forgotten.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle && self.since.is_none()
    }

    /// True while this steward repairs.
    pub fn is_repairing(&self) -> bool {
        self.state == State::Repairing
    }

    /// True while it looks, or waits for its turn to look, at what it would repair next.
    pub fn is_about_to_repair(&self) -> bool {
        self.state == State::Looking && can_be_repaired(self.decision)
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::Assessed { decision, rank } => {
                self.rank = u8::try_from(rank).unwrap_or(u8::MAX);
                self.assess(decision, now)
            }
            Event::Looked { decision, busy } if self.state == State::Looking => {
                self.state = State::Idle;
                self.looked(decision, busy, now)
            }
            Event::Repaired if self.state == State::Repairing => {
                self.rest();
                Vec::new()
            }
            Event::Failed if matches!(self.state, State::Looking | State::Repairing) => {
                self.state = State::Idle;
                self.back_off(now)
            }
            Event::Timer => match self.state {
                State::Waiting { until } if until <= now => {
                    self.state = State::Looking;
                    vec![Action::Look { urgent: self.decision == Decision::Now }]
                }
                State::Waiting { until } => vec![Action::Timer { at: until }],
                State::Idle | State::Looking | State::Repairing => Vec::new(),
            },
            Event::Looked { .. } | Event::Repaired | Event::Failed => Vec::new(),
        }
    }

    fn assess(&mut self, decision: Decision, now: Timestamp) -> Vec<Action> {
        let was = std::mem::replace(&mut self.decision, decision);
        let mut actions = Vec::new();
        if !can_be_repaired(decision) {
            let looks_on = self.state == State::Looking && must_look(decision);
            if matches!(self.state, State::Looking | State::Repairing) && !looks_on {
                actions.push(Action::Stop);
            }
            if !must_look(decision) {
                self.rest();
                return actions;
            }
            if self.state == State::Repairing {
                self.state = State::Idle;
            }
        }
        if can_be_repaired(decision) != can_be_repaired(was) {
            self.begin_anew();
        }
        // That it became urgent starts the ranks' head starts anew; that it is less urgent again does not.
        if self.since.is_none() || (decision == Decision::Now && was != Decision::Now) {
            self.since = Some(now);
        }
        match self.state {
            State::Idle | State::Waiting { .. } => actions.extend(self.wait(now)),
            State::Looking if decision == Decision::Now && was != Decision::Now => actions.push(Action::Hurry),
            State::Looking | State::Repairing => {}
        }
        actions
    }

    fn looked(&mut self, decision: Decision, busy: Option<NodeId>, now: Timestamp) -> Vec<Action> {
        let mut actions = self.assess(decision, now);
        let State::Waiting { until } = self.state else { return actions };
        if !can_be_repaired(self.decision) {
            actions.extend(self.back_off(now));
            return actions;
        }
        let waits = |other: &NodeId| self.waited_for.iter().filter(|waited_for| *waited_for == other).count();
        if let Some(other) = busy.filter(|other| waits(other) < WAITS_MAX)
            && self.waited_for.len() < STEWARDS
        {
            self.waited_for.push(other);
            // Two that look at one moment find each other at work: the first in rank is to look first the next time.
            let apart_ms = self.times.back_off_ms / APART_PARTS * u64::from(self.rank);
            self.not_before = now.after_ms(self.times.back_off_ms + apart_ms);
            actions.extend(self.wait(now));
        } else if until <= now {
            self.state = State::Repairing;
            actions = vec![Action::Repair];
        }
        actions
    }

    fn wait(&mut self, now: Timestamp) -> Vec<Action> {
        let top_up_ms = if self.decision == Decision::TopUp { self.times.top_up_ms } else { 0 };
        let head_start_ms = self.times.back_off_ms.saturating_mul(self.rank.into());
        let since = self.since.unwrap_or(now);
        let until = since.after_ms(top_up_ms).after_ms(head_start_ms).max(self.not_before).max(now);
        if self.state == (State::Waiting { until }) {
            return Vec::new();
        }
        self.state = State::Waiting { until };
        vec![Action::Timer { at: until }]
    }

    /// Waits longer each time.
    fn back_off(&mut self, now: Timestamp) -> Vec<Action> {
        let wait_ms = self.times.back_off_ms << self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.after_ms(wait_ms);
        self.wait(now)
    }

    fn rest(&mut self) {
        self.state = State::Idle;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.since = None;
        self.failures = 0;
        self.not_before = Timestamp(0);
        self.waited_for.clear();
    }
}
