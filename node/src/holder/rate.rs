//! Limits in bytes per second: each transfer is given the moment at which the ones before it will be through. One for all
//! together, as the pledge names it; and one for whoever moves more than others who are there.

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

/// What a domain that yields may move: more than most uplinks have.
const YIELDING_BYTES_PER_SECOND: u64 = 8 << 20;
/// What was moved counts less and less, by a factor of e in this time: a long time beside what one file takes.
const FORGETTING: Duration = Duration::from_secs(60);
/// Who has moved so many times more yields. Those that move about the same leave it to their streams.
const MORE: f64 = 2.0;
/// Who has moved nothing for so long is not there.
const PRESENT_FOR: Duration = Duration::from_secs(1);
/// What an exchange costs besides its bytes, in bytes: a signature is checked, the disk is asked.
const EXCHANGE_BYTES: u64 = 32 << 10;
/// Domains that are remembered.
const DOMAINS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Moved {
    /// As of `last`.
    bytes: f64,
    last: Instant,
    /// When all that it moved as it had to yield is through.
    free_at: Instant,
}

impl Moved {
    fn bytes(&self, now: Instant) -> f64 {
        self.bytes * (-now.duration_since(self.last).as_secs_f64() / FORGETTING.as_secs_f64()).exp()
    }

    fn is_present(&self, now: Instant) -> bool {
        now.duration_since(self.last) < PRESENT_FOR
    }
}

/// Whoever has moved far more lately yields to whoever has moved less: by streams alone, a domain that never stops would
/// get as many times more as it opens more of them.
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
        let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DOMAINS_MAX {
            all.retain(|_, moved| moved.is_present(now));
        }
        if all.len() >= DOMAINS_MAX {
            all.clear();
        }
        let before = all.get(domain).copied().unwrap_or(Moved { bytes: 0.0, last: now, free_at: now });
        let moved = before.bytes(now) + bytes as f64;
        let has_less = |(other, others): (&Domain, &Moved)| {
            other != domain && others.is_present(now) && others.bytes(now) * MORE < moved
        };
        let free_at = if all.iter().any(has_less) {
            before.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / YIELDING_BYTES_PER_SECOND as f64)
        } else {
            now
        };
        all.insert(domain.clone(), Moved { bytes: moved, last: now, free_at });
        free_at
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
    async fn who_never_stops_yields_while_others_move_something_and_they_do_not() {
        let rate = FairRate::default();
        waits(&rate, "greedy", 1_000).await;
        let (greedy, other) = tokio::join!(waits(&rate, "greedy", 24), async {
            let waited = waits(&rate, "other", 200).await;
            // It goes on, a little at a time.
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                rate.begin(&domain("other")).await;
            }
            waited
        });
        assert_eq!(other, 0.0, "it has moved less all the time");
        // 8 MiB in each second, ten milliseconds of each piece's eighth of a second being its own.
        assert!((2.5..3.1).contains(&greedy), "{greedy}");
        tokio::time::sleep(PRESENT_FOR).await;
        assert_eq!(waits(&rate, "greedy", 1_000).await, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_move_much_have_the_same() {
        let rate = FairRate::default();
        waits(&rate, "one", 300).await;
        let (one, other) = tokio::join!(waits(&rate, "one", 400), waits(&rate, "other", 400));
        assert_eq!(other, 0.0);
        // Until the other has moved half as much.
        assert!((1.0..60.0).contains(&one), "{one}");
        let (one, other) = tokio::join!(waits(&rate, "one", 400), waits(&rate, "other", 400));
        assert_eq!((one, other), (0.0, 0.0), "neither has moved twice as much as the other");
    }

    #[test]
    fn few_domains_are_remembered() {
        let (rate, now) = (FairRate::default(), Instant::now());
        for number in 0..5_000_u32 {
            rate.through(&domain(&number.to_string()), 1, now + Duration::from_micros(100) * number);
        }
        assert!(rate.moved.lock().unwrap().len() <= DOMAINS_MAX);
    }
}
