use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    sync::Arc,
};

use bytes::Bytes;
use commonhold_storage_engine::tree::entry::FileTime;

use super::*;
use crate::{
    get::{GetOptions, GetReport, get},
    memory_source::{MemorySource, entry, small_file},
};

struct Place {
    folder: tempfile::TempDir,
    source: MemorySource,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), source: MemorySource::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    fn get(&self, entry: &Entry, overwrite: bool) -> Result<GetReport, Error> {
        get(&self.source, entry, &self.target(), &GetOptions { overwrite }, &Arc::default())
    }
}

fn symlink_to(target: &Path) -> Entry {
    entry(EntryKind::Symlink(Bytes::copy_from_slice(target.as_os_str().as_bytes())))
}

fn linked(mut entry: Entry, group: u8) -> Entry {
    entry.link_group = Some(LinkGroup([group; 16]));
    entry
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("readable")
}

#[test]
fn a_link_planted_in_place_of_a_folder_is_not_followed() {
    let mut place = Place::new();
    let below = place.source.folder(&[(b"file", small_file(b"new"))]);
    let tree = place.source.folder(&[(b"folder", below)]);
    let outside = place.path("outside");
    fs::create_dir_all(&outside).expect("made");
    fs::create_dir_all(place.target()).expect("made");
    symlink(&outside, place.target().join("folder")).expect("planted");
    assert!(place.get(&tree, true).is_err());
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
    // Nor in place of the target itself.
    fs::remove_dir_all(place.target()).expect("removed");
    symlink(&outside, place.target()).expect("planted");
    assert!(place.get(&tree, true).is_err());
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
}

#[test]
fn a_link_planted_in_place_of_a_file_is_replaced() {
    let mut place = Place::new();
    let tree = place.source.folder(&[(b"file", small_file(b"new"))]);
    let outside = place.path("outside");
    fs::write(&outside, "old").expect("written");
    fs::create_dir_all(place.target()).expect("made");
    symlink(&outside, place.target().join("file")).expect("planted");
    place.get(&tree, true).expect("restored");
    assert_eq!((read(&outside), read(&place.target().join("file"))), (b"old".to_vec(), b"new".to_vec()));
    assert!(!place.target().join("file").is_symlink());
}

#[test]
fn a_link_of_the_tree_is_made_and_nothing_goes_through_it() {
    let mut place = Place::new();
    let outside = place.path("outside");
    fs::create_dir_all(&outside).expect("made");
    let tree = place.source.folder(&[(b"link", symlink_to(&outside)), (b"link2", symlink_to(Path::new("../..")))]);
    place.get(&tree, false).expect("restored");
    assert_eq!(fs::read_link(place.target().join("link")).expect("a link"), outside);
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
    let modified = fs::symlink_metadata(place.target().join("link")).expect("there");
    assert_eq!((modified.mtime(), modified.mtime_nsec()), (1_700_000_000, 123_456_789));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [&b".."[..], b".", b"../escaped", b"a/b", b"/escaped", b"nul\0", b""] {
        let mut place = Place::new();
        let tree = place.source.folder(&[(name, small_file(b"escaped"))]);
        let below = place.source.folder(&[(b"folder", tree.clone())]);
        for tree in [tree, below] {
            let got = place.get(&tree, true);
            assert!(matches!(got, Err(Error::TreeDamaged { .. })), "{:?}", String::from_utf8_lossy(name));
            assert!(!place.path("escaped").exists());
        }
    }
}

#[test]
fn what_exists_is_refused_unless_it_may_be_replaced() {
    let mut place = Place::new();
    let tree = place.source.folder(&[(b"file", small_file(b"new"))]);
    fs::create_dir_all(place.target()).expect("made");
    fs::write(place.target().join("file"), "old").expect("written");
    fs::write(place.target().join("other"), "other").expect("written");
    assert!(matches!(place.get(&tree, false), Err(Error::TargetExists { .. })));
    assert_eq!(read(&place.target().join("file")), b"old");
    place.get(&tree, true).expect("restored");
    assert_eq!(read(&place.target().join("file")), b"new");
    assert_eq!(read(&place.target().join("other")), b"other", "what is not in the tree stays");
}

