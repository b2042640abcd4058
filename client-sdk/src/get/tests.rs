use std::{fs, time::Duration};

use proptest::prelude::*;

use super::{plan::GET_DEPTH_MAX, *};
use crate::{
    memory_source::{MemorySource, small_file},
    vault_path::DEPTH_MAX,
};

fn progress() -> Arc<Progress> {
    Arc::default()
}

/// Data, holes and single bytes, and what they are together.
fn striped(source: &mut MemorySource) -> (FileContent, Vec<u8>) {
    let noise = |number: u8, bytes: usize| -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut noise);
        noise
    };
    let data = [noise(1, 1000), noise(2, 50_000), noise(3, 1), noise(4, 33_000), noise(5, 1)];
    let [a, b, c, d, e] = &data;
    let extents: [Result<&[u8], u64>; 9] =
        [Ok(a), Err(70_000), Ok(b), Ok(c), Err(1), Ok(d), Err(100_000), Ok(e), Err(4096)];
    let mut bytes = Vec::new();
    for extent in &extents {
        match extent {
            Ok(data) => bytes.extend_from_slice(data),
            Err(hole) => bytes.resize(bytes.len() + *hole as usize, 0),
        }
    }
    let EntryKind::File(content) = source.file(&extents).kind else { unreachable!("a file") };
    (content, bytes)
}

fn cat_bytes(source: &MemorySource, content: &FileContent, range: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let written = cat(source, content, range, &mut out, &progress()).expect("read");
    assert_eq!(written, out.len() as u64);
    out
}

#[test]
fn cat_reads_whole_files_and_only_the_chunks_of_a_range() {
    let mut source = MemorySource::new();
    let (content, bytes) = striped(&mut source);
    assert!(cat_bytes(&source, &content, 0..u64::MAX) == bytes);
    source.fetched.lock().expect("no panic").clear();
    // The last bytes of the first chunk and the first of the hole behind it.
    assert_eq!(cat_bytes(&source, &content, 990..1010), bytes[990..1010]);
    assert_eq!(*source.fetched.lock().expect("no panic"), [1000]);
    source.fetched.lock().expect("no panic").clear();
    assert!(cat_bytes(&source, &content, 2000..60_000).iter().all(|byte| *byte == 0));
    assert!(source.fetched.lock().expect("no panic").is_empty(), "a hole is fetched from nobody");
}

#[test]
fn ranges_beyond_the_end_give_what_there_is() {
    let mut source = MemorySource::new();
    let (content, bytes) = striped(&mut source);
    let end = bytes.len() as u64;
    assert_eq!(cat_bytes(&source, &content, end - 3..end + 100), bytes[bytes.len() - 3..]);
    #[allow(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    for empty in [end..end + 1, end + 5..u64::MAX, 7..7, 9..3] {
        assert!(cat_bytes(&source, &content, empty).is_empty());
    }
    let EntryKind::File(inline) = small_file(b"0123456789").kind else { unreachable!("a file") };
    assert_eq!(cat_bytes(&source, &inline, 3..5), b"34");
    assert_eq!(cat_bytes(&source, &inline, 8..100), b"89");
    assert!(cat_bytes(&source, &inline, 10..100).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_range_is_what_the_same_range_of_the_file_is(start in 0_u64..260_000, length in 0_usize..120_000) {
        let mut source = MemorySource::new();
        let (content, bytes) = striped(&mut source);
        let from = bytes.len().min(start as usize);
        let expected = &bytes[from..bytes.len().min(from + length)];
        prop_assert!(cat_bytes(&source, &content, start..start + length as u64) == expected);
        prop_assert!(read_at(&source, &content, start, length).expect("read") == expected);
    }

    /// Starts and ends at, just before and just after every boundary.
    #[test]
    fn boundaries_are_not_special(
        from in proptest::sample::select(vec![0_u64, 1000, 71_000, 121_000, 121_001, 121_002, 154_002, 254_002, 254_003]),
        to in proptest::sample::select(vec![1000_u64, 71_000, 121_000, 121_001, 121_002, 154_002, 254_002, 254_003, 258_099]),
        (before, after) in (0_u64..3, 0_u64..3),
    ) {
        let mut source = MemorySource::new();
        let (content, bytes) = striped(&mut source);
        let range = from.saturating_sub(before)..(to + after).saturating_sub(1);
        let end = range.end.min(bytes.len() as u64) as usize;
        let start = (range.start as usize).min(end);
        prop_assert!(cat_bytes(&source, &content, range) == bytes[start..end]);
    }
}

