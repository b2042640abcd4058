//! A directory: a map from [`Name`]s to [`Entry`]s.
//!
//! What is read here has valid names and entries, or is an error: a hostile name cannot get past it.

use std::ops::Bound;

use bytes::Bytes;
use commonhold_protocol::FormatError;

use super::{
    ChunkSink, ChunkSource, TreeError,
    entry::{Entry, EntryKind},
    map::{self, Cursor, TreeRoot},
    name::Name,
};

/// The name that a key is.
pub(super) fn decode_name(key: Bytes) -> Result<Name, FormatError> {
    Name::new(key).map_err(|_| FormatError::Field { what: "directory", field: "name" })
}

/// One entry of a directory.
pub fn get<S: ChunkSource>(source: &S, root: &TreeRoot, name: &Name) -> Result<Option<Entry>, TreeError<S::Error>> {
    let value = map::get(source, root, name.as_bytes())?;
    Ok(value.map(Entry::decode).transpose()?)
}

/// The entry at the end of a path; none if a name does not exist or something on the way is not a directory.
/// Symbolic links are not followed.
pub fn lookup<S: ChunkSource>(source: &S, entry: &Entry, path: &[Name]) -> Result<Option<Entry>, TreeError<S::Error>> {
    let mut entry = entry.clone();
    for name in path {
        let EntryKind::Directory(root) = &entry.kind else { return Ok(None) };
        match get(source, root, name)? {
            Some(below) => entry = below,
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

/// The entries of a directory in order of names, from the one after `after` on. A name is a cursor that stays good
/// when the directory changes.
pub fn list<'s, S: ChunkSource>(source: &'s S, root: &TreeRoot, after: Option<&Name>) -> Entries<'s, S> {
    let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.as_bytes()));
    Entries(map::range(source, root, start))
}

/// The entries of a directory; see [`list`].
pub struct Entries<'s, S>(Cursor<'s, S>);

impl<S: ChunkSource> Iterator for Entries<'_, S> {
    type Item = Result<(Name, Entry), TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        Some(item.and_then(|(key, value)| Ok((decode_name(key)?, Entry::decode(value)?))))
    }
}

/// Builds a directory from entries in strictly ascending order of names.
#[derive(Default)]
pub struct DirectoryBuilder(map::Builder);

impl DirectoryBuilder {
    /// A builder of an empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next entry.
    pub fn push<K: ChunkSink>(&mut self, sink: &mut K, name: &Name, entry: &Entry) -> Result<(), TreeError<K::Error>> {
        self.0.push(sink, name.as_bytes(), &entry.encode()?)
    }

    /// Writes the nodes that are still open.
    pub fn finish<K: ChunkSink>(self, sink: &mut K) -> Result<TreeRoot, TreeError<K::Error>> {
        self.0.finish(sink)
    }
}

/// Edits a directory in strictly ascending order of names.
pub struct DirectoryEditor<'s, S>(map::Editor<'s, S>);

impl<'s, S: ChunkSource> DirectoryEditor<'s, S> {
    /// An editor of the directory under `root`, which itself stays as it is.
    pub fn new(source: &'s S, root: &TreeRoot) -> Self {
        Self(map::Editor::new(source, root))
    }

    /// Puts an entry, or takes it away.
    pub fn edit<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        name: &Name,
        entry: Option<&Entry>,
    ) -> Result<(), TreeError<S::Error>> {
        let value = entry.map(Entry::encode).transpose()?;
        self.0.edit(sink, name.as_bytes(), value.as_deref())
    }

    /// Keeps the rest, and gives the root of the new version.
    pub fn finish<K: ChunkSink<Error = S::Error>>(self, sink: &mut K) -> Result<TreeRoot, TreeError<S::Error>> {
        self.0.finish(sink)
    }
}
