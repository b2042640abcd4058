//! Compaction: the live entries of a mostly dead log move to the end of the newest one, and the old file goes.
//!
//! Only the newest entry of a key is moved, so that of a key's entries the last one in the logs is still the one that
//! counts.

use std::{fs, sync::atomic::Ordering::Relaxed};

use super::{
    ENTRY_HEADER_BYTES, Entry, FILE_HEADER_BYTES, RecordStore, RecordsError, TAG_REMOVED,
    entry::scan,
    index::{Location, Position},
    lock, log_path, sync_folder,
};

/// Moved under one lock, so that others wait for milliseconds at most.
const MOVE_BYTES: usize = 1 << 20;

impl RecordStore {
    /// Background work: compacts what is worth it, and sets a checkpoint. One call does a bounded amount.
    pub fn maintain(&self) -> Result<(), RecordsError> {
        if let Some(number) = self.most_dead(2) {
            self.compact(number)?;
        }
        self.checkpoint()
    }

    /// Compacts until `bytes` more fit, or until nothing is dead enough. Room for one log is kept back: compaction
    /// writes before it removes.
    pub(super) fn make_room(&self, bytes: u64) -> Result<(), RecordsError> {
        let limit = self.bytes_max - self.roll_bytes;
        let files = lock(&self.writer).files.len();
        for _ in 0..=files {
            if self.log_bytes() + bytes <= limit {
                return Ok(());
            }
            match self.most_dead(8) {
                Some(number) => self.compact(number)?,
                None => break,
            }
        }
        Err(RecordsError::Full { bytes_max: self.bytes_max })
    }

    fn log_bytes(&self) -> u64 {
        lock(&self.writer).files.values().map(|(_, used)| used.bytes).sum()
    }

    /// The log, other than the active one, with the most dead bytes; none if that is less than one part in
    /// `dead_parts` of it.
    fn most_dead(&self, dead_parts: u64) -> Option<u32> {
        let writer = lock(&self.writer);
        let dead = |used: &super::FileUse| used.bytes.saturating_sub(used.live + FILE_HEADER_BYTES as u64);
        let candidates = writer.files.iter().filter(|(number, _)| **number != writer.end.file);
        let (number, (_, used)) = candidates.max_by_key(|(_, (_, used))| dead(used))?;
        (dead(used) > 0 && dead(used) >= used.bytes / dead_parts || used.live == 0).then_some(*number)
    }

    fn compact(&self, number: u32) -> Result<(), RecordsError> {
        let _alone = lock(&self.compacting);
        let (file, oldest) = {
            let writer = lock(&self.writer);
            let Some((file, _)) = writer.files.get(&number) else { return Ok(()) };
            (file.clone(), writer.files.keys().next() == Some(&number))
        };
        let mut moving: Vec<(Entry, Position, Vec<u8>)> = Vec::new();
        let mut moving_bytes = 0;
        let path = log_path(&self.folder, number);
        scan(&file, &path, 0, |offset, entry, body| {
            moving_bytes += ENTRY_HEADER_BYTES + body.len();
            moving.push((entry, Position { file: number, offset }, body.to_vec()));
            if moving_bytes >= MOVE_BYTES {
                moving_bytes = 0;
                self.move_live(&std::mem::take(&mut moving), oldest)?;
            }
            Ok(())
        })?;
        self.move_live(&moving, oldest)?;
        let end = lock(&self.writer).end;
        self.sync_until(end)?;
        let mut writer = lock(&self.writer);
        if let Some((_, used)) = writer.files.remove(&number) {
            self.used.fetch_sub(used.bytes, Relaxed);
        }
        drop(writer);
        let removed = fs::remove_file(&path).and_then(|()| sync_folder(&self.folder));
        removed.map_err(|source| RecordsError::Io { path, source })
    }

    /// Appends those of `entries` that still count.
    fn move_live(&self, entries: &[(Entry, Position, Vec<u8>)], oldest: bool) -> Result<(), RecordsError> {
        let mut writer = lock(&self.writer);
        let (mut batch, mut moved) = (Vec::new(), Vec::new());
        for (entry, at, body) in entries {
            let newest = match writer.pending.get(&(entry.kind, entry.key)) {
                Some(location) => Some(*location),
                None => self.index.get(entry.kind, &entry.key)?,
            };
            let counts = match newest {
                Some(Location { at: newest, .. }) => newest == *at,
                // A removal has nothing to stand against once no older file is left.
                None => entry.tag == TAG_REMOVED && !oldest,
            };
            if counts {
                let before = batch.len();
                entry.encode(body, &mut batch);
                moved.push((*entry, (batch.len() - before) as u32));
            }
        }
        if !moved.is_empty() {
            self.append(&mut writer, &moved, &batch)?;
        }
        Ok(())
    }
}
