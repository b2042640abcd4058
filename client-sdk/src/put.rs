//! A folder of this machine into the vault: **file → chunks**, and the trees that name them.
//!
//! Folders are walked in the order of their trees, so that nothing but names in the folders on the way down is kept in
//! memory, of a large folder not all at once. What cannot be read is left out and named in the report.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::Ordering},
};

use bytes::Bytes;
use commonhold_storage_engine::{
    chunk::Chunker,
    tree::{
        directory::DirectoryBuilder,
        entry::{Entry, EntryKind, FileContent, FileTime, INLINE_BYTES_MAX, LinkGroup, SYMLINK_BYTES_MAX, Xattrs},
        file::{FileBuilder, FileRoot},
        name::Name,
    },
};

use crate::{
    error::Error,
    local_files::{self, Names, Part, Stretch},
    packer::{Content, Packer},
    progress::Progress,
    restore::is_draft,
    vault_path::DEPTH_MAX,
};

/// What could not be stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    /// Where.
    pub path: PathBuf,
    /// The system's reason.
    pub reason: String,
}

/// How many entries of each kind were stored or restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct EntryCounts {
    /// Regular files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Pipes, devices and sockets.
    pub others: u64,
}

impl EntryCounts {
    pub(crate) fn count(&mut self, kind: &EntryKind) {
        match kind {
            EntryKind::File(_) => self.files += 1,
            EntryKind::Directory(_) => self.folders += 1,
            EntryKind::Symlink(_) => self.links += 1,
            _ => self.others += 1,
        }
    }
}

/// Walks a folder and packs what is in it.
pub(crate) struct Putter<'p> {
    packer: &'p mut Packer,
    chunker_seed: u64,
    progress: &'p Progress,
    /// Files of which more names are to come, by device and inode.
    linked: HashMap<(u64, u64), Linked>,
    pub(crate) counts: EntryCounts,
    pub(crate) bytes: u64,
    pub(crate) unreadable: Vec<Unreadable>,
    pub(crate) unreadable_total: u64,
    pub(crate) drafts_left_out: u64,
}

/// A file with several names, once it was stored under the first.
struct Linked {
    group: LinkGroup,
    /// None if it lies inline: then it is read again.
    content: Option<FileRoot>,
    names_left: u64,
}

/// Files that could not be read are named up to this many; beyond, they are only counted.
const UNREADABLE_MAX: usize = 10_000;
/// Files whose further names are still to come, at most: each takes some hundred bytes.
const LINKED_MAX: usize = 1 << 17;

/// What came of looking at a path.
enum Begun {
    Folder(Box<OpenFolder>),
    Whole(Entry),
    LeftOut,
}

/// A folder on the way down.
struct OpenFolder {
    path: PathBuf,
    metadata: Metadata,
    names: Names,
    builder: DirectoryBuilder,
}

impl<'p> Putter<'p> {
    pub(crate) fn new(packer: &'p mut Packer, chunker_seed: u64, progress: &'p Progress) -> Self {
        Self {
            packer,
            chunker_seed,
            progress,
            linked: HashMap::new(),
            counts: EntryCounts::default(),
            bytes: 0,
            unreadable: Vec::new(),
            unreadable_total: 0,
            drafts_left_out: 0,
        }
    }

