//! What each node decides, as machines and plans: the same code in the node, in the client and in the simulator.
//!
//! A one-shot decision is a plain function from plain values to a plan. A decision that lasts over time is a machine,
//! `handle(now, event) -> actions`, whose timers are actions that come back as events. Nothing here opens a socket or
//! a file, reads a clock, spawns anything or draws randomness of its own (`clippy.toml` beside this crate forbids it),
//! so the same inputs always give the same decisions. What was signed comes in verified or not at all.
//!
//! ```
//! use commonhold_policy::parameters;
//!
//! let coding = parameters::choose(None, 14)?;
//! assert_eq!((coding.k(), coding.n()), (5, 10));
//! # Ok::<(), parameters::TooFewHolders>(())
//! ```

pub mod admission;
pub mod audit;
pub mod budget;
pub mod defaults;
pub mod domain;
pub mod drops;
pub mod expiry;
pub mod failure;
pub mod fetch;
pub mod heads;
pub mod leases;
pub mod life;
pub mod parameters;
pub mod peer_health;
pub mod placement;
pub mod records;
pub mod repair;
pub mod reports;
pub mod reputation;
pub mod segment_health;
pub mod stewards;
pub mod store;
pub mod surplus;
pub mod sweep;

pub use audit::detection::detection_delay;
pub use domain::Domain;
pub use failure::Failure;
pub use peer_health::{PeerHealth, Standing};
