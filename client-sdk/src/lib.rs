//! The owner's library: a vault on a network of volunteers' nodes.
//!
//! The way of a file through this crate, in order of modules: [`put`](Vault::put) walks a folder (`put`,
//! `local_files`), chunks are packed into segments (`packer`, `dedup`), placed and recorded (`upload`), noted for the
//! case that we are killed (`journal`), entered in the vault's `table`, and become visible when a head is written
//! (`heads`, `head_payload`, `vault`). A get finds its way back: `heads`, `catalog`, `download`, `reader`, `restore`; a mounted drive looks through `drive`.
//!
//! All of it is synchronous; a thread of its own runs the sockets (`session`).

#[cfg(any(test, feature = "fuzzing"))]
pub mod any_bytes;
mod catalog;
mod dedup;
mod download;
mod drive;
mod error;
mod get;
mod head_payload;
mod heads;
mod health;
mod history;
mod home;
mod journal;
mod local_files;
mod local_seal;
#[cfg(test)]
mod memory_source;
mod packer;
mod phrase;
mod progress;
mod prune;
mod put;
mod reader;
mod report;
mod restore;
mod session;
mod setup;
mod spool;
mod table;
mod tombstones;
mod transaction;
mod upload;
mod vault;
mod vault_file;
mod vault_path;

pub use commonhold_policy::parameters;
pub use commonhold_storage_engine::tree::{
    entry::{Entry, EntryKind, FileContent, FileTime},
    name::Name,
};
pub use drive::View;
pub use error::{Error, UnavailableSegment};
pub use get::{GetOptions, GetReport, OpenedFile};
pub use health::{Degraded, Outlook, SegmentHealth};
pub use home::{ClientConfig, ClientSection, Home, NetworkSection};
pub use packer::PackFigures;
pub use phrase::Phrase;
pub use progress::Progress;
pub use prune::{PruneOptions, PruneReport};
pub use put::{EntryCounts, Unreadable};
pub use report::{ClockReport, PeerInfo, VaultStatus};
pub use restore::NotRestored;
pub use setup::{create, recover};
pub use transaction::CommitReport;
pub use vault::{DiskUse, Listed, OpenOptions, PutOptions, PutReport, Vault};
pub use vault_path::VaultPath;
