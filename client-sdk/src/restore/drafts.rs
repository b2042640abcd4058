//! Names for what is not whole yet, and what becomes of it when its restore was killed.
//!
//! Whoever writes a draft has it locked. So a draft that nobody has locked belongs to a restore that is no more, and the
//! next one that comes to its folder removes it. Links, pipes and devices are drafts for an instant only: of them, a
//! kill may leave a name behind, which nothing but a put knows to leave out.

use std::{
    ffi::{CStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, openat, statat, unlinkat},
    io::Errno,
};

use crate::error::Error;

const PREFIX: &str = ".commonhold-draft-";
/// Hex digits that tell one restore from another.
const ID_DIGITS: usize = 16;
/// Digits of a u64.
const COUNT_DIGITS_MAX: usize = 20;
/// How often a new draft may be taken for an old one by somebody who clears the folder just then.
const CREATE_TRIES_MAX: usize = 16;

/// True of the names that drafts have, and of no others.
pub(crate) fn is_draft(name: &[u8]) -> bool {
    let id = name.strip_prefix(PREFIX.as_bytes()).and_then(|rest| rest.split_first_chunk::<ID_DIGITS>());
    let Some((id, [b'-', count @ ..])) = id else { return false };
    id.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        && (1..=COUNT_DIGITS_MAX).contains(&count.len())
        && count.iter().all(u8::is_ascii_digit)
}

/// The drafts of one restore.
pub(super) struct Drafts {
    ours: String,
    count: u64,
}

impl Drafts {
    pub(super) fn new() -> Result<Self, Error> {
        let mut random = [0; ID_DIGITS / 2];
        getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
        Ok(Self { ours: hex::encode(random), count: 0 })
    }

    /// A name that no other restore uses.
    pub(super) fn next(&mut self) -> OsString {
        self.count += 1;
        format!("{PREFIX}{}-{}", self.ours, self.count).into()
    }

    /// A new file, ours alone to read, locked until it is closed.
    pub(super) fn create(&mut self, folder: &impl AsFd) -> io::Result<(OsString, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..CREATE_TRIES_MAX {
            let name = self.next();
            let file = File::from(openat(folder, &name, flags, Mode::RUSR | Mode::WUSR)?);
            // Whoever clears the folder may have found it first. Where there are no locks, nobody clears anything.
            let found = flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
            if !found && file.metadata()?.nlink() > 0 {
                return Ok((name, file));
            }
        }
        Err(io::Error::other("somebody removes what is made here"))
    }
}

/// Removes the drafts in a folder that no restore works on any more.
pub(super) fn clear(folder: &impl AsFd) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_draft(name.to_bytes()) {
            continue;
        }
        // Locked until it is gone, or whoever just made it would lock it in between and believe it safe.
        if let Some(_locked) = lock_abandoned(folder, name) {
            match unlinkat(folder, name, AtFlags::empty()) {
                // It was finished between our look at it and its lock.
                Err(Errno::NOENT) => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// A draft that no restore works on any more, locked. Of a file with several names, one is a draft just while it gets
/// them: no lock says so.
fn lock_abandoned(folder: &impl AsFd, name: &CStr) -> Option<OwnedFd> {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_nlink != 1 {
        return None;
    }
    // For writing, since a lock over NFS needs that.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let draft = openat(folder, name, flags, Mode::empty()).ok()?;
    flock(&draft, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(draft)
}

#[cfg(test)]
mod tests;
