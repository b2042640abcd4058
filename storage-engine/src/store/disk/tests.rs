use rand::{Rng, RngCore, SeedableRng};

use super::*;
use crate::store::aligned::AlignedBuffer;

const FILE_BYTES: usize = 4 << 20;

fn folder_file(disk: &FolderDisk) -> FolderFile {
    let path = disk.path(VolumeNumber(1));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    file.set_len(FILE_BYTES as u64).unwrap();
    let metadata = file.metadata().unwrap();
    let identity = (metadata.dev(), metadata.ino());
    FolderFile { file, path, identity, direct: OnceLock::new(), direct_refused: disk.direct_refused.clone() }
}

/// Whether the file system under the test can do it at all.
fn opens_directly(path: &Path) -> bool {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).is_ok()
}

fn aligned(bytes: usize, rng: &mut impl RngCore) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.set_length(bytes);
    rng.fill_bytes(buffer.as_mut_slice());
    buffer
}

/// Reads and writes of all alignments and lengths, compared with the same in memory.
fn behaves_as_memory(file: &FolderFile) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut model = vec![0; FILE_BYTES];
    for _ in 0..300 {
        let longest = if rng.random() { 3 * DIRECT_BYTES_MIN } else { 10_000 };
        let (mut at, mut length) = (rng.random_range(0..FILE_BYTES - longest), rng.random_range(1..longest));
        if rng.random() {
            (at, length) = (at / 4096 * 4096, length.next_multiple_of(4096));
        }
        let mut bytes = aligned(length, &mut rng);
        if rng.random() {
            file.write(at as u64, bytes.as_slice()).unwrap();
            model[at..at + length].copy_from_slice(bytes.as_slice());
        } else {
            file.read(at as u64, bytes.as_mut_slice()).unwrap();
            assert!(bytes.as_slice() == &model[at..at + length], "{length} bytes at {at}");
        }
    }
    assert!(fs::read(&file.path).unwrap() == model);
}

#[test]
fn direct_and_buffered_pieces_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let file = folder_file(&disk);
    behaves_as_memory(&file);
    let direct = file.direct.get().is_some() && !disk.direct_refused.load(Ordering::Relaxed);
    assert_eq!(direct, opens_directly(&file.path));
}

#[test]
fn what_is_refused_goes_through_the_page_cache() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let file = folder_file(&disk);
    // As a disk with larger sectors answers.
    assert!(file.note_refusal(&io::Error::from_raw_os_error(libc::EINVAL)));
    behaves_as_memory(&file);
    assert!(file.direct.get().is_none());
    assert!(!file.note_refusal(&io::Error::from_raw_os_error(libc::EIO)));
}

#[test]
fn another_file_of_that_name_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let file = folder_file(&disk);
    fs::rename(&file.path, folder.path().join("aside")).unwrap();
    fs::write(&file.path, [7; 4096]).unwrap();
    let bytes = aligned(DIRECT_BYTES_MIN, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
    file.write(4096, bytes.as_slice()).unwrap();
    assert_eq!(fs::read(&file.path).unwrap(), [7; 4096]);
    let mut found = aligned(DIRECT_BYTES_MIN, &mut rand_chacha::ChaCha8Rng::seed_from_u64(2));
    file.read(4096, found.as_mut_slice()).unwrap();
    assert!(found.as_slice() == bytes.as_slice());
}

/// As the kernel says it: no full piece, and no direct I/O to blame.
#[test]
fn a_read_beyond_the_end_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let file = folder_file(&disk);
    file.truncate(FILE_BYTES as u64 - 1000).unwrap();
    let mut bytes = aligned(DIRECT_BYTES_MIN, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
    let error = file.read((FILE_BYTES - DIRECT_BYTES_MIN) as u64, bytes.as_mut_slice()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(disk.direct_refused.load(Ordering::Relaxed), !opens_directly(&file.path));
}
