//! The states of a vault that a state comes from: where a merge finds the nearest one that two writers have in common.
//!
//! The newest are kept with their roots; of older ones a mark is kept, which says that they were, but not what was in
//! them. A state that one side still has with its root, and the other knows by its mark, is found. So it takes two
//! writers that have *both* gone on for long to have nothing to merge by; then each keeps what the other has changed.
//! An ancestor that is not the nearest is never taken: what was deleted before the nearest, and put again by one of
//! them since, would seem to be deleted by the other.

use std::collections::BTreeSet;

use commonhold_protocol::{Timestamp, Version};
use commonhold_storage_engine::tree::map::TreeRoot;

/// Marks that are kept for each state that may be kept with its root.
const MARKS_PER_STATE: usize = 16;
/// Bytes of a [`Mark`].
pub(crate) const MARK_BYTES: usize = 16;
const MARK_CONTEXT: &str = "commonhold 2026 former state mark v1";

/// A former state of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ancestor {
    pub(crate) version: Version,
    pub(crate) written_at: Timestamp,
    pub(crate) root: TreeRoot,
    /// Its segment table: a device that went on from this state needs it to be merged with, as it needs the root.
    pub(crate) table: TreeRoot,
}

impl Ancestor {
    /// How many heads it comes from: greater than that of anything it comes from.
    pub(crate) fn age(&self) -> u64 {
        self.version.counters().fold(0, |sum, (_, counter)| sum.saturating_add(counter))
    }

    /// What tells it from all other states. A version alone does not: two copies of one home may write the same.
    pub(crate) fn mark(&self) -> Mark {
        let (version, root) = (self.version.to_bytes(), self.root.to_bytes());
        let mut hasher = blake3::Hasher::new_derive_key(MARK_CONTEXT);
        let hash = hasher.update(&(version.len() as u32).to_le_bytes()).update(&version).update(&root).finalize();
        let mut mark = [0; MARK_BYTES];
        let (age, digest) = mark.split_at_mut(8);
        age.copy_from_slice(&self.age().to_be_bytes());
        digest.copy_from_slice(&hash.as_bytes()[..8]);
        Mark(mark)
    }
}

/// A former state's age (u64, big-endian) and 8 bytes of a hash over its version and root. Younger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(pub(crate) [u8; MARK_BYTES]);

impl Mark {
    fn age(&self) -> &[u8] {
        &self.0[..8]
    }
}

/// What a state comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The newest, by age.
    pub(crate) states: Vec<Ancestor>,
    /// Those before them, by age.
    pub(crate) marks: Vec<Mark>,
}

impl History {
    /// True for the first state of all.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty() && self.marks.is_empty()
    }

    /// Takes in one more state; that of a vault which nobody wrote to yet is none.
    pub(crate) fn add(&mut self, state: Ancestor) {
        if state.version != Version::default() && !self.states.contains(&state) {
            self.states.push(state);
            self.states.sort_by_cached_key(Ancestor::mark);
        }
    }

    /// Takes in what another state comes from.
    pub(crate) fn join(&mut self, other: &Self) {
        other.states.iter().cloned().for_each(|state| self.add(state));
        self.marks.extend(&other.marks);
        self.marks.sort();
        self.marks.dedup();
    }

    /// Keeps so many states with their roots, the newest, and the marks of those before.
    pub(crate) fn trim(&mut self, states_max: usize) {
        let older = self.states.drain(..self.states.len().saturating_sub(states_max));
        self.marks.extend(older.map(|state| state.mark()));
        self.marks.sort();
        self.marks.dedup();
        self.marks.drain(..self.marks.len().saturating_sub(states_max * MARKS_PER_STATE));
    }

    fn all_marks(&self) -> BTreeSet<Mark> {
        self.states.iter().map(Ancestor::mark).chain(self.marks.iter().copied()).collect()
    }

    /// The newest state that is in both; none if neither knows its root any more. Each history ends somewhere, but
    /// whatever is newer than something found in it is in it too.
    pub(crate) fn nearest_common<'a>(&'a self, other: &'a Self) -> Option<&'a Ancestor> {
        let (ours, theirs) = (self.all_marks(), other.all_marks());
        let common: Vec<&Mark> = ours.intersection(&theirs).collect();
        let nearest = common.last()?.age();
        // There may be several, if both have merged the same two.
        let nearest = common.iter().rev().take_while(|mark| mark.age() == nearest);
        let state = |mark: &&Mark| self.states.iter().chain(&other.states).find(|state| state.mark() == **mark);
        nearest.copied().find_map(|mark| state(&mark))
    }
}

#[cfg(test)]
mod tests;
