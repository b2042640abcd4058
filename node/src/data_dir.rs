//! The folder of a node's data: whose it is, and the small files that tell others about the running node.
//!
//! `lock` is held while a node (or `fsck`) works in the folder; the kernel lets go of it however the process ends.
//! `pid`, `addr` and `dashboard` exist while the node runs; `peers` and `listen` remember addresses for the next start.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The process id of the running node.
pub const PID_FILE: &str = "pid";
/// A multiaddress at which the running node can be dialled.
pub const ADDRESS_FILE: &str = "addr";
/// The address of the running node's status page; on the next line, the node's id.
pub const DASHBOARD_FILE: &str = "dashboard";
/// Addresses of other nodes, for the next start.
pub const PEERS_FILE: &str = "peers";
/// Addresses that the node listened on, for the next start.
pub const LISTEN_FILE: &str = "listen";
const LOCK_FILE: &str = "lock";
/// The most bytes of any of these files.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another node works there.
    #[error("{}: in use by another node{}; two nodes cannot share a data folder", path.display(), by(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other node's process id, if it can be read.
        pid: Option<u32>,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// A data folder that is ours as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: fs::File,
}

impl DataDir {
    /// Makes the folder if it does not exist, and takes its lock.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| DataDirError::Io { path: lock_path, source })?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = read(path, PID_FILE).ok().flatten().and_then(|text| text.trim().parse().ok());
                Err(DataDirError::InUse { path: path.to_owned(), pid })
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file whole or not at all.
    pub fn publish(&self, file: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(file);
        write_atomically(&path, text.as_bytes()).map_err(|source| DataDirError::Io { path, source })
    }

    /// Removes a file; that it does not exist is no error.
    pub fn withdraw(&self, file: &str) {
        if let Err(error) = fs::remove_file(self.path.join(file))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file, %error, "cannot be removed");
        }
    }
}

/// The text of one of the files; none if it does not exist.
pub fn read(data_dir: &Path, file: &str) -> Result<Option<String>, DataDirError> {
    let path = data_dir.join(file);
    let mut text = String::new();
    let read = fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path, source }),
    }
}

/// Writes beside `path`, syncs, and renames: a reader sees the old file or the new one, also after a crash.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh_name = path.file_name().unwrap_or_default().to_owned();
    fresh_name.push(".new");
    let fresh = path.with_file_name(fresh_name);
    let mut file = fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes what was created, renamed or removed in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_node_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::lock(folder.path()).unwrap();
        first.publish(PID_FILE, "4711\n").unwrap();
        match DataDir::lock(folder.path()) {
            Err(error @ DataDirError::InUse { pid: Some(4711), .. }) => {
                assert!(error.to_string().contains("in use by another node (process 4711)"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDir::lock(folder.path()).unwrap();
    }

    #[test]
    fn a_published_file_is_read_back_and_goes_when_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::lock(folder.path()).unwrap();
        assert_eq!(read(folder.path(), ADDRESS_FILE).unwrap(), None);
        data_dir.publish(ADDRESS_FILE, "one\n").unwrap();
        data_dir.publish(ADDRESS_FILE, "two\n").unwrap();
        assert_eq!(read(folder.path(), ADDRESS_FILE).unwrap().as_deref(), Some("two\n"));
        data_dir.withdraw(ADDRESS_FILE);
        data_dir.withdraw(ADDRESS_FILE);
        assert_eq!(read(folder.path(), ADDRESS_FILE).unwrap(), None);
    }
}
