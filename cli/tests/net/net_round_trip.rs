//! Promise: a network of 14 nodes is ready within ten seconds, and gives back 20,000 small files, large ones and
//! every oddity that a file can have, bit for bit, as rsync and find see it.

use std::time::{Duration, UNIX_EPOCH};

use super::harness::{Network, Setup, Tree, assert_same, bytes_placed, noise, words};

const READY_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_folder_comes_back_as_it_was() {
    let network = Network::start(&Setup { nodes: 14, ..Setup::default() });
    assert!(network.ready_after < READY_MAX, "ready after {:?}", network.ready_after);

    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20_000);
    tree.file("large/noise", &noise(2, 200 << 20));
    tree.file("large/words", &words(3, 100 << 20));
    tree.oddities();

    let home = network.dev_home();
    let put = home.put(tree.path(), "/all of it");
    assert_eq!(put["unreadable"].as_array().unwrap().len(), 0, "{put}");
    // The words compress, and n is at most 2k: less than twice the bytes may travel, and a little for proofs and trees.
    let (bytes, placed) = (put["bytes"].as_u64().unwrap(), bytes_placed(&put));
    assert!(placed < 2 * bytes, "{placed} bytes sent for {bytes}");

    let back = network.scratch().join("back");
    let got = home.get("/all of it", &back).expect_code(0);
    assert_same(tree.path(), &back);
    eprintln!(
        "put {:.1} s, get {:.1} s, ready {:?}",
        put["seconds"].as_f64().unwrap(),
        got.took.as_secs_f64(),
        network.ready_after
    );

    // What is stored already is not sent again, and a copy in the vault costs next to nothing.
    let again = home.put(tree.path(), "/a second time");
    let placed_again = bytes_placed(&again);
    assert!(placed_again < placed / 50, "{placed_again} bytes sent for what is there already");

    // Holes stay holes: the disk gives them no blocks.
    for name in ["odd/sparse", "odd/all hole"] {
        let blocks = |path: &std::path::Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap());
        let (ours, theirs) = (blocks(&tree.path().join(name)), blocks(&back.join(name)));
        assert!(theirs <= ours + 512, "{name}: {theirs} blocks where there were {ours}");
    }

    // Copies refuse to overwrite unless told.
    home.get("/all of it", &back).expect_code(1).expect_said(&["exists already", "--overwrite"]);
    let source = tree.path().to_str().unwrap();
    home.run(["put", source, "/all of it"]).expect_code(1).expect_said(&["exists already"]);
}

/// The root of a vault has no entry that could say when it was changed: its head does.
#[test]
fn a_restored_root_has_the_time_of_the_head() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20);
    let (home, _) = network.new_home("home");
    let mut times = Vec::new();
    for path in ["/one", "/two"] {
        home.put(tree.path(), path);
        let back = network.scratch().join(path.trim_start_matches('/'));
        home.get("/", &back).expect_code(0);
        let modified = back.metadata().unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let written_at_ms = home.json(["status"])["written_at_ms"].as_u64().unwrap();
        assert_eq!(modified, Duration::from_millis(written_at_ms));
        times.push(modified);
        // What is in it keeps its own.
        assert_same(tree.path(), &back.join("one"));
    }
    assert!(times[0] < times[1]);
}
