//! What the network gives at most: bytes between two processes on loopback, with nothing done to them.
//!
//! [`bare`] is libp2p alone (TCP, Noise, Yamux as it comes), [`peer`] is `commonhold-network` with a holder that throws
//! shards away. The second process is this very bench; it ends when its stdin does.

pub(crate) mod bare;
pub(crate) mod peer;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Instant,
};

use tokio::runtime::Runtime;

use crate::{Failure, GIB, MIB, process::cpu_seconds};

/// What the second process says before its address.
const LISTENING: &str = "listening ";

/// One direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    /// MiB/s.
    pub(crate) rate: f64,
    /// CPU seconds of both ends per GiB.
    pub(crate) cpu_per_gib: f64,
}

/// Both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfers {
    pub(crate) up: Transfer,
    pub(crate) down: Transfer,
}

/// The second process; ended when dropped.
struct Second(Child);

impl Second {
    fn start(mode: &str) -> Result<(Self, String), Failure> {
        let program = std::env::current_exe()?;
        let child = Command::new(program).arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut second = Self(child);
        let stdout = second.0.stdout.take().ok_or("no pipe")?;
        for line in BufReader::new(stdout).lines() {
            if let Some(address) = line?.strip_prefix(LISTENING) {
                return Ok((second, address.to_owned()));
            }
        }
        Err(format!("{mode} has ended before it listened").into())
    }

    /// Rate and CPU time of moving `bytes`.
    fn timed(&self, bytes: u64, work: impl FnOnce() -> Result<(), Failure>) -> Result<Transfer, Failure> {
        let cpu = || Ok::<_, Failure>(cpu_seconds(self.0.id())? + cpu_seconds(std::process::id())?);
        let (started, before) = (Instant::now(), cpu()?);
        work()?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Transfer {
            rate: bytes as f64 / MIB as f64 / seconds,
            cpu_per_gib: (cpu()? - before) / (bytes as f64 / GIB),
        })
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("bench: the second process was not waited for: {error}");
        }
    }
}

/// Ends this process when the one that started it lets go of our stdin, however that happens.
fn end_with_stdin() {
    std::thread::spawn(|| {
        // Nothing is ever written to it.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// As nodes and clients have it.
fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
