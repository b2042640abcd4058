//! Promise: what strangers sign, replay, or carry over from another network changes nothing. Each attack goes over the
//! wire to every node of a real network; afterwards each keeps exactly what it kept, and the owner's data reads.

mod forgery;

use bytes::Bytes;
use commonhold_network::TransferError;
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, DeviceId, Drop, DropKind, Head, Lease, Manifest, NetworkName, NodeId, Record, SegmentId,
    ShardIndex, SigningKey, Timestamp, Unverified, VaultId, Verified, Version,
    ask::{ClaimStanding, Refusal, Request, Response},
};
use commonhold_storage_engine::{
    keys::{VaultKeys, VaultSecret},
    segment::CodedSegment,
};

use self::forgery::{forge, public_of};
use super::harness::{Network, Setup, Spy, Tree, assert_same, eventually, hex_id, noise, segment_of_noise};

const NODES: usize = 4;

/// A network with a vault on it whose keys are in our hands, and everything that was placed.
struct Scene {
    network: Network,
    spy: Spy,
    nodes: Vec<NodeId>,
    owner: VaultKeys,
    owner_seed: [u8; 32],
    stranger_seed: [u8; 32],
    manifest: Verified<Manifest>,
    shards: Vec<Bytes>,
    claims: Vec<Claim>,
}

impl Scene {
    fn set() -> Self {
        Self::set_with(None)
    }

    /// The same, where each node has this config too.
    fn set_with(overlay: Option<&str>) -> Self {
        let network = Network::start(&Setup { nodes: NODES, coding: Some("2/4"), overlay, ..Setup::default() });
        let spy = Spy::on(&network);
        let nodes: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
        let secret = VaultSecret::from_bytes(rand::random());
        let owner_seed = blake3::derive_key("commonhold 2026 vault signing key v1", secret.as_bytes());
        let owner = VaultKeys::derive(&secret);
        assert_eq!(public_of(&owner_seed), *owner.vault_id().as_bytes());
        let CodedSegment { manifest, shards } = segment(&owner, 1);
        let manifest = Verified::sign(manifest, owner.signing(), &spy.network);
        let claims =
            shards.iter().zip(&nodes).zip(0..).map(|((shard, node), index)| {
                spy.store(*node, manifest.to_unverified(), index, shard.clone()).unwrap()
            });
        let claims: Vec<Claim> = claims.collect();
        let scene =
            Self { spy, nodes, owner_seed, stranger_seed: rand::random(), manifest, shards, claims, owner, network };
        scene
            .tell_all(&Request::KeepRecords { records: vec![scene.record(scene.claims.clone())], lease: None }, Ok(()));
        scene
    }

    fn id(&self) -> SegmentId {
        self.manifest.id()
    }

    fn vault(&self) -> VaultId {
        self.owner.vault_id()
    }

    fn name(&self) -> &NetworkName {
        &self.spy.network
    }

    fn other_network(&self) -> NetworkName {
        "another-network".parse().unwrap()
    }

    fn stranger(&self) -> VaultId {
        VaultId::from_bytes(public_of(&self.stranger_seed))
    }

    fn record(&self, claims: Vec<Claim>) -> Record {
        Record { manifest: self.manifest.to_unverified(), claims, drop: None }
    }

    /// Says the same to all nodes, and checks what each of them makes of it.
    #[track_caller]
    fn tell_all(&self, request: &Request, verdict: Result<(), Refusal>) {
        for node in &self.nodes {
            assert_eq!(self.spy.keep(*node, request.clone()), verdict, "{request:?}");
        }
    }

    /// All that all nodes keep of this vault.
    fn kept(&self) -> Vec<Vec<Vec<u8>>> {
        let of_node = |node: &NodeId| {
            let (heads, lease) = self.spy.heads(*node, self.vault());
            let mut kept = vec![self.spy.record(*node, self.id()).expect("the record").to_bytes()];
            kept.extend(heads.iter().map(|head| head.to_bytes().to_vec()));
            kept.extend(lease.map(|lease| lease.to_bytes().to_vec()));
            kept
        };
        self.nodes.iter().map(of_node).collect()
    }

