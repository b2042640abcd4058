//! The one place where the node reads the time.
//!
//! Moments come from the system's clock, which can be wrong or jump; lengths of time from the monotonic one. Whoever
//! waits for a moment of this node's own, as for the next audit, goes by [`Clock::steady`]. What the others say their
//! time is goes on by the monotonic clock here, so that a jump of ours shows at once. While there is reason to doubt our
//! clock, nothing is let go for its age ([`commonhold_policy::expiry`]).

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use commonhold_policy::{
    Domain,
    expiry::{self, ClockDoubt, Rules},
};
use commonhold_protocol::Timestamp;

/// A clock that is set back by less is followed: timers ring that much later.
const JUMP_MS_MIN: u64 = 10_000;
/// The most domains whose clocks are remembered; the median of so many is as good as that of all.
const WITNESSES_MAX: usize = 64;

/// Where the time comes from.
pub trait TimeSource: Debug + Send + Sync {
    /// The moment, as the machine believes it.
    fn now(&self) -> Timestamp;
    /// Time since the start; never jumps.
    fn uptime(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug)]
struct SystemTimes {
    started: Instant,
}

impl TimeSource for SystemTimes {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What another node said its time was, and when, by our uptime.
#[derive(Debug, Clone, Copy)]
struct Witness {
    theirs: Timestamp,
    heard_at: Duration,
}

/// How the time of those who wait goes on.
#[derive(Debug, Clone, Copy)]
struct Steady {
    /// It is so much later than the system's clock says.
    ahead_ms: u64,
    /// What it was when it was last asked for, and the uptime then.
    last: Timestamp,
    uptime: Duration,
}

impl Steady {
    fn at(&mut self, now: Timestamp, uptime: Duration) -> Timestamp {
        let expected = self.last.after_ms(as_ms(uptime.saturating_sub(self.uptime)));
        let goes_on = now.after_ms(self.ahead_ms);
        if goes_on.0.abs_diff(expected.0) >= JUMP_MS_MIN {
            self.ahead_ms = expected.ms_since(now);
        }
        (self.last, self.uptime) = (now.after_ms(self.ahead_ms), uptime);
        self.last
    }
}

/// The node's clock.
#[derive(Debug)]
pub struct Clock {
    source: Box<dyn TimeSource>,
    /// The uptime of runs before this one, as far as it counts.
    earlier_ms: AtomicU64,
    steady: Mutex<Steady>,
    /// The last word of each domain.
    witnesses: Mutex<BTreeMap<Domain, Witness>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::of(SystemTimes { started: Instant::now() })
    }
}

impl Clock {
    /// A clock that takes its time from there.
    pub fn of(source: impl TimeSource + 'static) -> Self {
        let steady = Steady { ahead_ms: 0, last: source.now(), uptime: source.uptime() };
        Self {
            source: Box::new(source),
            earlier_ms: AtomicU64::new(0),
            steady: Mutex::new(steady),
            witnesses: Mutex::default(),
        }
    }

    /// Now, by the system's clock.
    pub fn now(&self) -> Timestamp {
        self.source.now()
    }

    /// Now, for those who wait or count what comes within some time. It is what the system's clock says until that is set
    /// back, by years where it had been wrong: then this goes on as if nothing had happened, and what was to be done in
    /// an hour is done in an hour. When the clock is set ahead, this follows it as soon as it is the later one.
    pub fn steady(&self) -> Timestamp {
        let mut steady = self.steady_state();
        // Read behind the lock: a thread that waits for it would see a jump.
        steady.at(self.source.now(), self.source.uptime())
    }

    /// When one of [`Self::steady`]'s moments is or was by the system's clock as it is set now: what is written down for
    /// the next start, which begins with that clock.
    pub fn by_system(&self, moment: Timestamp) -> Timestamp {
        Timestamp(moment.0.saturating_sub(self.ahead_ms()))
    }

    /// How much [`Self::steady`] is ahead of the system's clock.
    pub fn ahead_ms(&self) -> u64 {
        self.steady();
        self.steady_state().ahead_ms
    }

    fn steady_state(&self) -> MutexGuard<'_, Steady> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.source.uptime()
    }

    /// The node was up before, for so long as counts.
    pub fn was_up_for(&self, earlier_ms: u64) {
        self.earlier_ms.store(earlier_ms, Relaxed);
    }

    /// Uptime in milliseconds, that of earlier runs included as far as it counts.
    pub fn uptime_ms_in_all(&self) -> u64 {
        as_ms(self.uptime()).saturating_add(self.earlier_ms.load(Relaxed))
    }

    /// A node in `domain` says that it is `theirs` now. The last word of each domain counts.
    pub fn witness(&self, domain: Domain, theirs: Timestamp) {
        let heard_at = self.uptime();
        let mut witnesses = self.witnesses();
        if witnesses.len() < WITNESSES_MAX || witnesses.contains_key(&domain) {
            witnesses.insert(domain, Witness { theirs, heard_at });
        }
    }

    /// Whether there is reason to doubt it. `domains`: how many other domains are known at all.
    pub fn doubt(&self, rules: &Rules, domains: usize) -> Option<ClockDoubt> {
        let (now, uptime) = (self.now(), self.uptime());
        let ahead = |witness: &Witness| {
            let theirs = witness.theirs.after_ms(as_ms(uptime.saturating_sub(witness.heard_at)));
            let ahead = i128::from(theirs.0) - i128::from(now.0);
            i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
        };
        let ahead: Vec<(Domain, i64)> =
            self.witnesses().iter().map(|(domain, witness)| (domain.clone(), ahead(witness))).collect();
        expiry::doubt(rules, self.uptime_ms_in_all(), &ahead, domains)
    }

    fn witnesses(&self) -> MutexGuard<'_, BTreeMap<Domain, Witness>> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that tests turn.
