//! Stopping on SIGINT and SIGTERM: the first asks the work to end cleanly, the second ends the process.
//!
//! Commands that do not listen here keep the system's way: they die at once, with nothing half-made to clean up.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use commonhold_client_sdk::Progress;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code after a signal, as shells report it for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Whether a signal has asked us to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits until a signal comes, or for `time` at most; true if one has come.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(requested, time, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn request(&self) {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// From now on, the first signal interrupts `progress`.
pub(crate) fn interrupts(progress: &Arc<Progress>) -> io::Result<Arc<Stop>> {
    let stop = Arc::new(Stop::default());
    let (progress, stopped) = (Arc::clone(progress), Arc::clone(&stop));
    listen(move || {
        progress.interrupt();
        stopped.request();
    })?;
    Ok(stop)
}

fn listen(first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(signals.next());
        first();
        runtime.block_on(signals.next());
        std::process::exit(i32::from(INTERRUPTED));
    })?;
    Ok(())
}

/// The signals that end a command.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over; call it in a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for any of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
