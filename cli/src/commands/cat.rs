//! `cat PATH`: the bytes of a file on stdout, and nothing else there.

use std::{io, sync::Arc};

use commonhold_client_sdk::Progress;

use crate::{args, exit::Failure, interrupt, output::Output};

pub(super) fn run(args: &args::Cat, _output: &Output) -> Result<(), Failure> {
    let path = super::vault_path(&args.path)?;
    let range = match (args.offset, args.length) {
        (0, None) => None,
        (start, length) => Some(start..start.saturating_add(length.unwrap_or(u64::MAX))),
    };
    let vault = super::open(&args.entry)?;
    let progress = Arc::new(Progress::default());
    interrupt::interrupts(&progress).map_err(Failure::Signals)?;
    // The lock is not buffered by lines: what is written may be large and binary.
    let mut out = io::BufWriter::with_capacity(256 << 10, io::stdout().lock());
    vault.cat(&path, range, &mut out, &progress)?;
    io::Write::flush(&mut out).map_err(Failure::Output)?;
    Ok(())
}