    /// Runs an attack, after which everything must be as it was.
    #[track_caller]
    fn unmoved_by(&self, attack: impl FnOnce(&Self)) {
        let before = self.kept();
        attack(self);
        assert_eq!(self.kept(), before);
        for (index, node) in self.nodes.iter().enumerate() {
            let whole = self.spy.whole_shard(*node, self.id(), index as u8);
            assert_eq!(whole.as_ref(), Ok(&self.shards[index]), "shard {index}");
        }
    }
}

fn segment(keys: &VaultKeys, seed: u64) -> CodedSegment {
    segment_of_noise(keys, seed, 100_000, Coding::new(2, 4).unwrap())
}

fn keep_records(record: Record) -> Request {
    Request::KeepRecords { records: vec![record], lease: None }
}

fn keep_head(head: Unverified<Head>) -> Request {
    Request::KeepHead { head, lease: None }
}

#[test]
fn claims() {
    let scene = Scene::set();
    let leaves: Vec<ClaimLeaf> =
        (0..4).map(|index| ClaimLeaf { segment: scene.id(), index: ShardIndex(index) }).collect();
    let now = scene.claims[0].clone().verify(scene.name()).unwrap().signed_at;
    let stranger = SigningKey::from_seed(&scene.stranger_seed);

    // For another network: by a stranger, and by an honest holder who takes part in both.
    let identity = std::fs::read_to_string(scene.network.node_dir(0).join("identity")).unwrap();
    let holder_seed: [u8; 32] = hex::decode(identity.trim()).unwrap().try_into().unwrap();
    let holder = SigningKey::from_seed(&holder_seed);
    assert_eq!(NodeId::from_bytes(holder.public()), scene.nodes[0]);
    for key in [&stranger, &holder] {
        scene.unmoved_by(|scene| {
            let claims = Claim::sign_batch(&leaves, now, key, &scene.other_network());
            scene.tell_all(&keep_records(scene.record(claims)), Err(Refusal::Invalid));
        });
    }

    // In an honest holder's name, with another's signature.
    scene.unmoved_by(|scene| {
        for claim in Claim::sign_batch(&leaves, Timestamp(now.0 + 1), &stranger, scene.name()) {
            let forged = forgery::replace(&claim.to_bytes(), &stranger.public(), scene.nodes[0].as_bytes());
            let forged = Claim::from_bytes(forged.into()).unwrap();
            scene.tell_all(&keep_records(scene.record(vec![forged])), Err(Refusal::Invalid));
        }
    });

    // An honest claim, carried over to another shard of the segment.
    scene.unmoved_by(|scene| {
        let mut carried = scene.claims[0].clone();
        carried.leaf.index = ShardIndex(3);
        scene.tell_all(&keep_records(scene.record(vec![carried])), Err(Refusal::Invalid));
    });

    // For a shard that the segment does not have.
    scene.unmoved_by(|scene| {
        let leaf = ClaimLeaf { segment: scene.id(), index: ShardIndex(4) };
        let claims = Claim::sign_batch(&[leaf], now, &stranger, scene.name());
        scene.tell_all(&keep_records(scene.record(claims)), Err(Refusal::Invalid));
    });

    // The same again, from whoever heard it.
    scene.unmoved_by(|scene| {
        scene.tell_all(&keep_records(scene.record(scene.claims.clone())), Ok(()));
    });

    // Strangers do claim, each with a valid signature, all shards. They displace nobody, and are bounded.
    for _ in 0..5 {
        let another = SigningKey::from_seed(&rand::random());
        let claims = Claim::sign_batch(&leaves, Timestamp(now.0 + 60_000), &another, scene.name());
        for node in &scene.nodes {
            let _ = scene.spy.keep(*node, keep_records(scene.record(claims.clone())));
        }
    }
    for node in &scene.nodes {
        let record = scene.spy.record(*node, scene.id()).unwrap();
        for claim in &scene.claims {
            assert!(record.claims.contains(claim), "an honest holder was displaced");
        }
        assert!(record.claims.len() <= 4 * 3, "{} claims are kept", record.claims.len());
    }
}

