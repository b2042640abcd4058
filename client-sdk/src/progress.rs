//! How far a put or get is: counters that a progress bar reads from another thread, and the user's wish to stop.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

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
    stopped: Notify,
    current: Mutex<String>,
}

impl Progress {
    /// Asks the operation to stop at the next safe point; it ends with [`Error::Interrupted`].
    pub fn interrupt(&self) {
        self.stop.store(true, Ordering::Release);
        self.stopped.notify_waiters();
    }

    /// Comes back once somebody asks to stop: for waits that would not look here by themselves.
    pub(crate) async fn interrupted(&self) {
        let mut stopped = std::pin::pin!(self.stopped.notified());
        // Listens before it looks, so that nothing is missed in between.
        stopped.as_mut().enable();
        if self.check().is_ok() {
            stopped.await;
        }
    }

    /// What is being worked on now.
    pub fn current(&self) -> String {
        self.current.lock().map(|text| text.clone()).unwrap_or_default()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    /// A put that waits for holders does not come by to look at a flag.
    #[test]
    fn whoever_waits_is_woken_before_and_after_the_wait_begins() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for early in [true, false] {
            let progress = Arc::new(Progress::default());
            if early {
                progress.interrupt();
            }
            let user = progress.clone();
            let waiting = runtime.spawn({
                let progress = progress.clone();
                async move { progress.interrupted().await }
            });
            runtime.block_on(async {
                tokio::task::yield_now().await;
                user.interrupt();
                let woken = tokio::time::timeout(Duration::from_secs(20), waiting).await;
                woken.expect("in time").expect("no panic");
            });
            assert!(matches!(progress.check(), Err(Error::Interrupted)));
        }
    }
}
