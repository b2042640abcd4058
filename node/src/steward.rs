//! The steward: answers the questions of other nodes and clients about records, heads, leases and drops.
//!
//! Everything is verified for this network before it is believed, and merged by the rules of `commonhold-policy`; what
//! is answered with "kept" is on disk and synced. A change is made from a state that was read, and only done if that
//! state still stands, so that no lock is held while signatures are checked. Never asks anything of others: that is
//! the sweep's work.
//!
//! All calls block; async callers use `spawn_blocking`.

mod drops;
mod heads;
mod keep;
mod leases;
mod proving;
mod released;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use commonhold_policy::{
    Domain,
    admission::{Growth, RecordAdmission},
};
use commonhold_protocol::{
    NetworkName, NodeId, Record, SegmentId, VaultId, Verifier,
    ask::{ASK_BYTES_MAX, Refusal, Request, Response, record_version},
};

use self::{proving::WaitingClaims, released::Released};
use crate::{
    auditor::{AuditorHandle, News},
    clock::Clock,
    recent::Recent,
    records::{Change, Committed, ENTRY_BYTES, Kind, RecordStore, RecordsError},
};

/// Live records may use this part of the space for logs (in percent); the rest is for what is dead but not yet
/// compacted.
const LIVE_PERCENT: u64 = 60;
/// Bytes of records in one answer; below [`ASK_BYTES_MAX`] by more than what frames them.
const ANSWER_RECORD_BYTES_MAX: usize = ASK_BYTES_MAX - (32 << 10);
/// The most records on trial that are told to other stewards.
const FIRST_HAND_MAX: usize = 256;
/// How often a change is tried again because another one came between; each time someone else made progress.
const ATTEMPTS_MAX: usize = 8;

/// The tag of a segment's record, or of a held segment's drop, whose newest word is that it is not wanted.
pub(crate) const TAG_DROPPED: u8 = 1;
/// The tag of all else.
pub(crate) const TAG_WANTED: u8 = 0;
/// The tag of a segment's record that has not proven yet that it is worth keeping, see [`proving`].
pub(crate) const TAG_UNPROVEN: u8 = 3;

/// What a steward has to know of the shards that its node holds.
pub trait Holdings: Send + Sync {
    /// Bytes of shards that the node would still take.
    fn free_bytes(&self) -> u64;
    /// Shards that are held here.
    fn shards(&self) -> u64;
    /// Whose segment it is, if shards of it are held here.
    fn vault_of(&self, segment: &SegmentId) -> Option<VaultId>;
    /// The vaults that shards are held of.
    fn vaults(&self) -> Vec<VaultId>;
}

/// Who asks, as far as limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The peer.
    pub node: NodeId,
    /// Its failure domain.
    pub domain: Domain,
    /// It says that it is a steward itself.
    pub is_steward: bool,
}

/// The steward.
pub struct Steward {
    verifier: Arc<Verifier>,
    domain: Option<String>,
    records: Arc<RecordStore>,
    holdings: Arc<dyn Holdings>,
    admission: Mutex<RecordAdmission>,
    /// Claims for which their records have no room now.
    waiting: Mutex<WaitingClaims>,
    /// Records that somebody brought who is no steward, few of each domain.
    first_hand: Mutex<Recent<SegmentId, ()>>,
    /// Hashes of leases that were kept, or were older than what is kept.
    seen_leases: Mutex<VecDeque<[u8; 32]>>,
    /// Which state of a vault's lease a node was told.
    told_leases: Mutex<BTreeMap<(NodeId, VaultId), u64>>,
    /// Vaults whose lease and its grace are over, as far as is known.
    ended: Mutex<BTreeSet<VaultId>>,
    clock: Arc<Clock>,
    /// Claims that their holders took back.
    released: Mutex<Released>,
    /// Hears of each change of a segment's record.
    auditor: OnceLock<AuditorHandle>,
}

/// A change with what admission counted for it, to be taken back if the change is not done.
struct Admitted {
    change: Change,
    growth: Growth,
}

/// Why an object is not kept.
#[derive(Debug)]
enum KeepError {
    /// The rules say no.
    Refused(Refusal),
    /// The store cannot.
    Records(RecordsError),
}

impl From<Refusal> for KeepError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RecordsError> for KeepError {
    fn from(error: RecordsError) -> Self {
        Self::Records(error)
    }
}

impl KeepError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::Records(error) => {
                tracing::warn!(%error, "a record cannot be kept");
                error.refusal()
            }
        }
    }
}

