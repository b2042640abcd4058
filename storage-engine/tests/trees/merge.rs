//! Two versions of a directory become one that has all that either side did, and whoever merges them gets the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commonhold_storage_engine::tree::{
    TreeError,
    directory::{self, DirectoryBuilder},
    entry::{Entry, EntryKind, FileContent, FileTime, LinkGroup, Xattrs},
    file::FileBuilder,
    map::TreeRoot,
    merge::{self, ConflictLabel, DIRECTORY_DEPTH_MAX, Labels},
    name::Name,
};
use proptest::prelude::*;

use super::memory::{Memory, Missing};

/// A file of the oracle: what it holds, when it was changed, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    modified: i64,
    content: u8,
    mode: u32,
}

/// Files by path; directories are what has files in it.
type Files = BTreeMap<Vec<String>, File>;

const OURS: &str = "2026-11-23, device 1a2b";
const THEIRS: &str = "2026-11-24, device 3c4d";

fn labels() -> Labels {
    let label = |text| ConflictLabel::new(text).unwrap();
    Labels { ours: label(OURS), theirs: label(THEIRS) }
}

fn swapped() -> Labels {
    let Labels { ours, theirs } = labels();
    Labels { ours: theirs, theirs: ours }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes().to_vec()).unwrap()
}

fn entry(kind: EntryKind, modified: i64, mode: u32) -> Entry {
    let modified = FileTime::new(modified, 0).unwrap();
    Entry { kind, mode, uid: 0, gid: 0, modified, link_group: None, xattrs: Xattrs::default() }
}

/// Even contents lie inline, odd ones in chunks, some of them in nodes. All are of one size, as ranks go.
fn file_entry(store: &mut Memory, file: File) -> Entry {
    let content = if file.content.is_multiple_of(2) {
        FileContent::Inline(vec![file.content; 4000].into())
    } else {
        let mut builder = FileBuilder::new();
        let chunks = [1, 8][usize::from(file.content / 2 % 2)];
        for _ in 0..chunks {
            let chunk = store.refer(&vec![file.content; 4000 / chunks]);
            builder.push(store, chunk).unwrap();
        }
        FileContent::Chunks(builder.finish(store).unwrap())
    };
    entry(EntryKind::File(content), file.modified, file.mode)
}

fn build(store: &mut Memory, files: &Files) -> TreeRoot {
    let mut builder = DirectoryBuilder::new();
    let names: BTreeSet<&String> = files.keys().map(|path| &path[0]).collect();
    for first in names {
        let below: Files = files
            .iter()
            .filter(|(path, _)| path[0] == **first && path.len() > 1)
            .map(|(path, file)| (path[1..].to_vec(), *file))
            .collect();
        let entry = match files.get(std::slice::from_ref(first)) {
            Some(file) => file_entry(store, *file),
            None => entry(EntryKind::Directory(build(store, &below)), 0, 0o755),
        };
        builder.push(store, &name(first), &entry).unwrap();
    }
    builder.finish(store).unwrap()
}

fn content(entry: &Entry, store: &Memory) -> u8 {
    match &entry.kind {
        EntryKind::File(FileContent::Inline(bytes)) => bytes[0],
        EntryKind::File(FileContent::Chunks(root)) => {
            let extent = commonhold_storage_engine::tree::file::extents(store, root, 0).next().unwrap().unwrap().1;
            // Chunks of files are not stored here, so it is told by the ref.
            (0..=255)
                .find(|content| {
                    [4000, 500].iter().any(|length| {
                        let chunk = store.refer(&vec![*content; *length]);
                        matches!(&extent, commonhold_storage_engine::tree::file::Extent::Data(data) if data.key == chunk.key)
                    })
                })
                .unwrap()
        }
        other => panic!("not a file: {other:?}"),
    }
}

fn read(store: &Memory, root: &TreeRoot) -> Files {
    let mut files = Files::new();
    for item in directory::list(store, root, None) {
        let (name, entry) = item.unwrap();
        let name = name.to_string();
        match &entry.kind {
            EntryKind::Directory(root) => {
                for (path, file) in read(store, root) {
                    files.insert([vec![name.clone()], path].concat(), file);
                }
            }
            _ => {
                let file =
                    File { modified: entry.modified.seconds(), content: content(&entry, store), mode: entry.mode };
                files.insert(vec![name], file);
            }
        }
    }
    files
}

