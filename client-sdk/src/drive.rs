//! A vault as a drive sees it: one state of it to look into entry by entry, for as long as somebody wants.
//!
//! Every call ends within [`CALL_MAX`], whatever the network does: behind it a person waits on a system call.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use commonhold_protocol::Version;
use commonhold_storage_engine::tree::{
    directory,
    entry::{Entry, EntryKind, FileContent, LinkGroup},
    file::{self, Extent},
    map::TreeRoot,
    name::Name,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    error::Error,
    get::read_at,
    head_payload::HeadPayload,
    progress::Progress,
    reader::Reader,
    report::segments_in,
    session::Session,
    vault::{Listed, State, Vault, folder_entry},
};

/// The longest that a call may take. A read that has to find other holders for each of several segments takes some
/// seconds; nobody waits for longer than this.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Extents looked at, at most, to find a file's holes: those of one node.
const EXTENTS_LOOKED_AT_MAX: usize = 1024;
/// Entries walked, at most, to count the names of files with several.
const NAMES_WALKED_MAX: usize = 200_000;

/// One state of a vault. What it shows never changes.
pub struct View {
    session: Arc<Session>,
    reader: Reader,
    version: Version,
    payload: HeadPayload,
    root: Entry,
    names: Mutex<Option<Arc<Names>>>,
    stored: Mutex<Option<u64>>,
}

/// How many names each hard-linked file has. Two contents under one group are two files.
type Names = HashMap<(LinkGroup, Vec<u8>), u32>;

impl Vault {
    /// The newest state of the vault.
    pub fn view(&self) -> Result<View, Error> {
        let state = bounded(&self.session, |progress| self.state(progress))?;
        Ok(self.view_of(state))
    }

    /// The newest state of the vault; none if it is the one that `known` shows.
    pub fn newer_view(&self, known: &View) -> Result<Option<View>, Error> {
        let state = bounded(&self.session, |progress| self.state(progress))?;
        Ok((state.version != known.version).then(|| self.view_of(state)))
    }

    fn view_of(&self, state: State) -> View {
        View {
            session: self.session.clone(),
            reader: self.reader.clone(),
            version: state.version,
            root: folder_entry(state.payload.root.clone(), 0o755),
            payload: state.payload,
            names: Mutex::default(),
            stored: Mutex::default(),
        }
    }
}

impl View {
    /// The folder that all others are in.
    pub fn root(&self) -> &Entry {
        &self.root
    }

    /// What has this name in a folder; nothing has one in what is no folder.
    pub fn child(&self, folder: &Entry, name: &Name) -> Result<Option<Entry>, Error> {
        let Some(tree) = folder.directory() else { return Ok(None) };
        self.bounded(|reader| Ok(directory::get(reader, tree, name)?))
    }

    /// At most `count` entries of a folder, in order of names, from the one after `after` on.
    pub fn list(&self, folder: &Entry, after: Option<&Name>, count: usize) -> Result<Vec<Listed>, Error> {
        let Some(tree) = folder.directory() else { return Ok(Vec::new()) };
        self.bounded(|reader| {
            let entries = directory::list(reader, tree, after).take(count);
            entries.map(|listed| listed.map(|(name, entry)| Listed { name, entry }).map_err(Error::from)).collect()
        })
    }

    /// The bytes of a file from `offset` on, at most `length`, fewer only at the end: fetches the chunks that hold them
    /// and their proofs, nothing else.
    pub fn read(&self, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error> {
        self.bounded(|reader| read_at(reader, content, offset, length))
    }

    /// Bytes of a file that are not in a hole, as far as its first 1,024 extents say; the rest is taken for data. Reads
    /// one node of the file at most.
    pub fn data_bytes(&self, content: &FileContent) -> Result<u64, Error> {
        let FileContent::Chunks(root) = content else { return Ok(content.length()) };
        self.bounded(|reader| {
            let mut data = content.length();
            for extent in file::extents(reader, root, 0).take(EXTENTS_LOOKED_AT_MAX) {
                if let (_, Extent::Hole(bytes)) = extent? {
                    data = data.saturating_sub(bytes);
                }
            }
            Ok(data)
        })
    }

    /// How many names a file has: 1, or for hard links as many as there are in this state. Walks the vault's folders
    /// once, when it is first asked for such a file; in a vault of more than 200,000 entries the answer is 2.
    pub fn names_of(&self, entry: &Entry) -> Result<u32, Error> {
        let Some(key) = linked_as(entry) else { return Ok(1) };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match &*names {
            Some(counted) => counted.clone(),
            None => {
                let root = self.root.directory().cloned().unwrap_or(TreeRoot::EMPTY);
                names.insert(Arc::new(self.bounded(|reader| count_names(reader, root))?)).clone()
            }
        };
        Ok(counted.get(&key).copied().unwrap_or(2))
    }

    /// Bytes of all segments of the vault, before coding. Reads the vault's table of segments once.
    pub fn stored_bytes(&self) -> Result<u64, Error> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = *stored {
            return Ok(bytes);
        }
        let segments = self.bounded(|reader| segments_in(reader, &self.payload))?;
        Ok(*stored.insert(segments.values().map(|info| info.length).sum()))
    }

    fn bounded<T>(&self, call: impl FnOnce(&Reader) -> Result<T, Error>) -> Result<T, Error> {
        bounded(&self.session, |progress| call(&self.reader.for_operation(progress)))
    }
}

/// Interrupts a call that takes too long.
fn bounded<T>(session: &Session, call: impl FnOnce(&Arc<Progress>) -> Result<T, Error>) -> Result<T, Error> {
    let progress = Arc::new(Progress::default());
    let late = progress.clone();
    let _watch = AbortOnDropHandle::new(session.handle().spawn(async move {
        tokio::time::sleep(CALL_MAX).await;
        late.interrupt();
    }));
    call(&progress)
}

/// What names of one file have in common; nothing for what has one name.
fn linked_as(entry: &Entry) -> Option<(LinkGroup, Vec<u8>)> {
    let content = match &entry.kind {
        EntryKind::File(FileContent::Inline(bytes)) => bytes.to_vec(),
        EntryKind::File(FileContent::Chunks(root)) => root.to_bytes(),
        _ => Vec::new(),
    };
    Some((entry.link_group?, content))
}

fn count_names(reader: &Reader, root: TreeRoot) -> Result<Names, Error> {
    let (mut names, mut walked) = (Names::new(), 0);
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for listed in directory::list(reader, &folder, None) {
            let (_, entry) = listed?;
            walked += 1;
            if walked > NAMES_WALKED_MAX {
                return Ok(Names::new());
            }
            if let Some(below) = entry.directory() {
                folders.push(below.clone());
            } else if let Some(key) = linked_as(&entry) {
                *names.entry(key).or_default() += 1;
            }
        }
    }
    Ok(names)
}
