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
    map::{self, Conflict, Conflicts, Resolution, Resolved, TreeRoot},
    name::{NAME_BYTES_MAX, Name},
};

/// Directories that may lie in each other where both sides changed something: as many as a path can name
/// (`PATH_MAX` is 4,096 bytes, two for each).
pub const DIRECTORY_DEPTH_MAX: usize = 2048;
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
    if let Some(merged) = map::unopposed(base, ours, theirs) {
        return Ok(merged.clone());
    }
    // Directories lie as deep in each other as a stranger likes, so this is a stack of our own.
    let mut merge = Merge { source, kept_both, path: Vec::new() };
    let mut open = vec![Directory::new(source, [base, ours, theirs])];
    // The directory that was merged last, for the clash that waits for it.
    let mut below: Option<TreeRoot> = None;
    while let Some(directory) = open.last_mut() {
        if let Some(clash) = directory.clash.take() {
            merge.settle(directory, clash, below.take())?;
            continue;
        }
        let Some(conflict) = directory.conflicts.next().transpose()? else {
            let Some(Directory { roots, resolved, .. }) = open.pop() else { break };
            below = Some(resolved.write(source, sink, roots.each_ref())?);
            merge.path.pop();
            continue;
        };
        let clash = Clash::decode(conflict, labels)?;
        let mut inner = None;
        if let Some([base, ours, theirs]) = clash.directories() {
            below = map::unopposed(base, ours, theirs).cloned();
            if below.is_none() {
                merge.path.push(clash.name.clone());
                inner = Some(Directory::new(source, [base, ours, theirs]));
            }
        }
        directory.clash = Some(clash);
        open.extend(inner);
        if open.len() > DIRECTORY_DEPTH_MAX {
            return Err(TreeError::TooDeep { what: "directories", depth_max: DIRECTORY_DEPTH_MAX });
        }
    }
    Ok(below.unwrap_or_default())
}

/// An entry of one side, as it stands there.
struct Version<'l> {
    entry: Entry,
    bytes: Bytes,
    label: &'l ConflictLabel,
}

impl<'l> Version<'l> {
    fn decode<E>(bytes: Bytes, label: &'l ConflictLabel) -> Result<Self, TreeError<E>> {
        Ok(Self { entry: Entry::decode(bytes.clone())?, bytes, label })
    }

    /// Which of two versions is preferred: the greater. Total, and the same for whoever compares them.
    fn rank(&self, other: &Self) -> Ordering {
        let rank = |version: &Self| (version.entry.directory().is_some(), version.entry.modified, version.entry.size());
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.label.cmp(other.label))
            .then_with(|| self.bytes.cmp(&other.bytes))
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

/// An entry that both sides changed.
struct Clash<'l> {
    key: Bytes,
    name: Name,
    base: Option<Entry>,
    ours: Option<Version<'l>>,
    theirs: Option<Version<'l>>,
}

impl<'l> Clash<'l> {
    fn decode<E>(conflict: Conflict, labels: &'l Labels) -> Result<Self, TreeError<E>> {
        Ok(Self {
            name: decode_name(conflict.key.clone())?,
            key: conflict.key,
            base: conflict.base.map(Entry::decode).transpose()?,
            ours: conflict.ours.map(|bytes| Version::decode(bytes, &labels.ours)).transpose()?,
            theirs: conflict.theirs.map(|bytes| Version::decode(bytes, &labels.theirs)).transpose()?,
        })
    }

    /// The directories to merge first: base, ours and theirs. A directory that one side deleted, or put something
    /// else in the place of, is an empty one there: what the other side changed below it is what stays.
    fn directories(&self) -> Option<[&TreeRoot; 3]> {
        let base = self.base.as_ref().and_then(Entry::directory);
        let [ours, theirs] =
            [&self.ours, &self.theirs].map(|side| side.as_ref().and_then(|side| side.entry.directory()));
        match (base, ours, theirs) {
            (_, Some(ours), Some(theirs)) => Some([base.unwrap_or(&TreeRoot::EMPTY), ours, theirs]),
            (Some(base), Some(ours), None) => Some([base, ours, &TreeRoot::EMPTY]),
            (Some(base), None, Some(theirs)) => Some([base, &TreeRoot::EMPTY, theirs]),
            _ => None,
        }
    }
}

/// A directory that is being merged.
struct Directory<'s, 'l, S: ChunkSource> {
    roots: [TreeRoot; 3],
    conflicts: Conflicts<'s, S>,
    resolved: Resolved,
    /// Names given to conflict copies.
    given: BTreeSet<Name>,
    /// The clash that waits for the directory below it.
    clash: Option<Clash<'l>>,
}

impl<'s, S: ChunkSource> Directory<'s, '_, S> {
    fn new(source: &'s S, [base, ours, theirs]: [&TreeRoot; 3]) -> Self {
        Self {
            roots: [base.clone(), ours.clone(), theirs.clone()],
            conflicts: Conflicts::new(source, base, ours, theirs),
            resolved: Resolved::default(),
            given: BTreeSet::new(),
            clash: None,
        }
    }
}

