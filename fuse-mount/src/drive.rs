//! What a drive shows: one state of a vault, and newer ones as they come.

use bytes::Bytes;
use commonhold_client_sdk::{Entry, Error, FileContent, Listed, Name, Vault, View};

/// Where states come from.
pub trait Drive: Send + Sync + 'static {
    /// One state, which never changes.
    type State: State;

    /// The newest state.
    fn newest(&self) -> Result<Self::State, Error>;

    /// A state newer than `known`, if there is one.
    fn newer(&self, known: &Self::State) -> Result<Option<Self::State>, Error>;
}

/// One state of what is shown; see [`View`]. No call takes for ever.
pub trait State: Send + Sync + 'static {
    /// The folder that all others are in.
    fn root(&self) -> &Entry;
    /// What has this name in a folder.
    fn child(&self, folder: &Entry, name: &Name) -> Result<Option<Entry>, Error>;
    /// Entries of a folder in order of names, from the one after `after` on.
    fn list(&self, folder: &Entry, after: Option<&Name>, count: usize) -> Result<Vec<Listed>, Error>;
    /// Bytes of a file; fewer than `length` only at its end.
    fn read(&self, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error>;
    /// Bytes of a file that are not in a hole.
    fn data_bytes(&self, content: &FileContent) -> Result<u64, Error>;
    /// How many names a file has.
    fn names_of(&self, entry: &Entry) -> Result<u32, Error>;
    /// Bytes stored in all.
    fn stored_bytes(&self) -> Result<u64, Error>;
}

impl Drive for Vault {
    type State = View;

    fn newest(&self) -> Result<View, Error> {
        self.view()
    }

    fn newer(&self, known: &View) -> Result<Option<View>, Error> {
        self.newer_view(known)
    }
}

impl State for View {
    fn root(&self) -> &Entry {
        self.root()
    }

    fn child(&self, folder: &Entry, name: &Name) -> Result<Option<Entry>, Error> {
        self.child(folder, name)
    }

    fn list(&self, folder: &Entry, after: Option<&Name>, count: usize) -> Result<Vec<Listed>, Error> {
        self.list(folder, after, count)
    }

    fn read(&self, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error> {
        self.read(content, offset, length)
    }

    fn data_bytes(&self, content: &FileContent) -> Result<u64, Error> {
        self.data_bytes(content)
    }

    fn names_of(&self, entry: &Entry) -> Result<u32, Error> {
        self.names_of(entry)
    }

    fn stored_bytes(&self) -> Result<u64, Error> {
        self.stored_bytes()
    }
}
