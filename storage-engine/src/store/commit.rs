//! Group commit: one sync per volume for all shards that wait together, and only then the index.
//!
//! Whoever finds nobody leading takes all that wait and leads; those who come meanwhile wait for the next round.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
};

use super::{
    ShardStore,
    disk::{VolumeFile, VolumeNumber},
    error::StoreError,
    index::Place,
    record::UNIT_BYTES,
    space::{Phase, Volume},
    writer::WrittenShard,
};

type Answer = Result<(), StoreError>;

#[derive(Default)]
struct Waiting {
    /// Bounded by the writers that there may be at once.
    shards: Vec<(u64, WrittenShard)>,
    answers: BTreeMap<u64, Answer>,
    next_ticket: u64,
    led: bool,
}

/// Those who wait for the next sync.
#[derive(Default)]
pub(crate) struct Group {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Group {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One round. However it ends, each of its shards gets an answer, and the next can lead.
struct Round<'a> {
    group: &'a Group,
    answers: Vec<(u64, Option<Answer>)>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut waiting = self.group.waiting();
        let answers = self.answers.drain(..);
        waiting.answers.extend(answers.map(|(ticket, answer)| (ticket, answer.unwrap_or(Err(StoreError::Stopping)))));
        waiting.led = false;
        self.group.changed.notify_all();
    }
}

impl ShardStore {
    /// Returns once the shard is durable and held. Concurrent calls share their syncs.
    pub fn commit(self: &Arc<Self>, shard: WrittenShard) -> Result<(), StoreError> {
        debug_assert!(Arc::ptr_eq(self, &shard.reservation.store));
        let mut waiting = self.group.waiting();
        let ticket = waiting.next_ticket;
        waiting.next_ticket += 1;
        waiting.shards.push((ticket, shard));
        loop {
            if let Some(answer) = waiting.answers.remove(&ticket) {
                return answer;
            }
            if waiting.led {
                waiting = self.group.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.led = true;
            let (tickets, shards): (Vec<_>, Vec<_>) = std::mem::take(&mut waiting.shards).into_iter().unzip();
            drop(waiting);
            let mut round =
                Round { group: &self.group, answers: tickets.into_iter().map(|ticket| (ticket, None)).collect() };
            let (answers, replaced) = self.commit_together(shards);
            for (slot, answer) in round.answers.iter_mut().zip(answers) {
                slot.1 = Some(answer);
            }
            drop(round);
            self.tidy(&replaced);
            waiting = self.group.waiting();
        }
    }

    /// What follows a round, and concerns none of those who waited.
    fn tidy(&self, replaced: &[Place]) {
        // Sealing can wait until whoever keeps house now is done; what was replaced cannot, nobody else knows of it.
        let keeping = match self.housekeeping.try_lock() {
            Err(TryLockError::WouldBlock) if replaced.is_empty() => return,
            Err(TryLockError::WouldBlock) => self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(keeping) => keeping,
        };
        if let Err(error) = self.erase(replaced).and_then(|()| self.seal_full()) {
            tracing::warn!(%error, "tidying up after a commit; it is done at the next open");
        }
        drop(keeping);
    }

    fn commit_together(&self, shards: Vec<WrittenShard>) -> (Vec<Answer>, Vec<Place>) {
        let mut volumes: BTreeMap<VolumeNumber, Answer> = BTreeMap::new();
        for WrittenShard { reservation } in &shards {
            let volume = reservation.region.volume;
            volumes.entry(volume).or_insert_with(|| self.sync_written(volume, reservation.file.as_ref()));
        }
        let mut replaced = Vec::new();
        let answers = shards.into_iter().map(|shard| {
            let volume = shard.reservation.region.volume;
            match volumes.get_mut(&volume) {
                Some(Ok(())) => self.enter(shard, &mut replaced),
                // The first hears what happened; an I/O error cannot be told twice.
                Some(failed) => std::mem::replace(failed, Err(StoreError::VolumeFailed { volume })),
                None => Err(StoreError::VolumeFailed { volume }),
            }
        });
        (answers.collect(), replaced)
    }

    /// Makes all that was written to a volume durable, if it is still the file that readers will open.
    fn sync_written(&self, volume: VolumeNumber, file: &dyn VolumeFile) -> Answer {
        let failed = |known: &Volume| matches!(known.phase, Phase::Failed | Phase::Lost);
        if self.space().volumes.get(&volume).is_none_or(failed) {
            return Err(StoreError::VolumeFailed { volume });
        }
        if let Err(source) = file.sync() {
            // What a failed sync did not write may count as clean now: a second sync would lie.
            if let Some(known) = self.space().volumes.get_mut(&volume) {
                known.phase = Phase::Failed;
            }
            return Err(StoreError::Volume { doing: "syncing", volume, source });
        }
        let checking = || StoreError::volume("checking", volume);
        if !file.is_current().map_err(checking())? {
            self.lose_volume(volume)?;
            return Err(StoreError::VolumeFailed { volume });
        }
        if let Some(units) = self.units_if_cut(volume, file).map_err(checking())? {
            self.lose_from(volume, units)?;
            return Err(StoreError::VolumeFailed { volume });
        }
        Ok(())
    }

    /// The units that a volume's file has, if it was cut. What was written since may have made it longer again, but not
    /// to its full length.
    fn units_if_cut(&self, volume: VolumeNumber, file: &dyn VolumeFile) -> io::Result<Option<u32>> {
        // Whoever closes a volume cuts it as well, and holds this lock until that is counted.
        let space = self.space();
        let expected = space.volumes.get(&volume).map_or(0, |known| known.units);
        let units = u32::try_from(file.length()? / UNIT_BYTES).unwrap_or(u32::MAX);
        Ok((units < expected).then_some(units))
    }

    /// The record is durable: from here on it is held.
    fn enter(&self, mut shard: WrittenShard, replaced: &mut Vec<Place>) -> Answer {
        let reservation = &mut shard.reservation;
        let (leaf, place) = (reservation.leaf, reservation.place());
        let mut space = self.space();
        let old = self.index.get(&leaf)?;
        if let Some(old) = &old {
            self.index.note_free(&leaf, old)?;
        }
        self.index.insert(&leaf, &place)?;
        if let Some(old) = old {
            space.uncount(&leaf, &old);
            space.vaults.subtract(old.vault, old.vault_units(), &self.index)?;
            if let Some(volume) = space.volumes.get_mut(&old.volume) {
                volume.busy += 1;
            }
            replaced.push(old);
        }
        space.count(&leaf, &place);
        space.settle(&reservation.region, false);
        space.in_flight.remove(&leaf);
        reservation.committed = true;
        Ok(())
    }
}
