//! Making files on this machine from entries of a tree: **opened → file**.
//!
//! Every step is relative to an open folder and follows no link, so that no name and no link in a tree can lead
//! outside of the target, whatever else is going on in it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use commonhold_storage_engine::tree::entry::{Entry, EntryKind, LinkGroup};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fsetxattr, futimens,
    linkat, makedev, mkdirat, mknodat, openat, symlinkat, unlinkat, utimensat,
};

use crate::error::{Error, IoContext};

/// Something of an entry that could not be restored; the rest was.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NotRestored {
    /// Where.
    pub path: PathBuf,
    /// What of it.
    pub what: &'static str,
    /// The system's reason.
    pub reason: String,
}

/// A folder that is being restored.
pub(crate) struct OpenFolder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A file that is being restored.
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    at: u64,
}

/// What is known across a whole restore.
pub(crate) struct Restorer {
    overwrite: bool,
    privileged: bool,
    /// The first path that each hard-linked file was restored at.
    links: HashMap<(LinkGroup, u64), PathBuf>,
    not_restored: Vec<NotRestored>,
}

/// Complaints kept in a report; more than a person reads, less than memory minds.
const NOT_RESTORED_MAX: usize = 10_000;

fn mode_of(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn times_of(entry: &Entry) -> Timestamps {
    let modified = Timespec {
        tv_sec: entry.modified.seconds(),
        tv_nsec: entry.modified.nanoseconds().into(),
    };
    Timestamps { last_access: modified, last_modification: modified }
}

impl Restorer {
    pub(crate) fn new(overwrite: bool) -> Self {
        let privileged = rustix::process::geteuid().is_root();
        Self { overwrite, privileged, links: HashMap::new(), not_restored: Vec::new() }
    }

    pub(crate) fn into_not_restored(self) -> Vec<NotRestored> {
        self.not_restored
    }

    fn complain(&mut self, path: &Path, what: &'static str, error: impl Into<io::Error>) {
        if self.not_restored.len() < NOT_RESTORED_MAX {
            let reason = error.into().to_string();
            self.not_restored.push(NotRestored { path: path.to_owned(), what, reason });
        }
    }

    /// Opens the folder that the target lies in.
    pub(crate) fn open_parent(path: &Path) -> Result<OpenFolder, Error> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).doing("open", path)?;
        Ok(OpenFolder { fd, path: path.to_owned() })
    }

    /// Makes a folder, or enters the one that is there if that is allowed. A link in its place is never followed.
    pub(crate) fn folder(&self, parent: &OpenFolder, name: &OsStr) -> Result<OpenFolder, Error> {
        let path = parent.path.join(name);
        match mkdirat(&parent.fd, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) if self.overwrite => {}
            Err(rustix::io::Errno::EXIST) => return Err(Error::TargetExists { path }),
            made => made.map_err(io::Error::from).doing("create", &path)?,
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, name, flags, Mode::empty()).map_err(io::Error::from).doing("open", &path)?;
        Ok(OpenFolder { fd, path })
    }

    /// Gives a folder its attributes, once everything in it is there.
    pub(crate) fn finish_folder(&mut self, folder: OpenFolder, entry: &Entry) {
        self.attributes(&folder.fd, &folder.path, entry);
    }

    /// Starts a file. None if it is a further name of one that was restored already.
    pub(crate) fn file(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<Option<OpenFile>, Error> {
        let path = parent.path.join(name);
        if let Some(group) = entry.link_group {
            let first = self.links.entry((group, entry.size())).or_insert_with(|| path.clone()).clone();
            if first != path && self.link(parent, name, &first, &path)? {
                return Ok(None);
            }
        }
        self.make_way(parent, name, &path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, name, flags, Mode::RUSR | Mode::WUSR);
        let fd = fd.map_err(io::Error::from).doing("create", &path)?;
        Ok(Some(OpenFile { file: File::from(fd), path, at: 0 }))
    }

    /// True if a second name was made; false if this file system has none, so that the content is written again.
    fn link(&mut self, parent: &OpenFolder, name: &OsStr, first: &Path, path: &Path) -> Result<bool, Error> {
        self.make_way(parent, name, path)?;
        match linkat(rustix::fs::CWD, first, &parent.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.complain(path, "hard link", error);
                Ok(false)
            }
        }
    }

    /// Removes what is in the way of a file, if that is allowed; never a folder.
    fn make_way(&self, parent: &OpenFolder, name: &OsStr, path: &Path) -> Result<(), Error> {
        if !self.overwrite {
            return match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Ok(_) => Err(Error::TargetExists { path: path.to_owned() }),
                Err(error) => Err(io::Error::from(error)).doing("look at", path),
            };
        }
        match unlinkat(&parent.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(io::Error::from(error)).doing("replace", path),
        }
    }

    /// Gives a file its length and attributes.
    pub(crate) fn finish_file(&mut self, file: OpenFile, entry: &Entry) -> Result<(), Error> {
        if file.at != entry.size() {
            let reason = format!("{}: {} bytes instead of {}", file.path.display(), file.at, entry.size());
            return Err(Error::TreeDamaged { reason });
        }
        // A hole at the end leaves the file too short.
        file.file.set_len(file.at).doing("set the length of", &file.path)?;
        self.attributes(&file.file, &file.path, entry);
        Ok(())
    }

    /// Makes what is neither file nor folder.
    pub(crate) fn special(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let path = parent.path.join(name);
        self.make_way(parent, name, &path)?;
        let made = match &entry.kind {
            EntryKind::Symlink(target) => symlinkat(OsStr::from_bytes(target), &parent.fd, name),
            EntryKind::Fifo => mknodat(&parent.fd, name, FileType::Fifo, mode_of(entry), 0),
            EntryKind::CharDevice { major, minor } => {
                mknodat(&parent.fd, name, FileType::CharacterDevice, mode_of(entry), makedev(*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                mknodat(&parent.fd, name, FileType::BlockDevice, mode_of(entry), makedev(*major, *minor))
            }
            EntryKind::Socket => mknodat(&parent.fd, name, FileType::Socket, mode_of(entry), 0),
            EntryKind::File(_) | EntryKind::Directory(_) => Ok(()),
        };
        if let Err(error) = made {
            self.complain(&path, "the entry itself", error);
            return Ok(());
        }
        if self.privileged {
            let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            if let Err(error) = chownat(&parent.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
                self.complain(&path, "owner", error);
            }
        }
        if !matches!(entry.kind, EntryKind::Symlink(_))
            && let Err(error) = rustix::fs::chmodat(&parent.fd, name, mode_of(entry), AtFlags::empty())
        {
            self.complain(&path, "mode", error);
        }
        for (key, value) in entry.xattrs.iter() {
            // Attributes of a link itself; there is no call relative to a folder, and none that follows.
            let key_name = OsStr::from_bytes(key);
            if let Err(error) = rustix::fs::lsetxattr(&path, key_name, value, XattrFlags::empty()) {
                self.complain(&path, "extended attribute", error);
            }
        }
        if let Err(error) = utimensat(&parent.fd, name, &times_of(entry), AtFlags::SYMLINK_NOFOLLOW) {
            self.complain(&path, "time", error);
        }
        Ok(())
    }

    /// Owner where allowed, then mode (a change of owner clears set-id bits), attributes, and times last.
    fn attributes(&mut self, fd: &impl AsFd, path: &Path, entry: &Entry) {
        if self.privileged {
            let (owner, group) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            if let Err(error) = rustix::fs::fchown(fd, owner, group) {
                self.complain(path, "owner", error);
            }
        }
        for (key, value) in entry.xattrs.iter() {
            if let Err(error) = fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty()) {
                self.complain(path, "extended attribute", error);
            }
        }
        if let Err(error) = fchmod(fd, mode_of(entry)) {
            self.complain(path, "mode", error);
        }
        if let Err(error) = futimens(fd, &times_of(entry)) {
            self.complain(path, "time", error);
        }
    }
}

impl OpenFile {
    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, self.at).doing("write", &self.path)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Leaves a hole.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.at += bytes;
    }
}
