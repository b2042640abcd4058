//! Running a program, and what the kernel says a process has used.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::Failure;

/// The unit of CPU time in `/proc/PID/stat`: `USER_HZ`, the same on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often the memory of a running program is looked at; what it grows by after the last look is not seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Output that is kept; the rest is only counted.
const OUTPUT_BYTES_KEPT: usize = 1 << 20;

/// What a finished program used and said.
pub(crate) struct Ran {
    pub(crate) seconds: f64,
    /// From the start to the first byte of output.
    pub(crate) first_byte_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: u64,
    pub(crate) output_bytes: u64,
    /// The first [`OUTPUT_BYTES_KEPT`].
    pub(crate) output: Vec<u8>,
}

/// Runs a program to its end; its errors go to ours.
pub(crate) fn run(command: &mut Command) -> Result<Ran, Failure> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or("no pipe")?;
    let pid = child.id();
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ran = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                peak.fetch_max(peak_bytes(pid).unwrap_or(0), Relaxed);
                thread::sleep(LOOK_EVERY);
            }
        });
        let ended = to_the_end(&mut stdout, started, pid);
        done.store(true, Relaxed);
        ended
    });
    let status = child.wait()?;
    let mut ran = ran?;
    ran.peak_bytes = peak.load(Relaxed);
    if status.success() { Ok(ran) } else { Err(format!("{command:?} has ended with {status}").into()) }
}

/// Reads all output and waits for the end, but leaves the process to be asked what it used.
fn to_the_end(stdout: &mut impl Read, started: Instant, pid: u32) -> Result<Ran, Failure> {
    let mut piece = vec![0; 256 << 10];
    let (mut output, mut output_bytes, mut first_byte) = (Vec::new(), 0, None);
    loop {
        let count = stdout.read(&mut piece)?;
        if count == 0 {
            break;
        }
        first_byte.get_or_insert_with(|| started.elapsed());
        output_bytes += count as u64;
        let room = OUTPUT_BYTES_KEPT - output.len();
        output.extend_from_slice(&piece[..count.min(room)]);
    }
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Ran {
        seconds,
        first_byte_seconds: first_byte.map_or(seconds, |first| first.as_secs_f64()),
        cpu_seconds: cpu_seconds(pid)?,
        peak_bytes: 0,
        output_bytes,
        output,
    })
}

/// CPU time of a process and all its threads, also of one that has ended but was not waited for.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).ok_or("an unknown /proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// The most memory that a running process has had.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// The memory that a running process has.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// Of that, what is not a mapped file: the program's own pages are shared by all nodes of a machine.
pub(crate) fn own_bytes(pid: u32) -> Option<u64> {
    memory(pid, "RssAnon:")
}

fn memory(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = status.lines().find_map(|text| text.strip_prefix(line))?.trim().split(' ').next()?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes that went over the loopback interface so far, whoever sent them, headers included.
pub(crate) fn loopback_bytes() -> Result<u64, Failure> {
    Ok(fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?.trim().parse()?)
}
