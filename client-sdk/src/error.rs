//! What can go wrong for an owner. Each error names the path, segment or peer; help texts and exit codes live in the
//! command line.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use commonhold_policy::parameters::{NoCoding, OutOfReach, TooFewHolders};
use commonhold_protocol::{NodeId, SegmentId, Version, ask::Refusal};
use commonhold_storage_engine::tree::TreeError;

use crate::vault_path::VaultPath;

/// A segment that could not be read: fewer than `needed` of its shards answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnavailableSegment {
    /// Which.
    pub segment: SegmentId,
    /// Shards that could be reached.
    pub reachable: usize,
    /// Shards that restore it.
    pub needed: usize,
}

impl fmt::Display for UnavailableSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}: {} shards reachable, {} needed", self.segment, self.reachable, self.needed)
    }
}

/// Why an operation on a vault failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No vault was made in this home.
    #[error("no vault in {}", home.display())]
    NoVault {
        /// The home.
        home: PathBuf,
    },
    /// A vault is there already.
    #[error("{} holds a vault already", home.display())]
    VaultExists {
        /// The home.
        home: PathBuf,
    },
    /// The config cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with key or line and what is allowed.
        reason: String,
    },
    /// A file or folder of this machine.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Standard output or another sink failed.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// Argon2 does not take the passphrase.
    #[error("this passphrase cannot be used: it is too long")]
    PassphraseUnusable,
    /// The vault file does not open.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The words are no phrase.
    #[error("this is not a recovery phrase: {reason}")]
    WrongPhrase {
        /// Why not.
        reason: String,
    },
    /// A well-formed phrase, but the network knows no vault of it.
    #[error("no vault with this recovery phrase is known on network {network}")]
    UnknownVault {
        /// The network.
        network: String,
    },
    /// The vault file's checksum does not fit.
    #[error("{} is damaged", path.display())]
    VaultFileDamaged {
        /// The file.
        path: PathBuf,
    },
    /// More processes write from one home than it has devices for.
    #[error("more than {writers_max} processes write from {}", home.display())]
    TooManyWriters {
        /// The home.
        home: PathBuf,
        /// The limit.
        writers_max: usize,
    },
    /// Others changed the vault again and again while a change was merged with theirs.
    #[error("others changed the vault {rounds} times while this change was merged with theirs")]
    Contended {
        /// How often it was merged in vain.
        rounds: usize,
    },
    /// Our own networking did not start.
    #[error("networking did not start: {0}")]
    Network(#[from] commonhold_network::NetworkError),
    /// Not one node was reached.
    #[error("no node of network {network} could be reached ({tried} addresses tried)")]
    NoNetwork {
        /// The network.
        network: String,
        /// Addresses tried.
        tried: usize,
    },
    /// Too few nodes to store on.
    #[error("{have} nodes can store here, {need} are needed")]
    TooFewHolders {
        /// Nodes that could take shards.
        have: usize,
        /// Nodes that are needed.
        need: usize,
    },
    /// Too few nodes for the durability target.
    #[error(transparent)]
    OutOfReach(OutOfReach),
    /// A segment could not be placed on enough holders.
    #[error("segment {segment}: {placed} shards placed, {needed} needed; {}", refusals_text(refusals))]
    NotPlaced {
        /// Which segment.
        segment: SegmentId,
        /// Shards placed and claimed.
        placed: usize,
        /// Shards that make a put safe.
        needed: usize,
        /// What the holders said.
        refusals: Vec<(NodeId, String)>,
    },
    /// Too few stewards keep a segment's record.
    #[error("the record of segment {segment} is kept by {kept} stewards, {needed} are needed")]
    NotRecorded {
        /// Which segment.
        segment: SegmentId,
        /// Stewards that keep it.
        kept: usize,
        /// Stewards that are needed.
        needed: usize,
    },
    /// Segments that are stored, but cannot be read now.
    #[error("data unavailable: {}", list(segments))]
    Unavailable {
        /// Which, with counts.
        segments: Vec<UnavailableSegment>,
    },
    /// Enough shards, but what they restore does not open.
    #[error("segment {segment} is damaged: {reason}")]
    Damaged {
        /// Which segment.
        segment: SegmentId,
        /// What does not fit.
        reason: String,
    },
    /// No steward gave a head, though this home has written or seen one.
    #[error("no steward of this vault answers with its head ({asked} asked)")]
    NoHead {
        /// Stewards asked.
        asked: usize,
    },
    /// The network only has heads older than one that this home has seen.
    #[error("the network offers an older state of this vault than this machine has seen")]
    OlderHead {
        /// What this home remembers.
        seen: Version,
        /// What was offered.
        offered: Version,
    },
    /// A head that is signed, but does not open or cannot be understood.
    #[error("the vault's head cannot be read: {reason}")]
    HeadDamaged {
        /// What does not fit.
        reason: String,
    },
    /// Too few stewards took the new head.
    #[error("the new head is kept by {kept} of {asked} stewards, {needed} are needed; {}", refused_text(refused))]
    HeadNotKept {
        /// Stewards that keep it.
        kept: usize,
        /// Stewards asked.
        asked: usize,
        /// Stewards that are needed.
        needed: usize,
        /// What the others said.
        refused: Vec<Refusal>,
    },
    /// More content in one head than fits.
    #[error("the vault's head grew beyond {bytes_max} bytes")]
    HeadTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Nothing at this path.
    #[error("{path}: not in the vault")]
    NotFound {
        /// The path.
        path: VaultPath,
    },
    /// Something is at this path already.
    #[error("{path}: exists already in the vault")]
    Exists {
        /// The path.
        path: VaultPath,
    },
    /// A file or folder of this machine is in the way.
    #[error("{} exists already", path.display())]
    TargetExists {
        /// The path.
        path: PathBuf,
    },
    /// A folder was expected.
    #[error("{path}: not a folder")]
    NotAFolder {
        /// The path.
        path: VaultPath,
    },
    /// A file was expected.
    #[error("{path}: not a file")]
    NotAFile {
        /// The path.
        path: VaultPath,
    },
    /// A folder cannot be moved into itself.
    #[error("{path}: cannot be moved into itself")]
    IntoItself {
        /// The path.
        path: VaultPath,
    },
    /// Not a path of a vault.
    #[error("{path:?} is not a path in a vault: {reason}")]
    BadPath {
        /// As given.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A tree of the vault does not decode.
    #[error("a tree of the vault cannot be read or written: {reason}")]
    TreeDamaged {
        /// What does not fit.
        reason: String,
    },
    /// An address that is not one.
    #[error("{address:?} is not a node's address: expected a multiaddress that ends in /p2p/ID")]
    BadAddress {
        /// As given.
        address: String,
    },
    /// Stopped on the user's word.
    #[error("interrupted")]
    Interrupted,
    /// The transfer thread is gone.
    #[error("the networking thread has stopped")]
    Stopped,
}

fn list(segments: &[UnavailableSegment]) -> String {
    segments.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn refusals_text(refusals: &[(NodeId, String)]) -> String {
    let mut texts: Vec<String> = refusals.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    texts.sort();
    texts.dedup();
    texts.join("; ")
}

fn refused_text(refused: &[Refusal]) -> String {
    let mut texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts.join("; ")
}

/// Says on which path of this machine what was tried.
pub(crate) trait IoContext<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}

impl From<NoCoding> for Error {
    fn from(error: NoCoding) -> Self {
        match error {
            NoCoding::TooFewHolders(TooFewHolders { have, need }) => Self::TooFewHolders { have, need },
            NoCoding::OutOfReach(error) => Self::OutOfReach(error),
        }
    }
}

impl From<TreeError<Self>> for Error {
    fn from(error: TreeError<Self>) -> Self {
        match error {
            TreeError::Chunk(error) => error,
            other => Self::TreeDamaged { reason: other.to_string() },
        }
    }
}

impl From<TreeError<std::convert::Infallible>> for Error {
    fn from(error: TreeError<std::convert::Infallible>) -> Self {
        Self::TreeDamaged { reason: error.to_string() }
    }
}