/// The rules once more, path by path, over plain maps.
fn oracle(base: &Files, ours: &Files, theirs: &Files) -> Files {
    fn three<T: PartialEq>(base: Option<T>, preferred: T, other: T) -> T {
        if base.is_some_and(|base| base == preferred) { other } else { preferred }
    }
    let mut merged = Files::new();
    // What has to stand beside the name it had, with the label of the side that it comes from.
    let mut beside: BTreeMap<Vec<String>, (File, &str)> = BTreeMap::new();
    let mut side: BTreeMap<Vec<String>, &str> = BTreeMap::new();
    for path in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let (base, our, their) = (base.get(path), ours.get(path), theirs.get(path));
        let value = match (our, their) {
            _ if our == their => our.copied(),
            _ if our == base => their.copied(),
            _ if their == base => our.copied(),
            (Some(our), Some(their)) => {
                let rank = |file: &File, label| (file.modified, label);
                let ours_first = rank(our, OURS) > rank(their, THEIRS);
                let (preferred, other) = if ours_first { (our, their) } else { (their, our) };
                let changed = |side: &File| base.is_none_or(|base| base.content != side.content);
                if our.content != their.content && changed(our) && changed(their) {
                    beside.insert(path.clone(), (*other, if ours_first { THEIRS } else { OURS }));
                    Some(*preferred)
                } else {
                    let modified = match base {
                        Some(base) if base.modified == our.modified => their.modified,
                        Some(base) if base.modified == their.modified => our.modified,
                        _ => our.modified.max(their.modified),
                    };
                    let content = three(base.map(|base| base.content), preferred.content, other.content);
                    let mode = three(base.map(|base| base.mode), preferred.mode, other.mode);
                    Some(File { modified, content, mode })
                }
            }
            (kept, None) | (None, kept) => kept.copied(),
        };
        if let Some(file) = value {
            merged.insert(path.clone(), file);
            side.insert(path.clone(), if our.is_some() { OURS } else { THEIRS });
        }
    }
    // A file cannot stand where files stand below it.
    let directories: BTreeSet<Vec<String>> =
        merged.keys().flat_map(|path| (1..path.len()).map(|length| path[..length].to_vec())).collect();
    for path in &directories {
        if let Some(file) = merged.remove(path) {
            beside.insert(path.clone(), (file, side[path]));
        }
    }
    let taken = |files: &Files, path: &[String]| files.keys().any(|other| other.starts_with(path));
    let mut given = BTreeSet::new();
    for (path, (file, label)) in beside {
        let (last, parents) = path.split_last().unwrap();
        let (stem, extension) = last.split_once('.').map_or((last.as_str(), ""), |(stem, _)| (stem, ".txt"));
        for number in 1.. {
            let number = if number == 1 { String::new() } else { format!(", {number}") };
            let copy = [parents, &[format!("{stem} (conflict, {label}{number}){extension}")]].concat();
            if !taken(ours, &copy) && !taken(theirs, &copy) && given.insert(copy.clone()) {
                merged.insert(copy, file);
                break;
            }
        }
    }
    merged
}

fn file() -> impl Strategy<Value = File> {
    (0..3_i64, 0..5_u8, prop_oneof![Just(0o644), Just(0o600)]).prop_map(|(modified, content, mode)| File {
        modified,
        content,
        mode,
    })
}

/// Few names, so that sides meet; a name is a file in one version and a directory in another, and names that conflict
/// copies would take exist already.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        4 => Just("a.txt".to_owned()),
        4 => Just("b".to_owned()),
        2 => Just("c.txt".to_owned()),
        1 => Just(format!("a (conflict, {OURS}).txt")),
        1 => Just(format!("b (conflict, {THEIRS})")),
    ];
    prop::collection::vec(name, 1..4)
}

