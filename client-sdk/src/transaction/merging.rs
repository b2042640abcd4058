//! Two states that do not know of each other become one: drives by path, tables as a union, but for segments that one
//! of them has dropped ([`super::disputes`]).

use commonhold_protocol::{DeviceId, Timestamp, Version};
use commonhold_storage_engine::tree::{
    map::TreeRoot,
    merge::{self, ConflictLabel, Labels},
    name::Name,
};

use super::{
    Transaction,
    disputes::{Disputes, Remembering},
};
use crate::{
    error::Error,
    head_payload::HeadPayload,
    history::Ancestor,
    packer::Content,
    session::now,
    table::{NodeHint, NodeKey},
    tombstones,
    vault::State,
};

/// The end of the year 9999, the last that a date of ten characters can name.
const MILLIS_MAX: u64 = 253_402_300_799_000;

impl Transaction<'_> {
    /// Merges a state that does not know of ours, by path.
    pub(super) fn merge(&mut self, theirs: State) -> Result<(), Error> {
        self.reader.catalog().learn_sibling(&theirs.payload);
        let ours_label = if self.edited { (now(), self.device.id) } else { author(&self.state.payload) };
        let (mut ours_line, mut theirs_line) = (self.state.payload.history.clone(), theirs.payload.history.clone());
        theirs_line.add(ancestor_of(&theirs.version, &theirs.payload));
        if !self.merged {
            ours_line.add(ancestor_of(&self.state.version, &self.state.payload));
        }
        let base = ours_line.nearest_common(&theirs_line).map(|ancestor| ancestor.root.clone());
        let labels = Labels { ours: label(ours_label)?, theirs: label(author(&theirs.payload))? };
        let disputes = Disputes::between(&self.reader, [&self.table, &theirs.payload.table])?;
        let source = Remembering::new(self.reader.clone(), !disputes.is_empty());
        let conflicts = &mut self.conflicts;
        self.root = merge::merge(
            &source,
            &mut source.sink(self.packer.sink(Content::Tree)),
            &base.unwrap_or(TreeRoot::EMPTY),
            &self.root,
            &theirs.payload.root,
            &labels,
            &mut |kept| {
                let name = |name: &Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
                let folders: String = kept.directory.iter().map(|folder| format!("/{}", name(folder))).collect();
                conflicts.push(format!("{folders}/{}", name(kept.copy)));
            },
        )?;
        let tables = [&self.table, &theirs.payload.table];
        let wanted = disputes.wanted(&source, &self.root, tables)?;
        self.take_back(&disputes, &wanted)?;
        let unwanted = disputes.without(&wanted);
        // Before the table is edited: its new nodes must not be found in them.
        self.packer.forget(&unwanted);
        self.hints.retain(|hint| !unwanted.contains(&hint.id));
        let mut sink = source.sink(self.packer.sink(Content::Tree));
        self.table = tombstones::union(&source, &mut sink, tables, &disputes.segments(), &wanted)?;
        for hint in theirs.payload.hints.iter().filter(|hint| !unwanted.contains(&hint.id)) {
            match self.hints.iter_mut().find(|ours| ours.id == hint.id) {
                // In one table means in the union.
                Some(ours) => ours.in_table |= hint.in_table,
                None => self.hints.push(hint.clone()),
            }
        }
        ours_line.join(&theirs_line);
        self.merged = true;
        self.state.payload.history = ours_line;
        self.state.payload.nodes = merge_nodes(self.state.payload.nodes.clone(), &theirs.payload.nodes);
        self.state.payload.coding = self.state.payload.coding.or(theirs.payload.coding);
        self.state.version = self.state.version.join(&theirs.version);
        Ok(())
    }
}

pub(super) fn merge_nodes(mut nodes: Vec<NodeHint>, more: &[NodeHint]) -> Vec<NodeHint> {
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

pub(super) fn ancestor_of(version: &Version, payload: &HeadPayload) -> Ancestor {
    Ancestor {
        version: version.clone(),
        written_at: payload.written_at,
        root: payload.root.clone(),
        table: payload.table.clone(),
    }
}

fn label((written_at, device): (Timestamp, DeviceId)) -> Result<ConflictLabel, Error> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(written_at.0.min(MILLIS_MAX));
    let date = humantime::format_rfc3339_seconds(time).to_string();
    let text = format!("{}, device {}", &date[..10], &device.to_string()[..4]);
    ConflictLabel::new(text).ok_or_else(|| Error::TreeDamaged { reason: "a label".to_owned() })
}
