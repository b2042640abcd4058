use std::{
    collections::{BTreeMap, HashMap},
    os::unix::ffi::OsStrExt,
};

use commonhold_client_sdk::{FileTime, Listed};
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{
        ChunkSink, ChunkSource,
        directory::{self, DirectoryBuilder},
        entry::{LinkGroup, Xattrs},
    },
};

use super::*;

/// Chunks in memory, shared by all states.
#[derive(Default, Clone)]
struct Chunks(Arc<Mutex<HashMap<SegmentId, Bytes>>>);

impl ChunkSink for Chunks {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        let hash = *blake3::hash(plain).as_bytes();
        let (segment, length) = (SegmentId::from_bytes(hash), plain.len() as u32);
        self.0.lock().expect("no panic").insert(segment, Bytes::copy_from_slice(plain));
        let key = ChunkKey::from_bytes(hash);
        Ok(ChunkRef { segment, offset: 0, sealed_length: length + 16, plain_length: length, key })
    }
}

impl ChunkSource for Chunks {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        Ok(self.0.lock().expect("no panic")[&chunk.segment].clone())
    }
}

/// A drive whose newest state a test sets.
#[derive(Clone)]
struct Shelf {
    chunks: Chunks,
    newest: Arc<Mutex<Entry>>,
}

struct Shown {
    chunks: Chunks,
    root: Entry,
}

impl Shelf {
    fn show(&self, root: Entry) {
        *self.newest.lock().expect("no panic") = root;
    }

    fn folder<'n>(&self, entries: impl IntoIterator<Item = (&'n str, Entry)>) -> Entry {
        let mut builder = DirectoryBuilder::new();
        let mut chunks = self.chunks.clone();
        for (name, entry) in entries.into_iter().collect::<BTreeMap<_, _>>() {
            let name = Name::new(name.as_bytes().to_vec()).expect("a name");
            builder.push(&mut chunks, &name, &entry).expect("pushed");
        }
        entry(EntryKind::Directory(builder.finish(&mut chunks).expect("a folder")))
    }
}

impl Drive for Shelf {
    type State = Shown;

    fn newest(&self) -> Result<Shown, Error> {
        Ok(Shown { chunks: self.chunks.clone(), root: self.newest.lock().expect("no panic").clone() })
    }

    fn newer(&self, known: &Shown) -> Result<Option<Shown>, Error> {
        Ok(Some(self.newest()?).filter(|newest| newest.root != known.root))
    }
}

impl State for Shown {
    fn root(&self) -> &Entry {
        &self.root
    }

    fn child(&self, folder: &Entry, name: &Name) -> Result<Option<Entry>, Error> {
        let Some(tree) = folder.directory() else { return Ok(None) };
        Ok(directory::get(&self.chunks, tree, name)?)
    }

    fn list(&self, folder: &Entry, after: Option<&Name>, count: usize) -> Result<Vec<Listed>, Error> {
        let entries = directory::list(&self.chunks, folder.directory().expect("a folder"), after).take(count);
        entries.map(|listed| listed.map(|(name, entry)| Listed { name, entry }).map_err(Error::from)).collect()
    }