fn add(files: &mut Files, path: Vec<String>, file: File) {
    files.retain(|other, _| !other.starts_with(&path) && !path.starts_with(other));
    files.insert(path, file);
}

fn files(most: usize) -> impl Strategy<Value = Files> {
    prop::collection::vec((paths(), file()), 0..most).prop_map(|items| {
        let mut files = Files::new();
        items.into_iter().for_each(|(path, file)| add(&mut files, path, file));
        files
    })
}

/// What one side does to the base: files changed, added in place of others, and removed with all below.
fn edits() -> impl Strategy<Value = Vec<(Vec<String>, Option<File>)>> {
    prop::collection::vec((paths(), prop::option::weighted(0.7, file())), 0..10)
}

fn edited(base: &Files, edits: Vec<(Vec<String>, Option<File>)>) -> Files {
    let mut files = base.clone();
    for (path, file) in edits {
        match file {
            Some(file) => add(&mut files, path, file),
            None => files.retain(|other, _| !other.starts_with(&path)),
        }
    }
    files
}

struct Merged {
    root: TreeRoot,
    kept_both: Vec<(String, String)>,
}

fn try_merge(store: &Memory, roots: [&TreeRoot; 3], labels: &Labels) -> Result<Merged, TreeError<Missing>> {
    let (source, mut sink, mut kept_both) = (store.frozen(), store.clone(), Vec::new());
    let [base, ours, theirs] = roots;
    let root = merge::merge(&source, &mut sink, base, ours, theirs, labels, &mut |both| {
        kept_both.push((both.name.to_string(), both.copy.to_string()));
    })?;
    Ok(Merged { root, kept_both })
}

fn merge(store: &Memory, roots: [&TreeRoot; 3], labels: &Labels) -> Merged {
    try_merge(store, roots, labels).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_merge_is_what_the_rules_say_for_each_path(base in files(12), ours in edits(), theirs in edits()) {
        let (ours, theirs) = (edited(&base, ours), edited(&base, theirs));
        let mut store = Memory::new();
        let [base_root, ours_root, theirs_root] = [&base, &ours, &theirs].map(|files| build(&mut store, files));
        let merged = merge(&store, [&base_root, &ours_root, &theirs_root], &labels());
        prop_assert_eq!(read(&store, &merged.root), oracle(&base, &ours, &theirs));

        // The other device calls the sides the other way round.
        let other_way = merge(&store, [&base_root, &theirs_root, &ours_root], &swapped());
        prop_assert_eq!(&other_way.root, &merged.root);
        prop_assert_eq!(&other_way.kept_both, &merged.kept_both);
    }

    #[test]
    fn devices_that_stored_it_in_different_places_agree(base in files(12), ours in edits(), theirs in edits()) {
        let (ours, theirs) = (edited(&base, ours), edited(&base, theirs));
        let store = Memory::new();
        let (mut here, mut there) = (store.device(1), store.device(2));
        let base_root = build(&mut store.device(0), &base);
        let (ours_root, theirs_root) = (build(&mut here, &ours), build(&mut there, &theirs));
        let first = merge(&here, [&base_root, &ours_root, &theirs_root], &labels()).root;
        let second = merge(&there, [&base_root, &theirs_root, &ours_root], &swapped()).root;
        prop_assert_eq!(read(&store, &first), read(&store, &second));
        prop_assert_eq!(read(&store, &first), oracle(&base, &ours, &theirs));

        // Both have written their merge: the next one finds nothing to do.
        let again = merge(&store, [&base_root, &first, &second], &labels());
        prop_assert_eq!(again.kept_both, []);
        prop_assert_eq!(read(&store, &again.root), read(&store, &first));
    }
}

fn directory(store: &mut Memory, entries: &[(&str, Entry)]) -> TreeRoot {
    let mut builder = DirectoryBuilder::new();
    for (text, entry) in entries {
        builder.push(store, &name(text), entry).unwrap();
    }
    builder.finish(store).unwrap()
}

fn names(store: &Memory, root: &TreeRoot) -> Vec<String> {
    directory::list(store, root, None).map(|item| item.unwrap().0.to_string()).collect()
}

