//! A node's life as another node sees it: up, suspect, lost.
//!
//! Silence makes suspect at once and lost only after the grace time, since volunteers sleep at night. A node that came
//! back from long absences before gets more time, up to [`STRETCH_MAX`] times the grace: one that sleeps eight hours
//! each night is given up once at most, not every night. A node that returns from being lost is up again, but what it
//! holds has to be audited anew ([`crate::segment_health`]).
//!
//! Whoever watches may restart or sleep each day itself: the silence that it was awake to see adds up over that, or it
//! would never give anybody up.
//!
//! It is one machine for each node, whatever it holds: the cost of a loss is per lost node.

use commonhold_protocol::Timestamp;

/// The grace time is stretched at most so far: how long data may stay thinner because of a node that comes and goes.
pub const STRETCH_MAX: u64 = 4;
/// An absence shorter than the grace time by this factor says nothing about how a node sleeps, only about its link.
const NOTED_PARTS: u64 = 8;
/// A timer that comes later than the grace time divided by this: we were away ourselves.
const LATE_PARTS: u64 = 4;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The node answered, connected or sent anything.
    Seen,
    /// It cannot be reached, or its connection has ended.
    Silent {
        /// The last sign of it. Silence begins before it is noticed: to learn how long a node sleeps, what counts is when
        /// it was last there, or one whose sleep was noticed late is given up when the next is noticed at once.
        heard_at: Timestamp,
    },
    /// It was not the node that was away but we ([`we_are_cut_off`], or our machine slept): its time starts anew.
    WeWereAway,
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
    /// What it holds is suspect.
    Suspect,
    /// What it holds is lost.
    Lost,
    /// It is up again.
    Returned {
        /// It was lost meanwhile.
        was_lost: bool,
    },
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is there.
    Up,
    /// It has been silent since then, not yet for long enough.
    Suspect {
        /// Since when.
        since: Timestamp,
    },
    /// It has been silent since then, and for too long.
    Lost {
        /// Since when.
        since: Timestamp,
    },
}

/// The machine of one node.
#[derive(Debug, Clone)]
pub struct NodeLife {
    life: Life,
    grace_ms: u64,
    absence_ms: u64,
    lost_at: Timestamp,
    /// When the silence was noticed.
    noticed_at: Timestamp,
    /// When it was last asked for in vain.
    asked_at: Timestamp,
    /// The silence between such moments.
    silent_ms: u64,
}

impl NodeLife {
    /// A node that is there now. `grace_ms`: `[audit] grace`.
    pub fn new(grace_ms: u64) -> Self {
        let never = Timestamp(0);
        let (absence_ms, silent_ms) = (0, 0);
        Self { life: Life::Up, grace_ms, absence_ms, lost_at: never, noticed_at: never, asked_at: never, silent_ms }
    }

    /// A node of which was written down how long it stays away, and how long it had been silent. It may be there by now.
    pub fn restore(grace_ms: u64, absence_ms: u64, silent_ms: u64) -> Self {
        Self { absence_ms, silent_ms, ..Self::new(grace_ms) }
    }

    /// How long it has been silent while we were awake, in milliseconds: to be written down.
    pub fn silent_ms(&self) -> u64 {
        match self.life {
            Life::Up | Life::Suspect { .. } => self.silent_ms,
            Life::Lost { .. } => self.grace_ms(),
        }
    }

    /// How long it stays away, as its returns have shown, in milliseconds; 0 if it was never away for long.
    pub fn absence_ms(&self) -> u64 {
        self.absence_ms
    }

    /// Where it is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// How long it may be silent before it counts as lost: half as long again as it was away before, between the
    /// grace time and [`STRETCH_MAX`] times that.
    pub fn grace_ms(&self) -> u64 {
        let stretched = self.absence_ms.saturating_mul(3) / 2;
        stretched.clamp(self.grace_ms, self.grace_ms.saturating_mul(STRETCH_MAX))
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match (event, self.life) {
            (Event::Seen, Life::Up) => {
                self.silent_ms = 0;
                Vec::new()
            }
            (Event::Seen, Life::Suspect { since }) => self.returned(since, now, false),
            (Event::Seen, Life::Lost { since }) => self.returned(since, now, true),
            (Event::Silent { heard_at }, Life::Up) => {
                (self.noticed_at, self.asked_at) = (now, now);
                let since = Timestamp(heard_at.min(now).0.saturating_sub(self.silent_ms));
                let timer = self.suspect(now, since);
                vec![Action::Suspect, timer]
            }
            (Event::Silent { .. }, Life::Suspect { .. }) => {
                // It is asked for often: between two moments further apart we were away ourselves.
                let silent_ms = now.ms_since(self.asked_at).min(self.grace_ms / NOTED_PARTS);
                self.silent_ms = self.silent_ms.saturating_add(silent_ms);
                self.asked_at = now;
                Vec::new()
            }
            (Event::Timer, Life::Suspect { .. }) if now < self.lost_at => vec![Action::Timer { at: self.lost_at }],
            (Event::Timer, Life::Suspect { since }) => {
                if now.ms_since(self.lost_at) > (self.grace_ms / LATE_PARTS).max(1_000) {
                    return vec![self.suspect(now, now)];
                }
                self.life = Life::Lost { since };
                vec![Action::Lost]
            }
            (Event::WeWereAway, Life::Suspect { .. }) => {
                self.silent_ms = 0;
                vec![self.suspect(now, now)]
            }
            (Event::Silent { .. } | Event::WeWereAway, Life::Lost { .. })
            | (Event::Timer, Life::Up | Life::Lost { .. })
            | (Event::WeWereAway, Life::Up) => Vec::new(),
        }
    }

