//! What a holder proves to whoever asks, and what it does not put its name to.

use commonhold_protocol::{
    Manifest, ShardIndex, SigningKey, Verified,
    ask::{Refusal, Request, Response},
    audit::{AuditAnswer, CHALLENGE_SHARDS_MAX, Challenge, ChallengedShard, ShardAnswer},
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
    assert_eq!(proven[0].concat(), segment.data.slice(7 * 16_384..8 * 16_384));
    let shown = ShardAnswer::OtherManifest(held.to_unverified());
    let refused = ShardAnswer::Refused;
    assert_eq!(answers[1..], [shown.clone(), shown, refused(Refusal::Unknown), refused(Refusal::Invalid)]);
    node.stop().await;
}

/// What this process has used so far, node and auditor together.
#[derive(Clone, Copy)]
struct Used {
    cpu_us: u64,
    reads: u64,
    bytes_read: u64,
}

impl Used {
    fn now() -> Self {
        let io = std::fs::read_to_string("/proc/self/io").expect("readable");
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.trim().parse::<u64>().expect("a number")
        };
        let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        // User and system time in hundredths of a second: the 14th and 15th field, of which two are before the name's end.
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Self { cpu_us: ticks * 10_000, reads: field("syscr:"), bytes_read: field("rchar:") }
    }

    fn since(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us - before.cpu_us,
            reads: self.reads - before.reads,
            bytes_read: self.bytes_read - before.bytes_read,
        }
    }
}

/// Prints what an audit of one chunk group costs, over a connection that is open, in challenges of as many shards as
/// fit; and holds it under limits that say so if it becomes dearer.
#[tokio::test]
async fn what_an_audit_costs() {
    const SHARDS: u8 = CHALLENGE_SHARDS_MAX as u8;
    const ROUNDS: u32 = 40;
    const EVERY_DAYS: f64 = 7.0;
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let owner = SigningKey::from_seed(&[1; 32]);
    // A full segment of the default k = 20 has shards of 820 KiB.
    let segments: Vec<Segment> = (0..SHARDS).map(|salt| Segment::new(&owner, salt, 820 << 10, &network())).collect();
    for segment in &segments {
        client.store(&node, segment).await.expect("stored");
    }
    let groups = (820 << 10) / 16_384;
    let (used, (asked, answered)) = (Used::now(), client.ask_bytes());
    for round in 0..ROUNDS {
        let first = |at: usize| (round * 7 + at as u32 * 11) % groups;
        let asked: Vec<_> = segments.iter().enumerate().map(|(at, segment)| (&segment.manifest, first(at))).collect();
        for (answer, (manifest, first)) in ask(&client, &node, &asked).await.iter().zip(&asked) {
            let ShardAnswer::Proof(proof) = answer else { panic!("{answer:?}") };
            let range = [GroupRange { first: *first, count: 1 }];
            decode_ranges(&manifest.roots[0], manifest.shard_length(), &range, proof).expect("a valid proof");
        }
    }
    let used = Used::now().since(used);
    let (sent, received) = (client.ask_bytes().0 - asked, client.ask_bytes().1 - answered);
    let audits = f64::from(ROUNDS * u32::from(SHARDS));
    let each = |all: u64| all as f64 / audits;
    let (bytes, cpu_us, reads) = (each(sent + received), each(used.cpu_us), each(used.reads));
    eprintln!(
        "an audit: {:.0} bytes asked, {:.0} answered, {cpu_us:.0} us of CPU at both ends, {reads:.1} reads of {:.0} bytes",
        each(sent),
        each(received),
        each(used.bytes_read),
    );
    eprintln!(
        "a shard and day, audited once in {EVERY_DAYS} days: {:.0} bytes, {:.0} us of CPU, {:.2} reads",
        bytes / EVERY_DAYS,
        cpu_us / EVERY_DAYS,
        reads / EVERY_DAYS,
    );
    // A group and six levels above it; the name of a shard.
    assert!((16_384.0..16_384.0 + 1_024.0).contains(&bytes), "{bytes}");
    // Its header, its outboard, the group; and whatever else the runtime reads.
    assert!((3.0..6.0).contains(&reads), "{reads}");
    // A hundred times more than measured here would be another design.
    assert!(cpu_us < 20_000.0, "{cpu_us}");
    node.stop().await;
}
