//! Where the newest entry of each key lies: a sled tree that can always be rebuilt from the logs.
//!
//! ```text
//! key    kind u8 ‖ key [..21]
//! value  key [21..] ‖ file u24 ‖ offset u32 ‖ length u24 ‖ tag u8
//! "checkpoint"   file u32 ‖ offset u32: the index knows all before this place of the logs
//! ```
//! Numbers are big-endian. Keys and values have 22 bytes, which sled keeps inline: longer ones take twenty times the
//! memory. The checkpoint is written only after the index itself has been flushed.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{RecordsError, entry::Kind};

/// Pages that sled keeps in memory. Entries are small, and the system caches the file.
const CACHE_BYTES: u64 = 1 << 20;
const CHECKPOINT_KEY: &[u8] = b"checkpoint";
const ENTRY_BYTES: usize = 22;
/// Bytes of a key that go into the index's key; the rest goes into the value.
const KEY_HEAD_BYTES: usize = ENTRY_BYTES - 1;
const KEY_TAIL_BYTES: usize = 32 - KEY_HEAD_BYTES;

/// The highest number of a log file.
pub(super) const FILE_NUMBER_MAX: u32 = (1 << 24) - 1;

/// A place in the logs. Later entries lie at higher places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) file: u32,
    pub(super) offset: u32,
}

impl Position {
    /// One number that rises as places do.
    pub(super) fn sequence(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset)
    }
}

/// Where an entry lies, and what can be said of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) at: Position,
    /// Header and body.
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) key: [u8; 32],
    pub(super) tag: u8,
}

pub(super) type Key = (Kind, [u8; 32]);

#[derive(Debug)]
pub(super) struct Index(sled::Db);

impl Index {
    /// Opens the index in `folder`; a new one if there is none or it cannot be read.
    pub(super) fn open(folder: &Path) -> Result<Self, RecordsError> {
        // On some broken files sled panics instead of returning its error.
        match catch_unwind(AssertUnwindSafe(|| Self::open_existing(folder))) {
            Ok(Ok(index)) => return Ok(index),
            Ok(Err(error)) => tracing::warn!(%error, "the index of the records is broken; it is made from the logs"),
            Err(_) => tracing::warn!("the index of the records is broken; it is made from the logs"),
        }
        Self::create(folder)
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
        let value = self.0.get(head(kind, key))?;
        Ok(value.and_then(|value| location(kind, key_head(key), &value)).filter(|location| location.key == *key))
    }

    /// Puts an entry in its place; gives the one that it displaced.
    pub(super) fn put(&self, location: &Location) -> Result<Option<Location>, RecordsError> {
        let Location { at, length, kind, key, tag } = location;
        let mut value = [0; ENTRY_BYTES];
        value[..KEY_TAIL_BYTES].copy_from_slice(&key[KEY_HEAD_BYTES..]);
        value[11..14].copy_from_slice(&at.file.to_be_bytes()[1..]);
        value[14..18].copy_from_slice(&at.offset.to_be_bytes());
        value[18..21].copy_from_slice(&length.to_be_bytes()[1..]);
        value[21] = *tag;
        let old = self.0.insert(head(*kind, key), &value)?;
        Ok(old.and_then(|value| self::location(*kind, key_head(key), &value)))
    }

    pub(super) fn remove(&self, kind: Kind, key: &[u8; 32]) -> Result<Option<Location>, RecordsError> {
        let old = self.0.remove(head(kind, key))?;
        Ok(old.and_then(|value| location(kind, key_head(key), &value)))
    }

    /// The entries of a kind in order of their keys, from the first behind `after`.
    pub(super) fn iter(
        &self,
        kind: Kind,
        after: Option<&[u8; 32]>,
    ) -> impl Iterator<Item = Result<Location, RecordsError>> + use<> {
        use std::ops::Bound::{Excluded, Included};
        let from = after.map_or(Included(head(kind, &[0; 32])), |after| Excluded(head(kind, after)));
        let range = self.0.range::<[u8; ENTRY_BYTES], _>((from, Included(head(kind, &[255; 32]))));
        range.filter_map(move |item| match item {
            Ok((key, value)) => location(kind, key.get(1..)?.try_into().ok()?, &value).map(Ok),
            Err(error) => Some(Err(error.into())),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to where the index knows everything.
    pub(super) fn checkpoint(&self) -> Result<Option<Position>, RecordsError> {
        let Some(value) = self.0.get(CHECKPOINT_KEY)? else { return Ok(None) };
        let (Some(file), Some(offset)) = (value.first_chunk(), value.last_chunk()) else { return Ok(None) };
        Ok(Some(Position { file: u32::from_be_bytes(*file), offset: u32::from_be_bytes(*offset) }))
    }

    /// Makes all that was put so far durable, then says so.
    pub(super) fn set_checkpoint(&self, at: Position) -> Result<(), RecordsError> {
        self.0.flush()?;
        self.0.insert(CHECKPOINT_KEY, &at.sequence().to_be_bytes())?;
        self.0.flush()?;
        Ok(())
    }

    /// All keys and values as they are kept.
    #[cfg(test)]
    pub(super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.iter().flatten().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.0.size_on_disk().unwrap_or(0)
    }
}

fn key_head(key: &[u8; 32]) -> [u8; KEY_HEAD_BYTES] {
    std::array::from_fn(|i| key[i])
}

fn head(kind: Kind, key: &[u8; 32]) -> [u8; ENTRY_BYTES] {
    let mut head = [kind.number(); ENTRY_BYTES];
    head[1..].copy_from_slice(&key[..KEY_HEAD_BYTES]);
    head
}

fn location(kind: Kind, key_head: [u8; KEY_HEAD_BYTES], value: &[u8]) -> Option<Location> {
    let value: &[u8; ENTRY_BYTES] = value.try_into().ok()?;
    let mut key = [0; 32];
    key[..KEY_HEAD_BYTES].copy_from_slice(&key_head);
    key[KEY_HEAD_BYTES..].copy_from_slice(&value[..KEY_TAIL_BYTES]);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    Some(Location {
        at: Position { file: number(&value[11..14]), offset: number(&value[14..18]) },
        length: number(&value[18..21]),
        kind,
        key,
        tag: value[21],
    })
}
