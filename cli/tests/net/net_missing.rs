//! Promise: a put that has placed enough shards, but not all, says how many found no place, and the network fills them
//! in by itself once it has nodes for them.

use std::{fs, time::Duration};

use serde_json::Value;

use super::harness::{Home, Network, Setup, noise, poll_until};

/// A node takes one shard of each large segment, never two; and the stewards' times in seconds instead of days.
const ONE_OF_EACH: &str = "[pledge]\nvault-max = \"12 MiB\"\n\n[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n\
                           [repair]\ntop-up = \"1 s\"\n";
/// With room for all; the same times.
const ROOMY: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
const FILLED_IN_MAX: Duration = Duration::from_secs(120);

/// Of five shards four are enough, and there are four nodes.
#[test]
fn shards_without_a_place_are_told_of_and_filled_in() {
    let network =
        Network::start(&Setup { nodes: 4, coding: Some("1/5"), overlay: Some(ONE_OF_EACH), ..Setup::default() });
    let (home, _) = network.new_home("home");
    let [first, second] = [(1, 8 << 20), (2, 3 << 20)].map(|(number, bytes)| {
        let path = network.scratch().join(format!("file-{number}"));
        fs::write(&path, noise(number, bytes)).unwrap();
        path
    });
    let put = home.put(&first, "/first");
    assert_eq!(put["commit"]["figures"]["shards_missing"], 1, "{put}");
    let said = home.run(["put", second.to_str().unwrap(), "/second"]).expect_code(0);
    said.expect_said(&["1 shard found no place yet; the network fills it in by itself"]);
    let lacking: u64 = segments(&home).iter().map(|segment| segment["lost"].as_u64().unwrap()).sum();
    assert_eq!(lacking, 2, "one shard of each file's segment is nobody's");

    network.add(1, Some(ROOMY));
    let whole = poll_until(FILLED_IN_MAX, || {
        segments(&home).iter().all(|segment| segment["healthy"] == segment["n"]).then_some(())
    });
    assert!(whole.is_some(), "{:?}", segments(&home));
}

/// `init` refuses a home that has a vault: the config of the home is where its coding is changed.
#[test]
fn a_coding_that_is_too_large_is_made_smaller_in_the_config() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("4/8"), ..Setup::default() });
    let (home, _) = network.new_home("home");
    let source = network.scratch().join("file");
    fs::write(&source, noise(1, 100_000)).unwrap();
    let put = ["put", source.to_str().unwrap(), "/file"];
    home.run(put).expect_code(1).expect_said(&["4 nodes can store here, 7 are needed", "[client] in config.toml"]);
    home.run(["init", "--coding", "2/4"]).expect_code(1).expect_said(&["holds a vault already"]);
    let path = home.dir.join("config.toml");
    let want = |coding: &str| {
        let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        config["client"].as_table_mut().unwrap().insert("coding".to_owned(), coding.into());
        fs::write(&path, config.to_string()).unwrap();
    };
    want("2/4");
    assert_eq!(home.json(put)["coding"], "2/4");

    // A target takes more nodes than these, or the cheapest coding that four can do.
    want("6-nines");
    let put = ["put", "--overwrite", source.to_str().unwrap(), "/file"];
    let said = home.run(put).expect_code(1);
    said.expect_said(&[
        "6-nines cannot be had over nodes in 4 failure domains",
        "nodes in 7 failure domains are needed",
    ]);
    want("3-nines");
    let report = home.json(put);
    assert_eq!(report["coding"], "1/3");
    assert!((1e-4..1e-3).contains(&report["loss_per_year"].as_f64().unwrap()), "{report}");
    assert_eq!(home.json(["status"])["coding"], "3-nines");
}

fn segments(home: &Home) -> Vec<Value> {
    home.json(["segments"])["segments"].as_array().unwrap().clone()
}
