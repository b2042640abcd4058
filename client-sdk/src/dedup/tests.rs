use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use commonhold_storage_engine::keys::VaultSecret;

use super::*;
use crate::table::tests::{fields, segment};

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::at(folder.path().join("home"));
    home.create().expect("a home");
    (folder, home)
}

fn seal() -> Arc<LocalSeal> {
    Arc::new(LocalSeal::of(&VaultSecret::from_bytes([3; 32])))
}

fn assert_knows(index: &mut DedupIndex, segment: &PlacedSegment) {
    for chunk in &segment.chunks {
        let found = index.find(&chunk.tag).expect("known");
        assert!(found == chunk.chunk_ref(segment.id), "{:?}", fields(chunk).0);
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn placed_segments_are_known_in_the_next_process() {
    let (_folder, home) = home();
    // More than are kept open at once.
    let segments: Vec<PlacedSegment> = (0..OPEN_SEGMENTS_MAX as u8 + 4).map(|number| segment(number, 20)).collect();
    let mut index = DedupIndex::open(&home, seal());
    for segment in &segments {
        index.placed(segment).expect("kept");
    }
    index.set_table_seen(b"the table").expect("kept");
    drop(index);
    let mut index = reopen(&home, "the next process");
    assert_eq!(index.table_seen().as_deref(), Some(&b"the table"[..]));
    segments.iter().for_each(|segment| assert_knows(&mut index, segment));
    assert!(index.open.len() <= OPEN_SEGMENTS_MAX && index.open_order.len() <= OPEN_SEGMENTS_MAX);
    assert!(index.find(&[0; 16]).is_none());
}

#[test]
fn what_is_forgotten_is_not_found_again_here_or_in_the_next_process() {
    let (_folder, home) = home();
    let [kept, gone, filling] = [1, 2, 3].map(|number| segment(number, 20));
    let mut index = DedupIndex::open(&home, seal());
    for segment in [&kept, &gone] {
        index.placed(segment).expect("kept");
        // Its list is open from now on.
        assert_knows(&mut index, segment);
    }
    for chunk in &filling.chunks {
        index.insert(chunk.tag, chunk.chunk_ref(filling.id));
    }
    // A chunk that lies in a segment which stays, too.
    let moved = PlacedSegment { chunks: vec![gone.chunks[0].clone()], ..segment(4, 0) };
    index.placed(&moved).expect("kept");
    index.forget(&[gone.id, filling.id, segment(9, 0).id].into());
    let is_gone = |index: &mut DedupIndex| {
        let all = gone.chunks[1..].iter().chain(&filling.chunks);
        all.for_each(|chunk| assert!(index.find(&chunk.tag).is_none()));
        assert_knows(index, &kept);
        assert_knows(index, &moved);
        let mut cached: Vec<SegmentId> = index.cached().collect();
        cached.sort();
        assert_eq!(cached, [kept.id, moved.id]);
    };
    is_gone(&mut index);
    index.set_table_seen(b"the table").expect("kept");
    drop(index);
    let mut index = reopen(&home, "the next process");
    is_gone(&mut index);
    // Placed anew, it is found again.
    index.placed(&gone).expect("kept");
    gone.chunks.iter().for_each(|chunk| assert!(index.find(&chunk.tag).is_some()));
}

#[test]
fn chunks_of_segments_being_filled_are_known_at_once() {
    let (_folder, home) = home();
    let mut index = DedupIndex::open(&home, seal());
    let segment = segment(1, 3);
    for chunk in &segment.chunks {
        assert!(index.find(&chunk.tag).is_none());
        index.insert(chunk.tag, chunk.chunk_ref(segment.id));
    }
    assert_knows(&mut index, &segment);
    index.placed(&segment).expect("kept");
    assert!(index.recent.is_empty(), "what is in the cache takes no memory");
    assert_knows(&mut index, &segment);
}

#[test]
fn who_does_not_get_the_cache_works_without() {
    let (_folder, home) = home();
    let first = DedupIndex::open(&home, seal());
    let mut second = DedupIndex::open(&home, seal());
    assert!(first.has_cache() && !second.has_cache());
    let segment = segment(1, 3);
    second.placed(&segment).expect("kept");
    second.set_table_seen(b"table").expect("nothing to do");
    assert_eq!(second.table_seen(), None);
    assert_knows(&mut second, &segment);
    drop(first);
    drop(second);
    reopen(&home, "after the other one");
}

/// Another process, not another file descriptor of ours.
#[test]
fn a_cache_that_another_process_has_locked_is_left_alone() {
    let (_folder, home) = home();
    let lock = home.dir().join("cache.lock");
    let mut holder = std::process::Command::new("flock")
        .arg("--exclusive")
        .arg(&lock)
        .args(["sh", "-c", "echo locked; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut said = [0; 7];
    io::Read::read_exact(&mut holder.stdout.take().expect("piped"), &mut said).expect("it says so");
    assert!(!DedupIndex::open(&home, seal()).has_cache());
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    reopen(&home, "after the other one");
}

type Damage = fn(&[u8]) -> Vec<u8>;

/// sled gives its lock back a moment after it was dropped; until then, a second opener works without.
fn reopen(home: &Home, what: &str) -> DedupIndex {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let index = DedupIndex::open(home, seal());
        if index.has_cache() {
            return index;
        }
        assert!(Instant::now() < deadline, "{what}: no cache");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_damaged_cache_is_begun_anew() {
    let kinds: [(&str, Damage); 4] = [
        ("garbage", |bytes| vec![0xa5; bytes.len().max(64)]),
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("emptied", |_| Vec::new()),
        ("flipped", |bytes| bytes.iter().map(|byte| byte ^ 0xff).collect()),
    ];
    for (kind, damage) in kinds {
        let (_folder, home) = home();
        let mut index = DedupIndex::open(&home, seal());
        for number in 0..10 {
            index.placed(&segment(number, 100)).expect("kept");
        }
        index.set_table_seen(b"table").expect("kept");
        drop(index);
        for path in files(&home.cache_dir()) {
            let bytes = fs::read(&path).expect("readable");
            fs::write(&path, damage(&bytes)).expect("damaged");
        }
        let mut index = reopen(&home, kind);
        // Whatever it still finds is right.
        for number in 0..10 {
            let segment = segment(number, 100);
            for chunk in &segment.chunks {
                let found = index.find(&chunk.tag);
                assert!(found.is_none_or(|found| found == chunk.chunk_ref(segment.id)), "{kind}");
            }
        }
        let again = segment(77, 10);
        index.placed(&again).expect("kept");
        index.set_table_seen(b"another").expect("kept");
        drop(index);
        assert_knows(&mut reopen(&home, kind), &again);
    }
}

#[test]
fn neither_keys_nor_another_vault_can_be_read_from_the_cache() {
    let (_folder, home) = home();
    let segment = segment(1, 50);
    let mut index = DedupIndex::open(&home, seal());
    index.placed(&segment).expect("kept");
    index.set_table_seen(b"a table's root holds a key").expect("kept");
    drop(index);
    for path in files(&home.cache_dir()) {
        let bytes = fs::read(&path).expect("readable");
        for chunk in &segment.chunks {
            assert!(!bytes.windows(32).any(|window| window == chunk.key.as_bytes()), "{}", path.display());
        }
        assert!(!bytes.windows(26).any(|window| window == b"a table's root holds a key"));
    }
    let mut other = DedupIndex::open(&home, Arc::new(LocalSeal::of(&VaultSecret::from_bytes([4; 32]))));
    assert!(other.find(&segment.chunks[0].tag).is_none() && other.table_seen().is_none());
}
