//! Compares two trees on this machine, entry by entry and byte by byte, by its own plain walk: what it says does not
//! depend on anything that stored or restored them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, BufReader, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::DemoError;

/// What was found to be the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Compares `copy` with `original`, of which the paths in `left_out` were never stored.
pub(super) fn trees(original: &Path, copy: &Path, left_out: &BTreeSet<PathBuf>) -> Result<Compared, DemoError> {
    let mut compared = Compared::default();
    entry(original, copy, left_out, &mut compared)?;
    Ok(compared)
}

fn entry(original: &Path, copy: &Path, left_out: &BTreeSet<PathBuf>, compared: &mut Compared) -> Result<(), DemoError> {
    let differs = |what: &str| DemoError::Differs { path: copy.to_owned(), what: what.to_owned() };
    let before = fs::symlink_metadata(original).map_err(failed("read", original))?;
    let after = fs::symlink_metadata(copy).map_err(failed("read", copy))?;
    let (was, is) = (before.file_type(), after.file_type());
    if was != is {
        return Err(differs("it is of another kind"));
    }
    compared.entries += 1;
    check(&before, &after).map_err(differs)?;
    if was.is_dir() {
        let there = names(copy)?;
        let mut stored = names(original)?;
        stored.retain(|name| !left_out.contains(&original.join(name)));
        if there != stored {
            return Err(differs(&format!("it has {} entries, not {}", there.len(), stored.len())));
        }
        for name in &stored {
            entry(&original.join(name), &copy.join(name), left_out, compared)?;
        }
    } else if was.is_symlink() {
        let target = |path: &Path| fs::read_link(path).map_err(failed("read", path));
        if target(original)? != target(copy)? {
            return Err(differs("the link leads elsewhere"));
        }
    } else if was.is_file() {
        compared.bytes += before.len();
        if !same_bytes(original, copy)? {
            return Err(differs("its content is another"));
        }
    } else if (was.is_block_device() || was.is_char_device()) && before.rdev() != after.rdev() {
        return Err(differs("it is another device"));
    }
    Ok(())
}

fn check(before: &Metadata, after: &Metadata) -> Result<(), &'static str> {
    // Links have no mode of their own on Linux.
    if !before.is_symlink() && before.mode() != after.mode() {
        return Err("its mode is another");
    }
    if (before.mtime(), before.mtime_nsec()) != (after.mtime(), after.mtime_nsec()) {
        return Err("its time is another");
    }
    if before.is_file() && before.len() != after.len() {
        return Err("its length is another");
    }
    Ok(())
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>, DemoError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed("read", folder))).collect()
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool, DemoError> {
    let open = |path: &Path| {
        File::open(path).map(|file| BufReader::with_capacity(1 << 20, file)).map_err(failed("open", path))
    };
    let (mut a_bytes, mut b_bytes) = (open(a)?, open(b)?);
    let (mut a_part, mut b_part) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let a_length = fill(&mut a_bytes, &mut a_part).map_err(failed("read", a))?;
        let b_length = fill(&mut b_bytes, &mut b_part).map_err(failed("read", b))?;
        if a_part[..a_length] != b_part[..b_length] {
            return Ok(false);
        }
        if a_length == 0 {
            return Ok(true);
        }
    }
}

/// Reads until `part` is full or the file ends.
fn fill(from: &mut impl Read, part: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < part.len() {
        match from.read(&mut part[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.to_owned();
    move |source| DemoError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree(at: &Path) {
        fs::create_dir_all(at.join("folder")).expect("made");
        fs::write(at.join("folder/file"), vec![7; 3 << 20]).expect("made");
        symlink("folder/file", at.join("link")).expect("made");
        for path in ["folder/file", "folder", ""] {
            let file = File::open(at.join(path)).expect("opened");
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        }
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
        };
        rustix::fs::utimensat(rustix::fs::CWD, at.join("link"), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .expect("set");
    }

    #[test]
    fn any_difference_is_found() {
        let both = tempfile::tempdir().expect("a folder");
        let (a, b) = (both.path().join("a"), both.path().join("b"));
        tree(&a);
        tree(&b);
        let none = BTreeSet::new();
        assert_eq!(trees(&a, &b, &none).expect("the same"), Compared { entries: 4, bytes: 3 << 20 });
        let differs = |change: &dyn Fn(&Path)| {
            fs::remove_dir_all(&b).expect("removed");
            tree(&b);
            change(&b);
            matches!(trees(&a, &b, &none), Err(DemoError::Differs { .. }))
        };
        assert!(differs(&|b| {
            let path = b.join("folder/file");
            let mut bytes = fs::read(&path).expect("read");
            bytes[2 << 20] ^= 1;
            fs::write(&path, bytes).expect("written");
            File::open(&path).expect("opened").set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        }));
        assert!(differs(&|b| fs::set_permissions(b.join("folder"), fs::Permissions::from_mode(0o700)).expect("set")));
        assert!(differs(&|b| File::open(b.join("folder"))
            .expect("opened")
            .set_modified(std::time::SystemTime::now())
            .expect("set")));
        assert!(differs(&|b| fs::write(b.join("more"), "x").expect("written")));
        assert!(differs(&|b| fs::remove_file(b.join("link")).expect("removed")));
    }

    #[test]
    fn what_was_left_out_is_not_missed() {
        let both = tempfile::tempdir().expect("a folder");
        let (a, b) = (both.path().join("a"), both.path().join("b"));
        tree(&a);
        tree(&b);
        let now = File::open(b.join("folder")).expect("opened");
        fs::remove_file(b.join("folder/file")).expect("removed");
        now.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        let left_out = BTreeSet::from([a.join("folder/file")]);
        assert_eq!(trees(&a, &b, &left_out).expect("the same"), Compared { entries: 3, bytes: 0 });
        assert!(trees(&a, &b, &BTreeSet::new()).is_err());
    }
}