    fn read(&self, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error> {
        let FileContent::Inline(bytes) = content else { panic!("all files here are small") };
        let from = bytes.len().min(offset as usize);
        Ok(bytes.slice(from..bytes.len().min(from + length)))
    }

    fn data_bytes(&self, content: &FileContent) -> Result<u64, Error> {
        Ok(content.length())
    }

    fn names_of(&self, entry: &Entry) -> Result<u32, Error> {
        Ok(if entry.link_group.is_some() { 2 } else { 1 })
    }

    fn stored_bytes(&self) -> Result<u64, Error> {
        Ok(0)
    }
}

fn entry(kind: EntryKind) -> Entry {
    let modified = FileTime::new(1_700_000_000, 5).expect("a time");
    Entry { kind, mode: 0o644, uid: 1, gid: 2, modified, link_group: None, xattrs: Xattrs::default() }
}

fn file(text: &'static str) -> Entry {
    entry(EntryKind::File(FileContent::Inline(Bytes::from_static(text.as_bytes()))))
}

fn linked(text: &'static str) -> Entry {
    Entry { link_group: Some(LinkGroup([7; 16])), ..file(text) }
}

/// A mounted drive, and the shelf that says what is on it.
fn drive(root: impl FnOnce(&Shelf) -> Entry) -> (Fs<Shelf>, Shelf) {
    let empty = Entry { kind: EntryKind::Fifo, ..file("") };
    let shelf = Shelf { chunks: Chunks::default(), newest: Arc::new(Mutex::new(empty)) };
    shelf.show(root(&shelf));
    (Fs::new(shelf.clone(), [3; 32]).expect("a drive"), shelf)
}

fn lookup(fs: &Fs<Shelf>, parent: u64, name: &str) -> Result<u64, FsError> {
    Ok(fs.lookup(parent, OsStr::new(name))?.number)
}

fn text(fs: &Fs<Shelf>, number: u64) -> Bytes {
    let handle = fs.open(number).expect("opened");
    let bytes = fs.read(handle, 0, 100).expect("read");
    fs.close(handle);
    bytes
}

/// All names of a folder, listed by a kernel that takes `room` lines at a time and forgets `again` of them.
fn names(fs: &Fs<Shelf>, number: u64, room: usize, again: u64) -> Vec<Vec<u8>> {
    let handle = fs.open_folder(number).expect("opened");
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let mut lines = Vec::new();
        let add = |line: Line<'_>| {
            if lines.len() == room {
                return true;
            }
            lines.push((line.next, line.name.as_bytes().to_vec()));
            false
        };
        fs.list(handle, offset, add).expect("listed");
        if lines.is_empty() {
            fs.close(handle);
            return names;
        }
        // A page that is not used up is asked for again from where its reader stopped.
        let used = lines.len().saturating_sub(again as usize).max(1);
        for (next, name) in lines.into_iter().take(used) {
            offset = next;
            names.push(name);
        }
    }
}

#[test]
fn numbers_are_of_paths_for_folders_and_of_contents_for_files() {
    let (fs, shelf) = drive(|shelf| {
        shelf.folder([("a", shelf.folder([("x", file("one")), ("y", linked("l")), ("z", linked("l"))]))])
    });
    let folder = lookup(&fs, ROOT, "a").expect("found");
    let [x, y, z] = ["x", "y", "z"].map(|name| lookup(&fs, folder, name).expect("found"));
    assert_eq!(lookup(&fs, folder, "x").expect("found"), x);
    assert_eq!(y, z, "two names of one file");
    assert_ne!(x, y);

    let open = fs.open(x).expect("opened");
    shelf.show(shelf.folder([("a", shelf.folder([("x", file("two")), ("y", linked("l")), ("z", linked("m"))]))]));
    assert!(fs.refresh().expect("refreshed"));
    assert!(!fs.refresh().expect("refreshed"), "nothing is newer than the newest");
    assert_eq!(lookup(&fs, ROOT, "a").expect("found"), folder);
    let replaced = lookup(&fs, folder, "x").expect("found");
    assert_ne!(replaced, x, "the kernel would mix cached bytes of the two");
    assert_eq!((&text(&fs, x)[..], &text(&fs, replaced)[..]), (&b"one"[..], &b"two"[..]));
    assert_eq!(fs.read(open, 1, 100).expect("read"), "ne");
    assert_eq!(lookup(&fs, folder, "y").expect("found"), y);
    assert_ne!(lookup(&fs, folder, "z").expect("found"), y, "same group, other content: two files");
}

#[test]
fn a_folder_that_is_gone_is_stale_and_one_that_is_open_is_as_it_was() {
    let (fs, shelf) = drive(|shelf| shelf.folder([("a", shelf.folder([("b", shelf.folder([("x", file(""))]))]))]));
    let a = lookup(&fs, ROOT, "a").expect("found");
    let b = lookup(&fs, a, "b").expect("found");
    let open = fs.open_folder(b).expect("opened");
    shelf.show(shelf.folder([("a", file("a file now"))]));
    fs.refresh().expect("refreshed");
    assert!(matches!(fs.attributes(b), Err(FsError::Stale)));
    assert!(matches!(lookup(&fs, b, "x"), Err(FsError::Stale)));
    assert_ne!(lookup(&fs, ROOT, "a").expect("found"), a, "a number never changes its kind");
    let mut listed = 0;
    fs.list(open, 2, |_| {
        listed += 1;
        false
    })
    .expect("listed");
    assert_eq!(listed, 1);
}

