//! One change of a vault: what is packed becomes visible all at once, when a head that refers to it is written.
//!
//! Whoever writes at the same time is merged with: heads that we have not seen are read again before ours is written,
//! and two heads that do not know of each other are merged by path by whoever reads them next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use commonhold_policy::{
    Domain,
    parameters::{self, Churn, NoCoding},
};
use commonhold_protocol::{Coding, NodeId, SegmentId, Version};
use commonhold_storage_engine::tree::{
    directory,
    entry::{Entry, EntryKind},
    map::{self, TreeRoot},
    name::Name,
};

use crate::{
    error::Error,
    head_payload::{HeadPayload, SegmentHint},
    heads::{self, HeadWritten},
    home::Device,
    journal::JournaledSegment,
    packer::{Content, PackFigures, Packer},
    progress::Progress,
    reader::Reader,
    report::segments_in,
    session::now,
    table::{self, PlacedSegment, unpack},
    tombstones,
    vault::{State, Vault, folder_entry},
    vault_path::VaultPath,
};

mod disputes;
mod merging;

use merging::{ancestor_of, merge_nodes};

/// How often a commit starts over because somebody else wrote meanwhile.
const ROUNDS_MAX: usize = 8;

/// The table's own segments that a head may hint alone: a head holds some hundred hints, and a first put of many TiB
/// brings as many segments of table. Each round leaves a small fraction of the one before.
const HINTS_PENDING_MAX: usize = 4;

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CommitReport {
    /// What was packed and placed.
    pub figures: PackFigures,
    /// Stewards that keep the new head.
    pub head_kept: usize,
    /// Stewards that were asked to.
    pub head_asked: usize,
    /// Copies that were made because two devices changed the same path.
    pub conflicts: Vec<String>,
}

/// A change under way.
pub(crate) struct Transaction<'v> {
    vault: &'v Vault,
    /// Stands before the device, whose lock it needs to the end.
    pub(crate) packer: Packer,
    device: Device,
    reader: Reader,
    progress: Arc<Progress>,
    /// Failure domains with a node that has space.
    pub(crate) domains: usize,
    state: State,
    /// The root that the change made; what `state` has, before it did.
    root: TreeRoot,
    /// True if it is not only a merge.
    edited: bool,
    /// True if `state` is that of several heads, and no head by itself.
    merged: bool,
    table: TreeRoot,
    hints: Vec<SegmentHint>,
    conflicts: Vec<String>,
}

/// What a change starts from.
struct Start {
    device: Device,
    newest: State,
    siblings: Vec<State>,
    coding: Result<Coding, NoCoding>,
    domains: usize,
}

impl Start {
    fn read(vault: &Vault, progress: &Progress) -> Result<Self, Error> {
        let device = vault.home.lock_device()?;
        let (newest, siblings) = vault.read_states(progress)?;
        let candidates = vault.session.wait_for(progress, vault.session.candidates())??;
        let roomy = candidates.iter().filter(|candidate| candidate.free_bytes > 0);
        let domains = roomy.map(|candidate| &candidate.domain).collect::<BTreeSet<&Domain>>().len();
        let wanted = vault.wanted_coding(&newest.payload);
        let coding = parameters::resolve(wanted, candidates.len(), domains, &Churn::ASSUMED);
        Ok(Self { device, newest, siblings, coding, domains })
    }
}

impl<'v> Transaction<'v> {
    /// Takes a device of this home, reads the newest state (merging siblings), and opens what packs chunks.
    pub(crate) fn begin(vault: &'v Vault, progress: &Arc<Progress>) -> Result<Self, Error> {
        let start = Start::read(vault, progress)?;
        start.coding?;
        Self::open(vault, start, progress)
    }

    /// The same, but for the sake of the merge: it can be read here even if the network cannot store it now.
    pub(crate) fn begin_merge(vault: &'v Vault, progress: &Arc<Progress>) -> Result<Self, Error> {
        Self::open(vault, Start::read(vault, progress)?, progress)
    }

    fn open(vault: &'v Vault, start: Start, progress: &Arc<Progress>) -> Result<Self, Error> {
        let Start { device, newest, siblings, coding, domains } = start;
        let reader = vault.reader.for_operation(progress);
        let packer = Packer::open(vault, reader.clone(), coding, progress.clone(), &device)?;
        let mut transaction = Self {
            vault,
            packer,
            device,
            reader,
            progress: progress.clone(),
            domains,
            root: newest.payload.root.clone(),
            table: newest.payload.table.clone(),
            hints: newest.payload.hints.clone(),
            state: newest,
            edited: false,
            merged: false,
            conflicts: Vec::new(),
        };
        transaction.forget_dropped()?;
        transaction.offer_interrupted(&siblings)?;
        transaction.catch_up_dedup()?;
        for sibling in siblings {
            transaction.merge(sibling)?;
        }
        Ok(transaction)
    }

