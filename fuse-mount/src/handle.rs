//! A folder that is being listed: some entries at a time, however many there are.

use std::{collections::VecDeque, sync::Arc};

use commonhold_client_sdk::{Entry, Error, Listed, Name};

use crate::drive::State;

/// Entries read from the vault at once, and held for one listing.
const BATCH: usize = 256;

/// An open folder, as it was when it was opened.
pub(crate) struct Listing<S> {
    state: Arc<S>,
    folder: Arc<Entry>,
    /// How many entries come before those that are held, and the last of them.
    before: u64,
    cursor: Option<Name>,
    held: VecDeque<Listed>,
}

impl<S: State> Listing<S> {
    pub(crate) fn new(state: Arc<S>, folder: Arc<Entry>) -> Self {
        Self { state, folder, before: 0, cursor: None, held: VecDeque::new() }
    }

    /// Some entries from the one with this index on; none at the end. The kernel comes back to what it had no room
    /// for, and otherwise goes on: only a program that seeks in a folder makes this start again.
    pub(crate) fn from(&mut self, index: u64) -> Result<impl Iterator<Item = &Listed>, Error> {
        if index < self.before {
            (self.before, self.cursor) = (0, None);
            self.held.clear();
        }
        loop {
            while self.before < index
                && let Some(passed) = self.held.pop_front()
            {
                self.before += 1;
                self.cursor = Some(passed.name);
            }
            if !self.held.is_empty() {
                break;
            }
            self.held = self.state.list(&self.folder, self.cursor.as_ref(), BATCH)?.into();
            if self.held.is_empty() {
                break;
            }
        }
        Ok(self.held.iter())
    }
}
