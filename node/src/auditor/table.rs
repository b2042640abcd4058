//! Numbers for what has a long name: ids are 32 bytes, and each of a segment's claims names one.

/// Values by number, and numbers by key. A number is used again once its value was removed.
pub(super) struct Table<K, V> {
    slots: Vec<Option<(K, V)>>,
    /// The numbers in use, by their keys: a quarter of what a map from key to number would take, and entries that come
    /// in order are appended.
    by_key: Vec<u32>,
    free: Vec<u32>,
}

impl<K: Copy + Ord, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), by_key: Vec::new(), free: Vec::new() }
    }

    pub(super) fn number(&self, key: &K) -> Option<u32> {
        self.place(key).ok().map(|place| self.by_key[place])
    }

    /// Above all numbers in use.
    pub(super) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Takes in a value under a key that has none yet.
    pub(super) fn insert(&mut self, key: K, value: V) -> u32 {
        let (Ok(place) | Err(place)) = self.place(&key);
        let number = self.free.pop().unwrap_or(self.end());
        if number == self.end() {
            self.slots.push(None);
        }
        self.slots[number as usize] = Some((key, value));
        self.by_key.insert(place, number);
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<(K, V)> {
        let place = self.place(&self.key(number)?).ok()?;
        self.by_key.remove(place);
        self.free.push(number);
        self.slots.get_mut(number as usize)?.take()
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

    /// By number.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().flatten().map(|(_, value)| value)
    }

    /// What the table itself takes, without what its values point to.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Option<(K, V)>>() + (self.by_key.len() + self.free.len()) * size_of::<u32>()
    }

    /// Where the key's number stands in `by_key`, or would.
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.by_key.binary_search_by(|number| self.key(*number).as_ref().cmp(&Some(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_value_until_it_is_removed() {
        let mut table = Table::new();
        let [b, a] = ["b", "a"].map(|key| table.insert(key, key.len()));
        assert_eq!((table.number(&"b"), table.key(b), table.get(b)), (Some(b), Some("b"), Some(&1)));
        assert_eq!((table.number(&"a"), table.number(&"c")), (Some(a), None));
        assert_eq!(table.remove(a), Some(("a", 1)));
        assert_eq!(table.remove(a), None);
        assert_eq!((table.number(&"a"), table.get(a), table.key(a)), (None, None, None));
        let c = table.insert("c", 7);
        assert_eq!((c, table.get(c), table.get(b)), (a, Some(&7), Some(&1)));
        assert_eq!(table.iter().map(|(number, key, _)| (number, *key)).collect::<Vec<_>>(), [(b, "b"), (c, "c")]);
    }
}
