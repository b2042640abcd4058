//! A limit in bytes per second: each transfer is given the moment at which the ones before it will be through.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

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
}
