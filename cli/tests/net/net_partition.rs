//! Promise: a network that falls in two goes on on both sides, and when it heals, what was written on either side is
//! there: both files, both versions where both changed one path, and the newer one where only one side did. That is so
//! too if they were apart for so long that each side gave up the other's nodes, and rebuilt what they held.
//!
//! The two sides are network namespaces, joined by a cable that can be pulled. That takes root.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::harness::{Cable, Finished, Side, Sides, TwoSides, assert_same, contents, eventually, noise, poll_until};

const NODES_PER_SIDE: usize = 6;
/// Each side is a domain, so half of the shards of each segment are on either: one more than is needed.
const CODING: &str = "2/6";
const PARTITIONS: usize = 5;
/// In each of them; in a round both sides write at once.
const ROUNDS: usize = 10;

#[test]
fn two_sides_of_a_partition_come_together_again() {
    let sides = Sides { nodes: [NODES_PER_SIDE; 2], side_is_domain: true, config: "", cable: Cable::Good };
    let Some(lab) = TwoSides::set_up(&sides) else {
        eprintln!("SKIPPED: only root can make network namespaces");
        return;
    };
    let names_of = [(Side::A, "ada"), (Side::B, "bob")];
    let local = lab.scratch().join("local");
    fs::create_dir(&local).unwrap();
    let put = |side: Side, path: &str, content: &str| {
        let file = local.join(format!("{side:?}"));
        fs::write(&file, content).unwrap();
        lab.client(side, &["put", file.to_str().unwrap(), &format!("/{path}"), "--overwrite"]).expect_code(0);
    };
    let phrase = lab.init(Side::A, CODING);
    let mut expected = BTreeMap::new();
    for path in ["ada's diary", "bob's diary", "untouched"] {
        put(Side::A, path, "at first");
        expected.insert(path.to_owned(), "at first".to_owned());
    }
    lab.recover(Side::B, CODING, &phrase);

    let mut clashes = Vec::new();
    for round in 0..PARTITIONS * ROUNDS {
        if round % ROUNDS == 0 {
            lab.pull_the_cable();
        }
        // Mostly files of their own, sometimes the same one, sometimes over what they had.
        let path = |name: &str| match round % 5 {
            1 => format!("clash-{round:02}"),
            3 => format!("{name}'s diary"),
            _ => format!("{name}-{round:02}"),
        };
        thread::scope(|writing| {
            for (side, name) in names_of {
                let (path, put) = (path(name), &put);
                writing.spawn(move || put(side, &path, &format!("{name} in round {round}")));
            }
        });
        if round % 5 == 1 {
            clashes.push(round);
        } else {
            expected.extend(names_of.map(|(_, name)| (path(name), format!("{name} in round {round}"))));
        }
        if round % ROUNDS == ROUNDS - 1 {
            // They are apart indeed: neither sees what the other has just written.
            assert!(!names(&lab, Side::A).contains(&path("bob")) && !names(&lab, Side::B).contains(&path("ada")));
            lab.plug_it_in();
            eventually("both sides see the same", || {
                let [ada, bob] = names_of.map(|(side, _)| names(&lab, side));
                ada == bob && names_of.iter().all(|(_, name)| ada.contains(&path(name)))
            });
        }
    }

    let folders = names_of.map(|(side, name)| fetch(&lab, side, name));
    let [mut seen, same] = folders.map(|folder| contents(&folder));
    assert_eq!(seen, same);
    for round in clashes {
        let clash = format!("clash-{round:02}");
        let copies: Vec<String> = seen.keys().filter(|name| name.starts_with(&clash)).cloned().collect();
        let mut found: Vec<String> = copies.iter().map(|name| seen.remove(name).unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, ["ada", "bob"].map(|name| format!("{name} in round {round}")), "{copies:?}");
        let is_plain = |copy: &String| copy.contains("conflict") && copy.contains("device");
        assert!(
            copies.contains(&clash) && copies.iter().any(is_plain),
            "{copies:?}: no name that a person understands"
        );
    }
    // Nothing else has been kept twice: the diaries were changed on one side each.
    assert_eq!(seen, expected);
}

/// The stewards' times in seconds instead of days.
const TIMES: &str = "announce = \"3 s\"\n[audit]\nevery = \"10 s\"\ngrace = \"4 s\"\n[repair]\ntop-up = \"1 s\"\n";
/// A node that a cable does not lead to any more is silent after five seconds, and lost after the grace time; then comes
/// the repair. The rest is for a loaded machine.
const SETTLED_MAX: Duration = Duration::from_secs(120);

