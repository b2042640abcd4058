//! The open volume files: a few of them, and never one whose name leads elsewhere by now.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, VolumeFile, VolumeNumber};

/// Files kept open for reading. Writers keep theirs themselves.
const FILES_OPEN_MAX: usize = 64;

type Opened = (VolumeNumber, Arc<dyn VolumeFile>);

/// Opens volumes, and remembers the latest.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    /// The latest used first.
    open: Mutex<VecDeque<Opened>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::default() }
    }

    fn opened(&self) -> MutexGuard<'_, VecDeque<Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a volume; `NotFound` if there is none any more.
    pub(crate) fn get(&self, volume: VolumeNumber) -> io::Result<Arc<dyn VolumeFile>> {
        let known = self.opened().iter().find(|(number, _)| *number == volume).map(|(_, file)| file.clone());
        if let Some(file) = known
            && file.is_current()?
        {
            self.keep(volume, &file);
            return Ok(file);
        }
        self.forget(volume);
        let file = self.disk.open(volume)?;
        self.keep(volume, &file);
        Ok(file)
    }

    /// Remembers a file as the latest used.
    pub(crate) fn keep(&self, volume: VolumeNumber, file: &Arc<dyn VolumeFile>) {
        let mut open = self.opened();
        open.retain(|(number, _)| *number != volume);
        open.push_front((volume, file.clone()));
        open.truncate(FILES_OPEN_MAX);
    }

    pub(crate) fn forget(&self, volume: VolumeNumber) {
        self.opened().retain(|(number, _)| *number != volume);
    }
}
