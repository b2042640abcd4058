//! Whether two folders are the same, as tools that are not ours see it: rsync for contents, modes, owners, times to
//! the nanosecond, links and extended attributes, find for what rsync does not say.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use super::Finished;

/// How two folders differ, in the words of the tools; empty if they do not.
fn differences(a: &Path, b: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--checksum", "--itemize-changes", "--delete", "--modify-window=-1", "--numeric-ids"]);
    // With a slash at its end a path means what is in it, and the folder's own attributes.
    rsync.arg(a.join("")).arg(b.join(""));
    let found = Finished::of(&mut rsync).expect_code(0);
    let mut text = String::from_utf8_lossy(&found.stdout).into_owned();
    let (ours, theirs) = (listing(a), listing(b));
    if ours != theirs {
        let missing = ours.iter().filter(|line| !theirs.contains(line)).map(|line| format!("- {line}\n"));
        let added = theirs.iter().filter(|line| !ours.contains(line)).map(|line| format!("+ {line}\n"));
        text.extend(missing.chain(added).take(40));
    }
    text
}

/// Kind, mode, owner, size, time and number of names of everything in a folder.
fn listing(folder: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    // The size of a folder is the file system's own affair.
    find.current_dir(folder).args([".", "-type", "d", "-printf", "%P %y %m %U:%G %T@\\0"]);
    find.args(["-o", "-printf", "%P %y %m %U:%G %s %T@ %n %l\\0"]);
    let found = Finished::of(&mut find).expect_code(0);
    let mut lines: Vec<String> =
        found.stdout.split(|byte| *byte == 0).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.sort_unstable();
    lines
}

/// Fails if two folders differ in anything.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let text = differences(a, b);
    assert!(text.is_empty(), "{} and {} differ:\n{text}", a.display(), b.display());
}

/// The texts in a folder's files, by name; of a folder with nothing else in it.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}
