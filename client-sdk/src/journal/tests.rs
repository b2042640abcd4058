use commonhold_storage_engine::keys::VaultSecret;

use super::*;
use crate::{
    any_bytes::tests::golden,
    table::tests::{assert_same, segment},
};

struct Fixture {
    _folder: tempfile::TempDir,
    home: Home,
    seal: LocalSeal,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path().join("home"));
        home.create().expect("a home");
        Self { _folder: folder, home, seal: LocalSeal::of(&VaultSecret::from_bytes([3; 32])) }
    }

    fn device(&self) -> Device {
        self.home.lock_device().expect("a device")
    }

    /// A journal, and what was found in it, read back.
    fn open(&self, device: &Device) -> (Journal, Vec<PlacedSegment>) {
        let mut found = Vec::new();
        let journal = Journal::open(&self.home, device, &self.seal, &mut |segment, journaled| {
            assert_same(segment, &journaled.read(&self.seal, &self.home)?);
            found.push(segment.clone());
            Ok(())
        });
        (journal.expect("a journal"), found)
    }

    fn numbers(&self, device: &Device) -> Vec<u8> {
        self.open(device).1.iter().map(|segment| segment.id.as_bytes()[0]).collect()
    }

    fn log(&self, number: usize) -> PathBuf {
        log_path(&self.home.journal_dir(), number)
    }
}

#[test]
fn what_was_noted_is_found_again() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (mut journal, found) = fixture.open(&device);
    assert!(found.is_empty());
    for number in 1..=3 {
        let noted = segment(number, 10 * usize::from(number));
        let journaled = journal.append(&noted, &fixture.seal).expect("noted");
        assert_same(&noted, &journaled.read(&fixture.seal, &fixture.home).expect("readable"));
    }
    drop(journal);
    let (_, found) = fixture.open(&device);
    assert_eq!(found.len(), 3);
    (1..=3).for_each(|number| assert_same(&found[usize::from(number) - 1], &segment(number, 10 * usize::from(number))));
}

/// A machine may stop at any byte of an append.
#[test]
fn a_log_cut_at_any_byte_gives_its_whole_entries_and_goes_on_after_them() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (mut journal, _) = fixture.open(&device);
    let mut ends = Vec::new();
    for number in 1..=3 {
        journal.append(&segment(number, 2), &fixture.seal).expect("noted");
        ends.push(journal.length as usize);
    }
    drop(journal);
    let whole = fs::read(fixture.log(device.number)).expect("readable");
    assert_eq!(whole.len(), ends[2]);
    for cut in 0..=whole.len() {
        fs::write(fixture.log(device.number), &whole[..cut]).expect("cut");
        let (mut journal, found) = fixture.open(&device);
        let expected = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(found.len(), expected, "cut at {cut}");
        if cut % 7 == 0 {
            journal.append(&segment(9, 1), &fixture.seal).expect("noted");
            drop(journal);
            let numbers = fixture.numbers(&device);
            assert_eq!((numbers.len(), numbers.last()), (expected + 1, Some(&9)), "cut at {cut}");
        }
    }
}

#[test]
fn a_damaged_entry_ends_the_log() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (mut journal, _) = fixture.open(&device);
    (1..=3).for_each(|number| drop(journal.append(&segment(number, 2), &fixture.seal).expect("noted")));
    let entry = journal.length as usize / 3;
    drop(journal);
    let whole = fs::read(fixture.log(device.number)).expect("readable");
    // The length of the second entry, its nonce, its body, its last byte.
    for at in [entry, entry + 3, entry + 4, entry + 60, 2 * entry - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        fs::write(fixture.log(device.number), &damaged).expect("damaged");
        assert_eq!(fixture.numbers(&device), [1], "byte {at}");
    }
    fs::write(fixture.log(device.number), u32::MAX.to_le_bytes()).expect("written");
    assert!(fixture.numbers(&device).is_empty(), "no memory is taken for a length that cannot be");
}

#[test]
fn another_vaults_log_is_not_read() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (mut journal, _) = fixture.open(&device);
    journal.append(&segment(1, 1), &LocalSeal::of(&VaultSecret::from_bytes([4; 32]))).expect("noted");
    drop(journal);
    assert!(fixture.numbers(&device).is_empty());
}

#[test]
fn logs_of_devices_that_nobody_holds_are_taken_over_and_removed_when_cleared() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.device(), fixture.device());
    assert_ne!(first.number, second.number);
    for (device, number) in [(&first, 1), (&second, 2)] {
        fixture.open(device).0.append(&segment(number, 1), &fixture.seal).expect("noted");
    }
    assert_eq!(fixture.numbers(&first), [1], "the second device still writes");
    drop(second);
    let (mut journal, found) = fixture.open(&first);
    assert_eq!(found.iter().map(|segment| segment.id.as_bytes()[0]).collect::<Vec<_>>(), [1, 2]);
    // Nobody else takes over what is taken over.
    let third = fixture.device();
    assert!(fixture.numbers(&third).is_empty());
    drop(third);
    journal.clear().expect("cleared");
    assert!(!fixture.log(1).exists());
    assert_eq!(fs::metadata(fixture.log(0)).expect("there").len(), 0);
    journal.append(&segment(5, 1), &fixture.seal).expect("noted");
    drop(journal);
    assert_eq!(fixture.numbers(&first), [5]);
}

#[test]
fn what_is_taken_over_stays_until_it_is_cleared() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.device(), fixture.device());
    fixture.open(&second).0.append(&segment(2, 1), &fixture.seal).expect("noted");
    drop(second);
    for _ in 0..2 {
        assert_eq!(fixture.numbers(&first), [2], "a put that took it over and failed leaves it");
    }
}

#[test]
fn neither_keys_nor_tags_stand_in_a_log() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let noted = segment(1, 5);
    fixture.open(&device).0.append(&noted, &fixture.seal).expect("noted");
    let log = fs::read(fixture.log(device.number)).expect("readable");
    for chunk in &noted.chunks {
        assert!(!log.windows(32).any(|window| window == chunk.key.as_bytes()));
        assert!(!log.windows(16).any(|window| window == chunk.tag));
    }
}

/// What a put of version 1 has noted is found for ever.
#[test]
fn golden_journal_of_version_1() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let entry = |number: u8| {
        let noted = segment(number, usize::from(number));
        let sealed = fixture.seal.seal_with(&[number; 24], PURPOSE, &noted.to_bytes()).expect("sealed");
        [&(sealed.len() as u32).to_le_bytes(), &sealed[..]].concat()
    };
    let today = [entry(1), entry(2)].concat();
    let path = golden("journal_v1.log", &today);
    assert!(fs::read(&path).expect("the golden file") == today, "today's encoding is another");
    fs::copy(path, fixture.log(device.number)).expect("copied");
    let (mut journal, found) = fixture.open(&device);
    assert_eq!(found.len(), 2);
    (1..=2).for_each(|number| assert_same(&found[usize::from(number) - 1], &segment(number, usize::from(number))));
    // What is appended today is the same but for its nonce.
    journal.append(&segment(2, 2), &fixture.seal).expect("noted");
    let log = fs::read(fixture.log(device.number)).expect("readable");
    let (appended, length) = (&log[today.len()..], entry(2).len());
    assert_eq!((appended.len(), &appended[..4]), (length, &entry(2)[..4]));
    assert_eq!(fixture.seal.open(PURPOSE, &appended[4..]).expect("opens"), segment(2, 2).to_bytes());
}
