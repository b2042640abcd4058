//! `put SRC [PATH]`: a copy of SRC at PATH.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use commonhold_client_sdk::{CommitReport, EntryCounts, Progress, PutOptions, PutReport};
use serde::Serialize;

use crate::{args, exit::Failure, figures, interrupt, output::Output, reporter::Reporter};

/// A put in JSON.
#[derive(Serialize)]
struct Stored {
    path: String,
    entries: EntryCounts,
    bytes: u64,
    coding: String,
    loss_per_year: Option<f64>,
    commit: CommitReport,
    seconds: f64,
    unreadable: Vec<LeftOut>,
    unreadable_total: u64,
    drafts_left_out: u64,
}

/// A path of this machine that something went wrong with. `path_hex` is exact, as paths may hold any bytes.
#[derive(Serialize)]
pub(super) struct LeftOut {
    path: String,
    path_hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    reason: String,
}

impl LeftOut {
    pub(super) fn new(path: &Path, what: Option<&'static str>, reason: &str) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            path_hex: hex::encode(path.as_os_str().as_bytes()),
            what,
            reason: reason.to_owned(),
        }
    }
}

pub(super) fn run(args: &args::Put, output: &Output) -> Result<(), Failure> {
    let target = match &args.path {
        Some(path) => super::vault_path(path)?,
        None => super::vault_path(&name_of(&args.src)?)?,
    };
    let vault = super::open(&args.entry)?;
    let progress = Arc::new(Progress::default());
    interrupt::interrupts(&progress).map_err(Failure::Signals)?;
    let reporter = Reporter::start(output, "put", &progress);
    let put = vault.put(&args.src, &target, &PutOptions { overwrite: args.overwrite }, &progress);
    drop(reporter);
    let report = put?;
    output.done(&stored(&report, target.to_string()), || vec![summary(&report, &target.to_string())])?;
    super::remark_on_commit(output, &report.commit);
    let sharing = report.commit.figures.shards_sharing;
    if sharing > 0 {
        output.remark(&format!(
            "{} placed in a failure domain that holds another of the same segment: there are fewer domains than shards",
            figures::count(sharing, "shard was", "shards were")
        ));
    }
    if report.drafts_left_out > 0 {
        output.remark(&format!(
            "{} left out: a `get` that runs finishes its own, and `get --overwrite` clears those of one that was cut off",
            figures::count(report.drafts_left_out, "draft of a `get` was", "drafts of a `get` were")
        ));
    }
    for unreadable in &report.unreadable {
        output.warning(&format!("not stored: {}: {}", unreadable.path.display(), unreadable.reason));
    }
    done_in_part(output, report.unreadable.len(), report.unreadable_total, "stored")
}

/// Says how many more there are than were named, and that not all was done; nothing of it if all was.
pub(super) fn done_in_part(output: &Output, named: usize, total: u64, verb: &'static str) -> Result<(), Failure> {
    let unnamed = total - named as u64;
    if unnamed > 0 {
        output.warning(&format!("not {verb}: and {} more", figures::grouped(unnamed)));
    }
    match total {
        0 => Ok(()),
        count => Err(Failure::DoneInPart { count, verb }),
    }
}

/// The last name of a path on this machine, also of `.` and `folder/..`.
fn name_of(src: &Path) -> Result<OsString, Failure> {
    let unnamed = || Failure::NeedsTarget { path: src.to_owned(), argument: "PATH" };
    match src.file_name() {
        Some(name) => Ok(name.to_owned()),
        None => {
            let whole = src.canonicalize().map_err(super::file_failure("find", src))?;
            whole.file_name().map(OsString::from).ok_or_else(unnamed)
        }
    }
}

fn stored(report: &PutReport, path: String) -> Stored {
    let unreadable = report.unreadable.iter().map(|left| LeftOut::new(&left.path, None, &left.reason)).collect();
    Stored {
        path,
        entries: report.entries,
        bytes: report.bytes,
        coding: report.coding.clone(),
        loss_per_year: report.loss_per_year,
        commit: report.commit.clone(),
        seconds: report.seconds,
        unreadable,
        unreadable_total: report.unreadable_total,
        drafts_left_out: report.drafts_left_out,
    }
}

fn summary(report: &PutReport, target: &str) -> String {
    format!(
        "stored {} at {}: {} in {} ({}); {} sent",
        entries(&report.entries),
        crate::escape::text(target),
        figures::size(report.bytes),
        figures::span(report.seconds),
        figures::rate(report.bytes, report.seconds),
        figures::size(report.commit.figures.bytes_placed),
    )
}

/// `12 files, 3 folders and 1 link`.
pub(super) fn entries(counts: &EntryCounts) -> String {
    let mut parts = Vec::new();
    for (count, one, many) in [
        (counts.files, "file", "files"),
        (counts.folders, "folder", "folders"),
        (counts.links, "link", "links"),
        (counts.others, "other", "others"),
    ] {
        if count > 0 {
            parts.push(figures::count(count, one, many));
        }
    }
    match parts.pop() {
        None => "nothing".to_owned(),
        Some(last) if parts.is_empty() => last,
        Some(last) => format!("{} and {last}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_written_name_still_has_one() {
        assert_eq!(name_of(Path::new("some/photos/")).expect("a name"), "photos");
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(Some(name_of(Path::new(".")).expect("a name").as_os_str()), here.file_name());
        assert!(matches!(name_of(Path::new("/")), Err(Failure::NeedsTarget { .. })));
    }

    #[test]
    fn counts_read_as_a_list() {
        let counts = EntryCounts { files: 1200, folders: 1, links: 2, ..EntryCounts::default() };
        assert_eq!(entries(&counts), "1,200 files, 1 folder and 2 links");
        assert_eq!(entries(&EntryCounts { files: 1, ..EntryCounts::default() }), "1 file");
        assert_eq!(entries(&EntryCounts::default()), "nothing");
    }
}
