//! A network of node processes, run by `commonhold dev`, and its client.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use commonhold_node::data_dir;
use commonhold_protocol::Coding;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Failure, PROGRAM,
    process::{self, Ran},
};

/// Nothing secret is stored.
pub(crate) const PASSPHRASE: &str = "bench";

/// A running network; ended when dropped.
pub(crate) struct LocalNetwork {
    dev: Child,
    dir: PathBuf,
    pids: Vec<u32>,
}

impl LocalNetwork {
    /// Starts it and returns when it can store.
    pub(crate) fn start(dir: &Path, nodes: u16, coding: Coding) -> Result<Self, Failure> {
        let dev = Command::new(PROGRAM)
            .args(["dev", "--nodes", &nodes.to_string(), "--coding", &coding.to_string(), "--dir"])
            .arg(dir)
            .env("COMMONHOLD_PASSPHRASE", PASSPHRASE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        // From here on it is ended whatever happens.
        let mut network = Self { dev, dir: dir.to_owned(), pids: Vec::new() };
        let stdout = network.dev.stdout.take().ok_or("no pipe")?;
        let ready = BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line == "ready"));
        if !ready {
            return Err("commonhold dev has ended before it was ready".into());
        }
        for number in 0..nodes {
            let pid = data_dir::read(&network.dir.join(format!("node-{number:02}")), data_dir::PID_FILE)?;
            network.pids.push(pid.ok_or("a node without a process id")?.trim().parse()?);
        }
        Ok(network)
    }

    /// The client's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The nodes' processes.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// CPU time of all nodes together so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.pids.iter().map(|pid| process::cpu_seconds(*pid)).sum()
    }

    /// Runs one command of its client.
    pub(crate) fn client(&self, arguments: impl FnOnce(&mut Command)) -> Result<Ran, Failure> {
        let mut command = Command::new(PROGRAM);
        command.env("COMMONHOLD_HOME", self.home()).env("COMMONHOLD_PASSPHRASE", PASSPHRASE);
        arguments(&mut command);
        process::run(&mut command)
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.dev.try_wait()?.is_none() {
            let pid = i32::try_from(self.dev.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
            kill_process(pid, Signal::TERM)?;
            self.dev.wait()?;
        }
        Ok(())
    }
}

impl Drop for LocalNetwork {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("bench: the local network was not ended: {error}");
        }
    }
}
