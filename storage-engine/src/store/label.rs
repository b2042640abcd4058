//! The file `store`: the secret that keys this store's check sums, the network it belongs to, and the lock that keeps
//! a second process out.
//!
//! Every volume's block repeats what the label says, so a lost label is written anew; volumes are readable only with
//! the secret.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use commonhold_protocol::NetworkName;
use rustix::fs::{FlockOperation, flock};

use super::{
    disk::{Disk, sync_folder},
    error::StoreError,
    record::{Secret, VolumeBlock},
};

/// ```text
///  0 magic "CHSTORE1"    8 secret [32]    40 check sum of all other bytes [32]    72 network name to the end
/// ```
const MAGIC: &[u8; 8] = b"CHSTORE1";
pub(crate) const FIXED_BYTES: usize = 72;
/// A network name has at most 64 bytes.
const LABEL_BYTES_MAX: u64 = 256;

/// The label of an open store; the store is ours for as long as this lives.
pub(crate) struct Label {
    pub(crate) secret: Secret,
    /// Holds the lock.
    _file: File,
}

impl Label {
    /// Takes the store in `folder` for this process. A new store gets a new secret.
    pub(crate) fn open(folder: &Path, disk: &dyn Disk, network: &NetworkName) -> Result<Self, StoreError> {
        let path = folder.join("store");
        let io_error = |doing| StoreError::file(doing, &path);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("opening"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::InUse { path }),
            other => other.map_err(|error| io_error("locking")(error.into()))?,
        }
        let mut bytes = Vec::new();
        (&mut file).take(LABEL_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("reading"))?;
        let volumes = disk.volumes().map_err(io_error("listing the volumes beside"))?;
        let (secret, found) = match decode(&bytes) {
            Some(known) => known,
            None => {
                let repeated = volumes.iter().find_map(|&volume| {
                    let block = VolumeBlock::read(disk.open(volume).ok()?.as_ref()).ok()??;
                    Some((block.secret, block.network))
                });
                let known = match repeated {
                    Some(known) => known,
                    None if volumes.is_empty() => (fresh_secret().map_err(io_error("seeding"))?, network.clone()),
                    None => return Err(StoreError::Label { path }),
                };
                write(&mut file, &encode(&known.0, &known.1)).map_err(io_error("writing"))?;
                sync_folder(folder).map_err(io_error("syncing the folder of"))?;
                known
            }
        };
        if found != *network {
            return Err(StoreError::OtherNetwork { expected: network.clone(), found });
        }
        Ok(Self { secret, _file: file })
    }

    /// Tells an index of this store from another's, without telling the secret.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.secret.0, b"store id");
        std::array::from_fn(|i| hash.as_bytes()[i])
    }
}

fn fresh_secret() -> io::Result<Secret> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret(secret))
}

fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(crate) fn checksum(secret: &[u8], network: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(MAGIC).update(secret).update(network);
    *hasher.finalize().as_bytes()
}

pub(crate) fn encode(secret: &Secret, network: &NetworkName) -> Vec<u8> {
    let network = network.as_str().as_bytes();
    [MAGIC, &secret.0[..], &checksum(&secret.0, network), network].concat()
}

pub(crate) fn decode(bytes: &[u8]) -> Option<(Secret, NetworkName)> {
    if bytes.len() < FIXED_BYTES || !bytes.starts_with(MAGIC) {
        return None;
    }
    let (secret, network) = (&bytes[8..40], &bytes[FIXED_BYTES..]);
    if checksum(secret, network) != bytes[40..FIXED_BYTES] {
        return None;
    }
    let network = std::str::from_utf8(network).ok()?.parse().ok()?;
    Some((Secret(secret.try_into().ok()?), network))
}
