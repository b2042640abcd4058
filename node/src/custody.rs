//! Custody: what a holder does so that its shards stay known, are held once, and move on when it leaves.
//!
//! `announce` tells stewards, slowly and again and again, what is held here, so that a record that all its stewards
//! lost comes back; from their answers `surplus` learns of shards that somebody else keeps by now. `drain` hands
//! shards on. All of it asks the stewards of segments (`colleagues`) and trusts none of them alone.

pub(crate) mod announce;
pub(crate) mod colleagues;
pub mod drain;
mod surplus;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

pub use self::drain::{DrainState, DrainStatus, Hindrance, Stuck};

/// What was done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodySnapshot {
    /// Shards that their stewards were told of; again and again.
    pub announced: u64,
    /// Claims sent to stewards that had not known them.
    pub claims_renewed: u64,
    /// Shards given up since another node keeps them.
    pub surplus_released: u64,
    /// Their bytes.
    pub surplus_bytes: u64,
    /// Shards handed on to other nodes.
    pub handed_on: u64,
    /// Their bytes.
    pub handed_on_bytes: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub struct CustodyFigures {
    announced: AtomicU64,
    claims_renewed: AtomicU64,
    surplus_released: AtomicU64,
    surplus_bytes: AtomicU64,
    handed_on: AtomicU64,
    handed_on_bytes: AtomicU64,
}

impl CustodyFigures {
    /// As it stands.
    pub fn snapshot(&self) -> CustodySnapshot {
        CustodySnapshot {
            announced: self.announced.load(Relaxed),
            claims_renewed: self.claims_renewed.load(Relaxed),
            surplus_released: self.surplus_released.load(Relaxed),
            surplus_bytes: self.surplus_bytes.load(Relaxed),
            handed_on: self.handed_on.load(Relaxed),
            handed_on_bytes: self.handed_on_bytes.load(Relaxed),
        }
    }
}
