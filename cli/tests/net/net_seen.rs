//! Promise: whoever looks sees how things are. An owner, from any machine that knows the phrase, sees of each segment how
//! many shards are well, and in plain words what the files survive; where there are fewer nodes than shards, the network
//! rests at what can be had and says so, and goes on when there are more. An operator's figures are those of what was
//! done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use super::harness::{Home, Network, Setup, Tree, assert_same, noise, poll_until};

const NODES: usize = 8;
/// The stewards' times in seconds instead of days.
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
/// Silence, grace, top-up and the head starts of eight ranks take some 20 seconds; the rest is for a loaded machine.
const SETTLED_MAX: Duration = Duration::from_secs(120);

#[test]
fn with_fewer_nodes_than_shards_it_rests_and_says_so_until_there_are_more() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some("4/8"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(50);
    tree.file("large", &noise(2, 30 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let small = network.scratch().join("small");
    fs::write(&small, noise(3, 100_000)).unwrap();
    home.put(&small, "/small");

    let whole = settled(&home, "every shard is proven", |segment| segment["healthy"] == segment["n"]);
    assert!(whole.iter().any(|segment| segment["n"] == 8) && whole.iter().all(|segment| segment["lost"] == 0));
    assert!(whole.iter().all(|segment| segment["stewards"] == NODES), "all eight nodes are stewards: {whole:?}");
    let status = home.json(["status"]);
    assert_eq!((&status["losses_survived"], &status["segments_unknown"]), (&4.into(), &0.into()), "{status}");
    assert!(status["degraded"].is_null() && status["kept_until_ms"].is_u64(), "{status}");
    says(&home, &["every file survives any 4 more losses", "no shard is missing", "no steward knows of a repair"]);

    // What the owner knows comes from the stewards: a machine with nothing but the phrase sees the same, and of a path
    // what lies on it.
    let cold = network.cold_home("cold", &phrase, &[7]);
    sees_the_same(&cold, &whole);
    let of_file = cold.json(["segments", "/small"]);
    let of_file = of_file["segments"].as_array().unwrap();
    assert!(!of_file.is_empty() && of_file.len() < whole.len(), "{of_file:?}");

    for node in [0, 1] {
        network.kill(node);
    }
    // Small segments have fewer shards than there are nodes left: those are made whole again.
    let most = |segment: &Value| segment["n"].as_u64().unwrap().min(NODES as u64 - 2);
    let few = settled(&home, "it rests at what can be had", |segment| {
        let rests = segment["n"].as_u64().unwrap() > most(segment);
        let rests = segment["resting"] == rests && segment["repairing"] == false;
        rests && segment["healthy"] == most(segment) && segment["suspect"] == 0 && segment["stewards"] == NODES - 2
    });
    sees_the_same(&cold, &few);
    assert!(few.iter().filter(|segment| segment["n"] == 8).all(|segment| segment["lost"] == 2), "{few:?}");
    says(&home, &["every file survives any 2 more losses", "degraded: 6 of 8, no more nodes"]);
    let status = home.json(["status"]);
    let expected = few.iter().filter(|segment| segment["resting"] == true).count();
    assert_eq!(status["degraded"], serde_json::json!({ "have": 6, "n": 8, "segments": expected }), "{status}");
    let lost = |network: &Network| network.figures("/audits/lost_holders");
    assert!(lost(&network) > 0, "given up by somebody");

    // No repair storm: while every shard is audited again and again, nothing more is moved.
    let moved = |network: &Network| {
        let figures = ["bytes_read", "bytes_sent", "repairs", "repairs_failed"];
        figures.map(|figure| network.figures(&format!("/audits/{figure}")))
    };
    let (before, audited) = (moved(&network), network.figures("/audits/held"));
    let shards: u64 = few.iter().map(|segment| segment["healthy"].as_u64().unwrap()).sum();
    let again = poll_until(SETTLED_MAX, || (network.figures("/audits/held") >= audited + 2 * shards).then_some(()));
    assert!(again.is_some(), "audits go on");
    assert_eq!(moved(&network), before, "bytes read and sent, repairs and failed repairs, while it rests");

    network.add(2, Some(TIMES));
    let whole_again = settled(&home, "all shards are back on fresh nodes", |segment| {
        segment["healthy"] == segment["n"] && segment["lost"] == 0 && segment["resting"] == false
    });
    assert!(whole_again.iter().any(|segment| segment["repaired_at_ms"].is_u64()), "somebody remembers the repair");
    says(&home, &["every file survives any 4 more losses", "no shard is missing", "last repaired:  20"]);
    let alive = network.running();
    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[alive[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);

    figures_are_of_what_was_done(&network, &few);
    // Of peers one sees those that are there, and what they have room for.
    let peers = home.json(["peers"]);
    let there = peers.as_array().unwrap().iter().filter(|peer| peer["free_bytes"].as_u64() > Some(0));
    let there: BTreeSet<String> = there.map(|peer| peer["node"].as_str().unwrap().to_owned()).collect();
    assert_eq!(there, network.running().into_iter().map(|node| network.node_id(node)).collect(), "{peers}");
}

/// A home without any memory of it sees these very counts of each segment.
fn sees_the_same(cold: &Home, expected: &[Value]) {
    let counts = |segments: &[Value]| -> Vec<Vec<Value>> {
        let of = |segment: &Value| {
            ["id", "k", "n", "healthy", "suspect", "lost", "stewards"].map(|key| segment[key].clone())
        };
        segments.iter().map(|segment| of(segment).to_vec()).collect()
    };
    let (expected, mut seen) = (counts(expected), Vec::new());
    let same = poll_until(SETTLED_MAX, || {
        seen = counts(cold.json(["segments"])["segments"].as_array().unwrap());
        (seen == expected).then_some(())
    });
    assert!(same.is_some(), "with the phrase alone one sees {seen:?}, not {expected:?}");
}

/// What the nodes tell Prometheus and people is what happened: as many shards placed as were missing, as many bytes.
fn figures_are_of_what_was_done(network: &Network, few: &[Value]) {
    let missing: u64 = few.iter().map(|segment| segment["lost"].as_u64().unwrap()).sum();
    let missing_bytes: u64 = few.iter().map(|of| of["lost"].as_u64().unwrap() * shard_bytes(of)).sum();
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for node in network.running() {
        let dashboard = fs::read_to_string(network.node_dir(node).join("dashboard")).unwrap();
        let address = dashboard.lines().next().unwrap();
        assert!(page(address, "/health").ends_with("ok\n"));
        let page = page(address, "/metrics");
        let samples = page.lines().filter(|line| line.starts_with("commonhold_"));
        for (name, value) in samples.map(|line| line.rsplit_once(' ').unwrap()) {
            *all.entry(name.to_owned()).or_default() += value.parse::<u64>().unwrap();
        }
        let used = network.figure(node, "/pledge/used_bytes");
        assert!(page.contains(&format!("commonhold_shards {}\n", network.figure(node, "/shards/held"))), "{page}");
        let records = network.figure(node, "/records/segments");
        assert!(records > 0 && page.contains(&format!("commonhold_segment_records {records}\n")), "{page}");
        assert!(used > 0 && page.contains(&format!("commonhold_pledge_used_bytes {used}\n")), "{page}");
    }
    let of = |name: &str| *all.get(&format!("commonhold_{name}")).unwrap_or_else(|| panic!("no {name} in {all:?}"));
    assert!(of("shards_rebuilt_total") >= missing, "{missing} were missing: {all:?}");
    assert!(of("repair_sent_bytes_total") >= missing_bytes, "{missing_bytes} were missing: {all:?}");
    assert!(of("repair_read_bytes_total") > 0 && of("repairs_total") > 0);
    assert!(of("audits_total{outcome=\"held\"}") > 0 && of("lost_holders_total") > 0);
    // There is one, though who is known to be silent is asked nothing.
    let _unreachable: u64 = of("audits_total{outcome=\"unreachable\"}");
    for outcome in ["wrong", "refused", "contradicted"] {
        assert_eq!(of(&format!("audits_total{{outcome=\"{outcome}\"}}")), 0, "{outcome}");
    }
    assert_eq!(of("shards"), network.figures("/shards/held"));
    // The person's words have the same figures.
    let repairer = network.running().into_iter().find(|node| network.figure(*node, "/audits/repairs") > 0).unwrap();
    let config = network.node_dir(repairer).join("node.toml");
    let told = network.dev_home().json(["node", "status", "--config", config.to_str().unwrap()]);
    for figure in ["repairs", "shards_rebuilt", "bytes_read", "bytes_sent", "wrong", "refused", "lost_holders"] {
        let path = format!("/audits/{figure}");
        assert_eq!(
            told.pointer(&path).and_then(Value::as_u64),
            Some(network.figure(repairer, &path)),
            "{path}: {told}"
        );
    }
    // These may have grown meanwhile.
    for path in ["/audits/held", "/records/segments", "/pledge/used_bytes"] {
        assert!(told.pointer(path).and_then(Value::as_u64) > Some(0), "{path}: {told}");
    }
    for path in ["/audits/contradicted", "/audits/unreachable"] {
        assert!(told.pointer(path).is_some_and(Value::is_u64), "{path}: {told}");
    }
    let told = network.dev_home().run(["node", "status", "--config", config.to_str().unwrap()]).expect_code(0);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("last repair:") && !told.contains("none since the start"), "{told}");
    let log = fs::read_to_string(network.node_dir(repairer).join("log")).unwrap();
    assert!(log.contains(" repaired "), "{log}");
    let logs =
        network.running().into_iter().map(|node| fs::read_to_string(network.node_dir(node).join("log")).unwrap());
    assert!(logs.into_iter().any(|log| log.contains("a node counts as lost")), "no log names a lost holder");
}

/// Bytes of one shard: slices of whole length, the last one padded.
fn shard_bytes(segment: &Value) -> u64 {
    segment["length"].as_u64().unwrap().div_ceil(segment["k"].as_u64().unwrap())
}

/// Looks at the segments as an owner does until all of them are as they should be.
fn settled(home: &Home, what: &str, is: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut last = Value::Null;
    let seen = poll_until(SETTLED_MAX, || {
        last = home.json(["segments"]);
        let segments = last["segments"].as_array().unwrap();
        (!segments.is_empty() && segments.iter().all(&is)).then(|| segments.clone())
    });
    seen.unwrap_or_else(|| panic!("waited {SETTLED_MAX:?} in vain until {what}: {last}"))
}

/// `status`, for people, says all of this.
fn says(home: &Home, parts: &[&str]) {
    let told = home.run(["status"]).expect_code(0);
    let told = String::from_utf8(told.stdout).unwrap();
    for part in parts {
        assert!(told.contains(part), "not a word of {part:?} in:\n{told}");
    }
}

fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "{answer}");
    answer
}
