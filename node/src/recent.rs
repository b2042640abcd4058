//! What happened of late: a map that forgets what was noted first, so that it takes no more than so many entries.

use std::collections::{BTreeMap, VecDeque};

/// The newest entries.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    /// In the order in which they were noted, each with its number; what was removed since is still in it.
    order: VecDeque<(u64, K)>,
    noted: u64,
    entries_max: usize,
}

impl<K: Ord + Copy, V> Recent<K, V> {
    /// Of at most so many entries.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new(), noted: 0, entries_max }
    }

    pub(crate) fn note(&mut self, key: K, value: V) {
        if let Some((_, noted)) = self.entries.get_mut(&key) {
            *noted = value;
            return;
        }
        self.noted += 1;
        self.entries.insert(key, (self.noted, value));
        self.order.push_back((self.noted, key));
        while self.order.len() > self.entries_max {
            let Some((number, oldest)) = self.order.pop_front() else { return };
            // It may have been removed and noted anew.
            if self.entries.get(&oldest).is_some_and(|(noted, _)| *noted == number) {
                self.entries.remove(&oldest);
            }
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_the_room_is_bounded() {
        let mut recent = Recent::new(3);
        for number in 0..5 {
            recent.note(number, ());
        }
        assert_eq!((0..5).filter(|number| recent.get(number).is_some()).collect::<Vec<_>>(), [2, 3, 4]);
        recent.remove(&2);
        recent.note(2, ());
        recent.note(5, ());
        assert!(recent.get(&2).is_some(), "the newest but one");
        for number in 0..1000 {
            recent.note(number, ());
            recent.remove(&number);
        }
        assert!(recent.order.len() <= 3 && recent.entries.is_empty());
    }
}
