use bytes::Bytes;
use commonhold_protocol::{
    AuditStatement, Coding, ShardIndex, ShardRoot, SigningKey, Unverified, VaultId, ask::Refusal,
    audit::CHALLENGE_GROUPS_MAX, shard_stream::GROUP_BYTES,
};
use commonhold_storage_engine::prove::{Outboard, encode_ranges, root_of};
use proptest::prelude::*;

use super::*;

/// A segment of three shards, each of a little over four groups.
const SHARD_BYTES: usize = 4 * GROUP_BYTES as usize + 64;

fn network() -> NetworkName {
    "test".parse().unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

struct Shard {
    bytes: Vec<u8>,
    root: ShardRoot,
    outboard: Outboard,
}

struct World {
    manifest: Verified<Manifest>,
    shards: Vec<Shard>,
}

impl World {
    fn new() -> Self {
        let shard = |index: u8| {
            let bytes: Vec<u8> = (0..SHARD_BYTES).map(|at| (at / 7) as u8 ^ index).collect();
            let (root, outboard) = root_of(&bytes);
            Shard { bytes, root, outboard }
        };
        let shards: Vec<Shard> = (0..3).map(shard).collect();
        let owner = key(1);
        let coding = Coding::new(2, 3).unwrap();
        let length = 2 * SHARD_BYTES as u64;
        assert_eq!(coding.shard_length(length), SHARD_BYTES as u64);
        let roots = shards.iter().map(|shard| shard.root).collect();
        let manifest = Manifest { vault: VaultId::from_bytes(owner.public()), salt: [5; 16], coding, length, roots };
        Self { manifest: Verified::sign(manifest, &owner, &network()), shards }
    }

    fn challenge(&self, shards: Vec<(SegmentId, u8, Vec<GroupRange>)>) -> Challenge {
        let manifest = self.manifest.hash();
        let shard = |(segment, index, ranges)| ChallengedShard { segment, index: ShardIndex(index), manifest, ranges };
        Challenge { nonce: [3; 32], shards: shards.into_iter().map(shard).collect() }
    }

    /// Another manifest that the owner signs for the same segment.
    fn sign_again(&self, change: impl FnOnce(&mut Manifest)) -> Verified<Manifest> {
        let mut manifest = self.manifest.clone().into_object();
        change(&mut manifest);
        let signed = Verified::sign(manifest, &key(1), &network());
        assert_eq!(signed.id(), self.manifest.id());
        signed
    }

    /// What a node that holds all three shards says: it proves from its disk, or refuses.
    fn honest(&self, challenged: &ChallengedShard) -> ShardAnswer {
        let held = self.shards.get(usize::from(challenged.index.0));
        let Some(shard) = held.filter(|_| challenged.segment == self.manifest.id()) else {
            return ShardAnswer::Refused(Refusal::Unknown);
        };
        if challenged.manifest != self.manifest.hash() {
            return ShardAnswer::OtherManifest(self.manifest.to_unverified());
        }
        let read = |offset: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&shard.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        };
        let length = SHARD_BYTES as u64;
        match encode_ranges(read, shard.outboard.as_bytes(), &shard.root, length, &challenged.ranges) {
            Ok(proof) => ShardAnswer::Proof(proof.into()),
            Err(_) => ShardAnswer::Refused(Refusal::Invalid),
        }
    }

    fn evidence(&self, challenge: Challenge, answers: Vec<ShardAnswer>, signer: u8) -> Evidence {
        let statement = AuditStatement {
            holder: NodeId::from_bytes(key(signer).public()),
            challenge: challenge.hash(),
            answers: AuditAnswer::hash(&answers),
        };
        let statement = Verified::sign(statement, &key(signer), &network()).to_unverified();
        let manifests = challenge.shards.iter().map(|_| self.manifest.to_unverified()).collect();
        Evidence { challenge, answer: AuditAnswer { answers, statement }, manifests }
    }
}

fn range(first: u32, count: u32) -> Vec<GroupRange> {
    vec![GroupRange { first, count }]
}

#[test]
fn whoever_signs_a_wrong_proof_is_convicted_by_every_node() {
    let world = World::new();
    let challenge = world.challenge(vec![(world.manifest.id(), 0, range(1, 1)), (world.manifest.id(), 2, range(0, 2))]);
    let mut answers: Vec<ShardAnswer> = challenge.shards.iter().map(|shard| world.honest(shard)).collect();
    let ShardAnswer::Proof(proof) = &answers[1] else { panic!("it holds shard 2") };
    let mut flipped = proof.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    answers[1] = ShardAnswer::Proof(flipped.into());
    let evidence = world.evidence(challenge.clone(), answers.clone(), 9);
    assert_eq!(evidence.convicts(&network()), Some(NodeId::from_bytes(key(9).public())));

    let (found, kept) = check(
        challenge,
        evidence.answer.clone(),
        &[world.manifest.clone(), world.manifest.clone()],
        NodeId::from_bytes(key(9).public()),
        &network(),
    );
    assert_eq!(found, [Answer::Held, Answer::Wrong]);
    assert_eq!(kept, Some(evidence));
}

#[test]
fn groups_of_another_place_and_nothing_at_all_are_wrong_proofs_too() {
    let world = World::new();
    let asked = world.challenge(vec![(world.manifest.id(), 0, range(1, 1))]);
    let other = world.challenge(vec![(world.manifest.id(), 0, range(2, 1))]);
    for answer in [world.honest(&other.shards[0]), ShardAnswer::Proof(Bytes::new())] {
        assert!(world.evidence(asked.clone(), vec![answer], 9).convicts(&network()).is_some());
    }
}

