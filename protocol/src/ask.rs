//! Small messages between peers: one question, one answer, each versioned and at most [`ASK_BYTES_MAX`] long.

use bytes::Bytes;

use self::health::HealthWire;
pub use self::{
    health::HealthReport,
    sweep::{ASK_RANGES_MAX, ClaimStanding, Entry, Range, RangeDigest, record_version},
};
use crate::{
    audit::{self, AuditAnswer, AuditAnswerWire, Challenge, ChallengeWire},
    claim::ClaimLeaf,
    drop::Drop,
    format::{self, FormatError, Repeated, array, check_count},
    head::Head,
    ids::{SegmentId, VaultId},
    lease::Lease,
    record::{self, Record, RecordWire},
    sign::Unverified,
    time::Timestamp,
};

mod health;
mod sweep;

/// The most bytes of a request or a response.
pub const ASK_BYTES_MAX: usize = 1 << 20;
/// The most records in one message; those of 255 shards need fewer to stay below [`ASK_BYTES_MAX`].
pub const ASK_RECORDS_MAX: usize = 64;
/// The most ids in one message.
pub const ASK_IDS_MAX: usize = 1024;
/// The most sibling heads in one answer.
pub const HEAD_SIBLINGS_MAX: usize = 8;
const WHAT_REQUEST: &str = "request";
const WHAT_RESPONSE: &str = "response";

/// A question to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What can you take, what time is it with you?
    About,
    /// As a steward, merge these records with yours and keep them; answered by [`Response::Kept`], in order.
    KeepRecords {
        /// At most [`ASK_RECORDS_MAX`].
        records: Vec<Record>,
        /// The newest lease of their vault, if the sender has one.
        lease: Option<Unverified<Lease>>,
    },
    /// Your records of these segments; answered by [`Response::Records`], in order.
    FetchRecords {
        /// At most [`ASK_RECORDS_MAX`].
        segments: Vec<SegmentId>,
    },
    /// Which of these segments have you no record of? Answered by [`Response::Lacking`]. Sweeps of nodes before range
    /// digests ask this.
    LackRecords {
        /// At most [`ASK_IDS_MAX`].
        segments: Vec<SegmentId>,
    },
    /// Merge this head with those that you keep; answered by [`Response::Kept`] with one outcome.
    KeepHead {
        /// The head.
        head: Unverified<Head>,
        /// The vault's newest lease, if the sender has one.
        lease: Option<Unverified<Lease>>,
    },
    /// The maximal heads and the lease that you know of a vault; answered by [`Response::Heads`].
    FetchHeads {
        /// The vault.
        vault: VaultId,
    },
    /// Keep this lease if it is newer than yours; answered by [`Response::Kept`].
    KeepLease {
        /// The lease.
        lease: Unverified<Lease>,
    },
    /// The owner drops segments, or takes a drop back; answered by [`Response::Kept`].
    KeepDrop {
        /// The drop.
        drop: Unverified<Drop>,
    },
    /// Prove that you hold these; answered by [`Response::Audited`].
    Audit(Challenge),
    /// As a steward, how are these segments? Answered by [`Response::Health`], in order.
    FetchHealth {
        /// At most [`ASK_IDS_MAX`].
        segments: Vec<SegmentId>,
    },
    /// I hold these no more: forget my claims; answered by [`Response::Kept`] with one outcome. That it is the holder
    /// who says so is known from the connection.
    Release {
        /// At most [`ASK_IDS_MAX`].
        shards: Vec<ClaimLeaf>,
    },
    /// What do you keep of these segments? Answered by [`Response::Versions`], in order.
    FetchVersions {
        /// At most [`ASK_IDS_MAX`].
        segments: Vec<SegmentId>,
    },
    /// Of the records whose stewards we both are: digests of those in these ranges? Answered by [`Response::Digests`],
    /// in order.
    FetchDigests {
        /// At most [`ASK_RANGES_MAX`].
        ranges: Vec<Range>,
    },
    /// Of the records whose stewards we both are: which in this range? Answered by [`Response::Entries`].
    ListRecords {
        /// The range.
        range: Range,
    },
    /// I hold these: what do you know of that? Answered by [`Response::Standings`], in order. That it is the holder who
    /// says so is known from the connection.
    Announce {
        /// At most [`ASK_IDS_MAX`].
        shards: Vec<ClaimLeaf>,
    },
}

