//! `mount DIR` and `umount DIR`: the vault as a read-only drive, for as long as the command runs.

use std::{path::Path, sync::Arc, time::Duration};

use commonhold_client_sdk::Progress;
use commonhold_fuse_mount::{self as drive, MountOptions};
use serde::Serialize;

use crate::{args, exit::Failure, interrupt, output::Output};

/// How soon it is noticed that somebody else has unmounted the drive.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A drive in JSON.
#[derive(Serialize)]
struct Drive<'d> {
    dir: &'d Path,
}

pub(super) fn run(args: &args::Mount, output: &Output) -> Result<(), Failure> {
    let mut options = MountOptions::default();
    args.options.iter().try_for_each(|words| options.add(words))?;
    // Before anybody is asked for a passphrase in vain.
    drive::check(&args.dir, &options)?;
    let vault = super::open(&args.entry)?;
    let stop = interrupt::interrupts(&Arc::new(Progress::default())).map_err(Failure::Signals)?;
    let mounted = drive::mount(vault, &args.dir, &options)?;
    let dir = mounted.dir();
    let line = format!("mounted read-only at {}", crate::escape::text(&dir.to_string_lossy()));
    output.done(&Drive { dir }, || vec![line])?;
    while !stop.wait(LOOK_EVERY) && !mounted.has_ended() {}
    Ok(mounted.unmount()?)
}

pub(super) fn unmount(args: &args::Umount) -> Result<(), Failure> {
    Ok(drive::unmount(&args.dir)?)
}