    fn suspect(&mut self, now: Timestamp, since: Timestamp) -> Action {
        self.life = Life::Suspect { since };
        let left_ms = self.grace_ms().saturating_sub(self.silent_ms);
        self.lost_at = now.after_ms(left_ms.max(self.grace_ms / NOTED_PARTS));
        Action::Timer { at: self.lost_at }
    }

    fn returned(&mut self, since: Timestamp, now: Timestamp, was_lost: bool) -> Vec<Action> {
        let absent_ms = now.ms_since(since).min(self.grace_ms.saturating_mul(STRETCH_MAX));
        self.silent_ms = 0;
        // Only what was noticed counts here, or each answer that is lost would look like an absence as long as the time
        // between two questions.
        if now.ms_since(self.noticed_at) >= self.grace_ms / NOTED_PARTS {
            // The longest counts, and fades by an eighth with each shorter one.
            self.absence_ms = absent_ms.max(self.absence_ms / 8 * 7);
        }
        self.life = Life::Up;
        vec![Action::Returned { was_lost }]
    }
}

/// Since when a node has been silent that was last heard of at `heard_at`, where silence is noticed within `noticed_ms`:
/// whoever was not asked for longer than that was not asked since we were away ourselves.
pub fn silent_since(now: Timestamp, heard_at: Timestamp, noticed_ms: u64) -> Timestamp {
    heard_at.max(Timestamp(now.0.saturating_sub(noticed_ms)))
}

/// When nodes are looked for that are known by name only: one every two seconds, sooner where the grace time is seconds,
/// but for those that are found.
///
/// To sign claims in as many names as one likes costs nothing, and to look for a node that does not exist is a walk
/// through the network, with work for all that it leads past. Whoever is really there makes room for the next one to be
/// looked for, and mostly connects by itself before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchPace {
    free_at: Timestamp,
    every_ms: u64,
}

/// Between two nodes that are looked for in vain.
const SEARCH_EVERY_MS_MAX: u64 = 2_000;
const SEARCH_EVERY_MS_MIN: u64 = 100;
/// The same as a part of the grace time: a new steward looks for the dead of old records, some dozens, before it knows what
/// is lost, which is to take no longer than to give one up.
const SEARCH_GRACE_PARTS: u64 = 30;
/// So many may be looked for at once if none was for a while.
const SEARCHES_SAVED: u64 = 16;

impl SearchPace {
    /// All saved up.
    pub fn new(now: Timestamp, grace_ms: u64) -> Self {
        let every_ms = (grace_ms / SEARCH_GRACE_PARTS).clamp(SEARCH_EVERY_MS_MIN, SEARCH_EVERY_MS_MAX);
        Self { free_at: Timestamp(now.0.saturating_sub(every_ms * SEARCHES_SAVED)), every_ms }
    }

    /// The moment for one more search, `now` or later. It is taken: the next one is given a later one.
    pub fn next(&mut self, now: Timestamp) -> Timestamp {
        let saved_from = Timestamp(now.0.saturating_sub(self.every_ms * SEARCHES_SAVED));
        let at = self.free_at.max(saved_from).after_ms(self.every_ms);
        self.free_at = at;
        at.max(now)
    }

    /// One that was looked for was found.
    pub fn found(&mut self) {
        self.free_at = Timestamp(self.free_at.0.saturating_sub(self.every_ms));
    }
}

/// When a node may be asked again whether it is there, though nobody waited for the moment: because its connection
/// ended.
///
/// A node that takes connections and ends them would be asked anew by each end, hundreds of times a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProbePace {
    asked_at: Option<Timestamp>,
}

/// Between two such questions, at least.
const PROBE_AGAIN_MS: u64 = 5_000;

impl ProbePace {
    /// Ask now (none), or not before that moment. `every_ms`: how often it is asked in any case.
    pub fn not_before(&self, now: Timestamp, every_ms: u64) -> Option<Timestamp> {
        let asked_at = self.asked_at?;
        let at = asked_at.after_ms(every_ms.min(PROBE_AGAIN_MS));
        // A clock that was set back must not silence us for long.
        (asked_at <= now && now < at).then_some(at)
    }

    /// It is asked.
    pub fn asked(&mut self, now: Timestamp) {
        self.asked_at = Some(now);
    }
}

/// True if so many of the nodes that we know are silent that it is likelier that we are cut off: nine of ten, of at
/// least four. Nobody should be given up then, and once we are back all get their time anew. Those that were given up
/// before say nothing of us: a network that shrank to a tenth of what it was goes on. A network that broke in halves is
/// not meant: both go on, and repair.
pub fn we_are_cut_off(lives: impl IntoIterator<Item = Life>) -> bool {
    let (mut up, mut silent) = (0_usize, 0_usize);
    for life in lives {
        match life {
            Life::Up => up += 1,
            Life::Suspect { .. } => silent += 1,
            Life::Lost { .. } => {}
        }
    }
    up + silent >= 4 && silent.saturating_mul(10) >= (up + silent).saturating_mul(9)
}