#[test]
fn listings_give_each_name_once_however_they_are_cut() {
    let all: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let (fs, _) = drive(|shelf| shelf.folder(all.iter().map(|name| (name.as_str(), file("x")))));
    let mut expected: Vec<Vec<u8>> = vec![b".".to_vec(), b"..".to_vec()];
    expected.extend(all.iter().map(|name| name.as_bytes().to_vec()));
    for (room, again) in [(1, 0), (3, 1), (255, 100), (256, 0), (257, 256), (5000, 4990)] {
        assert!(names(&fs, ROOT, room, again) == expected, "{room} at a time, {again} again");
    }
    // Back to the start, and to somewhere before.
    let handle = fs.open_folder(ROOT).expect("opened");
    for offset in [900, 0, 500, 499, 1002] {
        let mut first = None;
        fs.list(handle, offset, |line| {
            first = Some(line.name.as_bytes().to_vec());
            true
        })
        .expect("listed");
        assert_eq!(first.as_ref(), expected.get(offset as usize));
    }
}

#[test]
fn the_number_in_a_listing_is_that_of_a_lookup() {
    let (fs, _) = drive(|shelf| shelf.folder([("f", file("x")), ("d", shelf.folder([])), ("l", linked("y"))]));
    let handle = fs.open_folder(ROOT).expect("opened");
    let mut lines = Vec::new();
    fs.list(handle, 2, |line| {
        lines.push((line.name.to_owned(), line.number));
        false
    })
    .expect("listed");
    assert_eq!(lines.len(), 3);
    for (name, number) in lines {
        assert_eq!(fs.lookup(ROOT, &name).expect("found").number, number);
    }
}

#[test]
fn what_the_kernel_forgets_takes_no_memory() {
    let (fs, _) = drive(|shelf| shelf.folder([("f", file("x"))]));
    let number = lookup(&fs, ROOT, "f").expect("found");
    assert_eq!(lookup(&fs, ROOT, "f").expect("found"), number);
    fs.forget(number, 1);
    assert_eq!(text(&fs, number), "x");
    fs.forget(number, 1);
    fs.forget(ROOT, u64::MAX);
    assert_eq!(fs.numbers_known(), 1, "the root alone");
    assert!(matches!(fs.attributes(number), Err(FsError::Stale)));
    assert!(fs.attributes(ROOT).is_ok());
}

#[test]
fn each_wrong_request_has_an_error_of_its_own() {
    let mut with_attribute = entry(EntryKind::Symlink(Bytes::from_static(b"\xff/..")));
    with_attribute.xattrs.insert(&b"user.a"[..], &b"1"[..]).expect("set");
    with_attribute.xattrs.insert(&b"user.b"[..], &b""[..]).expect("set");
    let (fs, _) = drive(|shelf| shelf.folder([("f", file("x")), ("l", with_attribute)]));
    let [f, l] = ["f", "l"].map(|name| lookup(&fs, ROOT, name).expect("found"));
    assert_eq!(fs.link_target(l).expect("a link"), &b"\xff/.."[..]);
    assert_eq!(fs.xattr_names(l).expect("listed"), "user.a\0user.b\0");
    assert_eq!(fs.xattr(l, OsStr::new("user.b")).expect("found"), "");
    assert!(matches!(fs.xattr(f, OsStr::new("user.a")), Err(FsError::NoAttribute)));
    assert!(matches!(lookup(&fs, ROOT, "missing"), Err(FsError::NotFound)));
    assert!(matches!(lookup(&fs, ROOT, &"n".repeat(256)), Err(FsError::NameTooLong)));
    assert!(matches!(lookup(&fs, f, "x"), Err(FsError::NotAFolder)));
    assert!(matches!(fs.open(ROOT), Err(FsError::IsAFolder)));
    assert!(matches!(fs.open(l), Err(FsError::WrongKind)));
    assert!(matches!(fs.open_folder(f), Err(FsError::NotAFolder)));
    assert!(matches!(fs.link_target(f), Err(FsError::WrongKind)));
    assert!(matches!(fs.read(99, 0, 1), Err(FsError::BadHandle)));
    let folder = fs.open_folder(ROOT).expect("opened");
    assert!(matches!(fs.read(folder, 0, 1), Err(FsError::BadHandle)));
}
