//! `ls [PATH]`: the entries of a folder, printed as they arrive, however many there are.

use commonhold_client_sdk::{self as sdk, Entry, EntryKind, Listed};
use serde::Serialize;

use crate::{args, escape, exit::Failure, figures, output::Output};

/// An entry in JSON. `name` is for reading; `name_hex` is exact, as names may hold any bytes.
#[derive(Serialize)]
struct Item {
    name: String,
    name_hex: String,
    kind: &'static str,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    modified_seconds: i64,
    modified_nanoseconds: u32,
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

pub(super) fn run(args: &args::Ls, output: &Output) -> Result<(), Failure> {
    let path = super::vault_path(&args.path)?;
    let vault = super::open(&args.entry)?;
    let mut list = output.list();
    vault.list(&path, &mut |listed| {
        let printed = if output.is_json() {
            list.item(&item(&listed), String::new)
        } else {
            list.item(&(), || if args.long { long(&listed) } else { escape::name(listed.name.as_bytes()) })
        };
        printed.map_err(sdk::Error::Output)
    })?;
    list.finish()?;
    Ok(())
}

fn item(listed: &Listed) -> Item {
    let Listed { name, entry } = listed;
    let target = match &entry.kind {
        EntryKind::Symlink(target) => Some(target),
        _ => None,
    };
    Item {
        name: String::from_utf8_lossy(name.as_bytes()).into_owned(),
        name_hex: hex::encode(name.as_bytes()),
        kind: kind(&entry.kind),
        size: entry.size(),
        mode: format!("{:04o}", entry.mode & 0o7777),
        uid: entry.uid,
        gid: entry.gid,
        modified_seconds: entry.modified.seconds(),
        modified_nanoseconds: entry.modified.nanoseconds(),
        modified: figures::rfc3339(entry.modified.seconds(), entry.modified.nanoseconds()),
        target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
        target_hex: target.map(hex::encode),
    }
}

fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File(_) => "file",
        EntryKind::Directory(_) => "folder",
        EntryKind::Symlink(_) => "link",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice { .. } => "char-device",
        EntryKind::BlockDevice { .. } => "block-device",
        EntryKind::Socket => "socket",
    }
}

/// `-rw-r--r--  1000:1000    1.5 KiB  2026-02-03 04:05:06 UTC  name -> target`.
fn long(listed: &Listed) -> String {
    let Listed { name, entry } = listed;
    let size = match entry.kind {
        EntryKind::File(_) => figures::size(entry.size()),
        _ => "-".to_owned(),
    };
    let mut line = format!(
        "{}  {:>11}  {size:>10}  {}  {}",
        permissions(entry),
        format!("{}:{}", entry.uid, entry.gid),
        figures::date(entry.modified.seconds()),
        escape::name(name.as_bytes()),
    );
    if let EntryKind::Symlink(target) = &entry.kind {
        line.push_str(" -> ");
        line.push_str(&escape::name(target));
    }
    line
}

/// As `ls -l` writes them: `drwxr-xr-x`.
fn permissions(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::File(_) => '-',
        EntryKind::Directory(_) => 'd',
        EntryKind::Symlink(_) => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        EntryKind::Socket => 's',
    };
    format!("{kind}{}", mode_text(entry.mode))
}

fn mode_text(mode: u32) -> String {
    let set = |bit: u32| mode & bit != 0;
    let mut text = String::with_capacity(9);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(if set(0o4 << shift) { 'r' } else { '-' });
        text.push(if set(0o2 << shift) { 'w' } else { '-' });
        text.push(match (set(special), set(0o1 << shift)) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o2644, "rw-r-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0, "---------"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }
}
