//! One change of a vault: what is packed becomes visible all at once, when a head that refers to it is written.
//!
//! Whoever writes at the same time is merged with: heads that we have not seen are read again before ours is written,
//! and two heads that do not know of each other are merged by path by whoever reads them next.

use std::{collections::BTreeMap, sync::Arc};

use commonhold_policy::parameters;
use commonhold_protocol::{DeviceId, Lease, NodeId, SegmentId, Timestamp, Verified, Version};
use commonhold_storage_engine::tree::{
    map::{self, TreeRoot},
    merge::{self, ConflictLabel, Labels},
};

use crate::{
    error::Error,
    head_payload::{Ancestor, HeadPayload, SegmentHint},
    heads::{self, HeadWritten},
    home::Device,
    journal::JournaledSegment,
    packer::{Content, PackFigures, Packer},
    progress::Progress,
    session::now,
    table::{self, NodeHint, NodeKey, PlacedSegment, unpack},
    vault::{State, Vault},
};

/// How often a commit starts over because somebody else wrote meanwhile.
const ROUNDS_MAX: usize = 8;

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
    device: Device,
    pub(crate) packer: Packer,
    state: State,
    /// The root that the change made; what `state` has, before it did.
    root: TreeRoot,
    table: TreeRoot,
    hints: Vec<SegmentHint>,
    conflicts: Vec<String>,
}

impl<'v> Transaction<'v> {
    /// Takes a device of this home, reads the newest state (merging siblings), and opens what packs chunks.
    pub(crate) fn begin(vault: &'v Vault, progress: Arc<Progress>) -> Result<Self, Error> {
        let device = vault.home.lock_device()?;
        let (newest, siblings) = vault.read_states()?;
        let pinned = vault.pinned_coding.or(newest.payload.coding);
        let candidates = vault.session.block_on(vault.session.candidates())?;
        let coding = parameters::choose(pinned, candidates.len())
            .map_err(|too_few| Error::TooFewHolders { have: too_few.have, need: too_few.need })?;
        let packer = Packer::open(vault, coding, progress, &device)?;
        let mut transaction = Self {
            vault,
            device,
            packer,
            root: newest.payload.root.clone(),
            table: newest.payload.table.clone(),
            hints: newest.payload.hints.clone(),
            state: newest,
            conflicts: Vec::new(),
        };
        transaction.catch_up_dedup()?;
        for sibling in siblings {
            transaction.merge(sibling)?;
        }
        Ok(transaction)
    }

    /// The drive as this change leaves it so far.
    pub(crate) fn root(&self) -> &TreeRoot {
        &self.root
    }

    pub(crate) fn set_root(&mut self, root: TreeRoot) {
        self.root = root;
    }

