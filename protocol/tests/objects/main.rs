//! Signed objects, records and messages: in one binary, since each one more has to be linked.

mod claims;
mod format_page;
mod golden;
mod round_trip;
mod signatures;
mod strategies;
