//! Making files on this machine from entries of a tree: **opened → file**.
//!
//! Every step is relative to an open folder and follows no link, so that no name and no link in a tree can lead
//! outside of the target, whatever else is going on in it.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use commonhold_storage_engine::tree::entry::{Entry, EntryKind, FileContent, LinkGroup};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, setxattr, symlinkat, unlinkat, utimensat,
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

/// Names of one file: the same group, and the same content. A merge can leave two versions under one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SameFile(LinkGroup, [u8; 32]);

impl SameFile {
    /// None for what has one name.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let (group, EntryKind::File(content)) = (entry.link_group?, &entry.kind) else { return None };
        let mut hasher = blake3::Hasher::new();
        match content {
            FileContent::Inline(bytes) => hasher.update(b"i").update(bytes),
            FileContent::Chunks(root) => hasher.update(b"c").update(&root.to_bytes()),
        };
        Some(Self(group, *hasher.finalize().as_bytes()))
    }
}

/// A folder that is being restored.
pub(crate) struct OpenFolder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A file that is being restored.
pub(crate) struct OpenFile {
    file: File,
    name: OsString,
    path: PathBuf,
    at: u64,
}

/// What is known across a whole restore.
pub(crate) struct Restorer {
    overwrite: bool,
    privileged: bool,
    /// The folder that the target lies in.
    base: OpenFolder,
    /// The first path that each file with several names was restored at.
    links: HashMap<SameFile, PathBuf>,
    not_restored: Vec<NotRestored>,
}

/// Complaints kept in a report; more than a person reads, less than memory minds.
const NOT_RESTORED_MAX: usize = 10_000;
/// Files with several names that are remembered; beyond it, every name becomes a file of its own.
pub(crate) const LINKED_MAX: usize = 1 << 18;
/// To enter a folder without following a link in its place.
const ENTER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn mode_of(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn times_of(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.modified.seconds(), tv_nsec: entry.modified.nanoseconds().into() };
    Timestamps { last_access: modified, last_modification: modified }
}

