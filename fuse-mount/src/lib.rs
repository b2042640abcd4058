//! A vault as a drive: mounted read-only through FUSE.
//!
//! A system call comes in through `fuse`, the shell, which translates and decides nothing; what it means for a vault
//! is in `fs`, which number stands for which file in `inode`, listing folders in `handle`, every error number in
//! `errno`. `mount` checks a folder, puts the drive there and takes it away. Where entries come from is behind
//! [`Drive`], so that all but the shell runs in tests without a kernel.
//!
//! Nothing pretends: the drive cannot be written, and says so.

mod drive;
mod errno;
mod fs;
mod fuse;
mod handle;
mod inode;
mod mount;
mod options;

pub use drive::Drive;
pub use mount::{MountError, Mounted, check, mount, unmount};
pub use options::{MountOptions, OptionError};
