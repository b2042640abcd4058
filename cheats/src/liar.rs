//! A steward that lies: what it is given to keep never reaches the honest node that it is otherwise.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use commonhold_network::{RangeReply, ShardService, StoreBody};
use commonhold_node::{NodeService, Service, clock::Clock};
use commonhold_protocol::{
    Claim, ClaimLeaf, Head, Lease, Manifest, NetworkName, NodeId, Record, SegmentId, ShardIndex, SignedObject,
    SigningKey, Unverified, VaultId,
    ask::{ClaimStanding, HealthReport, Refusal, Request, Response, record_version},
    record::CLAIMS_PER_INDEX_MAX,
    shard_stream::GroupRange,
};

use crate::lie::Lie;

const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than readers wait for those that answer last, and shorter than they wait for any.
const LATE: Duration = Duration::from_secs(2);

/// What it was given first.
#[derive(Default)]
struct First {
    heads: HashMap<VaultId, Unverified<Head>>,
    leases: HashMap<VaultId, Unverified<Lease>>,
    records: HashMap<SegmentId, Record>,
}

/// A node that lies as a steward, in front of the honest one that it is otherwise.
pub struct Liar {
    lie: Lie,
    honest: Arc<NodeService>,
    network: NetworkName,
    first: Mutex<First>,
}

