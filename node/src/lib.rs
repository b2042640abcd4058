//! The volunteer's daemon as a library.

pub mod clock;
pub mod config;
pub mod data_dir;
pub mod identity;
pub mod init;
pub mod records;
pub mod status;
pub mod steward;
