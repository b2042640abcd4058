use std::{fs, thread};

use super::*;

const BYTES_MAX: u64 = 64 << 20;

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 32])
}

fn key(number: u32) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn put(number: u32, body: &[u8], expected: Option<u64>) -> Change {
    let body = Some(body.to_vec());
    Change { kind: Kind::Segment, key: key(number), owner: vault(1), tag: 7, body, expected }
}

fn sequence(committed: &[Committed]) -> u64 {
    match committed {
        [Committed::Done { sequence }] => *sequence,
        other => panic!("{other:?}"),
    }
}

fn body(store: &RecordStore, number: u32) -> Option<Vec<u8>> {
    store.get(Kind::Segment, &key(number)).unwrap().map(|kept| kept.body)
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert_eq!(report, OpenReport::default());
    let first = sequence(&store.commit(&[put(1, b"one", None)]).unwrap());
    store.commit(&[put(2, b"two", None)]).unwrap();
    store.commit(&[put(1, b"one, changed", Some(first))]).unwrap();
    let gone = sequence(&store.commit(&[put(3, b"three", None)]).unwrap());
    store.commit(&[Change { body: None, ..put(3, b"", Some(gone)) }]).unwrap();
    // No checkpoint, no clean end: as after kill -9.
    drop(store);
    let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert!(!report.rebuilt);
    assert_eq!(report.kept, 2);
    assert_eq!(body(&store, 1).unwrap(), b"one, changed");
    assert_eq!(body(&store, 2).unwrap(), b"two");
    assert_eq!(body(&store, 3), None);
    assert_eq!(store.counts(), RecordCounts { segments: 2, ..RecordCounts::default() });
    assert_eq!(store.summary(Kind::Segment, &key(2)).unwrap().unwrap().tag, 7);
    assert_eq!(store.owner(Kind::Segment, &key(2)).unwrap(), Some(vault(1)));
}

#[test]
fn a_change_made_from_an_older_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    let first = sequence(&store.commit(&[put(1, b"one", None)]).unwrap());
    assert_eq!(store.commit(&[put(1, b"other", None)]).unwrap(), [Committed::Conflict]);
    store.commit(&[put(1, b"two", Some(first))]).unwrap();
    let mixed = store.commit(&[put(1, b"three", Some(first)), put(2, b"new", None)]).unwrap();
    assert!(matches!(mixed[..], [Committed::Conflict, Committed::Done { .. }]));
    assert_eq!(body(&store, 1).unwrap(), b"two");
    assert_eq!(body(&store, 2).unwrap(), b"new");
}

#[test]
fn a_lost_or_broken_index_is_rebuilt_from_the_logs() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    for number in 0..200 {
        store.commit(&[put(number, &vec![number as u8; 1000], None)]).unwrap();
    }
    let removed = store.summary(Kind::Segment, &key(7)).unwrap().unwrap().sequence;
    store.commit(&[Change { body: None, ..put(7, b"", Some(removed)) }]).unwrap();
    store.checkpoint().unwrap();
    drop(store);

    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert!(report.rebuilt);
    assert_eq!(report.kept, 199);
    assert_eq!(body(&store, 7), None);
    drop(store);

    for item in fs::read_dir(folder.path().join("index")).unwrap() {
        let path = item.unwrap().path();
        if path.is_file() {
            fs::write(path, b"not an index").unwrap();
        }
    }
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    for number in (0..200).filter(|number| *number != 7) {
        assert_eq!(body(&store, number).unwrap(), vec![number as u8; 1000]);
    }
}

/// A node that is killed in the middle of a write leaves part of an entry, whatever the part.
#[test]
fn a_log_that_ends_in_the_middle_of_an_entry_loses_that_entry_only() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    store.commit(&[put(1, b"whole", None)]).unwrap();
    drop(store);
    let log = logs(folder.path()).pop().unwrap();
    let mut tail = Vec::new();
    let entry = Entry { kind: Kind::Segment, tag: 0, key: key(2), owner: vault(1) };
    entry.encode(&[5; 300], &mut tail);
    for cut in [1, 3, 4, 40, ENTRY_HEADER_BYTES, ENTRY_HEADER_BYTES + 299] {
        let good = fs::read(&log).unwrap();
        fs::write(&log, [&good[..], &tail[..cut]].concat()).unwrap();
        let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
        assert_eq!((report.cut_bytes, report.damaged_bytes), (cut as u64, 0));
        assert_eq!(body(&store, 1).unwrap(), b"whole");
        assert_eq!(body(&store, 2), None);
        store.commit(&[put(100 + cut as u32, b"later", None)]).unwrap();
        drop(store);
        let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
        assert_eq!(report.cut_bytes, 0);
        assert_eq!(body(&store, 100 + cut as u32).unwrap(), b"later");
    }
}

