//! Where the newest entry of each key lies: a sled tree that can always be rebuilt from the logs.
//!
//! Key: kind ‖ key (33 bytes). Value: file, offset, length (u32 each), sequence (u64), tag (u8), owner (32 bytes), all
//! little-endian. The key `checkpoint` says up to which place of the logs the index is complete; it is written only
//! after the index itself has been flushed.

use std::{fs, path::Path};

use commonhold_protocol::VaultId;

use super::{
    RecordsError,
    entry::{Entry, Kind},
};

/// Pages that sled keeps in memory. Entries are small, and the system caches the file.
const CACHE_BYTES: u64 = 2 << 20;
const CHECKPOINT_KEY: &[u8] = b"checkpoint";
const VALUE_BYTES: usize = 53;

/// A place in the logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) file: u32,
    pub(super) offset: u32,
}

/// Where an entry lies, and what can be said of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) at: Position,
    /// Header and body.
    pub(super) length: u32,
    pub(super) entry: Entry,
}

/// Up to here the index knows everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) at: Position,
    /// No entry before it has a higher one.
    pub(super) sequence: u64,
}

pub(super) type Key = [u8; 33];

pub(super) fn key_of(kind: Kind, key: &[u8; 32]) -> Key {
    let mut whole = [kind.number(); 33];
    whole[1..].copy_from_slice(key);
    whole
}

#[derive(Debug)]
pub(super) struct Index(sled::Db);

impl Index {
    /// Opens the index in `folder`; a new one if there is none or it cannot be read.
    pub(super) fn open(folder: &Path) -> Result<Self, RecordsError> {
        match Self::open_existing(folder) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "the index of the records cannot be opened; it is rebuilt from the logs");
                Self::create(folder)
            }
        }
    }

    /// An empty index in `folder`, whatever was there.
    pub(super) fn create(folder: &Path) -> Result<Self, RecordsError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|source| RecordsError::Io { path: folder.to_owned(), source })?;
        }
        Ok(Self::open_existing(folder)?)
    }

    fn open_existing(folder: &Path) -> sled::Result<Self> {
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        config.open().map(Self)
    }

    pub(super) fn get(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<Location>, RecordsError> {
        let value = self.0.get(key_of(kind, key))?;
        Ok(value.and_then(|value| location(kind, *key, &value)))
    }

    /// Puts an entry in its place, if none with a higher sequence is there; gives the one that it displaced.
    pub(super) fn put(&self, location: &Location) -> Result<Option<Location>, RecordsError> {
        let Location { at, length, entry } = location;
        let key = key_of(entry.kind, &entry.key);
        let mut value = Vec::with_capacity(VALUE_BYTES);
        value.extend_from_slice(&at.file.to_le_bytes());
        value.extend_from_slice(&at.offset.to_le_bytes());
        value.extend_from_slice(&length.to_le_bytes());
        value.extend_from_slice(&entry.sequence.to_le_bytes());
        value.push(entry.tag);
        value.extend_from_slice(entry.owner.as_bytes());
        let old = self.0.insert(key, value)?;
        Ok(old.and_then(|value| self::location(entry.kind, entry.key, &value)))
    }

    pub(super) fn remove(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<Location>, RecordsError> {
        let old = self.0.remove(key_of(kind, key))?;
        Ok(old.and_then(|value| location(kind, *key, &value)))
    }

    /// The entries of a kind in order of their keys, from the first behind `after`.
    pub(super) fn iter(
        &self,
        kind: Kind,
        after: Option<&[u8; 32]>,
    ) -> impl Iterator<Item = Result<Location, RecordsError>> + use<> {
        use std::ops::Bound::{Excluded, Included};
        let from = after.map_or(Included(key_of(kind, &[0; 32])), |after| Excluded(key_of(kind, after)));
        let range = self.0.range::<Key, _>((from, Included(key_of(kind, &[255; 32]))));
        range.filter_map(move |item| match item {
            Ok((key, value)) => {
                let key: [u8; 32] = key.get(1..)?.try_into().ok()?;
                location(kind, key, &value).map(Ok)
            }
            Err(error) => Some(Err(error.into())),
        })
    }

    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, RecordsError> {
        let Some(value) = self.0.get(CHECKPOINT_KEY)? else { return Ok(None) };
        let Ok(value) = <[u8; 16]>::try_from(value.as_ref()) else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| value[at + i]));
        Ok(Some(Checkpoint {
            at: Position { file: word(0), offset: word(4) },
            sequence: u64::from_le_bytes(std::array::from_fn(|i| value[8 + i])),
        }))
    }

    /// Makes all that was put so far durable, then says so. `checkpoint` must have been taken before the call.
    pub(super) fn set_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), RecordsError> {
        self.0.flush()?;
        let mut value = Vec::with_capacity(16);
        value.extend_from_slice(&checkpoint.at.file.to_le_bytes());
        value.extend_from_slice(&checkpoint.at.offset.to_le_bytes());
        value.extend_from_slice(&checkpoint.sequence.to_le_bytes());
        self.0.insert(CHECKPOINT_KEY, value)?;
        self.0.flush()?;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.0.size_on_disk().unwrap_or(0)
    }
}

fn location(kind: Kind, key: [u8; 32], value: &[u8]) -> Option<Location> {
    let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| value[at + i]));
    Some(Location {
        at: Position { file: word(0), offset: word(4) },
        length: word(8),
        entry: Entry {
            sequence: u64::from_le_bytes(std::array::from_fn(|i| value[12 + i])),
            kind,
            tag: value[20],
            key,
            owner: VaultId::from_bytes(std::array::from_fn(|i| value[21 + i])),
        },
    })
}
