//! Three-way merge of directories, by path.
//!
//! What one side changed is taken; changed beats deleted; what both changed alike is no conflict, even if the two
//! devices stored it in different places. Directories on both sides are merged into each other, attributes field by
//! field. Where both changed a file's content, both are kept: one under its name, the other beside it under a name
//! that says so, `report (conflict, 2026-11-23, device 1a2b).txt`.
//!
//! **Which is which depends on the two entries alone**, not on who merges or which side is called ours: the one
//! changed later keeps the name, a directory always does. So two devices that merge the same two heads make the same
//! tree, and agree without talking. Nothing here asks a person, and nothing that either side wrote is lost.

use std::{cmp::Ordering, collections::BTreeSet};

use bytes::Bytes;
use commonhold_protocol::FormatError;

use super::{
    ChunkSink, ChunkSource, TreeError,
    directory::decode_name,
    entry::{Entry, EntryKind, FileContent, Xattrs},
    file,
    map::{self, Conflict, Resolution, TreeRoot},
    name::{NAME_BYTES_MAX, Name},
};

/// Directories that may lie in each other where both sides changed something.
pub const DIRECTORY_DEPTH_MAX: usize = 512;
/// The most bytes of a [`ConflictLabel`].
pub const LABEL_BYTES_MAX: usize = 64;
/// A longer ending is not one that tells a program what the file is.
const EXTENSION_BYTES_MAX: usize = 16;

/// What a conflict copy's name says of where it comes from: `2026-11-23, device 1a2b`.
///
/// It has to follow from the head that the side comes from, never from the device or the day of the merge: whoever
/// merges the same two heads must give them the same labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConflictLabel(String);

impl ConflictLabel {
    /// A label of 1 to [`LABEL_BYTES_MAX`] bytes without slashes and control characters.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let sized = (1..=LABEL_BYTES_MAX).contains(&text.len());
        (sized && !text.contains(|c: char| c == '/' || c.is_control())).then_some(Self(text))
    }
}

/// The label of each side.
#[derive(Debug, Clone)]
pub struct Labels {
    /// Of the side that is called ours.
    pub ours: ConflictLabel,
    /// Of the other.
    pub theirs: ConflictLabel,
}

/// Two versions of one entry were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBoth<'a> {
    /// The directories on the way.
    pub directory: &'a [Name],
    /// The name that both had.
    pub name: &'a Name,
    /// The name that one of them has now.
    pub copy: &'a Name,
}

/// Merges two versions of a directory that come from `base` (empty, if nothing is known of one). `kept_both` is told
/// of every conflict.
pub fn merge<S, K>(
    source: &S,
    sink: &mut K,
    base: &TreeRoot,
    ours: &TreeRoot,
    theirs: &TreeRoot,
    labels: &Labels,
    kept_both: &mut dyn FnMut(KeptBoth<'_>),
) -> Result<TreeRoot, TreeError<S::Error>>
where
    S: ChunkSource,
    K: ChunkSink<Error = S::Error>,
{
    Merge { source, labels, kept_both, path: Vec::new() }.directory(sink, base, ours, theirs)
}

/// An entry of one side, as it stands there.
struct Version<'l> {
    /// On the heap, as directories that lie deep in each other are merged one call in the other.
    entry: Box<Entry>,
    bytes: Bytes,
    label: &'l ConflictLabel,
}

impl<'l> Version<'l> {
    fn decode<E>(bytes: Bytes, label: &'l ConflictLabel) -> Result<Self, TreeError<E>> {
        Ok(Self { entry: Box::new(Entry::decode(bytes.clone())?), bytes, label })
    }

