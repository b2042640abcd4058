//! One `COMMONHOLD_HOME`: the client's config, the sealed vault secret, and what can be rebuilt (cache, journals).
//!
//! Several processes may use one home at once. Whoever writes to the vault first takes a device of its own under a
//! file lock, so two writers are two devices to the head, even here.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use commonhold_policy::parameters::Wanted;
use commonhold_protocol::{DeviceId, NetworkName};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    error::{Error, IoContext},
    journal, spool,
};

/// The folder of one client.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

/// `config.toml` of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientConfig {
    /// Which network.
    pub network: NetworkSection,
    /// What this client wants.
    #[serde(default)]
    pub client: ClientSection,
}

/// `[network]`: must be the same as in the config of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkSection {
    /// The network's name.
    pub name: String,
    /// The pre-shared key of a private network: `file:PATH`, relative to the home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `[client]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClientSection {
    /// Multiaddresses of nodes to enter the network by, each ending in `/p2p/ID`.
    pub bootstrap: Vec<String>,
    /// `K/N` pins the coding of this vault; a durability target, such as `9-nines`, has each put take the cheapest one
    /// that meets it. Chosen from the network's size when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding: Option<String>,
    /// Look for nodes on the local network too (mDNS).
    pub local_discovery: bool,
}

impl ClientConfig {
    /// The network's name, checked.
    pub fn network_name(&self, home: &Home) -> Result<NetworkName, Error> {
        self.network.name.parse().map_err(|error| home.config_error("network.name", &error))
    }

    /// The coding that is wanted, checked.
    pub fn coding(&self, home: &Home) -> Result<Option<Wanted>, Error> {
        let parse = |text: &String| text.parse().map_err(|error| home.config_error("client.coding", &error));
        self.client.coding.as_ref().map(parse).transpose()
    }

    /// The pre-shared key of a private network: 64 hex digits in the named file.
    pub fn network_key(&self, home: &Home) -> Result<Option<Zeroizing<[u8; 32]>>, Error> {
        let Some(place) = &self.network.key else { return Ok(None) };
        let bad = |why: &str| home.config_error("network.key", &why);
        let path = place.strip_prefix("file:").ok_or_else(|| bad("expected file:PATH"))?;
        let path = home.dir.join(path);
        let text = Zeroizing::new(fs::read_to_string(&path).doing("read the network key", &path)?);
        let mut key = Zeroizing::new([0; 32]);
        let read = hex::decode_to_slice(text.trim(), key.as_mut_slice());
        read.map(|()| Some(key)).map_err(|_| bad("the file must hold 64 hex digits"))
    }
}

