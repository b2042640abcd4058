//! Waiting for a state, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long any state may take to come on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to see; none if that takes longer than `patience`.
pub(crate) fn poll_until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(POLL_EVERY);
    }
}

/// Waits until something holds, and fails if it never does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = poll_until(PATIENCE, || holds().then_some(()));
    assert!(held.is_some(), "waited {PATIENCE:?} in vain for: {what}");
}
