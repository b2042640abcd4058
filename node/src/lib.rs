//! The volunteer's daemon, as a library: pledge, holder, steward.
//!
//! [`Node::run`] opens what lies on the disk, starts the peer and serves until it is told to stop. [`holder`] takes
//! shards and serves ranges of them with proofs, [`steward`] keeps records, heads, leases and drops, [`sweep`] hands
//! them on as nodes come and go. What is decided is decided by `commonhold-policy`; what is stored lies in
//! `commonhold-storage-engine` (shards) and in [`records`]. No key of any vault is ever known here.

pub mod auditor;
pub mod clock;
pub mod config;
mod cpu_time;
pub mod custody;
pub mod dashboard;
pub mod data_dir;
pub mod expiry;
pub mod fsck;
pub mod holder;
pub mod identity;
pub mod init;
mod kept_file;
mod leases;
pub mod neighbours;
pub mod node;
mod recent;
pub mod records;
pub mod scrub;
pub mod service;
pub mod status;
pub mod steward;
pub mod sweep;
mod turns;

pub use commonhold_network::{NoObserver, Observer, Way};
pub use config::{Config, ConfigError};
pub use fsck::{FsckError, FsckReport, fsck};
pub use init::{CONFIG_FILE, InitError, InitReport, init};
pub use node::{Node, NodeError};
pub use service::{NodeService, Service};
pub use status::{NodeStatus, StatusError, status_of};
