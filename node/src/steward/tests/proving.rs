//! Records on trial.

use super::*;

fn tag(world: &World, segment: SegmentId) -> Option<u8> {
    world.steward.records().summary(Kind::Segment, segment.as_bytes()).unwrap().map(|summary| summary.tag)
}

fn fail(world: &World, segment: SegmentId, proven: &[(ShardIndex, NodeId)]) {
    world.steward.fail(&sender(), &segment, proven, |_| true);
}

fn holders(record: &Record, index: u8) -> Vec<NodeId> {
    let claims = record.claims.iter().filter(|claim| claim.leaf.index.0 == index);
    let mut holders: Vec<_> = claims.map(|claim| claim.clone().verify(&network()).unwrap().holder).collect();
    holders.sort_unstable();
    holders
}

#[test]
fn a_new_record_is_on_trial_until_it_has_proven_itself_also_over_a_restart() {
    let (segment, sent) = record(&key(1), 1);
    let world = World::new();
    world.keep(sent.clone()).unwrap();
    let bytes = world.steward.unproven_bytes();
    assert!(bytes > 0);
    let world = world.restart();
    assert_eq!((tag(&world, segment), world.steward.unproven_bytes()), (Some(TAG_UNPROVEN), bytes));
    world.steward.prove(&[segment]).unwrap();
    assert_eq!((tag(&world, segment), world.steward.unproven_bytes()), (Some(TAG_WANTED), 0));
    // Nothing that is said of it later puts it on trial again, and no trial ends it.
    world.keep(Record { claims: vec![claim(segment, 0, 150, 5, &network())], ..sent }).unwrap();
    fail(&world, segment, &[]);
    let world = world.restart();
    assert_eq!((tag(&world, segment), world.steward.unproven_bytes()), (Some(TAG_WANTED), 0));
    assert_eq!(world.record(segment).unwrap().claims.len(), usize::from(HOLDERS) + 1);
}

#[test]
fn a_record_that_failed_is_forgotten_and_taken_again_when_it_is_offered_again() {
    let (segment, sent) = record(&key(1), 1);
    let world = World::new();
    world.keep(sent.clone()).unwrap();
    let before = world.steward.admission().bytes();
    fail(&world, segment, &[]);
    assert_eq!((world.record(segment), world.steward.unproven_bytes()), (None, 0));
    assert_eq!(world.steward.admission().bytes(), 0, "of {before}");
    let world = world.restart();
    assert_eq!(world.ask(Request::LackRecords { segments: vec![segment] }), Response::Lacking(vec![segment]));
    world.keep(sent.clone()).unwrap();
    assert_eq!((world.record(segment), tag(&world, segment)), (Some(sent), Some(TAG_UNPROVEN)));
}

/// Whoever holds one shard hears of the segment before its record is written, and could fill it with false claims.
#[test]
fn true_claims_wait_for_the_places_that_false_ones_took_first() {
    let (segment, good) = record(&key(1), 1);
    let world = World::new();
    let liars = [150, 151, 152].map(|liar| (0..HOLDERS).map(move |index| claim(segment, index, liar, 1, &network())));
    let liars: Vec<Claim> = liars.into_iter().flatten().collect();
    world.keep(Record { claims: liars.clone(), ..good.clone() }).unwrap();
    assert_eq!(world.keep(good.clone()), Ok(()), "they wait");
    assert_eq!(world.record(segment).unwrap().claims.len(), liars.len());
    // One liar is found out for one shard: the holder takes the place.
    let standing: Vec<_> = [150, 151].map(|liar| (ShardIndex(0), holder_id(liar))).into();
    world.steward.make_room(&sender(), &segment, &[ShardIndex(0)], &standing, |_| true);
    let kept = world.record(segment).unwrap();
    assert!(holders(&kept, 0).contains(&holder_id(100)) && !holders(&kept, 0).contains(&holder_id(152)));
    assert!(!holders(&kept, 1).contains(&holder_id(101)));
    // Its time is over, and all that is proven is that one.
    fail(&world, segment, &[(ShardIndex(0), holder_id(100))]);
    assert_eq!(tag(&world, segment), Some(TAG_UNPROVEN), "it is on trial anew");
    let kept = world.record(segment).unwrap();
    for index in 0..HOLDERS {
        assert_eq!(holders(&kept, index), [holder_id(100 + index)]);
    }
    // Nothing waits any more.
    fail(&world, segment, &[(ShardIndex(0), holder_id(100))]);
    assert_eq!(world.record(segment), None);
}

