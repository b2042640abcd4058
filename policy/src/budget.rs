//! How many bytes repairs may move: a token bucket.

use commonhold_protocol::Timestamp;

/// How long the budget can be saved up.
const SAVED_MS_MAX: u64 = 10 * 60 * 1000;

/// Bytes a second that repairs may move, where a node's pledge names no limit: 80 Mbit/s.
pub const REPAIR_BYTES_PER_SECOND: u64 = 10 << 20;

/// The budget of a node.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes_per_second: u64,
    /// In thousandths of a byte, so that short times at low rates are not lost. Negative: spent ahead.
    saved: i128,
    at: Timestamp,
}

impl Budget {
    /// `bytes_per_second` from now on, with ten minutes' worth saved up.
    pub fn new(now: Timestamp, bytes_per_second: u64) -> Self {
        Self { bytes_per_second, saved: Self::saved_max(bytes_per_second), at: now }
    }

    /// Spends `bytes`, or says when they may be spent; none if never, at a rate of 0.
    ///
    /// What is more than can be saved up may be spent once all is saved: large work waits longer and is then paid for
    /// afterwards, so it cannot be starved by small.
    pub fn spend(&mut self, now: Timestamp, bytes: u64) -> Result<(), Option<Timestamp>> {
        let rate = i128::from(self.bytes_per_second);
        let saved_max = Self::saved_max(self.bytes_per_second);
        self.saved = (self.saved + rate * i128::from(now.ms_since(self.at))).min(saved_max);
        self.at = self.at.max(now);
        let cost = i128::from(bytes) * 1000;
        let missing = cost.min(saved_max) - self.saved;
        if missing <= 0 && (rate > 0 || bytes == 0) {
            self.saved -= cost;
            return Ok(());
        }
        if rate == 0 {
            return Err(None);
        }
        let wait_ms = u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX);
        Err(Some(now.after_ms(wait_ms)))
    }

    /// Whether as much is saved up at `now` as can be: as in a new one.
    pub fn is_saved_up(&self, now: Timestamp) -> bool {
        let saved = i128::from(self.bytes_per_second) * i128::from(now.ms_since(self.at));
        self.saved + saved >= Self::saved_max(self.bytes_per_second)
    }

    /// Gives back what was spent and not used.
    pub fn refund(&mut self, bytes: u64) {
        self.saved = (self.saved + i128::from(bytes) * 1000).min(Self::saved_max(self.bytes_per_second));
    }

    fn saved_max(bytes_per_second: u64) -> i128 {
        i128::from(bytes_per_second) * i128::from(SAVED_MS_MAX)
    }
}
