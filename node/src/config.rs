//! The node's config, `node.toml`: one struct per section, a doc comment per key.
//!
//! Every key has a default that just works. A key that is not known, or a value that is not allowed, is an error
//! that names the file, the line, the key and what is allowed. Nothing here opens a socket or touches the data.

mod error;
mod sample;
mod units;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use commonhold_network::Multiaddr;
use commonhold_policy::defaults;
use commonhold_protocol::NetworkName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

pub use self::{
    error::ConfigError,
    sample::{KeyDoc, sample},
    units::{Rate, Share, Size, Span, UnitError},
};

/// The most bytes of a config file or of a key file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most bytes of a node's name or of its domain.
const NAME_BYTES_MAX: usize = 64;
/// The most addresses in `listen`, and in `bootstrap`.
const ADDRESSES_MAX: usize = 64;
/// Networks made by `commonhold dev` have names that begin so.
const DEV_NETWORK_PREFIX: &str = "dev-";

/// A node's config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// This node.
    pub node: NodeSection,
    /// The network that it is part of.
    pub network: NetworkSection,
    /// What it lends.
    pub pledge: PledgeSection,
    /// How holders are audited.
    pub audit: AuditSection,
    /// How segments are repaired.
    pub repair: RepairSection,
    /// What becomes of vaults whose lease has run out.
    pub lease: LeaseSection,
    /// The status page.
    pub dashboard: DashboardSection,
    /// The folder of the config file: relative paths start there.
    #[serde(skip)]
    folder: PathBuf,
}

/// `[node]`: this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NodeSection {
    /// A name for people, shown on the status page.
    pub name: Option<String>,
    /// Where the node keeps its data.
    pub data_dir: PathBuf,
    /// Addresses to listen on.
    pub listen: Option<Vec<Address>>,
    /// Addresses of nodes to join the network through.
    pub bootstrap: Vec<Address>,
    /// The failure domain; private networks only.
    pub domain: Option<String>,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self { name: None, data_dir: PathBuf::from("."), listen: None, bootstrap: Vec::new(), domain: None }
    }
}

/// `[network]`: the network that the node is part of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NetworkSection {
    /// The network's name.
    pub name: Name,
    /// The pre-shared key that makes the network private.
    pub key: Option<KeySource>,
    /// Whether to look for nodes on the local network (mDNS) and to ask the router for a port (UPnP).
    pub local_discovery: Option<bool>,
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self { name: Name("main".parse().expect("a valid name")), key: None, local_discovery: None }
    }
}

/// `[pledge]`: what the node lends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PledgeSection {
    /// A hard limit, in bytes on disk.
    pub disk: Size,
    /// The disk is never filled beyond this.
    pub keep_free: Size,
    /// The most that one vault may place here.
    pub vault_max: Size,
    /// The part of `disk` that records may take.
    pub records: Share,
    /// The most that is sent.
    pub upload: Option<Rate>,
    /// The most that is received.
    pub download: Option<Rate>,
    /// Whether to lend bandwidth to nodes behind NAT.
    pub relay: bool,
    /// How long dropped shards are kept before their space is given back.
    pub trash: Span,
    /// How long it takes to read all shards once, to find those that the disk has lost.
    pub scrub: Span,
    /// How long it takes to tell the stewards of all shards once that they are held here.
    pub announce: Span,
}

impl Default for PledgeSection {
    fn default() -> Self {
        Self {
            disk: Size(200 << 30),
            keep_free: Size(10 << 30),
            vault_max: Size(5 << 30),
            records: Share(200),
            upload: None,
            download: None,
            relay: true,
            trash: days(7),
            scrub: days(14),
            announce: span(defaults::ANNOUNCE_MS),
        }
    }
}

/// `[audit]`: how holders are audited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct AuditSection {
    /// The mean time between audits of one shard, all stewards together.
    pub every: Span,
    /// How long a node may be silent before it counts as gone.
    pub grace: Span,
    /// How long a new record may take until enough of its shards have passed an audit; else it is forgotten.
    pub prove: Span,
}

