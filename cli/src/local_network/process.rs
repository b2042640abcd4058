//! The process of one node: starting it, seeing that it ended, ending it.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use commonhold_node::data_dir::{DataDir, DataDirError};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::{
    error::{IoContext, LocalNetworkError},
    layout,
};

/// How long a node may take to stop cleanly before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// How much of a log is shown when its node dies at the start.
const LAST_WORDS_BYTES: u64 = 2048;

/// How long a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Until we end, however that is.
    EndsWithUs,
    /// Until somebody stops it.
    OfItsOwn,
}

/// A node that we started.
pub(super) struct NodeProcess {
    pub(super) number: u16,
    pub(super) folder: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
    end_told: bool,
}

impl NodeProcess {
    /// Starts the node in `folder`.
    pub(super) fn spawn(number: u16, folder: PathBuf, life: Life) -> Result<Self, LocalNetworkError> {
        let program = std::env::current_exe().doing("find", Path::new("this program"))?;
        let log_path = folder.join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path).doing("open", &log_path)?;
        let mut command = Command::new(&program);
        command
            .args(["node", "run", "--config"])
            .arg(folder.join(commonhold_node::CONFIG_FILE))
            .stdin(Stdio::null())
            .stdout(log.try_clone().doing("open", &log_path)?)
            .stderr(log)
            // A group of its own: Ctrl-C on the terminal is for us, who then end the nodes in order.
            .process_group(0);
        if life == Life::EndsWithUs {
            let parent = rustix::process::getpid();
            let die_with_parent = move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // We may have died before the kernel was told.
                if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
            };
            // SAFETY: between fork and exec the closure makes two system calls and touches no memory but its own
            // copy of the pid: it neither allocates nor takes a lock.
            unsafe { command.pre_exec(die_with_parent) };
        }
        let child = command.spawn().doing("run", &program)?;
        Ok(Self { number, folder, child, ended: None, end_told: false })
    }

    pub(super) fn name(&self) -> String {
        layout::node_name(self.number)
    }

    /// Whether it has ended; also lets the system forget a dead child.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// How it ended, the first time that this is asked after it did.
    pub(super) fn newly_ended(&mut self) -> Option<String> {
        if self.end_told || !self.has_ended() {
            return None;
        }
        self.end_told = true;
        self.ended.map(how)
    }

    /// An error if it has ended.
    pub(super) fn check_runs(&mut self) -> Result<(), LocalNetworkError> {
        if !self.has_ended() {
            return Ok(());
        }
        let log = self.folder.join("log");
        let how = self.ended.map_or_else(String::new, how);
        Err(LocalNetworkError::NodeEnded { name: self.name(), how, last_words: last_words(&log), log })
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) -> Result<(), LocalNetworkError> {
        if !self.has_ended() {
            self.child.kill().doing("kill", &self.folder)?;
            self.ended = Some(self.child.wait().doing("wait for", &self.folder)?);
        }
        self.end_told = true;
        Ok(())
    }

    fn terminate(&mut self) {
        if !self.has_ended() {
            signal(self.child.id(), Signal::TERM);
        }
    }
}

/// Ends all nodes: those that we started, and others that work in `folders`. First kindly, then at once.
pub(super) fn stop_all(processes: &mut [NodeProcess], folders: &[PathBuf]) {
    for process in processes.iter_mut() {
        process.terminate();
    }
    let ours = |folder: &PathBuf| processes.iter().any(|process| process.folder == *folder && process.ended.is_none());
    let mut others: Vec<&PathBuf> = folders.iter().filter(|folder| !ours(folder)).collect();
    for folder in &others {
        signal_other(folder, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_MAX;
    while Instant::now() < deadline {
        let running = processes.iter_mut().filter_map(|process| (!process.has_ended()).then_some(())).count();
        others.retain(|folder| process_in(folder).is_some());
        if running == 0 && others.is_empty() {
            return;
        }
        thread::sleep(POLL_EVERY);
    }
    for process in processes.iter_mut() {
        // What cannot be killed now ends with us.
        let _ = process.kill();
    }
    for folder in others {
        signal_other(folder, Signal::KILL);
    }
}

/// The process that works in a node's folder: who holds its lock, so never one that merely has an old number.
fn process_in(folder: &Path) -> Option<u32> {
    match DataDir::lock(folder) {
        Err(DataDirError::InUse { pid, .. }) => pid,
        _ => None,
    }
}

fn signal_other(folder: &Path, kind: Signal) {
    if let Some(pid) = process_in(folder) {
        signal(pid, kind);
    }
}

fn signal(pid: u32, kind: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that has just ended needs no signal.
    let _ = pid.map(|pid| kill_process(pid, kind));
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "unknown".to_owned(),
    }
}

/// The end of a log, for the error message.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
}
