mod proving;

use std::collections::BTreeSet;

use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, DeviceId, Drop, DropKind, Head, Lease, Manifest, ShardIndex, ShardRoot, SignedObject,
    SigningKey, Timestamp, Unverified, Verified, Version, ask::record_version,
};
use ed25519_dalek::Signer;

use super::*;

const BYTES_MAX: u64 = 64 << 20;
const HOLDERS: u8 = 6;

/// What is held, as the tests say.
#[derive(Default)]
struct Held(Mutex<BTreeSet<(SegmentId, VaultId)>>);

impl Holdings for Held {
    fn free_bytes(&self) -> u64 {
        1 << 30
    }

    fn shards(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn vault_of(&self, segment: &SegmentId) -> Option<VaultId> {
        self.0.lock().unwrap().iter().find(|(held, _)| held == segment).map(|(_, vault)| *vault)
    }

    fn vaults(&self) -> Vec<VaultId> {
        self.0.lock().unwrap().iter().map(|(_, vault)| *vault).collect()
    }
}

struct World {
    folder: tempfile::TempDir,
    steward: Steward,
    held: Arc<Held>,
}

fn network() -> NetworkName {
    "test".parse().unwrap()
}

fn other_network() -> NetworkName {
    "other".parse().unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

fn holder_id(number: u8) -> NodeId {
    NodeId::from_bytes(key(number).public())
}

fn vault_of(key: &SigningKey) -> VaultId {
    VaultId::from_bytes(key.public())
}

fn sender() -> Sender {
    Sender { node: NodeId::from_bytes([9; 32]), domain: Domain::new("203.0.113.0/24"), is_steward: false }
}

fn open(folder: &tempfile::TempDir, held: &Arc<Held>) -> Steward {
    let (records, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    Steward::new(network(), Some("rack-1".to_owned()), records, held.clone(), Arc::default()).unwrap()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let held = Arc::new(Held::default());
        Self { steward: open(&folder, &held), folder, held }
    }

    /// The same folder, opened again: as after kill -9.
    fn restart(self) -> Self {
        let Self { folder, steward, held } = self;
        drop(steward);
        Self { steward: open(&folder, &held), folder, held }
    }

    fn ask(&self, request: Request) -> Response {
        // Over the wire and back, as it would come.
        let request = Request::from_bytes(request.to_bytes().into()).unwrap();
        Response::from_bytes(self.steward.answer(&sender(), request).to_bytes().into()).unwrap()
    }

    fn keep(&self, record: Record) -> Result<(), Refusal> {
        kept(self.ask(Request::KeepRecords { records: vec![record], lease: None }))
    }

    fn record(&self, segment: SegmentId) -> Option<Record> {
        match self.ask(Request::FetchRecords { segments: vec![segment] }) {
            Response::Records(mut records) => records.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn heads(&self, vault: VaultId) -> (Vec<Unverified<Head>>, Option<Unverified<Lease>>) {
        match self.ask(Request::FetchHeads { vault }) {
            Response::Heads { heads, lease } => (heads, lease),
            other => panic!("{other:?}"),
        }
    }
}

fn kept(response: Response) -> Result<(), Refusal> {
    match response {
        Response::Kept(outcomes) => {
            assert_eq!(outcomes.len(), 1);
            outcomes[0]
        }
        other => panic!("{other:?}"),
    }
}

fn manifest(owner: &SigningKey, salt: u8) -> Manifest {
    let coding = Coding::new(3, HOLDERS).unwrap();
    let roots = (0..HOLDERS).map(|index| ShardRoot::from_bytes([index ^ salt; 32])).collect();
    Manifest { vault: vault_of(owner), salt: [salt; 16], coding, length: 100_000, roots }
}

/// A claim of shard `index` by the node with key `holder`.
fn claim(segment: SegmentId, index: u8, holder: u8, at: u64, network: &NetworkName) -> Claim {
    let leaf = ClaimLeaf { segment, index: ShardIndex(index) };
    Claim::sign_batch(&[leaf], Timestamp(at), &key(holder), network).pop().unwrap()
}

/// A segment of `owner`, each shard claimed by a holder of its own.
fn record(owner: &SigningKey, salt: u8) -> (SegmentId, Record) {
    let manifest = Verified::sign(manifest(owner, salt), owner, &network());
    let segment = manifest.id();
    let claims = (0..HOLDERS).map(|index| claim(segment, index, 100 + index, 1, &network())).collect();
    (segment, Record { manifest: manifest.to_unverified(), claims, drop: None })
}

/// `object` with a signature that someone else made over exactly its bytes.
fn forge<T: SignedObject>(object: &T, forger: u8) -> Unverified<T> {
    let payload = object.encode();
    let message = [T::CONTEXT.as_bytes(), &[0], network().as_str().as_bytes(), &[0], &payload].concat();
    let signature = ed25519_dalek::SigningKey::from_bytes(&[forger; 32]).sign(&message).to_bytes();
    let mut envelope = vec![0x0a];
    let mut length = payload.len();
    while length >= 0x80 {
        envelope.push(length as u8 | 0x80);
        length >>= 7;
    }
    envelope.push(length as u8);
    envelope.extend_from_slice(&payload);
    envelope.extend_from_slice(&[0x12, 64]);
    envelope.extend_from_slice(&signature);
    Unverified::from_bytes(envelope.into()).unwrap()
}

fn head(owner: &SigningKey, device: u8, counter: u64) -> Head {
    let version = Version::from_counters([(DeviceId([device; 8]), counter)]);
    Head { vault: vault_of(owner), version, nonce: [device; 24], sealed: Bytes::from(vec![counter as u8; 100]) }
}

fn drop_of(owner: &SigningKey, counter: u64, kind: DropKind, segments: &[SegmentId]) -> Drop {
    Drop { vault: vault_of(owner), counter, kind, segments: segments.to_vec() }
}

fn signed<T: SignedObject>(object: T, owner: &SigningKey) -> Unverified<T> {
    Verified::sign(object, owner, &network()).to_unverified()
}

#[test]
fn forged_objects_are_well_formed_so_that_only_their_signer_is_wrong() {
    let owner = key(1);
    let own = forge(&manifest(&owner, 1), 1);
    assert!(own.verify(&network()).is_ok());
    assert!(forge(&manifest(&owner, 1), 2).verify(&network()).is_err());
}

#[test]
fn a_record_is_kept_and_found_again_after_a_restart() {
    let (segment, sent) = record(&key(1), 1);
    let world = World::new();
    assert_eq!(world.record(segment), None);
    let version = |world: &World| world.ask(Request::FetchVersions { segments: vec![segment] });
    assert_eq!(version(&world), Response::Versions(vec![None]));
    world.keep(sent.clone()).unwrap();
    let world = world.restart();
    assert_eq!(world.record(segment), Some(sent.clone()));
    assert_eq!(version(&world), Response::Versions(vec![Some(record_version(&sent.to_bytes()))]));
    // The same again changes nothing, not even the log.
    let sequence = world.steward.records().sequence();
    world.keep(sent).unwrap();
    assert_eq!(world.steward.records().sequence(), sequence);
}

#[test]
fn a_record_grows_by_the_claims_that_arrive_later() {
    let (segment, whole) = record(&key(1), 1);
    let world = World::new();
    world.keep(Record { claims: whole.claims[..2].to_vec(), ..whole.clone() }).unwrap();
    world.keep(Record { claims: whole.claims[2..].to_vec(), ..whole.clone() }).unwrap();
    assert_eq!(world.record(segment), Some(whole));
}

#[test]
fn a_manifest_signed_by_a_stranger_or_for_another_network_is_not_kept() {
    let owner = key(1);
    let (segment, good) = record(&owner, 1);
    let world = World::new();
    let stranger = Record { manifest: forge(&manifest(&owner, 1), 2), ..good.clone() };
    assert_eq!(world.keep(stranger), Err(Refusal::Invalid));
    let elsewhere = Verified::sign(manifest(&owner, 1), &owner, &other_network()).to_unverified();
    assert_eq!(world.keep(Record { manifest: elsewhere, ..good }), Err(Refusal::Invalid));
    assert_eq!(world.record(segment), None);
}

#[test]
fn another_manifest_for_a_kept_segment_changes_nothing() {
    let owner = key(1);
    let (segment, good) = record(&owner, 1);
    let world = World::new();
    world.keep(good.clone()).unwrap();
    let mut other = manifest(&owner, 1);
    other.roots[0] = ShardRoot::from_bytes([77; 32]);
    assert_eq!(other.id(), segment);
    let other = Record { manifest: signed(other, &owner), ..good.clone() };
    assert_eq!(world.keep(other), Err(Refusal::Invalid));
    assert_eq!(world.record(segment), Some(good));
}

/// Three dead holders of a shard kept its place for ever: the claim that a repair brought was refused.
#[test]
fn a_claim_that_does_not_stand_makes_room_for_the_one_that_a_repair_brings() {
    let (segment, good) = record(&key(1), 1);
    let world = World::new();
    let of_holder = |holder, at| claim(segment, 0, holder, at, &network());
    let claims: Vec<Claim> = [(150, 1), (151, 2), (152, 3)].map(|(holder, at)| of_holder(holder, at)).into();
    world.keep(Record { claims: claims.clone(), ..good.clone() }).unwrap();
    world.steward.prove(&[segment]).unwrap();
    let fourth = Record { claims: vec![of_holder(153, 4)], ..good.clone() };
    assert_eq!(world.keep(fourth.clone()), Err(Refusal::RecordLimit));

    let make_room = |standing: &[u8]| {
        let standing: Vec<_> = standing.iter().map(|holder| (ShardIndex(0), holder_id(*holder))).collect();
        world.steward.make_room(&sender(), &segment, &[ShardIndex(0)], &standing, |_| true);
        world.record(segment).unwrap().claims
    };
    assert_eq!(make_room(&[150, 151, 152]).len(), 3, "all of them stand");
    let left = make_room(&[150]);
    assert!(left.contains(&claims[0]) && !left.contains(&claims[1]) && left.contains(&claims[2]));
    assert_eq!(make_room(&[]).len(), 2, "there is room already");
    world.keep(fourth).unwrap();
    let world = world.restart();
    assert_eq!(world.record(segment).unwrap().claims.len(), 3);
}

/// Were the newest claim to win, one stranger could sign claims for all shards and make the record forget every
/// honest holder.
#[test]
fn strangers_claims_displace_nobody() {
    let (segment, good) = record(&key(1), 1);
    let world = World::new();
    world.keep(good.clone()).unwrap();
    for stranger in 0..10 {
        let claims = (0..HOLDERS).map(|index| claim(segment, index, 200 + stranger, 1 << 40, &network())).collect();
        let _ = world.keep(Record { claims, ..good.clone() });
    }
    let kept = world.record(segment).unwrap();
    assert!(good.claims.iter().all(|honest| kept.claims.contains(honest)));
    for index in 0..HOLDERS {
        let of_index = kept.claims.iter().filter(|claim| claim.leaf.index.0 == index).count();
        assert!(of_index <= commonhold_protocol::record::CLAIMS_PER_INDEX_MAX);
    }
}

#[test]
fn claims_for_another_network_another_segment_or_no_shard_are_not_kept() {
    let (segment, good) = record(&key(1), 1);
    let (other_segment, _) = record(&key(1), 2);
    let world = World::new();
    let bare = Record { claims: Vec::new(), ..good.clone() };
    world.keep(bare.clone()).unwrap();
    for bad in [
        claim(segment, 0, 150, 5, &other_network()),
        claim(other_segment, 0, 150, 5, &network()),
        claim(segment, HOLDERS, 150, 5, &network()),
    ] {
        assert_eq!(world.keep(Record { claims: vec![bad], ..bare.clone() }), Err(Refusal::Invalid));
    }
    assert_eq!(world.record(segment), Some(bare));
}

#[test]
fn a_holders_older_claim_replayed_does_not_replace_its_newer_one() {
    let (segment, good) = record(&key(1), 1);
    let world = World::new();
    let with = |at| Record { claims: vec![claim(segment, 0, 150, at, &network())], ..good.clone() };
    world.keep(with(20)).unwrap();
    let _ = world.keep(with(10));
    assert_eq!(world.record(segment).unwrap().claims, with(20).claims);
    world.keep(with(30)).unwrap();
    assert_eq!(world.record(segment).unwrap().claims, with(30).claims);
}

#[test]
fn of_heads_the_newest_stay_and_siblings_stay_together() {
    let owner = key(1);
    let vault = vault_of(&owner);
    let world = World::new();
    let keep =
        |world: &World, head: &Unverified<Head>| kept(world.ask(Request::KeepHead { head: head.clone(), lease: None }));
    let first = signed(head(&owner, 1, 1), &owner);
    let second = signed(head(&owner, 1, 2), &owner);
    let sibling = signed(head(&owner, 2, 1), &owner);
    keep(&world, &first).unwrap();
    keep(&world, &second).unwrap();
    keep(&world, &sibling).unwrap();
    let world = world.restart();
    let heads = world.heads(vault).0;
    assert_eq!(heads.len(), 2);
    assert!(heads.contains(&second) && heads.contains(&sibling));
    // Replayed.
    assert_eq!(keep(&world, &first), Err(Refusal::Outdated));
    assert_eq!(world.heads(vault).0, heads);
}

#[test]
fn a_head_signed_by_a_stranger_or_for_another_network_changes_nothing() {
    let owner = key(1);
    let vault = vault_of(&owner);
    let world = World::new();
    let good = signed(head(&owner, 1, 1), &owner);
    kept(world.ask(Request::KeepHead { head: good.clone(), lease: None })).unwrap();
    let elsewhere = Verified::sign(head(&owner, 1, 9), &owner, &other_network()).to_unverified();
    for bad in [forge(&head(&owner, 1, 9), 2), elsewhere] {
        assert_eq!(kept(world.ask(Request::KeepHead { head: bad, lease: None })), Err(Refusal::Invalid));
    }
    assert_eq!(world.heads(vault).0, [good]);
}

#[test]
fn the_siblings_of_a_vault_are_bounded() {
    let owner = key(1);
    let world = World::new();
    let outcomes: Vec<_> = (1..=12)
        .map(|device| {
            let head = signed(head(&owner, device, 1), &owner);
            kept(world.ask(Request::KeepHead { head, lease: None }))
        })
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 8);
    assert_eq!(outcomes[11], Err(Refusal::RecordLimit));
    assert_eq!(world.heads(vault_of(&owner)).0.len(), 8);
}

#[test]
fn of_leases_the_latest_stays_whatever_is_replayed_or_forged() {
    let owner = key(1);
    let vault = vault_of(&owner);
    let world = World::new();
    let lease = |counter, valid_until| Lease { vault, counter, valid_until: Timestamp(valid_until) };
    let keep = |lease| kept(world.ask(Request::KeepLease { lease }));
    let newest = signed(lease(2, 2000), &owner);
    keep(newest.clone()).unwrap();
    assert_eq!(keep(signed(lease(1, 1000), &owner)), Err(Refusal::Outdated));
    assert_eq!(keep(forge(&lease(3, 3000), 2)), Err(Refusal::Invalid));
    let elsewhere = Verified::sign(lease(3, 3000), &owner, &other_network()).to_unverified();
    assert_eq!(keep(elsewhere), Err(Refusal::Invalid));
    assert_eq!(world.heads(vault).1, Some(newest));
    // One that comes along with a record counts as well.
    let (_, record) = record(&owner, 1);
    let later = signed(lease(4, 4000), &owner);
    kept(world.ask(Request::KeepRecords { records: vec![record], lease: Some(later.clone()) })).unwrap();
    assert_eq!(world.heads(vault).1, Some(later));
}

#[test]
fn a_drop_makes_a_tombstone_that_claims_cannot_lift() {
    let owner = key(1);
    let (segment, good) = record(&owner, 1);
    let world = World::new();
    world.keep(good.clone()).unwrap();
    let drop = signed(drop_of(&owner, 5, DropKind::Drop, &[segment]), &owner);
    kept(world.ask(Request::KeepDrop { drop: drop.clone() })).unwrap();
    let world = world.restart();
    assert_eq!(world.keep(good.clone()), Err(Refusal::Dropped));
    let tombstone = world.record(segment).unwrap();
    assert_eq!((tombstone.drop, tombstone.claims), (Some(drop), Vec::new()));
    assert!(world.steward.is_dropped(&segment).unwrap());
    // A newer undrop lifts it, and the older drop, replayed, changes nothing any more.
    let undrop = signed(drop_of(&owner, 6, DropKind::Undrop, &[segment]), &owner);
    kept(world.ask(Request::KeepDrop { drop: undrop })).unwrap();
    world.keep(good.clone()).unwrap();
    let older = signed(drop_of(&owner, 5, DropKind::Drop, &[segment]), &owner);
    assert_eq!(kept(world.ask(Request::KeepDrop { drop: older })), Err(Refusal::Outdated));
    assert_eq!(world.record(segment).unwrap().claims, good.claims);
    assert!(!world.steward.is_dropped(&segment).unwrap());
}

#[test]
fn a_drop_by_a_stranger_or_for_another_network_changes_nothing() {
    let (owner, stranger) = (key(1), key(2));
    let (segment, good) = record(&owner, 1);
    let world = World::new();
    world.held.0.lock().unwrap().insert((segment, vault_of(&owner)));
    world.keep(good.clone()).unwrap();
    // Signed well, by a vault that is not the segment's.
    let foreign = signed(drop_of(&stranger, 5, DropKind::Drop, &[segment]), &stranger);
    // In the owner's name, signed by another.
    let forged = forge(&drop_of(&owner, 5, DropKind::Drop, &[segment]), 2);
    let elsewhere =
        Verified::sign(drop_of(&owner, 5, DropKind::Drop, &[segment]), &owner, &other_network()).to_unverified();
    for bad in [foreign.clone(), forged.clone(), elsewhere] {
        assert_eq!(kept(world.ask(Request::KeepDrop { drop: bad })), Err(Refusal::Invalid));
    }
    for bad in [foreign, forged] {
        assert_eq!(world.keep(Record { drop: Some(bad), ..good.clone() }), Err(Refusal::Invalid));
    }
    assert_eq!(world.record(segment), Some(good));
    assert!(!world.steward.is_dropped(&segment).unwrap());
}

#[test]
fn a_holder_that_is_no_steward_keeps_the_drop_of_what_it_holds() {
    let owner = key(1);
    let (segment, _) = record(&owner, 1);
    let (unknown, _) = record(&owner, 2);
    let world = World::new();
    let drop = signed(drop_of(&owner, 5, DropKind::Drop, &[segment, unknown]), &owner);
    assert_eq!(kept(world.ask(Request::KeepDrop { drop: drop.clone() })), Err(Refusal::Unknown));
    world.held.0.lock().unwrap().insert((segment, vault_of(&owner)));
    kept(world.ask(Request::KeepDrop { drop })).unwrap();
    let world = world.restart();
    assert!(world.steward.is_dropped(&segment).unwrap());
    assert!(!world.steward.is_dropped(&unknown).unwrap());
    let undrop = signed(drop_of(&owner, 6, DropKind::Undrop, &[segment]), &owner);
    kept(world.ask(Request::KeepDrop { drop: undrop })).unwrap();
    assert!(!world.steward.is_dropped(&segment).unwrap());
}

#[test]
fn a_batch_shares_its_commit_and_each_record_has_its_own_outcome() {
    let owner = key(1);
    let (first, one) = record(&owner, 1);
    let (second, two) = record(&owner, 2);
    let bad = Record { manifest: forge(&manifest(&owner, 3), 2), ..one.clone() };
    let world = World::new();
    let response = world.ask(Request::KeepRecords { records: vec![one.clone(), bad, two, one], lease: None });
    assert_eq!(response, Response::Kept(vec![Ok(()), Err(Refusal::Invalid), Ok(()), Ok(())]));
    assert!(world.record(first).is_some() && world.record(second).is_some());
}

#[test]
fn one_sender_or_one_vault_cannot_use_up_the_space_for_records() {
    let folder = tempfile::tempdir().unwrap();
    let bytes_max = 4 << 20;
    let (records, _) = RecordStore::open(folder.path(), bytes_max).unwrap();
    let steward = Steward::new(network(), None, records, Arc::new(Held::default()), Arc::default()).unwrap();
    let owner = key(1);
    let mut refused = None;
    for number in 0..2000_u32 {
        let mut head = head(&owner, 1, 1);
        // A vault of its own each time: the limit that is met is the sender's.
        let seed = blake3::hash(&number.to_le_bytes());
        let stranger = SigningKey::from_seed(seed.as_bytes());
        head.vault = vault_of(&stranger);
        head.sealed = Bytes::from(vec![0; 40_000]);
        let request = Request::KeepHead { head: signed(head, &stranger), lease: None };
        if let Err(refusal) = kept(steward.answer(&sender(), request)) {
            refused = Some(refusal);
            break;
        }
    }
    assert_eq!(refused, Some(Refusal::Busy));
    let other = Sender { node: NodeId::from_bytes([8; 32]), domain: Domain::new("198.51.100.0/24"), is_steward: false };
    let request = Request::KeepHead { head: signed(head(&owner, 1, 1), &owner), lease: None };
    assert_eq!(kept(steward.answer(&other, request)), Ok(()));
}

#[test]
fn about_says_what_the_node_can_take_and_where_it_is() {
    match World::new().ask(Request::About) {
        Response::About { free_bytes, shards, clock, steward, domain } => {
            assert_eq!((free_bytes, shards, steward, domain.as_deref()), (1 << 30, 0, true, Some("rack-1")));
            assert!(clock.0 > 1_600_000_000_000);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_signature_of_a_batch_is_checked_once_for_all_segments_and_all_merges() {
    const SEGMENTS: u8 = 4;
    let owner = key(1);
    let manifests = (0..SEGMENTS).map(|salt| Verified::sign(manifest(&owner, salt), &owner, &network()));
    let manifests: Vec<Verified<Manifest>> = manifests.collect();
    let mut records: Vec<Record> = manifests
        .iter()
        .map(|manifest| Record { manifest: manifest.to_unverified(), claims: vec![], drop: None })
        .collect();
    for index in 0..HOLDERS {
        let leaf = |manifest: &Verified<Manifest>| ClaimLeaf { segment: manifest.id(), index: ShardIndex(index) };
        let leaves: Vec<ClaimLeaf> = manifests.iter().map(leaf).collect();
        let claims = Claim::sign_batch(&leaves, Timestamp(1), &key(100 + index), &network());
        records.iter_mut().zip(claims).for_each(|(record, claim)| record.claims.push(claim));
    }
    let world = World::new();
    for record in &records {
        world.keep(Record { claims: record.claims[..2].to_vec(), ..record.clone() }).unwrap();
        world.keep(record.clone()).unwrap();
        assert_eq!(world.record(manifests[0].id()), Some(records[0].clone()));
    }
    assert_eq!(world.steward.verifier().signatures_checked(), u64::from(SEGMENTS) + u64::from(HOLDERS));
}
