//! The shared sync: one `fdatasync` for all commits that wait together, after which the index learns of them.

use std::sync::{PoisonError, atomic::Ordering::Relaxed};

use super::{
    RecordStore, RecordsError, TAG_REMOVED, Writer,
    index::{Location, Position},
    lock, log_path,
};

impl RecordStore {
    /// Returns when all before `end` is synced and indexed. One of those that wait syncs for all of them.
    pub(super) fn sync_until(&self, end: Position) -> Result<(), RecordsError> {
        let mut state = lock(&self.sync);
        loop {
            if state.synced >= end {
                return Ok(());
            }
            if state.broken {
                return Err(RecordsError::Broken);
            }
            if state.running {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            drop(state);
            let synced = self.sync_once();
            state = lock(&self.sync);
            state.running = false;
            match synced {
                Ok(synced) => state.synced = synced,
                Err(error) => {
                    tracing::error!(%error, "the record logs cannot be written any more");
                    state.broken = true;
                    lock(&self.writer).broken = true;
                }
            }
            self.synced.notify_all();
        }
    }

    /// Syncs what is appended by now, and moves it from `pending` to the index.
    fn sync_once(&self) -> Result<Position, RecordsError> {
        let (file, end) = {
            let writer = lock(&self.writer);
            (writer.active.clone(), writer.end)
        };
        file.sync_data().map_err(|source| RecordsError::Io { path: log_path(&self.folder, end.file), source })?;
        let mut writer = lock(&self.writer);
        while let Some(location) = writer.unsynced.front().copied().filter(|location| location.at < end) {
            self.index_entry(&mut writer, &location)?;
            writer.unsynced.pop_front();
            let key = (location.kind, location.key);
            if writer.pending.get(&key) == Some(&location) {
                writer.pending.remove(&key);
            }
        }
        Ok(end)
    }

    /// Tells the index of an entry, and keeps the counters right. Called in the order of the log.
    fn index_entry(&self, writer: &mut Writer, location: &Location) -> Result<(), RecordsError> {
        let Location { kind, key, tag, .. } = location;
        let removed = *tag == TAG_REMOVED;
        let old = if removed { self.index.remove(*kind, key)? } else { self.index.put(location)? };
        if let Some(old) = old {
            writer.counts[*kind as usize] -= 1;
            if let Some((_, used)) = writer.files.get_mut(&old.at.file) {
                used.live = used.live.saturating_sub(old.length.into());
            }
        }
        if !removed {
            writer.counts[*kind as usize] += 1;
            if let Some((_, used)) = writer.files.get_mut(&location.at.file) {
                used.live += u64::from(location.length);
            }
        }
        Ok(())
    }

    /// Flushes the index and notes how far it knows the logs, so that the next start reads only what came later.
    pub fn checkpoint(&self) -> Result<(), RecordsError> {
        let end = lock(&self.writer).end;
        self.sync_until(end)?;
        self.index.set_checkpoint(end)?;
        self.count_used();
        Ok(())
    }

    fn count_used(&self) {
        let logs: u64 = lock(&self.writer).files.values().map(|(_, used)| used.bytes).sum();
        self.used.store(logs + self.index.disk_bytes(), Relaxed);
    }
}
