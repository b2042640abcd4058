//! Making files on this machine from entries of a tree: **opened → file**.
//!
//! Every step is relative to an open folder and follows no link, so that no name and no link in a tree can lead
//! outside of the target, whatever else is going on in it. Everything but a folder is made under a name of our own
//! beside its final one, which it gets when it is whole: whoever interrupts us, even with kill -9, leaves what was
//! there before, and nothing that could pass for a file of the tree; the next restore clears it away.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use commonhold_storage_engine::tree::entry::{Entry, EntryKind, FileContent, LinkGroup};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, renameat, renameat_with, setxattr,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use self::drafts::Drafts;
pub(crate) use self::{drafts::is_draft, open_file::OpenFile};
use crate::error::{Error, IoContext};

mod drafts;
mod open_file;

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

/// What is known across a whole restore.
pub(crate) struct Restorer {
    overwrite: bool,
    privileged: bool,
    drafts: Drafts,
    /// The folder that the target lies in.
    base: OpenFolder,
    /// The first path that each file with several names was restored at.
    links: HashMap<SameFile, PathBuf>,
    not_restored: Vec<NotRestored>,
    not_restored_total: u64,
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
            drafts: Drafts::new()?,
            base: OpenFolder { fd: base, path: parent.to_owned() },
            links: HashMap::new(),
            not_restored: Vec::new(),
            not_restored_total: 0,
        };
        Ok((restorer, OpenFolder { fd, path: parent.to_owned() }))
    }

    /// What could not be restored, and how much that is in all: the list ends at [`NOT_RESTORED_MAX`].
    pub(crate) fn into_not_restored(self) -> (Vec<NotRestored>, u64) {
        (self.not_restored, self.not_restored_total)
    }

    fn complain(&mut self, path: &Path, what: &'static str, error: impl Into<io::Error>) {
        self.not_restored_total += 1;
        if self.not_restored.len() < NOT_RESTORED_MAX {
            let reason = error.into().to_string();
            self.not_restored.push(NotRestored { path: path.to_owned(), what, reason });
        }
    }

    /// Makes a folder, or enters the one that is there if that is allowed. A link in its place is never followed.
    pub(crate) fn folder(&self, parent: &OpenFolder, name: &OsStr) -> Result<OpenFolder, Error> {
        let path = parent.path.join(name);
        let made = mkdirat(&parent.fd, name, Mode::RWXU);
        let was_there = matches!(made, Err(Errno::EXIST));
        match made {
            Err(Errno::EXIST) if self.overwrite => {}
            Err(Errno::EXIST) => return Err(Error::TargetExists { path }),
            made => made.map_err(io::Error::from).doing("create", &path)?,
        }
        let fd = openat(&parent.fd, name, ENTER, Mode::empty()).map_err(io::Error::from).doing("open", &path)?;
        let folder = OpenFolder { fd, path };
        if was_there {
            self.clear_drafts(&folder);
        }
        Ok(folder)
    }

    /// Removes what restores that were cut off have left in a folder; those that run keep theirs.
    pub(crate) fn clear_drafts(&self, folder: &OpenFolder) {
        if let Err(error) = drafts::clear(&folder.fd) {
            tracing::warn!("{}: what an earlier get has left cannot be removed: {error}", folder.path.display());
        }
    }

    /// Gives a folder its attributes, once everything in it is there.
    pub(crate) fn finish_folder(&mut self, folder: &OpenFolder, entry: &Entry) {
        self.attributes(&folder.fd, &folder.path, entry);
    }

    /// Starts a file.
    pub(crate) fn file(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<OpenFile, Error> {
        let path = parent.path.join(name);
        self.check_way(parent, name, &path)?;
        let (draft, file) = self.drafts.create(&parent.fd).doing("create", &path)?;
        if let Some(same) = SameFile::of(entry) {
            if self.links.len() < LINKED_MAX {
                self.links.insert(same, path.clone());
            } else {
                let reason = format!("more than {LINKED_MAX} files have several names");
                self.complain(&path, "hard link", io::Error::other(reason));
            }
        }
        Ok(OpenFile::new(file, draft, name.to_owned(), path))
    }

    /// Makes a further name of a file that was restored already; a copy, where there can be no such name.
    pub(crate) fn link(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let path = parent.path.join(name);
        self.check_way(parent, name, &path)?;
        let first = SameFile::of(entry).and_then(|same| self.links.get(&same).cloned());
        let first = first.ok_or_else(|| Error::TreeDamaged { reason: "a link to no file".to_owned() })?;
        let (folder, first_name) = self.find(&first).doing("find", &first)?;
        let mut draft = self.drafts.next();
        if let Err(error) = linkat(&folder, first_name, &parent.fd, &draft, AtFlags::empty()) {
            self.complain(&path, "hard link", error);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let from = openat(&folder, first_name, flags, Mode::empty());
            let from = from.map_err(io::Error::from).doing("read", &first)?;
            let mut to;
            (draft, to) = self.drafts.create(&parent.fd).doing("create", &path)?;
            if let Err(error) = io::copy(&mut File::from(from), &mut to).doing("write", &path) {
                remove_draft(parent, &draft, &path);
                return Err(error);
            }
            self.attributes(&to, &path, entry);
        }
        self.place(parent, &draft, name, &path)
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

    /// Refuses early what could not get its name in the end.
    fn check_way(&self, parent: &OpenFolder, name: &OsStr, path: &Path) -> Result<(), Error> {
        match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io::Error::from(error)).doing("look at", path),
            Ok(_) if !self.overwrite => Err(Error::TargetExists { path: path.to_owned() }),
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                Err(io::Error::from(io::ErrorKind::IsADirectory)).doing("replace", path)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Gives what is whole its name: in place of what has it, if that is allowed, and never of a folder.
    fn place(&self, parent: &OpenFolder, draft: &OsStr, name: &OsStr, path: &Path) -> Result<(), Error> {
        let replace = || renameat(&parent.fd, draft, &parent.fd, name);
        let placed = match self.overwrite {
            true => replace(),
            false => match renameat_with(&parent.fd, draft, &parent.fd, name, RenameFlags::NOREPLACE) {
                // A file system that knows no more than to replace; the name was free a moment ago.
                Err(Errno::INVAL | Errno::NOSYS) => self.check_way(parent, name, path).map(|()| replace())?,
                placed => placed,
            },
        };
        if placed.is_err() {
            remove_draft(parent, draft, path);
        }
        match placed {
            Err(Errno::EXIST) => Err(Error::TargetExists { path: path.to_owned() }),
            placed => placed.map_err(io::Error::from).doing("put in place", path),
        }
    }

    /// Gives a file that is whole its length, its attributes and its name.
    pub(crate) fn finish_file(&mut self, parent: &OpenFolder, file: &OpenFile, entry: &Entry) -> Result<(), Error> {
        file.finish(entry.size())?;
        self.attributes(file.as_file(), file.path(), entry);
        self.place(parent, file.draft(), file.name(), file.path())
    }

    /// Removes a file that will not be finished.
    pub(crate) fn discard(&mut self, parent: &OpenFolder, file: &OpenFile) {
        remove_draft(parent, file.draft(), file.path());
    }

    /// Makes what is neither file nor folder.
    pub(crate) fn special(&mut self, parent: &OpenFolder, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let path = parent.path.join(name);
        self.check_way(parent, name, &path)?;
        let draft = self.drafts.next();
        let node =
            |kind, major, minor| mknodat(&parent.fd, &draft, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor));
        let (kind, made) = match &entry.kind {
            EntryKind::Symlink(target) => (FileType::Symlink, symlinkat(OsStr::from_bytes(target), &parent.fd, &draft)),
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
        let fd = openat(&parent.fd, &draft, flags, Mode::empty()).map_err(io::Error::from).doing("open", &path)?;
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
        if let Err(error) = utimensat(&parent.fd, &draft, &times_of(entry), AtFlags::SYMLINK_NOFOLLOW) {
            self.complain(&path, "time", error);
        }
        self.place(parent, &draft, name, &path)
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

fn remove_draft(parent: &OpenFolder, draft: &OsStr, path: &Path) {
    if let Err(error) = unlinkat(&parent.fd, draft, AtFlags::empty()) {
        tracing::warn!("{}: its draft {} cannot be removed: {error}", path.display(), draft.display());
    }
}

#[cfg(test)]
mod tests;
