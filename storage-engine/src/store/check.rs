//! `fsck`: builds the index anew from the volumes and reads every shard.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use commonhold_protocol::NetworkName;

use super::{
    disk::{Disk, FolderDisk, sync_folder},
    error::StoreError,
    index::{Index, Place},
    label::Label,
    record::UNIT_BYTES,
    recover::{Recovery, Trust},
};

/// What `fsck` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Shards that fit their root.
    pub shards: u64,
    /// Shards whose bytes do not fit their root: quarantined.
    pub damaged: u64,
    /// Shards that the old index knew and no volume has: quarantined.
    pub missing: u64,
    /// Bytes that belonged to no record and were given back.
    pub orphaned_bytes: u64,
    /// Bytes of the records.
    pub bytes: u64,
    /// Bytes of the volumes on the disk.
    pub disk_bytes: u64,
}

/// Checks the store in `folder`, which must not be open, and builds its index anew.
pub fn fsck(folder: &Path, network: &NetworkName) -> Result<FsckReport, StoreError> {
    let volumes = folder.join("volumes");
    let disk = FolderDisk::open(&volumes).map_err(StoreError::file("opening", volumes))?;
    fsck_on(&disk, folder, network)
}

/// As [`fsck`], with the volumes on a disk of the caller's choice.
pub fn fsck_on(disk: &dyn Disk, folder: &Path, network: &NetworkName) -> Result<FsckReport, StoreError> {
    let label = Label::open(folder, disk, network)?;
    let paths = IndexFolders::of(folder);
    paths.remove_leftovers()?;
    let old = if paths.index.exists() { Index::open(&paths.index).ok() } else { None };
    let old = old.filter(|index| index.is_of(&label.store_id()).unwrap_or(false));
    if let Some(old) = &old {
        // What was being erased must not come back.
        Recovery::new(disk, &label.secret, old, Trust::Index)?.finish_erasing()?;
    }
    let new = Index::open(&paths.new)?;
    let recovery = Recovery::new(disk, &label.secret, &new, Trust::Nothing)?;
    let (mut space, found) = recovery.run()?;
    let damaged = space.quarantined.len() as u64;
    let mut missing = 0;
    if let Some(old) = &old {
        let vaults = old.vaults()?.into_iter().collect::<BTreeMap<_, _>>();
        for entry in old.iter_after(None) {
            let (leaf, place) = entry?;
            let Some(vault) = vaults.get(&place.vault).filter(|_| matches!(new.get(&leaf), Ok(None))) else {
                continue;
            };
            if let Some(vault) = space.vaults.add(vault, 0, &new)? {
                missing += 1;
                new.insert(&leaf, &Place { units: 0, vault, quarantined: true, ..place })?;
            }
        }
    }
    new.set_complete(&label.store_id())?;
    drop((new, old));
    paths.take_new()?;
    Ok(FsckReport {
        shards: space.shards,
        damaged,
        missing,
        orphaned_bytes: found.punched_bytes / UNIT_BYTES * UNIT_BYTES,
        bytes: space.record_bytes(),
        disk_bytes: space.disk_bytes(),
    })
}

/// Where indexes lie in a store's folder.
pub(crate) struct IndexFolders {
    pub(crate) index: PathBuf,
    /// One that `fsck` is building.
    new: PathBuf,
    /// One that `fsck` has replaced.
    old: PathBuf,
    /// One that could not be opened; the latest is kept, to be looked at.
    pub(crate) broken: PathBuf,
    folder: PathBuf,
}

impl IndexFolders {
    pub(crate) fn of(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        Self {
            index: path("index"),
            new: path("index.new"),
            old: path("index.old"),
            broken: path("index.broken"),
            folder: folder.to_owned(),
        }
    }

    fn remove(path: &Path) -> Result<(), StoreError> {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::file("removing", path)(error)),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::file("renaming", from)(error)),
            _ => sync_folder(&self.folder).map_err(StoreError::file("syncing", &self.folder)),
        }
    }

    /// What an interrupted `fsck` left.
    pub(crate) fn remove_leftovers(&self) -> Result<(), StoreError> {
        Self::remove(&self.new)?;
        Self::remove(&self.old)
    }

    /// Puts a broken index out of the way.
    pub(crate) fn move_aside(&self) -> Result<(), StoreError> {
        Self::remove(&self.broken)?;
        self.rename(&self.index, &self.broken)
    }

    fn take_new(&self) -> Result<(), StoreError> {
        self.rename(&self.index, &self.old)?;
        self.rename(&self.new, &self.index)?;
        Self::remove(&self.old)
    }
}