struct Merge<'a, S> {
    source: &'a S,
    kept_both: &'a mut dyn FnMut(KeptBoth<'_>),
    path: Vec<Name>,
}

impl<S: ChunkSource> Merge<'_, S> {
    /// Resolves a clash; `below` is what became of its [`Clash::directories`].
    fn settle(
        &mut self,
        directory: &mut Directory<'_, '_, S>,
        clash: Clash<'_>,
        below: Option<TreeRoot>,
    ) -> Result<(), TreeError<S::Error>> {
        let Clash { key, name, base, ours, theirs } = clash;
        let ours_bytes = ours.as_ref().map(|ours| ours.bytes.clone());
        let resolution = match (ours, theirs) {
            (Some(ours), Some(theirs)) => {
                let (preferred, other) = if ours.rank(&theirs).is_ge() { (ours, theirs) } else { (theirs, ours) };
                self.both(directory, &name, base.as_ref(), preferred, other, below)?
            }
            (Some(changed), None) | (None, Some(changed)) => {
                let kept = self.if_changed(base.as_ref(), changed.entry, below)?;
                kept.map_or(Ok(Resolution::default()), |entry| alone(&entry))?
            }
            (None, None) => Resolution::default(),
        };
        directory.resolved.add(key, ours_bytes.as_ref(), resolution);
        Ok(())
    }

    /// What stays of an entry which the other side deleted, or put something else in the place of: nothing, if it is
    /// as it was; of a directory, what was changed `below` it.
    fn if_changed(
        &self,
        base: Option<&Entry>,
        entry: Entry,
        below: Option<TreeRoot>,
    ) -> Result<Option<Entry>, TreeError<S::Error>> {
        let Some(base) = base else { return Ok(Some(entry)) };
        if let Some(left) = below {
            let stays = !left.is_empty() || !same_attributes(base, &entry);
            return Ok(stays.then(|| Entry { kind: EntryKind::Directory(left), ..entry }));
        }
        let unchanged = same_attributes(base, &entry)
            && base.modified == entry.modified
            && self.same_content(&base.kind, &entry.kind)?;
        Ok((!unchanged).then_some(entry))
    }

    /// Both sides have the entry; a directory is preferred to anything else.
    fn both(
        &mut self,
        directory: &mut Directory<'_, '_, S>,
        name: &Name,
        base: Option<&Entry>,
        preferred: Version<'_>,
        other: Version<'_>,
        below: Option<TreeRoot>,
    ) -> Result<Resolution, TreeError<S::Error>> {
        if other.entry.directory().is_some() {
            let base = base.filter(|base| base.directory().is_some());
            let kind = EntryKind::Directory(below.unwrap_or_default());
            return Ok(alone(&merge_attributes(base, &preferred.entry, &other.entry, kind))?);
        }
        if preferred.entry.directory().is_some() {
            let kept = self.if_changed(base, other.entry.clone(), None)?;
            return match (self.if_changed(base, preferred.entry, below)?, kept) {
                (Some(first), Some(_)) => self.keep_both(directory, name, first.encode()?.into(), &other),
                (Some(only), None) | (None, Some(only)) => Ok(alone(&only)?),
                (None, None) => Ok(Resolution::default()),
            };
        }
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
            Some(kind) => Ok(alone(&merge_attributes(base, &preferred.entry, &other.entry, kind.clone()))?),
            None => self.keep_both(directory, name, preferred.bytes, &other),
        }
    }

    /// `first` under its name, `second` beside it.
    fn keep_both(
        &mut self,
        directory: &mut Directory<'_, '_, S>,
        name: &Name,
        first: Bytes,
        second: &Version<'_>,
    ) -> Result<Resolution, TreeError<S::Error>> {
        let [_, ours, theirs] = &directory.roots;
        // Ends: each number is taken by an entry of one of two directories, or by an earlier conflict.
        let mut number = 1;
        let copy = loop {
            let copy = conflict_name(name, second.label, number)?;
            let taken = directory.given.contains(&copy)
                || map::get(self.source, ours, copy.as_bytes())?.is_some()
                || map::get(self.source, theirs, copy.as_bytes())?.is_some();
            if !taken {
                break copy;
            }
            number += 1;
        };
        (self.kept_both)(KeptBoth { directory: &self.path, name, copy: &copy });
        let beside = (Bytes::copy_from_slice(copy.as_bytes()), second.bytes.clone());
        directory.given.insert(copy);
        Ok(Resolution { value: Some(first), beside: Some(beside) })
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

/// One entry and nothing beside it.
fn alone(entry: &Entry) -> Result<Resolution, FormatError> {
    Ok(Resolution { value: Some(entry.encode()?.into()), beside: None })
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
