//! An open vault: its keys, its place in the network, and what can be done with it.

use std::{io::Write, ops::Range, path::Path, sync::Arc};

use commonhold_network::Multiaddr;
use commonhold_policy::parameters::{self, Churn, Wanted};
use commonhold_protocol::{Coding, Lease, NetworkName, VaultId, Verified, Version};
use commonhold_storage_engine::{
    keys::{VaultKeys, VaultSecret},
    tree::{
        directory,
        entry::{Entry, EntryKind, FileTime, Xattrs},
        map::TreeRoot,
        name::Name,
    },
};

use crate::{
    catalog::Catalog,
    error::{Error, IoContext},
    get::{self, GetOptions, GetReport},
    head_payload::HeadPayload,
    heads,
    home::{ClientConfig, Home},
    local_seal::LocalSeal,
    progress::Progress,
    put::{self, EntryCounts, Putter, Unreadable},
    reader::Reader,
    session::{Session, SessionConfig},
    transaction::{CommitReport, Transaction},
    vault_file,
    vault_path::VaultPath,
};

/// How a vault is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Further addresses to enter the network by, for when all that are known are gone.
    pub bootstrap: Vec<String>,
}

/// How a put is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// Replace what is at the target.
    pub overwrite: bool,
}

/// What a put did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PutReport {
    /// What was stored.
    pub entries: EntryCounts,
    /// Bytes of file contents.
    pub bytes: u64,
    /// What could not be read, and is not stored: the first 10,000.
    pub unreadable: Vec<Unreadable>,
    /// How much could not be read, in all.
    pub unreadable_total: u64,
    /// Files that a get has not finished, or never will: they are not stored.
    pub drafts_left_out: u64,
    /// How it became visible.
    pub commit: CommitReport,
    /// The shape of the code.
    pub coding: String,
    /// How likely a segment of that coding is lost in a year, where holders come and go as [`Churn::ASSUMED`] has it;
    /// none if there are fewer failure domains than shards.
    pub loss_per_year: Option<f64>,
    /// How long it took.
    pub seconds: f64,
}

/// One entry of a folder.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub entry: Entry,
}

/// What a path takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskUse {
    /// Files, links and others.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// One state of the vault.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) version: Version,
    pub(crate) payload: HeadPayload,
    pub(crate) lease: Option<Verified<Lease>>,
}

/// An open vault.
pub struct Vault {
    pub(crate) home: Home,
    pub(crate) keys: Arc<VaultKeys>,
    pub(crate) seal: Arc<LocalSeal>,
    pub(crate) wanted_coding: Option<Wanted>,
    pub(crate) session: Arc<Session>,
    pub(crate) reader: Reader,
}

impl Vault {
    /// Unlocks the vault of a home and connects to its network.
    pub fn open(home: &Home, passphrase: &str, options: &OpenOptions) -> Result<Self, Error> {
        let config = home.config()?;
        if !home.has_vault() {
            return Err(Error::NoVault { home: home.dir().to_owned() });
        }
        let secret = vault_file::read(&home.vault_file(), passphrase)?;
        Self::open_with(home, &config, &secret, options)
    }

    pub(crate) fn open_with(
        home: &Home,
        config: &ClientConfig,
        secret: &VaultSecret,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let addresses = config.client.bootstrap.iter().chain(&options.bootstrap);
        let session = Arc::new(Session::open(SessionConfig {
            network: config.network_name(home)?,
            network_key: config.network_key(home)?,
            local_discovery: config.client.local_discovery,
            bootstrap: addresses
                .map(|address| parse_address(address))
                .chain(home.remembered_nodes().iter().map(|address| parse_address(address)).filter(Result::is_ok))
                .collect::<Result<_, _>>()?,
        })?);
        if home.has_vault()
            && let Err(error) = home.remember_nodes(session.node_addresses().into_iter())
        {
            tracing::warn!("the addresses of today's nodes are not remembered: {error}");
        }
        let keys = Arc::new(VaultKeys::derive(secret));
        let reader = Reader::new(session.clone(), keys.clone(), Arc::new(Catalog::default()));
        let seal = Arc::new(LocalSeal::of(secret));
        Ok(Self { home: home.clone(), keys, seal, wanted_coding: config.coding(home)?, session, reader })
    }

