//! `du [PATH]`: how many files and bytes lie there.

use crate::{args, exit::Failure, figures, output::Output};

pub(super) fn run(args: &args::Du, output: &Output) -> Result<(), Failure> {
    let path = super::vault_path(&args.path)?;
    let vault = super::open(&args.entry)?;
    let used = vault.disk_use(&path)?;
    output.facts(&used, || {
        vec![format!(
            "{} in {} and {}",
            figures::size(used.bytes),
            figures::count(used.files, "file", "files"),
            figures::count(used.folders, "folder", "folders"),
        )]
    })
}