#[test]
fn neither_a_folder_nor_a_file_gives_way_to_the_other() {
    let mut place = Place::new();
    let inner = place.source.folder(&[(b"inside", small_file(b"x"))]);
    let tree = place.source.folder(&[(b"a", small_file(b"a file")), (b"b", inner)]);
    fs::create_dir_all(place.target().join("a")).expect("made");
    fs::write(place.target().join("a/kept"), "kept").expect("written");
    assert!(matches!(place.get(&tree, true), Err(Error::Io { .. })));
    assert_eq!(read(&place.target().join("a/kept")), b"kept");
    fs::remove_dir_all(place.target().join("a")).expect("removed");
    fs::write(place.target().join("b"), "kept").expect("written");
    assert!(matches!(place.get(&tree, true), Err(Error::Io { .. })));
    assert_eq!(read(&place.target().join("b")), b"kept");
}

#[test]
fn names_of_one_file_become_names_of_one_file() {
    let mut place = Place::new();
    let large = place.source.file(&[Ok(&[7; 5000])]);
    let below = place.source.folder(&[(b"b", linked(small_file(b"small"), 1)), (b"l", linked(large.clone(), 2))]);
    let tree =
        place.source.folder(&[(b"a", linked(small_file(b"small"), 1)), (b"below", below), (b"z", linked(large, 2))]);
    place.source.fetched.lock().expect("no panic").clear();
    let report = place.get(&tree, false).expect("restored");
    assert!(report.not_restored.is_empty());
    assert_eq!(report.entries.files, 4);
    assert_eq!(*place.source.fetched.lock().expect("no panic"), [5000], "fetched once");
    let inode = |path: &str| fs::metadata(place.target().join(path)).expect("there").ino();
    assert_eq!((inode("a"), inode("below/l")), (inode("below/b"), inode("z")));
    assert_ne!(inode("a"), inode("z"));
}

/// A merge can leave two versions of a file under one group. Told apart by their length alone, one of them came back
/// with the content of the other.
#[test]
fn two_versions_under_one_group_stay_two_files() {
    let mut place = Place::new();
    let [one, other] = [[1; 5000], [2; 5000]].map(|bytes| place.source.file(&[Ok(&bytes)]));
    let tree = place.source.folder(&[
        (b"a", linked(small_file(b"one"), 1)),
        (b"b", linked(small_file(b"two"), 1)),
        (b"c", linked(one, 2)),
        (b"d", linked(other, 2)),
    ]);
    place.get(&tree, false).expect("restored");
    for (name, content) in [("a", b"one".to_vec()), ("b", b"two".to_vec()), ("c", vec![1; 5000]), ("d", vec![2; 5000])]
    {
        assert!(read(&place.target().join(name)) == content, "{name}");
    }
}

/// Once, the further names of a file were empty there.
#[test]
fn where_files_have_one_name_the_content_is_copied() {
    let place = Place::new();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let device = |path: &Path| fs::metadata(path).expect("there").dev();
    if device(elsewhere.path()) == device(place.folder.path()) {
        return;
    }
    // A first name on another file system, which no second name can be given to.
    let first = elsewhere.path().join("first");
    fs::write(&first, "content").expect("written");
    let mut file = linked(small_file(b"content"), 1);
    file.mode = 0o640;
    let (mut restorer, _) = Restorer::open(Path::new("/"), false).expect("open");
    restorer.links.insert(SameFile::of(&file).expect("linked"), first);
    let (_, parent) = Restorer::open(place.folder.path(), false).expect("open");
    restorer.link(&parent, OsStr::new("copy"), &file).expect("copied");
    assert_eq!(read(&place.path("copy")), b"content");
    assert_eq!(fs::metadata(place.path("copy")).expect("there").mode() & 0o7777, 0o640);
    let (said, _) = restorer.into_not_restored();
    assert!(said.len() == 1 && said[0].what == "hard link", "{said:?}");
}

#[test]
fn a_first_name_is_not_looked_for_through_a_link() {
    let place = Place::new();
    fs::create_dir(place.path("real")).expect("made");
    fs::write(place.path("real/file"), "somebody's").expect("written");
    symlink(place.path("real"), place.path("link")).expect("made");
    let (restorer, _) = Restorer::open(place.folder.path(), false).expect("open");
    assert!(restorer.find(&place.path("real/file")).is_ok());
    assert!(restorer.find(&place.path("link/file")).is_err());
}