    /// The vault's id.
    pub fn id(&self) -> VaultId {
        self.keys.vault_id()
    }

    /// The network that it is open on.
    pub fn network(&self) -> &NetworkName {
        self.session.network()
    }

    /// The newest state and, if devices wrote at once, its siblings.
    pub(crate) fn read_states(&self, progress: &Progress) -> Result<(State, Vec<State>), Error> {
        let mut states = self.read_newer(&Version::default(), progress)?;
        if states.is_empty() {
            let payload = HeadPayload::empty();
            return Ok((State { version: Version::default(), payload, lease: None }, Vec::new()));
        }
        self.reader.catalog().learn_heads(states.iter().map(|state| &state.payload));
        for hint in states.iter().flat_map(|state| &state.payload.nodes) {
            self.session.learn(hint);
        }
        let newest = states.remove(0);
        Ok((newest, states))
    }

    /// The maximal states that `known` does not cover.
    pub(crate) fn read_newer(&self, known: &Version, progress: &Progress) -> Result<Vec<State>, Error> {
        let read = heads::read(&self.session, &self.home, &self.keys, progress)?;
        let lease = read.lease;
        let states = read.heads.into_iter().filter(|(version, _)| !known.covers(version));
        Ok(states.map(|(version, payload)| State { version, payload, lease: lease.clone() }).collect())
    }

    /// The state to read from. Siblings are merged and the merge is written back, so that they are merged once; while
    /// too few nodes answer for that, the merge is ours alone.
    pub(crate) fn state(&self, progress: &Arc<Progress>) -> Result<State, Error> {
        let (newest, siblings) = self.read_states(progress)?;
        if siblings.is_empty() {
            return Ok(newest);
        }
        let transaction = Transaction::begin_merge(self, progress)?;
        let merged = transaction.current();
        match transaction.commit() {
            Ok(_) => Ok(self.read_states(progress)?.0),
            Err(
                error @ (Error::TooFewHolders { .. }
                | Error::OutOfReach(_)
                | Error::NotPlaced { .. }
                | Error::NotRecorded { .. }
                | Error::HeadNotKept { .. }),
            ) => {
                tracing::warn!("what two devices wrote at once is merged for now, but not stored: {error}");
                Ok(merged)
            }
            Err(error) => Err(error),
        }
    }

    /// The coding that is pinned here; a target is this home's own affair, and no head has it.
    pub(crate) fn pinned_coding(&self) -> Option<Coding> {
        self.wanted_coding.and_then(|wanted| match wanted {
            Wanted::Coding(coding) => Some(coding),
            Wanted::Target(_) => None,
        })
    }

    /// The coding that this home wants, else the one that is pinned for all.
    pub(crate) fn wanted_coding(&self, payload: &HeadPayload) -> Option<Wanted> {
        self.wanted_coding.or(payload.coding.map(Wanted::Coding))
    }

    /// The entry at a path.
    pub(crate) fn entry(&self, reader: &Reader, root: &TreeRoot, path: &VaultPath) -> Result<Entry, Error> {
        let found = directory::lookup(reader, &folder_entry(root.clone(), 0o755), path.names())?;
        found.ok_or_else(|| Error::NotFound { path: path.clone() })
    }

