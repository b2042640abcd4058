//! What a directory says of one of its entries: what it is, whose, and since when; a file's bytes or where they are.
//!
//! ```text
//! 1 version 1    2 kind (1 file, 2 directory, 3 symlink, 4 fifo, 5 char device, 6 block device, 7 socket)
//! 3 mode         4 uid   5 gid   6 modified: seconds (zigzag)   7 modified: nanoseconds
//! 8 link group   16 bytes or none        9 xattrs {1 name, 2 value}, ascending by name
//! 10 content     inline: the file's bytes; symlink: the target
//! 11 tree        file: a FileRoot; directory: a TreeRoot       12, 13 device: major, minor
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use commonhold_protocol::{
    FormatError,
    format::{check_length, check_version},
};
use prost::Message;

use super::{file::FileRoot, map::TreeRoot};

/// The most bytes of a file that lies inline in its entry.
pub const INLINE_BYTES_MAX: usize = 4096;
/// The most bytes of a symbolic link's target: Linux's `PATH_MAX`.
pub const SYMLINK_BYTES_MAX: usize = 4096;
/// The most bytes of all extended attributes of an entry, names and values.
pub const XATTR_BYTES_MAX: usize = 16 << 10;
/// The most extended attributes of an entry.
pub const XATTR_COUNT_MAX: usize = 256;
/// The most bytes of an attribute's name: Linux's `XATTR_NAME_MAX`.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// The most bytes of an encoded entry; below a map's value limit.
pub const ENTRY_BYTES_MAX: usize = 24 << 10;
/// Permissions, and the set-user, set-group and sticky bits.
const MODE_MASK: u32 = 0o7777;

const WHAT: &str = "directory entry";

const fn field(field: &'static str) -> FormatError {
    FormatError::Field { what: WHAT, field }
}

/// A point in time as file systems keep it; before 1970 if negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    seconds: i64,
    nanoseconds: u32,
}

