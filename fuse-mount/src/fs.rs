//! The operations of a drive, in terms of a vault: what each system call finds, without any FUSE.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use commonhold_client_sdk::{Entry, EntryKind, Error, FileContent, Name};

use crate::{
    drive::{Drive, State},
    errno::FsError,
    handle::Listing,
    inode::{self, Inodes, Node, Place, ROOT},
};

/// Files and folders open at once: as many as a process may have open on most systems, times several processes.
pub(crate) const HANDLES_MAX: usize = 65_536;

/// What is known of a file.
#[derive(Debug)]
pub(crate) struct Attributes {
    pub(crate) number: u64,
    pub(crate) entry: Arc<Entry>,
    /// Names of it.
    pub(crate) names: u32,
    /// Bytes that it takes, holes left out.
    pub(crate) data_bytes: u64,
}

/// One line of a folder's listing.
pub(crate) struct Line<'l> {
    pub(crate) number: u64,
    /// Where to go on after this line.
    pub(crate) next: u64,
    /// What it is; none for the folder itself and the one above.
    pub(crate) entry: Option<&'l Entry>,
    pub(crate) name: &'l OsStr,
}

struct Current<S> {
    state: Arc<S>,
    /// Counts states from 1.
    number: u64,
}

enum Handle<S> {
    File { state: Arc<S>, content: FileContent },
    Folder { number: u64, listing: Mutex<Listing<S>> },
}

/// A mounted drive.
pub(crate) struct Fs<D: Drive> {
    drive: D,
    current: RwLock<Current<D::State>>,
    inodes: Mutex<Inodes>,
    handles: Mutex<HashMap<u64, Arc<Handle<D::State>>>>,
    next_handle: AtomicU64,
}

impl<D: Drive> Fs<D> {
    /// A drive as it is now. `key` makes the numbers of its files.
    pub(crate) fn new(drive: D, key: [u8; 32]) -> Result<Self, Error> {
        let state = Arc::new(drive.newest()?);
        let root = Node { place: None, entry: Arc::new(state.root().clone()), seen: 1 };
        Ok(Self {
            drive,
            current: RwLock::new(Current { state, number: 1 }),
            inodes: Mutex::new(Inodes::new(key, root)),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
        })
    }

    /// Looks for a newer state and shows it from now on; true if there was one. What is open stays as it was opened.
    pub(crate) fn refresh(&self) -> Result<bool, Error> {
        let (known, _) = self.current();
        let Some(newer) = self.drive.newer(&known)? else { return Ok(false) };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { state: Arc::new(newer), number: current.number + 1 };
        Ok(true)
    }

