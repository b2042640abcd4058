//! How far a put or get is: counters that a progress bar reads from another thread, and the user's wish to stop.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::error::Error;

/// Shared between an operation and whoever shows it. All figures only rise.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of file content that the operation will have to look at, as far as is known.
    pub bytes_total: AtomicU64,
    /// Bytes of file content done.
    pub bytes_done: AtomicU64,
    /// Files, folders and links done.
    pub entries_done: AtomicU64,
    /// Bytes of content that were stored already and are not sent again.
    pub bytes_known: AtomicU64,
    /// Shard bytes that holders have taken or sent.
    pub bytes_moved: AtomicU64,
    stop: AtomicBool,
    current: Mutex<String>,
}

impl Progress {
    /// Asks the operation to stop at the next safe point; it ends with [`Error::Interrupted`].
    pub fn interrupt(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What is being worked on now.
    pub fn current(&self) -> String {
        self.current.lock().map(|text| text.clone()).unwrap_or_default()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn working_on(&self, what: impl Into<String>) {
        if let Ok(mut current) = self.current.lock() {
            *current = what.into();
        }
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
