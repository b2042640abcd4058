//! A steward's answer to how a segment is.

use super::WHAT_RESPONSE;
use crate::{format::FormatError, time::Timestamp};

/// How a steward sees a segment: each of its n shards is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Held, as far as the steward's own audits say.
    pub healthy: u8,
    /// Claimed, but not audited by this steward yet, or held by a node that is away for now.
    pub suspect: u8,
    /// Lost, or claimed by nobody.
    pub lost: u8,
    /// When the steward last saw a shard rebuilt.
    pub repaired_at: Option<Timestamp>,
    /// True while the steward itself rebuilds shards of it.
    pub repairing: bool,
    /// True if shards are missing and the steward knows no node that could take one.
    pub resting: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthWire {
    #[prost(message, repeated, tag = "1")]
    pub(super) segments: Vec<HealthReportWire>,
}

/// All zero: not a steward of it. A segment has at least one shard, so its counts are never all zero.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct HealthReportWire {
    #[prost(uint32, tag = "1")]
    healthy: u32,
    #[prost(uint32, tag = "2")]
    suspect: u32,
    #[prost(uint32, tag = "3")]
    lost: u32,
    /// 0: never.
    #[prost(uint64, tag = "4")]
    repaired_at: u64,
    #[prost(bool, tag = "5")]
    repairing: bool,
    #[prost(bool, tag = "6")]
    resting: bool,
}

impl HealthReport {
    pub(super) fn to_wire(self) -> HealthReportWire {
        HealthReportWire {
            healthy: self.healthy.into(),
            suspect: self.suspect.into(),
            lost: self.lost.into(),
            repaired_at: self.repaired_at.map_or(0, |at| at.0),
            repairing: self.repairing,
            resting: self.resting,
        }
    }

    pub(super) fn from_wire(wire: HealthReportWire) -> Result<Option<Self>, FormatError> {
        let count = |field, count| u8::try_from(count).map_err(|_| FormatError::Field { what: WHAT_RESPONSE, field });
        let health = Self {
            healthy: count("healthy", wire.healthy)?,
            suspect: count("suspect", wire.suspect)?,
            lost: count("lost", wire.lost)?,
            repaired_at: (wire.repaired_at > 0).then_some(Timestamp(wire.repaired_at)),
            repairing: wire.repairing,
            resting: wire.resting,
        };
        Ok((health != Self::default()).then_some(health))
    }
}
