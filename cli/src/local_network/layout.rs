//! The folder of a local network: `node-00 …` with their configs, `client`, and what `--add` has to know.
//!
//! ```text
//! D/dev.toml       network name, domains           D/overlay.toml   the config that lies over every node's, if any
//! D/dev.lock       held while the network runs     D/add.lock       held while nodes are numbered and made
//! D/node-07/       node.toml, log, and the node's own files
//! D/client/        a client's home
//! ```

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use commonhold_node::config::{self, Address, Config, Size};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::{IoContext, LocalNetworkError};

const STATE_FILE: &str = "dev.toml";
const OVERLAY_FILE: &str = "overlay.toml";
const RUNNING_LOCK: &str = "dev.lock";
const ADD_LOCK: &str = "add.lock";
const NODE_PREFIX: &str = "node-";
/// Loopback only, TCP only, and the kernel picks the port: networks side by side never meet.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
const PLEDGE: Size = Size(20 << 30);
const KEEP_FREE: Size = Size(64 << 20);

/// The folder of one local network.
pub(super) struct Layout {
    dir: PathBuf,
    state: State,
    overlay: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    network: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domains: Option<u16>,
}

/// `node-07`.
pub(super) fn node_name(number: u16) -> String {
    format!("{NODE_PREFIX}{number:02}")
}

impl Layout {
    /// Makes the folder of a new network; the file is its lock.
    pub(super) fn create(
        dir: &Path,
        domains: Option<u16>,
        overlay: Option<&Path>,
    ) -> Result<(Self, fs::File), LocalNetworkError> {
        fs::create_dir_all(dir).doing("create", dir)?;
        if fs::read_dir(dir).doing("read", dir)?.next().is_some() {
            return Err(LocalNetworkError::NotEmpty { dir: dir.to_owned() });
        }
        let dir = fs::canonicalize(dir).doing("find", dir)?;
        let overlay = overlay.map(|path| fs::read_to_string(path).doing("read", path).map(|text| (path, text)));
        let overlay = match overlay.transpose()? {
            Some((path, text)) => {
                // Found here, with its own name and lines, rather than in every node.
                config::overlay(&config::sample(&Config::default()), &text, path)?;
                let kept = dir.join(OVERLAY_FILE);
                fs::write(&kept, &text).doing("write", &kept)?;
                Some(text)
            }
            None => None,
        };
        let state = State { network: format!("dev-{:08x}", rand::random::<u32>()), domains };
        let path = dir.join(STATE_FILE);
        let bad = |error: toml::ser::Error| LocalNetworkError::State { path: path.clone(), reason: error.to_string() };
        fs::write(&path, toml::to_string(&state).map_err(bad)?).doing("write", &path)?;
        let lock = open_lock(&dir.join(RUNNING_LOCK))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(LocalNetworkError::NotEmpty { dir });
        }
        Ok((Self { dir, state, overlay }, lock))
    }

    /// The folder of a network that runs; until the file is dropped, nobody else adds nodes to it.
    pub(super) fn open_running(dir: &Path, overlay: Option<&Path>) -> Result<(Self, fs::File), LocalNetworkError> {
        let not_running = || LocalNetworkError::NotRunning { dir: dir.to_owned() };
        let whole = fs::canonicalize(dir).map_err(|_| not_running())?;
        let path = whole.join(STATE_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(not_running()),
            text => text.doing("read", &path)?,
        };
        let state = toml::from_str(&text);
        let state = state.map_err(|error| LocalNetworkError::State { path, reason: error.to_string() })?;
        // Shared, so that two of us who look at once do not take each other for the network.
        let running = open_lock(&whole.join(RUNNING_LOCK))?;
        if flock(&running, FlockOperation::NonBlockingLockShared).is_ok() {
            return Err(not_running());
        }
        let adding = open_lock(&whole.join(ADD_LOCK))?;
        flock(&adding, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .doing("lock", &whole.join(ADD_LOCK))?;
        let overlay = match overlay {
            Some(path) => Some(fs::read_to_string(path).doing("read", path)?),
            None => match fs::read_to_string(whole.join(OVERLAY_FILE)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                text => Some(text.doing("read", &whole.join(OVERLAY_FILE))?),
            },
        };
        Ok((Self { dir: whole, state, overlay }, adding))
    }

    pub(super) fn network(&self) -> &str {
        &self.state.network
    }

    pub(super) fn client_dir(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The folders of all nodes that were ever made here.
    pub(super) fn node_folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<(u16, PathBuf)> = self.numbered().collect();
        folders.sort();
        folders.into_iter().map(|(_, folder)| folder).collect()
    }

    /// A number that no node has had yet.
    pub(super) fn next_number(&self) -> u16 {
        self.numbered().map(|(number, _)| number.saturating_add(1)).max().unwrap_or(0)
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, PathBuf)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix(NODE_PREFIX)?.parse().ok()?;
            Some((number, entry.path()))
        })
    }

    /// Makes a node's folder and config; gives the folder.
    pub(super) fn write_node(&self, number: u16, bootstrap: &[String]) -> Result<PathBuf, LocalNetworkError> {
        let folder = self.dir.join(node_name(number));
        fs::create_dir(&folder).doing("create", &folder)?;
        self.write_config(number, &folder, bootstrap)?;
        Ok(folder)
    }

    /// Writes a node's config, anew if there is one: it counts from the node's next start.
    pub(super) fn write_config(
        &self,
        number: u16,
        folder: &Path,
        bootstrap: &[String],
    ) -> Result<(), LocalNetworkError> {
        let path = folder.join(commonhold_node::CONFIG_FILE);
        let mut text = config::sample(&self.config(number, bootstrap, &path)?);
        if let Some(overlay) = &self.overlay {
            text = config::overlay(&text, overlay, &self.dir.join(OVERLAY_FILE))?;
        }
        // Each node refuses a bad config as well, but only in its log.
        Config::parse(&text, &path, folder)?;
        fs::write(&path, text).doing("write", &path)
    }

    fn config(&self, number: u16, bootstrap: &[String], path: &Path) -> Result<Config, LocalNetworkError> {
        let bad = |reason: String| LocalNetworkError::State { path: path.to_owned(), reason };
        let address = |text: &str| text.parse::<Address>().map_err(bad);
        let domain = self.state.domains.map_or(number, |domains| number % domains.max(1));
        let mut config = Config::default();
        config.node.name = Some(node_name(number));
        config.node.listen = Some(vec![address(LISTEN)?]);
        config.node.bootstrap = bootstrap.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
        config.node.domain = Some(format!("domain-{domain:02}"));
        config.network.name = self.state.network.parse().map_err(bad)?;
        config.pledge.disk = PLEDGE;
        config.pledge.vault_max = PLEDGE;
        config.pledge.keep_free = KEEP_FREE;
        config.dashboard.listen = ([127, 0, 0, 1], 0).into();
        Ok(config)
    }
}