    /// Stores a file or folder of this machine at `target`; folders above it are made.
    pub fn put(
        &self,
        source: &Path,
        target: &VaultPath,
        options: &PutOptions,
        progress: &Arc<Progress>,
    ) -> Result<PutReport, Error> {
        let start = std::time::Instant::now();
        // Complain before, not after reading all of it.
        let metadata = std::fs::symlink_metadata(source).doing("read", source)?;
        if target.names().is_empty() && !metadata.is_dir() {
            // Only a folder can be the root.
            return Err(Error::NotAFolder { path: target.clone() });
        }
        let mut transaction = Transaction::begin(self, progress)?;
        transaction.check_target(target, options.overwrite)?;
        let _measuring = put::measure(source, progress);
        let mut putter = Putter::new(&mut transaction.packer, self.keys.chunker_seed(), progress);
        let entry = putter.entry(source, target.names().len())?;
        let Putter { counts, bytes, unreadable, unreadable_total, drafts_left_out, .. } = putter;
        let Some(entry) = entry else {
            let reason = unreadable.first().map_or_else(String::new, |unreadable| unreadable.reason.clone());
            return Err(std::io::Error::other(reason)).doing("read", source);
        };
        transaction.replace(target, Some(&entry), true)?;
        let coding = transaction.packer.coding()?;
        let is_spread = usize::from(coding.n()) <= transaction.domains;
        let (_, commit) = transaction.commit()?;
        self.look_again(&commit, progress);
        Ok(PutReport {
            entries: counts,
            bytes,
            unreadable,
            unreadable_total,
            drafts_left_out,
            commit,
            coding: coding.to_string(),
            loss_per_year: is_spread.then(|| parameters::loss_per_year(coding, &Churn::ASSUMED)),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Restores a file or folder to `target` on this machine.
    pub fn get(
        &self,
        source: &VaultPath,
        target: &Path,
        options: &GetOptions,
        progress: &Arc<Progress>,
    ) -> Result<GetReport, Error> {
        let reader = self.reader.for_operation(progress);
        let state = self.state(progress)?;
        let mut entry = self.entry(&reader, &state.payload.root, source)?;
        let written_at_ms = state.payload.written_at.0;
        if source.names().is_empty() && written_at_ms > 0 {
            // The root has no entry that says when it was changed; its head does.
            let nanoseconds = (written_at_ms % 1000 * 1_000_000) as u32;
            entry.modified = FileTime::new((written_at_ms / 1000) as i64, nanoseconds).unwrap_or_default();
        }
        get::get(&reader, &entry, target, options, progress)
    }

    /// Writes a file's bytes, or a range of them, to `out`; gives how many.
    pub fn cat(
        &self,
        path: &VaultPath,
        range: Option<Range<u64>>,
        out: &mut dyn Write,
        progress: &Arc<Progress>,
    ) -> Result<u64, Error> {
        let reader = self.reader.for_operation(progress);
        let state = self.state(progress)?;
        let entry = self.entry(&reader, &state.payload.root, path)?;
        let EntryKind::File(content) = &entry.kind else { return Err(Error::NotAFile { path: path.clone() }) };
        get::cat(&reader, content, range.unwrap_or(0..u64::MAX), out, progress)
    }

    /// Opens a file for many small reads.
    pub fn open_file(&self, path: &VaultPath) -> Result<get::OpenedFile, Error> {
        let state = self.state(&Arc::default())?;
        let entry = self.entry(&self.reader, &state.payload.root, path)?;
        match entry.kind {
            EntryKind::File(content) => Ok(get::OpenedFile::new(self.reader.clone(), content)),
            _ => Err(Error::NotAFile { path: path.clone() }),
        }
    }

    /// Hands on the entries of a folder, in order of names; anything else lists itself.
    pub fn list(&self, path: &VaultPath, each: &mut dyn FnMut(Listed) -> Result<(), Error>) -> Result<(), Error> {
        let state = self.state(&Arc::default())?;
        let entry = self.entry(&self.reader, &state.payload.root, path)?;
        let Some(tree) = entry.directory() else {
            let name = path.names().last().cloned().ok_or_else(|| Error::NotFound { path: path.clone() })?;
            return each(Listed { name, entry });
        };
        for listed in directory::list(&self.reader, tree, None) {
            let (name, entry) = listed?;
            each(Listed { name, entry })?;
        }
        Ok(())
    }

    /// Takes a file, or a folder with all that is in it, out of the drive.
    pub fn remove(&self, path: &VaultPath) -> Result<CommitReport, Error> {
        let mut transaction = Transaction::begin(self, &Arc::default())?;
        transaction.entry(path)?;
        transaction.replace(path, None, false)?;
        self.committed(transaction)
    }

    /// Moves an entry to a path where nothing is yet; into a folder that is there, under its own name.
    pub fn rename(&self, from: &VaultPath, to: &VaultPath) -> Result<CommitReport, Error> {
        let mut transaction = Transaction::begin(self, &Arc::default())?;
        let entry = transaction.entry(from)?;
        let Some((_, name)) = from.split_last() else { return Err(Error::IntoItself { path: from.clone() }) };
        let to = match transaction.entry(to) {
            Ok(existing) if existing.directory().is_some() => to.join(name.clone()),
            _ => to.clone(),
        };
        if to.starts_with(from) {
            return Err(Error::IntoItself { path: from.clone() });
        }
        transaction.check_target(&to, false)?;
        transaction.replace(from, None, false)?;
        transaction.replace(&to, Some(&entry), false)?;
        self.committed(transaction)
    }

    /// Makes an empty folder, and those above it.
    pub fn make_folder(&self, path: &VaultPath) -> Result<CommitReport, Error> {
        let mut transaction = Transaction::begin(self, &Arc::default())?;
        transaction.check_target(path, false)?;
        transaction.replace(path, Some(&folder_entry(TreeRoot::EMPTY, 0o755)), true)?;
        self.committed(transaction)
    }

    fn committed(&self, transaction: Transaction<'_>) -> Result<CommitReport, Error> {
        let (_, commit) = transaction.commit()?;
        self.look_again(&commit, &Arc::default());
        Ok(commit)
    }

    /// Merges with whoever wrote at the same moment, if the change refers to chunks that were stored before: who prunes
    /// may take them for unused, and one of us has to see the other's head. See [`crate::prune`].
    fn look_again(&self, commit: &CommitReport, progress: &Arc<Progress>) {
        if commit.figures.chunks_known > 0
            && let Err(error) = self.state(progress)
        {
            tracing::warn!("whether somebody pruned at the same moment is not known: {error}");
        }
    }

    /// Adds up a path.
    pub fn disk_use(&self, path: &VaultPath) -> Result<DiskUse, Error> {
        let state = self.state(&Arc::default())?;
        let mut total = DiskUse::default();
        let mut folders = vec![self.entry(&self.reader, &state.payload.root, path)?];
        while let Some(entry) = folders.pop() {
            let Some(tree) = entry.directory() else {
                total.files += 1;
                total.bytes += entry.size();
                continue;
            };
            total.folders += 1;
            for listed in directory::list(&self.reader, tree, None) {
                let (_, entry) = listed?;
                if entry.directory().is_some() {
                    folders.push(entry);
                } else {
                    total.files += 1;
                    total.bytes += entry.size();
                }
            }
        }
        Ok(total)
    }
}

/// A folder of our own making.
pub(crate) fn folder_entry(tree: TreeRoot, mode: u32) -> Entry {
    let seconds = (crate::session::now().0 / 1000) as i64;
    Entry {
        kind: EntryKind::Directory(tree),
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        modified: FileTime::new(seconds, 0).unwrap_or_default(),
        link_group: None,
        xattrs: Xattrs::default(),
    }
}

/// A node's address with its id.
pub(crate) fn parse_address(address: &str) -> Result<Multiaddr, Error> {
    let bad = || Error::BadAddress { address: address.to_owned() };
    let parsed: Multiaddr = address.trim().parse().map_err(|_| bad())?;
    if parsed.to_string().contains("/p2p/") { Ok(parsed) } else { Err(bad()) }
}