#[test]
fn modified_is_restored_to_the_nanosecond_also_before_1970() {
    let times = [(0, 1), (-1, 999_999_999), (-2_000_000_000, 5), (1_763_900_000, 42)];
    for (seconds, nanoseconds) in times {
        let mut place = Place::new();
        let at = |mut entry: Entry| {
            entry.modified = FileTime::new(seconds, nanoseconds).expect("a time");
            entry
        };
        let file = at(small_file(b"x"));
        let link = at(symlink_to(Path::new("nowhere")));
        let fifo = at(entry(EntryKind::Fifo));
        let tree = at(place.source.folder(&[(b"fifo", fifo), (b"file", file), (b"link", link)]));
        let report = place.get(&tree, false).expect("restored");
        assert!(report.not_restored.is_empty(), "{:?}", report.not_restored);
        for name in ["", "fifo", "file", "link"] {
            let path = place.target().join(name);
            let found = fs::symlink_metadata(path.components().as_path()).expect("there");
            assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, i64::from(nanoseconds)), "{name}");
        }
    }
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    let mut place = Place::new();
    let with = |mode, mut entry: Entry| {
        entry.mode = mode;
        entry
    };
    let inside = place.source.folder(&[(b"file", with(0o000, small_file(b"x")))]);
    let sticky = place.source.folder(&[]);
    let tree = place.source.folder(&[
        (b"fifo", with(0o666, entry(EntryKind::Fifo))),
        (b"locked", with(0o555, inside)),
        (b"open", with(0o777, small_file(b"x"))),
        (b"sticky", with(0o1777, sticky)),
    ]);
    place.get(&tree, false).expect("restored");
    let mode = |name: &str| fs::symlink_metadata(place.target().join(name)).expect("there").mode() & 0o7777;
    assert_eq!([mode("fifo"), mode("locked"), mode("open"), mode("sticky")], [0o666, 0o555, 0o777, 0o1777]);
    assert_eq!(mode("locked/file"), 0);
    assert!(fs::symlink_metadata(place.target().join("fifo")).expect("there").file_type().is_fifo());
    // So that whoever is not root can clean up.
    fs::set_permissions(place.target().join("locked"), fs::Permissions::from_mode(0o755)).expect("ours");
}

fn set_id_file(uid: u32, gid: u32) -> Entry {
    let mut file = small_file(b"#!/bin/sh");
    (file.mode, file.uid, file.gid) = (0o6755, uid, gid);
    file
}

#[test]
fn set_id_bits_come_back_with_their_owner() {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let owner = if uid.is_root() { (12_345, 23_456) } else { (uid.as_raw(), gid.as_raw()) };
    let place = Place::new();
    let report = place.get(&set_id_file(owner.0, owner.1), false).expect("restored");
    assert!(report.not_restored.is_empty(), "{:?}", report.not_restored);
    let found = fs::metadata(place.target()).expect("there");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (owner.0, owner.1, 0o6755));
}

/// Else whoever restores a stranger's program gives everyone who runs it their own rights.
#[test]
fn set_id_bits_do_not_come_back_without_their_owner() {
    let place = Place::new();
    let (mut restorer, parent) = Restorer::open(place.folder.path(), false).expect("open");
    restorer.privileged = false;
    let stranger = set_id_file(rustix::process::geteuid().as_raw() + 1, rustix::process::getegid().as_raw());
    let mut file = restorer.file(&parent, OsStr::new("target"), &stranger).expect("made");
    file.write(b"#!/bin/sh").expect("written");
    restorer.finish_file(&parent, &file, &stranger).expect("finished");
    assert_eq!(fs::metadata(place.target()).expect("there").mode() & 0o7777, 0o755);
    let (said, _) = restorer.into_not_restored();
    assert!(said.len() == 1 && said[0].what == "set-id bits", "{said:?}");
}

#[test]
fn extended_attributes_come_back() {
    let mut place = Place::new();
    if xattr::set(place.folder.path(), "user.probe", b"x").is_err() {
        return;
    }
    let with = |mut entry: Entry| {
        entry.xattrs.insert(&b"user.color"[..], &b"green \0 or not"[..]).expect("fits");
        entry
    };
    let tree = with(place.source.folder(&[(b"file", with(small_file(b"x")))]));
    let report = place.get(&tree, false).expect("restored");
    assert!(report.not_restored.is_empty(), "{:?}", report.not_restored);
    for name in ["", "file"] {
        let found = xattr::get(place.target().join(name), "user.color").expect("readable");
        assert_eq!(found.as_deref(), Some(&b"green \0 or not"[..]), "{name}");
    }
}

#[test]
fn an_attribute_that_cannot_be_set_is_named_and_the_rest_is_restored() {
    let place = Place::new();
    let mut file = small_file(b"content");
    file.xattrs.insert(&b"nonsense.attribute"[..], &b"x"[..]).expect("fits");
    let report = place.get(&file, false).expect("restored");
    assert_eq!(report.not_restored.len(), 1);
    assert_eq!((report.not_restored[0].what, &report.not_restored[0].path), ("extended attribute", &place.target()));
    assert_eq!(read(&place.target()), b"content");
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
    names.sort();
    names
}

