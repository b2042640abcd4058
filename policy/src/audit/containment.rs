//! The challenges of one steward to one holder: asked, pinned, asked again, judged.
//!
//! A holder that lost 5% would time out on exactly those 5%, were silence free. So what is not proven stays pinned:
//! the same groups are asked for again, up to [`REPEATS_MAX`] times, and nothing else is asked in between. Each
//! repetition is made only when the holder was there to hear it, that is while it is connected or once it has shown
//! life again; a holder that is away is waited for ([`crate::life`] says for how long), and that is never held against
//! it. One that was there each time and proved nothing has failed.
//!
//! An answer is judged shard by shard, so whoever answers what it has and leaves out the rest is asked for the rest. Of
//! a shard that is asked for in several challenges, as one of a holder of few is, the first that fails ends the audit,
//! and it is held when the last is: one shard counts once, and an honest holder that lost one of few is not disqualified
//! for it.
//!
//! What a holder failed to prove it is asked for instead of anything else of that shard, until it proves that: of one
//! that lost 5%, the next group drawn is there 19 times of 20, and would make the shard healthy again before it is
//! rebuilt.

use std::collections::VecDeque;

use commonhold_protocol::{SegmentId, ShardIndex, Timestamp, ask::Refusal};

use super::{Answer, CHALLENGE_MAX, Outcome, Sample, schedule::Rate};

/// How often a pinned challenge is repeated.
pub const REPEATS_MAX: u32 = 3;
/// The most samples that wait to be asked; what is due beyond that is drawn again in another epoch.
pub const QUEUE_MAX: usize = 8192;
/// The most samples that are remembered since they were not proven, the last ones; who fails so many shards is trusted with
/// nothing long before.
pub const FAILED_MAX: usize = 1024;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These are due, or have never been audited. Ignored while a challenge is pinned.
    Due(Vec<Sample>),
    /// The holder answered the challenge; one answer for each sample of [`Action::Ask`], in its order. What is too
    /// few counts as [`Answer::Missing`].
    Answered(Vec<Answer>),
    /// The deadline has passed, or the ask failed otherwise.
    Unanswered {
        /// The holder was there all the same: its connection is open, or it answered something else since.
        connected: bool,
    },
    /// The holder was not asked after all: these segments are no duty of it any more, and the rest is to be asked anew.
    Gone(Vec<SegmentId>),
    /// What it sent of these to somebody who read them was wrong: they are what it is asked for when it is due.
    Failed(Vec<Sample>),
    /// The holder showed life: it connected, or answered or sent anything.
    Alive,
    /// The segment was dropped, or the holder has released its shard: not its duty any more.
    Forget(SegmentId),
    /// The moment that was asked for has come.
    Timer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Challenge the holder for these, with a fresh nonce. Ends with one [`Event::Answered`] or
    /// [`Event::Unanswered`], or with [`Event::Gone`].
    Ask {
        /// At most [`CHALLENGE_MAX`] of at most that many groups together.
        samples: Vec<Sample>,
        /// How often these were asked before, for [`super::deadline::deadline_ms`].
        asked_before: u32,
    },
    /// The audit of this shard has ended; never with [`Outcome::Unreachable`].
    Verdict {
        /// The segment.
        segment: SegmentId,
        /// The shard.
        index: ShardIndex,
        /// How.
        outcome: Outcome,
    },
    /// The holder says that it gave this shard up: its claim has ended, and counts neither way. Nobody gains by saying
    /// so, since whoever wants to give a claim up may do it at any time.
    Released {
        /// The segment.
        segment: SegmentId,
        /// The shard.
        index: ShardIndex,
    },
    /// The holder is away: [`Outcome::Unreachable`], for all that it holds.
    Unreachable,
    /// It failed: make all that it claims due, as far as this steward knows, instead of waiting for the schedule.
    /// At most once an epoch.
    Review,
    /// Say [`Event::Timer`] at this moment; any other moment that was asked for is void.
    Timer {
        /// When.
        at: Timestamp,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is asked.
    Free,
    /// A challenge is under way.
    Asked,
    /// The pinned challenge is repeated then.
    Waiting { until: Timestamp },
    /// The pinned challenge waits for a sign of life.
    Away,
}

