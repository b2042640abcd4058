//! Put and get as a person does them: one command each, timed from its start to its end, and what it took of client,
//! nodes and network. Everything that comes back is compared.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Failure, GIB, MIB, Settings,
    content::{self, Content},
    local_network::LocalNetwork,
    process::{Ran, loopback_bytes},
    report::{Aim, Report, Row},
    stages::Limits,
    step,
};

/// Tahoe-LAFS 1.20 at 5 of 10 on ten local nodes puts this (MiB/s), and we want to be 5 times as fast; sendme 0.37
/// moves this between two processes, and we want 4 times as much. Measured on this kind of machine.
const TAHOE_PUT: f64 = 39.0;
const SENDME: f64 = 106.0;
/// Of what the machine allows.
const PART_OF_LIMIT: f64 = 0.6;
const SMALL_FILES_PER_SECOND: f64 = 2700.0;
const CLIENT_MIB_MAX: f64 = 300.0;

/// What is stored, and where in the vault.
struct Job<'a> {
    name: &'static str,
    source: &'a Path,
    bytes: u64,
    path: &'static str,
}

/// A command, and what it took of the others.
struct Measured {
    ran: Ran,
    nodes_cpu_seconds: f64,
    sent_bytes: u64,
}

fn measured(network: &LocalNetwork, arguments: &[&std::ffi::OsStr]) -> Result<Measured, Failure> {
    let (cpu, sent) = (network.cpu_seconds()?, loopback_bytes()?);
    let ran = network.client(|command| {
        command.arg("--json").args(arguments);
    })?;
    Ok(Measured { ran, nodes_cpu_seconds: network.cpu_seconds()? - cpu, sent_bytes: loopback_bytes()? - sent })
}

/// Does all of it.
pub(crate) fn measure(
    settings: &Settings,
    network: &LocalNetwork,
    content: &Content,
    limits: &Limits,
    report: &mut Report,
) -> Result<(), Failure> {
    let bytes = settings.large_bytes;
    let noise = Job { name: "noise", source: &content.noise, bytes, path: "/noise" };
    let text = Job { name: "text", source: &content.text, bytes, path: "/text" };
    let small = Job { name: "small files", source: &content.small, bytes: content.small_bytes, path: "/small" };
    let mut peaks = (0, 0);
    for job in [&noise, &text, &small] {
        step(&format!("put and get of {}", job.name));
        let put = measured(network, &["put".as_ref(), job.source.as_ref(), job.path.as_ref()])?;
        let target = restored(settings);
        let get = measured(network, &["get".as_ref(), job.path.as_ref(), target.as_ref()])?;
        content::compare(job.source, &target)?;
        remove(&target)?;
        peaks = (peaks.0.max(put.ran.peak_bytes), peaks.1.max(get.ran.peak_bytes));
        if std::ptr::eq(job, &small) {
            files(settings.files, &put, &get, report);
        } else {
            large(job, &put, &get, limits, report);
        }
        used(job, &put, &get, report)?;
    }
    step("first byte");
    let cat = network.client(|command| {
        command.args(["cat", noise.path]);
    })?;
    if cat.output_bytes != bytes {
        return Err("cat gave another number of bytes than was stored".into());
    }
    let first = cat.first_byte_seconds * 1e3;
    report.push(Row::new("small reads", "first byte of a large file, cold command", first, "ms"));
    for (what, peak) in [("client, peak, put", peaks.0), ("client, peak, get", peaks.1)] {
        let row = Row::new("memory", what, peak as f64 / MIB as f64, "MiB");
        report.push(row.aim(Some(Aim::AtMost(CLIENT_MIB_MAX))));
    }
    Ok(())
}

fn restored(settings: &Settings) -> PathBuf {
    settings.scratch.join("restored")
}

fn remove(target: &Path) -> Result<(), Failure> {
    if target.is_dir() {
        fs::remove_dir_all(target)?
    } else {
        fs::remove_file(target)?
    }
    Ok(())
}

fn large(job: &Job<'_>, put: &Measured, get: &Measured, limits: &Limits, report: &mut Report) {
    let rate = |measured: &Measured| job.bytes as f64 / MIB as f64 / measured.ran.seconds;
    for (what, measured, limit, other) in
        [("put", put, limits.put, 5.0 * TAHOE_PUT), ("get", get, limits.get, 4.0 * SENDME)]
    {
        let aim = Aim::AtLeast(other.max(PART_OF_LIMIT * limit));
        let row =
            Row::new("end to end", format!("{what} {} ({} MiB)", job.name, job.bytes / MIB), rate(measured), "MiB/s");
        // The limit is that of noise.
        report.push(if job.name == "noise" { row.beside("limit", limit).aim(Some(aim)) } else { row });
    }
}

fn files(count: usize, put: &Measured, get: &Measured, report: &mut Report) {
    for (what, measured) in [("put", put), ("get", get)] {
        let rate = count as f64 / measured.ran.seconds;
        let row = Row::new("end to end", format!("{what} small files, {count} of 10 KiB"), rate, "files/s");
        report.push(row.aim(Some(Aim::AtLeast(SMALL_FILES_PER_SECOND))));
    }
}

/// CPU time and bytes on the network.
fn used(job: &Job<'_>, put: &Measured, get: &Measured, report: &mut Report) -> Result<(), Failure> {
    let section = "what it takes";
    for (what, measured) in [("put", put), ("get", get)] {
        let gib = job.bytes as f64 / GIB;
        let what = format!("{what} {}", job.name);
        report.push(Row::new(section, format!("{what}, client CPU"), measured.ran.cpu_seconds / gib, "s/GiB"));
        report.push(Row::new(section, format!("{what}, CPU of all nodes"), measured.nodes_cpu_seconds / gib, "s/GiB"));
        let sent = measured.sent_bytes as f64 / job.bytes as f64;
        report.push(Row::new(section, format!("{what}, on the wire per byte"), sent, ""));
    }
    let said: serde_json::Value = serde_json::from_slice(&put.ran.output)?;
    let placed = said["commit"]["figures"]["bytes_placed"].as_f64().ok_or("put does not say what it placed")?;
    report.push(Row::new(
        section,
        format!("put {}, shard bytes placed per byte", job.name),
        placed / job.bytes as f64,
        "",
    ));
    Ok(())
}