    /// Has the dedup index learn the chunks of segments that other devices placed.
    fn catch_up_dedup(&mut self) -> Result<(), Error> {
        let table = self.table.to_bytes();
        let seen = self.packer.dedup().table_seen();
        if !self.packer.dedup().has_cache() || seen.as_deref() == Some(table.as_slice()) {
            return Ok(());
        }
        let seen = seen.and_then(|bytes| TreeRoot::from_bytes(&bytes).ok()).unwrap_or(TreeRoot::EMPTY);
        let reader = self.vault.reader.clone();
        let mut open: Option<PlacedSegment> = None;
        for change in map::diff(&*reader, &seen, &self.table) {
            let change = change?;
            let Some(value) = change.after.filter(|_| (table::CHUNKS_FROM..table::CHUNKS_TO).contains(&&*change.key)) else {
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
        self.packer.dedup().set_table_seen(&table)
    }

    /// Makes the change visible.
    pub(crate) fn commit(mut self) -> Result<(Version, CommitReport), Error> {
        for _ in 0..ROUNDS_MAX {
            self.write_table()?;
            let newer = self.vault.read_newer(&self.state.version)?;
            if newer.is_empty() {
                return self.write_head();
            }
            for sibling in newer {
                self.merge(sibling)?;
            }
        }
        Err(Error::TooManyWriters { home: self.vault.home.dir().to_owned(), writers_max: ROUNDS_MAX })
    }

    fn write_head(mut self) -> Result<(Version, CommitReport), Error> {
        let State { version, payload, lease } = &self.state;
        let mut history = payload.history.clone();
        if *version != Version::default() && !history.iter().any(|ancestor| ancestor.version == *version) {
            history.push(ancestor_of(version, payload));
        }
        let holders: Vec<NodeId> =
            self.hints.iter().flat_map(|hint| self.vault.reader.catalog().holders(&hint.info).into_values()).collect();
        let mut payload = HeadPayload {
            root: self.root.clone(),
            table: self.table.clone(),
            coding: self.vault.pinned_coding.or(payload.coding),
            nodes: merge_nodes(self.vault.session.addresses_of(&holders), &payload.nodes),
            hints: self.hints.clone(),
            history,
            device: self.device.id,
            written_at: now(),
        };
        payload.trim();
        let (version, HeadWritten { kept, asked }) = heads::write(
            &self.vault.session,
            &self.vault.home,
            &self.vault.keys,
            version,
            self.device.id,
            &payload,
            lease.as_ref(),
        )?;
        self.vault.reader.catalog().learn_head(&payload);
        self.packer.committed(&payload.table.to_bytes())?;
        let figures = self.packer.figures();
        Ok((version, CommitReport { figures, head_kept: kept, head_asked: asked, conflicts: self.conflicts }))
    }

    /// Takes what was placed into the table. The segment with the table's own new nodes is hinted by the head instead,
    /// and taken in by the next one.
    fn write_table(&mut self) -> Result<(), Error> {
        self.packer.settle_files()?;
        let mut placed = self.packer.take_placed();
        placed.sort_by_key(|segment| segment.id);
        let pending: Vec<usize> = (0..self.hints.len()).filter(|at| !self.hints[*at].in_table).collect();
        if !placed.is_empty() || !pending.is_empty() {
            self.table = self.edited_table(&placed, &pending)?;
            for at in pending {
                self.hints[at].in_table = true;
            }
        }
        self.packer.settle()?;
        for JournaledSegment { id, info, .. } in self.packer.take_placed() {
            self.hints.push(SegmentHint { id, info, in_table: false });
        }
        Ok(())
    }

    fn edited_table(&mut self, placed: &[JournaledSegment], pending: &[usize]) -> Result<TreeRoot, Error> {
        let (vault, reader) = (self.vault, self.vault.reader.clone());
        let pending: BTreeMap<SegmentId, &table::SegmentInfo> =
            pending.iter().map(|at| (self.hints[*at].id, &self.hints[*at].info)).collect();
        let infos: BTreeMap<SegmentId, &table::SegmentInfo> =
            placed.iter().map(|segment| (segment.id, &segment.info)).chain(pending).collect();
        let catalog = self.vault.reader.catalog();
        let mut holders: Vec<NodeId> = infos.values().flat_map(|info| catalog.holders(info).into_values()).collect();
        holders.sort();
        holders.dedup();
        let mut nodes: Vec<table::Edit> =
            vault.session.addresses_of(&holders).iter().filter(|hint| !hint.addresses.is_empty()).map(table::node_edit).collect();
        nodes.sort();

        let mut editor = map::Editor::new(&*reader, &self.table);
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

    /// Merges a state that does not know of ours, by path.
    fn merge(&mut self, theirs: State) -> Result<(), Error> {
        self.vault.reader.catalog().learn_head(&theirs.payload);
        let changed = self.root != self.state.payload.root;
        let ours_label = if changed { (now(), self.device.id) } else { author(&self.state.payload) };
        let base = common_ancestor(&self.state, &theirs);
        let labels = Labels { ours: label(ours_label)?, theirs: label(author(&theirs.payload))? };
        let reader = self.vault.reader.clone();
        let conflicts = &mut self.conflicts;
        self.root = merge::merge(
            &*reader,
            &mut self.packer.sink(Content::Tree),
            &base.map_or(TreeRoot::EMPTY, |ancestor| ancestor.root),
            &self.root,
            &theirs.payload.root,
            &labels,
            &mut |kept| {
                let name = |name: &commonhold_storage_engine::tree::name::Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
                let folders: String = kept.directory.iter().map(|folder| format!("/{}", name(folder))).collect();
                conflicts.push(format!("{folders}/{}", name(kept.copy)));
            },
        )?;
        self.table = self.union_of_tables(&theirs.payload.table)?;
        for hint in &theirs.payload.hints {
            match self.hints.iter_mut().find(|ours| ours.id == hint.id) {
                // In one table means in the union.
                Some(ours) => ours.in_table |= hint.in_table,
                None => self.hints.push(hint.clone()),
            }
        }
        let mut history: Vec<Ancestor> = self.state.payload.history.clone();
        let heads = [ancestor_of(&self.state.version, &self.state.payload), ancestor_of(&theirs.version, &theirs.payload)];
        for ancestor in theirs.payload.history.iter().cloned().chain(heads) {
            if ancestor.version != Version::default() && !history.iter().any(|known| known.version == ancestor.version) {
                history.push(ancestor);
            }
        }
        history.sort_by_key(|ancestor| ancestor.written_at);
        self.state.payload.history = history;
        self.state.payload.nodes = merge_nodes(self.state.payload.nodes.clone(), &theirs.payload.nodes);
        self.state.payload.coding = self.state.payload.coding.or(theirs.payload.coding);
        self.state.version = self.state.version.join(&theirs.version);
        self.state.lease = newer_lease(self.state.lease.take(), theirs.lease);
        Ok(())
    }

    /// What either table has. An entry that both have is the same but for holders, which are hints.
    fn union_of_tables(&mut self, theirs: &TreeRoot) -> Result<TreeRoot, Error> {
        let reader = self.vault.reader.clone();
        let mut editor = map::Editor::new(&*reader, &self.table);
        let mut sink = self.packer.sink(Content::Tree);
        for change in map::diff(&*reader, &self.table, theirs) {
            let change = change?;
            if let (None, Some(value)) = (change.before, change.after) {
                editor.edit(&mut sink, &change.key, Some(&value))?;
            }
        }
        Ok(editor.finish(&mut sink)?)
    }
}

fn newer_lease(ours: Option<Verified<Lease>>, theirs: Option<Verified<Lease>>) -> Option<Verified<Lease>> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(if theirs.newer_than(&ours) { theirs } else { ours }),
        (ours, theirs) => ours.or(theirs),
    }
}

fn merge_nodes(mut nodes: Vec<NodeHint>, more: &[NodeHint]) -> Vec<NodeHint> {
    nodes.retain(|hint| !hint.addresses.is_empty());
    for hint in more {
        if !nodes.iter().any(|known| NodeKey::of(&known.node) == NodeKey::of(&hint.node)) {
            nodes.push(hint.clone());
        }
    }
    nodes.sort_by_key(|hint| hint.node);
    nodes.dedup_by_key(|hint| hint.node);
    nodes
}

fn author(payload: &HeadPayload) -> (Timestamp, DeviceId) {
    (payload.written_at, payload.device)
}

fn ancestor_of(version: &Version, payload: &HeadPayload) -> Ancestor {
    Ancestor { version: version.clone(), written_at: payload.written_at, root: payload.root.clone() }
}

/// The newest state that both come from.
fn common_ancestor(ours: &State, theirs: &State) -> Option<Ancestor> {
    let line = |state: &State| {
        let mut line = state.payload.history.clone();
        line.push(ancestor_of(&state.version, &state.payload));
        line
    };
    let theirs = line(theirs);
    let common = line(ours).into_iter().filter(|ancestor| theirs.iter().any(|known| known.version == ancestor.version));
    // Of two common ancestors the one that covers more is nearer; a sum of counters tells.
    common.max_by_key(|ancestor| ancestor.version.counters().map(|(_, counter)| counter).sum::<u64>())
}

fn label((written_at, device): (Timestamp, DeviceId)) -> Result<ConflictLabel, Error> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(written_at.0.min(MILLIS_MAX));
    let date = humantime::format_rfc3339_seconds(time).to_string();
    let text = format!("{}, device {}", &date[..10], &device.to_string()[..4]);
    ConflictLabel::new(text).ok_or_else(|| Error::TreeDamaged { reason: "a label".to_owned() })
}

/// The end of the year 9999, the last that a date of ten characters can name.
const MILLIS_MAX: u64 = 253_402_300_799_000;
