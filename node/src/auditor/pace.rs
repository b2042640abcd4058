//! How fast repairs may move bytes, all of them together.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commonhold_policy::budget::Budget;

use crate::clock::Clock;

/// The budget that all repairs share.
#[derive(Clone)]
pub(super) struct Pace {
    budget: Arc<Mutex<Budget>>,
    clock: Arc<Clock>,
}

impl Pace {
    pub(super) fn new(clock: &Arc<Clock>, bytes_per_second: u64) -> Self {
        let budget = Budget::new(clock.steady(), bytes_per_second);
        Self { budget: Arc::new(Mutex::new(budget)), clock: clock.clone() }
    }

    /// Waits until so many bytes may be moved.
    pub(super) async fn spend(&self, bytes: u64) {
        loop {
            let spent = self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(self.clock.steady(), bytes);
            match spent {
                Ok(()) => return,
                Err(until) => {
                    let wait_ms = until.map_or(60_000, |until| until.ms_since(self.clock.steady()));
                    tokio::time::sleep(Duration::from_millis(wait_ms.max(1))).await;
                }
            }
        }
    }
}