    fn current(&self) -> (Arc<D::State>, u64) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.state.clone(), current.number)
    }

    fn inodes(&self) -> MutexGuard<'_, Inodes> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle<D::State>>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a number stands for: a folder as it is now, anything else as it was found.
    fn node(&self, number: u64) -> Result<Node, FsError> {
        let node = self.inodes().node(number).ok_or(FsError::Stale)?;
        let (state, seen) = self.current();
        if node.entry.directory().is_none() || node.seen == seen {
            return Ok(node);
        }
        let mut entry = state.root().clone();
        for name in inode::path(node.place.as_ref()) {
            entry = state.child(&entry, &name)?.ok_or(FsError::Stale)?;
        }
        if entry.directory().is_none() {
            return Err(FsError::Stale);
        }
        let entry = Arc::new(entry);
        self.inodes().renew(number, &entry, seen);
        Ok(Node { entry, seen, ..node })
    }

    fn folder(&self, number: u64) -> Result<Node, FsError> {
        let node = self.node(number)?;
        if node.entry.directory().is_some() { Ok(node) } else { Err(FsError::NotAFolder) }
    }

    fn described(&self, number: u64, entry: Arc<Entry>) -> Result<Attributes, FsError> {
        let (state, _) = self.current();
        let data_bytes = match &entry.kind {
            // Whoever asks how long a file is shall be told, though its holes cannot be found now.
            EntryKind::File(content) => state.data_bytes(content).unwrap_or_else(|_| content.length()),
            _ => 0,
        };
        // How many folders lie in a folder is not known without reading it; 1 is what other file systems say then.
        let names = state.names_of(&entry)?;
        Ok(Attributes { number, entry, names, data_bytes })
    }

    /// What has a name in a folder; the kernel knows it from now on, until it says [`Self::forget`].
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes, FsError> {
        let folder = self.folder(parent)?;
        let name = match Name::new(name.as_bytes().to_vec()) {
            Ok(name) => name,
            Err(_) if name.len() > 255 => return Err(FsError::NameTooLong),
            Err(_) => return Err(FsError::NotFound),
        };
        let (state, seen) = self.current();
        let entry = Arc::new(state.child(&folder.entry, &name)?.ok_or(FsError::NotFound)?);
        let number = self.inodes().number(parent, &name, &entry);
        let attributes = self.described(number, entry.clone())?;
        let place = Some(Arc::new(Place { parent: folder.place, name }));
        self.inodes().remember(number, Node { place, entry, seen: seen.min(folder.seen) });
        Ok(attributes)
    }

    /// The kernel forgot a number so many times.
    pub(crate) fn forget(&self, number: u64, lookups: u64) {
        self.inodes().forget(number, lookups);
    }

    pub(crate) fn attributes(&self, number: u64) -> Result<Attributes, FsError> {
        let node = self.node(number)?;
        self.described(number, node.entry)
    }

    pub(crate) fn link_target(&self, number: u64) -> Result<Bytes, FsError> {
        match &self.node(number)?.entry.kind {
            EntryKind::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::WrongKind),
        }
    }

    /// The value of an extended attribute.
    pub(crate) fn xattr(&self, number: u64, name: &OsStr) -> Result<Bytes, FsError> {
        let node = self.node(number)?;
        node.entry.xattrs.get(name.as_bytes()).cloned().ok_or(FsError::NoAttribute)
    }

    /// The names of all extended attributes, each with a NUL byte at its end.
    pub(crate) fn xattr_names(&self, number: u64) -> Result<Bytes, FsError> {
        let node = self.node(number)?;
        let names = node.entry.xattrs.iter().flat_map(|(name, _)| [&name[..], b"\0"]);
        Ok(names.collect::<Vec<_>>().concat().into())
    }

    fn keep(&self, handle: Handle<D::State>) -> Result<u64, FsError> {
        let mut handles = self.handles();
        if handles.len() >= HANDLES_MAX {
            return Err(FsError::TooManyOpen);
        }
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        handles.insert(number, Arc::new(handle));
        Ok(number)
    }

    fn handle(&self, handle: u64) -> Result<Arc<Handle<D::State>>, FsError> {
        self.handles().get(&handle).cloned().ok_or(FsError::BadHandle)
    }

    /// Opens a file for reading; gives its handle.
    pub(crate) fn open(&self, number: u64) -> Result<u64, FsError> {
        let node = self.node(number)?;
        match &node.entry.kind {
            EntryKind::File(content) => self.keep(Handle::File { state: self.current().0, content: content.clone() }),
            EntryKind::Directory(_) => Err(FsError::IsAFolder),
            _ => Err(FsError::WrongKind),
        }
    }

    /// Bytes of an open file; fewer than `length` only at its end.
    pub(crate) fn read(&self, handle: u64, offset: u64, length: usize) -> Result<Bytes, FsError> {
        match &*self.handle(handle)? {
            Handle::File { state, content } => Ok(state.read(content, offset, length)?),
            Handle::Folder { .. } => Err(FsError::BadHandle),
        }
    }

    /// Opens a folder to list it; gives the handle.
    pub(crate) fn open_folder(&self, number: u64) -> Result<u64, FsError> {
        let node = self.folder(number)?;
        let listing = Mutex::new(Listing::new(self.current().0, node.entry));
        self.keep(Handle::Folder { number, listing })
    }

    /// Hands on lines of an open folder from `offset` on, until there are no more or `full` says so.
    pub(crate) fn list(&self, handle: u64, offset: u64, mut full: impl FnMut(Line<'_>) -> bool) -> Result<(), FsError> {
        let handle = self.handle(handle)?;
        let Handle::Folder { number, listing } = &*handle else { return Err(FsError::BadHandle) };
        for (next, name) in [(1, "."), (2, "..")].into_iter().skip(offset as usize) {
            // The kernel knows itself what is above a folder, and does not believe us anyway.
            let number = if next == 1 { *number } else { ROOT };
            if full(Line { number, next, entry: None, name: OsStr::new(name) }) {
                return Ok(());
            }
        }
        let index = offset.saturating_sub(2);
        let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
        for (next, listed) in (index + 3..).zip(listing.from(index)?) {
            let line = Line {
                number: self.inodes().number(*number, &listed.name, &listed.entry),
                next,
                entry: Some(&listed.entry),
                name: OsStr::from_bytes(listed.name.as_bytes()),
            };
            if full(line) {
                break;
            }
        }
        Ok(())
    }

    /// Closes a file or folder.
    pub(crate) fn close(&self, handle: u64) {
        self.handles().remove(&handle);
    }

    /// Bytes that the vault takes, before coding.
    pub(crate) fn stored_bytes(&self) -> Result<u64, FsError> {
        Ok(self.current().0.stored_bytes()?)
    }

    #[cfg(test)]
    pub(crate) fn numbers_known(&self) -> usize {
        self.inodes().len()
    }
}

#[cfg(test)]
mod tests;