impl Steward {
    /// A steward over `records`, with what they hold already counted against the limits.
    pub fn new(
        network: NetworkName,
        domain: Option<String>,
        records: Arc<RecordStore>,
        holdings: Arc<dyn Holdings>,
        clock: Arc<Clock>,
    ) -> Result<Self, RecordsError> {
        let mut admission = RecordAdmission::new(records.bytes_max() / 100 * LIVE_PERCENT);
        for kind in [Kind::Segment, Kind::Heads, Kind::Lease, Kind::Drop] {
            records.for_each(kind, |owner, tag, bytes| {
                admission.count(owner, bytes);
                if tag == TAG_UNPROVEN {
                    admission.count_unproven(bytes as i64);
                }
            })?;
        }
        Ok(Self {
            verifier: Arc::new(Verifier::new(network)),
            domain,
            records,
            holdings,
            admission: Mutex::new(admission),
            waiting: Mutex::default(),
            first_hand: Mutex::new(Recent::new(FIRST_HAND_MAX)),
            seen_leases: Mutex::default(),
            told_leases: Mutex::default(),
            ended: Mutex::default(),
            clock,
            released: Mutex::default(),
            auditor: OnceLock::new(),
        })
    }

    /// Who is to hear of changed records from now on; only the first call counts.
    pub fn set_auditor(&self, auditor: AuditorHandle) {
        let _ = self.auditor.set(auditor);
    }

    /// What verifies here: signatures that the steward checked need not be checked by others of the same node.
    pub(crate) fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Answers a question.
    pub fn answer(&self, sender: &Sender, request: Request) -> Response {
        match request {
            Request::About => Response::About {
                free_bytes: self.holdings.free_bytes(),
                shards: self.holdings.shards(),
                clock: self.clock.now(),
                steward: true,
                domain: self.domain.clone(),
            },
            Request::KeepRecords { records, lease } => {
                self.keep_lease_beside(sender, lease);
                Response::Kept(self.keep_records(sender, records))
            }
            Request::FetchRecords { segments } => match self.fetch_records(&segments) {
                Ok(records) => Response::Records(records),
                Err(error) => Response::Refused(KeepError::from(error).refusal()),
            },
            Request::LackRecords { segments } => match self.lacking(segments) {
                Ok(segments) => Response::Lacking(segments),
                Err(error) => Response::Refused(KeepError::from(error).refusal()),
            },
            Request::KeepHead { head, lease } => {
                self.keep_lease_beside(sender, lease);
                Response::Kept(vec![self.keep_head(sender, head)])
            }
            Request::FetchHeads { vault } => match self.fetch_heads(&vault) {
                Ok((heads, lease)) => Response::Heads { heads, lease },
                Err(error) => Response::Refused(KeepError::from(error).refusal()),
            },
            Request::KeepLease { lease } => Response::Kept(vec![self.keep_lease(sender, lease)]),
            Request::KeepDrop { drop } => Response::Kept(vec![self.keep_drop(sender, drop)]),
            Request::Release { shards } => Response::Kept(vec![self.forget_claims(sender, &shards)]),
            Request::FetchVersions { segments } => match self.versions(&segments) {
                Ok(versions) => Response::Versions(versions),
                Err(error) => Response::Refused(KeepError::from(error).refusal()),
            },
            // The holder's, the auditor's and the ledger's to answer.
            Request::Audit(_)
            | Request::FetchHealth { .. }
            | Request::Announce { .. }
            | Request::FetchDigests { .. }
            | Request::ListRecords { .. } => Response::Refused(Refusal::Other),
        }
    }

    /// The records of these segments, as many as fit one answer: a shorter list says that the rest is to be asked for
    /// again.
    pub(crate) fn fetch_records(&self, segments: &[SegmentId]) -> Result<Vec<Option<Record>>, RecordsError> {
        let mut records = Vec::with_capacity(segments.len());
        let mut bytes = 0;
        for segment in segments {
            let kept = match self.records.get(Kind::Segment, segment.as_bytes()) {
                Err(error @ RecordsError::Damaged { .. }) => {
                    tracing::warn!(%segment, %error, "a record is damaged; other stewards have it");
                    None
                }
                kept => kept?,
            };
            bytes += kept.as_ref().map_or(0, |kept| kept.body.len());
            if bytes > ANSWER_RECORD_BYTES_MAX {
                break;
            }
            records.push(kept.and_then(|kept| Record::from_bytes(kept.body.into()).ok()));
        }
        Ok(records)
    }

