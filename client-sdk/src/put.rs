//! A folder of this machine into the vault: **file → chunks**, and the trees that name them.
//!
//! Folders are walked in the order of their trees, so that nothing but the names of the folders on the way down is
//! kept in memory. What cannot be read is left out and named in the report.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use bytes::Bytes;
use commonhold_storage_engine::{
    chunk::Chunker,
    tree::{
        directory::DirectoryBuilder,
        entry::{Entry, EntryKind, FileContent, FileTime, INLINE_BYTES_MAX, LinkGroup, Xattrs},
        file::FileBuilder,
        name::Name,
    },
};

use crate::{
    error::Error,
    local_files::{self, Stretch},
    packer::{Content, Packer},
    progress::Progress,
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
    /// Contents of files with several names, by device and inode.
    linked: HashMap<(u64, u64), (LinkGroup, FileContent)>,
    pub(crate) counts: EntryCounts,
    pub(crate) bytes: u64,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// Files that could not be read are named up to this many; beyond, they are still left out and the put says so.
const UNREADABLE_MAX: usize = 10_000;

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
        }
    }

    fn unreadable(&mut self, path: &Path, reason: impl ToString) {
        let reason = reason.to_string();
        tracing::debug!(path = %path.display(), "left out: {reason}");
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(Unreadable { path: path.to_owned(), reason });
        }
    }

    /// Stores what is at `path`; none if it cannot be read.
    pub(crate) fn entry(&mut self, path: &Path, depth: usize) -> Result<Option<Entry>, Error> {
        self.progress.check()?;
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.unreadable(path, error);
                return Ok(None);
            }
        };
        let kind = self.kind(path, &metadata, depth)?;
        let Some((kind, link_group)) = kind else { return Ok(None) };
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
        let modified = FileTime::new(metadata.mtime(), metadata.mtime_nsec() as u32).unwrap_or_default();
        self.counts.count(&kind);
        Progress::add(&self.progress.entries_done, 1);
        Ok(Some(Entry {
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified,
            link_group,
            xattrs,
        }))
    }

    fn kind(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        depth: usize,
    ) -> Result<Option<(EntryKind, Option<LinkGroup>)>, Error> {
        let kind = metadata.file_type();
        if kind.is_file() {
            return self.file(path, metadata);
        }
        let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let kind = if kind.is_dir() {
            if depth >= DEPTH_MAX {
                self.unreadable(path, format!("more than {DEPTH_MAX} folders deep"));
                return Ok(None);
            }
            match self.folder(path, depth)? {
                Some(kind) => kind,
                None => return Ok(None),
            }
        } else if kind.is_symlink() {
            match fs::read_link(path) {
                Ok(target) => EntryKind::Symlink(Bytes::copy_from_slice(target.as_os_str().as_bytes())),
                Err(error) => {
                    self.unreadable(path, error);
                    return Ok(None);
                }
            }
        } else if kind.is_fifo() {
            EntryKind::Fifo
        } else if kind.is_char_device() {
            EntryKind::CharDevice { major: device.0, minor: device.1 }
        } else if kind.is_block_device() {
            EntryKind::BlockDevice { major: device.0, minor: device.1 }
        } else {
            EntryKind::Socket
        };
        Ok(Some((kind, None)))
    }

    fn folder(&mut self, path: &Path, depth: usize) -> Result<Option<EntryKind>, Error> {
        let names = match local_files::sorted_names(path) {
            Ok(names) => names,
            Err(error) => {
                self.unreadable(path, error);
                return Ok(None);
            }
        };
        let mut builder = DirectoryBuilder::new();
        for name in names {
            let child = path.join(&name);
            let Some(entry) = self.entry(&child, depth + 1)? else { continue };
            let Ok(name) = Name::new(Bytes::copy_from_slice(name.as_bytes())) else {
                self.unreadable(&child, "its name is not one that can be stored");
                continue;
            };
            builder.push(&mut self.packer.sink(Content::Tree), &name, &entry)?;
        }
        Ok(Some(EntryKind::Directory(builder.finish(&mut self.packer.sink(Content::Tree))?)))
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) -> Result<Option<(EntryKind, Option<LinkGroup>)>, Error> {
        let inode = (metadata.dev(), metadata.ino());
        if let Some((group, content)) = self.linked.get(&inode) {
            return Ok(Some((EntryKind::File(content.clone()), Some(*group))));
        }
        self.progress.working_on(path.display().to_string());
        let content = match self.content(path) {
            Ok(content) => content,
            Err(FileError::Unreadable(error)) => {
                self.unreadable(path, error);
                return Ok(None);
            }
            Err(FileError::Fatal(error)) => return Err(error),
        };
        self.bytes += content.length();
        let mut group = None;
        if metadata.nlink() > 1 {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|_| Error::NoRandomness)?;
            group = Some(LinkGroup(id));
            self.linked.insert(inode, (LinkGroup(id), content.clone()));
        }
        Ok(Some((EntryKind::File(content), group)))
    }

    fn content(&mut self, path: &Path) -> Result<FileContent, FileError> {
        let (file, metadata) = local_files::open_regular(path)?;
        if metadata.len() <= INLINE_BYTES_MAX as u64 {
            let mut bytes = Vec::with_capacity(metadata.len() as usize);
            io::Read::read_to_end(&mut local_files::up_to(&file, INLINE_BYTES_MAX as u64), &mut bytes)?;
            Progress::add(&self.progress.bytes_done, bytes.len() as u64);
            return Ok(FileContent::Inline(bytes.into()));
        }
        self.packer.begin_file();
        let mut builder = FileBuilder::new();
        for stretch in local_files::stretches(&file, &metadata)? {
            match stretch {
                Stretch::Hole(bytes) => {
                    // The reading position stands at the start of the hole.
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Current(bytes as i64)).map_err(io::Error::from)?;
                    builder.push_hole(bytes);
                    Progress::add(&self.progress.bytes_done, bytes);
                }
                Stretch::Data(bytes) => self.chunks(&file, bytes, &mut builder)?,
            }
        }
        let root = builder.finish(&mut self.packer.sink(Content::Tree)).map_err(Error::from)?;
        Ok(FileContent::Chunks(root))
    }

    fn chunks(&mut self, file: &File, bytes: u64, builder: &mut FileBuilder) -> Result<(), FileError> {
        let mut chunker = Chunker::new(local_files::up_to(file, bytes), self.chunker_seed);
        while let Some(chunk) = chunker.next_chunk()? {
            let chunk_ref = self.packer.put(Content::File, &chunk)?;
            builder.push(&mut self.packer.sink(Content::Tree), chunk_ref).map_err(Error::from)?;
            Progress::add(&self.progress.bytes_done, chunk.len() as u64);
        }
        Ok(())
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

/// Adds up what a put will have to read, while it runs already: for the progress bar alone.
pub(crate) fn measure(path: &Path, progress: &Progress) {
    let mut folders = vec![path.to_owned()];
    let add = |metadata: &Metadata| {
        if metadata.is_file() {
            progress.bytes_total.fetch_add(metadata.len(), Ordering::Relaxed);
        }
    };
    if let Ok(metadata) = fs::symlink_metadata(path) {
        add(&metadata);
    }
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if progress.check().is_err() {
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            add(&metadata);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
}
