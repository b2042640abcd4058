//! Segments that the owner has dropped, in the vault's table: a tombstone for each, so that a device which does not know
//! of it yet does not bring the segment's entries back when it merges its table with ours.
//!
//! A segment with a tombstone in only one of two tables is *disputed*: the other device may have found its chunks stored
//! already, and refer to them. What is referred to is wanted again, with its entries; the tombstone stays for the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use commonhold_protocol::SegmentId;
use commonhold_storage_engine::tree::{
    ChunkSink, ChunkSource,
    map::{self, TreeRoot},
};

use crate::{error::Error, table};

/// How long a tombstone is kept: longer than any device is likely to go on from a state of before, since a lease ends
/// after a year and its grace after a month more.
const KEPT_MS: u64 = (365 + 31) * 24 * 3600 * 1000;

/// Dropped segments, each with the counter of its drop: the time of it, in milliseconds since 1970.
pub(crate) type Tombstones = BTreeMap<SegmentId, u64>;

/// The tombstones of a table.
pub(crate) fn read<S: ChunkSource<Error = Error>>(source: &S, table: &TreeRoot) -> Result<Tombstones, Error> {
    let mut found = Tombstones::new();
    for entry in map::range(source, table, Bound::Included(table::TOMBSTONES_FROM)) {
        let (key, value) = entry?;
        if !table::is_tombstone(&key) {
            break;
        }
        let (id, counter) = table::tombstone(&key, &value)?;
        found.insert(id, counter);
    }
    Ok(found)
}

/// The segments with a tombstone in only one of two tables.
pub(crate) fn disputed(ours: &Tombstones, theirs: &Tombstones) -> BTreeSet<SegmentId> {
    let only = |a: &Tombstones, b: &Tombstones| a.keys().filter(|id| !b.contains_key(*id)).copied().collect::<Vec<_>>();
    only(ours, theirs).into_iter().chain(only(theirs, ours)).collect()
}

/// The table without the entries of `dead`, and with a tombstone for each. Tombstones of long ago are forgotten.
pub(crate) fn bury<S, K>(
    source: &S,
    sink: &mut K,
    table: &TreeRoot,
    dead: &BTreeSet<SegmentId>,
    counter: u64,
) -> Result<TreeRoot, Error>
where
    S: ChunkSource<Error = Error>,
    K: ChunkSink<Error = Error>,
{
    let old = read(source, table)?.into_iter().filter(|(_, kept)| counter.saturating_sub(*kept) > KEPT_MS);
    let mut tombstones: BTreeMap<SegmentId, Option<[u8; 8]>> = old.map(|(id, _)| (id, None)).collect();
    tombstones.extend(dead.iter().map(|id| (*id, Some(table::tombstone_value(counter)))));
    let mut editor = map::Editor::new(source, table);
    // Keys ascend: chunk lists (`c`), tombstones (`d`), segments (`s`).
    for id in dead {
        let from = table::parts_from(id);
        for entry in map::range(source, table, Bound::Included(&from)) {
            let (key, _) = entry?;
            if !key.starts_with(&from) {
                break;
            }
            editor.edit(sink, &key, None)?;
        }
    }
    for (id, value) in &tombstones {
        editor.edit(sink, &table::tombstone_key(id), value.as_ref().map(<[u8; 8]>::as_slice))?;
    }
    for id in dead {
        editor.edit(sink, &table::segment_key(id), None)?;
    }
    Ok(editor.finish(sink)?)
}

/// What either table has, but for disputed segments: `wanted` are those of them that are referred to, and have their
/// entries and no tombstone; the others have their tombstone and no entries. An entry that both tables have is the same
/// but for holders, which are hints, and for a tombstone's counter, of which the greater counts.
pub(crate) fn union<S, K>(
    source: &S,
    sink: &mut K,
    [ours, theirs]: [&TreeRoot; 2],
    disputed: &BTreeSet<SegmentId>,
    wanted: &BTreeSet<SegmentId>,
) -> Result<TreeRoot, Error>
where
    S: ChunkSource<Error = Error>,
    K: ChunkSink<Error = Error>,
{
    let mut editor = map::Editor::new(source, ours);
    for change in map::diff(source, ours, theirs) {
        let map::Change { key, before, after } = change?;
        let of_either = after.clone().or_else(|| before.clone()).unwrap_or_default();
        let (tombstone_of, described) = match table::is_tombstone(&key) {
            true => (Some(table::tombstone(&key, &of_either)?), None),
            false => (None, table::described_by(&key)?),
        };
        let stays = match (tombstone_of, described) {
            (Some((id, _)), _) => !wanted.contains(&id),
            (None, Some(id)) => !disputed.contains(&id) || wanted.contains(&id),
            (None, None) => true,
        };
        match (before, after) {
            (None, Some(value)) if stays => editor.edit(sink, &key, Some(&value))?,
            // Big-endian, so the greater value is the greater counter.
            (Some(ours), Some(theirs)) if tombstone_of.is_some() && theirs > ours => {
                editor.edit(sink, &key, Some(&theirs))?;
            }
            (Some(_), None) if !stays => editor.edit(sink, &key, None)?,
            _ => {}
        }
    }
    Ok(editor.finish(sink)?)
}

#[cfg(test)]
mod tests;
