//! Which number stands for which file, for as long as the kernel knows it.
//!
//! A folder's number follows from its path, so that it stays when the folder changes. The number of anything else
//! follows from its path **and what it is**: a file that is replaced in the vault is another file, as after a rename
//! over it, so whoever has the old one open goes on reading it, and the kernel never mixes cached bytes of the two.
//! Hard links have no path in their number, and so share it.

use std::{collections::HashMap, sync::Arc};

use commonhold_client_sdk::{Entry, Name};

/// The number of the drive's root, as FUSE has it.
pub(crate) const ROOT: u64 = 1;

/// Where something is: names from the root down. The root has no place.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: Option<Arc<Self>>,
    pub(crate) name: Name,
}

/// The names from the root down to a place.
pub(crate) fn path(place: Option<&Arc<Place>>) -> Vec<Name> {
    let mut names = Vec::new();
    let mut at = place;
    while let Some(place) = at {
        names.push(place.name.clone());
        at = place.parent.as_ref();
    }
    names.reverse();
    names
}

/// What a number stands for.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Option<Arc<Place>>,
    /// Of a folder: as of the state with the number `seen`.
    pub(crate) entry: Arc<Entry>,
    pub(crate) seen: u64,
}

struct Known {
    node: Node,
    /// How often the kernel was told of it, less how often it forgot.
    lookups: u64,
}

/// All that the kernel knows. It decides how much that is, and forgets when it needs memory.
pub(crate) struct Inodes {
    key: [u8; 32],
    known: HashMap<u64, Known>,
}

impl Inodes {
    /// Numbers of one mount: with another key they are others.
    pub(crate) fn new(key: [u8; 32], root: Node) -> Self {
        Self { key, known: HashMap::from([(ROOT, Known { node: root, lookups: 1 })]) }
    }

    /// The number of an entry. Two of a million entries share one by chance in one of 10^7 vaults.
    pub(crate) fn number(&self, parent: u64, name: &Name, entry: &Entry) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        if entry.link_group.is_none() {
            hasher.update(&parent.to_le_bytes()).update(&(name.as_bytes().len() as u32).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        if entry.directory().is_none() {
            // What was decoded can be encoded; if not, the number is that of a file without content.
            hasher.update(&entry.encode().unwrap_or_default());
        }
        let mut number = [0; 8];
        hasher.finalize_xof().fill(&mut number);
        // 0 is nothing, 1 the root.
        u64::from_le_bytes(number).max(ROOT + 1)
    }

    /// Notes that the kernel was told of a number once more.
    pub(crate) fn remember(&mut self, number: u64, node: Node) {
        let known = self.known.entry(number).or_insert_with(|| Known { node: node.clone(), lookups: 0 });
        known.node = node;
        known.lookups += 1;
    }

    /// The kernel forgot it so many times.
    pub(crate) fn forget(&mut self, number: u64, lookups: u64) {
        let Some(known) = self.known.get_mut(&number).filter(|_| number != ROOT) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 {
            self.known.remove(&number);
        }
    }

    /// What a number stands for.
    pub(crate) fn node(&self, number: u64) -> Option<Node> {
        self.known.get(&number).map(|known| known.node.clone())
    }

    /// Takes in what a folder is in a newer state.
    pub(crate) fn renew(&mut self, number: u64, entry: &Arc<Entry>, seen: u64) {
        if let Some(known) = self.known.get_mut(&number) {
            (known.node.entry, known.node.seen) = (entry.clone(), seen);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}