/// An owner signs two manifests for one salt, stores a shard by one of them with an honest holder, and has it audited by
/// the other, or shows its answer beside the other. Before challenges named the manifest, that convicted it.
#[test]
fn an_owner_who_signs_two_manifests_convicts_nobody() {
    let world = World::new();
    let holder = NodeId::from_bytes(key(9).public());
    let lies = [
        world.sign_again(|manifest| manifest.roots.reverse()),
        // The same roots, but of shards that would be shorter.
        world.sign_again(|manifest| manifest.length -= SHARD_BYTES as u64),
    ];
    for lie in lies {
        let honest = world.challenge(vec![(world.manifest.id(), 0, range(1, 1))]);
        let mut shown = world.evidence(honest.clone(), vec![world.honest(&honest.shards[0])], 9);
        let proof = &shown.answer.answers[0];
        assert_eq!(judge(&honest.shards[0], &lie, proof, &network()), Answer::Wrong, "else there is no attack");
        shown.manifests = vec![lie.to_unverified()];
        assert_eq!(shown.convicts(&network()), None);

        let mut asked = honest;
        asked.shards[0].manifest = lie.hash();
        let answer = world.honest(&asked.shards[0]);
        let evidence = world.evidence(asked.clone(), vec![answer], 9);
        let (found, kept) = check(asked, evidence.answer.clone(), std::slice::from_ref(&lie), holder, &network());
        assert_eq!((found, kept), (vec![Answer::Contradicted], None));
        let shown = Evidence { manifests: vec![lie.to_unverified()], ..evidence };
        assert_eq!(shown.convicts(&network()), None);
    }
}

/// Whoever blames the owner must have its signature: the manifest that was asked about, another segment's, another
/// owner's or nonsense does not excuse anyone.
#[test]
fn no_cheat_can_blame_the_owner() {
    let world = World::new();
    let challenge = world.challenge(vec![(world.manifest.id(), 0, range(0, 1))]);
    let stranger = Manifest { vault: VaultId::from_bytes(key(9).public()), ..world.manifest.clone().into_object() };
    let nonsense = Unverified::from_bytes(Bytes::new()).expect("an empty envelope");
    let excuses = [
        world.manifest.to_unverified(),
        Verified::sign(Manifest { salt: [6; 16], ..world.manifest.clone().into_object() }, &key(1), &network())
            .to_unverified(),
        Verified::sign(stranger, &key(9), &network()).to_unverified(),
        nonsense,
    ];
    for excuse in excuses {
        let evidence = world.evidence(challenge.clone(), vec![ShardAnswer::OtherManifest(excuse)], 9);
        assert_eq!(evidence.convicts(&network()), Some(NodeId::from_bytes(key(9).public())));
    }
}

#[test]
fn evidence_that_was_tampered_with_convicts_nobody() {
    let world = World::new();
    let challenge = world.challenge(vec![(world.manifest.id(), 0, range(0, 2))]);
    let wrong = vec![ShardAnswer::Proof(Bytes::from_static(b"wrong"))];
    let genuine = world.evidence(challenge.clone(), wrong.clone(), 9);
    assert!(genuine.convicts(&network()).is_some(), "else the rest shows nothing");

    // An honest answer's signature, with other bytes put beside it.
    let honest = vec![world.honest(&challenge.shards[0])];
    let mut other_answers = world.evidence(challenge.clone(), honest.clone(), 9);
    assert_eq!(other_answers.convicts(&network()), None);
    other_answers.answer.answers = wrong;
    assert_eq!(other_answers.convicts(&network()), None);
    // An honest answer under another question.
    let mut other_challenge = world.evidence(challenge, honest, 9);
    other_challenge.challenge.shards[0].ranges = range(1, 2);
    assert_eq!(other_challenge.convicts(&network()), None);
    // Another network's.
    assert_eq!(genuine.convicts(&"other".parse().unwrap()), None);
}

proptest! {
    /// Groups behind the end, shards, segments and manifests that do not exist, the same shard many times: whatever a hostile
    /// auditor asks, what an honest holder signs convicts it of nothing.
    #[test]
    fn no_challenge_convicts_an_honest_holder(
        asked in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0..5u8, prop::collection::vec((prop_oneof![0..8u32, any::<u32>()], 1..9u32), 1..4)),
            1..9,
        ),
    ) {
        let world = World::new();
        let named: Vec<bool> = asked.iter().map(|(_, named, ..)| *named).collect();
        let shards = asked.into_iter().map(|(known, _, index, ranges)| {
            let segment = if known { world.manifest.id() } else { SegmentId::from_bytes([1; 32]) };
            (segment, index, ranges.into_iter().map(|(first, count)| GroupRange { first, count }).collect())
        });
        let mut challenge = world.challenge(shards.collect());
        for (shard, _) in challenge.shards.iter_mut().zip(named).filter(|(_, named)| !named) {
            shard.manifest = [8; 32];
        }
        let answers: Vec<ShardAnswer> = challenge.shards.iter().map(|shard| world.honest(shard)).collect();
        prop_assert_eq!(world.evidence(challenge, answers, 9).convicts(&network()), None);
    }
}

#[test]
fn groups_become_runs_that_a_challenge_may_hold() {
    assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 1), (7, 2)].map(|(first, count)| GroupRange { first, count }));
    assert_eq!(commonhold_policy::audit::CHALLENGE_MAX as u64, CHALLENGE_GROUPS_MAX);
}
