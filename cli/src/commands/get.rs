//! `get PATH [DEST]`: a copy of PATH at DEST.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use commonhold_client_sdk::{EntryCounts, GetOptions, GetReport, Progress};
use serde::Serialize;

use super::put::{LeftOut, done_in_part};
use crate::{args, exit::Failure, figures, interrupt, output::Output, reporter::Reporter};

/// A get in JSON.
#[derive(Serialize)]
struct Restored {
    entries: EntryCounts,
    bytes: u64,
    seconds: f64,
    not_restored: Vec<LeftOut>,
    not_restored_total: u64,
}

pub(super) fn run(args: &args::Get, output: &Output) -> Result<(), Failure> {
    let source = super::vault_path(&args.path)?;
    let target = match (&args.dest, source.split_last()) {
        (Some(dest), _) => dest.clone(),
        (None, Some((_, name))) => PathBuf::from(OsStr::from_bytes(name.as_bytes())),
        (None, None) => return Err(Failure::NeedsTarget { path: PathBuf::from("/"), argument: "DEST" }),
    };
    let vault = super::open(&args.entry)?;
    let progress = Arc::new(Progress::default());
    interrupt::interrupts(&progress).map_err(Failure::Signals)?;
    let reporter = Reporter::start(output, "get", &progress);
    let got = vault.get(&source, &target, &GetOptions { overwrite: args.overwrite }, &progress);
    drop(reporter);
    let report = got?;
    output.done(&restored(&report), || vec![summary(&report, &target)])?;
    for left in &report.not_restored {
        output.warning(&format!("not restored: {} of {}: {}", left.what, left.path.display(), left.reason));
    }
    done_in_part(output, report.not_restored.len(), report.not_restored_total, "restored in full")
}

fn restored(report: &GetReport) -> Restored {
    let left = report.not_restored.iter();
    let not_restored = left.map(|left| LeftOut::new(&left.path, Some(left.what), &left.reason)).collect();
    let GetReport { entries, bytes, seconds, not_restored_total, .. } = *report;
    Restored { entries, bytes, seconds, not_restored, not_restored_total }
}

fn summary(report: &GetReport, target: &Path) -> String {
    format!(
        "restored {} to {}: {} in {} ({})",
        super::put::entries(&report.entries),
        crate::escape::text(&target.to_string_lossy()),
        figures::size(report.bytes),
        figures::span(report.seconds),
        figures::rate(report.bytes, report.seconds),
    )
}