/// Seven stewards that lie bring twenty-one claims of each shard, before the true ones arrive.
#[test]
fn of_those_that_wait_the_known_come_first() {
    let (segment, good) = record(&key(1), 1);
    let world = World::new();
    for liar in 150..171 {
        let claims = (0..HOLDERS).map(|index| claim(segment, index, liar, 1, &network())).collect();
        world.keep(Record { claims, ..good.clone() }).unwrap();
    }
    world.keep(good.clone()).unwrap();
    let honest: Vec<NodeId> = (0..HOLDERS).map(|index| holder_id(100 + index)).collect();
    world.steward.fail(&sender(), &segment, &[], |node| honest.contains(node));
    let kept = world.record(segment).unwrap();
    for index in 0..HOLDERS {
        assert!(holders(&kept, index).contains(&holder_id(100 + index)), "shard {index}");
    }
}

#[test]
fn what_waits_is_bounded() {
    let mut waiting = crate::steward::proving::WaitingClaims::default();
    let one = claim(SegmentId::from_bytes([1; 32]), 0, 150, 1, &network()).verify(&network()).unwrap();
    for number in 0..20_000_u32 {
        let segment = SegmentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        waiting.add(segment, vec![one.clone(); 50]);
    }
    assert!(waiting.count() <= 16 << 10);
    let last = SegmentId::from_bytes(*blake3::hash(&19_999_u32.to_le_bytes()).as_bytes());
    assert_eq!(waiting.take(&last).len(), 1, "each holder once");
}

/// A drop and its undrop would be a way around.
#[test]
fn a_record_that_was_dropped_and_is_wanted_again_has_to_prove_itself() {
    let owner = key(1);
    let (segment, good) = record(&owner, 1);
    let world = World::new();
    world.keep(good).unwrap();
    for (counter, kind) in [(5, DropKind::Drop), (6, DropKind::Undrop)] {
        let drop = signed(drop_of(&owner, counter, kind, &[segment]), &owner);
        kept(world.ask(Request::KeepDrop { drop })).unwrap();
    }
    assert_eq!(tag(&world, segment), Some(TAG_UNPROVEN));
}

/// From however many networks it comes.
#[test]
fn a_flood_of_records_leaves_room_for_what_has_proven_itself() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let (records, _) = RecordStore::open(folder.path(), 4 << 20).unwrap();
        Steward::new(network(), None, records, Arc::new(Held::default()), Arc::default()).unwrap()
    };
    let steward = open();
    let (proven, good) = record(&key(1), 1);
    let keep = |steward: &Steward, from: u32, record: Record| {
        let sender = Sender {
            node: NodeId::from_bytes([8; 32]),
            domain: Domain::new(format!("domain {from}")),
            is_steward: false,
        };
        kept(steward.answer(&sender, Request::KeepRecords { records: vec![record], lease: None }))
    };
    keep(&steward, 0, good.clone()).unwrap();
    steward.prove(&[proven]).unwrap();
    let flood = |steward: &Steward| {
        let flood = (0..5_000_u32).map(|number| {
            let seed = blake3::hash(&number.to_le_bytes());
            let owner = SigningKey::from_seed(seed.as_bytes());
            let record = Record { claims: Vec::new(), ..record(&owner, 1).1 };
            keep(steward, number, record)
        });
        flood.filter(Result::is_ok).count()
    };
    let taken = flood(&steward);
    assert!(taken > 100 && taken < 5_000, "{taken}");
    let more = Record { claims: vec![claim(proven, 0, 150, 5, &network())], ..good.clone() };
    assert_eq!(keep(&steward, 6_000, more), Ok(()));
    drop(steward);
    // After a restart there is no more room for it than before.
    let steward = open();
    assert!(flood(&steward) <= taken);
    assert!(steward.unproven_bytes() <= (4 << 20) / 100 * LIVE_PERCENT / 2);
}
