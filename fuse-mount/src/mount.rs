//! Putting a drive into a folder, and taking it away again.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use commonhold_client_sdk::Error;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::{io::Errno, mount::UnmountFlags};

use crate::{drive::Drive, fs::Fs, fuse::Shell, options::MountOptions};

/// Requests that are worked on at once. Most of that time they wait for nodes, so it may be many more than processors.
const WORKERS: usize = 16;
/// How often a newer state of the vault is looked for.
const REFRESH_EVERY: Duration = Duration::from_secs(4);
/// How long the end of a session is waited for once it is unmounted; longer only if somebody still uses a file.
const END_MAX: Duration = Duration::from_secs(2);
/// What `mount` and `df` show as the device.
const SOURCE: &str = "commonhold";
const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
const HELPER_CONFIG: &str = "/etc/fuse.conf";

/// Why a drive could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or we may not use it.
    #[error("{DEVICE} cannot be opened: {0}")]
    NoDevice(#[source] io::Error),
    /// Others than root mount through a helper, which is missing.
    #[error("{HELPER} is not installed")]
    NoHelper,
    /// The system's config does not let users open drives to others.
    #[error("`user_allow_other` is not set in {HELPER_CONFIG}")]
    OthersNotAllowed,
    /// The folder cannot be looked at.
    #[error("cannot mount at {}: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something that is not a folder.
    #[error("{} is not a folder", dir.display())]
    NotAFolder {
        /// The path.
        dir: PathBuf,
    },
    /// The folder's content would be hidden.
    #[error("{} is not empty", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// A drive whose process has died is still there.
    #[error("{} is a mount whose process has died", dir.display())]
    Dead {
        /// The folder.
        dir: PathBuf,
    },
    /// A drive is mounted there.
    #[error("a vault is mounted at {} already", dir.display())]
    Mounted {
        /// The folder.
        dir: PathBuf,
    },
    /// No drive is mounted there.
    #[error("no vault is mounted at {}", dir.display())]
    NotMounted {
        /// The folder.
        dir: PathBuf,
    },
    /// Somebody works in the drive.
    #[error("{} is in use", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", dir.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Where.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] Error),
}

/// A mounted drive; unmounted when dropped.
pub struct Mounted {
    dir: PathBuf,
    session: Option<BackgroundSession>,
    /// Ends the search for newer states by hanging up.
    _refreshing: SyncSender<()>,
}

/// Says early, before anybody is asked for a passphrase, why a drive cannot be mounted at `dir`; gives its whole path.
pub fn check(dir: &Path, options: &MountOptions) -> Result<PathBuf, MountError> {
    let failed = |source: io::Error| MountError::Folder { dir: dir.to_owned(), source };
    let whole = whole_path(dir).map_err(failed)?;
    if seems_dead(&whole) {
        return Err(MountError::Dead { dir: whole });
    }
    if !fs::metadata(&whole).map_err(failed)?.is_dir() {
        return Err(MountError::NotAFolder { dir: whole });
    }
    if is_ours(&whole).map_err(failed)? {
        return Err(MountError::Mounted { dir: whole });
    }
    if fs::read_dir(&whole).map_err(failed)?.next().is_some() {
        return Err(MountError::NotEmpty { dir: whole });
    }
    fs::File::options().read(true).write(true).open(DEVICE).map_err(MountError::NoDevice)?;
    let root = rustix::process::geteuid().is_root();
    if !root && helper().is_none() {
        return Err(MountError::NoHelper);
    }
    if !root && (options.allow_other || options.allow_root) && !others_allowed() {
        return Err(MountError::OthersNotAllowed);
    }
    Ok(whole)
}

/// Mounts a drive at `dir`, read-only.
pub fn mount<D: Drive>(drive: D, dir: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    let dir = check(dir, options)?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|_| Error::NoRandomness)?;
    let fs = Arc::new(Fs::new(drive, key)?);
    let refused = |source| MountError::Refused { action: "mount at", dir: dir.clone(), source };
    let session = Session::new(Shell(fs.clone()), &dir, &config(options)).and_then(Session::spawn).map_err(refused)?;
    let (refreshing, stop) = sync_channel::<()>(1);
    let mounted = Mounted { dir: dir.clone(), session: Some(session), _refreshing: refreshing };
    let refresh = move || {
        let mut failing = false;
        while stop.recv_timeout(REFRESH_EVERY) == Err(RecvTimeoutError::Timeout) {
            let refreshed = fs.refresh();
            if let Err(error) = &refreshed
                && !failing
            {
                tracing::error!("the drive shows what it last knew of the vault: {error}");
            }
            failing = refreshed.is_err();
        }
    };
    thread::Builder::new().name("refresh".to_owned()).spawn(refresh).map_err(refused)?;
    Ok(mounted)
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::FSName(SOURCE.to_owned()),
        MountOption::Subtype(SOURCE.to_owned()),
    ];
    config.mount_options.extend(options.checks_permissions().then_some(MountOption::DefaultPermissions));
    config.mount_options.extend(options.noexec.then_some(MountOption::NoExec));
    config.acl = match (options.allow_other, options.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    config.n_threads = Some(WORKERS);
    config
}

