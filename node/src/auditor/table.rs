//! Numbers for what has a long name: ids are 32 bytes, and each of a segment's claims names one.

use std::collections::BTreeMap;

/// Values by number, and numbers by key. A number is used again once its value was removed.
pub(super) struct Table<K, V> {
    numbers: BTreeMap<K, u32>,
    slots: Vec<Option<(K, V)>>,
    free: Vec<u32>,
}

impl<K: Copy + Ord, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { numbers: BTreeMap::new(), slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn number(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// Takes in a value under a key that has none yet.
    pub(super) fn insert(&mut self, key: K, value: V) -> u32 {
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        let place = number as usize;
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[place] = Some((key, value));
        self.numbers.insert(key, number);
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<(K, V)> {
        let removed = self.slots.get_mut(number as usize)?.take()?;
        self.numbers.remove(&removed.0);
        self.free.push(number);
        Some(removed)
    }

    pub(super) fn key(&self, number: u32) -> Option<K> {
        self.slots.get(number as usize)?.as_ref().map(|(key, _)| *key)
    }

    pub(super) fn get(&self, number: u32) -> Option<&V> {
        self.slots.get(number as usize)?.as_ref().map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut V> {
        self.slots.get_mut(number as usize)?.as_mut().map(|(_, value)| value)
    }

    /// By number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        let all = self.slots.iter().zip(0..);
        all.filter_map(|(slot, number)| slot.as_ref().map(|(key, value)| (number, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_value_until_it_is_removed() {
        let mut table = Table::new();
        let [a, b] = ["a", "b"].map(|key| table.insert(key, key.len()));
        assert_eq!((table.number(&"b"), table.key(b), table.get(b)), (Some(b), Some("b"), Some(&1)));
        assert_eq!(table.remove(a), Some(("a", 1)));
        assert_eq!(table.remove(a), None);
        assert_eq!((table.number(&"a"), table.get(a), table.key(a)), (None, None, None));
        let c = table.insert("c", 7);
        assert_eq!((c, table.get(c), table.get(b)), (a, Some(&7), Some(&1)));
        assert_eq!(table.iter().map(|(number, key, _)| (number, *key)).collect::<Vec<_>>(), [(c, "c"), (b, "b")]);
    }
}
