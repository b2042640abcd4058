//! Promise: whatever happens to volume files under running holders, no wrong byte is ever handed to a reader. A
//! holder notices, serves that shard no more and says so.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use commonhold_protocol::{SegmentId, ask::Refusal};

use super::harness::{Network, Setup, Spy, Tree, assert_same, claimed_by, hex_id, noise, poll_until, words};

/// A damaged shard costs an answer, never a stall.
const READ_MAX: Duration = Duration::from_secs(10);
/// Smaller than any shard of the large file: each of them is hit.
const FLIP_EVERY: u64 = 16 << 10;
/// The first nodes, whose disks are damaged. As many are left as are needed.
const DAMAGED: usize = 6;

#[test]
fn lying_disks_are_found_out() {
    let mut network = Network::start(&Setup { nodes: 10, coding: Some("4/10"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(200);
    tree.file("noise", &noise(2, 20 << 20));
    tree.file("words", &words(3, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");

    let segments = home.json(["segments"]);
    let claimed = |node: usize| claimed_by(&segments, &network.node_id(node));
    let claimed: Vec<Vec<(SegmentId, u8)>> = (0..DAMAGED).map(claimed).collect();

    // Five kinds of damage to six of ten nodes; four are left, and four are needed.
    flip(&network, 0);
    truncate(&network, 1);
    swap(&network, 2, 3);
    delete(&network, 4);
    zero(&network, 5);
    for round in 0..2 {
        let back = network.scratch().join(format!("back-{round}"));
        let reader = network.cold_home(&format!("cold-{round}"), &phrase, &[9]);
        let got = reader.get("/x", &back).expect_code(0);
        assert_same(tree.path(), &back);
        assert!(got.took < READ_MAX, "reading took {:?}", got.took);
        eprintln!("round {round}: read in {:?}", got.took);
        // Asked for every single shard, each of them finds out what it has lost, and serves nothing else as if it were.
        let spy = Spy::on(&network);
        for (node, shards) in claimed.iter().enumerate() {
            let figures = || ["held", "quarantined"].map(|figure| network.figure(node, &format!("/shards/{figure}")));
            // On a slow machine the others may begin to rebuild what was lost meanwhile, here too.
            let asked = poll_until(Duration::from_secs(30), || {
                let (before, lost) = (figures(), lost(&spy, &network, node, shards));
                (before[1] == lost && before == figures()).then_some((lost, before[0]))
            });
            let (lost, held) = asked.unwrap_or_else(|| panic!("node {node} says {:?} of {shards:?}", figures()));
            eprintln!("round {round}: node {node} has lost {lost} of {} shards", shards.len());
            assert!(lost > 0, "nothing happened to node {node}");
            assert!(held >= shards.len() as u64 - lost, "node {node} holds {held} of {} shards", shards.len());
        }
        // The second round finds them started anew, with nothing but what lies in their folders.
        if round == 0 {
            for node in 0..DAMAGED {
                network.kill(node);
                network.start_again(node, 9);
            }
        }
    }

    // Now every disk lies that has anything left: nothing can be read whole, and nothing wrong is written.
    for node in [0, 1, 2, 3, 5, 6, 7, 8, 9] {
        flip(&network, node);
    }
    let back = network.scratch().join("back-of-lies");
    let reader = network.cold_home("cold-of-lies", &phrase, &[9]);
    let failed = reader.get("/x", &back);
    assert!(failed.took < READ_MAX, "failing took {:?}", failed.took);
    failed.expect_code(4).expect_said(&["data unavailable: segment", "4 needed"]);
    each_file(&back, &mut |path| {
        let original = tree.path().join(path.strip_prefix(&back).unwrap());
        assert_eq!(fs::read(path).unwrap(), fs::read(original).unwrap(), "{}", path.display());
    });
}

/// Asks a node for each of these shards; gives how many of them it says it has lost. All others come as they were stored.
fn lost(spy: &Spy, network: &Network, node: usize, shards: &[(SegmentId, u8)]) -> u64 {
    let id = hex_id(&network.node_id(node));
    let is_lost = |(segment, index): &&(SegmentId, u8)| match spy.whole_shard(id, *segment, *index) {
        Ok(_) => false,
        Err(reason) => {
            assert!(reason.ends_with(&Refusal::Damaged.to_string()), "shard {index} of node {node}: {reason}");
            true
        }
    };
    shards.iter().filter(is_lost).count() as u64
}

/// The volume files of a node.
fn volumes(network: &Network, node: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    each_file(&network.node_dir(node).join("volumes"), &mut |path| {
        if fs::metadata(path).unwrap().len() > 1 << 20 {
            found.push(path.to_owned());
        }
    });
    assert!(!found.is_empty(), "node {node} has no volumes: is this still where they lie?");
    found
}

/// Visits the regular files below a folder, if there is one.
fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => each_file(&entry.path(), visit),
            kind if kind.is_file() => visit(&entry.path()),
            _ => {}
        }
    }
}

pub(super) fn flip(network: &Network, node: usize) {
    for path in volumes(network, node) {
        let file = fs::File::options().read(true).write(true).open(path).unwrap();
        // In the middle of a chunk group, so that neither a header nor padding alone is hit.
        let mut at = FLIP_EVERY / 2;
        let mut byte = [0];
        while file.read_at(&mut byte, at).unwrap() == 1 {
            file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
            at += FLIP_EVERY;
        }
    }
}

fn zero(network: &Network, node: usize) {
    for path in volumes(network, node) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        // What is beyond stays as it is: holes need no zeros.
        for at in (4096..length.min(64 << 20)).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], at).unwrap();
        }
    }
}

fn truncate(network: &Network, node: usize) {
    for path in volumes(network, node) {
        fs::File::options().write(true).open(path).unwrap().set_len(3 << 20).unwrap();
    }
}

fn delete(network: &Network, node: usize) {
    volumes(network, node).iter().for_each(|path| fs::remove_file(path).unwrap());
}

/// Exchanges the contents of two nodes' volumes, in place: a node that has them open sees the other's bytes.
fn swap(network: &Network, one: usize, other: usize) {
    for (a, b) in volumes(network, one).iter().zip(volumes(network, other)) {
        let (bytes_a, bytes_b) = (fs::read(a).unwrap(), fs::read(&b).unwrap());
        for (path, bytes) in [(a, bytes_b), (&b, bytes_a)] {
            fs::File::options().write(true).open(path).unwrap().write_all_at(&bytes, 0).unwrap();
        }
    }
}
