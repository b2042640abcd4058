//! A file system without direct I/O, holes or reserved space: ramfs, which knows none of them, holds shards like any other.

use std::{fs, os::unix::fs::OpenOptionsExt, path::PathBuf};

use commonhold_storage_engine::store::ShardStore;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{
    faults::FaultyDisk,
    harness::{KIB, MIB, Segment, flip, options, segment_of, volume_paths},
};

/// A mounted ramfs, unmounted whatever happens.
struct RamFs(PathBuf);

impl RamFs {
    fn at(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        match mount("none", &folder, "ramfs", MountFlags::empty(), None) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("SKIPPED: ramfs cannot be mounted: {error}");
                None
            }
        }
    }
}

impl Drop for RamFs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_file_system_that_refuses_direct_io_holds_shards_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = RamFs::at(folder.path().join("volumes")) else { return };
    // It does not know how much room it has either.
    let disk = || {
        let disk = FaultyDisk::new(folder.path());
        disk.set_free_bytes(1 << 30);
        disk
    };
    let open = || ShardStore::open_on(disk(), folder.path(), options(64 * MIB)).unwrap();
    let (store, _) = open();
    // Long enough for direct I/O, and too short.
    let segments: Vec<Segment> =
        (0..40).map(|seed| segment_of(1, seed, if seed % 4 == 0 { 8 * KIB } else { 508 * KIB }, 1)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
        segment.assert_held(&store, 0);
    }
    let volume = &volume_paths(folder.path())[0];
    let refused = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(volume);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL), "else this tests nothing");

    let (gone, kept) = segments.split_at(30);
    store.remove_all(&gone.iter().map(|segment| segment.leaf(0)).collect::<Vec<_>>()).unwrap();
    drop(store);
    for rebuilt in [false, true] {
        if rebuilt {
            fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let (store, report) = open();
        assert_eq!((report.shards, report.quarantined), (kept.len() as u64, 0));
        for segment in kept {
            segment.assert_held(&store, 0);
        }
    }
    let (store, _) = open();
    flip(folder.path(), &kept[1].shards[0]);
    kept[1].assert_quarantined(&store, 0);
    kept[2].assert_held(&store, 0);
}