    /// Which of two versions is preferred: the greater. Total, and the same for whoever compares them.
    fn rank(&self, other: &Self) -> Ordering {
        let rank = |version: &Self| (version.entry.directory().is_some(), version.entry.modified, version.entry.size());
        rank(self).cmp(&rank(other)).then_with(|| self.label.cmp(other.label)).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

/// The value that one side changed, or `preferred` if both did.
fn three_way<T: PartialEq>(base: Option<T>, preferred: T, other: T) -> T {
    if base.is_some_and(|base| base == preferred) { other } else { preferred }
}

/// Attribute by attribute, like entries by name.
fn merge_xattrs(base: Option<&Xattrs>, preferred: &Xattrs, other: &Xattrs) -> Xattrs {
    let names: BTreeSet<&Bytes> = preferred.iter().chain(other.iter()).map(|(name, _)| name).collect();
    let mut merged = Xattrs::default();
    for name in names {
        let value = three_way(base.map(|base| base.get(name)), preferred.get(name), other.get(name));
        if let Some(value) = value
            && merged.insert(name.clone(), value.clone()).is_err()
        {
            // Together they are more than an entry may have.
            return preferred.clone();
        }
    }
    merged
}

/// All but the kind of an entry that both sides have.
fn merge_attributes(base: Option<&Entry>, preferred: &Entry, other: &Entry, kind: EntryKind) -> Entry {
    Entry {
        kind,
        mode: three_way(base.map(|base| base.mode), preferred.mode, other.mode),
        uid: three_way(base.map(|base| base.uid), preferred.uid, other.uid),
        gid: three_way(base.map(|base| base.gid), preferred.gid, other.gid),
        modified: match base {
            Some(base) if base.modified == preferred.modified => other.modified,
            Some(base) if base.modified == other.modified => preferred.modified,
            _ => preferred.modified.max(other.modified),
        },
        link_group: three_way(base.map(|base| base.link_group), preferred.link_group, other.link_group),
        xattrs: merge_xattrs(base.map(|base| &base.xattrs), &preferred.xattrs, &other.xattrs),
    }
}

/// True if mode, owner and attributes are the same. When a directory was modified says nothing: its entries do.
fn same_attributes(a: &Entry, b: &Entry) -> bool {
    (a.mode, a.uid, a.gid, &a.xattrs) == (b.mode, b.uid, b.gid, &b.xattrs)
}

struct Merge<'a, S> {
    source: &'a S,
    labels: &'a Labels,
    kept_both: &'a mut dyn FnMut(KeptBoth<'_>),
    path: Vec<Name>,
}

/// Names given to conflict copies in one directory, and the two sides of it.
struct Names<'a> {
    ours: &'a TreeRoot,
    theirs: &'a TreeRoot,
    given: BTreeSet<Name>,
}