    fn lacking(&self, mut segments: Vec<SegmentId>) -> Result<Vec<SegmentId>, RecordsError> {
        let mut failed = None;
        segments.retain(|segment| match self.records.summary(Kind::Segment, segment.as_bytes()) {
            Ok(kept) => kept.is_none(),
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(segments), Err)
    }

    /// What is kept of these segments; none where there is nothing, or nothing that can be read.
    fn versions(&self, segments: &[SegmentId]) -> Result<Vec<Option<[u8; 32]>>, RecordsError> {
        let version = |segment: &SegmentId| match self.records.get(Kind::Segment, segment.as_bytes()) {
            Err(RecordsError::Damaged { .. }) => Ok(None),
            kept => Ok(kept?.map(|kept| record_version(&kept.body))),
        };
        segments.iter().map(version).collect()
    }

    /// Counts a change against the limits of its vault and of its sender.
    fn admit(&self, sender: &Sender, change: Change, before: u64) -> Result<Admitted, Refusal> {
        let after = change.body.as_ref().map_or(0, |body| body.len() as u64 + ENTRY_BYTES);
        let growth = Growth { before, after, unproven: self.unproven_growth(&change, before, after) };
        self.admission().admit(self.clock.steady(), &sender.domain, change.owner, growth)?;
        Ok(Admitted { change, growth })
    }

    /// Does what was admitted, and tells the auditor; what could not be done is no longer counted. True for each that
    /// was done.
    fn commit(&self, sender: &Sender, admitted: Vec<Admitted>) -> Result<Vec<bool>, RecordsError> {
        let (changes, counted): (Vec<_>, Vec<_>) =
            admitted.into_iter().map(|Admitted { change, growth }| (change, growth)).unzip();
        let committed = self.records.commit(&changes);
        let mut admission = self.admission();
        let mut take_back = |change: &Change, Growth { before, after, unproven }: Growth| {
            admission.count_unproven(-unproven);
            match after.checked_sub(before) {
                Some(growth) => admission.forget(change.owner, growth),
                None => admission.count(change.owner, before - after),
            }
        };
        match committed {
            Ok(committed) => {
                let done = changes.iter().zip(counted).zip(committed).map(|((change, counted), committed)| {
                    let done = matches!(committed, Committed::Done { .. });
                    if done {
                        self.tell_auditor(sender, change);
                    } else {
                        take_back(change, counted);
                    }
                    done
                });
                Ok(done.collect())
            }
            Err(error) => {
                changes.iter().zip(counted).for_each(|(change, counted)| take_back(change, counted));
                Err(error)
            }
        }
    }

    fn tell_auditor(&self, sender: &Sender, change: &Change) {
        if change.kind == Kind::Segment
            && let Some(auditor) = self.auditor.get()
        {
            auditor.tell(News::Record { segment: SegmentId::from_bytes(change.key), from: Some(sender.node) });
        }
    }

    /// Does one change, from a state that `decide` reads; again if another came between.
    fn change_one(
        &self,
        sender: &Sender,
        mut decide: impl FnMut() -> Result<Option<(Change, u64)>, KeepError>,
    ) -> Result<(), KeepError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some((change, before)) = decide()? else { return Ok(()) };
            let admitted = self.admit(sender, change, before)?;
            if self.commit(sender, vec![admitted])?.first() == Some(&true) {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    /// The vaults that this node holds shards of, or keeps a lease of.
    pub(crate) fn vaults(&self) -> Result<BTreeSet<VaultId>, RecordsError> {
        let mut vaults: BTreeSet<VaultId> = self.holdings.vaults().into_iter().collect();
        self.each_page(Kind::Lease, |page| {
            vaults.extend(page.iter().map(|summary| VaultId::from_bytes(summary.key)));
            Ok(true)
        })?;
        Ok(vaults)
    }

    /// The records.
    pub(crate) fn records(&self) -> &RecordStore {
        &self.records
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    fn admission(&self) -> MutexGuard<'_, RecordAdmission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several byte strings in one body: each behind its length (u32, little-endian).
fn join_parts(parts: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(&(part.len() as u32).to_le_bytes());
        body.extend_from_slice(&part);
    }
    body
}

/// What [`join_parts`] joined; a broken tail is left out.
fn split_parts(body: Vec<u8>) -> Vec<Bytes> {
    let mut rest = Bytes::from(body);
    let mut parts = Vec::new();
    while let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) {
        let _ = rest.split_to(4);
        if length > rest.len() {
            break;
        }
        parts.push(rest.split_to(length));
    }
    parts
}