impl Default for AuditSection {
    fn default() -> Self {
        let [every, grace] = [defaults::AUDIT_EVERY_MS, defaults::GRACE_MS].map(span);
        Self { every, grace, prove: Span(Duration::from_secs(60 * 60)) }
    }
}

/// `[repair]`: how segments are repaired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RepairSection {
    /// How long a segment above its threshold may stay below n.
    pub top_up: Span,
}

impl Default for RepairSection {
    fn default() -> Self {
        Self { top_up: span(defaults::TOP_UP_MS) }
    }
}

/// `[lease]`: what becomes of vaults whose lease has run out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LeaseSection {
    /// How long a vault is kept beyond the end of its lease.
    pub grace: Span,
    /// How long a node has to be up before it lets anything go for its age.
    pub uptime: Span,
}

impl Default for LeaseSection {
    fn default() -> Self {
        let rules = commonhold_policy::expiry::Rules::default();
        let span = |ms| Span(std::time::Duration::from_millis(ms));
        Self { grace: span(rules.grace_ms), uptime: span(rules.uptime_ms_min) }
    }
}

impl LeaseSection {
    /// The rules with these times.
    pub fn rules(&self) -> commonhold_policy::expiry::Rules {
        let (grace_ms, uptime_ms_min) = (self.grace.as_ms(), self.uptime.as_ms());
        commonhold_policy::expiry::Rules { grace_ms, uptime_ms_min, ..Default::default() }
    }
}

/// `[dashboard]`: the status page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DashboardSection {
    /// Where the status page, `/metrics` and `/health` are served.
    pub listen: std::net::SocketAddr,
}

impl Default for DashboardSection {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 4480).into() }
    }
}

fn span(ms: u64) -> Span {
    Span(Duration::from_millis(ms))
}

fn days(count: u64) -> Span {
    Span(Duration::from_secs(count * 86_400))
}