/// A path to whatever `fd` is: changes reach it, and nothing that took its name since.
fn path_of_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Restorer {
    /// Opens the folder that the target lies in.
    pub(crate) fn open(parent: &Path, overwrite: bool) -> Result<(Self, OpenFolder), Error> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(parent, flags, Mode::empty()).map_err(io::Error::from).doing("open", parent)?;
        let base = fd.try_clone().doing("open", parent)?;
        let restorer = Self {
            overwrite,
            privileged: rustix::process::geteuid().is_root(),
            base: OpenFolder { fd: base, path: parent.to_owned() },
            links: HashMap::new(),
            not_restored: Vec::new(),
        };
        Ok((restorer, OpenFolder { fd, path: parent.to_owned() }))
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

    /// Makes a folder, or enters the one that is there if that is allowed. A link in its place is never followed.
    pub(crate) fn folder(&self, parent: &OpenFolder, name: &OsStr) -> Result<OpenFolder, Error> {
        let path = parent.path.join(name);
        match mkdirat(&parent.fd, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) if self.overwrite => {}
            Err(rustix::io::Errno::EXIST) => return Err(Error::TargetExists { path }),
            made => made.map_err(io::Error::from).doing("create", &path)?,
        }
        let fd = openat(&parent.fd, name, ENTER, Mode::empty()).map_err(io::Error::from).doing("open", &path)?;
        Ok(OpenFolder { fd, path })
    }

    /// Gives a folder its attributes, once everything in it is there.
    pub(crate) fn finish_folder(&mut self, folder: &OpenFolder, entry: &Entry) {
        self.attributes(&folder.fd, &folder.path, entry);
    }

    /// Starts a file.
    pub(crate) fn file(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<OpenFile, Error> {
        let path = parent.path.join(name);
        self.make_way(parent, name, &path)?;
        let file = create(parent, name, &path)?;
        if let Some(same) = SameFile::of(entry) {
            if self.links.len() < LINKED_MAX {
                self.links.insert(same, path.clone());
            } else {
                let reason = format!("more than {LINKED_MAX} files have several names");
                self.complain(&path, "hard link", io::Error::other(reason));
            }
        }
        Ok(OpenFile { file, name: name.to_owned(), path, at: 0 })
    }

    /// Makes a further name of a file that was restored already; a copy, where there can be no such name.
    pub(crate) fn link(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let path = parent.path.join(name);
        self.make_way(parent, name, &path)?;
        let first = SameFile::of(entry).and_then(|same| self.links.get(&same).cloned());
        let first = first.ok_or_else(|| Error::TreeDamaged { reason: "a link to no file".to_owned() })?;
        let (folder, first_name) = self.find(&first).doing("find", &first)?;
        let Err(error) = linkat(&folder, first_name, &parent.fd, name, AtFlags::empty()) else { return Ok(()) };
        self.complain(&path, "hard link", error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = openat(&folder, first_name, flags, Mode::empty()).map_err(io::Error::from).doing("read", &first)?;
        let mut to = create(parent, name, &path)?;
        io::copy(&mut File::from(from), &mut to).doing("write", &path)?;
        self.attributes(&to, &path, entry);
        Ok(())
    }

    /// The folder that holds a path of this restore, entered from the base on without following a link, and its name.
    fn find<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let below = path.strip_prefix(&self.base.path).map_err(io::Error::other)?;
        let name = below.file_name().ok_or(io::ErrorKind::NotFound)?;
        let mut folder = self.base.fd.try_clone()?;
        for above in below.parent().into_iter().flat_map(Path::components) {
            folder = openat(&folder, above.as_os_str(), ENTER, Mode::empty())?;
        }
        Ok((folder, name))
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
    pub(crate) fn finish_file(&mut self, file: &OpenFile, entry: &Entry) -> Result<(), Error> {
        if file.at != entry.size() {
            let reason = format!("{}: {} bytes instead of {}", file.path.display(), file.at, entry.size());
            return Err(Error::TreeDamaged { reason });
        }
        // A hole at the end leaves the file too short.
        file.file.set_len(file.at).doing("set the length of", &file.path)?;
        self.attributes(&file.file, &file.path, entry);
        Ok(())
    }

    /// Removes a file that will not be finished.
    pub(crate) fn discard(&mut self, parent: &OpenFolder, file: OpenFile) {
        if let Err(error) = unlinkat(&parent.fd, &file.name, AtFlags::empty()) {
            tracing::warn!("{} is not whole, and cannot be removed: {error}", file.path.display());
        }
    }

    /// Makes what is neither file nor folder.
    pub(crate) fn special(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let path = parent.path.join(name);
        self.make_way(parent, name, &path)?;
        let node = |kind, major, minor| mknodat(&parent.fd, name, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor));
        let (kind, made) = match &entry.kind {
            EntryKind::Symlink(target) => (FileType::Symlink, symlinkat(OsStr::from_bytes(target), &parent.fd, name)),
            EntryKind::Fifo => (FileType::Fifo, node(FileType::Fifo, 0, 0)),
            EntryKind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, node(FileType::CharacterDevice, *major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, node(FileType::BlockDevice, *major, *minor))
            }
            EntryKind::Socket => (FileType::Socket, node(FileType::Socket, 0, 0)),
            EntryKind::File(_) | EntryKind::Directory(_) => return Ok(()),
        };
        if let Err(error) = made {
            self.complain(&path, "the entry itself", error);
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, name, flags, Mode::empty()).map_err(io::Error::from).doing("open", &path)?;
        let found = rustix::fs::fstat(&fd).map_err(io::Error::from).doing("look at", &path)?;
        if FileType::from_raw_mode(found.st_mode) != kind {
            self.complain(&path, "attributes", io::Error::other("something else took its place"));
            return Ok(());
        }
        if self.privileged {
            let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            if let Err(error) = chownat(&fd, "", owner.0, owner.1, AtFlags::EMPTY_PATH) {
                self.complain(&path, "owner", error);
            }
        }
        let of_fd = path_of_fd(&fd);
        if kind != FileType::Symlink
            && let Err(error) = chmod(&of_fd, mode_of(entry))
        {
            self.complain(&path, "mode", error);
        }
        for (key, value) in entry.xattrs.iter() {
            if let Err(error) = setxattr(&of_fd, OsStr::from_bytes(key), value, XattrFlags::empty()) {
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
        let mut mode = mode_of(entry);
        let set_id = Mode::SUID | Mode::SGID;
        if !self.owner(fd, path, entry) && mode.intersects(set_id) && entry.directory().is_none() {
            // Whoever runs it would act as us, and not as its owner.
            mode.remove(set_id);
            self.complain(path, "set-id bits", io::Error::other("its owner could not be restored"));
        }
        for (key, value) in entry.xattrs.iter() {
            if let Err(error) = fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty()) {
                self.complain(path, "extended attribute", error);
            }
        }
        if let Err(error) = fchmod(fd, mode) {
            self.complain(path, "mode", error);
        }
        if let Err(error) = futimens(fd, &times_of(entry)) {
            self.complain(path, "time", error);
        }
    }

    /// True if it now belongs to whom the entry says. Others than root keep what they make, and say nothing of it.
    fn owner(&mut self, fd: &impl AsFd, path: &Path, entry: &Entry) -> bool {
        if self.privileged {
            let changed = fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            if let Err(error) = changed {
                self.complain(path, "owner", error);
            }
            return changed.is_ok();
        }
        let Ok(found) = rustix::fs::fstat(fd) else { return false };
        let group = found.st_gid == entry.gid || fchown(fd, None, Some(Gid::from_raw(entry.gid))).is_ok();
        group && found.st_uid == entry.uid
    }
}

fn create(parent: &OpenFolder, name: &OsStr, path: &Path) -> Result<File, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&parent.fd, name, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from).doing("create", path)?;
    Ok(File::from(fd))
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

#[cfg(test)]
mod tests;