impl Mounted {
    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if somebody else has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Takes it away now. Whoever still has a file open can read it until this process ends.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let detached = if session.guard.is_finished() { Ok(()) } else { take_away(&self.dir, UnmountFlags::DETACH) };
        let deadline = Instant::now() + END_MAX;
        while detached.is_ok() && !session.guard.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if !session.guard.is_finished() {
            // It would unmount the folder once more when dropped, and by then that may be another mount.
            std::mem::forget(session);
        }
        detached
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!("{error}");
        }
    }
}

/// Unmounts the drive at `dir`, even if its process has died.
pub fn unmount(dir: &Path) -> Result<(), MountError> {
    let failed = |source: io::Error| MountError::Folder { dir: dir.to_owned(), source };
    let whole = whole_path(dir).map_err(failed)?;
    if !is_ours(&whole).map_err(failed)? {
        return Err(MountError::NotMounted { dir: whole });
    }
    take_away(&whole, if seems_dead(&whole) { UnmountFlags::DETACH } else { UnmountFlags::empty() })
}

fn take_away(dir: &Path, flags: UnmountFlags) -> Result<(), MountError> {
    let refused = |source| MountError::Refused { action: "unmount", dir: dir.to_owned(), source };
    match rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::InUse { dir: dir.to_owned() }),
        // Only root may, and a helper of root's for those who mounted it.
        Err(Errno::PERM) => {
            let helper = helper().ok_or(MountError::NoHelper)?;
            let lazily = flags.contains(UnmountFlags::DETACH).then_some("-z");
            let done = Command::new(helper).arg("-u").args(lazily).arg("--").arg(dir).output().map_err(refused)?;
            let said = String::from_utf8_lossy(&done.stderr);
            match done.status.success() {
                true => Ok(()),
                false if said.contains("busy") => Err(MountError::InUse { dir: dir.to_owned() }),
                false => Err(refused(io::Error::other(said.trim().to_owned()))),
            }
        }
        Err(error) => Err(refused(error.into())),
    }
}

/// What every call on a mount gives once its process is gone.
fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}

/// True if a folder is a mount without a process. Its attributes may still be cached, but opening asks the process.
fn seems_dead(dir: &Path) -> bool {
    fs::read_dir(dir).is_err_and(|error| is_dead(&error))
}

/// The whole path of a folder, of which the last part may be a dead mount that cannot be looked at.
fn whole_path(dir: &Path) -> io::Result<PathBuf> {
    match dir.canonicalize() {
        Err(error) if is_dead(&error) => {
            let absolute = std::path::absolute(dir)?;
            let (Some(above), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Err(error) };
            Ok(above.canonicalize()?.join(name))
        }
        found => found,
    }
}

/// True if what is mounted at a whole path, on top, is a drive of ours.
fn is_ours(whole: &Path) -> io::Result<bool> {
    let table = fs::read("/proc/self/mountinfo")?;
    let found = table.split(|byte| *byte == b'\n').filter_map(mount_line).rfind(|(at, _)| at == whole);
    Ok(found.is_some_and(|(_, ours)| ours))
}

/// Where something is mounted, and whether it is a drive of ours, from a line of mountinfo (see proc(5)).
fn mount_line(line: &[u8]) -> Option<(PathBuf, bool)> {
    let mut words = line.split(|byte| *byte == b' ');
    let at = unescaped(words.nth(4)?);
    let mut after = words.skip_while(|word| *word != b"-").skip(1);
    let (kind, source) = (after.next()?, after.next()?);
    Some((PathBuf::from(OsString::from_vec(at)), kind.starts_with(b"fuse") && source == SOURCE.as_bytes()))
}

/// Blanks and the like stand in mountinfo as `\040`.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &behind[3..];
            }
            None => plain.push(*first),
        }
    }
    plain
}

fn helper() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/bin"), PathBuf::from("/usr/bin")]);
    let executable =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    folders.map(|folder| folder.join(HELPER)).find(executable)
}

fn others_allowed() -> bool {
    let config = fs::read_to_string(HELPER_CONFIG).unwrap_or_default();
    config.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_understood() {
        let line = br"36 35 98:0 / /mnt/my\040vault\134x ro,nosuid shared:5 - fuse commonhold ro,user_id=0";
        assert_eq!(mount_line(line), Some((PathBuf::from(r"/mnt/my vault\x"), true)));
        let line = br"36 35 98:0 / /mnt rw - ext4 /dev/sda1 rw";
        assert_eq!(mount_line(line), Some((PathBuf::from("/mnt"), false)));
        assert_eq!(mount_line(b""), None);
        assert_eq!(mount_line(b"36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn a_folder_that_cannot_be_mounted_at_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |name: &str| check(&folder.path().join(name), &MountOptions::default());
        assert!(matches!(check("missing"), Err(MountError::Folder { .. })));
        fs::write(folder.path().join("file"), b"").expect("written");
        assert!(matches!(check("file"), Err(MountError::NotAFolder { .. })));
        assert!(matches!(check(""), Err(MountError::NotEmpty { .. })));
        assert!(matches!(unmount(folder.path()), Err(MountError::NotMounted { .. })));
    }
}
