//! An entry comes back as it was, is never larger than its limit, and a name that exists is fit for a file system.

use bytes::Bytes;
use commonhold_storage_engine::tree::{
    TreeError,
    directory::{self, DirectoryBuilder, DirectoryEditor},
    entry::{
        ENTRY_BYTES_MAX, Entry, EntryKind, FileContent, FileTime, INLINE_BYTES_MAX, LinkGroup, XATTR_BYTES_MAX,
        XATTR_COUNT_MAX, XattrError, Xattrs,
    },
    file::FileBuilder,
    map::{self, TreeRoot, VALUE_BYTES_MAX},
    name::{Name, NameError},
};
use proptest::prelude::*;

use super::memory::Memory;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes().to_vec()).unwrap()
}

fn kinds() -> impl Strategy<Value = EntryKind> {
    let root = |count: u8| {
        let mut store = Memory::new();
        let mut builder = FileBuilder::new();
        for seed in 0..count {
            builder.push_hole(u64::from(seed % 3) * 4096);
            let chunk = store.refer(&[seed; 100]);
            builder.push(&mut store, chunk).unwrap();
        }
        builder.finish(&mut store).unwrap()
    };
    let tree = |count: u16| {
        let mut store = Memory::new();
        let mut builder = map::Builder::new();
        for key in 0..count {
            builder.push(&mut store, &key.to_be_bytes(), &[0; 3000]).unwrap();
        }
        builder.finish(&mut store).unwrap()
    };
    let device = (any::<u32>(), any::<u32>());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..=INLINE_BYTES_MAX)
            .prop_map(|bytes| EntryKind::File(FileContent::Inline(bytes.into()))),
        (0..20_u8).prop_map(move |count| EntryKind::File(FileContent::Chunks(root(count)))),
        (0..30_u16).prop_map(move |count| EntryKind::Directory(tree(count))),
        prop::collection::vec(1..=u8::MAX, 1..=4096).prop_map(|target| EntryKind::Symlink(target.into())),
        device.prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        device.prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        Just(EntryKind::Fifo),
        Just(EntryKind::Socket),
    ]
}

prop_compose! {
    fn entries()(
        kind in kinds(), mode in 0..0o10000_u32, uid: u32, gid: u32, seconds: i64, nanoseconds in 0..1_000_000_000_u32,
        link_group: Option<[u8; 16]>,
        xattrs in prop::collection::btree_map(
            prop::collection::vec(1..=u8::MAX, 1..30), prop::collection::vec(any::<u8>(), 0..300), 0..20,
        ),
    ) -> Entry {
        let mut kept = Xattrs::default();
        for (name, value) in xattrs {
            kept.insert(name, value).unwrap();
        }
        let modified = FileTime::new(seconds, nanoseconds).unwrap();
        Entry { kind, mode, uid, gid, modified, link_group: link_group.map(LinkGroup), xattrs: kept }
    }
}

proptest! {
    #[test]
    fn an_entry_comes_back_as_it_was(entry in entries()) {
        let bytes = entry.encode().unwrap();
        prop_assert_eq!(&Entry::decode(bytes.clone().into()).unwrap(), &entry);
        // A version that is not known is said to be one, not guessed at.
        prop_assert_eq!(&bytes[..2], &[8, 1]);
        let newer = [&[8, 2], &bytes[2..]].concat();
        let refused = Entry::decode(newer.into()).unwrap_err().to_string();
        prop_assert!(refused.contains("version 2"), "{}", refused);
    }

    #[test]
    fn a_name_is_one_component(bytes in prop::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..300)) {
        let fit = (1..=255).contains(&bytes.len())
            && !bytes.contains(&b'/')
            && !bytes.contains(&0)
            && bytes != b"."
            && bytes != b"..";
        let name = Name::new(bytes.clone());
        prop_assert_eq!(name.is_ok(), fit);
        if let Ok(name) = name {
            prop_assert_eq!(name.as_bytes(), &bytes[..]);
        }
    }
}

fn plain(kind: EntryKind) -> Entry {
    let (modified, xattrs) = (FileTime::default(), Xattrs::default());
    Entry { kind, mode: 0o644, uid: 0, gid: 0, modified, link_group: None, xattrs }
}