    /// The state that a commit would make visible now.
    pub(crate) fn current(&self) -> State {
        let mut state = self.state.clone();
        state.payload.root = self.root.clone();
        state.payload.table = self.table.clone();
        state.payload.hints = self.hints.clone();
        state
    }

    /// The entry at a path, as this change leaves it so far.
    pub(crate) fn entry(&self, path: &VaultPath) -> Result<Entry, Error> {
        self.vault.entry(&self.reader, &self.root, path)
    }

    /// Refuses a target that is taken, unless it may be replaced, and one below something that is no folder.
    pub(crate) fn check_target(&self, target: &VaultPath, overwrite: bool) -> Result<(), Error> {
        match self.entry(target) {
            Ok(_) if overwrite || (target.names().is_empty() && self.root.is_empty()) => return Ok(()),
            Ok(_) => return Err(Error::Exists { path: target.clone() }),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut above = target.clone();
        while let Some((folder, _)) = above.split_last() {
            match self.entry(&folder) {
                Ok(entry) if entry.directory().is_some() => return Ok(()),
                Ok(_) => return Err(Error::NotAFolder { path: folder }),
                Err(Error::NotFound { .. }) => above = folder,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts an entry at a path, or takes it away; missing folders on the way are made if allowed.
    pub(crate) fn replace(&mut self, path: &VaultPath, entry: Option<&Entry>, make_folders: bool) -> Result<(), Error> {
        let root = match path.split_last() {
            Some((above, name)) => self.replaced(&above, name, entry, make_folders)?,
            None => match entry {
                Some(entry) => entry.directory().cloned().ok_or_else(|| Error::NotAFolder { path: path.clone() })?,
                None => TreeRoot::EMPTY,
            },
        };
        self.edited |= root != self.root;
        self.root = root;
        Ok(())
    }

    /// The root with another entry called `name` in the folder `above`.
    fn replaced(
        &mut self,
        above: &VaultPath,
        name: &Name,
        entry: Option<&Entry>,
        make_folders: bool,
    ) -> Result<TreeRoot, Error> {
        let reader = self.reader.clone();
        // The folders on the way down, each with its name.
        let mut folders: Vec<(&Name, Entry)> = Vec::new();
        let mut tree = self.root.clone();
        for (depth, name) in above.names().iter().enumerate() {
            let path = || VaultPath::from_names(above.names()[..=depth].to_vec());
            let folder = match directory::get(&reader, &tree, name)? {
                Some(folder) => folder,
                None if make_folders => folder_entry(TreeRoot::EMPTY, 0o755),
                None => return Err(Error::NotFound { path: path() }),
            };
            tree = folder.directory().cloned().ok_or_else(|| Error::NotAFolder { path: path() })?;
            folders.push((name, folder));
        }
        let mut sink = self.packer.sink(Content::Tree);
        let mut edited = |tree: &TreeRoot, name: &Name, entry: Option<&Entry>| -> Result<TreeRoot, Error> {
            let mut editor = directory::DirectoryEditor::new(&reader, tree);
            editor.edit(&mut sink, name, entry)?;
            Ok(editor.finish(&mut sink)?)
        };
        // And up again.
        let (mut name, mut entry) = (name, entry.cloned());
        while let Some((folder_name, folder)) = folders.pop() {
            let tree = edited(folder.directory().unwrap_or(&TreeRoot::EMPTY), name, entry.as_ref())?;
            (name, entry) = (folder_name, Some(Entry { kind: EntryKind::Directory(tree), ..folder }));
        }
        edited(&self.root, name, entry.as_ref())
    }

    /// True if nothing was written since `state`.
    pub(crate) fn is_at(&self, state: &State) -> bool {
        !self.merged && self.state.version == state.version
    }

    /// Takes segments in which nothing is used out of the table; a tombstone stays of each.
    pub(crate) fn bury(&mut self, dead: &BTreeSet<SegmentId>) -> Result<(), Error> {
        // Before the table is edited: its new nodes must not be found in a segment that is about to go.
        self.packer.forget(dead);
        self.hints.retain(|hint| !dead.contains(&hint.id));
        let reader = self.reader.clone();
        self.table = tombstones::bury(&reader, &mut self.packer.sink(Content::Tree), &self.table, dead, now().0)?;
        Ok(())
    }

    /// The journal is emptied without a sync, so after a power cut it may name what was taken in, and dropped, since.
    fn forget_dropped(&mut self) -> Result<(), Error> {
        let mut dropped = BTreeSet::new();
        for id in self.packer.placed() {
            if map::get(&self.reader, &self.table, &table::tombstone_key(&id))?.is_some() {
                dropped.insert(id);
            }
        }
        if !dropped.is_empty() {
            self.packer.forget(&dropped);
        }
        Ok(())
    }

    /// Lets the packer go on with segments that were under way when an earlier put ended. One that a head refers to, or
    /// has dropped, is not among them: the spool is not synced, so after a power cut it may say what was true long ago.
    fn offer_interrupted(&mut self, siblings: &[State]) -> Result<(), Error> {
        let states: Vec<HeadPayload> =
            [&self.state].into_iter().chain(siblings).map(|state| state.payload.clone()).collect();
        for spooled in self.packer.take_interrupted() {
            match self.is_in_any(&states, &spooled.id()) {
                Ok(true) => spooled.slot.free()?,
                // What cannot be sent now is left for a time when it can.
                Ok(false) if self.packer.coding().is_err() => {}
                Ok(false) => self.packer.offer(spooled),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => tracing::warn!("segment {} is left as it was found: {error}", spooled.id()),
            }
        }
        Ok(())
    }

    fn is_in_any(&self, states: &[HeadPayload], segment: &SegmentId) -> Result<bool, Error> {
        for payload in states {
            if payload.hints.iter().any(|hint| hint.id == *segment) {
                return Ok(true);
            }
            for key in [table::segment_key(segment), table::tombstone_key(segment)] {
                if map::get(&self.reader, &payload.table, &key)?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Has the dedup index learn the chunks of segments that other devices placed, and forget those that they dropped.
    fn catch_up_dedup(&mut self) -> Result<(), Error> {
        let table = self.table.to_bytes();
        let seen = self.packer.dedup().table_seen();
        if !self.packer.dedup().has_cache() || seen.as_deref() == Some(table.as_slice()) {
            return Ok(());
        }
        let seen = seen.and_then(|bytes| TreeRoot::from_bytes(&bytes).ok()).unwrap_or(TreeRoot::EMPTY);
        match self.learn_chunks(&seen) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) if !seen.is_empty() => {
                tracing::debug!("the table that the cache was last brought up to cannot be read: {error}");
                self.forget_unknown()?;
                self.learn_chunks(&TreeRoot::EMPTY)?;
            }
            learned => learned?,
        }
        self.packer.dedup().set_table_seen(&table)
    }

    /// Has the dedup index forget all segments that are not in the vault any more.
    fn forget_unknown(&mut self) -> Result<(), Error> {
        let mut known: BTreeSet<SegmentId> = segments_in(&self.reader, &self.state.payload)?.into_keys().collect();
        known.extend(self.packer.placed());
        let unknown = self.packer.dedup().cached().filter(|id| !known.contains(id)).collect();
        self.packer.dedup().forget(&unknown);
        Ok(())
    }

    /// Learns what the table has, and `seen` had not; forgets what it has no more.
    fn learn_chunks(&mut self, seen: &TreeRoot) -> Result<(), Error> {
        let reader = self.reader.clone();
        let mut open: Option<PlacedSegment> = None;
        let mut gone = BTreeSet::new();
        for change in map::diff(&reader, seen, &self.table) {
            let change = change?;
            match (&change.before, &change.after) {
                (None, Some(counter)) if table::is_tombstone(&change.key) => {
                    gone.insert(table::tombstone(&change.key, counter)?.0);
                }
                (Some(_), None) => gone.extend(table::described_by(&change.key)?),
                _ => {}
            }
            let Some(value) = change.after.filter(|_| (table::CHUNKS_FROM..table::CHUNKS_TO).contains(&&*change.key))
            else {
                continue;
            };
            let id = table::segment_of_part(&change.key)?;
            let chunks = unpack(&value)?;
            match &mut open {
                Some(segment) if segment.id == id => segment.chunks.extend(chunks),
                _ => {
                    if let Some(done) = open.take() {
                        self.packer.dedup().placed(&done)?;
                    }
                    open = Some(PlacedSegment { id, info: table::SegmentInfo::unknown(), chunks });
                }
            }
        }
        if let Some(done) = open {
            self.packer.dedup().placed(&done)?;
        }
        self.packer.dedup().forget(&gone);
        Ok(())
    }

    /// Makes the change visible.
    pub(crate) fn commit(mut self) -> Result<(Version, CommitReport), Error> {
        for _ in 0..ROUNDS_MAX {
            self.write_table()?;
            let newer = self.vault.read_newer(&self.state.version, &self.progress)?;
            if newer.is_empty() {
                return self.write_head();
            }
            for sibling in newer {
                self.merge(sibling)?;
            }
        }
        Err(Error::Contended { rounds: ROUNDS_MAX })
    }

    fn write_head(mut self) -> Result<(Version, CommitReport), Error> {
        // The last chance to stop: a head that is under way may be kept whether we wait for it or not.
        self.progress.check()?;
        let State { version, payload, .. } = &self.state;
        let mut history = payload.history.clone();
        if !self.merged {
            history.add(ancestor_of(version, payload));
        }
        let holders: Vec<NodeId> =
            self.hints.iter().flat_map(|hint| self.reader.catalog().holders(&hint.info).into_values()).collect();
        let mut payload = HeadPayload {
            root: self.root.clone(),
            table: self.table.clone(),
            coding: self.vault.pinned_coding().or(payload.coding),
            nodes: merge_nodes(self.vault.session.addresses_of(&holders), &payload.nodes),
            hints: self.hints.clone(),
            history,
            device: self.device.id,
            written_at: now(),
        };
        payload.trim();
        let (version, HeadWritten { kept, asked }) =
            heads::write(&self.vault.session, &self.vault.home, &self.vault.keys, version, self.device.id, &payload)?;
        self.reader.catalog().learn_heads([&payload]);
        // What came with a merge, the cache has yet to learn.
        self.packer.committed(Some(payload.table.to_bytes()).filter(|_| !self.merged).as_deref())?;
        let figures = self.packer.figures();
        Ok((version, CommitReport { figures, head_kept: kept, head_asked: asked, conflicts: self.conflicts }))
    }

    /// Takes what was placed into the table. The segments with the table's own new nodes are hinted by the head
    /// instead, and taken in by the next one; if they are many, by another round right away.
    fn write_table(&mut self) -> Result<(), Error> {
        self.packer.settle_files()?;
        loop {
            let mut placed = self.packer.take_placed();
            placed.sort_by_key(|segment| segment.id);
            placed.dedup_by_key(|segment| segment.id);
            let pending: Vec<usize> = (0..self.hints.len()).filter(|at| !self.hints[*at].in_table).collect();
            if !placed.is_empty() || !pending.is_empty() {
                self.table = self.edited_table(&placed, &pending)?;
                for at in pending {
                    self.hints[at].in_table = true;
                }
            }
            self.packer.settle()?;
            let own = self.packer.take_placed();
            let many = own.len() > HINTS_PENDING_MAX;
            self.hints.extend(own.into_iter().map(|JournaledSegment { id, info, .. }| SegmentHint {
                id,
                info,
                in_table: false,
            }));
            if !many {
                return Ok(());
            }
        }
    }

    fn edited_table(&mut self, placed: &[JournaledSegment], pending: &[usize]) -> Result<TreeRoot, Error> {
        let (vault, reader) = (self.vault, self.reader.clone());
        let pending: BTreeMap<SegmentId, &table::SegmentInfo> =
            pending.iter().map(|at| (self.hints[*at].id, &self.hints[*at].info)).collect();
        let infos: BTreeMap<SegmentId, &table::SegmentInfo> =
            placed.iter().map(|segment| (segment.id, &segment.info)).chain(pending).collect();
        let catalog = reader.catalog();
        let mut holders: Vec<NodeId> = infos.values().flat_map(|info| catalog.holders(info).into_values()).collect();
        holders.sort();
        holders.dedup();
        let mut nodes: Vec<table::Edit> = vault
            .session
            .addresses_of(&holders)
            .iter()
            .filter(|hint| !hint.addresses.is_empty())
            .map(table::node_edit)
            .collect();
        nodes.sort();

        let mut editor = map::Editor::new(&reader, &self.table);
        let mut sink = self.packer.sink(Content::Tree);
        // Keys ascend: chunk lists (`c`), nodes (`n`), segments (`s`).
        for segment in placed {
            for (key, value) in table::chunk_edits(&segment.read(&vault.seal, &vault.home)?) {
                editor.edit(&mut sink, &key, Some(&value))?;
            }
        }
        for (key, value) in nodes {
            editor.edit(&mut sink, &key, Some(&value))?;
        }
        for (id, info) in infos {
            let (key, value) = table::segment_edit(&id, info);
            editor.edit(&mut sink, &key, Some(&value))?;
        }
        Ok(editor.finish(&mut sink)?)
    }
}
