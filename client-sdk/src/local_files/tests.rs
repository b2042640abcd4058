use std::io::Write;

use super::*;

const KIB: u64 = 1 << 10;

/// A file of holes and of data where it says so.
fn sparse(length: u64, data: &[(u64, u64)]) -> File {
    let file = tempfile::tempfile().expect("a file");
    for (start, bytes) in data {
        file.write_all_at(&vec![0xdd; *bytes as usize], *start).expect("written");
    }
    file.set_len(length).expect("long enough");
    file
}

fn found(file: &File) -> Vec<Stretch> {
    stretches(file, &file.metadata().expect("metadata")).collect()
}

fn length(stretches: &[Stretch]) -> u64 {
    let bytes = |stretch: &Stretch| match stretch {
        Stretch::Data(bytes) | Stretch::Hole(bytes) => *bytes,
    };
    stretches.iter().map(bytes).sum()
}

/// Whether this file system has holes of the size that the tests make.
fn has_holes() -> bool {
    let file = sparse(4096 * KIB, &[(1024 * KIB, 64 * KIB)]);
    file.metadata().expect("metadata").blocks() * 512 < 1024 * KIB && found(&file).len() == 3
}

#[test]
fn a_file_without_holes_is_one_stretch() {
    assert_eq!(found(&sparse(200_000, &[(0, 200_000)])), [Stretch::Data(200_000)]);
    assert_eq!(found(&sparse(1, &[(0, 1)])), [Stretch::Data(1)]);
    assert!(found(&sparse(0, &[])).is_empty());
}

#[test]
fn holes_are_found_at_the_start_in_the_middle_and_at_the_end() {
    if !has_holes() {
        return;
    }
    let data = [(256 * KIB, 128 * KIB), (1024 * KIB, 64 * KIB)];
    let file = sparse(4096 * KIB, &data);
    let expected = [
        Stretch::Hole(256 * KIB),
        Stretch::Data(128 * KIB),
        Stretch::Hole(640 * KIB),
        Stretch::Data(64 * KIB),
        Stretch::Hole(3008 * KIB),
    ];
    assert_eq!(found(&file), expected);
    assert_eq!(found(&sparse(1024 * KIB, &[])), [Stretch::Hole(1024 * KIB)]);
    assert_eq!(found(&sparse(1024 * KIB, &[(0, 64 * KIB)])), [Stretch::Data(64 * KIB), Stretch::Hole(960 * KIB)]);
}

#[test]
fn small_holes_are_data_and_no_two_stretches_of_a_kind_follow_each_other() {
    if !has_holes() {
        return;
    }
    let file = sparse(1024 * KIB, &[(32 * KIB, 32 * KIB), (96 * KIB, 32 * KIB), (512 * KIB, 32 * KIB)]);
    let expected =
        [Stretch::Data(128 * KIB), Stretch::Hole(384 * KIB), Stretch::Data(32 * KIB), Stretch::Hole(480 * KIB)];
    assert_eq!(found(&file), expected);
    let thousand: Vec<(u64, u64)> = (0..1000).map(|at| (at * 128 * KIB, 4 * KIB)).collect();
    let all = found(&sparse(128_000 * KIB, &thousand));
    assert_eq!((all.len(), length(&all)), (2000, 128_000 * KIB));
    let kinds_alternate = |pair: &[Stretch]| matches!(pair[0], Stretch::Data(_)) != matches!(pair[1], Stretch::Data(_));
    assert!(all.windows(2).all(kinds_alternate));
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_there() {
    if !has_holes() {
        return;
    }
    let file = sparse(4096 * KIB, &[(0, 64 * KIB), (2048 * KIB, 64 * KIB)]);
    let metadata = file.metadata().expect("metadata");
    let mut reading = stretches(&file, &metadata);
    assert_eq!(reading.next(), Some(Stretch::Data(64 * KIB)));
    file.set_len(512 * KIB).expect("cut");
    assert_eq!(reading.next(), Some(Stretch::Hole(448 * KIB)));
    assert_eq!(reading.next(), None);
}

#[test]
fn a_part_ends_where_it_should_though_the_file_goes_on_or_does_not() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"0123456789").expect("written");
    let read = |start, bytes| {
        let mut text = String::new();
        Part::new(&file, start, bytes).read_to_string(&mut text).expect("readable");
        text
    };
    assert_eq!(read(2, 3), "234");
    assert_eq!(read(8, 100), "89");
    assert_eq!(read(10, 5), "");
    assert_eq!(read(u64::from(u32::MAX), u64::MAX), "");
}

#[test]
fn names_come_in_order_of_their_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let names: [&[u8]; 5] = [b"B", b"a", b"a b", b"\xc3\xa9", b"\xff\xfe not utf-8"];
    for name in names.iter().rev() {
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "").expect("written");
    }
    // Of a folder too large to be read at once, too: in parts of any size, none of them left out or named twice.
    for at_once in [1, 2, 3, names.len(), NAMES_AT_ONCE] {
        let mut found = Names::read(folder.path(), at_once).expect("a folder");
        assert!(found.ready.len() <= at_once);
        let next = || found.next_in(folder.path()).expect("still a folder");
        assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), names.map(std::ffi::OsStr::from_bytes), "{at_once}");
    }
    assert!(Names::of(&folder.path().join("absent")).is_err());
}

#[test]
fn a_folder_that_is_gone_before_all_of_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a", "b"] {
        fs::write(folder.path().join(name), "").expect("written");
    }
    let mut names = Names::read(folder.path(), 1).expect("a folder");
    fs::remove_dir_all(folder.path()).expect("removed");
    assert_eq!(names.next_in(folder.path()).expect("it was read before").expect("a name"), "a");
    assert!(names.next_in(folder.path()).is_err());
    assert!(names.next_in(folder.path()).expect("the end").is_none());
}

#[test]
fn only_a_regular_file_is_opened_and_no_link_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "x").expect("written");
    std::os::unix::fs::symlink(path("file"), path("link")).expect("made");
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .expect("made");
    assert!(open_regular(&path("file")).is_ok());
    for not_a_file in ["link", "fifo", "."] {
        assert!(open_regular(&path(not_a_file)).is_err(), "{not_a_file}");
    }
}

#[test]
fn extended_attributes_are_read_of_files_and_not_through_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "x").expect("written");
    std::os::unix::fs::symlink(path("file"), path("link")).expect("made");
    let ours = |name: &str| {
        let mut all = extended_attributes(&path(name)).expect("readable");
        all.retain(|(name, _)| name.starts_with(b"user."));
        all
    };
    assert!(ours("file").is_empty());
    if xattr::set(path("file"), "user.b", b"\0\xff").is_err() {
        return;
    }
    xattr::set(path("file"), "user.a", b"").expect("set");
    assert_eq!(ours("file"), [(b"user.a".to_vec(), Vec::new()), (b"user.b".to_vec(), b"\0\xff".to_vec())]);
    assert!(ours("link").is_empty(), "of the link itself");
    assert!(extended_attributes(&path("absent")).is_err());
}
