//! `rm`, `mv` and `mkdir`: changes of the vault's tree that move no file content.

use crate::{args, exit::Failure, output::Output};

pub(super) fn remove(args: &args::Rm, output: &Output) -> Result<(), Failure> {
    let path = super::vault_path(&args.path)?;
    let vault = super::open(&args.entry)?;
    let report = vault.remove(&path)?;
    output.done(&report, Vec::new)?;
    super::remark_on_commit(output, &report);
    Ok(())
}

pub(super) fn rename(args: &args::Mv, output: &Output) -> Result<(), Failure> {
    let (from, to) = (super::vault_path(&args.from)?, super::vault_path(&args.to)?);
    let vault = super::open(&args.entry)?;
    let report = vault.rename(&from, &to)?;
    output.done(&report, Vec::new)?;
    super::remark_on_commit(output, &report);
    Ok(())
}

pub(super) fn make_folder(args: &args::Mkdir, output: &Output) -> Result<(), Failure> {
    let path = super::vault_path(&args.path)?;
    let vault = super::open(&args.entry)?;
    let report = vault.make_folder(&path)?;
    output.done(&report, Vec::new)?;
    super::remark_on_commit(output, &report);
    Ok(())
}
