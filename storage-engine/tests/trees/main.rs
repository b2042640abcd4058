//! Trees of directories and files: in one binary, since each one more has to be linked.

mod entry;
mod file;
mod golden;
mod hostile;
mod map;
mod memory;
mod merge;
