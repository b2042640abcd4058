//! The shard store of a holder: shards in volume files, found through an index, within a pledge.
//!
//! A shard's life here: [`ShardStore::begin`] reserves its space, [`ShardWriter`] writes it as it arrives and compares
//! its root, [`ShardStore::commit`] makes it durable together with all that wait, [`ShardStore::read`] proves what it
//! hands out, [`ShardStore::remove`] gives the space back. A record describes itself (`record`), so the volumes are the
//! truth; the index (`index`, sled) and every count (`space`) can be had from them again (`recover`, [`fsck`]).
//!
//! All calls block. Nothing here opens a socket, reads a clock, or decides which shards to keep.

mod aligned;
#[cfg(any(test, feature = "fuzzing"))]
pub mod any_bytes;
mod check;
mod commit;
pub mod disk;
mod error;
mod files;
mod index;
mod label;
mod read;
mod reclaim;
mod record;
mod recover;
mod reserve;
mod space;
mod vaults;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use commonhold_protocol::{ClaimLeaf, NetworkName, VaultId};

pub use check::{FsckReport, fsck, fsck_on};
pub use error::StoreError;
pub use read::RangeRead;
pub use writer::{ShardWriter, WrittenShard};

use check::IndexFolders;
use commit::Group;
use disk::{Disk, FolderDisk, VolumeFile, VolumeNumber};
use files::Files;
use index::{Index, VaultNumber, folder_bytes};
use label::Label;
use record::UNIT_BYTES;
use recover::{Found, Recovery, Trust, own_file};
use space::Space;

/// What the operator lends.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A hard limit for all bytes on the disk: volumes, index and `other_bytes`.
    pub pledge_bytes: u64,
    /// The store never takes the file system below this many free bytes.
    pub keep_free_bytes: u64,
    /// The most that one vault may place here.
    pub vault_bytes_max: u64,
    /// Bytes that the node uses beside the store (its records); they count against the pledge.
    pub other_bytes: Arc<AtomicU64>,
    /// The network that the store belongs to.
    pub network: NetworkName,
}

/// How the index was found at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFound {
    /// There was no store yet.
    New,
    /// It was whole.
    Kept,
    /// It was missing or broken and was built anew from the volumes; a broken one lies in `index.broken`.
    Rebuilt,
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// How the index was found.
    pub index: IndexFound,
    /// Shards held.
    pub shards: u64,
    /// Shards in quarantine.
    pub quarantined: u64,
    /// Shards that lay in the volumes and not in the index.
    pub recovered: u64,
    /// Records that never became whole, or second copies: erased.
    pub erased: u64,
    /// Volumes that are gone, or in whose place another file is; their shards are quarantined.
    pub lost_volumes: Vec<VolumeNumber>,
}

/// What the store uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUse {
    /// Bytes of all records, each with its header, outboard and padding.
    pub bytes: u64,
    /// Bytes on the disk: volumes (with what is reserved for the next records) and index.
    pub disk_bytes: u64,
    /// Shards held.
    pub shards: u64,
    /// Shards in quarantine.
    pub quarantined: u64,
}

/// A shard that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which shard.
    pub leaf: ClaimLeaf,
    /// Whose.
    pub vault: VaultId,
    /// Bytes of its record.
    pub bytes: u64,
}

/// The shard store of one holder.
pub struct ShardStore {
    label: Label,
    disk: Arc<dyn Disk>,
    files: Files,
    index: Index,
    index_folders: IndexFolders,
    /// As measured last.
    index_bytes: AtomicU64,
    options: StoreOptions,
    space: Mutex<Space>,
    group: Group,
    /// Held by whoever erases, seals, moves or deletes. Taken before `space`, never while it is held.
    housekeeping: Mutex<()>,
}

