//! Three-way merge of maps: what only one side changed is taken, and the caller resolves what both did.

use std::{cmp::Ordering, collections::BTreeMap, iter::Peekable};

use bytes::Bytes;

use super::{Change, Diff, Editor, TreeRoot, diff};
use crate::tree::{ChunkSink, ChunkSource, TreeError};

/// A key that both sides changed, and not to the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: Bytes,
    /// Its value in the base.
    pub base: Option<Bytes>,
    /// Its value in ours.
    pub ours: Option<Bytes>,
    /// Its value in theirs.
    pub theirs: Option<Bytes>,
}

/// What becomes of a [`Conflict`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The merged value; none takes the key away.
    pub value: Option<Bytes>,
    /// One more entry, under a key that neither side has.
    pub beside: Option<(Bytes, Bytes)>,
}

/// A key that at least one side changed.
struct Changed {
    ours: Option<Change>,
    theirs: Option<Change>,
}

/// The changes of both sides, side by side in order of keys.
struct Changes<'s, S: ChunkSource> {
    ours: Peekable<Diff<'s, S>>,
    theirs: Peekable<Diff<'s, S>>,
}

impl<'s, S: ChunkSource> Changes<'s, S> {
    fn new(source: &'s S, base: &TreeRoot, ours: &TreeRoot, theirs: &TreeRoot) -> Self {
        Self { ours: diff(source, base, ours).peekable(), theirs: diff(source, base, theirs).peekable() }
    }
}

impl<S: ChunkSource> Iterator for Changes<'_, S> {
    type Item = Result<Changed, TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.ours.peek(), self.theirs.peek()) {
            (Some(Ok(ours)), Some(Ok(theirs))) => ours.key.cmp(&theirs.key),
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let ours = if order.is_le() { self.ours.next().transpose() } else { Ok(None) };
        let theirs = if order.is_ge() { self.theirs.next().transpose() } else { Ok(None) };
        Some(ours.and_then(|ours| Ok(Changed { ours, theirs: theirs? })))
    }
}

/// The merged map where one side has not changed, or both are the same.
pub(in crate::tree) fn unopposed<'r>(
    base: &TreeRoot,
    ours: &'r TreeRoot,
    theirs: &'r TreeRoot,
) -> Option<&'r TreeRoot> {
    if ours == theirs || theirs == base { Some(ours) } else { (ours == base).then_some(theirs) }
}

/// What both sides changed, and not alike, in order of keys.
pub(in crate::tree) struct Conflicts<'s, S: ChunkSource>(Changes<'s, S>);

impl<'s, S: ChunkSource> Conflicts<'s, S> {
    pub(in crate::tree) fn new(source: &'s S, base: &TreeRoot, ours: &TreeRoot, theirs: &TreeRoot) -> Self {
        Self(Changes::new(source, base, ours, theirs))
    }
}

impl<S: ChunkSource> Iterator for Conflicts<'_, S> {
    type Item = Result<Conflict, TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Err(error) => return Some(Err(error)),
                Ok(Changed { ours: Some(ours), theirs: Some(theirs) }) if ours.after != theirs.after => {
                    let Change { key, before: base, after: ours } = ours;
                    return Some(Ok(Conflict { key, base, ours, theirs: theirs.after }));
                }
                Ok(_) => {}
            }
        }
    }
}

/// How conflicts were resolved, by key: what differs from ours.
#[derive(Default)]
pub(in crate::tree) struct Resolved(BTreeMap<Bytes, Option<Bytes>>);

impl Resolved {
    pub(in crate::tree) fn add(&mut self, key: Bytes, ours: Option<&Bytes>, resolution: Resolution) {
        if resolution.value.as_ref() != ours {
            self.0.insert(key, resolution.value);
        }
        self.0.extend(resolution.beside.map(|(key, value)| (key, Some(value))));
    }

    /// Writes ours, with what only theirs changed and what was resolved, in one pass over the changes.
    pub(in crate::tree) fn write<S, K>(
        self,
        source: &S,
        sink: &mut K,
        [base, ours, theirs]: [&TreeRoot; 3],
    ) -> Result<TreeRoot, TreeError<S::Error>>
    where
        S: ChunkSource,
        K: ChunkSink<Error = S::Error>,
    {
        let mut editor = Editor::new(source, ours);
        let mut resolved = self.0.into_iter().peekable();
        for changed in Changes::new(source, base, ours, theirs) {
            let Changed { ours: None, theirs: Some(change) } = changed? else { continue };
            while let Some((key, value)) = resolved.next_if(|(key, _)| *key < change.key) {
                editor.edit(sink, &key, value.as_deref())?;
            }
            editor.edit(sink, &change.key, change.after.as_deref())?;
        }
        for (key, value) in resolved {
            editor.edit(sink, &key, value.as_deref())?;
        }
        editor.finish(sink)
    }
}

/// Merges `theirs` into `ours`, as seen from `base`.
///
/// A key that one side changed has that side's value; one that both changed alike has that; for the others `resolve`
/// is asked, in order of keys. Reads and writes only what is near a change; memory grows with the number of
/// conflicts, not with the maps.
pub fn merge<S, K, R>(
    source: &S,
    sink: &mut K,
    base: &TreeRoot,
    ours: &TreeRoot,
    theirs: &TreeRoot,
    mut resolve: R,
) -> Result<TreeRoot, TreeError<S::Error>>
where
    S: ChunkSource,
    K: ChunkSink<Error = S::Error>,
    R: FnMut(&Conflict) -> Result<Resolution, TreeError<S::Error>>,
{
    if let Some(merged) = unopposed(base, ours, theirs) {
        return Ok(merged.clone());
    }
    // A resolution may add an entry anywhere (`beside`), and the map is written in order of keys, in one pass that
    // reads nothing back: so all conflicts come first, and the changes are walked a second time.
    let mut resolved = Resolved::default();
    for conflict in Conflicts::new(source, base, ours, theirs) {
        let conflict = conflict?;
        let resolution = resolve(&conflict)?;
        resolved.add(conflict.key, conflict.ours.as_ref(), resolution);
    }
    resolved.write(source, sink, [base, ours, theirs])
}