#[test]
fn manifests_and_shards() {
    let scene = Scene::set();

    // Another manifest for the same segment: signed by a stranger, and by the owner for another network.
    let mut other = (*scene.manifest).clone();
    other.roots.reverse();
    for forged in [
        forge(&other, &scene.stranger_seed, scene.name()),
        forge(&other, &scene.owner_seed, &scene.other_network()),
        forge(&*scene.manifest, &scene.owner_seed, &scene.other_network()),
        forge(&*scene.manifest, &scene.stranger_seed, scene.name()),
    ] {
        scene.unmoved_by(|scene| {
            let record = Record { manifest: forged.clone(), claims: scene.claims.clone(), drop: None };
            scene.tell_all(&keep_records(record), Err(Refusal::Invalid));
            for node in &scene.nodes {
                for index in 0..4 {
                    let stored =
                        scene.spy.store(*node, forged.clone(), index, scene.shards[usize::from(index)].clone());
                    assert!(refused(&stored), "{stored:?}");
                }
            }
        });
    }
    // By the owner's own key: what came first stays, since shards were claimed against it.
    scene.unmoved_by(|scene| {
        let record =
            Record { manifest: forge(&other, &scene.owner_seed, scene.name()), claims: Vec::new(), drop: None };
        scene.tell_all(&keep_records(record), Err(Refusal::Invalid));
    });

    // Shards that are not what their manifest says: other bytes, another shard's, a wrong index.
    let held_before = scene.network.figures("/shards/held");
    scene.unmoved_by(|scene| {
        let CodedSegment { manifest, shards } = segment(&scene.owner, 2);
        let manifest = Verified::sign(manifest, scene.owner.signing(), scene.name());
        let mut changed = shards[0].to_vec();
        changed[777] ^= 1;
        for (index, data) in [(0, Bytes::from(changed)), (1, shards[0].clone()), (4, shards[0].clone())] {
            for node in &scene.nodes {
                let stored = scene.spy.store(*node, manifest.to_unverified(), index, data.clone());
                assert!(refused(&stored), "{stored:?}");
                assert!(scene.spy.first_group(*node, manifest.id(), index).is_err());
            }
        }
    });
    assert_eq!(scene.network.figures("/shards/held"), held_before);
    // The control: what the owner signed for this network is taken.
    let manifest = forge(&segment_like(&scene), &scene.owner_seed, scene.name());
    assert!(manifest.verify(scene.name()).is_ok());
}

/// A manifest of the owner's that nobody knows.
fn segment_like(scene: &Scene) -> Manifest {
    segment(&scene.owner, 3).manifest
}

fn refused<T>(stored: &Result<T, TransferError>) -> bool {
    // A holder that has heard enough may close the stream while bytes are still on their way.
    matches!(stored, Err(TransferError::Refused { .. } | TransferError::Broken { .. }))
}

