//! The shell: requests of the kernel become calls of [`Fs`], results become replies. It decides nothing.
//!
//! What would write is not here: the drive is mounted read-only, so the kernel answers with EROFS by itself.

use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use commonhold_client_sdk::{EntryKind, FileTime};
use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};

use crate::{
    drive::Drive,
    errno::FsError,
    fs::{Attributes, Fs},
};

/// How long the kernel may believe a name or an attribute without asking again.
const TTL: Duration = Duration::from_secs(1);
/// What sizes are counted in, in statfs.
const BLOCK_BYTES: u32 = 4096;
/// A number is never used for another file, so there is one generation.
const GENERATION: Generation = Generation(0);

/// What fuser calls.
pub(crate) struct Shell<D: Drive>(pub(crate) Arc<Fs<D>>);

fn kind(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File(_) => FileType::RegularFile,
        EntryKind::Directory(_) => FileType::Directory,
        EntryKind::Symlink(_) => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::CharDevice { .. } => FileType::CharDevice,
        EntryKind::BlockDevice { .. } => FileType::BlockDevice,
        EntryKind::Socket => FileType::Socket,
    }
}

/// A device number as the kernel has it on the wire.
fn device(kind: &EntryKind) -> u32 {
    match kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
        }
        _ => 0,
    }
}

/// A time that this machine cannot express becomes 1970.
fn time(time: FileTime) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds().unsigned_abs());
    let whole = match time.seconds() {
        0.. => UNIX_EPOCH.checked_add(seconds),
        _ => UNIX_EPOCH.checked_sub(seconds),
    };
    let exact = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds().into())));
    exact.unwrap_or(UNIX_EPOCH)
}

fn attributes(found: &Attributes) -> FileAttr {
    let entry = &found.entry;
    let modified = time(entry.modified);
    FileAttr {
        ino: INodeNo(found.number),
        size: entry.size(),
        blocks: found.data_bytes.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: kind(&entry.kind),
        perm: (entry.mode & 0o7777) as u16,
        nlink: found.names,
        uid: entry.uid,
        gid: entry.gid,
        rdev: device(&entry.kind),
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The answer to a request for an attribute: its size if that is what was asked for.
fn reply_xattr(value: Result<Bytes, FsError>, size: u32, doing: &'static str, reply: ReplyXattr) {
    let fits = |value: Bytes| match size {
        0 => Ok(value),
        size if value.len() > size as usize => Err(FsError::BufferTooSmall),
        _ => Ok(value),
    };
    match value.and_then(fits) {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(error.errno(doing)),
    }
}

impl<D: Drive> Filesystem for Shell<D> {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.lookup(parent.0, name) {
            Ok(found) => reply.entry(&TTL, &attributes(&found), GENERATION),
            Err(error) => reply.error(error.errno("look up a name")),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.0.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attributes(number.0) {
            Ok(found) => reply.attr(&TTL, &attributes(&found)),
            Err(error) => reply.error(error.errno("read attributes")),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.0.link_target(number.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error.errno("read a link")),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open(number.0) {
            // A number never changes its bytes, so what the kernel has cached stays good.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error.errno("open a file")),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.errno("read a file")),
        }
    }

    /// Nothing is written, so there is nothing to wait for; the kernel does not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open_folder(number.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error.errno("open a folder")),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.0.list(handle.0, offset, |line| {
            let kind = line.entry.map_or(FileType::Directory, |entry| kind(&entry.kind));
            reply.add(INodeNo(line.number), line.next, kind, line.name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.errno("list a folder")),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.close(handle.0);
        reply.ok();
    }

    /// All of it is in use: nothing can be added here.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.0.stored_bytes() {
            Ok(bytes) => {
                let blocks = bytes.div_ceil(BLOCK_BYTES.into());
                reply.statfs(blocks, 0, 0, 0, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
            }
            Err(error) => reply.error(error.errno("measure the vault")),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(self.0.xattr(number.0, name), size, "read an extended attribute", reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(self.0.xattr_names(number.0), size, "list extended attributes", reply);
    }

    /// The kernel checks permissions itself where they count; it does not ask again.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
