//! Processes of the program under test: how they are started so that they cannot outlive a test, found and signalled.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A command that the kernel ends when the test's thread does, even if the test itself is killed.
pub(crate) fn mortal(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The node that works in a folder: by its pid file, and only if that process was started with the config there. Folders
/// of tests have names that no other process knows.
pub(crate) fn working_in(folder: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = folder.join("node.toml");
    let works_here =
        arguments.split(|byte| *byte == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes());
    (works_here && !has_ended(pid)).then_some(pid)
}

/// True if the process is gone, or dead and not yet waited for, with all that it had open closed.
pub(crate) fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The state follows the name, which is in brackets and may hold anything.
    let dead = stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    // The first thread may be dead while others still hold files and locks.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    dead && threads <= 1
}

/// The most memory that a running process has had.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().split(' ').next()?.parse().ok()?;
    Some(kib << 10)
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    // One that has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
}
