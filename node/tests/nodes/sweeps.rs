//! Stewards that keep different things find out by digests, without any node coming or going; and who is no steward of a
//! record hands it over and lets it go.

use commonhold_policy::{Domain, stewards};
use commonhold_protocol::{
    DropKind, SegmentId, SigningKey,
    ask::{ASK_RECORDS_MAX, Request, Response},
};

use super::{
    drop_of,
    harness::{Client, Segment, TestNode, eventually, network},
    owner, record,
};

/// Stewards compare every five seconds.
const OFTEN: &str = "[audit]\ngrace = \"20 s\"\n";

async fn start(count: usize) -> Vec<TestNode> {
    start_with(count, OFTEN).await
}

async fn start_with(count: usize, overlay: &str) -> Vec<TestNode> {
    let mut nodes = vec![TestNode::start("node-0", &[], overlay).await];
    for number in 1..count {
        nodes.push(TestNode::start(&format!("node-{number}"), &[&nodes[0]], overlay).await);
    }
    eventually("all know each other", async || {
        let mut known = 0;
        for node in &nodes {
            known += node.status().await.nodes_known;
        }
        known as usize == count * (count - 1)
    })
    .await;
    nodes
}

async fn version(client: &Client, node: &TestNode, segment: SegmentId) -> Option<[u8; 32]> {
    match client.ask(node, Request::FetchVersions { segments: vec![segment] }).await {
        Response::Versions(versions) => versions[0],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_only_one_steward_heard_the_others_hear_from_it() {
    let nodes = start(3).await;
    let client = Client::start(&nodes.iter().collect::<Vec<_>>()).await;
    let [claimed, dropped] = [1, 2].map(|salt| Segment::new(&owner(), salt, 300_000, &network()));
    let claims = [client.store(&nodes[0], &claimed).await.unwrap(), client.store(&nodes[1], &claimed).await.unwrap()];
    let keep = async |node: &TestNode, records| {
        let kept = client.ask(node, Request::KeepRecords { records, lease: None }).await;
        assert!(matches!(&kept, Response::Kept(outcomes) if outcomes.iter().all(Result::is_ok)), "{kept:?}");
    };
    // All have the same, for a start.
    for node in &nodes {
        keep(node, vec![record(&claimed, Vec::new()), record(&dropped, Vec::new())]).await;
    }
    // Then each hears of something else.
    keep(&nodes[0], vec![record(&claimed, vec![claims[0].clone()])]).await;
    keep(&nodes[1], vec![record(&claimed, vec![claims[1].clone()])]).await;
    let drop = drop_of(dropped.manifest.id(), 1, DropKind::Drop);
    assert_eq!(client.ask(&nodes[2], Request::KeepDrop { drop }).await, Response::Kept(vec![Ok(())]));
    eventually("all know both claims and the drop", async || {
        for node in &nodes {
            let segments = vec![claimed.manifest.id(), dropped.manifest.id()];
            let Response::Records(records) = client.ask(node, Request::FetchRecords { segments }).await else {
                panic!("no records");
            };
            let claims = records[0].as_ref().unwrap().claims.len();
            if claims < 2 || records[1].as_ref().unwrap().drop.is_none() {
                return false;
            }
        }
        true
    })
    .await;
    eventually("all have the same", async || {
        for segment in [claimed.manifest.id(), dropped.manifest.id()] {
            let first = version(&client, &nodes[0], segment).await;
            for node in &nodes {
                if first.is_none() || version(&client, node, segment).await != first {
                    return false;
                }
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn who_is_no_steward_of_a_record_gives_it_to_all_eight_who_are() {
    let nodes = start(9).await;
    let client = Client::start(&nodes.iter().collect::<Vec<_>>()).await;
    let segment = Segment::new(&owner(), 1, 5000, &network());
    let id = segment.manifest.id();
    let candidates: Vec<_> = nodes.iter().map(|node| (node.id(), Domain::new(format!("{:#}", node.id())))).collect();
    let chosen = stewards::choose(id.as_bytes(), &candidates);
    let ninth = nodes.iter().find(|node| !chosen.contains(&node.id())).expect("nine are more than eight");
    let records = vec![record(&segment, Vec::new())];
    let kept = client.ask(ninth, Request::KeepRecords { records, lease: None }).await;
    assert_eq!(kept, Response::Kept(vec![Ok(())]));
    let stewards: Vec<_> = nodes.iter().filter(|node| chosen.contains(&node.id())).collect();
    eventually("all eight have it", async || {
        for node in &stewards {
            if version(&client, node, id).await.is_none() {
                return false;
            }
        }
        true
    })
    .await;
}

/// Whoever makes up many records has to bring them to each steward itself.
#[tokio::test]
async fn of_records_that_have_not_proven_themselves_few_are_handed_to_other_stewards() {
    const TIMES: &str = "[audit]\nevery = \"2 s\"\ngrace = \"4 s\"\n";
    const HANDED_ON_MAX: usize = 256;
    const MADE_UP: usize = 400;
    let first = TestNode::start("node-0", &[], TIMES).await;
    let second = TestNode::start("node-1", &[&first], TIMES).await;
    let client = Client::start(&[&first, &second]).await;
    let keep = async |records: Vec<_>| {
        let count = records.len();
        let kept = client.ask(&first, Request::KeepRecords { records, lease: None }).await;
        assert_eq!(kept, Response::Kept(vec![Ok(()); count]));
    };
    let mut made_up = Vec::new();
    for number in 0..MADE_UP {
        let stranger = SigningKey::from_seed(&[100 + (number / 200) as u8; 32]);
        made_up.push(Segment::new(&stranger, (number % 200) as u8, 5000, &network()));
    }
    for some in made_up.chunks(ASK_RECORDS_MAX) {
        keep(some.iter().map(|segment| record(segment, Vec::new())).collect()).await;
    }
    let held = Segment::new(&owner(), 252, 5000, &network());
    let claim = client.store(&first, &held).await.unwrap();
    keep(vec![record(&held, vec![claim])]).await;
    let arrived = async || {
        let mut arrived = 0;
        for segment in &made_up {
            arrived += usize::from(version(&client, &second, segment.manifest.id()).await.is_some());
        }
        arrived
    };
    eventually("the second has what was proven, and as many others as are handed on", async || {
        version(&client, &second, held.manifest.id()).await.is_some() && arrived().await >= HANDED_ON_MAX - 1
    })
    .await;
    assert!(arrived().await <= HANDED_ON_MAX, "{} were handed on", arrived().await);
}

/// The eighth of a record's stewards is one no more when a nearer node has joined.
#[tokio::test]
async fn a_record_that_its_stewards_have_is_let_go_by_whoever_is_none_of_them_any_more() {
    const TIMES: &str = "[audit]\nevery = \"2 s\"\ngrace = \"6 s\"\nprove = \"8 s\"\n";
    let mut nodes = start_with(8, TIMES).await;
    let client = Client::start(&nodes.iter().collect::<Vec<_>>()).await;
    let mut segments = Vec::new();
    for salt in 1..6 {
        let segment = Segment::new(&owner(), salt, 5000, &network());
        let claim = client.store(&nodes[0], &segment).await.unwrap();
        let records = vec![record(&segment, vec![claim])];
        for node in &nodes {
            client.ask(node, Request::KeepRecords { records: records.clone(), lease: None }).await;
        }
        segments.push(segment.manifest.id());
    }
    eventually("every steward has proof of every shard", async || {
        for node in &nodes {
            let answer = client.ask(node, Request::FetchHealth { segments: segments.clone() }).await;
            let Response::Health(reports) = answer else { panic!("{answer:?}") };
            if reports.iter().any(|report| report.as_ref().is_none_or(|report| report.healthy != 1)) {
                return false;
            }
        }
        true
    })
    .await;
    nodes.push(TestNode::start("node-8", &[&nodes[0]], TIMES).await);
    let client = Client::start(&nodes.iter().collect::<Vec<_>>()).await;
    let candidates: Vec<_> = nodes.iter().map(|node| (node.id(), Domain::new(format!("{:#}", node.id())))).collect();
    let ninth = |key: &[u8; 32]| {
        let chosen = stewards::choose(key, &candidates);
        nodes.iter().position(|node| !chosen.contains(&node.id())).expect("nine are more than eight")
    };
    let left = segments.iter().filter(|segment| ninth(segment.as_bytes()) != 8).count();
    assert!(left > 0, "the newcomer is farther away than all others of all five segments");
    let keepers = async |segment: SegmentId| {
        let mut keepers = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            if version(&client, node, segment).await.is_some() {
                keepers.push(number);
            }
        }
        keepers
    };
    eventually("all but the ninth have each record", async || {
        for segment in &segments {
            let keepers = keepers(*segment).await;
            if keepers.len() != 8 || keepers.contains(&ninth(segment.as_bytes())) {
                return false;
            }
        }
        true
    })
    .await;

    // One that nobody ever proves is kept by nobody, a steward or not.
    let made_up = Segment::new(&owner(), 9, 5000, &network());
    let id = made_up.manifest.id();
    let records = vec![record(&made_up, Vec::new())];
    let kept = client.ask(&nodes[ninth(id.as_bytes())], Request::KeepRecords { records, lease: None }).await;
    assert_eq!(kept, Response::Kept(vec![Ok(())]));
    eventually("it is forgotten everywhere", async || keepers(id).await.is_empty()).await;
}