impl<'a, S: ChunkSource> Merge<'a, S> {
    fn directory<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        base: &TreeRoot,
        ours: &TreeRoot,
        theirs: &TreeRoot,
    ) -> Result<TreeRoot, TreeError<S::Error>> {
        if self.path.len() > DIRECTORY_DEPTH_MAX {
            return Err(TreeError::TooDeep { what: "directories", depth_max: DIRECTORY_DEPTH_MAX });
        }
        let mut names = Names { ours, theirs, given: BTreeSet::new() };
        map::merge(self.source, sink, base, ours, theirs, |sink, conflict| self.resolve(sink, &mut names, conflict))
    }

    fn resolve<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        names: &mut Names<'_>,
        conflict: Conflict,
    ) -> Result<Resolution, TreeError<S::Error>> {
        let name = decode_name(conflict.key)?;
        let base = conflict.base.map(Entry::decode).transpose()?.map(Box::new);
        let labels = self.labels;
        let ours = conflict.ours.map(|bytes| Version::decode(bytes, &labels.ours)).transpose()?;
        let theirs = conflict.theirs.map(|bytes| Version::decode(bytes, &labels.theirs)).transpose()?;
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => self.both(sink, names, name, base.as_deref(), ours, theirs),
            (Some(changed), None) | (None, Some(changed)) => {
                let kept = self.changed_or_deleted(sink, name, base.as_deref(), *changed.entry)?;
                Ok(Resolution { value: kept.map(|entry| entry.encode()).transpose()?.map(Bytes::from), beside: None })
            }
            (None, None) => Ok(Resolution::default()),
        }
    }

    /// One side deleted the entry, or put something else in its place; what the other made of it stays if that is a
    /// change. Of a directory, only what was changed below it stays.
    fn changed_or_deleted<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        name: Name,
        base: Option<&Entry>,
        entry: Entry,
    ) -> Result<Option<Entry>, TreeError<S::Error>> {
        let Some(base) = base else { return Ok(Some(entry)) };
        if let (EntryKind::Directory(before), EntryKind::Directory(after)) = (&base.kind, &entry.kind) {
            self.path.push(name);
            let left = self.directory(sink, before, &TreeRoot::EMPTY, after)?;
            self.path.pop();
            let stays = !left.is_empty() || !same_attributes(base, &entry);
            return Ok(stays.then(|| Entry { kind: EntryKind::Directory(left), ..entry }));
        }
        let unchanged = same_attributes(base, &entry)
            && base.modified == entry.modified
            && self.same_content(&base.kind, &entry.kind)?;
        Ok((!unchanged).then_some(entry))
    }

    /// Both sides have the entry.
    fn both<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        names: &mut Names<'_>,
        name: Name,
        base: Option<&Entry>,
        ours: Version<'_>,
        theirs: Version<'_>,
    ) -> Result<Resolution, TreeError<S::Error>> {
        let directories = ours.entry.directory().zip(theirs.entry.directory());
        let below = match directories {
            Some((ours, theirs)) => {
                let before = base.and_then(Entry::directory).unwrap_or(&TreeRoot::EMPTY);
                self.path.push(name.clone());
                let merged = self.directory(sink, before, ours, theirs)?;
                self.path.pop();
                Some(EntryKind::Directory(merged))
            }
            None => None,
        };
        let (preferred, other) = if ours.rank(&theirs).is_ge() { (ours, theirs) } else { (theirs, ours) };
        let alone = |entry: &Entry| Ok(Resolution { value: Some(entry.encode()?.into()), beside: None });
        if let Some(kind) = below {
            let base = base.filter(|base| base.directory().is_some());
            return alone(&merge_attributes(base, &preferred.entry, &other.entry, kind));
        }
        if preferred.entry.directory().is_some() {
            if self.changed_or_deleted(sink, name.clone(), base, (*other.entry).clone())?.is_none() {
                return alone(&preferred.entry);
            }
            return match self.changed_or_deleted(sink, name.clone(), base, *preferred.entry)? {
                None => alone(&other.entry),
                Some(directory) => self.keep_both(names, &name, &directory.encode()?.into(), &other),
            };
        }
        // A directory always has the name, so what is kept beside another is never one.
        let (first, second) = (&preferred.entry.kind, &other.entry.kind);
        let kind = if self.same_content(first, second)? {
            Some(first)
        } else {
            match base {
                Some(base) if self.same_content(&base.kind, first)? => Some(second),
                Some(base) if self.same_content(&base.kind, second)? => Some(first),
                _ => None,
            }
        };
        match kind {
            Some(kind) => alone(&merge_attributes(base, &preferred.entry, &other.entry, kind.clone())),
            None => self.keep_both(names, &name, &preferred.bytes, &other),
        }
    }

    /// `first` under its name, `second` beside it.
    fn keep_both(
        &mut self,
        names: &mut Names<'_>,
        name: &Name,
        first: &Bytes,
        second: &Version<'_>,
    ) -> Result<Resolution, TreeError<S::Error>> {
        // Ends: each number is taken by an entry of one of two directories, or by an earlier conflict.
        let mut number = 1;
        let copy = loop {
            let copy = conflict_name(name, second.label, number)?;
            let taken = names.given.contains(&copy)
                || map::get(self.source, names.ours, copy.as_bytes())?.is_some()
                || map::get(self.source, names.theirs, copy.as_bytes())?.is_some();
            if !taken {
                break copy;
            }
            number += 1;
        };
        (self.kept_both)(KeptBoth { directory: &self.path, name, copy: &copy });
        let beside = (Bytes::copy_from_slice(copy.as_bytes()), second.bytes.clone());
        names.given.insert(copy);
        Ok(Resolution { value: Some(first.clone()), beside: Some(beside) })
    }

    /// True if two entries that are no directories are the same thing with the same bytes, wherever those lie.
    fn same_content(&self, a: &EntryKind, b: &EntryKind) -> Result<bool, TreeError<S::Error>> {
        match (a, b) {
            (EntryKind::File(FileContent::Chunks(a)), EntryKind::File(FileContent::Chunks(b))) => {
                file::same_content(self.source, a, b)
            }
            _ => Ok(a == b),
        }
    }
}

/// `report.txt` → `report (conflict, LABEL).txt`, or `report (conflict, LABEL, 2).txt`; a name that gets too long
/// loses its end, between two characters.
fn conflict_name(name: &Name, label: &ConflictLabel, number: u32) -> Result<Name, FormatError> {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let dot = dot.filter(|at| (2..=EXTENSION_BYTES_MAX).contains(&(bytes.len() - at)));
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let mark = match number {
        1 => format!(" (conflict, {})", label.0),
        _ => format!(" (conflict, {}, {number})", label.0),
    };
    let mut keep = stem.len().min(NAME_BYTES_MAX - mark.len() - extension.len());
    while keep > 0 && keep < stem.len() && stem[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    decode_name([&stem[..keep], mark.as_bytes(), extension].concat().into())
}
