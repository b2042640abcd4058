//! The repairer.
mod rebuild;
