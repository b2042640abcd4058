//! The node's identity: the seed of its ed25519 key, in a file that only its owner can read.
//!
//! The file `identity` holds 64 hex digits. It is created whole or not at all, and never overwritten: losing it would
//! make every claim of this node worthless.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use commonhold_protocol::{NodeId, SigningKey};
use zeroize::Zeroizing;

use crate::data_dir;

const FILE: &str = "identity";
/// 64 digits and a line end, and room for a careless editor's blanks.
const FILE_BYTES_MAX: u64 = 128;

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or created.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read the secret.
    #[error("{}: others can read it (mode {mode:o}); make it private with `chmod 600`", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not an identity.
    #[error("{}: not an identity: 64 hex digits are expected", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No randomness to be had.
    #[error("no random bytes from the system: {0}")]
    Random(getrandom::Error),
}

/// The seed of the node's key; wiped when dropped.
pub struct Identity(Zeroizing<[u8; 32]>);

impl Identity {
    /// Reads the identity in `data_dir`, or makes one.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, IdentityError> {
        match Self::load(data_dir) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(data_dir)?;
                Self::load(data_dir)
            }
            loaded => loaded,
        }
    }

    fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        use std::io::Read;
        let path = data_dir.join(FILE);
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let file = fs::File::open(&path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::NotPrivate { path, mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let mut seed = Zeroizing::new([0; 32]);
        match hex::decode_to_slice(text.trim(), seed.as_mut()) {
            Ok(()) => Ok(Self(seed)),
            Err(_) => Err(IdentityError::Damaged { path }),
        }
    }

    /// Writes a fresh identity beside its place and links it in, so that neither a crash nor a second process can
    /// leave half of one or replace one.
    fn create(data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join(FILE);
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(IdentityError::Random)?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(seed.as_ref()))));
        let fresh = data_dir.join(format!("{FILE}.{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
        let linked =
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
                match fs::hard_link(&fresh, &path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    linked => linked,
                }
            });
        let _ = fs::remove_file(&fresh);
        linked.and_then(|()| data_dir::sync_folder(data_dir)).map_err(failed)
    }

    /// The seed itself.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// The key that signs our claims.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.0)
    }

    /// From what the audit schedule is drawn: no holder can work out when it will be asked for what.
    pub fn audit_seed(&self) -> [u8; 32] {
        blake3::derive_key("commonhold 2026 node audit schedule v1", self.0.as_ref())
    }

    /// Our id.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.signing_key().public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(folder.path()).unwrap().node_id();
        assert_eq!(Identity::load_or_create(folder.path()).unwrap().node_id(), first);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn an_identity_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity::load_or_create(folder.path()).unwrap();
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load_or_create(folder.path()), Err(IdentityError::NotPrivate { mode: 0o644, .. })));
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "abc").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Identity::load_or_create(folder.path()), Err(IdentityError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    }
}
