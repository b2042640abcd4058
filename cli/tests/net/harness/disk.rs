//! What the nodes' volumes hold on the disk, told apart from what is only reserved there.

use std::{fs::File, io};

use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use super::{Network, Stored, poll_until, wait::PATIENCE};

/// More on the disk than the shards that are live, as a part of those: headers, hashes, padding to blocks of 4 KiB.
const OVERHEAD_MAX: u64 = 10;
/// The largest volume: what a node may have reserved, all of it empty.
const VOLUME_BYTES_MAX: u64 = 256 << 20;

/// Bytes of all shards of these segments.
pub(crate) fn live_bytes(stored: &[Stored]) -> u64 {
    stored.iter().map(|segment| u64::from(segment.coding.n()) * segment.shard_bytes).sum()
}

impl Network {
    /// Bytes that hold anything in the volumes of all nodes: without holes, and without what is reserved for shards to
    /// come and was never written. The file system must know of holes, as ext4, XFS, Btrfs and tmpfs do.
    pub(crate) fn volume_data_bytes(&self) -> u64 {
        // One that was deleted meanwhile holds nothing.
        self.volumes().into_iter().filter_map(|path| File::open(path).ok()).map(|file| data_bytes(&file).unwrap()).sum()
    }

    /// Waits until the disks hold what is live and at most a tenth more, and fails if they never do. What a node has
    /// reserved beside that is no more than one volume.
    #[track_caller]
    pub(crate) fn holds_no_more_than(&self, live: u64) {
        let most = live + live / OVERHEAD_MAX;
        let held = poll_until(PATIENCE, || Some(self.volume_data_bytes()).filter(|held| *held <= most));
        let (held, taken) = (held.unwrap_or_else(|| self.volume_data_bytes()), self.volume_bytes());
        eprintln!("{live} bytes are live, the volumes hold {held}, and take {taken} with what is reserved");
        assert!(held <= most, "{held} bytes on the disks, of which {live} are live");
        assert!(held >= live, "{held} bytes on the disks cannot hold {live}");
        let reserved_max = self.nodes().len() as u64 * VOLUME_BYTES_MAX;
        assert!(taken <= held + reserved_max, "{taken} bytes are taken, {held} hold something");
    }
}

/// The parts of a file that are no holes. Reserved and never written is a hole to this question, unless somebody has
/// read it (a node that was killed does, when it starts again) and the page cache still knows.
fn data_bytes(file: &File) -> io::Result<u64> {
    file.sync_all()?;
    fadvise(file, 0, None, Advice::DontNeed)?;
    let (mut at, mut bytes) = (0, 0);
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(bytes),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        bytes += at - start;
    }
}
