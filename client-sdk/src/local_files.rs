//! Reading this machine's files for a put: names, attributes, and contents without their holes.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::{OFlags, SeekFrom, seek};

/// Holes smaller than this are stored as the zeros that they are.
const HOLE_BYTES_MIN: u64 = 64 << 10;

/// The names in a folder, in order of their bytes.
pub(crate) fn sorted_names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Opens a file for reading; refuses to follow a link that took its place, and never blocks on a pipe.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is no longer a regular file")) }
}

/// The extended attributes of a file, folder or link. A file system without them has none.
pub(crate) fn extended_attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names {
        // One that vanished meanwhile is not an error, one that may not be read is left out as it would be by others.
        if let Ok(Some(value)) = xattr::get(path, &name) {
            attributes.push((name.as_bytes().to_vec(), value));
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// Bytes to be read.
    Data(u64),
    /// Zeros that take no space.
    Hole(u64),
}

/// The stretches of a file of `length` bytes, from its start. A file system that knows no holes has one stretch.
pub(crate) fn stretches(file: &File, metadata: &Metadata) -> io::Result<Vec<Stretch>> {
    let length = metadata.len();
    if length == 0 {
        return Ok(Vec::new());
    }
    if metadata.blocks() * 512 >= length {
        return Ok(vec![Stretch::Data(length)]);
    }
    let mut found: Vec<Stretch> = Vec::new();
    let mut at = 0;
    while at < length {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(length),
            Err(rustix::io::Errno::NXIO) => length,
            Err(rustix::io::Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        if data > at {
            push(&mut found, if data - at >= HOLE_BYTES_MIN { Stretch::Hole(data - at) } else { Stretch::Data(data - at) });
        }
        if data >= length {
            break;
        }
        let hole = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(length),
            Err(_) => length,
        };
        push(&mut found, Stretch::Data(hole - data));
        at = hole;
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(found)
}

fn push(found: &mut Vec<Stretch>, next: Stretch) {
    match (found.last_mut(), next) {
        (Some(Stretch::Data(bytes)), Stretch::Data(more)) => *bytes += more,
        (Some(Stretch::Hole(bytes)), Stretch::Hole(more)) => *bytes += more,
        _ => found.push(next),
    }
}

/// Reads at most `limit` bytes of a file from where it stands: a file that grows meanwhile ends here all the same.
pub(crate) fn up_to(file: &File, limit: u64) -> io::Take<&File> {
    file.take(limit)
}