fn inline(text: &str, modified: i64) -> Entry {
    entry(EntryKind::File(FileContent::Inline(Bytes::copy_from_slice(text.as_bytes()))), modified, 0o644)
}

#[test]
fn a_conflict_copy_has_a_name_that_a_person_understands() {
    let mut store = Memory::new();
    let long = format!("{}é.tar.gz", "é".repeat(123));
    let both = |store: &mut Memory, modified| {
        let entries: Vec<(&str, Entry)> = [".profile", "Makefile", "archive.tar.gz", "end.", "report.txt", &long]
            .into_iter()
            .map(|name| (name, inline(&format!("{modified}"), modified)))
            .collect();
        directory(store, &entries)
    };
    let (older, newer) = (both(&mut store, 1), both(&mut store, 2));
    let merged = merge(&store, [&TreeRoot::EMPTY, &older, &newer], &labels());
    let names = names(&store, &merged.root);
    for wanted in [
        "report.txt",
        "report (conflict, 2026-11-23, device 1a2b).txt",
        "Makefile (conflict, 2026-11-23, device 1a2b)",
        ".profile (conflict, 2026-11-23, device 1a2b)",
        "archive.tar (conflict, 2026-11-23, device 1a2b).gz",
        "end. (conflict, 2026-11-23, device 1a2b)",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:#?}");
    }
    let cut = names.iter().find(|name| name.starts_with("éé") && name.contains("conflict")).unwrap();
    assert!(cut.ends_with("é (conflict, 2026-11-23, device 1a2b).gz") && (253..=255).contains(&cut.len()), "{cut}");
    assert!(!cut.contains(char::REPLACEMENT_CHARACTER));
    assert_eq!(merged.kept_both.len(), 6);
    let kept = directory::get(&store, &merged.root, &name("report.txt")).unwrap();
    assert_eq!(kept, Some(inline("2", 2)), "what was changed later keeps the name");

    assert!(ConflictLabel::new("").is_none());
    assert!(ConflictLabel::new("a/b").is_none());
    assert!(ConflictLabel::new("a\nb").is_none());
    assert!(ConflictLabel::new("x".repeat(65)).is_none());
}

#[test]
fn attributes_are_merged_one_by_one() {
    let mut store = Memory::new();
    let with = |entry: &Entry, change: &dyn Fn(&mut Entry)| {
        let mut entry = entry.clone();
        change(&mut entry);
        entry
    };
    let mut base = inline("text", 1);
    base.xattrs.insert("user.both", "0").unwrap();
    base.xattrs.insert("user.gone", "0").unwrap();
    let ours = with(&base, &|entry| {
        entry.mode = 0o600;
        entry.xattrs.insert("user.ours", "1").unwrap();
        entry.xattrs.insert("user.both", "ours").unwrap();
        entry.link_group = Some(LinkGroup([1; 16]));
    });
    let theirs = with(&base, &|entry| {
        entry.kind = inline("new text", 0).kind;
        entry.modified = FileTime::new(9, 0).unwrap();
        entry.uid = 7;
        entry.xattrs.remove(b"user.gone").unwrap();
        entry.xattrs.insert("user.both", "theirs").unwrap();
    });
    let roots = [&base, &ours, &theirs].map(|entry| directory(&mut store, &[("f", entry.clone())]));
    let merged = merge(&store, [&roots[0], &roots[1], &roots[2]], &labels());
    assert_eq!(merged.kept_both, []);
    let merged = directory::get(&store, &merged.root, &name("f")).unwrap().unwrap();
    let mut wanted = theirs.clone();
    wanted.mode = 0o600;
    wanted.link_group = Some(LinkGroup([1; 16]));
    wanted.xattrs.insert("user.ours", "1").unwrap();
    assert_eq!(merged, wanted);
}