#[cfg(test)]
pub(crate) mod turned {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    use super::*;

    /// Shared with the clock that it drives.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Hands {
        now_ms: Arc<AtomicU64>,
        uptime_ms: Arc<AtomicU64>,
    }

    impl Hands {
        pub(crate) fn at(now: Timestamp) -> Self {
            let hands = Self::default();
            hands.jump_to(now);
            hands
        }

        /// Time goes by.
        pub(crate) fn pass(&self, ms: u64) {
            self.now_ms.fetch_add(ms, Relaxed);
            self.uptime_ms.fetch_add(ms, Relaxed);
        }

        /// Somebody sets the system's clock.
        pub(crate) fn jump_to(&self, now: Timestamp) {
            self.now_ms.store(now.0, Relaxed);
        }
    }

    impl TimeSource for Hands {
        fn now(&self) -> Timestamp {
            Timestamp(self.now_ms.load(Relaxed))
        }

        fn uptime(&self) -> Duration {
            Duration::from_millis(self.uptime_ms.load(Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{turned::Hands, *};

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn heard(ahead_ms: i64, domains: u8) -> (Hands, Clock) {
        let hands = Hands::at(NOW);
        let clock = Clock::of(hands.clone());
        hands.pass(DAY_MS);
        for domain in 0..domains {
            let theirs = Timestamp((clock.now().0 as i64 + ahead_ms) as u64);
            clock.witness(Domain::new(domain.to_string()), theirs);
        }
        (hands, clock)
    }

    #[test]
    fn five_domains_have_to_be_heard_and_to_agree_with_our_clock() {
        let doubt = |ahead, heard_domains| heard(ahead, heard_domains).1.doubt(&Rules::default(), 9);
        assert_eq!(doubt(0, 5), None);
        assert_eq!(doubt(0, 4), Some(ClockDoubt::TooFewWitnesses { heard: 4, need: 5 }));
        assert_eq!(doubt(3_600_000, 5), Some(ClockDoubt::Off { off_ms: 3_600_000 }));
    }

    /// What others said an hour ago used to be compared with our time of then: a clock that was set afterwards was
    /// believed until they were asked again.
    #[test]
    fn a_jump_of_our_clock_shows_at_once_and_time_that_goes_by_does_not() {
        let (hands, clock) = heard(0, 5);
        hands.pass(3_600_000);
        assert_eq!(clock.doubt(&Rules::default(), 9), None);
        let in_2038 = Timestamp(2_147_483_648_000);
        hands.jump_to(in_2038);
        assert!(matches!(clock.doubt(&Rules::default(), 9), Some(ClockDoubt::Off { off_ms }) if off_ms < 0));
    }

    #[test]
    fn who_waits_does_not_wait_longer_when_the_clock_is_set_back() {
        let hands = Hands::at(Timestamp(2_147_483_648_000));
        let clock = Clock::of(hands.clone());
        let due = clock.steady().after_ms(3_600_000);
        hands.jump_to(NOW);
        hands.pass(3_599_999);
        assert_eq!(clock.steady().0, due.0 - 1);
        hands.pass(1);
        assert_eq!(clock.steady(), due);
        assert_eq!(clock.by_system(due), clock.now());
        // It is a little behind and a little ahead of the monotonic clock all the time: that is no jump.
        hands.jump_to(Timestamp(clock.now().0 - 2));
        assert_eq!(clock.steady().0, due.0 - 2);
    }

    #[test]
    fn a_clock_that_is_set_ahead_is_followed_and_only_once() {
        let hands = Hands::at(NOW);
        let clock = Clock::of(hands.clone());
        let later = NOW.after_ms(DAY_MS);
        hands.jump_to(later);
        assert_eq!(clock.steady(), later, "as after a night's sleep");
        hands.jump_to(NOW);
        assert_eq!(clock.steady(), later);
        hands.jump_to(later.after_ms(DAY_MS));
        assert_eq!(clock.steady(), later.after_ms(DAY_MS), "what it was behind is not counted twice");
    }

    #[test]
    fn nothing_is_dropped_on_the_first_day_however_well_the_clocks_agree() {
        let hands = Hands::at(NOW);
        let clock = Clock::of(hands.clone());
        assert_eq!(clock.doubt(&Rules::default(), 9), Some(ClockDoubt::TooFewWitnesses { heard: 0, need: 5 }));
        for domain in 0..5 {
            clock.witness(Domain::new(domain.to_string()), NOW);
        }
        assert_eq!(clock.doubt(&Rules::default(), 9), Some(ClockDoubt::JustStarted));
        hands.pass(DAY_MS);
        assert_eq!(clock.doubt(&Rules::default(), 9), None);
    }
}
