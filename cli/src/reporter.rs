//! Shows how far long work is: a bar on a terminal, a line now and then elsewhere, nothing when not wanted.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use commonhold_client_sdk::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    escape, figures,
    output::{Output, stderr_is_terminal},
};

/// How often a bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
const TEMPLATE: &str = "{spinner} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {wide_msg}";

/// Shows progress until it is dropped.
pub(crate) struct Reporter {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts to show `progress`, if that is wanted at all.
    pub(crate) fn start(output: &Output, verb: &'static str, progress: &Arc<Progress>) -> Self {
        if !output.shows_progress() {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::sync_channel(0);
        let progress = Arc::clone(progress);
        let show = move || match stderr_is_terminal() {
            true => show_bar(&progress, &stopped),
            false => show_lines(verb, &progress, &stopped),
        };
        // Without a thread to show it, the work is done just as well.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn goes_on(stopped: &mpsc::Receiver<()>, time: Duration) -> bool {
    matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

fn show_bar(progress: &Progress, stopped: &mpsc::Receiver<()>) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    while goes_on(stopped, BAR_EVERY) {
        let done = progress.bytes_done.load(Ordering::Relaxed);
        // The total is found while the work goes on, and never less than what is done.
        bar.set_length(progress.bytes_total.load(Ordering::Relaxed).max(done));
        bar.set_position(done);
        bar.set_message(escape::name(progress.current().as_bytes()));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn show_lines(verb: &str, progress: &Progress, stopped: &mpsc::Receiver<()>) {
    let started = Instant::now();
    while goes_on(stopped, LINE_EVERY) {
        let _ = writeln!(std::io::stderr(), "{}", line(verb, progress, started.elapsed().as_secs_f64()));
    }
}

/// `put: 1.0 GiB of 2.0 GiB (50%), 1,234 entries, 100.0 MiB/s, 10.0 s left: some/file`.
fn line(verb: &str, progress: &Progress, seconds: f64) -> String {
    let done = progress.bytes_done.load(Ordering::Relaxed);
    let total = progress.bytes_total.load(Ordering::Relaxed).max(done);
    let entries = progress.entries_done.load(Ordering::Relaxed);
    let percent = (done * 100).checked_div(total).unwrap_or(0);
    let mut line = format!(
        "{verb}: {} of {} ({percent}%), {}, {}",
        figures::size(done),
        figures::size(total),
        figures::count(entries, "entry", "entries"),
        figures::rate(done, seconds),
    );
    if done > 0 && total > done {
        let left = (total - done) as f64 * seconds / done as f64;
        line.push_str(&format!(", {} left", figures::span(left)));
    }
    let current = progress.current();
    if !current.is_empty() {
        line.push_str(": ");
        line.push_str(&escape::name(current.as_bytes()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let progress = Progress::default();
        progress.bytes_total.store(2 << 30, Ordering::Relaxed);
        progress.bytes_done.store(1 << 30, Ordering::Relaxed);
        progress.entries_done.store(1234, Ordering::Relaxed);
        assert_eq!(
            line("put", &progress, 10.0),
            "put: 1.0 GiB of 2.0 GiB (50%), 1,234 entries, 102.4 MiB/s, 10.0 s left"
        );
    }
}