impl Home {
    /// The home at `dir`, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// `COMMONHOLD_HOME`, else `XDG_DATA_HOME/commonhold`, else `~/.local/share/commonhold`.
    pub fn locate() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("COMMONHOLD_HOME")
            .or_else(|| set("XDG_DATA_HOME").map(|dir| dir.join("commonhold")))
            .or_else(|| set("HOME").map(|dir| dir.join(".local/share/commonhold")))
            .map(Self::at)
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sealed secret.
    pub fn vault_file(&self) -> PathBuf {
        self.dir.join("vault")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// The file whose lock says which process has the cache.
    pub fn cache_lock(&self) -> PathBuf {
        self.cache_dir().with_extension("lock")
    }

    /// Whether another process has the cache now; this one would work without it. Takes the lock for an instant.
    pub fn cache_in_use(&self) -> bool {
        // Shared: two that look at once do not take each other for the one that has it.
        fs::File::open(self.cache_lock()).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// True if a vault was made here.
    pub fn has_vault(&self) -> bool {
        self.vault_file().exists()
    }

    /// Makes the folders, readable by their owner alone.
    pub fn create(&self) -> Result<(), Error> {
        for dir in [self.dir.clone(), self.journal_dir(), self.dir.join("devices")] {
            fs::create_dir_all(&dir).doing("create", &dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).doing("set permissions of", &dir)?;
        }
        Ok(())
    }

    /// Reads `config.toml`.
    pub fn config(&self) -> Result<ClientConfig, Error> {
        let path = self.config_file();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoVault { home: self.dir.clone() });
            }
            read => read.doing("read", &path)?,
        };
        toml::from_str(&text).map_err(|error| Error::Config { path, reason: error.to_string() })
    }

    /// Writes `config.toml`.
    pub fn write_config(&self, config: &ClientConfig) -> Result<(), Error> {
        let path = self.config_file();
        let text =
            toml::to_string(config).map_err(|error| Error::Config { path: path.clone(), reason: error.to_string() })?;
        write_atomically(&path, text.as_bytes())
    }

    /// Addresses of nodes that were met before, for when those of the config are gone.
    pub(crate) fn remembered_nodes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("nodes")).unwrap_or_default();
        text.lines().take(REMEMBERED_NODES_MAX).map(str::to_owned).collect()
    }

    /// Remembers where nodes are now.
    pub(crate) fn remember_nodes(&self, addresses: impl Iterator<Item = String>) -> Result<(), Error> {
        let mut text: Vec<String> = addresses.take(REMEMBERED_NODES_MAX).collect();
        text.sort();
        let text = text.join("\n");
        let path = self.dir.join("nodes");
        if text.is_empty() || fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        write_atomically(&path, text.as_bytes())
    }

    fn config_error(&self, key: &str, reason: &impl ToString) -> Error {
        Error::Config { path: self.config_file(), reason: format!("{key}: {}", reason.to_string()) }
    }

    /// The first device of this home that no other process writes as; held until the value is dropped.
    pub(crate) fn lock_device(&self) -> Result<Device, Error> {
        let dir = self.dir.join("devices");
        // Config and vault are all of a home that cannot be made anew: whoever copied only those has a home.
        if !dir.is_dir() || !self.journal_dir().is_dir() {
            self.create()?;
        }
        for number in 0..DEVICES_MAX {
            let path = dir.join(format!("{number}"));
            let Some(mut file) = self.try_lock_device_number(number)? else { continue };
            let text = fs::read_to_string(&path).doing("read", &path)?;
            let known = text.lines().next().and_then(|id| hex::decode(id).ok()?.try_into().ok());
            let id = match known {
                Some(id) => id,
                None => {
                    let mut id = [0; 8];
                    getrandom::fill(&mut id).map_err(|_| Error::NoRandomness)?;
                    let text = format!("{}\n{}\n", hex::encode(id), made_at(&file).unwrap_or_default());
                    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).doing("write", &path)?;
                    file.sync_all().doing("write", &path)?;
                    id
                }
            };
            return Ok(Device { id: DeviceId(id), number, _lock: file });
        }
        Err(Error::TooManyWriters { home: self.dir.clone(), writers_max: DEVICES_MAX })
    }
}

impl Home {
    /// The lock of a device that nobody writes as now; none if somebody does.
    ///
    /// In a copy of a home, the device is blank, and what was under way as it is gone from here: both are the
    /// original's. Two that write as one device look like one writer to others, who then see the heads of one of them
    /// alone; and two that each think a segment theirs may drop it while the other refers to it.
    pub(crate) fn try_lock_device_number(&self, number: usize) -> Result<Option<fs::File>, Error> {
        let path = self.dir.join("devices").join(number.to_string());
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.doing("open", &path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).doing("read", &path)?;
        if let Some(was_made_at) = text.lines().nth(1).filter(|time| !time.is_empty())
            && made_at(&file).is_some_and(|made_at| made_at != was_made_at)
        {
            tracing::info!("this home is a copy: it writes as a device of its own from now on");
            journal::forget(self, number)?;
            spool::forget(self, number)?;
            // Last, so that whoever dies before it comes here again.
            file.set_len(0).doing("write", &path)?;
        }
        Ok(Some(file))
    }
}

/// When a file was made, which no copy of it has from the original; none where the file system does not know.
fn made_at(file: &fs::File) -> Option<String> {
    let since = file.metadata().ok()?.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

/// Enough to find a network again in which most nodes have moved.
const REMEMBERED_NODES_MAX: usize = 40;

/// The most processes that write from one home at once.
const DEVICES_MAX: usize = 64;

/// A device of this home, ours until dropped.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) number: usize,
    _lock: fs::File,
}

/// Replaces a file so that after a crash either the old or the new one is there, whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).doing("write in", dir)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).doing("write", path)?;
    file.persist(path).map_err(|error| error.error).doing("replace", path)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).doing("sync", dir)
}

#[cfg(test)]
mod tests;