#[test]
fn damaged_bytes_cost_the_entry_that_they_hit_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    for number in 0..50 {
        store.commit(&[put(number, &vec![number as u8; 20_000], None)]).unwrap();
    }
    let hit = store.locate(Kind::Segment, &key(20)).unwrap().unwrap().0;
    let long = store.locate(Kind::Segment, &key(30)).unwrap().unwrap().0;
    drop(store);
    let log = logs(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[hit.at.offset as usize + 5000] ^= 1;
    // A length that points far beyond its entry must not swallow the entries behind it.
    bytes[long.at.offset as usize + 10] = 9;
    fs::write(&log, bytes).unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert!(matches!(store.get(Kind::Segment, &key(20)), Err(RecordsError::Damaged { .. })));
    drop(store);
    let (store, report) = RecordStore::rebuild(folder.path(), BYTES_MAX).unwrap();
    assert_eq!(report.kept, 48);
    assert_eq!(report.damaged_bytes, 2 * (20_000 + ENTRY_HEADER_BYTES as u64));
    for number in (0..50).filter(|number| ![20, 30].contains(number)) {
        assert_eq!(body(&store, number).unwrap(), vec![number as u8; 20_000]);
    }
}

#[test]
fn rewriting_the_same_entries_for_ever_does_not_fill_the_space() {
    let folder = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let (store, _) = RecordStore::open(folder.path(), bytes_max).unwrap();
    let mut states = [None; 10];
    for round in 0..60_u32 {
        for (number, state) in states.iter_mut().enumerate() {
            let change = put(number as u32, &vec![round as u8; 5000], *state);
            *state = Some(sequence(&store.commit(&[change]).unwrap()));
        }
        let on_disk: u64 = logs(folder.path()).iter().map(|log| fs::metadata(log).unwrap().len()).sum();
        assert!(on_disk <= bytes_max, "{on_disk} bytes of logs in round {round}");
    }
    store.maintain().unwrap();
    drop(store);
    let (store, _) = RecordStore::rebuild(folder.path(), bytes_max).unwrap();
    for number in 0..10 {
        assert_eq!(body(&store, number).unwrap(), vec![59; 5000]);
    }
}

#[test]
fn a_removed_entry_stays_removed_when_its_log_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let bytes_max = 4 << 20;
    let (store, _) = RecordStore::open(folder.path(), bytes_max).unwrap();
    let first = sequence(&store.commit(&[put(1, &[1; 1000], None)]).unwrap());
    for number in 100..600 {
        store.commit(&[put(number, &[2; 1000], None)]).unwrap();
    }
    store.commit(&[Change { body: None, ..put(1, b"", Some(first)) }]).unwrap();
    for number in 100..600 {
        let state = store.summary(Kind::Segment, &key(number)).unwrap().unwrap().sequence;
        store.commit(&[put(number, &[3; 1000], Some(state))]).unwrap();
    }
    for _ in 0..8 {
        store.maintain().unwrap();
    }
    drop(store);
    let (store, report) = RecordStore::rebuild(folder.path(), bytes_max).unwrap();
    assert_eq!(body(&store, 1), None);
    assert_eq!(report.kept, 500);
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), 1 << 20).unwrap();
    let mut kept = 0;
    let full = loop {
        match store.commit(&[put(kept, &[9; 10_000], None)]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, RecordsError::Full { .. }), "{full}");
    assert_eq!(full.refusal(), Refusal::RecordLimit);
    assert!((50..105).contains(&kept), "{kept} kept");
    assert!((0..kept).all(|number| body(&store, number).is_some()));
}

