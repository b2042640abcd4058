//! What a head seals: the drive's root, the segment table, hints to read them without a walk, and how we came here.

use bytes::Bytes;
use commonhold_protocol::{Coding, DeviceId, SegmentId, Timestamp, Version, head::HEAD_SEALED_BYTES_MAX};
use commonhold_storage_engine::tree::map::TreeRoot;

use crate::{
    error::Error,
    history::{Ancestor, History, MARK_BYTES, Mark},
    table::{InfoWire, NODE_ADDRESSES_MAX, NodeHint, NodeKey, NodeWire, SegmentInfo},
};

/// Former states kept in a head with their roots.
const HISTORY_MAX: usize = 32;
/// Segments hinted from a head, newest last: those that hold the table itself, so cannot be hinted by it.
const HINTS_MAX: usize = 96;
/// What fits under the seal.
const PAYLOAD_BYTES_MAX: usize = HEAD_SEALED_BYTES_MAX - 64;
const WHAT: &str = "head payload";

/// The content of a vault at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadPayload {
    /// The folder `/`.
    pub(crate) root: TreeRoot,
    /// The segment table.
    pub(crate) table: TreeRoot,
    /// Pinned by the owner.
    pub(crate) coding: Option<Coding>,
    /// Holders of the hinted segments.
    pub(crate) nodes: Vec<NodeHint>,
    /// Segments that hold nodes of the table or the top of the drive, oldest first.
    pub(crate) hints: Vec<SegmentHint>,
    /// Who wrote this.
    pub(crate) device: DeviceId,
    /// When, by that device's clock.
    pub(crate) written_at: Timestamp,
    /// What it comes from.
    pub(crate) history: History,
}