#[test]
fn heads_and_leases() {
    let scene = Scene::set();
    let device = DeviceId([1; 8]);
    let head = |counter: u64, content: &[u8]| Head {
        vault: scene.vault(),
        version: Version::from_counters([(device, counter)]),
        nonce: [counter as u8; 24],
        sealed: Bytes::copy_from_slice(content),
    };
    let lease =
        |counter: u64, valid_until: u64| Lease { vault: scene.vault(), counter, valid_until: Timestamp(valid_until) };
    let sign_head = |head: &Head| forge(head, &scene.owner_seed, scene.name());

    // The control: what the owner signs for this network is kept, also by this independent way of signing.
    let now = 1_900_000_000_000;
    scene.tell_all(&keep_head(sign_head(&head(1, b"first"))), Ok(()));
    scene.tell_all(&keep_head(sign_head(&head(2, b"second"))), Ok(()));
    scene.tell_all(&Request::KeepLease { lease: forge(&lease(1, now), &scene.owner_seed, scene.name()) }, Ok(()));
    scene
        .tell_all(&Request::KeepLease { lease: forge(&lease(2, now + 1000), &scene.owner_seed, scene.name()) }, Ok(()));
    let kept = scene.kept();
    assert!(kept.iter().all(|kept| kept.len() == 3), "a record, a head, a lease: {:?}", kept[0].len());

    // Signed by another key, for another network, replayed, changed on the way.
    scene.unmoved_by(|scene| {
        for forged in [
            forge(&head(3, b"evil"), &scene.stranger_seed, scene.name()),
            forge(&head(3, b"evil"), &scene.owner_seed, &scene.other_network()),
        ] {
            scene.tell_all(&keep_head(forged), Err(Refusal::Invalid));
        }
        let changed = forgery::replace(&sign_head(&head(3, b"good")).to_bytes(), b"good", b"evil");
        scene.tell_all(&keep_head(Unverified::from_bytes(changed.into()).unwrap()), Err(Refusal::Invalid));
        scene.tell_all(&keep_head(sign_head(&head(1, b"first"))), Err(Refusal::Outdated));
        scene.tell_all(&keep_head(sign_head(&head(2, b"second"))), Ok(()));
    });
    scene.unmoved_by(|scene| {
        for forged in [
            forge(&lease(9, 1), &scene.stranger_seed, scene.name()),
            forge(&lease(9, now + 9000), &scene.stranger_seed, scene.name()),
            forge(&lease(9, now + 9000), &scene.owner_seed, &scene.other_network()),
        ] {
            scene.tell_all(&Request::KeepLease { lease: forged.clone() }, Err(Refusal::Invalid));
            // Nor along with something that is fine.
            let request = Request::KeepHead { head: sign_head(&head(2, b"second")), lease: Some(forged) };
            scene.tell_all(&request, Ok(()));
        }
        let replayed = forge(&lease(1, now), &scene.owner_seed, scene.name());
        scene.tell_all(&Request::KeepLease { lease: replayed }, Err(Refusal::Outdated));
    });
    // A head of the stranger's own vault is kept, but not with ours.
    let own = Head { vault: scene.stranger(), ..head(9, b"own") };
    scene.unmoved_by(|scene| {
        scene.tell_all(&keep_head(forge(&own, &scene.stranger_seed, scene.name())), Ok(()));
    });
}

#[test]
fn drops() {
    let scene = Scene::set();
    let drop_of =
        |vault: VaultId, counter: u64, kind: DropKind| Drop { vault, counter, kind, segments: vec![scene.id()] };
    let owner_says =
        |counter: u64, kind: DropKind| forge(&drop_of(scene.vault(), counter, kind), &scene.owner_seed, scene.name());

    // By a stranger in the owner's name; for another network; of another vault, which is not the segment's.
    scene.unmoved_by(|scene| {
        let drop = drop_of(scene.vault(), 9, DropKind::Drop);
        for forged in [
            forge(&drop, &scene.stranger_seed, scene.name()),
            forge(&drop, &scene.owner_seed, &scene.other_network()),
            forge(&drop_of(scene.stranger(), 9, DropKind::Drop), &scene.stranger_seed, scene.name()),
        ] {
            scene.tell_all(&Request::KeepDrop { drop: forged.clone() }, Err(Refusal::Invalid));
            let record = Record { drop: Some(forged), ..scene.record(scene.claims.clone()) };
            for node in &scene.nodes {
                assert!(scene.spy.keep(*node, keep_records(record.clone())).is_err());
            }
        }
    });

    // The owner drops it, and thinks again.
    scene.tell_all(&Request::KeepDrop { drop: owner_says(1, DropKind::Drop) }, Ok(()));
    for (index, node) in scene.nodes.iter().enumerate() {
        let read = scene.spy.first_group(*node, scene.id(), index as u8);
        assert!(matches!(read, Err(TransferError::Refused { refusal: Refusal::Dropped, .. })), "{read:?}");
    }
    // A steward that was away, or a stranger, cannot bring the record back.
    for node in &scene.nodes {
        let _ = scene.spy.keep(*node, keep_records(scene.record(scene.claims.clone())));
        assert_eq!(scene.spy.record(*node, scene.id()).unwrap().claims, Vec::new());
    }
    let forged = forge(&drop_of(scene.vault(), 2, DropKind::Undrop), &scene.stranger_seed, scene.name());
    scene.tell_all(&Request::KeepDrop { drop: forged }, Err(Refusal::Invalid));
    scene.tell_all(&Request::KeepDrop { drop: owner_says(3, DropKind::Undrop) }, Ok(()));
    // Now it reads again, and no replay of the drop takes it away.
    scene.unmoved_by(|scene| {
        scene.tell_all(&Request::KeepDrop { drop: owner_says(1, DropKind::Drop) }, Err(Refusal::Outdated));
        scene.tell_all(&Request::KeepDrop { drop: owner_says(3, DropKind::Undrop) }, Ok(()));
    });
}

