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

/// Merges `theirs` into `ours`, as seen from `base`.
///
/// A key that one side changed has that side's value; one that both changed alike has that; for the others `resolve`
/// is asked, in order of keys, and may write to the sink itself. Reads and writes only what is near a change; memory
/// grows with the number of conflicts, not with the maps.
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
    R: FnMut(&mut K, Conflict) -> Result<Resolution, TreeError<S::Error>>,
{
    if ours == theirs || theirs == base {
        return Ok(ours.clone());
    }
    if ours == base {
        return Ok(theirs.clone());
    }
    // What is resolved may stand anywhere in the order of keys (`beside`), and the tree is written in that order, in
    // one pass that reads nothing back: so conflicts come first, and the changes are walked a second time.
    let mut resolved: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    // On the heap: `resolve` may merge maps that lie in this one, one call in the other.
    for changed in Box::new(Changes::new(source, base, ours, theirs)) {
        let Changed { ours: Some(ours), theirs: Some(theirs) } = changed? else { continue };
        if ours.after == theirs.after {
            continue;
        }
        let (key, before) = (ours.key.clone(), ours.after.clone());
        let conflict = Conflict { key: ours.key, base: ours.before, ours: ours.after, theirs: theirs.after };
        let Resolution { value, beside } = resolve(sink, conflict)?;
        if value != before {
            resolved.insert(key, value);
        }
        resolved.extend(beside.map(|(key, value)| (key, Some(value))));
    }
    write(source, sink, [base, ours, theirs], resolved)
}

/// Ours, with what only theirs changed and what was resolved.
#[inline(never)]
fn write<S, K>(
    source: &S,
    sink: &mut K,
    [base, ours, theirs]: [&TreeRoot; 3],
    resolved: BTreeMap<Bytes, Option<Bytes>>,
) -> Result<TreeRoot, TreeError<S::Error>>
where
    S: ChunkSource,
    K: ChunkSink<Error = S::Error>,
{
    let mut editor = Editor::new(source, ours);
    let mut resolved = resolved.into_iter().peekable();
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