/// The machine of one holder.
#[derive(Debug, Clone)]
pub struct Containment {
    rate: Rate,
    state: State,
    /// What is asked, or was and is not proven.
    pinned: Vec<Sample>,
    /// True once an asking has ended without proof of all of [`Self::pinned`].
    is_pinned: bool,
    repeats: u32,
    asked_at: Timestamp,
    /// Asked, and not the holder's duty any more: its answer counts neither way.
    forgotten: Vec<SegmentId>,
    queue: VecDeque<Sample>,
    reviewed_at: Option<Timestamp>,
    /// What it failed to prove, of each shard what it failed first. Kept when a shard is no duty of it
    /// any more: one that releases a shard and claims it again has not proven it by that.
    failed: VecDeque<Sample>,
}

impl Containment {
    /// Nothing asked yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: State::Free,
            pinned: Vec::new(),
            is_pinned: false,
            repeats: 0,
            asked_at: Timestamp(0),
            forgotten: Vec::new(),
            queue: VecDeque::new(),
            reviewed_at: None,
            failed: VecDeque::new(),
        }
    }

    /// True while a challenge is unanswered and will be repeated.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// True if nothing is asked, pinned or due.
    pub fn is_idle(&self) -> bool {
        self.state == State::Free && self.queue.is_empty()
    }

    /// What is pinned, to be written down: a restart must not free a holder of its challenge.
    pub fn pinned(&self) -> &[Sample] {
        if self.is_pinned { &self.pinned } else { &[] }
    }

    /// What it failed to prove and has not proven since, at most [`FAILED_MAX`] samples: to be written down as well.
    pub fn failed(&self) -> impl Iterator<Item = &Sample> {
        self.failed.iter()
    }

    /// Takes a challenge up again that was pinned before a restart, asked again when the holder shows life; and what was
    /// failed before it.
    pub fn restore(rate: Rate, pinned: Vec<Sample>, failed: Vec<Sample>) -> Self {
        let is_pinned = !pinned.is_empty();
        let state = if is_pinned { State::Away } else { State::Free };
        Self { state, pinned, is_pinned, failed: failed.into(), ..Self::new(rate) }
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Due(samples) if !self.is_pinned => {
                let room = QUEUE_MAX.saturating_sub(self.queue.len());
                for sample in samples.into_iter().take(room) {
                    let failed = self.failed.iter().filter(|failed| failed.is_of_shard(&sample));
                    let failed: Vec<Sample> = failed.filter(|failed| !self.queue.contains(failed)).cloned().collect();
                    if self.has_failed(&sample) {
                        self.queue.extend(failed);
                    } else {
                        self.queue.push_back(sample);
                    }
                }
            }
            Event::Answered(answers) if self.state == State::Asked => self.judge(&answers, now, &mut actions),
            Event::Unanswered { connected } if self.state == State::Asked => {
                self.is_pinned = true;
                self.state = State::Away;
                if !connected {
                    actions.push(Action::Unreachable);
                }
                self.unpin_forgotten();
                if connected && self.state == State::Away {
                    self.repeat_or_fail(now, &mut actions);
                }
            }
            Event::Gone(segments) if self.state == State::Asked => {
                segments.iter().for_each(|segment| self.forget(segment));
                self.unpin_forgotten();
                if self.state == State::Asked {
                    self.ask(now, &mut actions);
                }
            }
            Event::Alive if self.state == State::Away => self.repeat_or_fail(now, &mut actions),
            Event::Timer => {
                if let State::Waiting { until } = self.state {
                    if until <= now {
                        self.repeats += 1;
                        self.ask(now, &mut actions);
                    } else {
                        actions.push(Action::Timer { at: until });
                    }
                }
            }
            Event::Failed(samples) => samples.into_iter().for_each(|sample| remember(&mut self.failed, sample)),
            Event::Forget(segment) => self.forget(&segment),
            Event::Due(_) | Event::Answered(_) | Event::Unanswered { .. } | Event::Gone(_) | Event::Alive => {}
        }
        if self.state == State::Free {
            self.next(now, &mut actions);
        }
        actions
    }

    fn judge(&mut self, answers: &[Answer], now: Timestamp, actions: &mut Vec<Action>) {
        let mut answers = answers.iter();
        let mut any_failed = false;
        let (failed, queue) = (&mut self.failed, &mut self.queue);
        let mut ended: Vec<Sample> = Vec::new();
        self.pinned.retain(|sample| {
            let answer = answers.next().copied().unwrap_or(Answer::Missing);
            if self.forgotten.contains(&sample.segment) || ended.iter().any(|ended| ended.is_of_shard(sample)) {
                return false;
            }
            let outcome = match answer {
                Answer::Held => Outcome::Held,
                Answer::Wrong => Outcome::Wrong,
                Answer::Contradicted => Outcome::Contradicted,
                // It says itself that it will never prove it.
                Answer::Refused(Refusal::Unknown | Refusal::Damaged) => Outcome::Refused,
                Answer::Refused(Refusal::Released) => {
                    actions.push(Action::Released { segment: sample.segment, index: sample.index });
                    return false;
                }
                Answer::Refused(_) | Answer::Missing => return true,
            };
            match outcome {
                Outcome::Wrong | Outcome::Refused => {
                    any_failed = true;
                    if !failed.iter().any(|failed| failed.is_of_shard(sample)) {
                        remember(failed, sample.clone());
                    }
                }
                Outcome::Held => {
                    failed.retain(|failed| failed != sample);
                    // The rest of what it failed, one that was drawn before that, or the rest of the audit.
                    if failed.iter().chain(queue.iter()).any(|other| other.is_of_shard(sample)) {
                        return false;
                    }
                }
                Outcome::Contradicted | Outcome::Unreachable => {}
            }
            if outcome != Outcome::Held {
                ended.push(sample.clone());
            }
            push_once(actions, Action::Verdict { segment: sample.segment, index: sample.index, outcome });
            false
        });
        let is_over = |sample: &Sample| ended.iter().any(|ended| ended.is_of_shard(sample));
        self.pinned.retain(|sample| !is_over(sample));
        self.queue.retain(|sample| !is_over(sample));
        if any_failed {
            self.review(now, actions);
        }
        self.forgotten.clear();
        if self.pinned.is_empty() {
            self.free();
        } else {
            self.is_pinned = true;
            self.repeat_or_fail(now, actions);
        }
    }

    /// The holder is there, and what is pinned is not proven.
    fn repeat_or_fail(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.repeats < REPEATS_MAX {
            let until = self.asked_at.after_ms(self.rate.again_ms(self.repeats)).max(now);
            self.state = State::Waiting { until };
            actions.push(Action::Timer { at: until });
            return;
        }
        for sample in std::mem::take(&mut self.pinned) {
            let Sample { segment, index, .. } = sample;
            self.queue.retain(|queued| !queued.is_of_shard(&sample));
            if !self.has_failed(&sample) {
                remember(&mut self.failed, sample);
            }
            push_once(actions, Action::Verdict { segment, index, outcome: Outcome::Refused });
        }
        self.review(now, actions);
        self.free();
    }

    fn review(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.reviewed_at.is_none_or(|at| now.ms_since(at) >= self.rate.epoch_ms()) {
            self.reviewed_at = Some(now);
            actions.push(Action::Review);
        }
    }

    fn has_failed(&self, sample: &Sample) -> bool {
        self.failed.iter().any(|failed| failed.is_of_shard(sample))
    }

    fn forget(&mut self, segment: &SegmentId) {
        self.queue.retain(|sample| sample.segment != *segment);
        if self.pinned.iter().any(|sample| sample.segment == *segment) {
            self.forgotten.push(*segment);
            // An answer that is under way has to find the samples that it answers.
            if self.state != State::Asked {
                self.unpin_forgotten();
            }
        }
    }

    fn unpin_forgotten(&mut self) {
        let forgotten = std::mem::take(&mut self.forgotten);
        self.pinned.retain(|sample| !forgotten.contains(&sample.segment));
        if self.pinned.is_empty() {
            self.free();
        }
    }

    fn free(&mut self) {
        self.state = State::Free;
        self.is_pinned = false;
        self.repeats = 0;
        self.forgotten.clear();
    }

    fn next(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut groups = 0;
        while let Some(sample) = self.queue.front() {
            groups += sample.groups.len();
            if self.pinned.len() == CHALLENGE_MAX || (groups > CHALLENGE_MAX && !self.pinned.is_empty()) {
                break;
            }
            self.pinned.extend(self.queue.pop_front());
        }
        if !self.pinned.is_empty() {
            self.ask(now, actions);
        }
    }

    fn ask(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.state = State::Asked;
        self.asked_at = now;
        actions.push(Action::Ask { samples: self.pinned.clone(), asked_before: self.repeats });
    }
}

fn push_once(actions: &mut Vec<Action>, action: Action) {
    if !actions.contains(&action) {
        actions.push(action);
    }
}

fn remember(failed: &mut VecDeque<Sample>, sample: Sample) {
    if failed.contains(&sample) {
        return;
    }
    if failed.len() >= FAILED_MAX {
        failed.pop_front();
    }
    failed.push_back(sample);
}
