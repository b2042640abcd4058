//! Client commands, run as a person would run them: a home, arguments, what came out.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{PASSPHRASE, PROGRAM, poll_until, process};

/// No command of a test takes longer.
const ENDED_MAX: Duration = Duration::from_secs(300);

/// A `COMMONHOLD_HOME`.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    init: Vec<String>,
}

/// A command that has ended.
pub(crate) struct Finished {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Home {
    /// The home at `dir`; `init` are the options that make or recover a vault there.
    pub(crate) fn at(dir: impl Into<PathBuf>, init: Vec<String>) -> Self {
        Self { dir: dir.into(), init }
    }

    /// Makes a vault; gives its phrase.
    pub(crate) fn init(&self) -> String {
        let made = self.run(["init"].into_iter().chain(self.init.iter().map(String::as_str))).expect_code(0);
        let phrase = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        assert_eq!(phrase.split(' ').count(), 24, "a recovery phrase on stdout, and nothing else");
        phrase
    }

    /// Recovers a vault from its phrase.
    pub(crate) fn recover(&self, phrase: &str) -> Finished {
        let arguments = ["init", "--recover"].into_iter().chain(self.init.iter().map(String::as_str));
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (what, started) = (format!("{command:?}"), Instant::now());
        let mut child = command.spawn().unwrap();
        // A program that does not want the phrase closes its end: what it says then is of interest.
        let _ = child.stdin.take().unwrap().write_all(phrase.as_bytes());
        Finished::new(what, started, child.wait_with_output().unwrap())
    }

    /// A copy of this home as it would be in a fresh place: config and keys, but nothing that was learned.
    pub(crate) fn without_memory(&self, dir: impl Into<PathBuf>) -> Self {
        let copy = Self { dir: dir.into(), init: self.init.clone() };
        std::fs::create_dir_all(&copy.dir).unwrap();
        for file in ["config.toml", "vault"] {
            std::fs::copy(self.dir.join(file), copy.dir.join(file)).unwrap();
        }
        copy
    }

    /// A command of this home, not yet run.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = process::mortal(PROGRAM);
        command.args(arguments).env("COMMONHOLD_HOME", &self.dir).env("COMMONHOLD_PASSPHRASE", PASSPHRASE);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        Finished::of(&mut self.command(arguments))
    }

    /// Starts a command, to be interrupted or waited for.
    pub(crate) fn spawn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (what, started) = (format!("{command:?}"), Instant::now());
        Running { what, started, child: Some(command.spawn().unwrap()) }
    }

    /// Runs a command that must succeed; gives the most memory that it had, in bytes.
    pub(crate) fn peak_of<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> u64 {
        let mut running = self.spawn(arguments);
        let mut peak = 0;
        // It only rises, so a look now and then sees nearly all of it.
        let ended = poll_until(ENDED_MAX, || {
            peak = running.peak_bytes().unwrap_or(0).max(peak);
            running.has_ended().then_some(())
        });
        assert!(ended.is_some(), "still running after {ENDED_MAX:?}");
        running.finish().expect_code(0);
        peak
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub(crate) fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        let mut command = self.command(arguments);
        command.arg("--json");
        Finished::of(&mut command).expect_code(0).json()
    }

    /// Stores `source` at `path`; gives the figures.
    pub(crate) fn put(&self, source: &Path, path: &str) -> Value {
        self.json([OsStr::new("put"), source.as_os_str(), OsStr::new(path)])
    }

    /// Copies `path` to `target`.
    pub(crate) fn get(&self, path: &str, target: &Path) -> Finished {
        self.run([OsStr::new("get"), OsStr::new(path), target.as_os_str()])
    }

    /// The names in a folder of the vault, sorted as the program sorts them.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let listed = self.json(["ls", path]);
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The bytes of a file in the vault.
    pub(crate) fn cat(&self, path: &str) -> Vec<u8> {
        self.run(["cat", path]).expect_code(0).stdout
    }
}

/// The bytes that a put's report says were placed on holders.
pub(crate) fn bytes_placed(put: &Value) -> u64 {
    let figure = put.pointer("/commit/figures/bytes_placed").and_then(Value::as_u64);
    figure.unwrap_or_else(|| panic!("no such figure in {put}"))
}

impl Finished {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let (what, started) = (format!("{command:?}"), Instant::now());
        Self::new(what, started, command.output().unwrap())
    }

    fn new(what: String, started: Instant, output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { what, code: output.status.code(), stdout: output.stdout, stderr, took: started.elapsed() }
    }

    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        let stdout = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(2000)]);
        assert_eq!(self.code, Some(code), "{}\nstdout: {stdout}\nstderr: {}", self.what, self.stderr);
        self
    }

    /// Fails unless each of these is in what it said on stderr.
    #[track_caller]
    pub(crate) fn expect_said(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{}: not a word of {part:?} in: {}", self.what, self.stderr);
        }
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}

/// A command that runs; killed when dropped.
pub(crate) struct Running {
    what: String,
    started: Instant,
    child: Option<Child>,
}

impl Running {
    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.child.as_ref().unwrap().id(), name);
    }

    /// True if it has ended on its own already.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// The most memory that it has had so far; none if it has ended.
    fn peak_bytes(&self) -> Option<u64> {
        process::peak_bytes(self.child.as_ref().unwrap().id())
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        Finished::new(std::mem::take(&mut self.what), self.started, output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