    fn unreadable(&mut self, path: &Path, reason: impl ToString) {
        let reason = reason.to_string();
        tracing::debug!(path = %path.display(), "left out: {reason}");
        self.unreadable_total += 1;
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(Unreadable { path: path.to_owned(), reason });
        }
    }

    /// Stores what is at `path`, which will lie `depth` folders deep; none if it cannot be read.
    pub(crate) fn entry(&mut self, path: &Path, depth: usize) -> Result<Option<Entry>, Error> {
        // Folders lie as deep in each other as somebody likes, so this is a stack of our own. Each but the first has
        // its name beside it.
        let mut open: Vec<(Option<Name>, OpenFolder)> = Vec::new();
        match self.begin(path, depth)? {
            Begun::Folder(folder) => open.push((None, *folder)),
            Begun::Whole(entry) => return Ok(Some(entry)),
            Begun::LeftOut => return Ok(None),
        }
        let mut made = None;
        while let Some((_, folder)) = open.last_mut() {
            let next = folder.names.next_in(&folder.path).unwrap_or_else(|error| {
                // Nothing more of it, then; what was found before is stored.
                self.unreadable(&folder.path, error);
                None
            });
            if let Some(name) = next {
                let child = folder.path.join(&name);
                if is_draft(name.as_bytes()) && fs::symlink_metadata(&child).is_ok_and(|found| !found.is_dir()) {
                    self.drafts_left_out += 1;
                    continue;
                }
                let Ok(name) = Name::new(Bytes::copy_from_slice(name.as_bytes())) else {
                    self.unreadable(&child, "its name is not one that can be stored");
                    continue;
                };
                match self.begin(&child, depth + open.len())? {
                    Begun::Folder(folder) => open.push((Some(name), *folder)),
                    Begun::Whole(entry) => self.add(&mut open, &name, &entry)?,
                    Begun::LeftOut => {}
                }
            } else if let Some((name, OpenFolder { path, metadata, builder, .. })) = open.pop() {
                let tree = builder.finish(&mut self.packer.sink(Content::Tree))?;
                let entry = self.made(&path, &metadata, EntryKind::Directory(tree), None);
                match name {
                    Some(name) => self.add(&mut open, &name, &entry)?,
                    None => made = Some(entry),
                }
            }
        }
        Ok(made)
    }

    fn add(&mut self, open: &mut [(Option<Name>, OpenFolder)], name: &Name, entry: &Entry) -> Result<(), Error> {
        if let Some((_, folder)) = open.last_mut() {
            folder.builder.push(&mut self.packer.sink(Content::Tree), name, entry)?;
        }
        Ok(())
    }

    /// Stores a path, or if it is a folder, opens it.
    fn begin(&mut self, path: &Path, depth: usize) -> Result<Begun, Error> {
        self.progress.check()?;
        match self.look(path, depth) {
            Ok(begun) => Ok(begun),
            Err(FileError::Unreadable(error)) => {
                self.unreadable(path, error);
                Ok(Begun::LeftOut)
            }
            Err(FileError::Fatal(error)) => Err(error),
        }
    }

    fn look(&mut self, path: &Path, depth: usize) -> Result<Begun, FileError> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_file() {
            return self.file(path);
        }
        if kind.is_dir() {
            if depth >= DEPTH_MAX {
                return Err(io::Error::other(format!("more than {DEPTH_MAX} folders deep")).into());
            }
            let names = Names::of(path)?;
            let folder = OpenFolder { path: path.to_owned(), metadata, names, builder: DirectoryBuilder::new() };
            return Ok(Begun::Folder(Box::new(folder)));
        }
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let kind = if kind.is_symlink() {
            let target = fs::read_link(path)?;
            let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
            if target.is_empty() || target.len() > SYMLINK_BYTES_MAX {
                return Err(io::Error::other("its target is not one that can be stored").into());
            }
            EntryKind::Symlink(target)
        } else if kind.is_fifo() {
            EntryKind::Fifo
        } else if kind.is_char_device() {
            EntryKind::CharDevice { major, minor }
        } else if kind.is_block_device() {
            EntryKind::BlockDevice { major, minor }
        } else {
            EntryKind::Socket
        };
        Ok(Begun::Whole(self.made(path, &metadata, kind, None)))
    }

    /// Counts what was stored, and gives it its attributes.
    fn made(&mut self, path: &Path, metadata: &Metadata, kind: EntryKind, link_group: Option<LinkGroup>) -> Entry {
        let mut xattrs = Xattrs::default();
        match local_files::extended_attributes(path) {
            Ok(attributes) => {
                for (name, value) in attributes {
                    if let Err(error) = xattrs.insert(name, value) {
                        self.unreadable(path, error);
                    }
                }
            }
            Err(error) => self.unreadable(path, format!("extended attributes: {error}")),
        }
        self.counts.count(&kind);
        Progress::add(&self.progress.entries_done, 1);
        Entry {
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: FileTime::new(metadata.mtime(), metadata.mtime_nsec() as u32).unwrap_or_default(),
            link_group,
            xattrs,
        }
    }

    fn file(&mut self, path: &Path) -> Result<Begun, FileError> {
        self.progress.working_on(path.display().to_string());
        // What the open file says counts: another may have taken its place since.
        let (file, metadata) = local_files::open_regular(path)?;
        let inode = (metadata.dev(), metadata.ino());
        let mut known = None;
        if let Some(linked) = self.linked.get_mut(&inode) {
            known = Some((linked.group, linked.content.clone()));
            linked.names_left -= 1;
            if linked.names_left == 0 {
                self.linked.remove(&inode);
            }
        }
        let (content, group) = match known {
            Some((group, Some(root))) => (FileContent::Chunks(root), Some(group)),
            Some((group, None)) => (self.content(&file, &metadata)?, Some(group)),
            None => {
                let content = self.content(&file, &metadata)?;
                self.bytes += content.length();
                let group = self.link_group(path, inode, &metadata, &content)?;
                (content, group)
            }
        };
        Ok(Begun::Whole(self.made(path, &metadata, EntryKind::File(content), group)))
    }

    /// The group of a file with several names, of which this is the first.
    fn link_group(
        &mut self,
        path: &Path,
        inode: (u64, u64),
        metadata: &Metadata,
        content: &FileContent,
    ) -> Result<Option<LinkGroup>, Error> {
        if metadata.nlink() < 2 {
            return Ok(None);
        }
        if self.linked.len() >= LINKED_MAX {
            self.unreadable(path, format!("its hard links: more than {LINKED_MAX} files have names to come"));
            return Ok(None);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Error::NoRandomness)?;
        let group = LinkGroup(id);
        let content = match content {
            FileContent::Chunks(root) => Some(root.clone()),
            FileContent::Inline(_) => None,
        };
        self.linked.insert(inode, Linked { group, content, names_left: metadata.nlink() - 1 });
        Ok(Some(group))
    }

    fn content(&mut self, file: &File, metadata: &Metadata) -> Result<FileContent, FileError> {
        if metadata.len() <= INLINE_BYTES_MAX as u64 {
            let mut bytes = Vec::with_capacity(metadata.len() as usize);
            io::Read::read_to_end(&mut Part::new(file, 0, INLINE_BYTES_MAX as u64), &mut bytes)?;
            Progress::add(&self.progress.bytes_done, bytes.len() as u64);
            return Ok(FileContent::Inline(bytes.into()));
        }
        self.packer.begin_file();
        let mut builder = FileBuilder::new();
        let mut at = 0;
        for stretch in local_files::stretches(file, metadata) {
            match stretch {
                Stretch::Hole(bytes) => {
                    builder.push_hole(bytes);
                    Progress::add(&self.progress.bytes_done, bytes);
                    at += bytes;
                }
                Stretch::Data(bytes) => {
                    let end = at + bytes;
                    at += self.chunks(Part::new(file, at, bytes), &mut builder)?;
                    if at < end {
                        // It was cut meanwhile: this is its end.
                        break;
                    }
                }
            }
        }
        let root = builder.finish(&mut self.packer.sink(Content::Tree)).map_err(Error::from)?;
        Ok(FileContent::Chunks(root))
    }

    /// Packs a stretch of data; gives how many bytes there were.
    fn chunks(&mut self, part: Part<'_>, builder: &mut FileBuilder) -> Result<u64, FileError> {
        let mut chunker = Chunker::new(part, self.chunker_seed);
        let mut read = 0;
        while let Some(chunk) = chunker.next_chunk()? {
            let chunk_ref = self.packer.put(Content::File, &chunk)?;
            builder.push(&mut self.packer.sink(Content::Tree), chunk_ref).map_err(Error::from)?;
            Progress::add(&self.progress.bytes_done, chunk.len() as u64);
            read += chunk.len() as u64;
        }
        Ok(read)
    }
}