/// Why a peer does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The pledge is used up.
    #[error("its pledge is used up")]
    PledgeFull,
    /// The disk has reached the space that is to stay free.
    #[error("its disk is full")]
    DiskFull,
    /// This vault has placed as much as one vault may.
    #[error("this vault has reached its limit there")]
    VaultLimit,
    /// The space for records is used up.
    #[error("its space for records is used up")]
    RecordLimit,
    /// Something in the message is not what it should be: unsigned, inconsistent, for another network.
    #[error("it does not accept the message as valid")]
    Invalid,
    /// The owner has dropped the segment.
    #[error("the segment was dropped by its owner")]
    Dropped,
    /// A newer version is known there.
    #[error("it knows a newer one")]
    Outdated,
    /// Too much at once; later.
    #[error("it is busy")]
    Busy,
    /// Not held or kept there.
    #[error("it does not have it")]
    Unknown,
    /// Held, but damaged on its disk; quarantined.
    #[error("its copy is damaged")]
    Damaged,
    /// Its disk failed to read or write.
    #[error("its disk has failed")]
    DiskError,
    /// It is stopping.
    #[error("it is stopping")]
    Stopping,
    /// A reason that this version does not know.
    #[error("it refused, for a reason that this version does not know")]
    Other,
    /// The vault's lease has run out, as far as is known there.
    #[error("the vault's lease has run out")]
    Expired,
    /// It was given up there, since another node keeps it, and whoever asks has not heard of that.
    #[error("it has given it up")]
    Released,
}

impl Refusal {
    const ALL: [(Self, u32); 15] = [
        (Self::PledgeFull, 1),
        (Self::DiskFull, 2),
        (Self::VaultLimit, 3),
        (Self::RecordLimit, 4),
        (Self::Invalid, 5),
        (Self::Dropped, 6),
        (Self::Outdated, 7),
        (Self::Busy, 8),
        (Self::Unknown, 9),
        (Self::Damaged, 10),
        (Self::DiskError, 11),
        (Self::Stopping, 12),
        (Self::Other, 13),
        (Self::Expired, 15),
        (Self::Released, 16),
    ];

    /// The number on the wire; never 0.
    pub fn code(self) -> u32 {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or(13, |(_, code)| *code)
    }

    /// The refusal with this number; [`Refusal::Other`] for one that is not known here.
    pub fn from_code(code: u32) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == code).map_or(Self::Other, |(refusal, _)| *refusal)
    }
}

