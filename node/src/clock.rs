//! The one place where the node reads the time.
//!
//! Moments come from the system's clock, which can be wrong or jump; lengths of time from the monotonic one. While
//! our clock is far from that of the others, nothing is dropped for its age (DESIGN.md section 7).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use commonhold_protocol::{NodeId, Timestamp};

/// Our clock may be this far from the median of the others'.
const OFF_MS_MAX: i64 = 10 * 60 * 1000;
/// So many others, in different domains, have to be heard before their median says anything.
const WITNESSES_MIN: usize = 5;
/// The most domains whose clocks are remembered; the median of so many is as good as that of all.
const WITNESSES_MAX: usize = 64;

/// The node's clock.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// By domain: who told us, and how far its clock was ahead of ours.
    witnesses: Mutex<BTreeMap<String, (NodeId, i64)>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), witnesses: Mutex::default() }
    }
}

impl Clock {
    /// Now, by the system's clock.
    pub fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// Time since the start, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A node in `domain` says that it is `theirs` when it is `ours` here. The last word of each domain counts.
    pub fn witness(&self, domain: &str, node: NodeId, theirs: Timestamp, ours: Timestamp) {
        let ahead = i64::try_from(i128::from(theirs.0) - i128::from(ours.0)).unwrap_or(i64::MAX);
        let mut witnesses = self.witnesses();
        if witnesses.len() < WITNESSES_MAX || witnesses.contains_key(domain) {
            witnesses.insert(domain.to_owned(), (node, ahead));
        }
    }

    /// True if enough others were heard, and our clock is far from their median.
    pub fn is_off(&self) -> bool {
        let mut ahead: Vec<i64> = self.witnesses().values().map(|(_, ahead)| *ahead).collect();
        if ahead.len() < WITNESSES_MIN {
            return false;
        }
        ahead.sort_unstable();
        ahead[ahead.len() / 2].saturating_abs() > OFF_MS_MAX
    }

    fn witnesses(&self) -> MutexGuard<'_, BTreeMap<String, (NodeId, i64)>> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(clock: &Clock, domain: u8, ahead_ms: i64) {
        let ours = Timestamp(1_000_000_000);
        let theirs = Timestamp((ours.0 as i64 + ahead_ms) as u64);
        clock.witness(&format!("domain-{domain}"), NodeId::from_bytes([domain; 32]), theirs, ours);
    }

    #[test]
    fn five_domains_can_say_that_our_clock_is_off() {
        let clock = Clock::default();
        for domain in 0..4 {
            hear(&clock, domain, 3_600_000);
        }
        assert!(!clock.is_off(), "four are too few");
        hear(&clock, 4, 0);
        assert!(clock.is_off());
    }

    #[test]
    fn many_nodes_of_one_domain_have_one_voice() {
        let clock = Clock::default();
        for node in 0..20 {
            let ours = Timestamp(1_000_000_000);
            clock.witness("one", NodeId::from_bytes([node; 32]), ours.after_ms(3_600_000), ours);
        }
        for domain in 0..4 {
            hear(&clock, domain, 1000);
        }
        assert!(!clock.is_off());
    }
}