fn open_lock(path: &Path) -> Result<fs::File, LocalNetworkError> {
    fs::OpenOptions::new().create(true).write(true).truncate(false).open(path).doing("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_spread_over_the_domains_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (layout, _lock) = Layout::create(folder.path(), Some(3), None).expect("a layout");
        for number in 0..5 {
            layout.write_node(number, &[]).expect("a node");
        }
        let domains: Vec<String> = layout
            .node_folders()
            .iter()
            .map(|folder| Config::load(&folder.join("node.toml")).expect("a config").node.domain.expect("a domain"))
            .collect();
        assert_eq!(domains, ["domain-00", "domain-01", "domain-02", "domain-00", "domain-01"]);
        assert_eq!(layout.next_number(), 5);
    }

    #[test]
    fn an_overlay_lies_over_every_node() {
        let folder = tempfile::tempdir().expect("a folder");
        let overlay = folder.path().join("fast.toml");
        fs::write(&overlay, "[audit]\nevery = \"3 s\"\n").expect("written");
        let (layout, _lock) = Layout::create(&folder.path().join("net"), None, Some(&overlay)).expect("a layout");
        let node = layout.write_node(7, &[]).expect("a node");
        let config = Config::load(&node.join("node.toml")).expect("a config");
        assert_eq!(config.audit.every.as_ms(), 3000);
        assert_eq!(config.node.name.as_deref(), Some("node-07"));
        assert_eq!(config.pledge.disk, PLEDGE);
    }

    #[test]
    fn a_bad_overlay_is_refused_by_its_own_name_and_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let overlay = folder.path().join("fast.toml");
        fs::write(&overlay, "[audit]\nevry = \"3 s\"\n").expect("written");
        let error =
            Layout::create(&folder.path().join("net"), None, Some(&overlay)).err().expect("an error").to_string();
        assert!(error.contains("fast.toml, line 2: unknown key `[audit] evry`"), "{error}");
    }

    #[test]
    fn only_an_empty_folder_becomes_a_network_and_only_a_running_one_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let running = Layout::create(folder.path(), None, None).expect("a layout");
        assert!(matches!(Layout::create(folder.path(), None, None), Err(LocalNetworkError::NotEmpty { .. })));
        assert!(Layout::open_running(folder.path(), None).is_ok());
        drop(running);
        assert!(matches!(Layout::open_running(folder.path(), None), Err(LocalNetworkError::NotRunning { .. })));
    }
}