#[test]
fn two_sides_that_gave_each_other_up_come_together_again() {
    let sides = Sides { nodes: [NODES_PER_SIDE; 2], side_is_domain: true, config: TIMES, cable: Cable::Good };
    let Some(lab) = TwoSides::set_up(&sides) else {
        eprintln!("SKIPPED: only root can make network namespaces");
        return;
    };
    let [ada, bob] = [Side::A, Side::B];
    let local = lab.scratch().join("local");
    fs::create_dir(&local).unwrap();
    let phrase = lab.init(ada, CODING);
    let put = |side: Side, path: &str, content: &[u8]| {
        let file = local.join("file");
        fs::write(&file, content).unwrap();
        lab.client(side, &["put", file.to_str().unwrap(), &format!("/{path}"), "--overwrite"]).expect_code(0);
    };
    let large = noise(1, 4 << 20);
    put(ada, "from before", &large);
    put(ada, "ada's diary", b"at first");
    put(ada, "bob's diary", b"at first");
    lab.recover(bob, CODING, &phrase);
    let whole = |segment: &Value| segment["healthy"] == segment["n"];
    for side in [ada, bob] {
        settled(&lab, side, "every shard is proven", whole);
    }
    let shards_before = lab.figures(ada, "/shards/held") + lab.figures(bob, "/shards/held");

    lab.pull_the_cable();
    let pulled = Instant::now();
    for (side, name) in [(ada, "ada"), (bob, "bob")] {
        put(side, &format!("{name}'s diary"), name.as_bytes());
        put(side, "both", name.as_bytes());
        put(side, &format!("from {name}"), &noise(name.len() as u64 + pulled.elapsed().as_secs(), 1 << 20));
    }
    // The other half is given up, and as much is rebuilt as one domain is to hold of a segment: one shard above the
    // threshold.
    for (side, name) in [(ada, "ada"), (bob, "bob")] {
        let goal = |segment: &Value| {
            let (k, n) = (segment["k"].as_u64().unwrap(), segment["n"].as_u64().unwrap());
            (n - (n - k).div_ceil(4) + 1).min(n)
        };
        settled(&lab, side, "it has made good what is away", |segment| {
            segment["healthy"].as_u64() >= Some(goal(segment))
        });
        let [lost, rebuilt] = ["lost_holders", "shards_rebuilt"].map(|of| lab.figures(side, &format!("/audits/{of}")));
        eprintln!(
            "{name}'s side: settled after {:.1?}, {lost} nodes given up, {rebuilt} shards rebuilt",
            pulled.elapsed()
        );
        assert!(lost > 0 && rebuilt > 0);
        // What was there before is there, on each half alone.
        let seen = lab.client(side, &["cat", "/from before"]).expect_code(0).stdout;
        assert!(seen == large, "another content");
    }
    let mut seen = [names(&lab, ada), names(&lab, bob)];

    lab.plug_it_in();
    let healed = Instant::now();
    // From now on neither side may ever see less than it saw, not even a client that remembers nothing.
    let expected = ["ada's diary", "bob's diary", "from ada", "from before", "from bob"];
    eventually("both sides see all", || {
        for (side, seen) in [ada, bob].into_iter().zip(&mut seen) {
            let now = names_without_memory(&lab, side);
            let gone: Vec<&String> = seen.iter().filter(|name| !now.contains(name)).collect();
            assert!(gone.is_empty(), "{side:?} saw {gone:?} before, and now only {now:?}");
            *seen = now;
        }
        seen.iter().all(|names| expected.iter().all(|name| names.iter().any(|seen| seen == name)))
    });
    eprintln!("both sides see all {:.1?} after the cable was plugged in again", healed.elapsed());

    let folders = [(ada, "ada"), (bob, "bob")].map(|(side, name)| fetch(&lab, side, name));
    assert_same(&folders[0], &folders[1]);
    let read = |name: &str| fs::read(folders[0].join(name)).unwrap();
    assert!(read("from before") == large, "another content");
    assert_eq!((read("ada's diary"), read("bob's diary")), (b"ada".to_vec(), b"bob".to_vec()));
    let mut both: Vec<Vec<u8>> =
        seen[0].iter().filter(|name| name.starts_with("both")).map(|name| read(name)).collect();
    both.sort_unstable();
    assert_eq!(both, [b"ada".to_vec(), b"bob".to_vec()]);

    // The stewards of both sides find together too: all that is stored is proven to all of them.
    for side in [ada, bob] {
        settled(&lab, side, "every shard is proven again", |segment| whole(segment) && segment["disagreeing"] == 0);
    }
    let held = || lab.figures(ada, "/shards/held") + lab.figures(bob, "/shards/held");
    eprintln!(
        "all is whole {:.1?} after the cable was plugged in again; {shards_before} shards before, {} now",
        healed.elapsed(),
        held()
    );
    // What both sides have by now is surplus, and given up: each shard is held once.
    let listed = lab.client(ada, &["segments", "--json"]).expect_code(0).json();
    let once: u64 = listed["segments"].as_array().unwrap().iter().map(|segment| segment["n"].as_u64().unwrap()).sum();
    let settled = poll_until(SETTLED_MAX, || (held() == once).then_some(()));
    assert!(settled.is_some(), "{} shards are held, {once} there are", held());
    eprintln!("each of {once} shards is held once {:.1?} after the cable was plugged in again", healed.elapsed());
}

/// Looks at the segments as the owner on one side does until all of them are as they should be.
fn settled(lab: &TwoSides, side: Side, what: &str, is: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let seen = poll_until(SETTLED_MAX, || {
        last = lab.client(side, &["segments", "--json"]).expect_code(0).json();
        let segments = last["segments"].as_array().unwrap();
        (!segments.is_empty() && segments.iter().all(&is)).then_some(())
    });
    assert!(seen.is_some(), "waited {SETTLED_MAX:?} in vain until {what} on {side:?}: {last}");
}

fn names(lab: &TwoSides, side: Side) -> Vec<String> {
    names_in(&lab.client(side, &["ls", "/", "--json"]))
}

/// What a client that remembers no head sees.
fn names_without_memory(lab: &TwoSides, side: Side) -> Vec<String> {
    names_in(&lab.client_without_memory(side, &["ls", "/", "--json"]))
}

fn names_in(listed: &Finished) -> Vec<String> {
    let listed = listed.json();
    listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn fetch(lab: &TwoSides, side: Side, name: &str) -> PathBuf {
    let target = lab.scratch().join(format!("seen-by-{name}"));
    lab.client(side, &["get", "/", target.to_str().unwrap()]).expect_code(0);
    target
}
