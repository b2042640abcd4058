//! Which vaults have shards here, and how much each has placed. Short numbers stand for vaults in the index.

use std::collections::BTreeMap;

use commonhold_protocol::VaultId;

use super::index::{Index, VaultNumber};

struct Slot {
    vault: VaultId,
    /// Units of its records, those being written included.
    units: u64,
}

/// The vaults, by number and by id. A vault without a record has no number.
#[derive(Default)]
pub(crate) struct Vaults {
    slots: Vec<Option<Slot>>,
    numbers: BTreeMap<VaultId, VaultNumber>,
    free: Vec<VaultNumber>,
}

impl Vaults {
    /// The vaults that the index knows, with nothing counted yet.
    pub(crate) fn load(index: &Index) -> Result<Self, sled::Error> {
        let mut vaults = Self::default();
        for (number, vault) in index.vaults()? {
            let at = number.0 as usize;
            if vaults.slots.len() <= at {
                vaults.slots.resize_with(at + 1, || None);
            }
            vaults.slots[at] = Some(Slot { vault, units: 0 });
            vaults.numbers.insert(vault, number);
        }
        let unused = vaults.slots.iter().enumerate().filter(|(_, slot)| slot.is_none());
        vaults.free = unused.map(|(at, _)| VaultNumber(at as u32)).collect();
        Ok(vaults)
    }

    /// Counts nothing any more.
    pub(crate) fn reset(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.units = 0);
    }

    /// Forgets those with nothing counted.
    pub(crate) fn forget_empty(&mut self, index: &Index) -> Result<(), sled::Error> {
        let empty = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.units == 0);
        for at in 0..self.slots.len() {
            if empty(&self.slots[at]) {
                self.forget(VaultNumber(at as u32), index)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, number: VaultNumber, index: &Index) -> Result<(), sled::Error> {
        if let Some(slot) = self.slots[number.0 as usize].take() {
            self.numbers.remove(&slot.vault);
            self.free.push(number);
            index.set_vault(number, None)?;
        }
        Ok(())
    }

    pub(crate) fn id(&self, number: VaultNumber) -> Option<VaultId> {
        Some(self.slots.get(number.0 as usize)?.as_ref()?.vault)
    }

    pub(crate) fn number(&self, vault: &VaultId) -> Option<VaultNumber> {
        self.numbers.get(vault).copied()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = VaultId> + '_ {
        self.numbers.keys().copied()
    }

    /// Units that a vault has placed.
    pub(crate) fn units(&self, vault: &VaultId) -> u64 {
        let slot = self.numbers.get(vault).and_then(|number| self.slots[number.0 as usize].as_ref());
        slot.map_or(0, |slot| slot.units)
    }

    /// Counts units of a vault, which gets a number if it has none. None: there are no numbers left.
    pub(crate) fn add(
        &mut self,
        vault: &VaultId,
        units: u64,
        index: &Index,
    ) -> Result<Option<VaultNumber>, sled::Error> {
        let number = match self.numbers.get(vault) {
            Some(&number) => number,
            None => {
                let number = self.free.pop().unwrap_or(VaultNumber(self.slots.len() as u32));
                if number.0 > VaultNumber::MAX {
                    return Ok(None);
                }
                index.set_vault(number, Some(vault))?;
                if self.slots.len() <= number.0 as usize {
                    self.slots.push(None);
                }
                self.slots[number.0 as usize] = Some(Slot { vault: *vault, units: 0 });
                self.numbers.insert(*vault, number);
                number
            }
        };
        self.count(number, units);
        Ok(Some(number))
    }

    /// Counts units of a vault that has a number.
    pub(crate) fn count(&mut self, number: VaultNumber, units: u64) {
        if let Some(Some(slot)) = self.slots.get_mut(number.0 as usize) {
            slot.units += units;
        }
    }

    /// Takes units off a vault; with the last it is forgotten.
    pub(crate) fn subtract(&mut self, number: VaultNumber, units: u64, index: &Index) -> Result<(), sled::Error> {
        let Some(Some(slot)) = self.slots.get_mut(number.0 as usize) else { return Ok(()) };
        slot.units = slot.units.saturating_sub(units);
        if slot.units == 0 { self.forget(number, index) } else { Ok(()) }
    }
}