/// A segment that is found without the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHint {
    pub(crate) id: SegmentId,
    pub(crate) info: SegmentInfo,
    /// The table has it too; if not, the next head's table will.
    pub(crate) in_table: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AncestorWire {
    #[prost(bytes = "bytes", tag = "1")]
    version: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    #[prost(uint64, tag = "3")]
    written_at: u64,
    #[prost(bytes = "bytes", tag = "4")]
    table: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HintWire {
    #[prost(bytes = "bytes", tag = "1")]
    segment: Bytes,
    #[prost(message, tag = "2")]
    info: Option<InfoWire>,
    #[prost(bool, tag = "3")]
    in_table: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    table: Bytes,
    #[prost(uint32, tag = "4")]
    k: u32,
    #[prost(uint32, tag = "5")]
    n: u32,
    #[prost(message, repeated, tag = "6")]
    nodes: Vec<NodeWire>,
    #[prost(message, repeated, tag = "7")]
    hints: Vec<HintWire>,
    #[prost(message, repeated, tag = "8")]
    history: Vec<AncestorWire>,
    #[prost(bytes = "bytes", tag = "9")]
    device: Bytes,
    #[prost(uint64, tag = "10")]
    written_at: u64,
    #[prost(bytes = "bytes", tag = "11")]
    marks: Bytes,
}

fn damaged(field: &'static str) -> Error {
    Error::HeadDamaged { reason: format!("{WHAT}: bad field `{field}`") }
}

fn tree(bytes: Bytes, field: &'static str) -> Result<TreeRoot, Error> {
    TreeRoot::from_bytes(&bytes).map_err(|_| damaged(field))
}

/// Heads of before there was anything to prune do not say what the tables of former states were: as if there were none.
fn table_of(ancestor: &Ancestor) -> Vec<u8> {
    if ancestor.table.is_empty() { Vec::new() } else { ancestor.table.to_bytes() }
}

impl HeadPayload {
    /// The content of a vault that nothing was stored in yet.
    pub(crate) fn empty() -> Self {
        Self {
            root: TreeRoot::EMPTY,
            table: TreeRoot::EMPTY,
            coding: None,
            nodes: Vec::new(),
            hints: Vec::new(),
            device: DeviceId([0; 8]),
            written_at: Timestamp(0),
            history: History::default(),
        }
    }

    /// Keeps the newest of history and hints, and the nodes that the hints name; less of all, if it does not fit in a
    /// head. What is left out costs a reader time: a walk to stewards, or a conflict copy where none is due.
    pub(crate) fn trim(&mut self) {
        let (mut history, mut hints, mut addresses) = (HISTORY_MAX, HINTS_MAX, NODE_ADDRESSES_MAX);
        self.trim_to(history, hints, addresses);
        while self.encode().len() > PAYLOAD_BYTES_MAX {
            if addresses > 2 {
                addresses /= 2;
            } else if history > 1 || self.hints.iter().any(|hint| hint.in_table) {
                (history, hints) = (history.div_ceil(2), self.hints.len() / 2);
            } else if addresses > 0 {
                addresses -= 1;
            } else {
                // What is left cannot be spared.
                return;
            }
            self.trim_to(history, hints, addresses);
        }
    }

    fn trim_to(&mut self, history_max: usize, hints_max: usize, addresses_max: usize) {
        self.history.trim(history_max);
        // A hint that the table lacks is never dropped: nothing else would lead there without asking stewards.
        let mut surplus = self.hints.len().saturating_sub(hints_max);
        self.hints.retain(|hint| {
            let drop = surplus > 0 && hint.in_table;
            surplus -= usize::from(drop);
            !drop
        });
        let named: std::collections::BTreeSet<NodeKey> =
            self.hints.iter().flat_map(|hint| hint.info.holders.iter().flatten().copied()).collect();
        self.nodes.retain(|hint| addresses_max > 0 && named.contains(&NodeKey::of(&hint.node)));
        self.nodes.iter_mut().for_each(|hint| hint.addresses.truncate(addresses_max));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: 1,
            root: self.root.to_bytes().into(),
            table: self.table.to_bytes().into(),
            k: self.coding.map_or(0, |coding| coding.k().into()),
            n: self.coding.map_or(0, |coding| coding.n().into()),
            nodes: self.nodes.iter().map(NodeHint::to_wire).collect(),
            hints: self
                .hints
                .iter()
                .map(|hint| HintWire {
                    segment: Bytes::copy_from_slice(hint.id.as_bytes()),
                    info: Some(hint.info.to_wire()),
                    in_table: hint.in_table,
                })
                .collect(),
            history: self
                .history
                .states
                .iter()
                .map(|ancestor| AncestorWire {
                    version: ancestor.version.to_bytes().into(),
                    root: ancestor.root.to_bytes().into(),
                    written_at: ancestor.written_at.0,
                    table: table_of(ancestor).into(),
                })
                .collect(),
            device: Bytes::copy_from_slice(&self.device.0),
            written_at: self.written_at.0,
            marks: self.history.marks.iter().flat_map(|mark| mark.0).collect::<Vec<u8>>().into(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Error> {
        let wire: Wire = prost::Message::decode(bytes).map_err(|_| damaged("encoding"))?;
        if wire.version != 1 {
            let reason = format!("{WHAT}: version {} is not known here; a newer commonhold reads it", wire.version);
            return Err(Error::HeadDamaged { reason });
        }
        let byte = |number: u32| u8::try_from(number).map_err(|_| damaged("coding"));
        let coding = match (byte(wire.k)?, byte(wire.n)?) {
            (0, 0) => None,
            (k, n) => Some(Coding::new(k, n).map_err(|_| damaged("coding"))?),
        };
        let hint = |wire: HintWire| {
            let id = wire.segment.as_ref().try_into().map(SegmentId::from_bytes).map_err(|_| damaged("hints"))?;
            let info = SegmentInfo::from_wire(wire.info.ok_or_else(|| damaged("hints"))?)?;
            Ok(SegmentHint { id, info, in_table: wire.in_table })
        };
        let ancestor = |wire: AncestorWire| {
            Ok(Ancestor {
                version: Version::from_bytes(wire.version).map_err(|_| damaged("history"))?,
                written_at: Timestamp(wire.written_at),
                root: tree(wire.root, "history")?,
                table: if wire.table.is_empty() { TreeRoot::EMPTY } else { tree(wire.table, "history")? },
            })
        };
        let (marks, rest) = wire.marks.as_chunks::<MARK_BYTES>();
        if !rest.is_empty() {
            return Err(damaged("marks"));
        }
        Ok(Self {
            root: tree(wire.root, "root")?,
            table: tree(wire.table, "table")?,
            coding,
            nodes: wire.nodes.into_iter().map(NodeHint::from_wire).collect::<Result<_, _>>()?,
            hints: wire.hints.into_iter().map(hint).collect::<Result<_, Error>>()?,
            history: History {
                states: wire.history.into_iter().map(ancestor).collect::<Result<_, Error>>()?,
                marks: marks.iter().copied().map(Mark).collect(),
            },
            device: DeviceId(wire.device.as_ref().try_into().map_err(|_| damaged("device"))?),
            written_at: Timestamp(wire.written_at),
        })
    }
}

#[cfg(test)]
mod tests;