#[test]
fn many_writers_share_their_syncs_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..50 {
                    let number = writer * 1000 + number;
                    let done = store.commit(&[put(number, &number.to_le_bytes(), None)]).unwrap();
                    assert!(matches!(done[..], [Committed::Done { .. }]));
                }
            });
        }
    });
    drop(store);
    let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert_eq!(report.kept, 400);
    assert_eq!(body(&store, 7049).unwrap(), 7049_u32.to_le_bytes());
}

#[test]
fn entries_are_listed_in_order_of_their_keys_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    for number in 0..25 {
        store.commit(&[put(number, b"x", None)]).unwrap();
    }
    store.commit(&[Change { kind: Kind::Lease, ..put(99, b"lease", None) }]).unwrap();
    let (mut after, mut keys) = (None, Vec::new());
    loop {
        let page = store.list(Kind::Segment, after.as_ref(), 10).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key);
        keys.extend(page.iter().map(|summary| summary.key));
    }
    let mut expected: Vec<_> = (0..25).map(key).collect();
    expected.sort();
    assert_eq!(keys, expected);
}

/// One entry of each kind, one of which was replaced and one removed, as a node has written them since version 1.
fn golden_log() -> Vec<u8> {
    let entry = |kind, tag, number: u8| Entry { kind, tag, key: [number; 32], owner: vault(number ^ 0xf0) };
    let mut log = file_header(1).to_vec();
    entry(Kind::Segment, 3, 1).encode(b"a record on trial", &mut log);
    entry(Kind::Heads, 0, 2).encode(b"\x04\0\0\0head\x05\0\0\0other", &mut log);
    entry(Kind::Lease, 0, 3).encode(b"a lease", &mut log);
    entry(Kind::Drop, 1, 4).encode(b"\x01\x02\x03\x04\x05\x06\x07\x08a drop", &mut log);
    entry(Kind::Segment, 0, 1).encode(b"a record", &mut log);
    entry(Kind::Lease, TAG_REMOVED, 3).encode(b"", &mut log);
    log
}

/// `COMMONHOLD_WRITE_GOLDEN=1` writes the file if it is missing; one that is there never changes.
#[test]
fn a_log_of_version_1_is_read_and_still_written_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/record_log_v1.log");
    if !path.exists() && std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() {
        fs::write(&path, golden_log()).unwrap();
    }
    let golden = fs::read(&path).expect("the golden file");
    assert!(golden == golden_log(), "today's encoding is another");
    let page = include_str!("../../../docs/FORMAT.md");
    for (at, what) in [(0, "\"CHRE\""), (12, "kind u8"), (16, "key (32)"), (ENTRY_HEADER_BYTES, "body\n")] {
        assert!(page.contains(&format!(" {at} {what}")), "docs/FORMAT.md has {what} elsewhere");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("00000001.log"), golden).unwrap();
    let (store, report) = RecordStore::open(folder.path(), BYTES_MAX).unwrap();
    assert_eq!((report.entries_read, report.damaged_bytes, report.cut_bytes, report.kept), (6, 0, 0, 3));
    let get = |kind, number: u8| store.get(kind, &[number; 32]).unwrap();
    let record = get(Kind::Segment, 1).unwrap();
    assert_eq!((record.owner, record.tag, &record.body[..]), (vault(0xf1), 0, &b"a record"[..]));
    assert_eq!(get(Kind::Heads, 2).unwrap().body, b"\x04\0\0\0head\x05\0\0\0other");
    assert_eq!(get(Kind::Drop, 4).unwrap().tag, 1);
    assert_eq!(get(Kind::Lease, 3), None);
}

/// An index outlives the program that wrote it: these are the bytes of version 1, as docs/FORMAT.md has them.
#[test]
fn the_index_has_the_keys_and_values_of_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::create(folder.path()).unwrap();
    let at = Position { file: 0x01_0203, offset: 0x0405_0607 };
    index.put(&Location { at, length: 0x08_090a, kind: Kind::Drop, key: [0x5e; 32], tag: 2 }).unwrap();
    index.set_checkpoint(at).unwrap();
    let key = [&[4][..], &[0x5e; 21]].concat();
    let value = [&[0x5e; 11][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2]].concat();
    assert_eq!(index.entries(), [(key, value), (b"checkpoint".to_vec(), vec![0, 1, 2, 3, 4, 5, 6, 7])]);
}