impl FileTime {
    /// Seconds since 1970, and nanoseconds (below 1,000,000,000) after them.
    pub fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        (nanoseconds < 1_000_000_000).then_some(Self { seconds, nanoseconds })
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Self::seconds`].
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

/// A set of hard links: random, made when the second link appears.
///
/// Entries of one tree are names of one file if both their group and their content are the same. The content counts
/// too because a merge may leave two versions of it under one group; they are two files then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkGroup(pub [u8; 16]);

/// Why attributes are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The name is empty, longer than [`XATTR_NAME_BYTES_MAX`], or holds a NUL byte.
    #[error("an extended attribute's name is not valid")]
    Name,
    /// Together more than [`XATTR_BYTES_MAX`].
    #[error("extended attributes of {bytes} bytes, at most {XATTR_BYTES_MAX} are kept")]
    TooLarge {
        /// Bytes with the one that was refused.
        bytes: usize,
    },
    /// More than [`XATTR_COUNT_MAX`].
    #[error("more than {XATTR_COUNT_MAX} extended attributes")]
    TooMany,
}

/// Extended attributes by name; what does not fit is refused, never cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattrs(BTreeMap<Bytes, Bytes>);

impl Xattrs {
    /// Sets one attribute; on an error nothing changes.
    pub fn insert(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), XattrError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
            return Err(XattrError::Name);
        }
        let others = self.0.iter().filter(|(other, _)| **other != name);
        let (count, bytes) = others.fold((1, name.len() + value.len()), |(count, bytes), (name, value)| {
            (count + 1, bytes + name.len() + value.len())
        });
        if bytes > XATTR_BYTES_MAX {
            return Err(XattrError::TooLarge { bytes });
        }
        if count > XATTR_COUNT_MAX {
            return Err(XattrError::TooMany);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// Takes one attribute away.
    pub fn remove(&mut self, name: &[u8]) -> Option<Bytes> {
        self.0.remove(name)
    }

    /// The value of one attribute.
    pub fn get(&self, name: &[u8]) -> Option<&Bytes> {
        self.0.get(name)
    }

    /// All of them, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// Here: at most [`INLINE_BYTES_MAX`].
    Inline(Bytes),
    /// In chunks.
    Chunks(FileRoot),
}

impl FileContent {
    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunks(root) => root.length(),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(FileContent),
    /// A directory: a map from names to entries.
    Directory(TreeRoot),
    /// A symbolic link, with its target: 1 to [`SYMLINK_BYTES_MAX`] bytes, none NUL, never followed here.
    Symlink(Bytes),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Its driver.
        major: u32,
        /// Which of the driver's.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its driver.
        major: u32,
        /// Which of the driver's.
        minor: u32,
    },
    /// A socket: kept as a fact, of no use once restored.
    Socket,
}

/// One entry of a directory; its name is the key that it stands under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, set-id and sticky bits: the low 12 bits of `st_mode`; others are dropped when it is encoded.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content last changed.
    pub modified: FileTime,
    /// The hard links it is one of, if it has more than one name.
    pub link_group: Option<LinkGroup>,
    /// Extended attributes, ACLs among them.
    pub xattrs: Xattrs,
}

#[derive(Clone, PartialEq, Message)]
struct XattrWire {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    mode: u32,
    #[prost(uint32, tag = "4")]
    uid: u32,
    #[prost(uint32, tag = "5")]
    gid: u32,
    #[prost(sint64, tag = "6")]
    modified_seconds: i64,
    #[prost(uint32, tag = "7")]
    modified_nanoseconds: u32,
    #[prost(bytes = "bytes", tag = "8")]
    link_group: Bytes,
    #[prost(message, repeated, tag = "9")]
    xattrs: Vec<XattrWire>,
    #[prost(bytes = "bytes", tag = "10")]
    content: Bytes,
    #[prost(bytes = "bytes", tag = "11")]
    tree: Bytes,
    #[prost(uint32, tag = "12")]
    major: u32,
    #[prost(uint32, tag = "13")]
    minor: u32,
}

/// Checks a symbolic link's target.
fn check_target(target: &Bytes) -> Result<(), FormatError> {
    let valid = (1..=SYMLINK_BYTES_MAX).contains(&target.len()) && !target.contains(&0);
    if valid { Ok(()) } else { Err(field("symlink target")) }
}

impl Entry {
    /// Bytes of a file or of a link's target, as `st_size` says; 0 for others.
    pub fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File(content) => content.length(),
            EntryKind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// The directory below, if it is one.
    pub fn directory(&self) -> Option<&TreeRoot> {
        match &self.kind {
            EntryKind::Directory(root) => Some(root),
            _ => None,
        }
    }

    /// The entry's bytes, at most [`ENTRY_BYTES_MAX`]: always the same for the same entry.
    ///
    /// An error if inline content or a link's target is longer than allowed.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut wire = Wire {
            version: 1,
            mode: self.mode & MODE_MASK,
            uid: self.uid,
            gid: self.gid,
            modified_seconds: self.modified.seconds,
            modified_nanoseconds: self.modified.nanoseconds,
            link_group: self.link_group.map(|group| Bytes::copy_from_slice(&group.0)).unwrap_or_default(),
            xattrs: (self.xattrs.iter())
                .map(|(name, value)| XattrWire { name: name.clone(), value: value.clone() })
                .collect(),
            ..Wire::default()
        };
        match &self.kind {
            EntryKind::File(FileContent::Inline(bytes)) => {
                check_length("inline content", bytes, INLINE_BYTES_MAX)?;
                (wire.kind, wire.content) = (1, bytes.clone());
            }
            EntryKind::File(FileContent::Chunks(root)) => (wire.kind, wire.tree) = (1, root.to_bytes().into()),
            EntryKind::Directory(root) => (wire.kind, wire.tree) = (2, root.to_bytes().into()),
            EntryKind::Symlink(target) => {
                check_target(target)?;
                (wire.kind, wire.content) = (3, target.clone());
            }
            EntryKind::Fifo => wire.kind = 4,
            EntryKind::CharDevice { major, minor } => (wire.kind, wire.major, wire.minor) = (5, *major, *minor),
            EntryKind::BlockDevice { major, minor } => (wire.kind, wire.major, wire.minor) = (6, *major, *minor),
            EntryKind::Socket => wire.kind = 7,
        }
        let bytes = wire.encode_to_vec();
        check_length(WHAT, &bytes, ENTRY_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Reads an entry; refuses what [`Self::encode`] would not have written.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        check_length(WHAT, &bytes, ENTRY_BYTES_MAX)?;
        let wire = Wire::decode(bytes).map_err(|_| FormatError::Encoding { what: WHAT })?;
        check_version(WHAT, wire.version, 1)?;
        if wire.mode & !MODE_MASK != 0 {
            return Err(field("mode"));
        }
        let (major, minor) = (wire.major, wire.minor);
        let kind = match (wire.kind, wire.content.is_empty(), wire.tree.is_empty()) {
            (1, _, true) if wire.content.len() <= INLINE_BYTES_MAX => {
                EntryKind::File(FileContent::Inline(wire.content))
            }
            (1, true, false) => EntryKind::File(FileContent::Chunks(FileRoot::from_bytes(&wire.tree)?)),
            (2, true, false) => EntryKind::Directory(TreeRoot::from_bytes(&wire.tree)?),
            (3, false, true) => {
                check_target(&wire.content)?;
                EntryKind::Symlink(wire.content)
            }
            (4, true, true) => EntryKind::Fifo,
            (5, true, true) => EntryKind::CharDevice { major, minor },
            (6, true, true) => EntryKind::BlockDevice { major, minor },
            (7, true, true) => EntryKind::Socket,
            _ => return Err(field("kind")),
        };
        if !matches!(wire.kind, 5 | 6) && (major, minor) != (0, 0) {
            return Err(field("device"));
        }
        let link_group = match wire.link_group.as_ref() {
            [] => None,
            group => Some(LinkGroup(group.try_into().map_err(|_| field("link group"))?)),
        };
        if wire.xattrs.len() > XATTR_COUNT_MAX || !wire.xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(field("xattrs"));
        }
        let mut xattrs = Xattrs::default();
        for XattrWire { name, value } in wire.xattrs {
            xattrs.insert(name, value).map_err(|_| field("xattrs"))?;
        }
        Ok(Self {
            kind,
            mode: wire.mode,
            uid: wire.uid,
            gid: wire.gid,
            modified: FileTime::new(wire.modified_seconds, wire.modified_nanoseconds).ok_or(field("modified"))?,
            link_group,
            xattrs,
        })
    }
}