impl Config {
    /// Reads the config file at `path`; relative paths in it start at its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&text, path, folder)
    }

    /// Reads a config from `text`; errors call it `origin`.
    pub fn parse(text: &str, origin: &Path, folder: &Path) -> Result<Self, ConfigError> {
        let lines = error::Lines::new(origin, text)?;
        lines.refuse_unknown_keys()?;
        let mut config: Self = toml::from_str(text).map_err(|source| lines.bad_value(&source))?;
        config.folder = folder.to_owned();
        config.check(&lines)?;
        Ok(config)
    }

    /// What no single key can show: rules between keys, and lengths.
    fn check(&self, lines: &error::Lines<'_>) -> Result<(), ConfigError> {
        let too_long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > NAME_BYTES_MAX);
        if too_long(&self.node.name) {
            return Err(lines.conflict("node", "name", "at most 64 bytes are allowed"));
        }
        if too_long(&self.node.domain) || self.node.domain.as_ref().is_some_and(String::is_empty) {
            return Err(lines.conflict("node", "domain", "1 to 64 bytes are allowed"));
        }
        if self.node.domain.is_some() && !self.names_domains() {
            let allowed = "allowed in private networks only: set `[network] key`, or leave it out \
                           (in an open network the domain is the observed address)";
            return Err(lines.conflict("node", "domain", allowed));
        }
        let listen = self.node.listen.as_deref().unwrap_or_default();
        if self.network.key.is_some() && listen.iter().any(Address::is_quic) {
            let allowed = "a private network (`[network] key`) is TCP only: no /quic-v1 addresses are allowed";
            return Err(lines.conflict("node", "listen", allowed));
        }
        if self.node.listen.as_ref().is_some_and(Vec::is_empty) || listen.len() > ADDRESSES_MAX {
            return Err(lines.conflict("node", "listen", "1 to 64 addresses are allowed"));
        }
        if self.node.bootstrap.len() > ADDRESSES_MAX {
            return Err(lines.conflict("node", "bootstrap", "at most 64 addresses are allowed"));
        }
        if self.pledge.disk.0 == 0 {
            return Err(lines.conflict("pledge", "disk", "more than 0 bytes are needed"));
        }
        Ok(())
    }

    /// The folder of the node's data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join(&self.node.data_dir)
    }

    /// The network's name.
    pub fn network_name(&self) -> &NetworkName {
        &self.network.name.0
    }

    /// True if failure domains are configured names here, not observed addresses.
    pub fn names_domains(&self) -> bool {
        self.network.key.is_some() || self.is_dev_network()
    }

    /// True in a network made by `commonhold dev`.
    fn is_dev_network(&self) -> bool {
        self.network.name.0.as_str().starts_with(DEV_NETWORK_PREFIX)
    }

    /// Whether to use mDNS and UPnP: yes, except in networks made by `commonhold dev`.
    pub fn local_discovery(&self) -> bool {
        self.network.local_discovery.unwrap_or(!self.is_dev_network())
    }

    /// Where to listen: as configured, else TCP and (in an open network) QUIC at port 4400.
    pub fn listen(&self) -> Vec<Multiaddr> {
        match &self.node.listen {
            Some(listen) => listen.iter().map(|address| address.0.clone()).collect(),
            None => {
                let default: [Address; 2] =
                    ["/ip4/0.0.0.0/tcp/4400", "/ip4/0.0.0.0/udp/4400/quic-v1"].map(|text| text.parse().expect("valid"));
                let private = self.network.key.is_some();
                default.into_iter().filter(|address| !(private && address.is_quic())).map(|address| address.0).collect()
            }
        }
    }

    /// Nodes to join the network through.
    pub fn bootstrap(&self) -> Vec<Multiaddr> {
        self.node.bootstrap.iter().map(|address| address.0.clone()).collect()
    }

    /// The pre-shared key of a private network, read from its file.
    pub fn network_key(&self) -> Result<Option<Zeroizing<[u8; 32]>>, ConfigError> {
        let Some(KeySource(path)) = &self.network.key else { return Ok(None) };
        let path = self.folder.join(path);
        let text = Zeroizing::new(read_text(&path)?);
        let digits = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let mut key = Zeroizing::new([0; 32]);
        match hex::decode_to_slice(digits, key.as_mut()) {
            Ok(()) => Ok(Some(key)),
            Err(_) => Err(ConfigError::KeyFile { path }),
        }
    }
}

/// The config text `base` with the keys of `over` laid over it, section by section.
pub fn overlay(base: &str, over: &str, over_origin: &Path) -> Result<String, ConfigError> {
    let table = |text: &str| -> Result<toml::Table, ConfigError> {
        let lines = error::Lines::new(over_origin, text)?;
        lines.refuse_unknown_keys()?;
        text.parse().map_err(|source| lines.bad_value(&source))
    };
    let mut base = table(base)?;
    for (section, keys) in table(over)? {
        match (base.get_mut(&section), keys) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
            (_, keys) => {
                base.insert(section, keys);
            }
        }
    }
    Ok(base.to_string())
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// A multiaddress.
#[derive(Debug, Clone, PartialEq)]
pub struct Address(pub Multiaddr);

impl Address {
    fn is_quic(&self) -> bool {
        self.0.to_string().split('/').any(|part| part == "quic-v1" || part == "quic")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "expected a multiaddress, as in \"/ip4/0.0.0.0/tcp/4400\"";
        text.parse().map(Self).map_err(|_| allowed.to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network's name in the config.
#[derive(Debug, Clone, PartialEq)]
pub struct Name(pub NetworkName);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "expected 1 to 64 of a-z, 0-9 and -, as in \"main\"".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a secret is kept: `file:PATH`, so that the config itself holds none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource(pub PathBuf);

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "expected a file, as in \"file:network.key\"";
        match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(Self(PathBuf::from(path))),
            _ => Err(allowed.to_owned()),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.0.display())
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text!(Address, Name, KeySource);