/// What became of one object that was to be kept.
pub type Outcome = Result<(), Refusal>;

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::About`].
    About {
        /// Bytes of shards that the node would still take.
        free_bytes: u64,
        /// Shards that it holds: who holds many is asked for less of each at a time.
        shards: u64,
        /// The node's clock.
        clock: Timestamp,
        /// True if it keeps records for others.
        steward: bool,
        /// Its failure domain as it names it itself; believed in private networks only.
        domain: Option<String>,
    },
    /// One outcome for each object that was to be kept.
    Kept(Vec<Outcome>),
    /// The records asked for, in order; none where the node has none.
    Records(Vec<Option<Record>>),
    /// The ids asked about of which the node has no record.
    Lacking(Vec<SegmentId>),
    /// What the node knows of a vault.
    Heads {
        /// The maximal heads, at most [`HEAD_SIBLINGS_MAX`].
        heads: Vec<Unverified<Head>>,
        /// The newest lease.
        lease: Option<Unverified<Lease>>,
    },
    /// Nothing of what was asked was done.
    Refused(Refusal),
    /// To [`Request::Audit`].
    Audited(AuditAnswer),
    /// To [`Request::FetchHealth`], in order; none of those that the node is no steward of.
    Health(Vec<Option<HealthReport>>),
    /// To [`Request::FetchVersions`], in order; none where the node has no record.
    Versions(Vec<Option<[u8; 32]>>),
    /// To [`Request::FetchDigests`], in order.
    Digests(Vec<RangeDigest>),
    /// To [`Request::ListRecords`], by key: the first [`ASK_IDS_MAX`].
    Entries(Vec<Entry>),
    /// To [`Request::Announce`], in order.
    Standings(Vec<ClaimStanding>),
}

/// Longest domain name in an answer, in bytes.
const DOMAIN_BYTES_MAX: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
struct RequestWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "RequestKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21")]
    kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum RequestKind {
    #[prost(message, tag = "2")]
    About(Empty),
    #[prost(message, tag = "3")]
    KeepRecords(KeepRecordsWire),
    #[prost(bytes = "bytes", tag = "4")]
    FetchRecords(Bytes),
    #[prost(bytes = "bytes", tag = "5")]
    LackRecords(Bytes),
    #[prost(message, tag = "6")]
    KeepHead(KeepHeadWire),
    #[prost(bytes = "bytes", tag = "7")]
    FetchHeads(Bytes),
    #[prost(bytes = "bytes", tag = "8")]
    KeepLease(Bytes),
    #[prost(bytes = "bytes", tag = "9")]
    KeepDrop(Bytes),
    #[prost(message, tag = "10")]
    Audit(ChallengeWire),
    #[prost(bytes = "bytes", tag = "11")]
    FetchHealth(Bytes),
    #[prost(bytes = "bytes", tag = "12")]
    FetchVersions(Bytes),
    #[prost(bytes = "bytes", tag = "13")]
    FetchDigests(Bytes),
    #[prost(bytes = "bytes", tag = "14")]
    ListRecords(Bytes),
    #[prost(bytes = "bytes", tag = "15")]
    Announce(Bytes),
    #[prost(bytes = "bytes", tag = "21")]
    Release(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct KeepRecordsWire {
    #[prost(message, repeated, tag = "1")]
    records: Vec<RecordWire>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    lease: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeepHeadWire {
    #[prost(bytes = "bytes", tag = "1")]
    head: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    lease: Option<Bytes>,
}

/// What a request repeats: `KeepRecords` (3) its records, `Audit` (10) its shards.
const REQUEST_REPEATED: &[Repeated] = &[
    Repeated {
        tag: 3,
        count_max: 1,
        bytes_min: 0,
        inner: &[Repeated { tag: 1, count_max: ASK_RECORDS_MAX, bytes_min: 0, inner: record::REPEATED }],
    },
    Repeated { tag: 10, count_max: 1, bytes_min: 0, inner: audit::CHALLENGE_REPEATED },
];

/// What a response repeats: `Records` (4) the records that may be missing, `Heads` (6) the heads, `Audited` (8) the
/// answers, `Health` (9) the segments.
const RESPONSE_REPEATED: &[Repeated] = &[
    Repeated {
        tag: 4,
        count_max: 1,
        bytes_min: 0,
        inner: &[Repeated {
            tag: 1,
            count_max: ASK_RECORDS_MAX,
            bytes_min: 0,
            inner: &[Repeated { tag: 1, count_max: 1, bytes_min: 0, inner: record::REPEATED }],
        }],
    },
    Repeated {
        tag: 6,
        count_max: 1,
        bytes_min: 0,
        inner: &[Repeated { tag: 1, count_max: HEAD_SIBLINGS_MAX, bytes_min: 0, inner: &[] }],
    },
    Repeated { tag: 8, count_max: 1, bytes_min: 0, inner: audit::ANSWER_REPEATED },
    Repeated {
        tag: 9,
        count_max: 1,
        bytes_min: 0,
        inner: &[Repeated { tag: 1, count_max: ASK_IDS_MAX, bytes_min: 0, inner: &[] }],
    },
];

fn ids_to_bytes(ids: &[SegmentId]) -> Bytes {
    ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>().into()
}

fn ids_from_bytes(what: &'static str, bytes: &[u8], count_max: usize) -> Result<Vec<SegmentId>, FormatError> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(FormatError::Field { what, field: "segments" });
    }
    check_count(what, "segments", ids.len(), count_max)?;
    Ok(ids.iter().copied().map(SegmentId::from_bytes).collect())
}

impl Request {
    /// The request's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::About => RequestKind::About(Empty {}),
            Self::KeepRecords { records, lease } => RequestKind::KeepRecords(KeepRecordsWire {
                records: records.iter().map(Record::to_wire).collect(),
                lease: lease.as_ref().map(Unverified::to_bytes),
            }),
            Self::FetchRecords { segments } => RequestKind::FetchRecords(ids_to_bytes(segments)),
            Self::LackRecords { segments } => RequestKind::LackRecords(ids_to_bytes(segments)),
            Self::KeepHead { head, lease } => RequestKind::KeepHead(KeepHeadWire {
                head: head.to_bytes(),
                lease: lease.as_ref().map(Unverified::to_bytes),
            }),
            Self::FetchHeads { vault } => RequestKind::FetchHeads(Bytes::copy_from_slice(vault.as_bytes())),
            Self::KeepLease { lease } => RequestKind::KeepLease(lease.to_bytes()),
            Self::KeepDrop { drop } => RequestKind::KeepDrop(drop.to_bytes()),
            Self::Audit(challenge) => RequestKind::Audit(challenge.to_wire()),
            Self::FetchHealth { segments } => RequestKind::FetchHealth(ids_to_bytes(segments)),
            Self::Release { shards } => RequestKind::Release(sweep::leaves_to_bytes(shards)),
            Self::FetchVersions { segments } => RequestKind::FetchVersions(ids_to_bytes(segments)),
            Self::FetchDigests { ranges } => RequestKind::FetchDigests(sweep::ranges_to_bytes(ranges)),
            Self::ListRecords { range } => RequestKind::ListRecords(sweep::ranges_to_bytes(&[*range])),
            Self::Announce { shards } => RequestKind::Announce(sweep::leaves_to_bytes(shards)),
        };
        prost::Message::encode_to_vec(&RequestWire { version: 1, kind: Some(kind) })
    }

    /// Reads a request of at most [`ASK_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let what = WHAT_REQUEST;
        let wire: RequestWire = format::decode(what, bytes, ASK_BYTES_MAX, REQUEST_REPEATED)?;
        format::check_version(what, wire.version, 1)?;
        Ok(match wire.kind.ok_or(FormatError::Field { what, field: "kind" })? {
            RequestKind::About(Empty {}) => Self::About,
            RequestKind::KeepRecords(KeepRecordsWire { records, lease }) => {
                check_count(what, "records", records.len(), ASK_RECORDS_MAX)?;
                Self::KeepRecords {
                    records: records.into_iter().map(Record::from_wire).collect::<Result<_, _>>()?,
                    lease: lease.map(Unverified::from_bytes).transpose()?,
                }
            }
            RequestKind::FetchRecords(ids) => {
                Self::FetchRecords { segments: ids_from_bytes(what, &ids, ASK_RECORDS_MAX)? }
            }
            RequestKind::LackRecords(ids) => Self::LackRecords { segments: ids_from_bytes(what, &ids, ASK_IDS_MAX)? },
            RequestKind::KeepHead(KeepHeadWire { head, lease }) => Self::KeepHead {
                head: Unverified::from_bytes(head)?,
                lease: lease.map(Unverified::from_bytes).transpose()?,
            },
            RequestKind::FetchHeads(vault) => {
                Self::FetchHeads { vault: VaultId::from_bytes(array(what, "vault", &vault)?) }
            }
            RequestKind::KeepLease(lease) => Self::KeepLease { lease: Unverified::from_bytes(lease)? },
            RequestKind::KeepDrop(drop) => Self::KeepDrop { drop: Unverified::from_bytes(drop)? },
            RequestKind::Audit(challenge) => Self::Audit(Challenge::from_wire(challenge)?),
            RequestKind::FetchHealth(ids) => Self::FetchHealth { segments: ids_from_bytes(what, &ids, ASK_IDS_MAX)? },
            RequestKind::Release(leaves) => Self::Release { shards: sweep::leaves_from_bytes(&leaves)? },
            RequestKind::FetchVersions(ids) => {
                Self::FetchVersions { segments: ids_from_bytes(what, &ids, ASK_IDS_MAX)? }
            }
            RequestKind::FetchDigests(ranges) => {
                Self::FetchDigests { ranges: sweep::ranges_from_bytes(&ranges, ASK_RANGES_MAX)? }
            }
            RequestKind::ListRecords(range) => {
                let ranges = sweep::ranges_from_bytes(&range, 1)?;
                let range = ranges.first().copied().ok_or(FormatError::Field { what, field: "ranges" })?;
                Self::ListRecords { range }
            }
            RequestKind::Announce(leaves) => Self::Announce { shards: sweep::leaves_from_bytes(&leaves)? },
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "ResponseKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    kind: Option<ResponseKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ResponseKind {
    #[prost(message, tag = "2")]
    About(AboutWire),
    #[prost(message, tag = "3")]
    Kept(KeptWire),
    #[prost(message, tag = "4")]
    Records(RecordsWire),
    #[prost(bytes = "bytes", tag = "5")]
    Lacking(Bytes),
    #[prost(message, tag = "6")]
    Heads(HeadsWire),
    #[prost(uint32, tag = "7")]
    Refused(u32),
    #[prost(message, tag = "8")]
    Audited(AuditAnswerWire),
    #[prost(message, tag = "9")]
    Health(HealthWire),
    #[prost(bytes = "bytes", tag = "10")]
    Versions(Bytes),
    #[prost(bytes = "bytes", tag = "11")]
    Digests(Bytes),
    #[prost(bytes = "bytes", tag = "12")]
    Entries(Bytes),
    #[prost(bytes = "bytes", tag = "13")]
    Standings(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AboutWire {
    #[prost(uint64, tag = "1")]
    free_bytes: u64,
    #[prost(uint64, tag = "2")]
    clock: u64,
    #[prost(bool, tag = "3")]
    steward: bool,
    #[prost(string, optional, tag = "4")]
    domain: Option<String>,
    #[prost(uint64, tag = "5")]
    shards: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeptWire {
    /// 0: kept; else the refusal's code.
    #[prost(uint32, repeated, tag = "1")]
    outcomes: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MaybeRecordWire {
    #[prost(message, optional, tag = "1")]
    record: Option<RecordWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecordsWire {
    #[prost(message, repeated, tag = "1")]
    records: Vec<MaybeRecordWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeadsWire {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    heads: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    lease: Option<Bytes>,
}

impl Response {
    /// The response's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::About { free_bytes, shards, clock, steward, domain } => ResponseKind::About(AboutWire {
                free_bytes: *free_bytes,
                shards: *shards,
                clock: clock.0,
                steward: *steward,
                domain: domain.clone(),
            }),
            Self::Kept(outcomes) => ResponseKind::Kept(KeptWire {
                outcomes: outcomes.iter().map(|outcome| outcome.map_or_else(Refusal::code, |()| 0)).collect(),
            }),
            Self::Records(records) => ResponseKind::Records(RecordsWire {
                records: records
                    .iter()
                    .map(|record| MaybeRecordWire { record: record.as_ref().map(Record::to_wire) })
                    .collect(),
            }),
            Self::Lacking(segments) => ResponseKind::Lacking(ids_to_bytes(segments)),
            Self::Heads { heads, lease } => ResponseKind::Heads(HeadsWire {
                heads: heads.iter().map(Unverified::to_bytes).collect(),
                lease: lease.as_ref().map(Unverified::to_bytes),
            }),
            Self::Refused(refusal) => ResponseKind::Refused(refusal.code()),
            Self::Audited(answer) => ResponseKind::Audited(answer.to_wire()),
            Self::Health(segments) => {
                let segments = segments.iter().map(|health| health.unwrap_or_default().to_wire()).collect();
                ResponseKind::Health(HealthWire { segments })
            }
            Self::Versions(versions) => ResponseKind::Versions(sweep::versions_to_bytes(versions)),
            Self::Digests(digests) => ResponseKind::Digests(sweep::digests_to_bytes(digests)),
            Self::Entries(entries) => ResponseKind::Entries(sweep::entries_to_bytes(entries)),
            Self::Standings(standings) => ResponseKind::Standings(sweep::standings_to_bytes(standings)),
        };
        prost::Message::encode_to_vec(&ResponseWire { version: 1, kind: Some(kind) })
    }

    /// Reads a response of at most [`ASK_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let what = WHAT_RESPONSE;
        let wire: ResponseWire = format::decode(what, bytes, ASK_BYTES_MAX, RESPONSE_REPEATED)?;
        format::check_version(what, wire.version, 1)?;
        Ok(match wire.kind.ok_or(FormatError::Field { what, field: "kind" })? {
            ResponseKind::About(AboutWire { free_bytes, shards, clock, steward, domain }) => {
                if domain.as_ref().is_some_and(|name| name.len() > DOMAIN_BYTES_MAX) {
                    return Err(FormatError::Field { what, field: "domain" });
                }
                Self::About { free_bytes, shards, clock: Timestamp(clock), steward, domain }
            }
            ResponseKind::Kept(KeptWire { outcomes }) => {
                check_count(what, "outcomes", outcomes.len(), ASK_RECORDS_MAX)?;
                let outcome = |code| if code == 0 { Ok(()) } else { Err(Refusal::from_code(code)) };
                Self::Kept(outcomes.into_iter().map(outcome).collect())
            }
            ResponseKind::Records(RecordsWire { records }) => {
                check_count(what, "records", records.len(), ASK_RECORDS_MAX)?;
                let record = |wire: MaybeRecordWire| wire.record.map(Record::from_wire).transpose();
                Self::Records(records.into_iter().map(record).collect::<Result<_, _>>()?)
            }
            ResponseKind::Lacking(ids) => Self::Lacking(ids_from_bytes(what, &ids, ASK_IDS_MAX)?),
            ResponseKind::Heads(HeadsWire { heads, lease }) => {
                check_count(what, "heads", heads.len(), HEAD_SIBLINGS_MAX)?;
                Self::Heads {
                    heads: heads.into_iter().map(Unverified::from_bytes).collect::<Result<_, _>>()?,
                    lease: lease.map(Unverified::from_bytes).transpose()?,
                }
            }
            ResponseKind::Refused(code) => Self::Refused(Refusal::from_code(code)),
            ResponseKind::Audited(answer) => Self::Audited(AuditAnswer::from_wire(answer)?),
            ResponseKind::Health(HealthWire { segments }) => {
                check_count(what, "segments", segments.len(), ASK_IDS_MAX)?;
                Self::Health(segments.into_iter().map(HealthReport::from_wire).collect::<Result<_, _>>()?)
            }
            ResponseKind::Versions(versions) => Self::Versions(sweep::versions_from_bytes(&versions)?),
            ResponseKind::Digests(digests) => Self::Digests(sweep::digests_from_bytes(&digests)?),
            ResponseKind::Entries(entries) => Self::Entries(sweep::entries_from_bytes(&entries)?),
            ResponseKind::Standings(standings) => Self::Standings(sweep::standings_from_bytes(&standings)?),
        })
    }
}