#[test]
fn what_is_no_file_is_kept_twice_as_well() {
    let mut store = Memory::new();
    let link =
        |target: &str, modified| entry(EntryKind::Symlink(Bytes::copy_from_slice(target.as_bytes())), modified, 0o777);
    let base = directory(&mut store, &[("l", link("a", 0)), ("p", entry(EntryKind::Fifo, 0, 0o600))]);
    let ours = directory(&mut store, &[("l", link("b", 5)), ("p", entry(EntryKind::Fifo, 0, 0o644))]);
    let theirs = directory(&mut store, &[("l", link("c", 4)), ("p", inline("now a file", 0))]);
    let merged = merge(&store, [&base, &ours, &theirs], &labels()).root;
    assert_eq!(names(&store, &merged), ["l", &format!("l (conflict, {THEIRS})"), "p"]);
    let kind = |text: &str| directory::get(&store, &merged, &name(text)).unwrap().unwrap();
    assert_eq!(kind("l"), link("b", 5));
    // One side made it a file, the other made it readable.
    assert_eq!(kind("p"), entry(inline("now a file", 0).kind, 0, 0o644));
}

#[test]
fn a_deleted_directory_keeps_only_what_was_changed_in_it() {
    let mut store = Memory::new();
    let inner = |store: &mut Memory, files: &[(&str, Entry)], mode| {
        let root = directory(store, files);
        directory(store, &[("d", entry(EntryKind::Directory(root), 0, mode))])
    };
    let base = inner(&mut store, &[("x", inline("x", 0)), ("y", inline("y", 0))], 0o755);
    let changed = inner(&mut store, &[("x", inline("x", 0)), ("y", inline("new", 1))], 0o755);
    let smaller = inner(&mut store, &[("x", inline("x", 0))], 0o755);
    let private = inner(&mut store, &[("x", inline("x", 0)), ("y", inline("y", 0))], 0o700);
    let only_y = inner(&mut store, &[("y", inline("new", 1))], 0o755);
    let empty_private = inner(&mut store, &[], 0o700);
    for (side, wanted) in [(changed, only_y), (smaller, TreeRoot::EMPTY), (private, empty_private)] {
        for roots in [[&base, &TreeRoot::EMPTY, &side], [&base, &side, &TreeRoot::EMPTY]] {
            assert_eq!(merge(&store, roots, &labels()).root, wanted);
        }
    }
}

#[test]
fn a_merge_reads_and_writes_only_near_the_changes() {
    let mut store = Memory::new();
    let file = |content| File { modified: 0, content, mode: 0o644 };
    let path = |d: u32, f: u32| vec![format!("dir{d:03}"), format!("file{f:04}.txt")];
    let base: Files = (0..50).flat_map(|d| (0..200).map(move |f| (path(d, f), file((f % 251) as u8)))).collect();
    let changed = |d, f| {
        let mut files = base.clone();
        files.insert(path(d, f), file(252));
        files
    };
    let [base, ours, theirs] = [base.clone(), changed(7, 7), changed(7, 190)].map(|files| build(&mut store, &files));
    store.reset();
    let merged = merge(&store, [&base, &ours, &theirs], &labels());
    assert!(store.puts() <= 6 && store.gets() <= 60, "{} written, {} read", store.puts(), store.gets());
    let both = read(&store, &merged.root);
    assert_eq!((both[&path(7, 7)], both[&path(7, 190)]), (file(252), file(252)));
}

/// However deep directories lie in each other, the stack does not grow: here it has 256 KiB.
#[test]
fn a_deep_path_is_merged_and_a_bottomless_one_is_refused() {
    let deep = |store: &mut Memory, depth: usize, text: &str| {
        let mut root = directory(store, &[("f", inline(text, 0))]);
        for _ in 0..depth {
            root = directory(store, &[("d", entry(EntryKind::Directory(root), 0, 0o755))]);
        }
        root
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || {
            let mut store = Memory::new();
            for (depth, fits) in [(DIRECTORY_DEPTH_MAX - 1, true), (DIRECTORY_DEPTH_MAX, false)] {
                let roots = ["base", "ours", "theirs"].map(|text| deep(&mut store, depth, text));
                match try_merge(&store, [&roots[0], &roots[1], &roots[2]], &labels()) {
                    Ok(merged) => assert!(fits && merged.kept_both.len() == 1),
                    Err(TreeError::TooDeep { .. }) => assert!(!fits),
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .unwrap()
        .join()
        .unwrap();
}