impl std::fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardStore").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ShardStore {
    /// Opens the store in `folder` (`store`, `volumes/`, `index/`), or makes one. A lost or broken index is built anew.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<(Arc<Self>, OpenReport), StoreError> {
        let volumes = folder.join("volumes");
        let disk = FolderDisk::open(&volumes).map_err(StoreError::file("opening", volumes))?;
        Self::open_on(Arc::new(disk), folder, options)
    }

    /// As [`Self::open`], with the volumes on a disk of the caller's choice.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: StoreOptions,
    ) -> Result<(Arc<Self>, OpenReport), StoreError> {
        let label = Label::open(folder, disk.as_ref(), &options.network)?;
        let folders = IndexFolders::of(folder);
        folders.remove_leftovers()?;
        let kept = if folders.index.exists() { open_kept(&label, disk.as_ref(), &folders)? } else { None };
        let (index, space, found, index_found) = match kept {
            Some((index, space, found)) => (index, space, found, IndexFound::Kept),
            None => {
                let index = Index::open(&folders.index)?;
                let (space, found) = Recovery::new(disk.as_ref(), &label.secret, &index, Trust::Blocks)?.run()?;
                index.set_complete(&label.store_id())?;
                let new = space.volumes.is_empty() && !folders.broken.exists();
                (index, space, found, if new { IndexFound::New } else { IndexFound::Rebuilt })
            }
        };
        let report = report(index_found, &space, found);
        tracing::info!(?report, "store opened");
        let store = Self {
            label,
            files: Files::new(disk.clone()),
            disk,
            index,
            index_folders: folders,
            index_bytes: AtomicU64::new(0),
            options,
            space: Mutex::new(space),
            group: Group::default(),
            housekeeping: Mutex::new(()),
        };
        store.measure_index()?;
        store.keep_house()?;
        Ok((Arc::new(store), report))
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_house(&self) -> Result<(), StoreError> {
        let _housekeeping = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.seal_full()
    }

    /// The file of a volume, unless it is gone or not ours.
    fn own_file(&self, volume: VolumeNumber) -> Result<Option<Arc<dyn VolumeFile>>, StoreError> {
        own_file(self.files.get(volume), volume, &self.label.secret)
    }

    fn measure_index(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for folder in [&self.index_folders.index, &self.index_folders.broken] {
            bytes += folder_bytes(folder).map_err(StoreError::file("measuring", folder))?;
        }
        self.index_bytes.store(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Whether a shard is held: durable, and not known to be damaged.
    pub fn holds(&self, leaf: &ClaimLeaf) -> Result<bool, StoreError> {
        Ok(self.index.get(leaf)?.is_some_and(|place| !place.quarantined))
    }

    /// The shards held, in the order of their ids, from the one after `after` on. Those stored or removed meanwhile may
    /// be among them or not.
    pub fn held_after(&self, after: Option<&ClaimLeaf>) -> impl Iterator<Item = Result<Held, StoreError>> + '_ {
        // Shards come in no order of vaults; a lock for each would be felt by writers.
        const KNOWN_MAX: usize = 1024;
        let mut known: BTreeMap<VaultNumber, VaultId> = BTreeMap::new();
        self.index.iter_after(after).filter_map(move |entry| {
            let (leaf, place) = match entry {
                Ok((_, place)) if place.quarantined => return None,
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            let vault = match known.get(&place.vault) {
                Some(vault) => *vault,
                // Without a vault it was removed since.
                None => *known.entry(place.vault).or_insert(self.space().vaults.id(place.vault)?),
            };
            Some(Ok(Held { leaf, vault, bytes: u64::from(place.units) * UNIT_BYTES }))
        })
    }

    /// All shards held.
    pub fn iter_held(&self) -> impl Iterator<Item = Result<Held, StoreError>> + '_ {
        self.held_after(None)
    }

    /// The shards in quarantine: to be reported, and repaired elsewhere or stored anew here.
    pub fn quarantined(&self) -> Vec<ClaimLeaf> {
        self.space().quarantined.iter().copied().collect()
    }

    /// What is used.
    pub fn used(&self) -> StoreUse {
        let index_bytes = self.measure_index().unwrap_or_else(|error| {
            tracing::warn!(%error, "the index counts as when it was measured last");
            self.index_bytes.load(Ordering::Relaxed)
        });
        let space = self.space();
        StoreUse {
            bytes: space.record_bytes(),
            disk_bytes: space.disk_bytes() + index_bytes,
            shards: space.shards,
            quarantined: space.quarantined.len() as u64,
        }
    }

    /// The vaults that have shards here, held or in quarantine.
    pub fn vaults(&self) -> Vec<VaultId> {
        self.space().vaults.ids().collect()
    }

    /// Bytes of records that a vault has placed here.
    pub fn vault_bytes(&self, vault: &VaultId) -> u64 {
        self.space().vaults.units(vault) * UNIT_BYTES
    }

    /// Refuses new shards, and makes the index durable. Those being written may still be finished and committed.
    pub fn close(&self) -> Result<(), StoreError> {
        self.space().stopping = true;
        self.keep_house()?;
        self.index.flush()?;
        Ok(())
    }
}

type Opened = (Index, Space, Found);

/// The index as it is and what it leads to; none if it was broken and has been moved aside.
fn open_kept(label: &Label, disk: &dyn Disk, folders: &IndexFolders) -> Result<Option<Opened>, StoreError> {
    let open = || -> Result<Option<Opened>, StoreError> {
        let index = Index::open(&folders.index)?;
        if !index.is_of(&label.store_id())? {
            return Ok(None);
        }
        let (space, found) = Recovery::new(disk, &label.secret, &index, Trust::Index)?.run()?;
        Ok(Some((index, space, found)))
    };
    match open() {
        Ok(Some(opened)) => return Ok(Some(opened)),
        Ok(None) => tracing::warn!("the index is incomplete or another store's; it is built anew"),
        Err(StoreError::Sled(error)) if index::is_locked(&error) => return Err(StoreError::Sled(error)),
        // A full disk or a missing right is no reason to give an index up.
        Err(StoreError::Sled(sled::Error::Io(error)))
            if disk::is_full(&error) || error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            return Err(StoreError::Sled(sled::Error::Io(error)));
        }
        Err(StoreError::Sled(error)) => tracing::error!(%error, "the index is broken; it is built anew"),
        Err(error) => return Err(error),
    }
    folders.move_aside()?;
    Ok(None)
}

fn report(index: IndexFound, space: &Space, found: Found) -> OpenReport {
    OpenReport {
        index,
        shards: space.shards,
        quarantined: space.quarantined.len() as u64,
        recovered: found.entered,
        erased: found.erased,
        lost_volumes: found.lost,
    }
}