/// A file that cannot be read is left out; anything else ends the put.
enum FileError {
    Unreadable(io::Error),
    Fatal(Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Error> for FileError {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Adds up what a put will have to read, on a thread of its own, until the guard is dropped: for the progress bar alone.
pub(crate) fn measure(path: &Path, progress: &Arc<Progress>) -> Arc<()> {
    let wanted = Arc::new(());
    let (path, progress, still_wanted) = (path.to_owned(), progress.clone(), Arc::downgrade(&wanted));
    // Without it, the bar does not know how long it is.
    let _ =
        std::thread::Builder::new().name("measuring".to_owned()).spawn(move || add_up(path, &progress, &still_wanted));
    wanted
}

fn add_up(path: PathBuf, progress: &Progress, still_wanted: &Weak<()>) {
    let add = |metadata: &Metadata| {
        if metadata.is_file() {
            progress.bytes_total.fetch_add(metadata.len(), Ordering::Relaxed);
        }
    };
    let Ok(metadata) = fs::symlink_metadata(&path) else { return };
    add(&metadata);
    let mut folders = if metadata.is_dir() { vec![path] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if still_wanted.strong_count() == 0 {
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if is_draft(entry.file_name().as_bytes()) && !metadata.is_dir() {
                continue;
            }
            add(&metadata);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
}