/// Who gives a shard up or says that it is there is known from the connection, so nobody does it for a holder.
#[test]
fn releases_and_announcements() {
    let scene = Scene::set_with(Some("[audit]\nevery = \"4 s\"\n"));
    let shards: Vec<ClaimLeaf> =
        (0..4).map(|index| ClaimLeaf { segment: scene.id(), index: ShardIndex(index) }).collect();
    let ask = |request: &Request| -> Vec<Response> {
        scene.nodes.iter().map(|node| scene.spy.ask(*node, request.clone())).collect()
    };
    let health = Request::FetchHealth { segments: vec![scene.id()] };
    let is_whole = |said: &Response| match said {
        Response::Health(reports) => reports[0].is_some_and(|report| report.healthy == 4),
        _ => false,
    };
    eventually("all stewards have had proof of all shards", || ask(&health).iter().all(is_whole));
    let held = scene.network.figures("/shards/held");

    for _ in 0..3 {
        scene.unmoved_by(|scene| {
            // There is nothing of the stranger's to be forgotten.
            scene.tell_all(&Request::Release { shards: shards.clone() }, Ok(()));
        });
        scene.unmoved_by(|_| {
            let unknown = Response::Standings(vec![ClaimStanding::Lacking; 4]);
            assert_eq!(ask(&Request::Announce { shards: shards.clone() }), vec![unknown; NODES]);
        });
        // No steward misses a shard for that, or has looked for another place for it.
        let said = ask(&health);
        assert!(said.iter().all(is_whole), "{said:?}");
    }
    assert_eq!(scene.network.figures("/shards/held"), held);
    assert_eq!(scene.network.figures("/audits/repairs"), 0);
}

#[test]
fn a_vault_stays_readable_under_attack() {
    let network = Network::start(&Setup { nodes: NODES, coding: Some("2/4"), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(100);
    tree.file("large", &noise(2, 5 << 20));
    home.put(tree.path(), "/x");

    // Strangers who have learned of each segment claim every shard of it, as often as they may.
    let spy = Spy::on(&network);
    let nodes: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    let segments = home.json(["segments"]);
    for segment in segments["segments"].as_array().unwrap() {
        let id = SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap();
        let n = segment["n"].as_u64().unwrap() as u8;
        let leaves: Vec<ClaimLeaf> = (0..n).map(|index| ClaimLeaf { segment: id, index: ShardIndex(index) }).collect();
        for node in &nodes {
            let Some(record) = spy.record(*node, id) else { continue };
            for _ in 0..4 {
                let key = SigningKey::from_seed(&rand::random());
                let claims = Claim::sign_batch(&leaves, Timestamp(u64::MAX / 2), &key, &spy.network);
                let _ = spy.keep(*node, keep_records(Record { claims, ..record.clone() }));
            }
        }
    }
    let back = network.scratch().join("back");
    network.cold_home("cold", &phrase, &[1]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
    assert_eq!(home.names("/"), ["x"]);
}