#[test]
fn a_hole_of_an_exbibyte_can_be_interrupted() {
    let mut source = MemorySource::new();
    let EntryKind::File(content) = source.file(&[Ok(b"x"), Err(1 << 60)]).kind else { unreachable!("a file") };
    let progress = progress();
    let user = progress.clone();
    let interrupter = std::thread::spawn(move || {
        while user.bytes_done.load(Ordering::Relaxed) < 1 << 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        user.interrupt();
    });
    let ended = cat(&source, &content, 0..u64::MAX, &mut std::io::sink(), &progress);
    assert!(matches!(ended, Err(Error::Interrupted)));
    interrupter.join().expect("no panic");
}

fn chain(source: &mut MemorySource, depth: usize) -> Entry {
    (0..depth).fold(small_file(b"at the bottom"), |below, _| source.folder(&[(b"n", below)]))
}

fn restore(source: &MemorySource, entry: &Entry, target: &Path) -> Result<GetReport, Error> {
    get(source, entry, target, &GetOptions::default(), &progress())
}

/// On a thread as small as they come: a stack frame for each folder would not do.
#[test]
fn folders_that_lie_deep_in_each_other_are_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("n");
    let small = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
        let mut source = MemorySource::new();
        let deep = chain(&mut source, DEPTH_MAX);
        restore(&source, &deep, &target).map(|report| report.entries)
    });
    let counts = small.expect("a thread").join().expect("no overflow").expect("restored");
    assert_eq!((counts.folders, counts.files), (DEPTH_MAX as u64, 1));
    let bottom = (0..=DEPTH_MAX).fold(folder.path().to_owned(), |path, _| path.join("n"));
    assert_eq!(fs::read(bottom).expect("readable"), b"at the bottom");
}

#[test]
fn deeper_than_anybody_may_put_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut source = MemorySource::new();
    let deep = chain(&mut source, GET_DEPTH_MAX + 1);
    assert!(matches!(restore(&source, &deep, &folder.path().join("n")), Err(Error::TreeDamaged { .. })));
}

#[test]
fn a_get_that_fails_leaves_what_was_there_and_no_part_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut source = MemorySource::new();
    let good = source.file(&[Ok(&[1; 5000])]);
    // More than one batch, so that it fails in the middle of the file.
    let noise: Vec<Vec<u8>> = (0..40_u8)
        .map(|number| {
            let mut noise = vec![0; 500 << 10];
            blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut noise);
            noise
        })
        .collect();
    let extents: Vec<Result<&[u8], u64>> = noise.iter().map(|noise| Ok(noise.as_slice())).collect();
    let large = source.file(&extents);
    let EntryKind::File(FileContent::Chunks(root)) = &large.kind else { unreachable!("a file") };
    let later = file::extents(&source, root, 30 * (500 << 10)).next().expect("an extent").expect("readable");
    let (_, Extent::Data(chunk)) = later else { unreachable!("a chunk") };
    let tree = source.folder(&[(b"good", good), (b"large", large)]);
    let top = tree.directory().and_then(|tree| tree.chunk()).expect("a chunk").segment;
    assert_ne!(chunk.segment, top, "else the folder is lost too");
    source.lost.insert(chunk.segment);
    let target = folder.path().join("back");
    assert!(matches!(restore(&source, &tree, &target), Err(Error::Unavailable { .. })));
    assert_eq!(fs::read(target.join("good")).expect("restored before"), [1; 5000]);
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(names(&target), 1, "neither a part under its name nor a draft");
    fs::write(target.join("large"), "old").expect("written");
    let overwritten = get(&source, &tree, &target, &GetOptions { overwrite: true }, &progress());
    assert!(matches!(overwritten, Err(Error::Unavailable { .. })));
    assert_eq!((fs::read(target.join("large")).expect("there"), names(&target)), (b"old".to_vec(), 2));
}

#[test]
fn holes_come_back_as_holes() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().expect("a folder");
    let mut source = MemorySource::new();
    let sparse = source.file(&[Err(8 << 20), Ok(b"in the middle"), Err(8 << 20)]);
    let target = folder.path().join("sparse");
    let report = restore(&source, &sparse, &target).expect("restored");
    assert_eq!(report.bytes, (16 << 20) + 13);
    let metadata = fs::metadata(&target).expect("there");
    assert_eq!(metadata.len(), (16 << 20) + 13);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let bytes = fs::read(&target).expect("readable");
    assert_eq!(&bytes[8 << 20..(8 << 20) + 13], b"in the middle");
}