#[test]
fn the_largest_entry_fits_and_what_is_larger_is_refused() {
    let mut xattrs = Xattrs::default();
    let bytes = XATTR_BYTES_MAX / XATTR_COUNT_MAX;
    for number in 0..XATTR_COUNT_MAX {
        xattrs.insert(format!("{number:060}"), vec![1; bytes - 60]).unwrap();
    }
    let full = xattrs.clone();
    assert_eq!(xattrs.insert("more", ""), Err(XattrError::TooLarge { bytes: XATTR_BYTES_MAX + 4 }));
    assert_eq!(xattrs.insert(format!("{:060}", 1), vec![1; 2]), Ok(()), "replaced by a smaller one");
    assert_eq!(xattrs.insert("m", ""), Err(XattrError::TooMany));
    assert_eq!(xattrs.insert("", "x"), Err(XattrError::Name));
    assert_eq!(xattrs.insert("a\0", "x"), Err(XattrError::Name));
    assert_eq!(xattrs.insert("x".repeat(256), "x"), Err(XattrError::Name));
    assert_eq!(xattrs.iter().count(), XATTR_COUNT_MAX);

    let mut entry = plain(EntryKind::File(FileContent::Inline(vec![7; INLINE_BYTES_MAX].into())));
    entry.xattrs = full;
    (entry.mode, entry.uid, entry.gid) = (0o7777, u32::MAX, u32::MAX);
    entry.modified = FileTime::new(i64::MIN, 999_999_999).unwrap();
    entry.link_group = Some(LinkGroup([9; 16]));
    let bytes = entry.encode().unwrap();
    assert!(bytes.len() <= ENTRY_BYTES_MAX && ENTRY_BYTES_MAX <= VALUE_BYTES_MAX);
    assert_eq!(Entry::decode(bytes.into()).unwrap(), entry);

    for (kind, reason) in [
        (EntryKind::File(FileContent::Inline(vec![0; INLINE_BYTES_MAX + 1].into())), "inline content"),
        (EntryKind::Symlink(Bytes::new()), "symlink target"),
        (EntryKind::Symlink(vec![b'a'; 4097].into()), "symlink target"),
        (EntryKind::Symlink(b"a\0b"[..].into()), "symlink target"),
    ] {
        let refused = plain(kind).encode().unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    assert!(FileTime::new(0, 1_000_000_000).is_none());
}

#[test]
fn a_size_is_what_stat_says() {
    let size = |kind| plain(kind).size();
    assert_eq!(size(EntryKind::File(FileContent::Inline(vec![1; 77].into()))), 77);
    assert_eq!(size(EntryKind::Symlink(vec![b'x'; 5].into())), 5);
    assert_eq!(size(EntryKind::Directory(TreeRoot::EMPTY)), 0);
    let mut builder = FileBuilder::new();
    builder.push_hole(1 << 33);
    let root = builder.finish(&mut Memory::new()).unwrap();
    assert_eq!(size(EntryKind::File(FileContent::Chunks(root))), 1 << 33);
}

#[test]
fn a_directory_is_listed_looked_up_and_edited_by_names() {
    let mut store = Memory::new();
    let file = |text: &str| plain(EntryKind::File(FileContent::Inline(text.as_bytes().to_vec().into())));
    let mut inner = DirectoryBuilder::new();
    inner.push(&mut store, &name("leaf"), &file("deep")).unwrap();
    let inner = plain(EntryKind::Directory(inner.finish(&mut store).unwrap()));
    let mut builder = DirectoryBuilder::new();
    builder.push(&mut store, &name("a"), &file("1")).unwrap();
    builder.push(&mut store, &name("b"), &inner).unwrap();
    builder.push(&mut store, &name("c"), &file("3")).unwrap();
    let root = builder.finish(&mut store).unwrap();

    let list = |root: &TreeRoot, after: Option<&Name>| -> Vec<String> {
        directory::list(&store, root, after).map(|entry| entry.unwrap().0.to_string()).collect()
    };
    assert_eq!(list(&root, None), ["a", "b", "c"]);
    assert_eq!(list(&root, Some(&name("a"))), ["b", "c"]);
    assert_eq!(list(&root, Some(&name("bb"))), ["c"]);
    assert_eq!(directory::get(&store, &root, &name("c")).unwrap(), Some(file("3")));
    let top = plain(EntryKind::Directory(root.clone()));
    assert_eq!(directory::lookup(&store, &top, &[]).unwrap().as_ref(), Some(&top));
    assert_eq!(directory::lookup(&store, &top, &[name("b"), name("leaf")]).unwrap(), Some(file("deep")));
    assert_eq!(directory::lookup(&store, &top, &[name("a"), name("leaf")]).unwrap(), None);
    assert_eq!(directory::lookup(&store, &top, &[name("x")]).unwrap(), None);

    let source = store.clone();
    let mut sink = store.clone();
    let mut editor = DirectoryEditor::new(&source, &root);
    editor.edit(&mut sink, &name("a"), None).unwrap();
    editor.edit(&mut sink, &name("bb"), Some(&file("new"))).unwrap();
    let edited = editor.finish(&mut sink).unwrap();
    assert_eq!(list(&edited, None), ["b", "bb", "c"]);
    assert_eq!(list(&root, None), ["a", "b", "c"], "the old version stays");
}

/// What a stranger's directory may hold. Restoring one must not write outside its target.
#[test]
fn a_hostile_name_does_not_get_out_of_a_directory() {
    let value = plain(EntryKind::Fifo).encode().unwrap();
    for hostile in [&b".."[..], b".", b"", b"a/b", b"/etc/passwd", b"a\0", &[b'a'; 256]] {
        let mut store = Memory::new();
        let mut builder = map::Builder::new();
        builder.push(&mut store, hostile, &value).unwrap();
        let root = builder.finish(&mut store).unwrap();
        let mut listed = directory::list(&store, &root, None);
        let refused = listed.next().unwrap().unwrap_err();
        assert!(matches!(refused, TreeError::Format(_)), "{refused}");
    }
    assert_eq!(Name::new(&b".."[..]), Err(NameError::Dots));
    assert_eq!(Name::new(&b"..."[..]).unwrap().to_string(), "...");
}
