//! The small files in which a node keeps what it learned for its next start: read whole, written whole, with a magic that
//! tells the version, and a check sum. One that is damaged says nothing; the node learns anew.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

/// Magic and check sum.
pub(crate) const HEADER_BYTES: usize = 12;

/// One kind of them.
#[derive(Debug)]
pub(crate) struct KeptFile {
    /// What the files of all versions begin with, those of today's last.
    pub(crate) magics: &'static [&'static [u8; 8]],
    /// The most bytes of one.
    pub(crate) bytes_max: usize,
}

impl KeptFile {
    /// The beginning of a file, to append to.
    pub(crate) fn begin() -> Vec<u8> {
        vec![0; HEADER_BYTES]
    }

    /// Puts magic and check sum before what was appended since [`Self::begin`].
    pub(crate) fn finish(&self, bytes: &mut [u8]) {
        let sum = crc32fast::hash(&bytes[HEADER_BYTES..]);
        let magic = self.magics.last().map_or(&[0; 8], |magic| *magic);
        bytes[..magic.len()].copy_from_slice(magic);
        bytes[magic.len()..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    }

    /// What is behind the header, and the version, counted from 1; none if the file is damaged or of no known version.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let version = self.magics.iter().position(|magic| header.starts_with(*magic))? + 1;
        let is_whole = header.ends_with(&crc32fast::hash(rest).to_le_bytes());
        (is_whole && bytes.len() <= self.bytes_max).then_some((version, rest))
    }

    /// What the file says; nothing if there is none.
    pub(crate) fn read<T: Default>(&self, path: &Path, decode: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<T> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(self.bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        decode(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version"))
    }
}

/// The next bytes of what is read, and on behind them.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

/// What every kind of these files has to hold.
#[cfg(test)]
pub(crate) mod checks {
    use super::*;

    /// No byte can be changed and no end cut off without its being noticed.
    pub(crate) fn damage_is_noticed<T>(whole: &[u8], decode: impl Fn(&[u8]) -> Option<T>) {
        assert!(decode(whole).is_some());
        for at in 0..whole.len() {
            let mut damaged = whole.to_vec();
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                assert!(decode(&damaged).is_none(), "bit {bit} of byte {at}");
                damaged[at] ^= 1 << bit;
            }
            assert!(decode(&whole[..at]).is_none(), "cut at {at}");
        }
    }

    /// A file with these bytes behind its header.
    pub(crate) fn file_of(kind: &KeptFile, body: &[u8]) -> Vec<u8> {
        let mut bytes = KeptFile::begin();
        bytes.extend_from_slice(body);
        kind.finish(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{checks::file_of, *};

    const KIND: KeptFile = KeptFile { magics: &[b"KIND...1", b"KIND...2"], bytes_max: 20 };

    #[test]
    fn a_file_is_read_up_to_its_bound_and_by_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kind");
        let decode = |bytes: &[u8]| KIND.open(bytes).map(|(version, body)| (version, body.to_vec()));
        assert_eq!(KIND.read(&path, decode).unwrap(), (0, Vec::new()), "there is none");
        fs::write(&path, file_of(&KIND, b"12345678")).unwrap();
        assert_eq!(KIND.read(&path, decode).unwrap(), (2, b"12345678".to_vec()));
        let older = KeptFile { magics: &KIND.magics[..1], ..KIND };
        fs::write(&path, file_of(&older, b"")).unwrap();
        assert_eq!(KIND.read(&path, decode).unwrap(), (1, Vec::new()));
        fs::write(&path, file_of(&KIND, b"123456789")).unwrap();
        assert_eq!(KIND.read(&path, decode).unwrap_err().kind(), io::ErrorKind::InvalidData, "too long");
        checks::damage_is_noticed(&file_of(&KIND, b"1234"), decode);
    }
}
