//! What a holder proves to whoever asks, and what it does not put its name to.

use bytes::Bytes;
use commonhold_protocol::{
    Manifest, ShardIndex, SigningKey, Verified,
    ask::{Refusal, Request, Response},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    shard_stream::GroupRange,
};
use commonhold_storage_engine::prove::decode_ranges;

use crate::harness::{Client, Segment, TestNode, network};

/// Asks for groups of the first shard of a manifest; the signed answer.
async fn ask(client: &Client, node: &TestNode, asked: &[(&Verified<Manifest>, u32)]) -> Vec<ShardAnswer> {
    let shard = |(manifest, first): &(&Verified<Manifest>, u32)| ChallengedShard {
        segment: manifest.id(),
        index: ShardIndex(0),
        manifest: manifest.hash(),
        ranges: vec![GroupRange { first: *first, count: 1 }],
    };
    let challenge = Challenge { nonce: [1; 32], shards: asked.iter().map(shard).collect() };
    let answer = client.ask(node, Request::Audit(challenge.clone())).await;
    let Response::Audited(AuditAnswer { answers, statement }) = answer else { panic!("{answer:?}") };
    let statement = statement.verify(&network()).expect("it is signed");
    assert_eq!((statement.holder, statement.challenge), (node.id(), challenge.hash()));
    assert_eq!(statement.answers, AuditAnswer::hash(&answers));
    answers
}

#[tokio::test]
async fn a_holder_proves_what_it_holds_and_signs_nothing_about_another_manifest() {
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let owner = SigningKey::from_seed(&[1; 32]);
    let segment = Segment::new(&owner, 1, 300_000, &network());
    client.store(&node, &segment).await.expect("stored");
    let held = &segment.manifest;
    let again = |change: fn(&mut Manifest)| {
        let mut manifest = held.clone().into_object();
        change(&mut manifest);
        Verified::sign(manifest, &owner, &network())
    };
    let other_roots = again(|manifest| manifest.roots[0] = commonhold_protocol::ShardRoot::from_bytes([5; 32]));
    let longer = again(|manifest| manifest.length *= 8);
    let unknown = Segment::new(&owner, 2, 300_000, &network());

    // Group 100 is only in the longer one.
    let asked = [(held, 7), (&other_roots, 7), (&longer, 100), (&unknown.manifest, 0), (held, 100)];
    let answers = ask(&client, &node, &asked).await;
    let ShardAnswer::Proof(proof) = &answers[0] else { panic!("{answers:?}") };
    let range = [GroupRange { first: 7, count: 1 }];
    let proven = decode_ranges(&held.roots[0], held.shard_length(), &range, proof).expect("a valid proof");
    let bytes: Bytes = proven.into_iter().flat_map(|(_, piece)| piece).collect();
    assert_eq!(bytes, segment.data.slice(7 * 16_384..8 * 16_384));
    let shown = ShardAnswer::OtherManifest(held.to_unverified());
    let refused = ShardAnswer::Refused;
    assert_eq!(answers[1..], [shown.clone(), shown, refused(Refusal::Unknown), refused(Refusal::Invalid)]);
    node.stop().await;
}
