//! Limits in bytes per second: each transfer is given the moment at which the ones before it will be through. One for all
//! together, as the pledge names it; and one for each domain, which holds only while several of them move shards.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use commonhold_policy::Domain;
use tokio::time::{Instant, sleep_until};

use crate::config::Rate;

/// What was not used is remembered for so long, so that a short burst need not wait.
const BURST: Duration = Duration::from_millis(500);

/// The limit.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    /// When all that was allowed so far is through.
    free_at: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(rate: Rate) -> Self {
        Self { bytes_per_second: rate.bytes_per_second(), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may pass.
    pub(super) async fn take(&self, bytes: u64) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let through = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = Instant::now().checked_sub(BURST).unwrap_or(*free_at);
            *free_at = (*free_at).max(oldest) + takes;
            *free_at
        };
        sleep_until(through).await;
    }
}

/// What one domain may move while others do: more than most uplinks have, and less than what keeps a processor busy.
const CONTENDED_BYTES_PER_SECOND: u64 = 8 << 20;
/// What it did not move before is remembered for so long, and what it moved in excess while nobody else was there.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Who has moved nothing for so long is not there.
const PRESENT_FOR: Duration = Duration::from_secs(1);
/// What an exchange costs besides its bytes, in bytes: a signature is checked, the disk is asked.
const EXCHANGE_BYTES: u64 = 32 << 10;
/// Domains that are remembered; beyond it, those are forgotten that have moved nothing lately.
const DOMAINS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Moved {
    /// When all that it has moved is within its share.
    free_at: Instant,
    last: Instant,
}

/// The share of each domain. One that moves as much as it can would else leave to others only as much as it gets itself,
/// stream by stream; whoever has moved little lately goes first, so it does not notice one that never stops.
#[derive(Debug, Default)]
pub(super) struct FairRate {
    moved: Mutex<BTreeMap<Domain, Moved>>,
}

impl FairRate {
    /// Waits until an exchange may begin.
    pub(super) async fn begin(&self, domain: &Domain) {
        self.take(domain, EXCHANGE_BYTES).await;
    }

    /// Waits until `bytes` more may pass.
    pub(super) async fn take(&self, domain: &Domain, bytes: u64) {
        let through = self.through(domain, bytes, Instant::now());
        sleep_until(through).await;
    }

    fn through(&self, domain: &Domain, bytes: u64, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / CONTENDED_BYTES_PER_SECOND as f64);
        let oldest = now.checked_sub(REMEMBERED).unwrap_or(now);
        let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_present = |moved: &Moved| now.duration_since(moved.last) < PRESENT_FOR;
        let contended = all.iter().any(|(other, moved)| other != domain && is_present(moved));
        if all.len() >= DOMAINS_MAX {
            all.retain(|_, moved| moved.free_at > oldest);
        }
        let moved = all.entry(domain.clone()).or_insert(Moved { free_at: oldest, last: now });
        moved.last = now;
        moved.free_at = moved.free_at.max(oldest) + takes;
        if contended {
            return moved.free_at;
        }
        moved.free_at = moved.free_at.min(now + REMEMBERED);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_of_bytes_takes_ten_seconds() {
        let limit = RateLimit::new("8 Mbit/s".parse().unwrap());
        let start = Instant::now();
        for _ in 0..100 {
            limit.take(100_000).await;
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(9_400)..Duration::from_millis(10_100)).contains(&took), "{took:?}");
    }

    fn domain(name: &str) -> Domain {
        Domain::new(name)
    }

    /// Seconds that so many pieces of 1 MiB wait, each of which takes ten milliseconds by itself.
    async fn waits(rate: &FairRate, from: &str, pieces: usize) -> f64 {
        let mut waited = Duration::ZERO;
        for _ in 0..pieces {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let start = Instant::now();
            rate.take(&domain(from), 1 << 20).await;
            waited += start.elapsed();
        }
        waited.as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_moves_what_it_wants() {
        let rate = FairRate::default();
        assert!(waits(&rate, "alone", 1_000).await < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_stops_waits_while_others_move_something_and_they_do_not() {
        let rate = FairRate::default();
        waits(&rate, "greedy", 1_000).await;
        let (greedy, other) = tokio::join!(waits(&rate, "greedy", 16), async {
            let took = waits(&rate, "other", 16).await;
            // It goes on, a little at a time.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                rate.begin(&domain("other")).await;
            }
            took
        });
        assert!(other < 0.1, "{other}: the other has moved nothing before");
        // What it moved before counts for two seconds, its own 16 MiB for two more.
        assert!((3.5..5.0).contains(&greedy), "{greedy}");
        tokio::time::sleep(PRESENT_FOR).await;
        assert!(waits(&rate, "greedy", 1_000).await < 0.1, "it is alone again");
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_move_much_have_the_same() {
        let rate = FairRate::default();
        let (one, other) = tokio::join!(waits(&rate, "one", 80), waits(&rate, "other", 80));
        for took in [one, other] {
            assert!((7.0..10.5).contains(&took), "80 MiB at 8 MiB a second, 16 of them saved up: {took}");
        }
    }

    #[test]
    fn few_domains_are_remembered() {
        let (rate, now) = (FairRate::default(), Instant::now());
        for number in 0..5_000_u32 {
            rate.through(&domain(&number.to_string()), 1, now + Duration::from_millis(10) * number);
        }
        assert!(rate.moved.lock().unwrap().len() <= DOMAINS_MAX);
    }
}
