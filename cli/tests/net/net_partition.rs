//! Promise: a network that falls in two goes on on both sides, and when it heals, what was written on either side is
//! there: both files, both versions where both changed one path, and the newer one where only one side did.
//!
//! The two sides are network namespaces, joined by a cable that can be pulled. That takes root.

mod two_sides;

use std::{collections::BTreeMap, fs, path::PathBuf};

use self::two_sides::{Side, TwoSides};
use super::harness::{contents, eventually};

const NODES_PER_SIDE: usize = 6;
/// Each side is a domain, so half of the shards of each segment are on either: one more than is needed.
const CODING: &str = "2/6";
const PARTITIONS: usize = 3;
const WRITES_PER_SIDE: usize = 3;

#[test]
fn two_sides_of_a_partition_come_together_again() {
    let Some(lab) = TwoSides::set_up(NODES_PER_SIDE) else {
        eprintln!("SKIPPED: only root can make network namespaces");
        return;
    };
    let [ada, bob] = [Side::A, Side::B];
    let local = lab.scratch().join("local");
    fs::create_dir(&local).unwrap();
    let phrase = lab.init(ada, CODING);
    let mut expected = BTreeMap::new();
    let mut store = |side: Side, path: &str, content: &str| {
        let file = local.join("file");
        fs::write(&file, content).unwrap();
        lab.client(side, &["put", file.to_str().unwrap(), &format!("/{path}"), "--overwrite"]).expect_code(0);
        expected.insert(path.to_owned(), content.to_owned());
    };
    for path in ["ada's diary", "bob's diary", "untouched"] {
        store(ada, path, "at first");
    }
    lab.recover(bob, CODING, &phrase);

    let mut clashes = Vec::new();
    for partition in 0..PARTITIONS {
        lab.pull_the_cable();
        for (side, name) in [(ada, "ada"), (bob, "bob")] {
            for write in 0..WRITES_PER_SIDE {
                store(
                    side,
                    &format!("{name}-{partition}-{write}"),
                    &format!("{name} wrote {write} apart from the other"),
                );
            }
            store(side, &format!("{name}'s diary"), &format!("{name} in partition {partition}"));
            let file = local.join("clash");
            fs::write(&file, format!("{name} in partition {partition}")).unwrap();
            let path = format!("/clash-{partition}");
            lab.client(side, &["put", file.to_str().unwrap(), &path]).expect_code(0);
        }
        clashes.push(format!("clash-{partition}"));
        // They are apart indeed: neither sees what the other has just written.
        assert!(!names(&lab, ada).contains(&format!("bob-{partition}-0")));
        assert!(!names(&lab, bob).contains(&format!("ada-{partition}-0")));

        lab.plug_it_in();
        eventually("both sides see the same", || {
            let [ada, bob] = [names(&lab, ada), names(&lab, bob)];
            ada == bob && ada.contains(&format!("bob-{partition}-0")) && ada.contains(&format!("ada-{partition}-0"))
        });
    }

    let folders = [(ada, "ada"), (bob, "bob")].map(|(side, name)| fetch(&lab, side, name));
    let [mut seen, same] = folders.map(|folder| contents(&folder));
    assert_eq!(seen, same);
    for (partition, clash) in clashes.iter().enumerate() {
        let copies: Vec<String> = seen.keys().filter(|name| name.starts_with(clash.as_str())).cloned().collect();
        let mut found: Vec<String> = copies.iter().map(|name| seen.remove(name).unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, ["ada", "bob"].map(|name| format!("{name} in partition {partition}")), "{copies:?}");
    }
    // Nothing else has been kept twice: the diaries were changed on one side each.
    assert_eq!(seen, expected);
}

fn names(lab: &TwoSides, side: Side) -> Vec<String> {
    let listed = lab.client(side, &["ls", "/", "--json"]).expect_code(0).json();
    listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn fetch(lab: &TwoSides, side: Side, name: &str) -> PathBuf {
    let target = lab.scratch().join(format!("seen-by-{name}"));
    lab.client(side, &["get", "/", target.to_str().unwrap()]).expect_code(0);
    target
}