/// Once, the old file was removed before the first byte of the new one was there.
#[test]
fn the_old_file_stays_until_the_new_one_is_whole() {
    let mut place = Place::new();
    let entry = place.source.file(&[Ok(&[7; 5000])]);
    fs::write(place.target(), "old").expect("written");
    let mut before = fs::File::open(place.target()).expect("readable");
    let (mut restorer, parent) = Restorer::open(place.folder.path(), true).expect("open");
    let mut file = restorer.file(&parent, OsStr::new("target"), &entry).expect("made");
    file.write(&[7; 3000]).expect("written");
    assert_eq!(read(&place.target()), b"old");
    file.write(&[7; 2000]).expect("written");
    restorer.finish_file(&parent, &file, &entry).expect("finished");
    assert!(read(&place.target()) == [7; 5000]);
    let mut kept = String::new();
    io::Read::read_to_string(&mut before, &mut kept).expect("readable");
    assert_eq!(kept, "old", "the new file is another, the old one was not written to");
    assert_eq!(names(place.folder.path()), ["target"], "no draft is left");
}

#[test]
fn links_and_what_is_no_file_are_replaced_too() {
    let mut place = Place::new();
    let tree = place.source.folder(&[
        (b"a", linked(small_file(b"new"), 1)),
        (b"b", linked(small_file(b"new"), 1)),
        (b"fifo", entry(EntryKind::Fifo)),
        (b"link", symlink_to(Path::new("nowhere"))),
    ]);
    place.get(&tree, false).expect("restored");
    // And again over itself, where the names already are names of one file.
    for _ in 0..2 {
        place.get(&tree, true).expect("restored");
        assert_eq!(names(&place.target()), ["a", "b", "fifo", "link"]);
        let inode = |name: &str| fs::symlink_metadata(place.target().join(name)).expect("there").ino();
        assert_eq!(inode("a"), inode("b"));
        assert_eq!(fs::read_link(place.target().join("link")).expect("a link"), Path::new("nowhere"));
    }
    // Somebody else's file that appears while we restore is not replaced unless that was allowed.
    let (mut restorer, parent) = Restorer::open(place.folder.path(), false).expect("open");
    let entry = small_file(b"new");
    let mut file = restorer.file(&parent, OsStr::new("late"), &entry).expect("made");
    file.write(b"new").expect("written");
    fs::write(place.path("late"), "theirs").expect("written");
    assert!(matches!(restorer.finish_file(&parent, &file, &entry), Err(Error::TargetExists { .. })));
    assert_eq!(read(&place.path("late")), b"theirs");
    assert_eq!(names(place.folder.path()), ["late", "target"]);
}

/// Written behind, dropped behind, with holes between: larger than all that is looked back for.
#[test]
fn a_large_file_with_holes_comes_back() {
    let place = Place::new();
    let (mut restorer, parent) = Restorer::open(place.folder.path(), false).expect("open");
    let mut file = restorer.file(&parent, OsStr::new("target"), &small_file(b"")).expect("made");
    let mut expected = blake3::Hasher::new();
    let (mut at, piece) = (0_u64, 3 << 20);
    for number in 0..40_u8 {
        let bytes = vec![number; piece];
        file.write(&bytes).expect("written");
        file.skip(1 << 20);
        expected.update(&bytes).update(&vec![0; 1 << 20]);
        at += bytes.len() as u64 + (1 << 20);
    }
    file.finish(at).expect("whole");
    restorer.place(&parent, file.draft(), OsStr::new("target"), &place.target()).expect("placed");
    let mut found = blake3::Hasher::new();
    io::copy(&mut fs::File::open(place.target()).expect("there"), &mut found).expect("readable");
    assert_eq!(found.finalize(), expected.finalize());
    let blocks = fs::metadata(place.target()).expect("there").blocks();
    assert!(blocks * 512 < at, "the holes take space: {blocks} blocks for {at} bytes");
}

#[test]
fn complaints_beyond_the_list_are_counted() {
    let place = Place::new();
    let (mut restorer, _) = Restorer::open(place.folder.path(), false).expect("open");
    for _ in 0..NOT_RESTORED_MAX + 5 {
        restorer.complain(&place.target(), "mode", io::Error::other("no"));
    }
    let (said, total) = restorer.into_not_restored();
    assert_eq!((said.len(), total), (NOT_RESTORED_MAX, NOT_RESTORED_MAX as u64 + 5));
}
