//! Promise: files that cannot be read are named and left out, and the rest is stored. And no tree, however hostile its
//! names and links, and no link that lies in wait at the target, makes a restore write outside of it.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use commonhold_storage_engine::tree::entry::{Entry, EntryKind, FileContent, FileTime, Xattrs};

use super::harness::{Network, Owner, Setup, Someone, Tree, assert_same, keys_of, noise};

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_stored() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let someone = Someone::new(&network);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(50);
    tree.file("large", &noise(2, 3 << 20));
    Someone::give_away(tree.path());
    // What can be read, as it must come back.
    let readable = network.scratch().join("readable");
    assert!(Command::new("cp").arg("-aT").args([tree.path(), &readable]).status().unwrap().success());
    tree.file("small/00/locked file", b"nobody's business");
    tree.file("locked folder/inside", b"nobody's business either");
    for name in ["small/00/locked file", "locked folder"] {
        fs::set_permissions(tree.path().join(name), fs::Permissions::from_mode(0o0)).unwrap();
    }
    for folder in ["small/00", ""] {
        let modified = fs::metadata(readable.join(folder)).unwrap().modified().unwrap();
        fs::File::open(tree.path().join(folder)).unwrap().set_modified(modified).unwrap();
    }

    let source = tree.path().to_str().unwrap();
    someone.run(&["init", "--network", &network.name(), "--bootstrap", &network.address(0)]).expect_code(0);
    someone.run(&["put", source, "/x"]).expect_code(3).expect_said(&[
        "small/00/locked file",
        "locked folder",
        "Permission denied",
        "2 files or folders could not be stored",
    ]);
    let put = someone.run(&["put", source, "/y", "--json"]).expect_code(3).json();
    let named: Vec<&str> =
        put["unreadable"].as_array().unwrap().iter().map(|left_out| left_out["path"].as_str().unwrap()).collect();
    assert_eq!(named, [format!("{source}/locked folder"), format!("{source}/small/00/locked file")]);

    let back = someone.folder.join("back");
    someone.run(&["get", "/x", back.to_str().unwrap()]).expect_code(0);
    assert_same(&readable, &back);
    // A source of which nothing can be read is a failure, not a part.
    let locked = tree.path().join("small/00/locked file");
    someone.run(&["put", locked.to_str().unwrap(), "/z"]).expect_code(1).expect_said(&["locked file"]);
    // So that the folder can be removed.
    fs::set_permissions(tree.path().join("locked folder"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Once, nobody was told that there were more than the list has room for, nor how many.
#[test]
fn of_very_many_that_cannot_be_read_the_first_are_named_and_all_are_counted() {
    const LISTED: usize = 10_000;
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let someone = Someone::new(&network);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("readable", b"everybody's");
    for number in 0..LISTED + 1234 {
        let path = tree.path().join(format!("locked-{number:05}"));
        fs::write(&path, b"nobody's business").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    }
    Someone::give_away(tree.path());
    let source = tree.path().to_str().unwrap();
    someone.run(&["init", "--network", &network.name(), "--bootstrap", &network.address(0)]).expect_code(0);
    let put = someone.run(&["put", source, "/x"]).expect_code(3).expect_said(&[
        "locked-09999: ",
        "not stored: and 1,234 more",
        "11,234 files or folders could not be stored",
    ]);
    assert!(!put.stderr.contains("locked-10000"));
    let put = someone.run(&["put", source, "/y", "--json"]).expect_code(3).json();
    assert_eq!(put["unreadable"].as_array().unwrap().len(), LISTED);
    assert_eq!(put["unreadable_total"], LISTED + 1234);
    assert_eq!(put["entries"]["files"], 1);
}

#[test]
fn hostile_names_lead_nowhere() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("good", b"good");
    home.put(tree.path(), "/");
    let owner = Owner::new(&network, keys_of(&phrase));
    let outside = network.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    let absolute = outside.join("absolute");

    // First a name that nothing is wrong with: what is planted like this does arrive.
    owner.plant(&[(b"planted", file(b"harmless"))]);
    assert_eq!(home.cat("/planted"), b"harmless");

    let long = [b'n'; 256];
    let names: [&[u8]; 9] = [
        b"..",
        b".",
        b"../escaped",
        b"../../escaped",
        b"sub/../../escaped",
        b"sub/file",
        absolute.as_os_str().as_bytes(),
        b"nul\0byte",
        &long,
    ];
    for (number, name) in names.into_iter().enumerate() {
        for inner in [false, true] {
            let target = network.scratch().join(format!("target-{number}-{inner}"));
            fs::create_dir(&target).unwrap();
            if inner {
                owner.plant_in(b"folder", &[(name, file(b"escaped"))], &file(b""));
            } else {
                owner.plant(&[(name, file(b"escaped"))]);
            }
            let got = home.get("/", &target.join("restored"));
            assert_ne!(got.code, Some(0), "{}", String::from_utf8_lossy(name));
            assert!(got.code.is_some_and(|code| code < 100), "{}: {}", String::from_utf8_lossy(name), got.stderr);
            let listed = home.run(["ls", if inner { "/folder" } else { "/" }]);
            assert_ne!(listed.code, Some(0), "{}", String::from_utf8_lossy(name));
            // Nothing beside the target, and no file in it.
            let beside: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(beside.iter().all(|name| name == "restored"), "{beside:?}");
            assert_eq!(files_below(&target), Vec::<PathBuf>::new(), "{}", String::from_utf8_lossy(name));
        }
    }
    assert_eq!(files_below(&outside), Vec::<PathBuf>::new());
    assert!(!network.scratch().join("escaped").exists());
}

#[test]
fn links_in_the_way_are_not_followed() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let (home, _) = network.new_home("home");
    let outside = network.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();

    // One version of a folder has links that lead out; the next has folders and files in their places.
    let mut first = Tree::new(network.scratch().join("first"), 1);
    first.file("plain", b"first");
    for (name, to) in [("folder", outside.clone()), ("file", outside.join("precious")), ("none", outside.join("new"))] {
        symlink(to, first.path().join(name)).unwrap();
    }
    let mut second = Tree::new(network.scratch().join("second"), 2);
    second.file("plain", b"second");
    second.file("folder/precious", b"overwritten");
    second.file("folder/more", &noise(3, 200_000));
    second.file("file", b"overwritten");
    second.file("none", &noise(4, 200_000));
    home.put(first.path(), "/first");
    home.put(second.path(), "/second");

    let target = network.scratch().join("target");
    home.get("/first", &target).expect_code(0);
    assert_same(first.path(), &target);
    let over = home.run(["get", "/second", target.to_str().unwrap(), "--overwrite"]);
    assert!(matches!(over.code, Some(0 | 1 | 3)), "{:?}: {}", over.code, over.stderr);
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "precious");
    assert_eq!(files_below(&outside), [outside.join("precious")]);
    if over.code == Some(0) {
        assert_same(second.path(), &target);
    }

    // The target itself is a link: a new copy is refused, and nothing is written through it.
    let link = network.scratch().join("link");
    symlink(&outside, &link).unwrap();
    home.get("/second", &link).expect_code(1).expect_said(&["exists already"]);
    assert_eq!(files_below(&outside), [outside.join("precious")]);
}

/// A file's entry with these bytes.
fn file(bytes: &'static [u8]) -> Entry {
    Entry {
        kind: EntryKind::File(FileContent::Inline(bytes.into())),
        mode: 0o755,
        uid: 0,
        gid: 0,
        modified: FileTime::new(1_700_000_000, 0).unwrap(),
        link_group: None,
        xattrs: Xattrs::default(),
    }
}

/// Everything below a folder that is not a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