impl Liar {
    pub(crate) fn new(lie: Lie, honest: NodeService, network: NetworkName) -> Self {
        Self { lie, honest: Arc::new(honest), network, first: Mutex::default() }
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says that it did.
    fn kept(&self, objects: usize) -> Response {
        let outcome = if self.lie == Lie::Rejects { Err(Refusal::RecordLimit) } else { Ok(()) };
        Response::Kept(vec![outcome; objects])
    }

    fn note_records(&self, records: Vec<Record>) {
        let mut made_up = Vec::new();
        for record in records {
            let Ok(manifest) = record.manifest.clone().verify(&self.network) else { continue };
            let segment = manifest.id();
            if self.first().records.contains_key(&segment) {
                continue;
            }
            let record = match self.lie {
                Lie::MakesUp => Record { claims: self.false_claims(segment, manifest.coding.n()), ..record },
                Lie::Drops | Lie::Old | Lie::Rejects | Lie::Late => record,
            };
            self.first().records.insert(segment, record.clone());
            made_up.push(record);
        }
        if self.lie == Lie::MakesUp && !made_up.is_empty() {
            self.spread(made_up);
        }
    }

    /// As many claims as a record may hold, of holders that there are not.
    fn false_claims(&self, segment: SegmentId, n: u8) -> Vec<Claim> {
        let leaves: Vec<ClaimLeaf> = (0..n).map(|index| ClaimLeaf { segment, index: ShardIndex(index) }).collect();
        let now = Clock::default().now();
        let claims = (0..CLAIMS_PER_INDEX_MAX).flat_map(|holder| {
            // A key for each of its false holders of this segment.
            let id = self.honest.peer().node_id();
            let seed = blake3::hash(&[segment.as_bytes().as_slice(), id.as_bytes(), &[holder as u8]].concat());
            Claim::sign_batch(&leaves, now, &SigningKey::from_seed(seed.as_bytes()), &self.network)
        });
        claims.collect()
    }

    /// Tells everyone, at once.
    fn spread(&self, records: Vec<Record>) {
        let (peer, keep) = (self.honest.peer().clone(), Request::KeepRecords { records, lease: None });
        for (node, _) in peer.connected() {
            let (peer, keep) = (peer.clone(), keep.clone());
            tokio::spawn(async move { peer.ask(node, keep, PATIENCE).await });
        }
    }

    fn note_head(&self, head: Unverified<Head>) {
        if let Ok(vault) = head.clone().verify(&self.network).map(|head| head.vault) {
            self.first().heads.entry(vault).or_insert(head);
        }
    }

    fn note_lease(&self, lease: Option<Unverified<Lease>>) {
        let Some(lease) = lease else { return };
        if let Ok(vault) = lease.clone().verify(&self.network).map(|lease| lease.vault) {
            self.first().leases.entry(vault).or_insert(lease);
        }
    }

    fn heads(&self, vault: &VaultId) -> Response {
        let first = self.first();
        let (head, lease) = (first.heads.get(vault).cloned(), first.leases.get(vault).cloned());
        let (head, lease) = match self.lie {
            Lie::Drops | Lie::Rejects | Lie::Late => (None, None),
            Lie::Old => (head, lease),
            Lie::MakesUp => (head.and_then(forged), lease.and_then(forged)),
        };
        Response::Heads { heads: head.into_iter().collect(), lease }
    }

    fn records(&self, segments: &[SegmentId]) -> Response {
        let first = self.first();
        let record = |segment| first.records.get(segment).filter(|_| self.serves_records()).cloned();
        Response::Records(segments.iter().map(record).collect())
    }

    fn versions(&self, segments: &[SegmentId]) -> Response {
        let first = self.first();
        let version = |segment| first.records.get(segment).map(|record: &Record| record_version(&record.to_bytes()));
        Response::Versions(segments.iter().map(version).collect())
    }

    fn serves_records(&self) -> bool {
        matches!(self.lie, Lie::Old | Lie::MakesUp)
    }

    fn health(&self, segments: &[SegmentId]) -> Response {
        let report = match self.lie {
            Lie::MakesUp => Some(HealthReport { lost: 1, repairing: true, ..HealthReport::default() }),
            Lie::Drops | Lie::Old | Lie::Rejects | Lie::Late => None,
        };
        Response::Health(vec![report; segments.len()])
    }
}

/// The same but for its last byte, which is of its signature.
fn forged<T: SignedObject>(object: Unverified<T>) -> Option<Unverified<T>> {
    let mut bytes = object.to_bytes().to_vec();
    *bytes.last_mut()? ^= 1;
    Unverified::from_bytes(bytes.into()).ok()
}

impl Service for Liar {
    async fn answer(&self, from: NodeId, request: Request) -> Option<Response> {
        if self.lie == Lie::Late {
            if matches!(request, Request::FetchHeads { .. } | Request::FetchRecords { .. }) {
                tokio::time::sleep(LATE).await;
            }
            return self.honest.answer(from, request).await;
        }
        let said = match request {
            Request::KeepRecords { records, lease } => {
                let count = records.len();
                self.note_lease(lease);
                self.note_records(records);
                self.kept(count)
            }
            Request::FetchRecords { segments } => self.records(&segments),
            // Whoever believes that has nothing to send it.
            Request::LackRecords { .. } => Response::Lacking(Vec::new()),
            Request::KeepHead { head, lease } => {
                self.note_lease(lease);
                self.note_head(head);
                self.kept(1)
            }
            Request::FetchHeads { vault } => self.heads(&vault),
            Request::KeepLease { lease } => {
                self.note_lease(Some(lease));
                self.kept(1)
            }
            Request::FetchHealth { segments } => self.health(&segments),
            // It has all that anybody could send it, and knows every holder.
            Request::FetchVersions { segments } => self.versions(&segments),
            Request::Announce { shards } => Response::Standings(vec![ClaimStanding::Known; shards.len()]),
            Request::FetchDigests { .. } | Request::ListRecords { .. } => Response::Refused(Refusal::Other),
            // What a holder is asked for.
            Request::About | Request::Audit(_) | Request::KeepDrop { .. } | Request::Release { .. } => {
                return self.honest.answer(from, request).await;
            }
        };
        Some(said)
    }
}

impl ShardService for Liar {
    async fn store(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        self.honest.store(from, manifest, index, lease, body).await
    }

    async fn read(
        &self,
        from: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, Refusal> {
        self.honest.read(from, segment, index, ranges, want_manifest).await
    }
}
